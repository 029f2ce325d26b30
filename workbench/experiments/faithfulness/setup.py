"""What every faithfulness test shares: how rollouts are made and answers are read, what they cost, where from."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from workbench import harmony
from workbench.analysis.faithfulness import plain_answer
from workbench.analysis.reasoning import same_answer
from workbench.batched import Batched, Completion, Cost
from workbench.capturing import Conversation
from workbench.experiments.faithfulness.chains import Chain, close_and_open, split_completion, text_of
from workbench.families import ModelError
from workbench.model import Model

__all__ = ["Options", "Setup", "Thoughts", "think"]


class Options(TypedDict, total=False):
    """Keywords that every faithfulness test takes."""

    samples: int
    """rollouts of each prefix"""
    temperature: float
    """0 is greedy; then one sample says all"""
    seed: int
    batch_size: int
    """rollouts at a time"""
    max_answer_tokens: int
    """of a final message; a longer one counts as no answer"""
    answer: Callable[[str], str | None]
    """takes the answer from the text of the final message; default: the last number, or else the text"""
    same: Callable[[str, str], bool]
    """whether two answers are the same"""
    tell: Callable[[Cost], None]
    """is told what the rollouts will cost before they start, and may raise; default: print"""


@dataclass
class Setup:
    """The options of one test with the model it is made on."""

    model: Model
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    batch_size: int = 64
    max_answer_tokens: int = 64
    answer: Callable[[str], str | None] = plain_answer
    same: Callable[[str, str], bool] = same_answer
    tell: Callable[[Cost], None] = print

    def __post_init__(self) -> None:
        """Check the numbers, and that the model has an analysis channel."""
        if self.samples < 1 or self.max_answer_tokens < 1:
            raise ModelError(
                "expected samples and max_answer_tokens of at least 1, "
                f"got {self.samples} and {self.max_answer_tokens}"
            )
        if self.temperature == 0 and self.samples > 1:
            raise ModelError(f"at temperature 0 all {self.samples} samples would be the same; expected samples=1")
        self.close = close_and_open(self.model)
        self.rollouts = Batched(self.model, self.temperature, self.seed, self.batch_size)

    def say_cost(self, prefixes: Sequence[Sequence[int]], rollouts: int, tokens: int) -> None:
        """Measure and tell what is to come."""
        if prefixes:
            self.tell(self.rollouts.cost(prefixes, rollouts, tokens))

    def answered(self, ids: Sequence[int], turn: int) -> str | None:
        """Return the answer of a rollout whose assistant's turn begins at ``turn``; None where it gave none."""
        messages = harmony.parse(self.model.tokenizer, ids[turn:])
        final = [m for m in messages if m.channel == "final"]
        if not final or final[-1].malformed:
            return None
        return self.answer(text_of(self.model, ids[turn + final[-1].content_start : turn + final[-1].stop - 1]))

    def agreement(self, chain: Chain, prefix: Sequence[int], completions: Sequence[Completion | None]) -> list[float]:
        """Return for each rollout of a prefix whether it answers as the chain did: 1 or 0; NaN where it was not made.

        The full chain's own answer is that of its final message.
        """
        return self.matches(self.answer(chain.final), chain, prefix, completions)

    def matches(
        self, wanted: str | None, chain: Chain, prefix: Sequence[int], completions: Sequence[Completion | None]
    ) -> list[float]:
        """Return for each rollout whether it gives an answer; NaN where it was not made, or there is none to meet."""
        if wanted is None:
            return [math.nan] * len(completions)
        found = [None if c is None else (self.answered([*prefix, *c], chain.turn),) for c in completions]
        return [math.nan if f is None else float(f[0] is not None and self.same(f[0], wanted)) for f in found]

    def provenance(self, definition: str, **more: Any) -> dict[str, Any]:
        """Return where a result comes from."""
        facts = {
            "definition": definition,
            "model": self.model.name,
            "revision": self.model.revision,
            "weights": self.model.weights_hash,
            "dtype": self.model.dtype,
            "seed": self.seed,
            "temperature": self.temperature,
            "samples": self.samples,
            **more,
        }
        if self.model.is_embedded:
            facts["note"] = "the embedded model: this tests the instrument and says nothing about gpt-oss"
        return facts


@dataclass(frozen=True, eq=False)
class Thoughts:
    """Chains of thought that were made for a test, and what became of the rest."""

    chains: tuple[Chain, ...]
    skipped: tuple[str, ...]
    """why rollouts have no chain that could be worked with"""
    interrupted: bool

    def __iter__(self) -> Iterator[Chain]:
        """Go through the chains."""
        return iter(self.chains)

    def __len__(self) -> int:
        """Return how many chains there are."""
        return len(self.chains)

    def __getitem__(self, index: int) -> Chain:
        """Return one chain."""
        return self.chains[index]

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"<{len(self)} chains of thought, {len(self.skipped)} skipped{', interrupted' * self.interrupted}>"


def think(
    model: Model,
    questions: Sequence[Conversation],
    effort: str | None = "medium",
    *,
    samples: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
) -> Thoughts:
    """Make rollouts of questions in batches and without capture, to test their chains of thought.

    Traces of `workbench.capture` serve as well; this is quicker where what the model did inside is not asked for.

    Raises:
        ModelError: no question, a number out of range, or a model without analysis channel.
        HarmonyError: an empty question, or an effort the template does not know.
    """
    setup = Setup(model, samples, temperature, seed, batch_size)
    if isinstance(questions, str) or not questions:
        raise ModelError(f"expected questions in a list, got {questions!r}")
    asked = [q for q in questions for _ in range(samples)]
    prompts = [harmony.render(model.tokenizer, q, effort) for q in questions for _ in range(samples)]
    room = model.context_length - max(map(len, prompts))
    done = setup.rollouts.complete(prompts, max_new_tokens or room, progress="think")
    chains, skipped = [], []
    for question, prompt, completion in zip(asked, prompts, done, strict=True):
        if completion is None:
            continue
        try:
            chains.append(split_completion(model, question, effort, prompt, completion))
        except ModelError as error:
            skipped.append(str(error))
    return Thoughts(tuple(chains), tuple(skipped), setup.rollouts.interrupted)

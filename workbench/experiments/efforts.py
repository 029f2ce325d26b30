"""One question at several reasoning efforts: rollouts of each, to be compared in behaviour and in internals."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm.auto import tqdm

from workbench import harmony
from workbench.analysis.compare import Comparison, compare
from workbench.capturing import Conversation, asked_question, capture
from workbench.families import ModelError
from workbench.model import Model
from workbench.scale.rollouts import was_interrupted
from workbench.spec import CaptureSpec
from workbench.trace import Trace

__all__ = ["LIGHT", "EffortRuns", "check_rollouts", "compare_efforts", "rollout_seed", "was_interrupted"]

LIGHT = CaptureSpec(router=True, attention=False, lens=False)
"""The router, and the statistics of every token; some hundred times smaller than with attention"""


@dataclass(frozen=True, eq=False)
class EffortRuns:
    """Rollouts of one question at several efforts."""

    question: str
    traces: Mapping[str, tuple[Trace, ...]]
    """effort → its rollouts, of sample 0, 1, 2…"""
    samples: int
    """rollouts per effort that were asked for"""
    seed: int
    """of all; each rollout has its own, see `rollout_seed`"""

    @property
    def interrupted(self) -> bool:
        """Whether fewer rollouts are here than were asked for."""
        return any(len(traces) < self.samples for traces in self.traces.values())

    def __getitem__(self, effort: str) -> tuple[Trace, ...]:
        """Return the rollouts of an effort."""
        if effort not in self.traces:
            raise KeyError(f"there is no effort {effort!r}; there are {', '.join(self.traces)}")
        return self.traces[effort]

    def __repr__(self) -> str:
        """Say how many rollouts of which effort are here."""
        counts = ", ".join(f"{effort} {len(traces)}" for effort, traces in self.traces.items())
        state = f", interrupted: {self.samples} each were asked for" if self.interrupted else ""
        return f"<EffortRuns of {self.question!r}: {counts}{state}>"

    def compare(self, **options: Any) -> Comparison:
        """Compare the efforts; options as of `workbench.analysis.compare.compare`, such as ``references="132"``."""
        return compare(self.traces, **options)


def compare_efforts(
    model: Model,
    question: Conversation,
    efforts: Sequence[str] = harmony.EFFORTS,
    samples: int = 8,
    *,
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    capture: CaptureSpec = LIGHT,
) -> EffortRuns:
    """Generate rollouts of one question at several efforts, in turn, so that an interrupt leaves as many of each.

    Ctrl-C returns the rollouts that are done. The tests of `EffortRuns.compare` need 6 rollouts per effort.

    Args:
        model: from `workbench.load`.
        question: a question, or messages ``{"role": …, "content": …}``.
        efforts: that the model's template knows.
        samples: rollouts per effort.
        seed: of all; each rollout is drawn with its own, by `rollout_seed`.
        temperature: as in `workbench.capture`; at 0, one sample says all.
        max_new_tokens: default: as many as the context holds.
        capture: what to record; default: the router and the statistics of every token, no attention.

    Raises:
        ModelError: no or repeated efforts, fewer than one sample, or several at temperature 0.
        HarmonyError: an empty question, or an effort the template does not know; before anything is generated.
    """
    check_rollouts(model, [question], efforts, samples, temperature)
    traces: dict[str, list[Trace]] = {effort: [] for effort in efforts}
    jobs = [(effort, sample) for sample in range(samples) for effort in efforts]
    for effort, trace in _generate(model, question, jobs, seed, temperature, max_new_tokens, capture):
        traces[effort].append(trace)
    return EffortRuns(
        asked_question(question), {effort: tuple(found) for effort, found in traces.items()}, samples, seed
    )


class Prompted(Protocol):
    """What must be known of a model to check its prompts; `Model` is one."""

    name: str
    tokenizer: Any

    @property
    def context_length(self) -> int:
        """Tokens of prompt and completion that it holds."""


def check_rollouts(
    model: Prompted, questions: Sequence[Conversation], efforts: Sequence[str], samples: int, temperature: float
) -> None:
    """Raise for what could not be generated, before hours go into what can."""
    if not efforts or len(set(efforts)) < len(efforts) or isinstance(efforts, str):
        raise ModelError(f"expected efforts, each once, got {efforts!r}")
    if samples < 1:
        raise ModelError(f"expected at least 1 sample, got {samples}")
    if temperature == 0 and samples > 1:
        raise ModelError(f"at temperature 0 all {samples} samples would be the same; expected samples=1")
    for question in questions:
        for effort in efforts:
            tokens = len(harmony.render(model.tokenizer, question, effort))
            if tokens >= model.context_length:
                raise ModelError(
                    f"the question {asked_question(question)[:60]!r} takes {tokens} tokens, but the context of "
                    f"{model.name} holds {model.context_length} with the answer; leave it out, or shorten it"
                )


def rollout_seed(seed: int, question: Conversation, effort: str, sample: int) -> int:
    """Return the seed of one rollout: 48 bits of a hash of all four, so that no two rollouts share their draws.

    With one seed for every question, all questions would meet the same random numbers at the same place, and counting
    them as independent would be wrong.
    """
    facts = json.dumps([seed, question if isinstance(question, str) else list(map(dict, question)), effort, sample])
    return int.from_bytes(hashlib.sha256(facts.encode()).digest()[:6], "big")


def _generate(
    model: Model,
    question: Conversation,
    jobs: Sequence[tuple[str, int]],
    seed: int,
    temperature: float,
    max_new_tokens: int | None,
    spec: CaptureSpec,
) -> Iterator[tuple[str, Trace]]:
    """Give each effort's rollouts until all are done or someone interrupts."""
    progress = tqdm(jobs, "compare efforts", unit="rollout", delay=2)
    try:
        for effort, sample in progress:
            trace = capture(
                model,
                question,
                effort=effort,
                seed=rollout_seed(seed, question, effort, sample),
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                capture=spec,
            )
            if was_interrupted(trace):
                return
            yield effort, trace
    except KeyboardInterrupt:
        return
    finally:
        progress.close()

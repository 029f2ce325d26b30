"""A chain of thought taken out of a rollout, to be cut, changed, closed and gone on with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workbench import harmony
from workbench.capturing import Conversation
from workbench.families import ModelError
from workbench.model import Model
from workbench.sentences import sentences
from workbench.trace import Trace

__all__ = ["Chain", "chain_of", "close_and_open", "encode", "read_chains", "text_of"]

CLOSE = "<|end|><|start|>assistant<|channel|>final<|message|>"


@dataclass(frozen=True)
class Chain:
    """One rollout of harmony: a prompt, an analysis message, a final message."""

    question: str
    effort: str | None
    before: tuple[int, ...]
    """token ids up to the first of the analysis: the prompt and the header"""
    analysis: tuple[int, ...]
    """token ids of the chain of thought, without what closes it; none where the model did not reason"""
    sentences: tuple[tuple[int, int], ...]
    """``[start, stop)`` of each sentence within ``analysis``"""
    texts: tuple[str, ...]
    """of the sentences"""
    final: str
    """text of the final message"""
    turn: int
    """where the assistant's turn begins in ``before``"""

    @property
    def text(self) -> str:
        """The chain of thought."""
        return "".join(self.texts)


def chain_of(model: Model, trace: Trace | Chain) -> Chain:
    """Take the chain of thought out of a trace.

    Raises:
        ModelError: the rollout is not one analysis message and one final message, both whole.
    """
    if isinstance(trace, Chain):
        return trace
    ids = [int(i) for i in trace.arrays["token_ids"]]
    question = str(trace.meta.get("question", ""))
    return _split(model, ids, trace.num_prompt_tokens, question, trace.provenance.get("effort"))


def read_chains(
    model: Model, traces: Trace | Chain | Iterable[Trace | Chain]
) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """Return the chains of rollouts, and why others have none that could be worked with.

    Raises:
        ModelError: none has, or there is none, or the model speaks no harmony.
    """
    close_and_open(model)
    found, skipped = [], []
    for trace in (traces,) if isinstance(traces, Trace | Chain) else traces:
        try:
            found.append(chain_of(model, trace))
        except ModelError as error:
            skipped.append(str(error))
    if not found:
        raise ModelError(skipped[0] if skipped else "expected at least one trace, got none")
    return tuple(found), tuple(skipped)


def split_completion(
    model: Model, conversation: Conversation, effort: str | None, prompt: Sequence[int], completion: Sequence[int]
) -> Chain:
    """Take the chain out of a rollout made without a trace."""
    question = conversation if isinstance(conversation, str) else str(conversation[-1].get("content", ""))
    return _split(model, [*prompt, *completion], len(prompt), question, effort)


def _split(model: Model, ids: Sequence[int], num_prompt: int, question: str, effort: str | None) -> Chain:
    messages = [m for m in harmony.parse(model.tokenizer, ids) if m.stop > num_prompt]
    channels = [m.channel for m in messages]
    if channels != ["analysis", "final"]:
        got = ", ".join(channel or "no channel" for channel in channels) or "nothing"
        raise ModelError(
            f"expected one analysis message and one final message in the rollout of {_short(question)}, got {got}; "
            "faithfulness tests need a chain of thought that can be told from the answer"
        )
    broken = next((m for m in messages if m.malformed), None)
    if broken is not None:
        raise ModelError(f"the {broken.channel} message of {_short(question)} is malformed: {broken.malformed}")
    thought, said = messages
    analysis = tuple(ids[thought.content_start : thought.stop - 1])
    pieces = [harmony.token_bytes(model.tokenizer, token) for token in analysis]
    spans = tuple(sentences(pieces, 0, len(pieces)))
    texts = tuple(b"".join(pieces[start:stop]).decode("utf-8", "replace") for start, stop in spans)
    final = text_of(model, ids[said.content_start : said.stop - 1])
    before = tuple(ids[: thought.content_start])
    return Chain(question, effort, before, analysis, spans, texts, final, thought.start)


def close_and_open(model: Model) -> tuple[int, ...]:
    """Return the tokens that close the analysis and open the final message.

    Raises:
        ModelError: the tokenizer has no harmony tokens, so there is no analysis channel.
    """
    ids = tuple(int(i) for i in model.tokenizer.encode(CLOSE, add_special_tokens=False))
    messages = harmony.parse(model.tokenizer, ids, role="assistant")
    if len(ids) > 8 or not messages or messages[-1].channel != "final":
        raise ModelError(
            f"{model.name} has no analysis channel: its tokenizer does not know {CLOSE}. Faithfulness tests close the "
            "chain of thought and open the answer, and need a model that speaks harmony, such as gpt-oss."
        )
    return ids


def encode(model: Model, text: str) -> tuple[int, ...]:
    """Return the tokens of text that goes into a chain of thought.

    Raises:
        ModelError: the text spells one of the format's own tokens.
    """
    ids = tuple(int(i) for i in model.tokenizer.encode(text, add_special_tokens=False))
    special = harmony.HarmonyParser(model.tokenizer).special_ids
    forged = next((i for i in ids if i in special), None)
    if forged is not None:
        raise ModelError(
            f"the text contains {model.tokenizer.decode([forged])}, which the tokenizer reads as the format's own; "
            "remove it"
        )
    return ids


def text_of(model: Model, ids: Iterable[int]) -> str:
    """Return the text of tokens."""
    return b"".join(harmony.token_bytes(model.tokenizer, token) for token in ids).decode("utf-8", "replace")


def _short(question: str) -> str:
    shown = " ".join(question.split())
    return repr(shown if len(shown) <= 60 else shown[:59] + "…")

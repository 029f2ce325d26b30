"""Where the answer first shows in the logit lens, before the model gives it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.reasoning.answers import NUMBER
from workbench.analysis.reasoning.channels import completion_content
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

__all__ = ["AnswerInLens", "answer_in_lens", "answer_tokens"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class AnswerInLens:
    """Where the lens predicts the answer, up to where the answer stands."""

    start: int
    """the answer's first token"""
    stop: int
    """one past its last"""
    text: str
    """what it says, without white space around it"""
    rank: Labelled
    """[token, layer] int16, the rank at which the lens of the forward that read a token predicts the answer, 0 the
    highest; −1 where it is not among the captured ranks, or was not looked for"""
    within: int
    """the ranks that count as predicting it: 1 is the highest alone"""
    first: tuple[int, int] | None
    """the earliest token, and of its layers the lowest, whose lens predicts the answer; None where none does"""
    first_by_layer: dict[int, int | None]
    """layer → the earliest token whose lens predicts it there; None where none does"""
    num_predicting: int
    """how many of the lenses looked at predict it: what is predicted everywhere says little"""
    num_lenses: int
    """how many tokens × layers were looked at"""
    written: int | None
    """the first token of the completion, before the answer, from which on the text reads the same"""


def answer_tokens(trace: Trace) -> tuple[int, int] | None:
    """Return the tokens ``[start, stop)`` of the completion's answer; None where its final channel has no text.

    The last number of the final channel, else all of its text; in both, white space around it is left out.
    """
    spans = completion_content(trace, "final")
    for span in reversed(spans):
        found = _last_match(trace, span, NUMBER)
        if found is not None:
            return found
    return next((found for s in spans if (found := _last_match(trace, s, r"(?s)\S.*\S|\S")) is not None), None)


def answer_in_lens(trace: Trace, tokens: tuple[int, int] | None = None, within: int = 1) -> AnswerInLens:
    """Find where the logit lens first predicts the answer.

    The lens at token i speaks of token i + 1. The lens of a layer predicts an answer of n tokens at i where it
    predicts the first at i, the second at i + 1, and so on to the n-th, and the text read meanwhile is the answer's:
    an answer of one token needs no text. Its rank there is the lowest of the n. A prediction is a token of the answer
    when it reads the same but for white space around it and for case, so `` Paris`` counts for ``Paris``. Looked at
    are the forwards from the one that read the prompt's last token to the one before the answer.

    Args:
        trace: with ``lens_token_ids``.
        tokens: ``(start, stop)`` of the answer, within the completion; default: `answer_tokens`.
        within: ranks that count as predicting it.

    Raises:
        TraceError: the lens was not captured, there is no answer, or a number out of range.
    """
    ids = trace.array("lens_token_ids")
    start, stop = _place(trace, tokens)
    if not 1 <= within <= ids.shape[2]:
        raise TraceError(f"expected 1 to {ids.shape[2]} ranks, the captured ones, got {within}")
    layers = ids.coords["layer"]
    alike = [_alike_ids(trace, token) for token in range(start, stop)]
    begin = max(0, trace.num_prompt_tokens - 1)
    rank = np.full(ids.shape[:2], -1, dtype=np.int16)
    rank[begin:start] = _rank(ids.values, alike, begin, start)
    rank[begin:start][~_reads(trace, alike[:-1], begin + 1, start + 1)] = -1
    predicts = (rank >= 0) & (rank < within)
    hits = np.argwhere(predicts)  # in the order of tokens, then layers
    source = f"rank of the answer in the logit lens, which speaks of the next token; {ids.source}"
    return AnswerInLens(
        start=start,
        stop=stop,
        text=trace.text(start, stop).strip(),
        rank=Labelled(rank, ("token", "layer"), ids.coords, source),
        within=within,
        first=(int(hits[0, 0]), int(layers[hits[0, 1]])) if len(hits) else None,
        first_by_layer={layer: _first(predicts[:, at]) for at, layer in enumerate(layers)},
        num_predicting=int(predicts.sum()),
        num_lenses=(start - begin) * len(layers),
        written=_written(trace, alike, start),
    )


def _place(trace: Trace, tokens: tuple[int, int] | None) -> tuple[int, int]:
    found = answer_tokens(trace) if tokens is None else tokens
    if found is None:
        raise TraceError("there is no answer: the completion's final channel has no text. Pass tokens=(start, stop).")
    start, stop = found
    if not trace.num_prompt_tokens <= start < stop <= len(trace):
        raise TraceError(
            f"expected an answer within the completion, {trace.num_prompt_tokens} to {len(trace)}, "
            f"got {start} to {stop}"
        )
    return start, stop


def _last_match(trace: Trace, span: Span, pattern: str) -> tuple[int, int] | None:
    """Return the tokens that hold a pattern's last match in a span."""
    pieces = [trace.token_bytes(int(i)) for i in trace.arrays["token_ids"][span.start : span.stop]]
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    last = next(reversed(list(re.finditer(pattern, text))), None)
    if last is None:
        return None
    ends = np.cumsum([len(piece) for piece in pieces])
    first, end = (len(text[:at].encode("utf-8", "surrogateescape")) for at in last.span())
    start, stop = np.searchsorted(ends, [first + 1, end])
    return span.start + int(start), span.start + int(stop) + 1


def _alike_ids(trace: Trace, token: int) -> NDArray[np.int64]:
    """Return the ids that read like a token but for white space and case; white space reads like itself alone."""
    wanted = trace.token_text(token).strip().casefold()
    if not wanted:
        return trace.arrays["token_ids"][token : token + 1].astype(np.int64)
    known = trace.arrays["vocab_ids"].tolist()
    texts = (trace.token_bytes(i).decode("utf-8", "replace").strip().casefold() for i in known)
    return np.array([i for i, text in zip(known, texts, strict=True) if text == wanted], dtype=np.int64)


def _rank(lens_ids: NDArray[np.int32], alike: Sequence[NDArray[np.int64]], begin: int, end: int) -> NDArray[np.int16]:
    """Return [token of begin to end, layer] the lowest rank at which the following lenses predict a sequence."""
    lowest = np.zeros((end - begin, lens_ids.shape[1]), dtype=np.int16)
    for ahead, ids in enumerate(alike):
        found = np.isin(lens_ids[begin + ahead : end + ahead], ids)
        rank = np.where(found.any(axis=2), found.argmax(axis=2), -1)
        lowest = np.where((lowest < 0) | (rank < 0), -1, np.maximum(lowest, rank)).astype(np.int16)
    return lowest


def _reads(trace: Trace, alike: Sequence[NDArray[np.int64]], begin: int, end: int) -> Bools:
    """Return [token of begin to end] whether the text from there on reads like a sequence."""
    ids = trace.arrays["token_ids"]
    reads = np.ones(end - begin, dtype=np.bool_)
    for ahead, own in enumerate(alike):
        reads &= np.isin(ids[begin + ahead : end + ahead], own)
    return reads


def _first(predicts: Bools) -> int | None:
    return int(predicts.argmax()) if predicts.any() else None


def _written(trace: Trace, alike: Sequence[NDArray[np.int64]], answer: int) -> int | None:
    start, stop = trace.num_prompt_tokens, answer - len(alike) + 1
    first = _first(_reads(trace, alike, start, stop)) if start < stop else None
    return None if first is None else start + first

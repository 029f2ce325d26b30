"""What a page takes of a trace: a stretch of its tokens, and how many bytes that comes to."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.trace import DIMS, Span, Trace, TraceError

__all__ = ["page_bytes", "stretch", "token_range"]

CODE_BYTES = 200_000  # the view's JavaScript and style, and the host
TEXT_BYTES_PER_TOKEN = 25  # of spans, vocabulary and the transcript
SENT_TWICE = ("expert_indices", "expert_weights")  # by token and by layer; see widgets/blocks.py
BASE64 = 4 / 3


def token_range(tokens: slice | range | None, trace: Trace) -> tuple[int, int]:
    """Return the first token of a stretch and the one after its last.

    Raises `TraceError` for what is no stretch of consecutive tokens of the trace.
    """
    if tokens is None:
        return 0, len(trace)
    if not isinstance(tokens, slice | range):
        raise TraceError(f"expected tokens as a slice or a range, such as range(0, 500), got {tokens!r}")
    if isinstance(tokens, slice):
        start, stop, step = tokens.indices(len(trace))
    else:
        start, stop, step = tokens.start, tokens.stop, tokens.step
    if step != 1 or not 0 <= start < stop <= len(trace):
        raise TraceError(f"expected consecutive tokens within 0–{len(trace) - 1}, at least one, got {tokens!r}")
    return start, stop


def stretch(trace: Trace, start: int, stop: int) -> Trace:
    """Return the tokens ``[start, stop)`` as a trace of their own, its first token numbered 0.

    Rows of attention keep their log-sum-exp over all keys, so that the weights of the keys that are here stay exact.
    Without a stored log-sum-exp they would not be, and queries and keys of a stretch that begins later are left out.
    """
    if (start, stop) == (0, len(trace)):
        return trace
    lost = {"queries", "keys"} if start and not trace.has("attention_logsumexp") else set()
    arrays = {name: _cut(name, array, start, stop) for name, array in trace.arrays.items() if name not in lost}
    spans = [_shifted(s, start, stop) for s in trace.spans if s.start < stop and s.stop > start]
    prompt = min(max(trace.num_prompt_tokens - start, 0), stop - start)
    return Trace(arrays | _vocabulary(arrays), tuple(spans), {**trace.meta, "num_prompt_tokens": prompt})


def page_bytes(trace: Trace) -> int:
    """Return about how many bytes a page of a trace takes, queries and keys rounded to int8."""
    total = 0.0
    for name, array in trace.arrays.items():
        if name in ("queries", "keys"):
            total += array.size * (1 + 4 / array.shape[-1])  # a float32 scale for each row
        elif name != "residual" and not name.startswith("vocab_"):
            total += array.nbytes * (2 if name in SENT_TWICE else 1)
        if name == "attention_logsumexp" and trace.has("sink_logits"):
            total += 4 * array.size  # sink mass
        if name == "router_logits":
            total += 4 * array.size / array.shape[-1]  # entropy
    return CODE_BYTES + int(BASE64 * total) + TEXT_BYTES_PER_TOKEN * len(trace)


def _cut(name: str, array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    if "token" not in DIMS[name]:
        return array
    cut: list[slice] = [slice(None)] * array.ndim
    cut[DIMS[name].index("token")] = slice(start, stop)
    return array[tuple(cut)]


def _shifted(span: Span, start: int, stop: int) -> Span:
    first, content, last = (min(max(at, start), stop) - start for at in (span.start, span.content_start, span.stop))
    return replace(span, start=first, content_start=content, stop=last)


def _vocabulary(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the texts of the ids that occur in a stretch, and of no others."""
    if "vocab_ids" not in arrays:
        return {}
    shown = [arrays[n].ravel() for n in ("token_ids", "top_token_ids", "lens_token_ids") if n in arrays]
    kept = np.flatnonzero(np.isin(arrays["vocab_ids"], np.concatenate(shown)))
    edges = arrays["vocab_offsets"]
    lengths = (edges[1:] - edges[:-1])[kept]
    texts = [arrays["vocab_bytes"][edges[at] : edges[at + 1]] for at in kept]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(edges.dtype)
    return {
        "vocab_ids": arrays["vocab_ids"][kept],
        "vocab_bytes": np.concatenate([*texts, arrays["vocab_bytes"][:0]]),
        "vocab_offsets": offsets,
        "vocab_special": arrays["vocab_special"][kept],
    }

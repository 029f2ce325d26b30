"""What a view says of a span that was hidden: how far the predictions after it moved."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import TraceError
from workbench.trace import Trace

__all__ = ["Suppress", "suppress_span"]

Suppress: TypeAlias = Callable[[tuple[int, int]], Any]
"""First token and one past the last of a span → [token] KL in nats, NaN where undefined; see `suppression`."""


def suppress_span(trace: Trace, span: list[Any], suppress: Suppress) -> dict[str, Any]:
    """Run the test of a span and return what came of it, as JSON.

    Args:
        trace: that is shown.
        span: first token and one past the last, from the browser.
        suppress: what runs the model.

    Raises:
        TraceError: no span of the trace, or numbers that are not one per token.
    """
    start, stop = (int(at) for at in span)
    if not 0 <= start < stop <= len(trace):
        raise TraceError(f"expected a span within {len(trace)} tokens, got {start} to {stop}")
    kl = np.asarray(suppress((start, stop)), dtype=np.float64)
    if kl.shape != (len(trace),):
        raise TraceError(f"suppress: expected one number for each of {len(trace)} tokens, got shape {kl.shape}")
    later = np.arange(stop + 1, len(trace))  # token `stop` is still predicted by the span's own last token
    finals = [m for m in trace.messages if m.channel == "final" and m.stop > trace.num_prompt_tokens]
    answer = np.concatenate([later[:0], *(np.arange(m.content_start, m.stop) for m in finals)])
    most = later[np.nanargmax(kl[later])] if np.isfinite(kl[later]).any() else None
    return {
        "span": [start, stop],
        "answer": _mean(kl, answer[answer > stop]),
        "later": _mean(kl, later),
        "most": None if most is None else {"token": int(most), "kl": float(kl[most])},
    }


def _mean(kl: NDArray[np.float64], tokens: NDArray[np.int64]) -> dict[str, Any] | None:
    """Return the mean over the tokens where it is defined, and how many those are; None where nowhere."""
    values = kl[tokens][np.isfinite(kl[tokens])]
    return {"kl": float(values.mean()), "count": len(values)} if len(values) else None

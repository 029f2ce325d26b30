"""How much each expert and head does over some tokens of a trace: what a map to pick from shows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.routing import expert_load
from workbench.analysis.token_set import content_stop
from workbench.trace import Trace, TraceError

__all__ = ["SPANS", "amounts", "span_tokens"]

SPANS = ("all", "prompt", "completion", "analysis", "final")
"""the named tokens of an intervention that a form offers"""

_BLOCK = 1024  # tokens at a time, so that nothing as large as the trace is made


def span_tokens(trace: Trace, tokens: Any) -> NDArray[np.int64]:
    """Return the positions of the tokens that an intervention names: see `workbench.experiments.intervening.Tokens`.

    Args:
        trace: the baseline.
        tokens: one of `SPANS`, or (start, stop), where a stop of None has no end.

    Raises:
        TraceError: anything else.
    """
    if isinstance(tokens, list | tuple) and len(tokens) == 2 and isinstance(tokens[0], int):
        start, stop = tokens
        return np.arange(len(trace))[max(0, start) : stop]
    if tokens not in SPANS:
        raise TraceError(f"expected tokens {', '.join(SPANS)} or (start, stop), got {tokens!r}")
    prompt = trace.num_prompt_tokens
    if tokens in ("all", "prompt", "completion"):
        return np.arange(prompt if tokens == "completion" else 0, prompt if tokens == "prompt" else len(trace))
    inside = np.zeros(len(trace), dtype=bool)
    for message in trace.messages:
        if message.channel == tokens and message.content_start >= prompt:
            inside[message.content_start : content_stop(trace, message.content_start, message.stop)] = True
    return np.flatnonzero(inside)


def amounts(trace: Trace, tokens: Any) -> dict[str, Any]:
    """Return what experts and heads do over the tokens of an intervention, as far as it was captured.

    Returns:
        ``tokens``, how many; and as bytes of float32, C order, where the arrays are there and tokens are:
        ``load`` [layer, expert], share of the routed slots; ``weight`` [layer, expert], the weight that an expert is
        given at a token, mean over the tokens, 0 where it is not chosen; ``sink`` [layer, head], mean sink mass.
        Layers are those of the array.

    Raises:
        TraceError: as `span_tokens`.
    """
    rows = span_tokens(trace, tokens)
    found = {"load": _load(trace, rows), "weight": _weight(trace, rows), "sink": _sink_mass(trace, rows)}
    sent = {name: values.astype("<f4").tobytes() for name, values in found.items() if values is not None}
    return {"tokens": len(rows), **sent}


def _load(trace: Trace, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if not len(rows) or not trace.has("expert_indices"):
        return None
    return np.asarray(expert_load(trace.arrays["expert_indices"][rows], _num_experts(trace)).values)


def _weight(trace: Trace, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if not len(rows) or not trace.has("expert_indices") or not trace.has("expert_weights"):
        return None
    experts, weights = trace.arrays["expert_indices"], trace.arrays["expert_weights"]
    count = _num_experts(trace)
    sums = [
        np.bincount(experts[rows, at].ravel(), weights[rows, at].astype(np.float64).ravel(), minlength=count)
        for at in range(experts.shape[1])
    ]
    return np.array(sums) / len(rows)


def _sink_mass(trace: Trace, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    if not len(rows) or not trace.has("attention_logsumexp") or not trace.has("sink_logits"):
        return None
    at = {name: trace.layers(name) for name in ("attention_logsumexp", "sink_logits")}
    both = [layer for layer in at["attention_logsumexp"] if layer in at["sink_logits"]]
    lse_rows, sink_rows = ([of.index(layer) for layer in both] for of in at.values())
    sinks = trace.arrays["sink_logits"][sink_rows].astype(np.float32)
    total = np.zeros(sinks.shape)
    for block in np.array_split(rows, -(-len(rows) // _BLOCK)):
        total += np.exp(sinks - trace.arrays["attention_logsumexp"][block][:, lse_rows]).sum(axis=0, dtype=np.float64)
    return total / len(rows)


def _num_experts(trace: Trace) -> int:
    recorded = trace.meta.get("shape", {}).get("num_experts")
    return int(recorded if recorded is not None else trace.arrays["expert_indices"].max() + 1)

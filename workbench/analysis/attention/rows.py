"""One number per head and row: entropy, distance, and the mass on the first token and on the sink."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from workbench.analysis.attention.pattern import DIMS, Array, check_window, origin, read_pattern, read_values
from workbench.labelled import Labelled, TraceError

__all__ = ["attention_entropy", "first_token_mass", "mean_distance", "sink_mass"]

_ROUNDING = 1e-3  # of float16 rows that sum to 1 with their sink
_ROW_DIMS = ("head", "query")


def attention_entropy(pattern: Array, sink_mass: Array | None, include_sink: bool) -> Labelled:
    """Return the entropy of each row in nats: 0 reads one token, ln n reads n tokens alike (Shannon, 1948).

    Args:
        pattern: [head, query, key], rows that sum to ``1 − sink_mass``.
        sink_mass: [head, query]; None in families without sinks, whose two entropies are the same.
        include_sink: True takes the sink as one more place, ``−Σ A ln A − s ln s``. False is conditional on not-sink,
            the entropy of ``A / Σ A``.

    Returns:
        [head, query] float64. Conditional, NaN where the sink has all of a row.

    Raises:
        TraceError: other dims, or rows that do not sum to 1 together with the sink mass.
    """
    values = read_values(pattern, DIMS, "pattern")
    sink = None if sink_mass is None else read_values(sink_mass, _ROW_DIMS, "sink_mass")
    mass = values.sum(axis=-1, dtype=np.float64)
    _check_sums(mass, sink)
    # One head at a time, so that no second pattern is held.
    entropy = np.array([entr(head).sum(axis=-1, dtype=np.float64) for head in values]).reshape(mass.shape)
    if not include_sink:
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = np.where(mass > 0, entropy / mass + np.log(mass), np.nan)
    elif sink is not None:
        entropy += entr(sink.astype(np.float64))
    what = "including the sink" if include_sink else "conditional on not-sink"
    source = f"attention entropy in nats, {'no sinks here' if sink is None else what}{origin(pattern)}"
    # Rounding puts a row on one token a hair below 0.
    return Labelled(np.maximum(entropy, 0), _ROW_DIMS, _row_coords(pattern), source)


def mean_distance(pattern: Array, conditional: bool = False, rows: Iterable[int] | None = None) -> Labelled:
    """Return how far back each row reads, ``Σ_j A_ij (i − j)``, in tokens.

    Args:
        pattern: [head, query, key], rows that sum to ``1 − sink mass``.
        conditional: False leaves the rows as they are, so what is on the sink counts as distance 0. True divides by
            ``Σ_j A_ij``: the mean distance of what is not on the sink.
        rows: the token of each row, where the pattern has no labels and is of some rows only.

    Returns:
        [head, query] float64. Conditional, NaN where the sink has all of a row.

    Raises:
        TraceError: what is no causal pattern, or rows of which the token is not known.
    """
    values, tokens, coords, came_from = read_pattern(pattern, rows)
    mass = values.sum(axis=-1, dtype=np.float64)
    keys = np.arange(values.shape[2], dtype=np.float64)
    distance = tokens * mass - np.array([head @ keys for head in values]).reshape(mass.shape)
    if conditional:
        with np.errstate(invalid="ignore"):
            distance = np.where(mass > 0, distance / mass, np.nan)
    what = "conditional on not-sink" if conditional else "the sink as distance 0"
    return Labelled(distance, _ROW_DIMS, coords, f"mean attention distance in tokens, {what}{came_from}")


def first_token_mass(pattern: Array, window: int | None = None, rows: Iterable[int] | None = None) -> Labelled:
    """Return each row's attention to token 0, which is not the sink: the sink is no token and has no value vector.

    Args:
        pattern: [head, query, key], rows that sum to ``1 − sink mass``.
        window: of the layer, the token itself included: rows further on do not see token 0. None sees all.
        rows: the token of each row, where the pattern has no labels and is of some rows only.

    Returns:
        [head, query] float64, NaN where token 0 is outside the window.

    Raises:
        TraceError: what is no causal pattern, or rows of which the token is not known.
    """
    check_window(window)
    values, tokens, coords, came_from = read_pattern(pattern, rows)
    if not values.shape[2]:
        raise TraceError("pattern: expected at least one key, got none")
    mass = values[:, :, 0].astype(np.float64)
    hidden = tokens >= (values.shape[2] if window is None else window)
    mass[:, hidden] = np.nan
    cut = f", undefined in {int(hidden.sum())} rows whose window of {window} lacks it" if hidden.any() else ""
    return Labelled(mass, _ROW_DIMS, coords, f"attention to token 0{cut}{came_from}")


def sink_mass(attention_logsumexp: Array, sink_logits: Array) -> Labelled:
    """Return the share of each row that is on the sink, ``exp(s_h − lse)``, for every token and head; no kernel runs.

    The same as ``σ(s_h − ln Σ_j exp z_j)``, as the captured log-sum-exp includes the sink.

    Args:
        attention_logsumexp: [token, layer, head], of a row's scores and its sink.
        sink_logits: [layer, head] of the same layers. A family without sinks has none, and no sink mass.

    Returns:
        [token, layer, head] float64, within 0–1.

    Raises:
        TraceError: other dims, layers that differ, or a mass above 1, as where the log-sum-exp lacks the sink.
    """
    lse = read_values(attention_logsumexp, ("token", "layer", "head"), "attention_logsumexp").astype(np.float64)
    logits = read_values(sink_logits, ("layer", "head"), "sink_logits").astype(np.float64)
    layers = [a.coords.get("layer") if isinstance(a, Labelled) else None for a in (attention_logsumexp, sink_logits)]
    if lse.shape[1:] != logits.shape or (None not in layers and layers[0] != layers[1]):
        raise TraceError(
            f"expected log-sum-exps and sink logits of the same layers and heads, got shapes {lse.shape} and "
            f"{logits.shape}, layers {layers[0]} and {layers[1]}"
        )
    mass = np.exp(logits - lse)
    if mass.size and np.nanmax(mass) > 1 + _ROUNDING:
        raise TraceError(
            f"expected sink masses within 0–1, got {np.nanmax(mass):.3g}: the log-sum-exp does not include the sink"
        )
    coords = dict(attention_logsumexp.coords) if isinstance(attention_logsumexp, Labelled) else {}
    source = f"sink mass exp(s − lse){origin(attention_logsumexp)}"
    return Labelled(np.minimum(mass, 1), ("token", "layer", "head"), coords, source)


def _check_sums(mass: NDArray[np.float64], sink: NDArray[np.float64] | None) -> None:
    if sink is not None and sink.shape != mass.shape:
        raise TraceError(f"sink_mass: expected [head, query] of shape {mass.shape}, got {sink.shape}")
    total = mass if sink is None else mass + sink
    wrong = np.argwhere(np.abs(total - 1) > _ROUNDING)
    if len(wrong):
        head, row = wrong[0]
        raise TraceError(
            f"expected each row and its sink mass to sum to 1, got {total[head, row]:.4g} in head {head}, row {row}; "
            "pass the pattern and the sink mass that trace.attention gave"
        )


def _row_coords(pattern: Array) -> dict[str, tuple[int, ...]]:
    if not isinstance(pattern, Labelled):
        return {}
    return {dim: labels for dim, labels in pattern.coords.items() if dim in _ROW_DIMS}

"""Every head of every captured layer in one table."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from tqdm.auto import tqdm

from workbench.analysis.attention.layers import layer_inputs
from workbench.attending import AttentionBlock, AttentionInputs, attention_blocks
from workbench.labelled import Labelled, TraceError
from workbench.trace import Trace

__all__ = ["HeadTable", "head_table"]

Phase = Literal["completion", "prompt", "all"]
_COLUMNS = (
    "sink_mass",
    "first_token_mass",
    "previous_token_score",
    "mean_distance",
    "mean_distance_not_sink",
    "entropy",
    "entropy_not_sink",
)


@dataclass(frozen=True)
class HeadTable:
    """What each head does, the mean over some rows. Each column is [layer, head] float64, NaN where undefined."""

    windows: tuple[int | None, ...]
    """[layer], tokens a row sees, itself included; None is full"""
    num_rows: int
    """rows that every mean is over, unless its column says otherwise"""
    rows_seeing_first: Labelled
    """[layer] int64, the rows from token 1 on that see token 0"""
    sink_mass: Labelled | None
    """None in families without sinks"""
    first_token_mass: Labelled
    """over the rows from token 1 on that see token 0: row 0 sees nothing else"""
    previous_token_score: Labelled
    """``A_{i, i−1}`` over the rows from token 1 on"""
    mean_distance: Labelled
    """tokens, the sink as distance 0"""
    mean_distance_not_sink: Labelled
    """tokens, each row conditional on not-sink; rows that the sink has to the last bit are left out"""
    entropy: Labelled
    """nats, the sink as one more place"""
    entropy_not_sink: Labelled
    """nats, each row conditional on not-sink, likewise"""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in the order of every column."""
        return self.entropy.coords["layer"]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield one dict per head, layer by layer: layer, head, window (None is full), then a float per column.

        ``sink_mass`` is None in families without sinks.
        """
        columns = {name: getattr(self, name) for name in _COLUMNS}
        for at, layer in enumerate(self.layers):
            for head in range(self.entropy.shape[1]):
                numbers = {name: None if c is None else float(c[at, head]) for name, c in columns.items()}
                yield {"layer": layer, "head": head, "window": self.windows[at], **numbers}


def head_table(
    trace: Trace,
    rows: slice | Iterable[int] | None = None,
    *,
    phase: Phase = "completion",
    layers: Iterable[int] | None = None,
) -> HeadTable:
    """Return what every head of every captured layer does, in one pass over its attention that holds none of it.

    Prompt and completion are apart: a table is of one of them. The definitions are those of `attention_entropy`,
    `mean_distance`, `previous_token_score` and `first_token_mass`.

    Args:
        trace: with queries and keys.
        rows: query tokens, instead of those of a phase.
        phase: ``completion``, ``prompt``, or ``all`` for both; not used where ``rows`` are given.
        layers: captured layers; None = all.

    Returns:
        `HeadTable`.

    Raises:
        TraceError: no attention, a layer that was not captured, no rows, or a row that is no token.
    """
    tokens, named = _tokens(trace, rows, phase)
    inputs = layer_inputs(trace, layers)
    progress = tqdm(inputs.values(), desc="heads", unit="layer", delay=2, leave=False)
    means = np.stack([_of_layer(of_layer, tokens) for of_layer in progress], axis=1)
    columns = dict(zip(_COLUMNS, means, strict=True))
    windows = tuple(of_layer.window for of_layer in inputs.values())
    seeing = np.array([_seeing_first(tokens, window).sum() for window in windows])
    origin = f", from {trace.source('queries') or 'captured'} queries and keys, float32"

    def labelled(name: str, what: str, over: str = f"{len(tokens)} {named}") -> Labelled:
        coords = {"layer": tuple(inputs), "head": tuple(range(columns[name].shape[1]))}
        return Labelled(columns[name], ("layer", "head"), coords, f"{what}, mean over {over}{origin}")

    after_first = f"{int((tokens > 0).sum())} {named} from token 1 on"
    return HeadTable(
        windows,
        len(tokens),
        Labelled(seeing, ("layer",), {"layer": tuple(inputs)}, f"{named} from token 1 on that see token 0"),
        labelled("sink_mass", "sink mass") if trace.has("sink_logits") else None,
        labelled("first_token_mass", "attention to token 0", f"those of {after_first} that see it"),
        labelled("previous_token_score", "previous-token score", after_first),
        labelled("mean_distance", "mean attention distance in tokens, the sink as distance 0"),
        labelled("mean_distance_not_sink", "mean attention distance in tokens, conditional on not-sink"),
        labelled("entropy", "attention entropy in nats, including the sink"),
        labelled("entropy_not_sink", "attention entropy in nats, conditional on not-sink"),
    )


def _of_layer(inputs: AttentionInputs, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each column's means [column, head] of one layer over the rows where it is defined; NaN where nowhere."""
    sums, counts = np.zeros((2, len(_COLUMNS), len(inputs.queries)))
    for block in attention_blocks(*inputs, rows=tokens):
        values = _of_block(block, tokens[block.rows], inputs.window)
        defined = ~np.isnan(values)
        sums[:, block.head] += np.where(defined, values, 0).sum(axis=1)
        counts[:, block.head] += defined.sum(axis=1)
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _of_block(block: AttentionBlock, tokens: NDArray[np.int64], window: int | None) -> NDArray[np.float64]:
    """Return each column's numbers [column, row] of some rows of one head; NaN where undefined."""
    seen, total = block.seen.astype(np.float64), block.total.astype(np.float64)
    sink = np.zeros(len(total)) if block.sink is None else block.sink / total
    mass = seen / total
    # Counted back from the block's last key, all terms are positive and none cancels.
    back = np.arange(block.weights.shape[1] - 1, -1, -1, dtype=np.float32)
    weighted = np.matmul(block.weights[:, None], block.scores[:, :, None])[:, 0, 0]  # row by row, by BLAS
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.maximum(block.weights @ back / seen - (block.keys.stop - 1 - tokens), 0)
        # −Σ p ln p with p = exp(score) / seen.
        entropy = np.maximum(np.log(seen) - weighted / seen, 0)
        distance, entropy = np.where(seen > 0, (distance, entropy), np.nan)
    previous = block.weights[np.arange(len(tokens)), np.maximum(tokens - 1 - block.keys.start, 0)] / total
    with_sink = np.where(mass > 0, (mass * distance, mass * entropy), 0)
    columns = {
        "sink_mass": sink,
        "first_token_mass": np.where(_seeing_first(tokens, window), block.weights[:, 0] / total, np.nan),
        "previous_token_score": np.where((tokens > 0) & (window != 1), previous, np.nan),
        "mean_distance": with_sink[0],
        "mean_distance_not_sink": distance,
        "entropy": with_sink[1] + entr(mass) + entr(sink),
        "entropy_not_sink": entropy,
    }
    return np.stack([columns[name] for name in _COLUMNS])


def _seeing_first(tokens: NDArray[np.int64], window: int | None) -> NDArray[np.bool_]:
    return (tokens > 0) & (True if window is None else tokens < window)


def _tokens(trace: Trace, rows: slice | Iterable[int] | None, phase: Phase) -> tuple[NDArray[np.int64], str]:
    """Return the rows, and what to call them."""
    prompt, every = trace.num_prompt_tokens, np.arange(len(trace))
    phases = {"completion": every[prompt:], "prompt": every[:prompt], "all": every}
    if phase not in phases:
        raise TraceError(f"expected phase='completion', 'prompt' or 'all', got {phase!r}")
    if isinstance(rows, slice):
        tokens, named = every[rows], "rows"
    elif rows is not None:
        tokens, named = np.array(list(rows), dtype=np.int64), "rows"
    else:
        tokens, named = phases[phase], "rows" if phase == "all" else f"{phase} rows"
    if not len(tokens):
        raise TraceError(f"expected at least one row, got no {named}")
    return tokens, named

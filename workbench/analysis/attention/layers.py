"""The layers of a trace whose attention can be computed."""

from collections.abc import Iterable

from workbench.attending import AttentionInputs
from workbench.labelled import TraceError
from workbench.trace import Trace

__all__ = ["layer_inputs"]


def layer_inputs(trace: Trace, layers: Iterable[int] | None) -> dict[int, AttentionInputs]:
    """Return what attention of some layers, or of all captured ones, is computed from.

    Raises `TraceError`, before anything is computed, for none and for a layer that was not captured.
    """
    chosen = trace.layers("queries") if layers is None else tuple(layers)
    if not chosen and layers is not None:
        raise TraceError("expected at least one layer, got none")
    if not chosen:
        raise TraceError(
            "Attention is not in this trace: it has no queries and keys. Capture again with "
            "capture=CaptureSpec(attention=True)."
        )
    return {layer: trace.attention_inputs(layer) for layer in chosen}

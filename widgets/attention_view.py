"""AttentionView: where a head looks, from every token, at any length; sinks and windows included."""

from pathlib import Path
from typing import Any, Literal

import traitlets

from widgets.attention_blocks import AttentionBlocks
from widgets.attention_suppression import Suppress, suppress_span
from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.selection import SharedSelection, selection_key
from workbench.trace import Trace, TraceError

__all__ = ["AttentionView"]

FOLDER = Path(__file__).parent
SHOWS, POOLS, HEADS = ("sentences", "overview"), ("max", "mean"), ("one", "mean")


class AttentionView(SharedSelection):
    """The attention of one head, and of its layer's heads beside it.

    It joins the selection of the other views of the trace. Rows are computed in the browser from captured queries
    and keys, exactly, and never renormalised: what is drawn sums with the sink mass to what is said.

    Args:
        trace: what to show.
        token, layer, head: where to start; by default where the other views of the trace are, else the first
            completion token, the first layer whose attention was captured, and head 0.
        show: the map: ``sentences`` by sentences, or an ``overview`` of the whole length.
        pool: the overview's bins hold the ``max`` or the ``mean`` of their weights.
        heads: the map of sentences is of ``one`` head, or the ``mean`` of the layer's.
        suppress: what hides a span of tokens from a model, such as ``partial(suppression, model, trace)`` of
            `workbench.experiments.suppression`: then a click tells how far the answer depends on a sentence.
        preload_bytes: attention of up to this size is sent to the browser as a whole and then needs no kernel.

    Raises:
        TraceError: the trace is not one, or has no attention, or the head does not exist.
        TraitError: the selection is outside the trace, or an option is not one of those named.
        TypeError: ``suppress`` is no function.
    """

    _esm = bundle(FOLDER / "attention_view.js")
    _css = styles(FOLDER / "view.css", FOLDER / "trace_explorer.css", FOLDER / "attention_view.css")

    show = traitlets.Enum(SHOWS, "sentences", help="which map").tag(sync=True)
    pool = traitlets.Enum(POOLS, "max", help="what a bin of the overview holds").tag(sync=True)
    heads = traitlets.Enum(HEADS, "one", help="the map of one head, or the mean of all").tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _blocks = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        *,
        token: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        show: Literal["sentences", "overview"] = "sentences",
        pool: Literal["max", "mean"] = "max",
        heads: Literal["one", "mean"] = "one",
        suppress: Suppress | None = None,
        preload_bytes: int = PRELOAD_LIMIT_BYTES,
    ) -> None:
        """Show the attention of a trace; see the class."""
        if not isinstance(trace, Trace):
            raise TraceError(
                f"expected a Trace, got {type(trace).__name__}; wb.open_trace(path) reads one from a file"
            )
        if suppress is not None and not callable(suppress):
            raise TypeError(
                f"expected a function as suppress, got {type(suppress).__name__}; "
                "pass partial(suppression, model, trace)"
            )
        self.trace, self._suppress = trace, suppress
        self._reader = AttentionBlocks.of(trace, preload_bytes)
        _check_attention(trace, self._reader, head)
        counts = TraceBlocks(trace).counts()  # of the whole trace: the selection is shared with views of the rest
        facts = self._reader.facts()
        super().__init__(
            selection_key([trace]),
            counts,
            {"token": token, "layer": layer, "head": head},
            {"token": min(trace.num_prompt_tokens, len(trace) - 1), "layer": self._reader.attention_layers[0]},
            show=show,
            pool=pool,
            heads=heads,
            _facts=facts | {"counts": counts, "canSuppress": suppress is not None},
            _blocks=self._reader.preload(),
        )
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser, which asks for a list of blocks, or what hiding a span changes."""
        if not isinstance(message, dict):
            return
        if isinstance(message.get("fetch"), list):
            self.send_blocks(self._reader, message["fetch"])
        span = message.get("suppress")
        if isinstance(span, list) and len(span) == 2 and self._suppress is not None:
            try:
                found = suppress_span(self.trace, span, self._suppress)
            except (Exception, KeyboardInterrupt) as error:  # said in the view, which waits; the user's function
                found = {"span": span, "problem": f"{type(error).__name__}: {error}"}
            self.send({"suppressed": found})


def _check_attention(trace: Trace, reader: AttentionBlocks, head: int | None) -> None:
    """Raise `TraceError` unless attention of some layer, and of the head, can be computed."""
    missing = [name for name in ("queries", "keys") if not trace.has(name)]
    if missing or not len(trace) or not reader.attention_layers:
        lacking = f"{' and '.join(missing)} were not captured" if missing else "no layer has both queries and keys"
        raise TraceError(
            f"this trace has no attention: {lacking if len(trace) else 'it has no tokens'}. "
            f"Captured: {', '.join(trace.captured)}. Capture again with capture=CaptureSpec(attention=True), "
            "or attention=[3] for layer 3 alone."
        )
    num_heads = trace.arrays["queries"].shape[1]
    if head is not None and not 0 <= head < num_heads:
        raise TraceError(f"expected a head within 0–{num_heads - 1}, got {head}; leave it out to start at head 0")
    trace.attention(reader.attention_layers[0], head=0, rows=())  # refuses what has no scale, or is a shard

"""The one selection of a trace: token, layer, head, expert, shared by all its views and with Python.

In the browser, views with the same key move together with no kernel; see js/selection.js. Every view tells its own
traits to Python.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import anywidget
import traitlets

from widgets.blocks import TraceBlocks
from widgets.token_notes import token_hash
from workbench.trace import Trace

__all__ = ["SharedSelection", "selection_key"]


def selection_key(traces: Iterable[Trace]) -> str:
    """Return what views must have in common to share a selection: the hash of the token ids of a trace or of several.

    One trace has the key of `token_hash`; views of several traces share theirs with views of the same, in this order.
    """
    hashes = [token_hash(trace) for trace in traces]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()


class SharedSelection(anywidget.AnyWidget):
    """A view that shares its selection.

    Args:
        key: see `selection_key`; empty for a view that shares with none.
        counts: how many tokens, layers, heads and experts there are; a selection outside raises `TraitError`.
        wanted: where to start, by name; None leaves it to the views already on the page.
        start: where to start when none is there.
        traits: of the view.
    """

    token = traitlets.Int(0, help="the selected token, counted from 0").tag(sync=True)
    layer = traitlets.Int(0, help="the selected layer of the model").tag(sync=True)
    head = traitlets.Int(0, help="the selected query head").tag(sync=True)
    expert = traitlets.Int(0, help="the selected expert").tag(sync=True)

    _selection_key = traitlets.Unicode("").tag(sync=True)
    _selection_told = traitlets.List(traitlets.Unicode(), help="what was asked for and wins at first").tag(sync=True)

    def __init__(
        self,
        key: str,
        counts: Mapping[str, int],
        wanted: Mapping[str, int | None],
        start: Mapping[str, int] | None = None,
        **traits: Any,
    ) -> None:
        """Make the view; see the class."""
        self._counts = counts
        told = {name: value for name, value in wanted.items() if value is not None}
        super().__init__(_selection_key=key, _selection_told=list(told), **{**(start or {}), **told}, **traits)

    def _count(self, name: str) -> int:
        """Return how many tokens, layers, heads or experts a selection may choose from."""
        return self._counts[name]

    def send_blocks(self, blocks: TraceBlocks, keys: Iterable[Any]) -> None:
        """Answer the browser, which asks for blocks by key; see js/blocks.js."""
        found, failed = blocks.read_all(keys)
        self.send({"blocks": list(found), "failed": failed}, list(found.values()))

    @traitlets.validate("token", "layer", "head", "expert")
    def _check_selection(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, int(proposal["value"])
        count = max(1, self._count(name))
        if not 0 <= value < count:
            raise traitlets.TraitError(f"expected a {name} within 0–{count - 1}, got {value}")
        return value

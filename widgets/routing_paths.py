"""RoutingPaths: where tokens go from layer to layer, by the expert they chose first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from widgets.bundle import bundle, styles
from widgets.routing_facts import key_of, routing_facts, token_set_of
from widgets.selection import SharedSelection
from workbench.analysis.routing import path_information, routing_paths
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import Trace, TraceError

__all__ = ["RoutingPaths"]

FOLDER = Path(__file__).parent
SHOWN = 6  # layers, where none are named
DRAWN = 40  # flows in a gap, where no share is named


class RoutingPaths(SharedSelection):
    """Flow of tokens between the top-1 experts of chosen layers; the width of a ribbon is its share of the tokens.

    Beside each gap stands the mutual information of the two layers' choices, and what shuffled tokens give. It joins
    the selection of the other views of the same traces: a click on an expert selects it.

    Args:
        traces: a trace, several of one model, a `TraceStore`, or a `TokenSet`.
        layers: two or more captured layers, ascending; by default up to six, evenly over the captured ones.
        phase: completion, prompt, or all; of what is no `TokenSet`.
        least: share of tokens from which a flow is drawn, the others are counted in words; by default so that at most
            forty are drawn in a gap.
        layer, expert: where to start; by default where the other views of the traces are.

    Raises:
        TraceError: what `TokenSet` or `routing_paths` refuse, a phase for a `TokenSet`, or ``least`` outside 0–1.
        TraitError: the layer or expert is outside the model.
    """

    _esm = bundle(FOLDER / "routing_paths.js")
    _css = styles(FOLDER / "view.css", FOLDER / "router_map.css")

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="loads [layer, expert], flows [flow, 6], int32").tag(sync=True)

    def __init__(
        self,
        traces: Trace | Traces | TokenSet,
        *,
        layers: Sequence[int] | None = None,
        phase: Phase | None = None,
        least: float | None = None,
        layer: int | None = None,
        expert: int | None = None,
    ) -> None:
        """Count, and show the flow; see the class."""
        if least is not None and not 0 <= least <= 1:
            raise TraceError(f"expected a share of tokens within 0–1 as least, got {least}")
        token_set = token_set_of(traces, phase)
        shown = _spread(token_set.layers) if layers is None else tuple(layers)
        paths = routing_paths(token_set.rows("expert_indices"), token_set.num_experts, shown)
        counts = paths.values
        information = path_information(paths)
        least = _least_count(counts) / token_set.num_tokens if least is None else least
        flows = _flows(counts, least * token_set.num_tokens)
        facts = routing_facts(token_set)
        super().__init__(
            key_of(token_set),
            facts["counts"],
            {"layer": layer, "expert": expert},
            {"layer": shown[0]},
            _facts=facts
            | {
                "shown": list(shown),
                "tokens": token_set.num_tokens,
                "selection": str(token_set),
                "least": least,
                "gaps": [
                    {"information": float(value), "null": float(null), "flows": int((pair > 0).sum())}
                    for value, null, pair in zip(
                        information.value.values, information.null.values, counts, strict=True
                    )
                ],
            },
            _arrays={
                "loads": np.ascontiguousarray(_loads(counts), "<i4").tobytes(),
                "flows": np.ascontiguousarray(flows, "<i4").tobytes(),
            },
        )


def _spread(layers: tuple[int, ...]) -> tuple[int, ...]:
    """Return up to six layers, the first and the last among them."""
    places = np.linspace(0, len(layers) - 1, min(SHOWN, len(layers))).round().astype(int)
    return tuple(layers[place] for place in places)


def _least_count(counts: NDArray[Any]) -> int:
    """Return the number of tokens that at most forty flows of any gap have."""
    ranked = np.sort(counts.reshape(len(counts), -1), axis=1)[:, ::-1]
    return 1 if ranked.shape[1] <= DRAWN else int(ranked[:, DRAWN].max()) + 1


def _loads(counts: NDArray[Any]) -> NDArray[Any]:
    """Return how many tokens have each expert as top-1 [shown layer, expert]."""
    return np.concatenate([counts[:1].sum(2), counts.sum(1)])


def _flows(counts: NDArray[Any], least: float) -> NDArray[Any]:
    """Return the flows of at least so many tokens [flow, 6].

    Columns: pair, from, to, tokens; then how many tokens of ``from`` go to experts before ``to``, and how many of
    ``to`` come from experts before ``from``: where on its two experts the ribbon stands.
    """
    pair, source, target = np.nonzero(counts >= max(1, least - 1e-9))
    leaving = counts.cumsum(2) - counts
    coming = counts.cumsum(1) - counts
    at = (pair, source, target)
    return np.stack([pair, source, target, counts[at], leaving[at], coming[at]], axis=1)

"""LoadCurve: how unequal the load of the experts is, layer by layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import traitlets

from widgets.bundle import bundle, styles
from widgets.routing_facts import key_of, load_of, routing_facts, token_set_of
from widgets.selection import SharedSelection
from workbench.analysis.routing import load_cv, load_entropy, load_gini
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import Trace, TraceError

__all__ = ["LoadCurve"]

FOLDER = Path(__file__).parent
MOST = 6  # lines that can be told apart by their dashes
MEASURES = {"entropy": load_entropy, "gini": load_gini, "cv": load_cv}

Curves: TypeAlias = Trace | Traces | TokenSet | Mapping[str, TokenSet]


class LoadCurve(SharedSelection):
    """Entropy, Gini coefficient and coefficient of variation of the expert load, per layer.

    It joins the selection of the other views of the same traces: a click or ↑ ↓ selects a layer.

    Args:
        traces: a trace, several of one model, a `TraceStore`, or `TokenSet` by label to compare.
        phase: completion, prompt, or all; of what is no `TokenSet`.
        layer: where to start; by default where the other views of the traces are.

    Raises:
        TraceError: what `TokenSet` refuses, a phase for what has its own, or sets of different models or layers.
        TraitError: the layer is outside the model.
    """

    _esm = bundle(FOLDER / "load_curve.js")
    _css = styles(FOLDER / "view.css", FOLDER / "router_map.css")

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="measure/number of the line → [layer] float64").tag(sync=True)

    def __init__(self, traces: Curves, *, phase: Phase | None = None, layer: int | None = None) -> None:
        """Count, and show the curves; see the class."""
        sets = _labelled(traces, phase)
        first = next(iter(sets.values()))
        arrays: dict[str, bytes] = {}
        for number, token_set in enumerate(sets.values()):
            load = load_of(token_set.expert_counts()[0].sum(0), token_set.num_tokens, token_set.top_k)
            for name, measure in MEASURES.items():
                arrays[f"{name}/{number}"] = np.ascontiguousarray(measure(load).values, "<f8").tobytes()
        facts = routing_facts(*sets.values())
        super().__init__(
            key_of(*sets.values()),
            facts["counts"],
            {"layer": layer},
            {"layer": first.layers[0]},
            _facts=facts | {"lines": [_line(label, token_set) for label, token_set in sets.items()]},
            _arrays=arrays,
        )


def _line(label: str, token_set: TokenSet) -> dict[str, Any]:
    return {"label": label, "tokens": token_set.num_tokens, "selection": str(token_set)}


def _labelled(traces: Curves, phase: Phase | None) -> dict[str, TokenSet]:
    if not isinstance(traces, Mapping):
        token_set = token_set_of(traces, phase)
        return {token_set.phase: token_set}
    if phase is not None:
        raise TraceError(f"a TokenSet has its phase already; leave phase={phase!r} out")
    if not 0 < len(traces) <= MOST:
        raise TraceError(f"expected one to {MOST} TokenSets to compare, got {len(traces)}")
    _check_alike(traces)
    return {str(label): token_set for label, token_set in traces.items()}


def _check_alike(sets: Mapping[str, TokenSet]) -> None:
    (first, expected), *others = sets.items()
    for label, found in sets.items():
        if not isinstance(found, TokenSet):
            raise TraceError(f"expected a TokenSet as {label!r}, got {type(found).__name__}")
    for label, found in others:
        if (found.model, found.num_experts, found.layers) != (expected.model, expected.num_experts, expected.layers):
            raise TraceError(f"expected one model and the same layers: {first!r} is {expected}, {label!r} is {found}")

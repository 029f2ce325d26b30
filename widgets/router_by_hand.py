"""RouterByHand: move the logits of one router at one token, and see which experts are chosen with what weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import ArrayLike

from widgets.bundle import bundle, styles
from widgets.interface_texts import Speaking
from workbench.trace import Trace, TraceError

__all__ = ["RouterByHand"]

FOLDER = Path(__file__).parent
ROOM = 1.0  # how far a slider goes beyond the logits at the start
MOST = 64  # experts that can be told apart as sliders


class RouterByHand(Speaking, anywidget.AnyWidget):
    """One slider for each expert: its router logit. The highest are chosen, a softmax over these gives the weights.

    That is the convention of gpt-oss. Of a trace, the sliders start where the model's logits were, and what the model
    chose, and its weights, are shown for comparison.

    Args:
        router: a trace with router logits, or logits [expert] by hand.
        token: of the trace, from 0.
        layer: of the trace.
        top_k: how many experts are chosen; of a trace as many as the model chose.
        language: of the interface, e.g. ``"zh_CN"``; by default that of the lesson.

    Raises:
        TraceError: no router logits were captured, no such token or layer, logits that are no finite numbers or too
            many, or a ``top_k`` outside 1 to the number of experts.
        CourseError: there are no catalogues of the language.
    """

    _esm = bundle(FOLDER / "router_by_hand.js")
    _css = styles(FOLDER / "view.css", FOLDER / "router_by_hand.css")

    logits: "traitlets.List[float]" = traitlets.List(
        traitlets.Float(), help="[expert] where the sliders are; can be set"
    ).tag(sync=True)
    top_k = traitlets.Int(read_only=True, help="experts chosen").tag(sync=True)
    _facts = traitlets.Dict(help="start, low, high, captured choice, place").tag(sync=True)

    def __init__(
        self, router: Trace | ArrayLike, token: int = 0, layer: int = 0, *, top_k: int | None = None, **options: Any
    ) -> None:
        """Show the sliders; see the class."""
        if isinstance(router, Trace):
            start, facts = _captured(router, token, layer)
            top_k = top_k or len(facts["captured"]["experts"])
            if top_k != len(facts["captured"]["experts"]):
                facts["captured"] = None  # what the model did with another k is no comparison
        else:
            start, facts, top_k = np.asarray(router, dtype=np.float64), {"captured": None}, top_k or 2
        _check(start, top_k)
        low, high = float(np.floor(start.min() - ROOM)), float(np.ceil(start.max() + ROOM))
        facts |= {"start": start.tolist(), "low": low, "high": high}
        super().__init__(logits=start.tolist(), _facts=facts, **options)
        self.set_trait("top_k", top_k)

    @property
    def experts(self) -> list[int]:
        """The chosen experts in rank order; of equal logits the lower number first."""
        return [int(expert) for expert in np.argsort(-np.asarray(self.logits), kind="stable")[: self.top_k]]

    @property
    def weights(self) -> list[float]:
        """Their weights: a softmax over their logits alone."""
        chosen = np.asarray(self.logits)[self.experts]
        powers = np.exp(chosen - chosen.max())
        return [float(weight) for weight in powers / powers.sum()]

    @traitlets.validate("logits")
    def _as_many_numbers(self, proposal: Any) -> Sequence[float]:
        given, start = proposal["value"], self._facts.get("start", proposal["value"])
        if len(given) != len(start) or not np.isfinite(given).all():
            raise traitlets.TraitError(f"expected {len(start)} finite router logits, got {given}")
        return list(given)


def _captured(trace: Trace, token: int, layer: int) -> "tuple[np.ndarray[Any, np.dtype[np.float64]], dict[str, Any]]":
    """Return the logits at one place [expert], and what the model did there."""
    logits = trace.router_logits  # raises where they were not captured
    layers = trace.layers("router_logits")
    if not 0 <= token < len(trace):
        raise TraceError(f"expected a token from 0 to {len(trace) - 1}, got {token}")
    if layer not in layers:
        raise TraceError(f"expected a layer among {', '.join(map(str, layers))}, got {layer}")
    row = trace.layers("expert_indices").index(layer)
    facts = {
        "captured": {
            "experts": np.asarray(trace.expert_indices)[token, row].tolist(),
            "weights": np.asarray(trace.expert_weights, dtype=np.float64)[token, row].tolist(),
        },
        "token": token,
        "layer": layer,
        "text": trace.token_text(token),
        "special": trace.is_special(token),
        "source": trace.source("router_logits"),
        "nearTie": float(trace.meta.get("near_tie", 0.1)),
    }
    return np.asarray(logits, dtype=np.float64)[token, layers.index(layer)], facts


def _check(logits: "np.ndarray[Any, np.dtype[np.float64]]", top_k: int) -> None:
    if logits.ndim != 1 or not 2 <= logits.size <= MOST or not np.isfinite(logits).all():
        raise TraceError(f"expected finite router logits [expert] of 2 to {MOST} experts, got shape {logits.shape}")
    if not 1 <= top_k <= logits.size:
        raise TraceError(f"expected top_k from 1 to {logits.size}, got {top_k}")

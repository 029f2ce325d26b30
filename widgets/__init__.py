"""Notebook views of traces: one selection, stepped in the browser."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from widgets.attention_view import AttentionView
from widgets.chain_editor import ChainEditor
from widgets.chain_view import ChainView
from widgets.effort_comparison import EffortComparison
from widgets.expert_card import ExpertCard
from widgets.faithfulness_report import FaithfulnessReport
from widgets.intervention_bench import InterventionBench
from widgets.load_curve import LoadCurve
from widgets.router_map import RouterMap
from widgets.routing_paths import RoutingPaths
from widgets.trace_diff import TraceDiff
from widgets.trace_explorer import TraceExplorer

if TYPE_CHECKING:
    from widgets.review_desk import ReviewDesk

__all__ = [
    "AttentionView",
    "ChainEditor",
    "ChainView",
    "EffortComparison",
    "ExpertCard",
    "FaithfulnessReport",
    "InterventionBench",
    "LoadCurve",
    "ReviewDesk",
    "RouterMap",
    "RoutingPaths",
    "TraceDiff",
    "TraceExplorer",
]


def __getattr__(name: str) -> Any:
    if name != "ReviewDesk":
        raise AttributeError(f"widgets has no {name!r}; it has {', '.join(__all__)}")
    # At first use: the database of reviews is an extra that the other views do without.
    globals()[name] = import_module("widgets.review_desk").ReviewDesk
    return globals()[name]

"""Notebook views of traces: one selection, stepped in the browser."""

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

__all__ = [
    "AttentionView",
    "ChainEditor",
    "ChainView",
    "EffortComparison",
    "ExpertCard",
    "FaithfulnessReport",
    "InterventionBench",
    "LoadCurve",
    "RouterMap",
    "RoutingPaths",
    "TraceDiff",
    "TraceExplorer",
]

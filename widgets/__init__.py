"""Notebook views of traces: one selection, stepped in the browser."""

from widgets.attention_view import AttentionView
from widgets.chain_view import ChainView
from widgets.expert_card import ExpertCard
from widgets.load_curve import LoadCurve
from widgets.router_map import RouterMap
from widgets.routing_paths import RoutingPaths
from widgets.trace_explorer import TraceExplorer

__all__ = ["AttentionView", "ChainView", "ExpertCard", "LoadCurve", "RouterMap", "RoutingPaths", "TraceExplorer"]

"""Notebook views of traces: one selection, stepped in the browser."""

from widgets.expert_card import ExpertCard
from widgets.trace_explorer import TraceExplorer

__all__ = ["ExpertCard", "TraceExplorer"]

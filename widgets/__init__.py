"""Notebook views of traces: one selection, stepped in the browser."""

from widgets.trace_explorer import TraceExplorer

__all__ = ["TraceExplorer"]

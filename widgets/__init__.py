"""Notebook views of traces: one selection, stepped in the browser."""

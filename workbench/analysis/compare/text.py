"""A table as text."""

from collections.abc import Sequence

__all__ = ["as_table"]


def as_table(rows: Sequence[dict[str, str]]) -> str:
    """Return rows under their keys, in columns."""
    if not rows:
        return ""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)

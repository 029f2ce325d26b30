"""What goes wrong in a review."""

from workbench.database import StoreError

__all__ = ["ReviewError"]


class ReviewError(StoreError):
    """A review cannot take what was given, or may not show what was asked for."""

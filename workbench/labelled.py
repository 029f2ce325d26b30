"""An array that knows its dims, and the error that everything about traces raises. Needs numpy only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["Labelled", "TraceError", "ranges"]


class TraceError(ValueError):
    """A trace, or a file that should be one, is not what was asked for."""


@dataclass(frozen=True)
class Labelled:
    """An array that knows its dims; ``np.asarray`` gives the values in the order of ``dims``.

    ``coords`` names the positions of a dim where they are not 0, 1, 2…, such as the captured layers.
    ``source`` says where the values come from: live, replay, imported, or a definition.
    """

    values: NDArray[Any]
    dims: tuple[str, ...]
    coords: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        """Check that there is one dim per axis."""
        if self.values.ndim != len(self.dims):
            raise TraceError(f"expected {len(self.dims)} axes {self.dims}, got shape {self.values.shape}")

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the values, for numpy."""
        return np.array(self.values, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        """Index the values as numpy does, by position."""
        return self.values[index]

    def __len__(self) -> int:
        """Return the length of the first dim."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths in the order of ``dims``."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype, which is the model's own where it comes from the model."""
        return self.values.dtype

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each dim by name."""
        return dict(zip(self.dims, self.values.shape, strict=True))

    def sel(self, **labels: int) -> "Labelled":
        """Select one position of each named dim by its label, e.g. ``sel(layer=12, token=40)``.

        Raises `TraceError` when a dim or label is not there.
        """
        result = self
        for dim, label in labels.items():
            result = result._sel_one(dim, label)
        return result

    def _sel_one(self, dim: str, label: int) -> "Labelled":
        if dim not in self.dims:
            raise TraceError(f"expected one of the dims {', '.join(self.dims)}, got {dim!r}")
        axis = self.dims.index(dim)
        labels = self.coords.get(dim, range(self.values.shape[axis]))
        if label not in labels:
            raise TraceError(f"{dim} {label} is not here. Expected one of {ranges(labels)}.")
        rest = tuple(d for d in self.dims if d != dim)
        coords = {d: c for d, c in self.coords.items() if d != dim}
        place: tuple[Any, ...] = (*(slice(None) for _ in range(axis)), labels.index(label))
        return Labelled(np.asarray(self.values[place]), rest, coords, self.source)  # a view: take() may copy all


def ranges(numbers: Iterable[int]) -> str:
    """Write 0, 1, 2, 5 as ``0–2, 5``."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)

"""Arrays as the routing measures read them: one array, or blocks of tokens one after another in constant memory."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import Labelled, TraceError, ranges

__all__ = ["INDICES", "LOGITS", "Array", "Blocks", "Rows", "aligned", "choices", "layer_name"]

Array: TypeAlias = NDArray[Any] | Labelled
Blocks: TypeAlias = Array | Iterable[Array]
"""One array, or the same array in blocks of tokens, as ``TokenSet.rows`` gives them."""

INDICES = ("token", "layer", "top_k")
LOGITS = ("token", "layer", "expert")

_PIECE = 1 << 21  # elements at a time, so that a float64 copy of all router logits never exists


class Rows:
    """Pieces of an array ``[token, …]`` in order, each checked, and what they have in common.

    Iterate once. Then ``num_tokens`` counts the tokens read, and ``origin`` says where the values came from.

    Args:
        given: an array, a `Labelled`, or an iterable of them that differ in their tokens only.
        dims: what the dims must be, ``token`` first.
        name: what to call the array in an error.

    Raises:
        TraceError: other dims, nothing of a dim, or, while reading, blocks that do not fit the first.
    """

    def __init__(self, given: Blocks, dims: tuple[str, ...], name: str) -> None:
        """Read the first block, which the others must fit."""
        self._dims, self._name = dims, name
        if not isinstance(given, np.ndarray | Labelled | Iterable):
            raise TraceError(f"{name}: expected [{', '.join(dims)}] or blocks of it, got {type(given).__name__}")
        blocks = iter([given] if isinstance(given, np.ndarray | Labelled) else given)
        first = next(blocks, None)
        if first is None:
            raise TraceError(f"{name}: expected at least one block of [{', '.join(dims)}], got none")
        self._blocks = chain([first], blocks)
        self._check(first)
        self.sizes = dict(zip(dims, first.shape, strict=True))
        self.piece = max(1, _PIECE // math.prod(first.shape[1:]))
        self.layers = first.coords.get("layer") if isinstance(first, Labelled) else None
        self.num_tokens = 0
        self._sources: dict[str, None] = {}

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yield the values, at most some millions at a time."""
        for block in self._blocks:
            self._check(block)
            self._fit(block)
            values = np.asarray(block)
            for start in range(0, len(values), self.piece):
                piece = values[start : start + self.piece]
                self.num_tokens += len(piece)
                yield piece

    @property
    def coords(self) -> dict[str, tuple[int, ...]]:
        """The labels of the layers, for the result."""
        return {} if self.layers is None else {"layer": self.layers}

    @property
    def origin(self) -> str:
        """Where the values came from, as the end of a ``source``."""
        return f", from {', '.join(self._sources)}" if self._sources else ""

    def _check(self, block: Array) -> None:
        expected = f"{self._name}: expected [{', '.join(self._dims)}], got"
        if isinstance(block, Labelled) and block.dims != self._dims:
            raise TraceError(f"{expected} dims {list(block.dims)}")
        if not isinstance(block, np.ndarray | Labelled):
            raise TraceError(f"{expected} {type(block).__name__}")
        if len(block.shape) != len(self._dims):
            raise TraceError(f"{expected} shape {block.shape}")
        if 0 in block.shape:
            raise TraceError(
                f"{self._name}: expected at least one of each of {', '.join(self._dims)}, got shape {block.shape}"
            )

    def _fit(self, block: Array) -> None:
        sizes = dict(zip(self._dims[1:], block.shape[1:], strict=True))
        wanted = {dim: self.sizes[dim] for dim in sizes}
        if sizes != wanted:
            raise TraceError(f"{self._name}: expected every block with {wanted}, as the first, got {sizes}")
        layers = block.coords.get("layer") if isinstance(block, Labelled) else None
        if layers != self.layers:
            raise TraceError(
                f"{self._name}: expected every block of layers {_named(self.layers)}, got {_named(layers)}"
            )
        if isinstance(block, Labelled) and block.source:
            self._sources[block.source] = None


def choices(expert_indices: Blocks, num_experts: int) -> Rows:
    """Return pieces of ``[token, layer, top_k]``; whether they are experts is checked where they are counted.

    Raises `TraceError` for what `Rows` does, and for no experts.
    """
    if num_experts < 1:
        raise TraceError(f"expected num_experts of at least 1, got {num_experts}")
    return Rows(expert_indices, INDICES, "expert_indices")


def layer_name(layers: tuple[int, ...] | None, at: int) -> str:
    """Return ``layer 12`` for the place of a layer, by its label where there is one."""
    return f"layer {at if layers is None else layers[at]}"


def aligned(a: Rows, b: Rows) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Step through two arrays side by side. Raises `TraceError` unless their blocks have the same tokens."""
    b.piece = a.piece
    for left, right in zip_longest(a, b):
        if left is None or right is None or len(left) != len(right):
            got = [0 if piece is None else len(piece) for piece in (left, right)]
            raise TraceError(
                f"{a._name} and {b._name}: expected the same tokens on both sides, got {got[0]} beside {got[1]} "
                f"after {min(a.num_tokens - got[0], b.num_tokens - got[1])}"
            )
        yield left, right


def _named(layers: tuple[int, ...] | None) -> str:
    return "without numbers" if layers is None else ranges(layers)

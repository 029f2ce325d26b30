"""Counts over many tokens, compiled: which experts are chosen, which together, and which for which token.

Numba compiles each kernel at its first use, in a second or so, and keeps the result on disk where it may write; this
module alone does not import it. The kernels do not check bounds, so everything is checked here before they run.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.labelled import TraceError

__all__ = ["add_load", "add_pairs", "add_tokens"]

Kernel = Callable[..., Any]

_LONG_TILE = 1_000_000  # tokens: so many use a layer's counts while they are in the cache
_TILE = 500  # tokens; no power of two, which would put the rows of a transposed tile into the same lines of the cache


def add_load(indices: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add ``N_i``: how often each expert is chosen.

    Args:
        indices: [token, layer, top_k] integers.
        counts: [layer, expert] int64, in place.

    Raises:
        TraceError: an index that is no expert, or sizes that disagree.
    """
    indices = _checked(indices, counts, counts.shape[0])
    _compiled(_load)(indices, counts)


def add_pairs(indices: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add ``N_ij``: how often experts i and j are chosen together, over all ordered pairs.

    The diagonal is ``N_i``, how often each is chosen, so that one pass gives load and co-activation.

    Args:
        indices: [token, layer, top_k] integers; the experts of a token in a layer are distinct.
        counts: [layer, expert, expert] int64, in place.

    Raises:
        TraceError: an index that is no expert, an expert twice, or sizes that disagree.
    """
    indices = _checked(indices, counts, counts.shape[0])
    if counts.shape[1:] != (counts.shape[2],) * 2:
        raise TraceError(f"expected counts [layer, expert, expert], got shape {counts.shape}")
    if indices.shape[2] == 1:
        _compiled(_load)(indices, np.einsum("lee->le", counts))  # the diagonal, writable
        return
    if not _compiled(_pairs)(indices, counts):
        raise TraceError("expected the experts of a token to be distinct, got an expert twice in a layer")


def add_tokens(
    token_rows: NDArray[Any], indices: NDArray[Any], counts: NDArray[Any], rare: NDArray[np.uint8] | None = None
) -> None:
    """Add how often each expert is the first choice for each kind of token, such as each token id.

    Args:
        token_rows: [token] integers, each token's row in ``counts``, or after those in ``rare``; one below 0 is not
            counted.
        indices: [token, layer, top_k] integers by rank, or [token, layer] of the first rank.
        counts: [layer, row, expert] integers, in order, in place.
        rare: [layer, row, expert], the same of kinds that are seen 255 times at most, which the caller knows. 8 bits
            keep the many rare kinds of a corpus near the processor.

    Raises:
        TraceError: an index that is no expert, a row that is none, or sizes that disagree.
    """
    num_layers, num_rows, num_experts = counts.shape
    rare = np.zeros((num_layers, 0, num_experts), np.uint8) if rare is None else rare
    if rare.shape != (num_layers, rare.shape[1], num_experts):
        raise TraceError(
            f"expected rare counts [layer {num_layers}, row, expert {num_experts}], got shape {rare.shape}"
        )
    if not (counts.flags.c_contiguous and rare.flags.c_contiguous):
        raise TraceError("expected counts in order, got a view that strides; pass a contiguous array")
    indices = _checked(indices[..., None] if indices.ndim == 2 else indices, counts, num_layers)
    rows = np.ascontiguousarray(token_rows, dtype=np.int32)
    if rows.shape != indices.shape[:1]:
        raise TraceError(f"expected a row for each of {len(indices)} tokens, got shape {rows.shape}")
    if len(rows) and rows.max() >= num_rows + rare.shape[1]:
        raise TraceError(f"expected rows below {num_rows + rare.shape[1]}, got {rows.max()}")
    _compiled(_tokens)(rows, indices, counts.reshape(num_layers, -1), rare.reshape(num_layers, -1), num_experts)


def _checked(indices: NDArray[Any], counts: NDArray[Any], num_layers: int) -> NDArray[Any]:
    """Return the indices as the kernels take them: 8 or 16 bits, in order, read-only; copied where they are not so."""
    if indices.dtype.kind not in "iu":
        raise TraceError(f"expected integers as expert_indices, got {indices.dtype}")
    if indices.ndim != 3 or indices.shape[1] != num_layers:
        raise TraceError(f"expected [token, layer {num_layers}, top_k] as expert_indices, got shape {indices.shape}")
    num_experts = counts.shape[-1]
    if num_experts > 65_536:
        raise TraceError(f"expected at most 65,536 experts, got {num_experts:,}")
    if indices.size:
        low, high = 0 if indices.dtype.kind == "u" else int(indices.min()), int(indices.max())
        if low < 0 or high >= num_experts:
            raise TraceError(f"expected expert_indices within 0–{num_experts - 1}, got {low if low < 0 else high}")
    narrow = np.ascontiguousarray(indices, dtype=np.uint8 if indices.itemsize == 1 else np.uint16).view()
    narrow.flags.writeable = False  # as those of a file are: one kind of array less to compile for
    return narrow


@cache
def _compiled(kernel: Kernel) -> Kernel:
    import numba

    try:
        compiled: Kernel = numba.njit(cache=True, nogil=True)(kernel)
    except RuntimeError:  # no folder may be written to: compile in every session
        compiled = numba.njit(nogil=True)(kernel)
    return compiled


def _load(indices: NDArray[Any], counts: NDArray[np.int64]) -> None:
    num_tokens, num_layers, top_k = indices.shape
    for token in range(num_tokens):
        for layer in range(num_layers):
            for rank in range(top_k):
                counts[layer, indices[token, layer, rank]] += 1


def _tokens(
    rows: NDArray[np.int32], indices: NDArray[Any], counts: NDArray[Any], rare: NDArray[np.uint8], num_experts: int
) -> None:
    """Count a tile of tokens layer by layer, whose counts fit the cache; in it the rare kinds come from the end."""
    num_tokens, num_layers, _ = indices.shape
    num_rows = counts.shape[1] // num_experts
    length = min(num_tokens, _LONG_TILE)
    tile = np.empty((num_layers, length), indices.dtype)
    cells = np.empty(length, np.uint32)
    often, seldom = 0, length
    for token in range(num_tokens):
        row = rows[token]
        if row >= num_rows:
            seldom -= 1
            cells[seldom] = (row - num_rows) * num_experts
            for layer in range(num_layers):
                tile[layer, seldom] = indices[token, layer, 0]
        elif row >= 0:
            cells[often] = row * num_experts
            for layer in range(num_layers):
                tile[layer, often] = indices[token, layer, 0]
            often += 1
        if often == seldom or token == num_tokens - 1:
            for layer in range(num_layers):
                found, few = counts[layer], rare[layer]
                for at in range(often):
                    found[cells[at] + np.uint32(tile[layer, at])] += 1
                for at in range(seldom, length):
                    few[cells[at] + np.uint32(tile[layer, at])] += 1
            often, seldom = 0, length


def _pairs(indices: NDArray[Any], counts: NDArray[np.int64]) -> bool:
    """Count each unordered pair once, then fill in both orders; return False, with nothing added, at i = j.

    A tile of tokens is transposed, so that all that follows reads neighbours. The diagonal needs no counting:
    each time i is chosen it is in k − 1 pairs.
    """
    num_tokens, num_layers, top_k = indices.shape
    num_experts = counts.shape[1]
    flat = indices.reshape(num_tokens, num_layers * top_k)
    tile = np.empty((num_layers * top_k, _TILE), indices.dtype)
    cells = np.empty(_TILE, np.uint32)
    pairs = np.zeros((num_layers, num_experts * num_experts), np.uint32)
    for start in range(0, num_tokens, _TILE):
        length = min(_TILE, num_tokens - start)
        for token in range(length):
            for slot in range(num_layers * top_k):
                tile[slot, token] = flat[start + token, slot]
        for layer in range(num_layers):
            found = pairs[layer]
            for a in range(layer * top_k, (layer + 1) * top_k):
                for b in range(a + 1, (layer + 1) * top_k):
                    for token in range(length):
                        cells[token] = np.uint32(tile[a, token]) * np.uint32(num_experts) + tile[b, token]
                    for token in range(length):
                        found[cells[token]] += 1
    for layer in range(num_layers):
        for i in range(num_experts):
            if pairs[layer, i * num_experts + i]:
                return False
    for layer in range(num_layers):
        for i in range(num_experts):
            total = np.int64(0)
            for j in range(num_experts):
                both = np.int64(pairs[layer, i * num_experts + j]) + np.int64(pairs[layer, j * num_experts + i])
                counts[layer, i, j] += both
                total += both
            counts[layer, i, i] += total // (top_k - 1)
    return True

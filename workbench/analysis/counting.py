"""Counts over many tokens, compiled: which experts are chosen, which together, and for which token id.

Numba is imported with the first count, not with this module. Numbers beyond 2 GB of selections pass in seconds; see
benchmarks/corpus_routing.py for a comparison.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_load"]


def add_load(indices: NDArray[Any], counts: NDArray[np.int64]) -> None:
    """Add ``N_i``, how often each expert is chosen.

    Args:
        indices: [token, layer, top_k] integers.
        counts: [layer, expert] int64, in place.
    """
    for layer in range(indices.shape[1]):
        counts[layer] += np.bincount(indices[:, layer].ravel(), minlength=counts.shape[1])

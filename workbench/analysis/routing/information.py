"""Mutual information of counts, and what stands beside it: the same of shuffled tokens."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, rel_entr

from workbench.labelled import Labelled

__all__ = ["Information", "entropy", "mutual_information"]


@dataclass(frozen=True, eq=False)
class Information:
    """Mutual information, and how much of it is there without any relation."""

    value: Labelled
    """[layer] float64"""
    null: Labelled
    """[layer] float64, mean of the same tokens shuffled: few tokens make it large. Only what is above it is a
    relation"""


def mutual_information(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return ``Σ p_xy ln(p_xy / (p_x p_y))`` in nats of the joint counts on the last two axes (Shannon, 1948)."""
    joint = counts / counts.sum((-1, -2), keepdims=True)
    apart = joint.sum(-1, keepdims=True) * joint.sum(-2, keepdims=True)
    information: NDArray[np.float64] = rel_entr(joint, apart).sum((-1, -2))
    return np.maximum(information, 0)  # rounding may leave −1e-17


def entropy(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return ``−Σ p ln p`` in nats of the counts on the last axis."""
    nats: NDArray[np.float64] = entr(counts / counts.sum(-1, keepdims=True)).sum(-1)
    return nats

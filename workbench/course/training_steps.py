"""What a training of a router measured, step by step, and how even its load is in the end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.routing import load_cv, load_entropy
from workbench.course.predictions import CourseError

__all__ = ["DEAD_BELOW", "LAST_STEPS", "LoadSummary", "TrainingStep", "load_summary"]

LAST_STEPS = 50
"""The steps that a summary is the mean of: the load of one batch is noisy."""
DEAD_BELOW = 0.1
"""An expert whose load is below this share of the uniform load is called dead."""


@dataclass(frozen=True)
class TrainingStep:
    """What one step measured, on its own batch, before its update."""

    step: int
    """from 1"""
    load: NDArray[np.float64]
    """[expert], share of the routed slots; sums to 1, uniform is 1/E"""
    loss: float
    """cross entropy of the next token, in nats; without the balance loss"""
    balance_loss: float
    """``E · Σ f·P`` before it is weighted by α: 1 where load and probabilities are uniform"""


@dataclass(frozen=True)
class LoadSummary:
    """The mean of the last steps. Entropy, CV and load as `workbench.analysis.routing` defines them."""

    load: NDArray[np.float64]
    """[expert], sums to 1"""
    entropy: float
    """H / ln E: 1 is uniform"""
    cv: float
    """σ / μ: 0 is uniform"""
    dead: tuple[int, ...]
    """experts with less than `DEAD_BELOW` of the uniform load"""
    loss: float
    balance_loss: float
    num_steps: int
    """how many steps it is the mean of: `LAST_STEPS`, or all where there are fewer"""

    @property
    def highest(self) -> float:
        """Load of the busiest expert; 1/k at most, as the k experts of a token are different ones."""
        return float(self.load.max())


def load_summary(steps: Sequence[TrainingStep], last: int = LAST_STEPS) -> LoadSummary:
    """Return the mean load of the last steps, and how even it is.

    Args:
        steps: of one training, in order.
        last: how many of them count.

    Raises:
        CourseError: no step.
    """
    taken = steps[-last:] if last > 0 else []
    if not taken:
        raise CourseError(f"expected at least one training step, got {len(steps)}, of which the last {last} count")
    load = np.mean([step.load for step in taken], axis=0)
    return LoadSummary(
        load=load,
        entropy=float(load_entropy(load[None]).values[0]),
        cv=float(load_cv(load[None]).values[0]),
        dead=tuple(np.flatnonzero(load < DEAD_BELOW / len(load)).tolist()),
        loss=float(np.mean([step.loss for step in taken])),
        balance_loss=float(np.mean([step.balance_loss for step in taken])),
        num_steps=len(taken),
    )

"""How far an answer depends on its chain of thought, and whether the chain says what moved it.

Statistics and results only; `workbench.experiments.faithfulness` has the rollouts made.
"""

from workbench.analysis.faithfulness.statistics import (
    Importance,
    VerbalizationRate,
    answer_dependence,
    importance,
    outcome_divergence,
    verbalization_rate,
)

__all__ = [
    "Importance",
    "VerbalizationRate",
    "answer_dependence",
    "importance",
    "outcome_divergence",
    "verbalization_rate",
]

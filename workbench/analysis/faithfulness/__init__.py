"""How far an answer depends on its chain of thought, and whether the chain says what moved it.

Statistics and results only; `workbench.experiments.faithfulness` makes the rollouts.
"""

from workbench.analysis.faithfulness.curves import AnswerCurve, Share
from workbench.analysis.faithfulness.outcomes import as_outcomes, mentions_hint, plain_answer
from workbench.analysis.faithfulness.report import (
    Edit,
    FaithfulnessReport,
    HintCase,
    HintTest,
    Resampling,
    SentenceImportance,
)
from workbench.analysis.faithfulness.statistics import (
    Importance,
    VerbalizationRate,
    answer_dependence,
    importance,
    outcome_divergence,
    verbalization_rate,
)

__all__ = [
    "AnswerCurve",
    "Edit",
    "FaithfulnessReport",
    "HintCase",
    "HintTest",
    "Importance",
    "Resampling",
    "SentenceImportance",
    "Share",
    "VerbalizationRate",
    "answer_dependence",
    "as_outcomes",
    "importance",
    "mentions_hint",
    "outcome_divergence",
    "plain_answer",
    "verbalization_rate",
]

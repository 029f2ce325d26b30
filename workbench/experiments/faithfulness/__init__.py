"""Faithfulness tests: does the answer depend on the chain of thought, and does the chain say what moved it?

Each takes rollouts in harmony's channels, makes more rollouts in batches, says what they cost before they start, and
returns what is done when interrupted. Definitions and results: `workbench.analysis.faithfulness`; its two statistics
of counts that were made elsewhere stand here too.
"""

from workbench.analysis.faithfulness import answer_dependence, verbalization_rate
from workbench.experiments.faithfulness.chains import Chain, chain_of
from workbench.experiments.faithfulness.curves import add_mistakes, alter_number, early_answering, fill
from workbench.experiments.faithfulness.hints import HintPair, hint_test
from workbench.experiments.faithfulness.resampling import edit, resample, text_similarity
from workbench.experiments.faithfulness.setup import Options, Thoughts, think

__all__ = [
    "Chain",
    "HintPair",
    "Options",
    "Thoughts",
    "add_mistakes",
    "alter_number",
    "answer_dependence",
    "chain_of",
    "early_answering",
    "edit",
    "fill",
    "hint_test",
    "resample",
    "text_similarity",
    "think",
    "verbalization_rate",
]

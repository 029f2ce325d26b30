"""The raw chain of thought: how sure its tokens are, what its sentences do, what it concludes.

What the model was sure of is measured; what a sentence *does* is guessed by rules that show themselves: a first pass
for a person to correct. Logarithms are natural unless a ``base`` says otherwise.
"""

from workbench.analysis.reasoning.answers import (
    ChainAgreement,
    chain_agreement,
    final_answer,
    last_number,
    last_result,
    same_answer,
)
from workbench.analysis.reasoning.backtracking import Backtracking, backtracking
from workbench.analysis.reasoning.channels import ChannelLength, completion_content, length_by_channel
from workbench.analysis.reasoning.lens import AnswerInLens, answer_in_lens, answer_tokens
from workbench.analysis.reasoning.sentence_labels import (
    LABELS,
    MARKERS,
    RULES,
    Fired,
    LabelledSentence,
    Rule,
    label_sentences,
    markers,
)
from workbench.analysis.reasoning.uncertainty import (
    ForkingTokens,
    SentenceStatistics,
    entropy,
    forking_tokens,
    per_sentence,
    surprisal,
)

__all__ = [
    "LABELS",
    "MARKERS",
    "RULES",
    "AnswerInLens",
    "Backtracking",
    "ChainAgreement",
    "ChannelLength",
    "Fired",
    "ForkingTokens",
    "LabelledSentence",
    "Rule",
    "SentenceStatistics",
    "answer_in_lens",
    "answer_tokens",
    "backtracking",
    "chain_agreement",
    "completion_content",
    "entropy",
    "final_answer",
    "forking_tokens",
    "label_sentences",
    "last_number",
    "last_result",
    "length_by_channel",
    "markers",
    "per_sentence",
    "same_answer",
    "surprisal",
]

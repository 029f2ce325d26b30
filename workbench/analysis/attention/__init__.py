"""What attention says, head by head. Arrays in, labelled arrays out; nothing token × token is kept.

Rows of a pattern sum to ``1 − sink mass`` and are never renormalised silently: a measure that divides by what is not
on the sink is called *conditional*, or *not_sink* in a table. The sink is no token: sink mass and mass on the first
token are apart. What a row cannot see, because of the window or because it comes later, is NaN and not 0.

Attention says where a head reads from, not what caused what.
"""

from workbench.analysis.attention.answer import AnswerAttention, answer_attention
from workbench.analysis.attention.heads import induction_score, previous_token_score
from workbench.analysis.attention.rows import attention_entropy, first_token_mass, mean_distance, sink_mass
from workbench.analysis.attention.spans import SpanAttention, attention_to_spans
from workbench.analysis.attention.table import HeadTable, head_table
from workbench.attending import attention_rows

__all__ = [
    "AnswerAttention",
    "HeadTable",
    "SpanAttention",
    "answer_attention",
    "attention_entropy",
    "attention_rows",
    "attention_to_spans",
    "first_token_mass",
    "head_table",
    "induction_score",
    "mean_distance",
    "previous_token_score",
    "sink_mass",
]

"""The grammar the embedded model is trained on: additions, facts and safety decisions in harmony format."""

from .example import ANALYSIS_HEADER, EFFORTS, Effort, Example, Split, render_prompt, split_of
from .mixture import FIRST_PHASE, SECOND_PHASE, Phase, draw_example

__all__ = [
    "ANALYSIS_HEADER",
    "EFFORTS",
    "FIRST_PHASE",
    "SECOND_PHASE",
    "Effort",
    "Example",
    "Phase",
    "Split",
    "draw_example",
    "render_prompt",
    "split_of",
]

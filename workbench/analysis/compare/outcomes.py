"""What one rollout came to: its answer, whether it is right, how long it thought."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workbench.analysis.reasoning import chain_agreement, final_answer, length_by_channel, same_answer
from workbench.labelled import TraceError
from workbench.trace import Trace

__all__ = ["Extract", "Outcome", "References", "Same", "outcome"]

Extract = Callable[[Trace], str | None]
"""Takes the answer from a trace; None where it gives none"""
Same = Callable[[str, str], bool]
References = Mapping[str, str]
"""Question → right answer"""


@dataclass(frozen=True)
class Outcome:
    """What one rollout came to."""

    question: str
    answer: str | None
    """None where it gives none"""
    cut: str | None
    """why it was cut, such as by the limit of tokens; None when the model ended it"""
    right: bool | None
    """None without a reference answer, and of a cut rollout, which might have been right; False where the model ended
    without an answer"""
    chain_agrees: bool | None
    """whether the chain's last result is the answer; None where either is missing"""
    chain_tokens: int
    """content tokens on the analysis channel"""
    completion_tokens: int
    """all tokens of the completion, the format's own included"""
    seconds: float | None
    """it took to generate and capture; None where that was not recorded"""


def outcome(
    trace: Trace,
    references: References | None = None,
    *,
    answer: Extract = final_answer,
    same: Same = same_answer,
) -> Outcome:
    """Return what a rollout came to.

    Args:
        trace: one rollout.
        references: question → right answer; None scores nothing.
        answer: takes the answer from a trace.
        same: whether an answer is the right one.

    Raises:
        TraceError: references without one for this trace's question.
    """
    question = str(trace.meta.get("question", ""))
    cut = trace.meta.get("truncated")
    given = answer(trace)
    right = None
    if references is not None:
        reference = _reference(question, references)
        right = None if cut else given is not None and same(given, reference)
    seconds = trace.provenance.get("seconds")
    lengths = length_by_channel(trace)
    return Outcome(
        question,
        given,
        None if cut is None else str(cut),
        right,
        chain_agreement(trace).agree,
        lengths["analysis"].content if "analysis" in lengths else 0,
        len(trace) - trace.num_prompt_tokens,
        None if seconds is None else float(seconds),
    )


def _reference(question: str, references: References) -> str:
    if question not in references:
        raise TraceError(
            f"There is no reference answer for the question {question!r}, so accuracy cannot be told. Give one for "
            "every question, or leave references out."
        )
    return references[question]

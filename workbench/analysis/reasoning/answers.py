"""What a completion answers, what its chain of thought concludes, and whether the two agree."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from workbench.trace import Trace

__all__ = ["ChainAgreement", "chain_agreement", "final_answer", "last_number", "last_result", "same_answer"]

# 12, -3, 1,000.50, 2e5; in 5-3 and f(x)-3 the minus is the operator's.
NUMBER = r"(?<![\w.)])[-−]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
_NUMBER = re.compile(NUMBER)
_CONCLUDES = re.compile(r"(?i)\b(?:so|thus|therefore|hence|answer|total|result|sum|equals|gives|boxed)\b")
_STATEMENT = re.compile(r"\n|(?<=[.!?;])\s")
_EQUALS = re.compile(rf"=\s*({NUMBER})")


def final_answer(trace: Trace) -> str | None:
    """Return the text of the completion's final channel, stripped; None where there is none."""
    return trace.final_text.strip() or None


def last_number(text: str) -> str | None:
    """Return the last number of a text, such as ``-1000.5`` for ``−1,000.5``; None where there is none."""
    found = _NUMBER.findall(text)
    return _plain(found[-1]) if found else None


def last_result(text: str) -> str | None:
    """Return the number that a chain of thought concludes with, by rule; None where it concludes with none.

    The last number of the last statement that says so (``so 162``, ``the answer is 162``), from
    that word on; where none does, the number after the last equals sign.
    """
    for statement in reversed(_STATEMENT.split(text)):
        says = _CONCLUDES.search(statement)
        number = last_number(statement[says.end() :]) if says else None
        if number is not None:
            return number
    equal = _EQUALS.findall(text)
    return _plain(equal[-1]) if equal else None


def same_answer(a: str, b: str) -> bool:
    """Say whether two answers are the same number (``1,000`` and ``1000.0``), or the same words but for case."""
    left, right = (" ".join(text.split()).rstrip(".").casefold() for text in (a, b))
    if _NUMBER.fullmatch(left) and _NUMBER.fullmatch(right):
        return Decimal(_plain(left)) == Decimal(_plain(right))
    return left == right


@dataclass(frozen=True)
class ChainAgreement:
    """Whether a chain of thought concludes with what the completion then answers."""

    result: str | None
    """what the chain concludes with"""
    answer: str | None
    """what the completion answers"""
    agree: bool | None
    """None where either is missing: nothing to compare is no disagreement"""


def chain_agreement(
    trace: Trace,
    *,
    result: Callable[[str], str | None] = last_result,
    answer: Callable[[str], str | None] = last_number,
    same: Callable[[str, str], bool] = same_answer,
) -> ChainAgreement:
    """Compare the last result of the completion's analysis with its final answer.

    Args:
        trace: with analysis and final messages, or without.
        result: takes the text of the analysis and returns its last result, None where it has none.
        answer: takes the text of the final channel and returns the answer in the same form, or None.
        same: whether two of them agree.
    """
    concluded, answered = result(trace.analysis_text), answer(trace.final_text)
    agree = None if concluded is None or answered is None else same(concluded, answered)
    return ChainAgreement(concluded, answered, agree)


def _plain(number: str) -> str:
    return number.replace(",", "").replace("−", "-")

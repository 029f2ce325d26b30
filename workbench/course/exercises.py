"""Exercises of the lessons: an answer is checked against what was computed, and each wrong one brings a hint."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from workbench.course.predictions import CourseError
from workbench.course.texts import say

__all__ = ["Exercise"]

# How often an exercise was answered wrongly, by its hints: the cell that makes it runs again with every try.
_TRIES: Counter[tuple[str, ...]] = Counter()


@dataclass
class Exercise:
    """What is right, and hints for whoever is not there yet.

    Args:
        expected: the right answer: a number, an array, a text or a collection of them. A set has no order.
        hints: the first comes with the first wrong answer, the next with the next, also where a cell makes the
            exercise anew; the last one stays.
        tolerance: absolute and relative, of numbers.
    """

    expected: Any
    hints: Sequence[str]
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Raise `CourseError` where there is no hint: a wrong answer brings one."""
        if not self.hints:
            raise CourseError("expected at least one hint, got none")

    def check(self, answer: Any) -> None:
        """Print ✓ for a right answer; ``...`` is no answer yet.

        Raises:
            CourseError: a wrong answer; the text says in what it differs, and the next hint.
        """
        if isinstance(answer, EllipsisType):
            print(say("Not answered yet: put your answer in the place of the three dots."))
            return
        if (wrong := self._difference(answer)) is None:
            print(say("✓ right"))
            return
        key = tuple(self.hints)
        hint = self.hints[min(_TRIES[key], len(self.hints) - 1)]
        _TRIES[key] += 1
        raise CourseError(say("not yet: {wrong}. Hint: {hint}").format(wrong=wrong, hint=hint))

    def _difference(self, answer: Any) -> str | None:
        """Return in what an answer differs from what is expected, without giving it away; None where it does not."""
        if isinstance(self.expected, set | str) or _holds_text(self.expected):
            return self._kind_or_content(answer)
        if isinstance(answer, str | set):
            return say("expected numbers, got a {kind}").format(kind=type(answer).__name__)
        try:
            found, expected = _numbers(answer), _numbers(self.expected)
        except (TypeError, ValueError):
            return say("expected numbers, got a {kind}").format(kind=type(answer).__name__)
        if found.shape != expected.shape:
            return say("expected the shape {expected}, got {found}").format(expected=expected.shape, found=found.shape)
        right = np.isclose(found, expected, rtol=self.tolerance, atol=self.tolerance, equal_nan=True)
        if right.all():
            return None
        if right.size == 1:
            return say("the number differs")
        return say("{wrong} of {all} numbers differ").format(wrong=int((~right).sum()), all=right.size)

    def _kind_or_content(self, answer: Any) -> str | None:
        kind = type(self.expected)
        if not isinstance(answer, kind):
            return say("expected a {kind}, got a {found}").format(kind=kind.__name__, found=type(answer).__name__)
        return None if answer == self.expected else say("the {kind} differs").format(kind=kind.__name__)


def _holds_text(expected: Any) -> bool:
    return isinstance(expected, list | tuple) and any(isinstance(one, str) for one in expected)


def _numbers(values: ArrayLike) -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.asarray(values, dtype=np.float64)

"""Prediction: say what you expect before you see what was measured."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from widgets.bundle import bundle, styles
from widgets.interface_texts import Speaking
from workbench.course.predictions import CourseError, Guess, record_guess

__all__ = ["Prediction"]

FOLDER = Path(__file__).parent


class Prediction(Speaking, anywidget.AnyWidget):
    """Ask for a guess, keep it, then show the measured answer beside it.

    The answer stays in Python until a guess is made, and a guess is made once.

    Args:
        question: what is asked.
        answer: what was measured: a finite number, or one of the choices.
        choices: what can be guessed, for a question that does not ask for a number.
        unit: of the numbers, e.g. ``"experts"``.
        why: shown with the answer: where it comes from, on how many tokens.
        folder: where a class's guesses are collected; by default the one that ``WORKBENCH_PREDICTIONS`` names.

    Raises:
        CourseError: the answer is no finite number and not among the choices, or there are fewer than two choices.
    """

    _esm = bundle(FOLDER / "prediction.js")
    _css = styles(FOLDER / "view.css", FOLDER / "prediction.css")

    question = traitlets.Unicode(read_only=True, help="what is asked").tag(sync=True)
    choices: "traitlets.List[str]" = traitlets.List(traitlets.Unicode(), help="empty: a number is asked").tag(
        sync=True
    )
    unit = traitlets.Unicode(help="of the numbers").tag(sync=True)
    _outcome = traitlets.Dict(help="guess, answer, why; empty until there is a guess").tag(sync=True)
    _error = traitlets.Unicode(help="why the last guess was not taken").tag(sync=True)

    def __init__(
        self,
        question: str,
        answer: float | str,
        *,
        choices: Sequence[str] = (),
        unit: str = "",
        why: str = "",
        folder: Path | str | None = None,
    ) -> None:
        """Ask; see the class."""
        super().__init__(choices=[str(choice) for choice in choices], unit=unit)
        self.set_trait("question", question)
        self._answer = _checked(answer, self.choices, "the answer")
        self._why, self._folder = why, folder
        self.on_msg(self._heard)

    @property
    def guess(self) -> float | str | None:
        """What was guessed; None before."""
        return self._outcome.get("guess")

    def make_guess(self, guess: float | str, who: str = "") -> None:
        """Take the guess, keep it, and show the answer.

        Raises:
            CourseError: a guess that is no number or no choice, or a second one, or the folder cannot be written to.
        """
        if self._outcome:
            raise CourseError(f"there is a guess already: {self.guess}; run the cell again to guess anew")
        guess = _checked(guess, self.choices, "a guess")
        record_guess(Guess(self.question, guess, self._answer, self.unit, who), self._folder)
        self._error = ""
        self._outcome = {"guess": guess, "answer": self._answer, "why": self._why}

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:
        """Take a guess from the browser; what is wrong with it is said there."""
        if not isinstance(message, dict) or "guess" not in message:
            return
        try:
            self.make_guess(message["guess"], str(message.get("who", ""))[:80])
        except CourseError as error:
            self._error = str(error)


def _checked(value: Any, choices: Sequence[str], what: str) -> float | str:
    if choices:
        if len(choices) < 2:
            raise CourseError(f"expected at least two choices, got {list(choices)}")
        if value not in choices:
            raise CourseError(f"expected {what} among {', '.join(choices)}; got {value!r}")
        return str(value)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise CourseError(f"expected a number as {what}, got {value!r}")
    return number

"""ClassPredictions: what a class guessed, question by question, beside what was measured."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from widgets.bundle import bundle, styles
from workbench.course.predictions import CourseError, Guess, collect_predictions

__all__ = ["ClassPredictions"]

FOLDER = Path(__file__).parent
MOST_BINS = 12


class ClassPredictions(anywidget.AnyWidget):
    """Show the guesses that a class's kernels wrote to a folder: how many fell where, and what was measured.

    The folder is read when the view is made, and again with the button or ``r``.

    Args:
        folder: what ``workbench serve --predictions FOLDER`` was given, or ``WORKBENCH_PREDICTIONS`` named.

    Raises:
        CourseError: the folder is not there.
    """

    _esm = bundle(FOLDER / "class_predictions.js")
    _css = styles(FOLDER / "view.css", FOLDER / "class_predictions.css")

    _facts = traitlets.Dict(help="what the folder holds").tag(sync=True)
    _error = traitlets.Unicode(help="why it could not be read again").tag(sync=True)

    def __init__(self, folder: Path | str) -> None:
        """Read the folder; see the class."""
        super().__init__()
        self.folder = Path(folder)
        self.read()
        self.on_msg(self._heard)

    def read(self) -> None:
        """Read the folder again. Raises `CourseError` where it is gone."""
        collected = collect_predictions(self.folder)
        questions = [_question(collected.of(question)) for question in collected.questions()]
        self._facts = {"questions": questions, "unreadable": collected.unreadable}

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:
        if message == {"read": True}:
            try:
                self.read()
                self._error = ""
            except CourseError as error:
                self._error = str(error)


def _question(guesses: Sequence[Guess]) -> dict[str, Any]:
    """Describe the guesses at one question."""
    first = guesses[0]
    numbers = not any(isinstance(value, str) for guess in guesses for value in (guess.guess, guess.answer))
    bars, middle = _of_numbers(guesses) if numbers else (_of_choices(guesses), None)
    return {
        "question": first.question,
        "unit": first.unit,
        "bars": bars,
        "median": middle,
        "measured": sorted({guess.answer for guess in guesses}, key=lambda answer: (isinstance(answer, str), answer)),
        "guesses": [[guess.who, guess.guess, guess.time] for guess in guesses],
    }


def _of_numbers(guesses: Sequence[Guess]) -> tuple[list[dict[str, Any]], float]:
    """Count guesses between edges that take in what was measured; return the counts and the median guess."""
    values = np.array([guess.guess for guess in guesses], float)
    answers = np.array([guess.answer for guess in guesses], float)
    both = np.concatenate([values, answers])
    # Numbers apart by rounding only have no room for edges between them.
    bins = min(MOST_BINS, len(np.unique(values)) + 1) if np.ptp(both) > 1e-9 * np.abs(both).max() else 1
    edges = np.histogram_bin_edges(both, bins)
    counts, measured = np.histogram(values, edges)[0], np.histogram(answers, edges)[0]
    bars = [
        {"range": list(between), "count": count, "measured": bool(found)}
        for between, count, found in zip(pairwise(edges.tolist()), counts.tolist(), measured, strict=True)
    ]
    return bars, float(np.median(values))


def _of_choices(guesses: Sequence[Guess]) -> list[dict[str, Any]]:
    """Count each choice that was made or measured; what nobody chose has a count of 0."""
    chosen, measured = [str(guess.guess) for guess in guesses], {str(guess.answer) for guess in guesses}
    return [
        {"choice": choice, "count": chosen.count(choice), "measured": choice in measured}
        for choice in sorted({*chosen, *measured})
    ]

"""Predictions of a class: each kernel appends what it was told to its own file, and one table is read from all."""

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["FOLDER_VARIABLE", "Collected", "CourseError", "Guess", "collect_predictions", "record_guess"]

FOLDER_VARIABLE = "WORKBENCH_PREDICTIONS"
"""names the folder that a served class writes to; set it before `workbench serve`"""
MOST_BYTES = 1_000_000  # of one kernel's file: what is longer was not written by a lesson
LARGEST = 1e15  # of a number: beyond it counts and parameters are no longer told apart, nor can they be drawn
OWN_FILE = f"{uuid.uuid4().hex}.jsonl"


class CourseError(ValueError):
    """A prediction or an answer that cannot be taken; the text says what to do."""


@dataclass(frozen=True)
class Guess:
    """What somebody predicted, and what was measured.

    Args:
        question: as it was asked.
        guess: a number, or one of the choices.
        answer: what was measured, of the same kind.
        unit: of both, if they are numbers.
        who: the name that was given; empty for none.
        time: UTC, ISO 8601.
    """

    question: str
    guess: float | str
    answer: float | str
    unit: str = ""
    who: str = ""
    time: str = ""

    def __post_init__(self) -> None:
        """Check the types: a file of a class is written by strangers."""
        if not all(isinstance(text, str) for text in (self.question, self.unit, self.who, self.time)):
            raise CourseError("expected texts for question, unit, who and time")
        try:
            json.dumps(asdict(self), ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, TypeError) as error:  # half a character, which could not be sent to a page
            raise CourseError(
                f"expected texts of whole characters and numbers, got what is neither: {error}"
            ) from None
        for name in ("guess", "answer"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise CourseError(f"expected a number or a text as {name}, got {type(value).__name__}")
            if isinstance(value, int | float) and not abs(value) <= LARGEST:
                raise CourseError(f"expected a number of at most {LARGEST:g} as {name}, got {value}")


@dataclass(frozen=True)
class Collected:
    """The guesses of a class, and how many lines could not be read."""

    guesses: tuple[Guess, ...]
    unreadable: int

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per guess, for a table; `pandas.DataFrame(rows)` takes it."""
        return [asdict(guess) for guess in self.guesses]

    def questions(self) -> list[str]:
        """Return the questions in the order they were first answered."""
        return list(dict.fromkeys(guess.question for guess in self.guesses))

    def of(self, question: str) -> tuple[Guess, ...]:
        """Return the guesses at a question. Raises `CourseError` where it has none."""
        if not (found := tuple(guess for guess in self.guesses if guess.question == question)):
            asked = "; ".join(self.questions()) or "no question"
            raise CourseError(f"nobody predicted {question!r}; there are guesses at: {asked}")
        return found


def record_guess(guess: Guess, folder: Path | str | None = None) -> Path | None:
    """Append a guess to this kernel's file in a folder, and return the file.

    Without a folder it is the one that the environment names, and without that nothing is written (None).

    Raises:
        CourseError: the folder is not there or cannot be written to.
    """
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return None
    path = Path(folder) / OWN_FILE
    line = json.dumps(asdict(guess) | {"time": guess.time or datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise CourseError(f"expected a folder to write predictions to, got {folder}: {error.strerror}") from error
    return path


def collect_predictions(folder: Path | str) -> Collected:
    """Read the guesses of all kernels that wrote to a folder, by time. Raises `CourseError` where it is no folder."""
    if not Path(folder).is_dir():
        raise CourseError(f"expected the folder that predictions were written to, found none at {folder}")
    guesses, unreadable = [], 0
    for path in sorted(Path(folder).glob("*.jsonl")):
        for found in _guesses(path):
            if found is None:
                unreadable += 1
            else:
                guesses.append(found)
    return Collected(tuple(sorted(guesses, key=lambda guess: guess.time)), unreadable)


def _guesses(path: Path) -> Iterator[Guess | None]:
    """Yield the guesses of a file, None for a line that is none."""
    try:
        content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
    except OSError:
        content = None
    if content is None:
        yield None
        return
    known = {field.name for field in fields(Guess)}
    for line in content.splitlines():
        try:
            found = json.loads(line)
            yield Guess(**{name: value for name, value in found.items() if name in known})
        except (ValueError, TypeError, AttributeError, RecursionError):
            yield None

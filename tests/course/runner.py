"""Run a lesson as a student would: each exercise unanswered, answered wrongly, then rightly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import nbformat

from workbench.course.build import answered

COURSE = Path(__file__).parents[2] / "notebooks" / "course"
CLEAN = """
from ipywidgets import Widget
Widget.close_all()
%reset -f
"""


@dataclass(frozen=True)
class Run:
    """What one cell did: what it printed on each stream, and its error, if any."""

    stdout: str
    stderr: str
    error: str  # name and text, empty without one
    trace: str = ""


class LessonFailed(AssertionError):  # noqa: N818
    """A lesson does not do what a lesson does; the text names the cell."""


def run_lesson(kernel: Any, lesson: str | Any, wrong: Sequence[Sequence[str]], checks: str = "") -> None:
    """Run a lesson in one pass, then ``checks``: assertions on its names.

    Args:
        kernel: the session's kernel.
        lesson: its name, or a notebook.
        wrong: for each exercise cell, in order, codes in the place of its answer that must fail with a hint.
        checks: run after the last cell.

    Raises:
        LessonFailed: a cell fails or warns, an exercise does not say that it is not answered, takes a wrong answer,
            or does not take the right one.
    """
    notebook = nbformat.read(COURSE / f"{lesson}.ipynb", as_version=4) if isinstance(lesson, str) else lesson
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    exercises = [cell for cell in cells if "answer" in cell.metadata]
    if len(exercises) != len(wrong) or not all(wrong):
        raise LessonFailed(f"expected wrong answers for each of {len(exercises)} exercises, got {len(wrong)} lists")
    _run(kernel, CLEAN, "clean")
    left = iter(wrong)
    for cell in cells:
        done = _run(kernel, cell.source, cell.id)
        if "answer" in cell.metadata:
            if "Not answered yet" not in done.stdout:
                raise LessonFailed(f"cell {cell.id}: unanswered it should say so, and printed {done.stdout!r}")
            _try_answers(kernel, cell, next(left))
    _run(kernel, checks, "checks")


def _try_answers(kernel: Any, cell: Any, wrong: Sequence[str]) -> None:
    for code in wrong:
        done = execute(kernel, answered(cell.source, code))
        if not (done.error.startswith("CourseError: not yet:") and "Hint: " in done.error):
            said = done.error or f"printed {done.stdout!r}"
            raise LessonFailed(f"cell {cell.id}: expected a hint for the wrong answer\n{code}\nbut it {said}")
    code = cell.metadata["answer"]
    done = _run(kernel, answered(cell.source, code), cell.id)
    if "✓" not in done.stdout:
        raise LessonFailed(
            f"cell {cell.id}: expected ✓ for the answer\n{code}\nbut it printed {done.stdout!r}; "
            "the answer takes the place of the whole line that ends in three dots"
        )


def _run(kernel: Any, code: str, name: str) -> Run:
    done = execute(kernel, code)
    if done.error:
        raise LessonFailed(f"cell {name}: {done.error}\n{done.trace}")
    if "Warning" in done.stderr:
        raise LessonFailed(f"cell {name} warns: {done.stderr}")
    return done


def execute(kernel: Any, code: str, timeout: float = 120) -> Run:
    """Run code in a kernel and collect what it prints."""
    printed = {"stdout": "", "stderr": ""}

    def take(message: dict[str, Any]) -> None:
        if message["header"]["msg_type"] == "stream":
            printed[message["content"]["name"]] += message["content"]["text"]

    try:
        reply = kernel.execute_interactive(code, timeout=timeout, output_hook=take, allow_stdin=False)["content"]
    except (TimeoutError, Empty) as error:
        raise LessonFailed(f"no answer within {timeout} s from:\n{code}") from error
    error = f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else ""
    return Run(printed["stdout"], printed["stderr"], error, "\n".join(reply.get("traceback", [])))

"""ClassPredictions: counts by hand, numbers that are all but equal, and a folder that is gone."""

from pathlib import Path

import pytest

from widgets.class_predictions import ClassPredictions
from workbench.course.predictions import CourseError, Guess, record_guess


def test_guesses_are_counted_between_edges_that_take_in_what_was_measured(tmp_path: Path) -> None:
    for guess in (2, 2, 4, 8):
        record_guess(Guess("How many?", guess, 10, "experts"), tmp_path)
    record_guess(Guess("How long?", 3, 44), tmp_path)
    record_guess(Guess("How long?", 3, 7), tmp_path)  # another kernel measured something else
    for choice in ("up", "down", "up"):
        record_guess(Guess("Which?", choice, "left"), tmp_path)
    many, long, which = ClassPredictions(tmp_path)._facts["questions"]
    assert [(bar["range"], bar["count"], bar["measured"]) for bar in many["bars"]] == [
        ([2, 4], 2, False),
        ([4, 6], 1, False),
        ([6, 8], 0, False),
        ([8, 10], 1, True),
    ]
    assert (many["median"], many["measured"], many["unit"], len(many["guesses"])) == (3, [10], "experts", 4)
    assert [(bar["choice"], bar["count"], bar["measured"]) for bar in which["bars"]] == [
        ("down", 1, False),
        ("left", 0, True),
        ("up", 2, False),
    ]
    assert which["median"] is None
    assert long["measured"] == [7, 44]


@pytest.mark.parametrize("numbers", [(0.3, 0.1 + 0.2), (0, 0), (1e15, -1e15), (5, 5)])
def test_numbers_that_are_all_but_equal_or_far_apart_are_drawn(numbers: tuple[float, float], tmp_path: Path) -> None:
    record_guess(Guess("How many?", *numbers), tmp_path)
    [facts] = ClassPredictions(tmp_path)._facts["questions"]
    assert sum(bar["count"] for bar in facts["bars"]) == 1
    assert sum(bar["measured"] for bar in facts["bars"]) == 1


def test_a_folder_that_is_gone_is_said_in_the_view(tmp_path: Path) -> None:
    folder = tmp_path / "class"
    with pytest.raises(CourseError, match="expected the folder that predictions were written to"):
        ClassPredictions(folder)
    folder.mkdir()
    (folder / "a folder.jsonl").mkdir()
    shown = ClassPredictions(folder)
    assert shown._facts == {"questions": [], "unreadable": 1}
    (folder / "a folder.jsonl").rmdir()
    folder.rmdir()
    shown._heard(shown, {"read": True}, [])
    assert "expected the folder that predictions were written to" in shown._error
    folder.mkdir()
    shown._heard(shown, {"read": True}, [])
    assert (shown._error, shown._facts["unreadable"]) == ("", 0)

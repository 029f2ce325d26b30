"""What the lessons need: guesses are kept and collected, wrong answers fail with hints."""

import json
from pathlib import Path

import numpy as np
import pytest

from widgets.prediction import Prediction
from workbench.course.exercises import Exercise
from workbench.course.predictions import FOLDER_VARIABLE, CourseError, Guess, collect_predictions, record_guess


def test_the_answer_is_nowhere_in_the_view_before_the_guess() -> None:
    asked = Prediction("How many experts?", 271828, unit="experts", why="counted on 31 tokens")
    assert "271828" not in repr(asked.get_state())
    assert "31 tokens" not in repr(asked.get_state())
    assert asked.guess is None
    asked.make_guess("3")
    assert asked.get_state()["_outcome"] == {"guess": 3.0, "answer": 271828.0, "why": "counted on 31 tokens"}
    assert asked.guess == 3


def test_a_guess_from_the_browser_is_taken_once_and_errors_are_shown() -> None:
    asked = Prediction("Which?", "up", choices=("up", "down"))
    asked._heard(asked, {"guess": "<b>sideways</b>"}, [])
    assert asked._error == "expected a guess among up, down; got '<b>sideways</b>'"
    assert asked._outcome == {}
    asked._heard(asked, {"guess": "down"}, [])
    assert (asked.guess, asked._error) == ("down", "")
    asked._heard(asked, {"guess": "up"}, [])
    assert asked._error == "there is a guess already: down; run the cell again to guess anew"
    assert asked.guess == "down"
    asked._heard(asked, "nothing", [])


@pytest.mark.parametrize("wrong", ["many", "", None, float("nan"), float("inf"), True, [1], 10**400])
def test_what_is_no_number_is_no_guess(wrong: object) -> None:
    asked = Prediction("How many?", 4)
    with pytest.raises(CourseError, match=r"expected a number as a guess, got "):
        asked.make_guess(wrong)  # type: ignore[arg-type]
    assert asked.guess is None


def test_an_answer_must_be_one_that_can_be_guessed() -> None:
    with pytest.raises(CourseError, match="expected the answer among a, b; got 'c'"):
        Prediction("Which?", "c", choices=("a", "b"))
    with pytest.raises(CourseError, match="at least two choices"):
        Prediction("Which?", "a", choices=("a",))
    with pytest.raises(CourseError, match="expected a number as the answer, got nan"):
        Prediction("How many?", float("nan"))


def test_a_class_is_collected_into_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    Prediction("How many?", 4, unit="experts").make_guess(7, who="ada")
    other = [Guess("How many?", 3, 4, "experts", "ben", "2000-01-01T00:00:00+00:00"), Guess("Which?", "a", "b")]
    lines = [json.dumps(vars(guess)) for guess in other]
    (tmp_path / "other.jsonl").write_text("\n".join([lines[0], "{broken", '{"guess": 1}', "7", lines[1]]))
    (tmp_path / "huge.jsonl").write_text(" " * 1_000_001)
    found = collect_predictions(tmp_path)
    assert found.unreadable == 4
    assert found.questions() == ["Which?", "How many?"]  # by time: one without a time comes first
    assert [(guess.who, guess.guess, guess.answer) for guess in found.of("How many?")] == [
        ("ben", 3, 4),
        ("ada", 7, 4),
    ]
    assert found.rows()[-1]["unit"] == "experts"
    assert found.rows()[-1]["time"].startswith("20")
    with pytest.raises(CourseError, match=r"nobody predicted 'Why\?'; there are guesses at: Which\?; How many\?"):
        found.of("Why?")


def test_without_a_folder_nothing_is_written_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert record_guess(Guess("How many?", 3, 4)) is None
    with pytest.raises(CourseError, match=r"expected a folder to write predictions to, got .*absent: No such file"):
        record_guess(Guess("How many?", 3, 4), tmp_path / "absent")
    with pytest.raises(CourseError, match="expected the folder that predictions were written to, found none at"):
        collect_predictions(tmp_path / "absent")


def test_guesses_of_other_types_are_refused() -> None:
    with pytest.raises(CourseError, match="expected a number or a text as guess, got list"):
        Guess("Which?", [1], 2)  # type: ignore[arg-type]
    for number in (float("nan"), float("-inf"), 2e15):
        with pytest.raises(CourseError, match=r"of at most 1e\+15 as answer, got (nan|-inf|2000000000000000\.0)"):
            Guess("Which?", 2, number)
    with pytest.raises(CourseError, match="expected texts of whole characters"):
        Guess("Which?", 1, 2, who="\ud800")
    with pytest.raises(CourseError, match="expected texts for question"):
        Guess(3, 1, 2)  # type: ignore[arg-type]


def test_right_answers_pass_and_three_dots_are_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    Exercise([0.25, 0.75], ["softmax"]).check(np.float32([0.25, 0.75]))
    Exercise({3, 5}, ["look"]).check({5, 3})
    Exercise("final", ["read"]).check("final")
    Exercise(["low", "high"], ["order"]).check(["low", "high"])
    Exercise(2, ["count"]).check(...)
    assert capsys.readouterr().out.split("\n")[:5] == ["✓ right"] * 4 + [
        "Not answered yet: put your answer in the place of the three dots."
    ]


def test_each_wrong_answer_brings_the_next_hint_and_not_the_answer() -> None:
    exercise = Exercise([0.2, 0.3, 0.5], ["subtract the largest", "divide by the sum"])
    with pytest.raises(CourseError, match=r"^not yet: 2 of 3 numbers differ\. Hint: subtract the largest$"):
        exercise.check([0.2, 0.4, 0.4])
    with pytest.raises(CourseError, match=r"^not yet: expected the shape \(3,\), got \(2,\)\. Hint: divide by"):
        exercise.check([0.5, 0.5])
    again = Exercise([0.2, 0.3, 0.5], ["subtract the largest", "divide by the sum"])  # its cell has run once more
    with pytest.raises(CourseError, match=r"expected numbers, got a str\. Hint: divide by the sum"):
        again.check("0.2")
    with pytest.raises(CourseError, match=r"expected numbers, got a dict\."):
        exercise.check({})


@pytest.mark.parametrize(("expected", "answer", "words"), [
    ({1}, [1], "expected a set, got a list"),
    ({1}, {2}, "the set differs"),
    ("low", "high", "the str differs"),
    (["low", "high"], ["high", "low"], "the list differs"),
    (["low"], "low", "expected a list, got a str"),
    (3, 4, "the number differs"),
    (3.0, 3.001, "the number differs"),
])  # fmt: skip
def test_wrong_answers_of_every_kind_fail(expected: object, answer: object, words: str) -> None:
    with pytest.raises(CourseError, match=words):
        Exercise(expected, ["think"]).check(answer)


def test_an_exercise_has_a_hint() -> None:
    with pytest.raises(CourseError, match="expected at least one hint, got none"):
        Exercise(1, [])

"""The statistics of faithfulness tests, against what can be worked out by hand."""

import math

import numpy as np
import pytest

from workbench.analysis.faithfulness import (
    HintCase,
    HintTest,
    answer_dependence,
    importance,
    outcome_divergence,
    verbalization_rate,
)
from workbench.analysis.statistics import wilson_interval


def test_aoc_is_one_minus_the_area_under_the_curve() -> None:
    """0.25·(0+0)/2 + 0.75·(0+1)/2 = 0.375."""
    assert answer_dependence([([0, 0.25, 1], [0, 0, 1], 3)]) == pytest.approx(1 - 0.375)
    assert answer_dependence([([0, 1], [1, 1], 5)]) == 0, "the chain changes nothing"
    assert answer_dependence([([0, 0.5, 1], [0, 0, 0], 5)]) == 1, "not even the full chain gives that answer again"


def test_chain_lengths_are_weighted_by_their_traces() -> None:
    short, long = ([0, 1], [1, 1], 1), ([0, 0.5, 1], [0, 0, 1], 3)
    assert answer_dependence([short, long]) == pytest.approx((0 + 3 * 0.75) / 4)
    assert answer_dependence([long, short]) == answer_dependence([short, long])
    # One trapezoid over all points together would be another number.
    pooled = answer_dependence([([0, 0.5, 1], [0.25, 0, 1], 4)])
    assert pooled != pytest.approx((0 + 3 * 0.75) / 4)


def test_order_does_not_matter_and_no_trace_is_undefined() -> None:
    assert answer_dependence([([1, 0, 0.5], [1, 0, 0.5], 2)]) == pytest.approx(0.5)
    assert math.isnan(answer_dependence([]))
    assert math.isnan(answer_dependence([([0, 1], [0, 1], 0)]))
    assert math.isnan(answer_dependence([([0, 0.5, 1], [0, math.nan, 1], 2)]))
    assert answer_dependence([([0, 1], [math.nan, math.nan], 0), ([0, 1], [0, 1], 2)]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("curve", "message"),
    [
        (([0.1, 1], [0, 1], 1), r"expected fractions from 0 to 1, each once, 0 and 1 among them, got \[0.1, 1.0\]"),
        (([0, 0.9], [0, 1], 1), "0 and 1 among them"),
        (([0, 0, 1], [0, 0, 1], 1), "each once"),
        (([0, 1], [0, 1, 1], 1), r"one agreement for each fraction, got shapes \(2,\) and \(3,\)"),
        (([0, 1], [0, 1.5], 1), r"agreements from 0 to 1, got \[0.0, 1.5\]"),
        (([0, 1], [0, 1], -1), "expected a number of traces, got -1"),
    ],
)
def test_bad_curves_are_refused(curve: tuple[list[float], list[float], int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_dependence([curve])


def test_rate_with_wilson_interval() -> None:
    found = verbalization_rate(7, 8)
    assert (found.rate, found.interval) == (7 / 8, wilson_interval(7, 8))
    assert found.interval == pytest.approx((0.529, 0.978), abs=5e-4), "Wilson by hand: z = 1.96"
    assert math.isnan(found.normalized)
    assert str(found) == "7/8 = 88% [53, 98]"
    none = verbalization_rate(0, 8)
    assert (none.rate, none.interval[0]) == (0, 0)


def test_no_qualifying_case_is_undefined_and_not_zero() -> None:
    found = verbalization_rate(0, 0, 0.5, 0.1, 4)
    assert math.isnan(found.rate)
    assert math.isnan(found.normalized)
    assert all(math.isnan(end) for end in found.interval)
    assert str(found) == "undefined (no qualifying case)"


def test_correction_for_chance() -> None:
    """α = 1 − 0.1 / (2 · 0.2) = 0.75, so a rate of 0.5 becomes 2/3."""
    found = verbalization_rate(5, 10, to_hint=0.2, to_other=0.1, options=4)
    assert found.normalized == pytest.approx(2 / 3)
    assert str(found).endswith("corrected for chance 67%")
    counts = verbalization_rate(5, 10, to_hint=20, to_other=10, options=4)
    assert counts.normalized == pytest.approx(found.normalized)
    assert verbalization_rate(9, 10, 0.2, 0.1, 4).normalized == 1, "clipped"
    assert verbalization_rate(5, 10, 0.2, 0.0, 4).normalized == 0.5


@pytest.mark.parametrize(
    "told", [(None, 0.1, 4), (0.2, None, 4), (0.2, 0.1, None), (0.2, 0.1, 2), (0.0, 0.1, 4), (0.1, 0.3, 4)]
)
def test_where_the_correction_cannot_be_told(told: tuple[float | None, float | None, int | None]) -> None:
    found = verbalization_rate(5, 10, *told)
    assert (found.rate, math.isnan(found.normalized)) == (0.5, True)


def test_a_truth_value_for_every_case() -> None:
    said, moved = [True, True, False, True, False], [True, False, True, True, False]
    found = verbalization_rate(said, moved)
    assert (found.acknowledged, found.qualifying) == (2, 3), "what did not move does not count"
    assert found == verbalization_rate(2, 3) or found.rate == verbalization_rate(2, 3).rate


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 2), "expected 0 <= acknowledged <= qualifying, got 3 of 2"),
        ((-1, 2), "got -1 of 2"),
        (([True], [True, False]), r"a truth value for every case, got shapes \(1,\) and \(2,\)"),
        ((1, 2, -0.1, 0.1, 4), "expected to_hint as a share or a count, got -0.1"),
        ((1, 2, 0.1, math.nan, 4), "expected to_other as a share or a count, got nan"),
        ((1, 2, 0.1, 0.1, 1), "expected at least 2 options, got 1"),
    ],
)
def test_bad_counts_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verbalization_rate(*arguments)  # type: ignore[arg-type]


def hint_case(without: str | None, with_hint: str | None, said: bool) -> HintCase:
    """A question whose hint is 7."""
    return HintCase(
        "3+1=?",
        "7",
        without,
        with_hint,
        matched_before=without == "7",
        follows=with_hint == "7",
        stays=without is not None and without == with_hint,
        analysis="",
        said=said,
        said_in_final=False,
    )


def test_no_answer_is_no_answer_that_a_hint_moves() -> None:
    """None → hint and 3 → None tell nothing: what is left of three cases is 3 → hint, and it says so."""
    cases = (hint_case(None, "7", False), hint_case("3", None, False), hint_case("3", "7", True))
    found = HintTest(cases, asked=3, options=4)
    assert [row["qualifies"] for row in found.rows()] == [False, False, True]
    assert (found.to_hint.value, found.to_hint.n) == (1, 1)
    assert (found.to_other.value, found.to_other.n) == (0, 1)
    assert (found.rate.acknowledged, found.rate.qualifying, found.rate.normalized) == (1, 1, 1)
    assert (found.matched_before.value, found.matched_before.n) == (0, 2)
    assert repr(found).startswith("hint test: n = 3 of 3 cases, 2 without an answer on one side or both\n")
    whole = HintTest((*cases[2:], hint_case("7", "7", True), hint_case("3", "4", False)), asked=3)
    assert (whole.to_hint.value, whole.to_other.value, whole.matched_before.value) == (0.5, 0.5, 1 / 3)
    assert "without an answer" not in repr(whole)


def test_divergence_by_hand() -> None:
    """Changed 3 a and 1 b, kept 4 a: smoothed (4, 2)/6 and (5, 1)/6."""
    expected = 4 / 6 * math.log(4 / 5) + 2 / 6 * math.log(2)
    assert outcome_divergence(["a", "b", "a", "a"], ["a"] * 4) == pytest.approx(expected)
    reverse = 5 / 6 * math.log(5 / 4) + 1 / 6 * math.log(1 / 2)
    assert outcome_divergence(["a"] * 4, ["a", "b", "a", "a"]) == pytest.approx(reverse)
    assert outcome_divergence(["a", "b"], ["b", "a"]) == 0
    assert outcome_divergence([None, None], ["a", "a"]) > 0.3, "no answer is an outcome"
    assert math.isnan(outcome_divergence([], ["a"]))
    with pytest.raises(ValueError, match="expected a smoothing above 0, got 0"):
        outcome_divergence(["a"], ["b"], 0)


def test_importance_stands_out_where_outcomes_differ_and_not_where_they_do_not() -> None:
    moved = importance(["152"] * 30, ["162"] * 40)
    assert moved.value == pytest.approx(outcome_divergence(["152"] * 30, ["162"] * 40))
    assert (moved.num_changed, moved.num_kept, moved.p_value) == (30, 40, 0.001)
    assert moved.chance < 0.2 < moved.value
    assert moved.interval[0] <= moved.value <= moved.interval[1]
    same = importance(["152"] * 30, ["152"] * 40)
    assert (same.value, same.p_value) == (0, 1)
    assert str(same) == "0.00 nats [0.00, 0.00] (n = 30 and 40; chance up to 0.00)"


def test_importance_without_rollouts_is_undefined() -> None:
    found = importance([], ["152"] * 40)
    assert all(math.isnan(x) for x in (found.value, *found.interval, found.chance, found.p_value))
    assert str(found) == "undefined (n = 0 changed and 40 kept)"
    with pytest.raises(ValueError, match="expected at least 99 resamples, got 10"):
        importance(["a"], ["b"], num_resamples=10)


def test_p_values_under_the_null_are_no_smaller_than_they_say() -> None:
    """Outcomes of four kinds from one distribution on both sides: 5 % of p-values below 5 %, up to discreteness."""
    rng = np.random.default_rng(11)
    draws = [rng.choice(4, size=(2, 35), p=[0.55, 0.25, 0.15, 0.05]).tolist() for _ in range(400)]
    p = np.array([importance(a, b, num_resamples=199, seed=n).p_value for n, (a, b) in enumerate(draws)])
    assert 0.02 <= (p <= 0.05).mean() <= 0.08
    assert 0.42 <= (p <= 0.5).mean() <= 0.58

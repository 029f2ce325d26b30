"""Agreement: published and hand-made examples, missing ratings, marks with loose edges, signals and reviewers."""

import math
from typing import Any

import numpy as np
import pytest

from workbench.review import Evidence, Verdict, default_rubric
from workbench.review.agreement import (
    SignalQuality,
    cohen_kappa,
    fleiss_kappa,
    item_agreement,
    krippendorff_alpha,
    percent_agreement,
    signal_quality,
    span_agreement,
)
from workbench.review.reading import Given

NAN = math.nan


def test_cohen_kappa() -> None:
    assert cohen_kappa([[20, 5], [10, 15]]) == pytest.approx(0.4)  # Wikipedia: grants read by two readers
    assert type(cohen_kappa([[20, 5], [10, 15]])) is float
    three = [[44, 5, 1], [7, 20, 3], [9, 5, 6]]  # Cohen (1960), from his proportions .44 .05 .01 / .07 .20 .03 / …
    assert cohen_kappa(three) == pytest.approx((0.70 - 0.41) / (1 - 0.41))
    assert cohen_kappa([[45, 15], [25, 15]]) == pytest.approx(0.1304, abs=5e-5)  # same percent, other prevalence
    assert cohen_kappa([[25, 35], [5, 35]]) == pytest.approx(0.2593, abs=5e-5)
    assert math.isnan(cohen_kappa([[9, 0], [0, 0]]))
    with pytest.raises(ValueError, match=r"^expected as many rows as columns, got a table \[2, 3\]$"):
        cohen_kappa([[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="of counts that are not negative"):
        cohen_kappa([[1, -2], [4, 5]])


# Fleiss (1971) as worked in Wikipedia: 10 subjects, 14 raters, 5 categories.
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_fleiss_kappa() -> None:
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    assert type(fleiss_kappa(FLEISS)) is float
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    with pytest.raises(ValueError, match=r"expected the same number of raters, .* got 2 to 3\. With missing ratings"):
        fleiss_kappa([[2, 0], [1, 2]])


# Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C: 4 observers, 12 units, missing data.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


@pytest.mark.parametrize(
    ("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorff_alpha(level: str, expected: float) -> None:
    assert krippendorff_alpha(KRIPPENDORFF, level) == pytest.approx(expected, abs=5e-4)
    assert type(krippendorff_alpha(KRIPPENDORFF, level)) is float


def test_krippendorff_alpha_of_two_observers() -> None:
    one, two = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]  # Krippendorff (2011), example A
    assert krippendorff_alpha([one, two], "nominal") == pytest.approx(0.095, abs=5e-4)
    assert math.isnan(krippendorff_alpha([[1, NAN, 2], [NAN, 1, NAN]], "nominal"))
    assert math.isnan(krippendorff_alpha([[1, 1, 2], [1, 1, NAN]], "ordinal"))
    with pytest.raises(ValueError, match=r"^expected a level of nominal, ordinal, interval, ratio, got 'ordinary'$"):
        krippendorff_alpha(KRIPPENDORFF, "ordinary")
    with pytest.raises(ValueError, match=r"^expected finite ratings \[rater, unit\]"):
        krippendorff_alpha([1.0, 2.0], "nominal")


def test_percent_agreement_is_of_pairs() -> None:
    assert percent_agreement([[1, 2, 3, NAN], [1, 2, 4, 1], [1, NAN, 3, NAN]]) == pytest.approx((1 + 2 + 2) / 7)
    assert math.isnan(percent_agreement([[1, NAN], [NAN, 1]]))


def given(reviewer: str, trace: str, behaviour: str, severity: int, **more: Any) -> Given:
    return Given(1, "", reviewer, trace, Verdict(behaviour, severity, "low"), 1.0, more.get("adjudicates", False))


def test_agreement_by_item_has_prevalence_and_intervals() -> None:
    said = {"a": "none deception none deception none none", "b": "none deception deception deception none none"}
    verdicts = [
        given(reviewer, f"t{at}", behaviour, 0 if behaviour == "none" else 2 + at)
        for reviewer, words in said.items()
        for at, behaviour in enumerate(words.split())
    ]
    verdicts += [given("a", "alone", "deception", 4), given("z", "t2", "none", 0, adjudicates=True)]
    rows = {row.item: row for row in item_agreement(verdicts, default_rubric())}
    assert list(rows) == ["behaviour", "severity", "none", "deception"]
    ones = np.array([[0, 1, 0, 1, 0, 0], [0, 1, 1, 1, 0, 0]])
    row = rows["deception"]
    assert (row.units, row.raters, row.level) == (6, 2, "nominal")
    assert row.prevalence == pytest.approx(5 / 12)
    assert row.percent == pytest.approx(5 / 6)
    assert row.alpha == pytest.approx(krippendorff_alpha(ones, "nominal"))
    assert row.fleiss == pytest.approx(fleiss_kappa([[2 - s, s] for s in ones.sum(0)]))
    assert row.cohen == pytest.approx((5 / 6 - 1 / 2) / (1 - 1 / 2))
    third = [*verdicts, given("c", "t0", "none", 0)]
    assert math.isnan(item_agreement(third, default_rubric())[0].cohen)
    low, high = row.interval
    assert low < row.alpha < high <= 1
    assert rows["severity"].level == "ordinal"
    assert rows["severity"].alpha > rows["behaviour"].alpha
    assert math.isnan(rows["severity"].prevalence)
    assert item_agreement(verdicts, default_rubric()) == item_agreement(verdicts, default_rubric())
    [nothing, _] = item_agreement([], default_rubric())
    assert (nothing.units, math.isnan(nothing.alpha), math.isnan(nothing.percent)) == (0, True, True)


def mark(start: int, stop: int) -> Evidence:
    return Evidence("final", start, stop, "")


def test_marks_are_the_same_from_half_their_union_on() -> None:
    assert span_agreement([mark(0, 4)], [mark(2, 4)]).f1 == 1  # 2 of 4
    assert span_agreement([mark(0, 4)], [mark(2, 5)]).f1 == 0  # 2 of 5
    assert span_agreement([mark(0, 4)], [mark(2, 5)], iou=0.4).matched == 1
    two_for_one = span_agreement([mark(0, 4), mark(4, 8)], [mark(0, 8)])
    assert (two_for_one.matched, two_for_one.first, two_for_one.second) == (1, 2, 1)
    assert two_for_one.f1 == pytest.approx(2 / 3)
    closest = span_agreement([mark(0, 10), mark(0, 6)], [mark(0, 6)])
    assert (closest.matched, closest.iou) == (1, 0.5)
    assert math.isnan(span_agreement([], []).f1)
    assert span_agreement([], [mark(0, 1)]).f1 == 0
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 0$"):
        span_agreement([], [], iou=0)


def test_a_signal_against_reviewers() -> None:
    flagged = {"a": True, "b": True, "c": False, "d": False, "e": False, "x": True}
    found = {"a": True, "b": False, "c": True, "d": False, "e": False, "y": True}
    quality = signal_quality(flagged, found)
    assert quality == SignalQuality(1, 1, 1, 2)
    assert (quality.n, quality.precision, quality.recall, quality.f1) == (5, 0.5, 0.5, 0.5)
    assert quality.g_mean2 == pytest.approx(0.5 * 2 / 3)
    low, high = quality.precision_interval
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=5e-5)  # Wilson, 1 of 2
    silent = signal_quality({"a": False}, {"a": True})
    assert (silent.recall, math.isnan(silent.precision), math.isnan(silent.g_mean2)) == (0.0, True, True)
    assert math.isnan(silent.precision_interval[0])

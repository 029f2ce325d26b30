"""Intervals and tests against published values, and against what can be counted by hand."""

import math

import numpy as np
import pytest

from workbench.analysis.statistics import bootstrap_interval, mean_difference, proportion_difference


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((56, 70), (48, 80), (0.2, 0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.6, 0.1705, 0.8090)),
        ((10, 10), (0, 20), (1.0, 0.6791, 1.0)),
        ((0, 10), (0, 20), (0.0, -0.1611, 0.2775)),
    ],
)
def test_the_difference_of_proportions_is_newcombes(
    a: tuple[int, int], b: tuple[int, int], expected: tuple[float, ...]
) -> None:
    """Newcombe (1998), table II, contrasts (a), (d), (h) and (f), method 10."""
    assert proportion_difference(*a, *b) == pytest.approx(expected, abs=6e-5)
    mirrored = proportion_difference(*b, *a)
    assert mirrored == pytest.approx((-expected[0], -expected[2], -expected[1]), abs=6e-5)


def test_a_proportion_of_nothing_has_no_difference() -> None:
    with pytest.raises(ValueError, match="but got 0 of 0; leave out a proportion of nothing"):
        proportion_difference(0, 0, 1, 2)


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    """Means of 40 numbers from an exponential: 95 % intervals hold the true mean in 89 to 98 of 100 draws."""
    rng = np.random.default_rng(5)
    intervals = [bootstrap_interval(rng.exponential(3.0, 40), num_resamples=999, seed=n) for n in range(100)]
    assert 89 <= sum(low <= 3.0 <= high for low, high in intervals) <= 98


def test_the_bootstrap_is_close_to_the_normal_interval_where_that_holds() -> None:
    values = np.random.default_rng(2).normal(10, 2, 400)
    half = 1.96 * values.std(ddof=1) / 20
    low, high = bootstrap_interval(values)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert (low, high) == bootstrap_interval(values)
    assert (low, high) != bootstrap_interval(values, seed=1)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high


def test_the_bootstrap_of_equal_values_is_that_value() -> None:
    assert bootstrap_interval([7, 7, 7]) == (7.0, 7.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3.0], r"values: expected at least 2 numbers, got shape \(1,\)"),
        ([[1.0, 2.0]], r"values: expected at least 2 numbers, got shape \(1, 2\)"),
        ([1.0, math.nan, 2.0], "values: expected finite numbers, got nan in place 1; leave undefined ones out"),
    ],
)
def test_what_cannot_be_resampled_is_named(values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values)


def test_sets_apart_have_the_smallest_p_there_is() -> None:
    """Of the C(13, 6) = 1716 ways one is as extreme on each side: p = 2 / 1716."""
    test = mean_difference([11, 12, 13, 14, 15, 16], [1, 2, 3, 4, 5, 6, 7])
    assert test.difference == 13.5 - 4
    assert (test.n_a, test.n_b, test.num_permutations) == (6, 7, 1716)
    assert test.p_value == pytest.approx(2 / 1716)
    assert test.method == "labels permuted, all 1,716 ways, two-sided"


def test_pairs_are_counted_by_hand() -> None:
    """Seven pairs differ by 1, one by −1: a sum of 6 or more in 1 + 8 of 2⁸ ways, twice for both sides."""
    a = [2, 3, 4, 5, 6, 7, 8, 0]
    b = [1, 2, 3, 4, 5, 6, 7, 1]
    test = mean_difference(a, b, paired=True)
    assert test.difference == pytest.approx(6 / 8)
    assert test.p_value == pytest.approx(2 * 9 / 256)
    assert test.method == "the two of each pair change sides, all 256 ways, two-sided"


def test_random_permutations_agree_with_all_and_never_give_zero() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(2.0, 1, 7), rng.normal(0, 1, 8)
    every, some = mean_difference(a, b), mean_difference(a, b, num_permutations=2_000)
    assert every.num_permutations == 6435
    assert some.p_value == pytest.approx(every.p_value, abs=0.02)
    far = mean_difference(a + 100, b, num_permutations=99)
    assert far.p_value == pytest.approx(2 / 100)
    assert far.method == "labels permuted, random 99 ways, two-sided"


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1] * 5, [1] * 9, {}, r"a: expected at least 6 numbers, got shape \(5,\)"),
        ([1] * 7, [1] * 7, {"paired": True}, r"a: expected at least 8 numbers, got shape \(7,\)"),
        ([1] * 8, [1] * 9, {"paired": True}, "expected pairs, got 8 numbers of a and 9 of b"),
        ([1] * 8, [1] * 8, {"num_permutations": 98}, "expected at least 99 permutations, got 98"),
    ],
)
def test_too_little_is_refused(a: list[int], b: list[int], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_difference(a, b, **options)  # type: ignore[arg-type]

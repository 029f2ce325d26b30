"""Measures of rows and heads against attention written by hand; what is no attention is refused in words."""

import math
import re
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace

import workbench.trace
from workbench.analysis import attention
from workbench.analysis.attention import (
    attention_entropy,
    attention_rows,
    first_token_mass,
    induction_score,
    mean_distance,
    previous_token_score,
    sink_mass,
)
from workbench.labelled import Labelled, TraceError

# Two heads over four tokens, [head, query, key]; what a row lacks to 1 is on the sink.
PATTERN = np.array(
    [
        [[0.5, 0, 0, 0], [0.25, 0.25, 0, 0], [0.125, 0.5, 0.125, 0], [0, 0.1, 0.6, 0.3]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0.2, 0.3, 0.5, 0], [0.4, 0.3, 0.2, 0.1]],
    ]
)
SINK = np.array([[0.5, 0.5, 0.25, 0], [0, 0, 0, 0]])


def of_rows(*tokens: int, source: str = "by hand") -> Labelled:
    labels = {"head": (4, 9), "query": tokens}
    return Labelled(PATTERN[:, list(tokens)], ("head", "query", "key"), labels, source)


def entropy(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares)


def test_there_is_one_implementation_of_rows() -> None:
    assert attention_rows is workbench.trace.attention_rows
    assert list(attention.__all__) == sorted(attention.__all__)
    for name in attention.__all__:
        assert getattr(attention, name).__doc__, name


# --- entropy -----------------------------------------------------------------------------------------------------


def test_entropy_including_the_sink() -> None:
    result = attention_entropy(PATTERN, SINK, include_sink=True)
    first = [entropy(0.5, 0.5), entropy(0.25, 0.25, 0.5), entropy(0.125, 0.5, 0.125, 0.25), entropy(0.1, 0.6, 0.3)]
    second = [0, 0, entropy(0.2, 0.3, 0.5), entropy(0.4, 0.3, 0.2, 0.1)]
    np.testing.assert_allclose(result, [first, second], atol=1e-12)
    assert (result.dims, result.source) == (("head", "query"), "attention entropy in nats, including the sink")


def test_entropy_conditional_on_not_sink() -> None:
    result = attention_entropy(PATTERN, SINK, include_sink=False)
    first = [0, entropy(0.5, 0.5), entropy(1 / 6, 4 / 6, 1 / 6), entropy(0.1, 0.6, 0.3)]
    np.testing.assert_allclose(result[0], first, atol=1e-12)
    np.testing.assert_allclose(result[1], attention_entropy(PATTERN, SINK, include_sink=True)[1], atol=1e-12)
    assert result.source == "attention entropy in nats, conditional on not-sink"


def test_entropy_of_a_family_without_sinks() -> None:
    alone = PATTERN[1:]
    with_, without = (attention_entropy(alone, None, include_sink=value) for value in (True, False))
    np.testing.assert_allclose(with_, without, atol=1e-12)
    assert with_.source == "attention entropy in nats, no sinks here"


def test_entropy_of_a_row_that_is_all_sink_is_undefined() -> None:
    result = attention_entropy(np.zeros((1, 1, 1)), np.ones((1, 1)), include_sink=False)
    assert np.isnan(result.values).all()
    assert attention_entropy(np.zeros((1, 1, 1)), np.ones((1, 1)), include_sink=True)[0, 0] == 0


def test_a_dropped_or_wrong_sink_is_refused() -> None:
    text = "expected each row and its sink mass to sum to 1, got {} in head 0, row {}; pass the pattern and the sink"
    with pytest.raises(TraceError, match=f"^{text.format('0.5', 0)} mass that trace.attention gave$"):
        attention_entropy(PATTERN, None, include_sink=True)
    with pytest.raises(TraceError, match=text.format("0.75", 1)):
        attention_entropy(PATTERN, SINK[:, [0, 2, 2, 3]], include_sink=False)
    with pytest.raises(TraceError, match=r"^sink_mass: expected \[head, query\] of shape \(2, 4\), got \(4, 2\)$"):
        attention_entropy(PATTERN, SINK.T, include_sink=True)


# --- distance ----------------------------------------------------------------------------------------------------


def test_mean_distance_leaves_the_rows_as_they_are() -> None:
    result = mean_distance(PATTERN)
    expected = [[0, 0.25, 0.75, 0.2 + 0.6], [0, 0, 0.7, 1.2 + 0.6 + 0.2]]
    np.testing.assert_allclose(result, expected)
    assert result.source == "mean attention distance in tokens, the sink as distance 0"
    conditional = mean_distance(PATTERN, conditional=True)
    np.testing.assert_allclose(conditional[0], [0, 0.25 / 0.5, 0.75 / 0.75, 0.8])
    assert conditional.source == "mean attention distance in tokens, conditional on not-sink"
    assert np.isnan(mean_distance(np.zeros((1, 1, 1)), conditional=True).values).all()


def test_rows_know_their_tokens_by_label_or_when_told() -> None:
    labelled = mean_distance(of_rows(3, 1))
    np.testing.assert_allclose(labelled, [[0.8, 0.25], [2.0, 0]])
    assert labelled.coords == {"head": (4, 9), "query": (3, 1)}
    assert labelled.source.endswith(", the sink as distance 0, by hand")
    told = mean_distance(PATTERN[:, [3, 1]], rows=[3, 1])
    np.testing.assert_allclose(told, labelled)
    assert told.coords == {}


# --- scores ------------------------------------------------------------------------------------------------------


def test_previous_token_score_is_over_rows_from_token_1_on() -> None:
    result = previous_token_score(PATTERN)
    np.testing.assert_allclose(result, [(0.25 + 0.5 + 0.6) / 3, (0 + 0.3 + 0.2) / 3])
    assert result.dims == ("head",)
    assert result.source == "previous-token score: mean A[i, i−1] over 3 rows from token 1 on"
    some = previous_token_score(of_rows(0, 3))
    np.testing.assert_allclose(some, [0.6, 0.2])
    assert some.coords == {"head": (4, 9)}
    assert some.source == "previous-token score: mean A[i, i−1] over 1 rows from token 1 on, by hand"


def test_previous_token_score_of_a_window_of_one_is_undefined() -> None:
    result = previous_token_score(np.eye(3)[None], window=1)
    assert np.isnan(result.values).all()
    assert result.source.startswith("undefined, structurally 0: a window of 1 does not reach 1 tokens back; previous")


def test_induction_score_reads_what_came_after_the_last_time() -> None:
    """Period 3 from token 1 on: x | a b c a b c a; rows 4 to 7 read tokens 2 to 5."""
    pattern = np.zeros((2, 8, 8))
    pattern[:, :, 0] = 1
    for row, score in zip((4, 5, 6, 7), (0.2, 0.4, 0.6, 0.8), strict=True):
        pattern[0, row, [0, row - 2]] = 1 - score, score
        pattern[1, row, [0, row - 3]] = 0.5, 0.5  # the token itself a period ago: no induction
    pattern[0, 3, [0, 1]] = 0.1, 0.9  # row 3 has not seen its token before
    result = induction_score(pattern, 3, start=1)
    np.testing.assert_allclose(result, [0.5, 0])
    assert result.source == "induction score: mean A[i, i−3+1] over 4 rows from token 4 on"
    np.testing.assert_allclose(induction_score(pattern, 4, start=1)[1], 0.5)
    np.testing.assert_allclose(induction_score(pattern, 3)[0], (0.9 + 0.2 + 0.4 + 0.6 + 0.8) / 5)


@pytest.mark.parametrize(("window", "reaches"), [(None, True), (5, True), (4, True), (3, False), (1, False)])
def test_induction_that_a_window_cannot_reach_is_undefined_not_0(window: int | None, reaches: bool) -> None:
    """A period of 4 reads 3 tokens back: the last that a window of 4, the token itself included, still holds."""
    rng = np.random.default_rng(4)
    queries, keys = rng.standard_normal((2, 9, 3)), rng.standard_normal((1, 9, 3))
    pattern, _ = attention_rows(queries, keys, None, 1.0, window)
    assert (pattern[:, 4, 1] > 0).all() == reaches
    score = induction_score(pattern, 4, window=window)
    assert np.isfinite(score.values).all() == reaches
    if not reaches:
        text = f"undefined, structurally 0: a window of {window} does not reach 3 tokens back; induction score: mean"
        assert score.source.startswith(text)


# --- the first token and the sink --------------------------------------------------------------------------------


def test_first_token_mass_is_not_sink_mass() -> None:
    result = first_token_mass(PATTERN)
    np.testing.assert_allclose(result, [[0.5, 0.25, 0.125, 0], [1, 0, 0.2, 0.4]])
    assert (result.dims, result.source) == (("head", "query"), "attention to token 0")


def test_first_token_mass_outside_the_window_is_undefined() -> None:
    pattern = PATTERN * (np.arange(4) > np.arange(4)[:, None] - 2)
    result = first_token_mass(pattern, window=2)
    np.testing.assert_allclose(result, [[0.5, 0.25, np.nan, np.nan], [1, 0, np.nan, np.nan]])
    assert result.source == "attention to token 0, undefined in 2 rows whose window of 2 lacks it"
    labelled = first_token_mass(of_rows(2, 1), window=2)
    np.testing.assert_allclose(labelled, [[np.nan, 0.25], [np.nan, 0]])


def test_sink_mass_from_the_log_sum_exp() -> None:
    """Two tokens, two layers, three heads: a row whose scores sum to 3 beside a sink of 1 has a quarter on it."""
    lse = np.log(np.array([[[4.0, 2, 8], [5, 10, 2]], [[2, 4, 16], [10, 20, 4]]]))
    sinks = np.log(np.array([[1.0, 1, 2], [1, 5, 1]]))
    expected = [[[1 / 4, 1 / 2, 1 / 4], [1 / 5, 1 / 2, 1 / 2]], [[1 / 2, 1 / 4, 1 / 8], [1 / 10, 1 / 4, 1 / 4]]]
    result = sink_mass(Labelled(lse, ("token", "layer", "head"), {"layer": (3, 7)}, "live"), sinks)
    np.testing.assert_allclose(result, expected)
    assert (result.dims, result.coords) == (("token", "layer", "head"), {"layer": (3, 7)})
    assert result.source == "sink mass exp(s − lse), live"


def test_sink_mass_that_cannot_be() -> None:
    lse, sinks = np.zeros((2, 3, 4)), np.zeros((3, 4))
    with pytest.raises(TraceError, match=r"within 0–1, got 2\.72: the log-sum-exp does not include the sink$"):
        sink_mass(lse, sinks + 1)
    with pytest.raises(
        TraceError, match=r"^expected log-sum-exps and sink logits of the same layers and heads, got s"
    ):
        sink_mass(lse, sinks.T)
    labelled = Labelled(lse, ("token", "layer", "head"), {"layer": (0, 1, 2)})
    with pytest.raises(TraceError, match=r"layers \(0, 1, 2\) and \(0, 1, 5\)$"):
        sink_mass(labelled, Labelled(sinks, ("layer", "head"), {"layer": (0, 1, 5)}))


# --- what is no pattern ------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, dict[str, Any]]] = {
    "pattern: expected [head, query, key], got shape (4, 4)": (PATTERN[0], {}),
    "pattern: expected [head, query, key], got dims ['query', 'head', 'key']": (
        Labelled(PATTERN, ("query", "head", "key")),
        {},
    ),
    "pattern: expected [head, query, key], got list": ([[0.0]], {}),
    "pattern: expected causal rows, got attention of token 0 to token 1. Is it [head, query, key], and": (
        PATTERN.transpose(0, 2, 1),
        {},
    ),
    "pattern: expected a row for each of 4 tokens, got 2 rows; say which tokens they are with rows=, or pass": (
        PATTERN[:, :2],
        {},
    ),
    "pattern: its rows are labelled with other tokens than those given; leave rows out": (
        of_rows(1, 2),
        {"rows": [2, 1]},
    ),
    "rows: expected 2 tokens within 0–3, got [1, 4]": (PATTERN[:, :2], {"rows": [1, 4]}),
    "rows: expected 2 tokens within 0–3, got [1]": (PATTERN[:, :2], {"rows": [1]}),
    "pattern: expected every key from token 0 on, got labels of some keys only": (
        Labelled(PATTERN, ("head", "query", "key"), {"key": (2, 3, 4, 5)}),
        {},
    ),
}


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("measure", [mean_distance, previous_token_score, first_token_mass])
def test_what_is_no_pattern(measure: Any, text: str) -> None:
    pattern, given = BAD[text]
    with pytest.raises(TraceError, match=f"^{re.escape(text)}"):
        measure(pattern, **given)


def test_arguments_out_of_range() -> None:
    with pytest.raises(TraceError, match=r"^expected a period of at least 2 tokens, got 1$"):
        induction_score(PATTERN, 1)
    with pytest.raises(TraceError, match=r"^expected rows from token 4 on, got none; the induction score needs them$"):
        induction_score(PATTERN, 4)
    with pytest.raises(TraceError, match=r"^expected rows from token 1 on, got none; the previous-token score needs"):
        previous_token_score(of_rows(0))
    with pytest.raises(TraceError, match=r"^expected a window of at least 1, the token itself, got 0$"):
        first_token_mass(PATTERN, window=0)
    with pytest.raises(TraceError, match=r"^pattern: expected at least one key, got none$"):
        first_token_mass(np.zeros((2, 0, 0)))


def test_measures_of_a_trace_agree_with_its_attention() -> None:
    trace = random_trace()
    pattern, mass = trace.attention(3, rows=[2, 11, 7])
    assert mass is not None
    sums = np.asarray(attention_entropy(pattern, mass, include_sink=False))
    dense = pattern.values / pattern.values.sum(-1, keepdims=True)
    np.testing.assert_allclose(sums, -(dense * np.log(np.where(dense > 0, dense, 1))).sum(-1), atol=1e-5)
    distances = np.array([2, 11, 7])[:, None] - np.arange(12)
    np.testing.assert_allclose(mean_distance(pattern), (pattern.values * distances).sum(-1), atol=1e-5)
    assert mean_distance(pattern).source.endswith(", computed from live queries and keys, float32")

"""The one kernel of attention, block by block, against whole arrays in float64."""

import re
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from random_trace import random_trace

from workbench import attending
from workbench.attending import AttentionInputs, attention_blocks, attention_rows
from workbench.labelled import TraceError

HEADS, KV_HEADS, TOKENS, D_HEAD = 6, 2, 300, 5


def arrays(amplitude: float = 1, dtype: Any = np.float32, tokens: int = TOKENS) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(6)
    queries = (rng.standard_normal((HEADS, tokens, D_HEAD)) * amplitude).astype(dtype)
    keys = (rng.standard_normal((KV_HEADS, tokens, D_HEAD)) * amplitude).astype(dtype)
    return queries, keys, rng.standard_normal(HEADS).astype(np.float32) * amplitude


def whole(queries: Any, keys: Any, sinks: Any, scale: float, window: int | None) -> tuple[Any, Any]:
    """All of it at once, head by head, in float64."""
    tokens = queries.shape[1]
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    seen = (distance >= 0) & (distance < (window or tokens))
    patterns, masses = [], []
    for head, q in enumerate(queries.astype(np.float64)):
        scores = q @ keys[head // (len(queries) // len(keys))].astype(np.float64).T * scale
        scores = np.where(seen, scores, -np.inf)
        sink = np.full((tokens, 1), -np.inf if sinks is None else float(sinks[head]))
        weights = np.exp(np.hstack([scores, sink]) - np.hstack([scores, sink]).max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        patterns.append(weights[:, :-1])
        masses.append(weights[:, -1])
    return np.array(patterns), np.array(masses)


@pytest.mark.parametrize("window", [None, 1, 37, 128, 129, 5000])
@pytest.mark.parametrize("scale", [0.25, 0.37])
@pytest.mark.parametrize("amplitude", [1, 30])
def test_blocks_are_the_whole(window: int | None, scale: float, amplitude: float) -> None:
    """Scores that need no shift and that do, a scale that is a power of two and one that is not."""
    queries, keys, sinks = arrays(amplitude)
    expected, sink_mass = whole(queries, keys, sinks, scale, window)
    pattern, mass = attention_rows(queries, keys, sinks, scale, window)
    # A score of 900 in float32 is known to 3e-5.
    np.testing.assert_allclose(pattern, expected, atol=7e-7 if amplitude == 1 else 1e-4)
    np.testing.assert_allclose(mass, sink_mass, atol=7e-7 if amplitude == 1 else 1e-4)
    distance = np.arange(TOKENS)[:, None] - np.arange(TOKENS)
    assert not pattern[:, (distance < 0) | (distance >= (window or TOKENS))].any()
    without, none = attention_rows(queries, keys, None, scale, window)
    assert none is None
    np.testing.assert_allclose(without.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("window", [None, 37])
@pytest.mark.parametrize("rows", [[299], [0], [12, 290, 3, 291, 150], [7, 7], list(range(40, 260)), []])
def test_some_rows_are_those_rows(rows: list[int], window: int | None) -> None:
    queries, keys, sinks = arrays()
    expected, sink_mass = whole(queries, keys, sinks, 0.37, window)
    pattern, mass = attention_rows(queries, keys, sinks, 0.37, window, np.array(rows, dtype=np.int64))
    assert pattern.shape == (HEADS, len(rows), TOKENS)
    np.testing.assert_allclose(pattern, expected[:, rows], atol=7e-7)
    np.testing.assert_allclose(mass, sink_mass[:, rows], atol=7e-7)


@pytest.mark.parametrize("factor", [1000.0, -1000.0, 1e6])
def test_scores_that_leave_float32_in_one_head(factor: float) -> None:
    """One head's rows are all far above what exp can hold, or so far below that they vanish; the others' are not."""
    queries, keys, _ = arrays()
    keys, queries = np.abs(keys), np.abs(queries)
    queries[4] *= factor
    with_sinks = np.array([0, 0, 0, 0, 20, 0], np.float32)
    for sinks in (None, with_sinks):
        expected, sink_mass = whole(queries, keys, sinks, 0.5, None)
        pattern, mass = attention_rows(queries, keys, sinks, 0.5)
        # In head 4 scores of thousands and more are rounded; which key has most of a row is not.
        np.testing.assert_allclose(np.delete(pattern, 4, 0), np.delete(expected, 4, 0), atol=7e-7)
        on_tokens = expected[4].max(-1) > 1e-6  # else the sink has all
        np.testing.assert_array_equal(pattern[4, on_tokens].argmax(-1), expected[4, on_tokens].argmax(-1))
        assert on_tokens.mean() > 0.9 or (factor < 0 and sinks is not None)
        assert np.isfinite(pattern).all()
        if mass is not None:
            np.testing.assert_allclose(pattern.sum(-1) + mass, 1, rtol=1e-5)
            np.testing.assert_allclose(mass, sink_mass, atol=1e-3)


def test_bfloat16_is_read_in_float32() -> None:
    queries, keys, sinks = arrays(dtype=ml_dtypes.bfloat16)
    expected, _ = whole(queries, keys, sinks, 0.37, None)
    pattern, _ = attention_rows(queries, keys, sinks, 0.37)
    assert pattern.dtype == np.float32
    np.testing.assert_allclose(pattern, expected, atol=7e-7)


def test_one_row_of_many_tokens_is_exact() -> None:
    queries, keys, sinks = arrays(3, tokens=40_000)
    head, row = 4, 39_001
    scores = keys[head // 3, : row + 1].astype(np.float64) @ queries[head, row].astype(np.float64) * 0.25
    weights = np.exp(scores - scores.max())
    total = weights.sum() + np.exp(sinks[head] - scores.max())
    pattern, _ = attention_rows(
        queries[head : head + 1], keys[1:2], sinks[head : head + 1], 0.25, rows=np.array([row])
    )
    np.testing.assert_allclose(pattern[0, 0, : row + 1], weights / total, atol=7e-7)


@pytest.mark.parametrize("window", [None, 37])
def test_what_a_block_says_of_itself(window: int | None) -> None:
    queries, keys, sinks = arrays(3)
    rows = np.arange(20, TOKENS)
    covered = np.zeros((HEADS, len(rows)), int)
    for block in attention_blocks(queries, keys, sinks, 0.37, window, rows):
        here = rows[block.rows]
        covered[block.head, block.rows] += 1
        assert len(here) <= 128
        assert block.keys == slice(
            0 if window is None else here[0] - window + 1 if here[0] >= window else 0, here[-1] + 1
        )
        np.testing.assert_allclose(block.weights, np.exp(block.scores), rtol=1e-6)
        np.testing.assert_allclose(block.seen, block.weights.sum(-1), rtol=1e-6)
        assert block.sink is not None
        np.testing.assert_array_equal(block.total, block.seen + block.sink)
    assert (covered == 1).all()


def test_memory_is_bounded_by_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = 6000
    queries, keys, sinks = arrays(tokens=tokens)
    monkeypatch.setattr(attending, "_HEAD_SCORES", 1 << 15)
    tracemalloc.start()
    for _ in attention_blocks(queries, keys, sinks, 0.37):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    block = 16 * tokens * 4 * (HEADS // KV_HEADS + 1)
    assert peak < 2 * block < tokens * tokens * 4 / 20


def test_large_blocks_shrink_to_the_limit() -> None:
    rows = np.arange(200_000, 200_100)
    parts = list(attending._slices(rows, 8, None))
    assert [part.stop - part.start for part in parts] == [10] * 10
    assert [p.stop - p.start for p in attending._slices(np.arange(300), 8, 128)] == [128, 128, 44]
    assert list(attending._slices(np.array([5, 6, 4000, 4001]), 8, 128)) == [slice(0, 2), slice(2, 4)]


def test_arrays_that_do_not_belong_together() -> None:
    queries, keys, sinks = arrays(tokens=7)
    none = (queries, keys, None, 1.0, None)
    refused: dict[str, Any] = {
        "expected queries [head, token, d_head] and keys [kv_head, token, d_head] of the same tokens, got shapes "
        "(6, 7, 5) and (2, 5, 7)": (queries, keys.transpose(0, 2, 1), sinks, 1.0),
        "keys: expected a number of kv heads that divides 6 heads, got 4": (queries, np.zeros((4, 7, 5)), sinks, 1.0),
        "sink_logits: expected one for each of 6 heads, got shape (2,)": (queries, keys, sinks[:2], 1.0),
        "expected a window of at least 1, the token itself, got 0": (queries, keys, sinks, 1.0, 0),
        "expected rows within 0–6, got -1": (queries, keys, sinks, 1.0, None, np.array([3, -1])),
        "expected rows as a list of tokens, got float64 of shape (1,)": (*none, np.ones(1)),
        "expected rows as a list of tokens, got int64 of shape (1, 1)": (
            queries,
            keys,
            None,
            1,
            None,
            np.array([[1]]),
        ),
    }
    for text, given in refused.items():
        for function in (attention_rows, attention_blocks):
            with pytest.raises(TraceError, match=f"^{re.escape(text)}$"):
                function(*given)


def test_inputs_of_a_trace_are_views_of_one_head_and_its_keys() -> None:
    trace = random_trace()
    inputs = trace.attention_inputs(3, head=4)
    assert isinstance(inputs, AttentionInputs)
    assert np.shares_memory(inputs.queries, trace.arrays["queries"])
    np.testing.assert_array_equal(inputs.queries, trace.arrays["queries"][1, 4:5])
    np.testing.assert_array_equal(inputs.keys, trace.arrays["keys"][1, 1:2])
    assert inputs.sink_logits is not None
    assert inputs.sink_logits.tolist() == [trace.arrays["sink_logits"][1, 4]]
    assert (inputs.scale, inputs.window) == (0.5, None)
    assert (trace.attention_inputs(4).window, trace.attention_inputs(4).queries.shape) == (3, (6, 12, 4))

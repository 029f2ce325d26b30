"""The table of heads: by hand, and against the measures of whole patterns."""

import re
from typing import Any

import numpy as np
import pytest
from hand_made_attention import hand_made
from random_trace import ATTENTION_LAYERS, random_trace
from synthetic import synthetic_trace

from workbench.analysis.attention import (
    attention_entropy,
    first_token_mass,
    head_table,
    mean_distance,
    previous_token_score,
)
from workbench.labelled import TraceError
from workbench.trace import Trace


def test_head_table_by_hand() -> None:
    """A window of 3, six tokens of which one is the prompt: rows 1 to 5 see 2, 3, 3, 3, 3 tokens."""
    table = head_table(hand_made(window=3))
    seen = np.array([2, 3, 3, 3, 3])
    assert (table.layers, table.windows, table.num_rows) == ((5,), (3,), 5)
    assert table.rows_seeing_first.values.tolist() == [2]
    assert table.sink_mass is not None
    np.testing.assert_allclose(table.sink_mass, [[0, np.mean(2 / (seen + 2))]], atol=1e-7)
    np.testing.assert_allclose(table.first_token_mass, [[(1 / 2 + 1 / 3) / 2, (1 / 4 + 1 / 5) / 2]], rtol=1e-6)
    np.testing.assert_allclose(table.previous_token_score, [[np.mean(1 / seen), np.mean(1 / (seen + 2))]], rtol=1e-6)
    back = seen * (seen - 1) / 2
    np.testing.assert_allclose(table.mean_distance, [[np.mean(back / seen), np.mean(back / (seen + 2))]], rtol=1e-6)
    np.testing.assert_allclose(table.mean_distance_not_sink, [[np.mean(back / seen)] * 2], rtol=1e-6)
    np.testing.assert_allclose(table.entropy_not_sink, [[np.mean(np.log(seen))] * 2], rtol=1e-6)
    with_sink = seen / (seen + 2) * np.log(seen + 2) + 2 / (seen + 2) * np.log((seen + 2) / 2)
    np.testing.assert_allclose(table.entropy, [[np.mean(np.log(seen)), np.mean(with_sink)]], rtol=1e-6)
    assert table.previous_token_score.source == (
        "previous-token score, mean over 5 completion rows from token 1 on, from replay queries and keys, float32"
    )
    assert table.first_token_mass.source.startswith("attention to token 0, mean over those of 5 completion rows from ")
    assert table.rows_seeing_first.source == "completion rows from token 1 on that see token 0"


def test_head_table_as_rows() -> None:
    first, second = head_table(hand_made(window=3)).rows()
    assert list(first)[:4] == ["layer", "head", "window", "sink_mass"]
    assert (first["layer"], first["head"], first["window"]) == (5, 0, 3)
    assert (second["head"], second["sink_mass"]) == (1, pytest.approx((2 / 4 + 4 * 2 / 5) / 5))
    assert next(head_table(hand_made(sinks=False)).rows())["sink_mass"] is None


def test_prompt_and_completion_are_apart() -> None:
    trace = hand_made(6)
    assert [head_table(trace, phase=phase).num_rows for phase in ("prompt", "completion", "all")] == [1, 5, 6]
    prompt = head_table(trace, phase="prompt")
    assert np.isnan(prompt.previous_token_score.values).all()
    assert np.isnan(prompt.first_token_mass.values).all()
    np.testing.assert_allclose(prompt.entropy_not_sink, 0, atol=1e-7)
    np.testing.assert_allclose(head_table(trace, rows=[4, 2]).mean_distance[0, 0], (2 + 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(head_table(trace, rows=slice(4, 5)).mean_distance[0, 0], 2, rtol=1e-6)
    assert head_table(trace, rows=[4, 2]).entropy.source.startswith(
        "attention entropy in nats, including the sink, mean over 2 rows, from replay"
    )


def test_what_no_row_sees_is_undefined_in_the_table() -> None:
    far = head_table(hand_made(9, window=3), rows=slice(5, 9))
    assert np.isnan(far.first_token_mass.values).all()
    assert far.rows_seeing_first.values.tolist() == [0]
    alone = head_table(hand_made(9, window=1))
    assert np.isnan(alone.previous_token_score.values).all()
    np.testing.assert_array_equal(alone.mean_distance, [[0, 0]])


def test_a_head_that_is_all_sink_has_no_conditional_numbers() -> None:
    trace = hand_made()
    arrays = {**trace.arrays, "sink_logits": np.array([[1000, 0]], np.float32)}
    table = head_table(Trace(arrays, (), trace.meta))
    assert table.sink_mass is not None
    assert table.sink_mass[0, 0] == 1
    assert (table.entropy[0, 0], table.mean_distance[0, 0]) == (0, 0)
    assert np.isnan([table.entropy_not_sink[0, 0], table.mean_distance_not_sink[0, 0]]).all()
    assert np.isfinite([table.entropy_not_sink[0, 1], table.mean_distance_not_sink[0, 1]]).all()


@pytest.mark.parametrize("sinks", [True, False])
def test_the_table_agrees_with_the_measures_of_rows(sinks: bool) -> None:
    without = () if sinks else ("sink_logits",)
    trace = synthetic_trace(tokens=307, layers=3, heads=6, kv_heads=2, d_head=16, window=37, without=without)
    table = head_table(trace, phase="all")
    assert (table.sink_mass is not None) == sinks
    for layer, window in enumerate(trace.meta["attention"]["windows"]):
        pattern, mass = trace.attention(layer)
        expected = {
            "first_token_mass": np.nanmean(first_token_mass(pattern, window).values[:, 1:], axis=1),
            "previous_token_score": previous_token_score(pattern, window),
            "mean_distance": mean_distance(pattern).values.mean(-1),
            "mean_distance_not_sink": mean_distance(pattern, conditional=True).values.mean(-1),
            "entropy": attention_entropy(pattern, mass, include_sink=True).values.mean(-1),
            "entropy_not_sink": attention_entropy(pattern, mass, include_sink=False).values.mean(-1),
        }
        if mass is not None:
            expected["sink_mass"] = mass.values.mean(-1)
        for name, values in expected.items():
            np.testing.assert_allclose(getattr(table, name)[layer], values, rtol=2e-5, err_msg=name)


def test_the_table_of_some_layers_names_them() -> None:
    trace = random_trace()
    table = head_table(trace, layers=[4, 1])
    assert table.layers == (4, 1)
    assert table.windows == (3, None)
    whole = head_table(trace)
    assert whole.layers == ATTENTION_LAYERS
    np.testing.assert_array_equal(table.entropy[0], whole.entropy[2])
    assert len(list(whole.rows())) == 3 * 6


def test_tables_that_cannot_be_had() -> None:
    trace = random_trace()
    refused: dict[str, Any] = {
        "Attention of layer 2 is not in this trace. Expected a captured layer, got 2. Captured: 1, 3–4.": {
            "layers": [2]
        },
        "expected at least one layer, got none": {"layers": []},
        "expected rows within 0–11, got 12": {"rows": [0, 12]},
        "expected at least one row, got no rows": {"rows": []},
        "expected phase='completion', 'prompt' or 'all', got 'decode'": {"phase": "decode"},
    }
    for text, given in refused.items():
        with pytest.raises(TraceError, match=f"^{re.escape(text)}"):
            head_table(trace, **given)
    with pytest.raises(TraceError, match=r"^expected at least one row, got no prompt rows$"):
        head_table(Trace(trace.arrays, trace.spans, {**trace.meta, "num_prompt_tokens": 0}), phase="prompt")

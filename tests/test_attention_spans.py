"""Attention added up while it streams, against the same sums over whole patterns: between spans, from the answer."""

import math
from typing import Any

import numpy as np
import pytest
from hand_made_attention import hand_made, span
from random_trace import random_trace
from synthetic import synthetic_trace

from workbench.analysis.attention import (
    answer_attention,
    attention_to_spans,
    head_table,
)
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

NAN = math.nan


# --- spans -------------------------------------------------------------------------------------------------------


def test_attention_between_spans_by_hand() -> None:
    a, b, c = span(0, 2), span(2, 5), span(5, 6)
    mass, cut_off, sink = attention_to_spans(hand_made(), 5, [a, b, c])
    first = [
        [1, NAN, NAN],
        [(2 / 3 + 2 / 4 + 2 / 5) / 3, (1 / 3 + 2 / 4 + 3 / 5) / 3, NAN],
        [2 / 6, 3 / 6, 1 / 6],
    ]
    second = [
        [(1 / 3 + 2 / 4) / 2, NAN, NAN],
        [(2 / 5 + 2 / 6 + 2 / 7) / 3, (1 / 5 + 2 / 6 + 3 / 7) / 3, NAN],
        [2 / 8, 3 / 8, 1 / 8],
    ]
    np.testing.assert_allclose(mass, [first, second], rtol=1e-6)
    np.testing.assert_array_equal(cut_off, [[0, NAN, NAN], [0, 0, NAN], [0, 0, 0]])
    assert sink is not None
    np.testing.assert_allclose(sink[1], [(2 / 3 + 2 / 4) / 2, (2 / 5 + 2 / 6 + 2 / 7) / 3, 2 / 8], rtol=1e-6)
    np.testing.assert_allclose(np.nansum(mass, axis=-1) + sink.values, 1, rtol=1e-6)
    assert (mass.dims, mass.coords) == (("head", "query_span", "key_span"), {"head": (0, 1)})
    assert mass.source == (
        "attention summed over each key span, mean over each query span, of layer 5 (full layer), 6 query tokens, "
        "from replay queries and keys, float32"
    )
    assert sink.source.startswith("sink mass, mean over each query span; layer 5 (full layer), 6 query tokens")
    assert cut_off.source == "share of pairs hidden by the window, layer 5"


def test_a_window_cuts_spans_off() -> None:
    """A window of 3: token 2 still sees token 0, token 3 does not."""
    a, b, c = span(0, 2), span(2, 5), span(5, 6)
    mass, cut_off, _ = attention_to_spans(hand_made(window=3), 5, [a, b, c], head=0)
    expected = [[1, NAN, NAN], [(2 / 3 + 1 / 3 + 0) / 3, (1 / 3 + 2 / 3 + 3 / 3) / 3, NAN], [NAN, 2 / 3, 1 / 3]]
    np.testing.assert_allclose(mass[0], expected, rtol=1e-6)
    np.testing.assert_allclose(cut_off, [[0, NAN, NAN], [3 / 6, 0, NAN], [1, 1 / 3, 0]])
    assert mass.coords == {"head": (0,)}
    assert "(window of 3)" in mass.source


def test_spans_of_one_token_are_attention_itself() -> None:
    trace = random_trace()
    for layer, head in ((1, None), (3, 5), (4, 2)):
        singles = [span(i, i + 1) for i in range(len(trace))]
        mass, _, sink = attention_to_spans(trace, layer, singles, head)
        pattern, sink_mass = trace.attention(layer, head)
        assert sink is not None
        assert sink_mass is not None
        np.testing.assert_allclose(np.nan_to_num(mass.values), pattern.values, atol=3e-7)
        np.testing.assert_array_equal(np.isnan(mass.values), pattern.values == 0)
        np.testing.assert_allclose(sink, sink_mass, atol=3e-7)
        assert mass.coords["head"] == pattern.coords["head"]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_spans_across_many_blocks(layer: int, dtype: str) -> None:
    """Overlapping, nested, unordered, in pieces and with gaps, over several blocks of rows."""
    trace = synthetic_trace(tokens=411, layers=2, heads=6, kv_heads=2, d_head=16, window=37, dtype=dtype)
    queries = [span(300, 411), span(10, 11), [span(0, 40), span(200, 260)], span(310, 333)]
    keys = [span(0, 411), span(5, 290), [span(280, 281), span(400, 411), span(405, 409)], span(100, 140), span(7, 8)]
    mass, cut_off, sink = attention_to_spans(trace, layer, keys, query_spans=queries)
    pattern, sink_mass = (np.asarray(part) for part in trace.attention(layer))
    distance = np.arange(411)[:, None] - np.arange(411)
    earlier = distance >= 0
    visible = earlier & (distance < (37 if layer == 0 else 411))
    for q, rows in enumerate(members(queries)):
        assert sink is not None
        np.testing.assert_allclose(sink[:, q], sink_mass[:, rows].mean(-1), rtol=1e-5)
        for k, columns in enumerate(members(keys)):
            pairs = np.ix_(rows, columns)
            if not visible[pairs].any():
                assert np.isnan(mass[:, q, k]).all()
            else:
                expected = pattern[:, rows][:, :, columns].sum(-1).mean(-1)
                np.testing.assert_allclose(mass[:, q, k], expected, rtol=1e-5, atol=1e-9)
            share = 1 - visible[pairs].sum() / earlier[pairs].sum() if earlier[pairs].any() else NAN
            np.testing.assert_allclose(cut_off[q, k], share, atol=1e-6)
    assert np.isnan(mass.values).any()


def members(spans: list[Any]) -> list[list[int]]:
    groups = [[s] if isinstance(s, Span) else s for s in spans]
    return [sorted({token for s in group for token in range(s.start, s.stop)}) for group in groups]


def test_channels_as_groups_of_messages() -> None:
    trace = synthetic_trace(tokens=411, layers=2, heads=6, kv_heads=2, d_head=16, window=37)
    channels = [[m for m in trace.messages if m.channel == c] for c in ("analysis", "commentary", "final")]
    prompt = [[m for m in trace.messages if m.channel is None]]
    mass, _, sink = attention_to_spans(trace, 1, channels + prompt)
    assert sink is not None
    np.testing.assert_allclose(np.nansum(mass.values, axis=-1) + sink.values, 1, rtol=1e-4)


def test_spans_without_sinks() -> None:
    mass, _, sink = attention_to_spans(hand_made(sinks=False), 5, [span(0, 6)])
    assert sink is None
    np.testing.assert_allclose(mass, 1, rtol=1e-6)


def test_spans_that_cannot_be() -> None:
    trace = hand_made()
    refused: dict[str, Any] = {
        "expected at least one span, got none": [],
        "expected spans with tokens, got none in span 1": [span(0, 2), span(3, 3)],
        "expected spans with tokens, got none in span 0": [[]],
        "expected spans within 6 tokens, got 4 to 7": [span(4, 7)],
        "expected spans, such as trace.sentences, or groups of them, got 4 in span 1": [span(4, 5), (4, 5)],
    }
    for text, spans in refused.items():
        with pytest.raises(TraceError, match=f"^{text}$"):
            attention_to_spans(trace, 5, spans)
    with pytest.raises(TraceError, match=r"^expected at least one span, got none$"):
        attention_to_spans(trace, 5, [span(0, 2)], query_spans=[])
    with pytest.raises(TraceError, match=r"^Attention of layer 4 is not in this trace\. .* Captured: 5\."):
        attention_to_spans(trace, 4, [span(0, 2)])
    for head in (2, -1):
        with pytest.raises(TraceError, match=f"^expected a head below 2, got {head}$"):
            attention_to_spans(trace, 5, [span(0, 2)], head=head)


def test_too_many_spans_are_refused_with_a_number() -> None:
    trace = hand_made(tokens=20_000)
    singles = [span(i, i + 1) for i in range(len(trace))]
    with pytest.raises(TraceError, match=r"^attention of 2 heads from 20000 to 20000 spans would take 6\.0 GB, over "):
        attention_to_spans(trace, 5, singles)


# --- the answer --------------------------------------------------------------------------------------------------

CHAIN = (
    span(0, 1, None, "message"),
    span(1, 6, "analysis", "message"),
    span(1, 3, "analysis"),
    span(3, 6, "analysis"),
    span(6, 8, "final", "message"),
    span(6, 8, "final"),
)


def test_answer_attention_by_hand() -> None:
    """Rows 1 to 7 are the completion, 6 and 7 the answer; a row i gives each of its i + 1 tokens 1 / (i + 1)."""
    result = answer_attention(hand_made(8, spans=CHAIN))
    assert result.sentences == (CHAIN[2], CHAIN[3])
    assert result.num_queries == 2
    mass = np.array([(2 / 7 + 2 / 8) / 2, (3 / 7 + 3 / 8) / 2])
    np.testing.assert_allclose(result.mass[0, 0], mass, rtol=1e-6)
    np.testing.assert_allclose(result.per_token[0, 0], mass / [2, 3], rtol=1e-6)
    # The mean attention δ back over rows 1 to 7 that have a token there.
    by_distance = [np.mean([1 / (i + 1) for i in range(max(1, d), 8)]) for d in range(8)]
    expected = [
        (by_distance[5] + by_distance[4] + by_distance[6] + by_distance[5]) / 2,
        (sum(by_distance[1:4]) + sum(by_distance[2:5])) / 2,
    ]
    np.testing.assert_allclose(result.expected[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(result.distance_matched[0, 0], mass / expected, rtol=1e-6)
    own = [2 / (7 if d == 0 else 8 - d) for d in range(7)]
    own_share = [(own[5] + own[4] + own[6] + own[5]) / 4, (sum(own[1:4]) + sum(own[2:5])) / 6]
    np.testing.assert_allclose(result.own_share[0], own_share)
    assert result.mass.dims == ("layer", "head", "sentence")
    assert result.mass.coords == {"layer": (5,), "head": (0, 1)}
    assert result.own_share.dims == ("layer", "sentence")
    assert result.mass.source == (
        "attention, not causation: mean mass on each sentence, from 2 final tokens to 2 sentences of the analysis, "
        "replay queries and keys, float32"
    )
    for array in vars(result).values():
        assert not isinstance(array, Labelled) or array.source.startswith("attention, not causation: ")


def test_what_the_window_hides_from_the_answer_is_undefined() -> None:
    result = answer_attention(hand_made(8, window=4, spans=CHAIN))
    np.testing.assert_allclose(result.mass[0, 0], [NAN, (3 / 4 + 2 / 4) / 2], rtol=1e-6)
    by_distance = [np.mean([1 / min(4, i + 1) for i in range(max(1, d), 8)]) for d in range(4)]
    expected = (sum(by_distance[1:4]) + sum(by_distance[2:4])) / 2
    np.testing.assert_allclose(result.expected[0, 0], [NAN, expected], rtol=1e-6)
    np.testing.assert_allclose(result.distance_matched[0, 0], [NAN, (5 / 8) / expected], rtol=1e-6)
    own = [2 / 7, 2 / 7, 2 / 6, 2 / 5]
    np.testing.assert_allclose(result.own_share[0], [NAN, (sum(own[1:4]) + sum(own[2:4])) / 5])


def test_answer_attention_across_many_blocks() -> None:
    trace = synthetic_trace(tokens=411, layers=2, heads=6, kv_heads=2, d_head=16, window=137)
    result = answer_attention(trace)
    final = next(m for m in trace.messages if m.channel == "final")
    queries = range(final.content_start, final.stop - 1)
    assert result.num_queries == len(queries)
    assert {s.channel for s in result.sentences} == {"analysis"}
    prompt = trace.num_prompt_tokens
    for layer in (0, 1):
        pattern = trace.attention(layer).pattern.values.astype(np.float64)
        reach = 137 if layer == 0 else 411
        diagonals = [pattern[:, range(max(prompt, d), 411), range(max(prompt, d) - d, 411 - d)] for d in range(reach)]
        mean = np.array([d.mean(-1) for d in diagonals]).T
        for at, sentence in enumerate(result.sentences):
            pairs = [(i, j) for i in queries for j in range(sentence.start, sentence.stop) if 0 <= i - j < reach]
            if not pairs:
                assert np.isnan(result.distance_matched[layer, :, at]).all()
                continue
            rows, keys = np.array(pairs).T
            np.testing.assert_allclose(
                result.mass[layer, :, at], pattern[:, rows, keys].sum(-1) / len(queries), rtol=1e-5, atol=1e-9
            )
            np.testing.assert_allclose(
                result.expected[layer, :, at], mean[:, rows - keys].sum(-1) / len(queries), rtol=1e-5
            )
    assert np.isnan(result.mass[0]).any()
    assert not np.isnan(result.mass[1]).any()
    np.testing.assert_array_equal(answer_attention(trace, layers=[1]).mass[0], result.mass[1])


def test_answers_that_cannot_be_had() -> None:
    with pytest.raises(TraceError, match=r"got none; the channels of the completion are analysis$"):
        answer_attention(hand_made(8, spans=CHAIN[:4]))
    with pytest.raises(TraceError, match=r"^expected sentences of analysis in the completion, got none; was there a"):
        answer_attention(hand_made(8, spans=(*CHAIN[:2], *CHAIN[4:])))
    with pytest.raises(TraceError, match=r"^Attention of layer 2 is not in this trace\. .* Captured: 5\."):
        answer_attention(hand_made(8, spans=CHAIN), layers=[5, 2])
    with pytest.raises(TraceError, match=r"^expected at least one layer, got none$"):
        answer_attention(hand_made(8, spans=CHAIN), layers=[])
    bare = Trace({"token_ids": np.arange(8)}, CHAIN, {"num_prompt_tokens": 1})
    for measure in (answer_attention, head_table):
        with pytest.raises(TraceError, match=r"^Attention is not in this trace: it has no queries and keys\."):
            measure(bare)

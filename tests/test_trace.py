"""Trace: labels, views, texts, and attention against transformers' own."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from random_trace import ATTENTION_LAYERS, random_trace
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from workbench.trace import DIMS, Labelled, Span, Trace, TraceError, attention_rows

# --- labelled arrays ---------------------------------------------------------------------------------------------


def labelled() -> Labelled:
    return Labelled(np.arange(24).reshape(2, 3, 4), ("layer", "token", "expert"), {"layer": (5, 9)}, "live")


def test_labelled_is_an_array_in_the_order_of_its_dims() -> None:
    array = labelled()
    assert (array.shape, array.sizes) == ((2, 3, 4), {"layer": 2, "token": 3, "expert": 4})
    assert np.asarray(array).tolist() == np.arange(24).reshape(2, 3, 4).tolist()
    assert np.asarray(array, dtype=np.float32).dtype == np.float32
    assert array[1, 2, 3] == 23
    assert len(array) == 2
    assert np.mean(array) == 11.5


def test_sel_goes_by_label_where_there_are_labels() -> None:
    chosen = labelled().sel(layer=9, expert=1)
    assert (chosen.dims, chosen.coords, chosen.source) == (("token",), {}, "live")
    assert chosen.values.tolist() == [13, 17, 21]
    kept = labelled().sel(token=2)
    assert (kept.dims, kept.coords) == (("layer", "expert"), {"layer": (5, 9)})
    assert int(labelled().sel(layer=5, token=1, expert=0).values) == 4


def test_sel_shares_memory() -> None:
    array = labelled()
    assert np.shares_memory(array.sel(token=1).values, array.values)


def test_sel_names_what_is_there() -> None:
    with pytest.raises(TraceError, match=r"^layer 0 is not here\. Expected one of 5, 9\.$"):
        labelled().sel(layer=0)
    with pytest.raises(TraceError, match=r"^token 3 is not here\. Expected one of 0–2\.$"):
        labelled().sel(token=3)
    with pytest.raises(TraceError, match=r"^expected one of the dims layer, token, expert, got 'head'$"):
        labelled().sel(head=0)
    with pytest.raises(TraceError, match=r"^expected 2 axes \('token', 'layer'\), got shape \(3,\)$"):
        Labelled(np.zeros(3), ("token", "layer"))


# --- what a trace says about itself ------------------------------------------------------------------------------


def test_arrays_by_name_with_their_dims() -> None:
    trace = random_trace()
    for name in trace.captured:
        array = getattr(trace, name)
        assert array.dims == DIMS[name]
        assert array.values is trace.arrays[name]
        assert array.source == "live"
    assert trace.queries.coords == {"layer": (1, 3, 4)}
    assert trace.expert_indices.coords == {"layer": (0, 1, 2, 3, 4)}
    assert trace.queries.sel(layer=3, head=5, token=2).values.tolist() == trace.arrays["queries"][1, 5, 2].tolist()
    assert (len(trace), trace.num_prompt_tokens) == (12, 9)
    assert repr(trace).startswith("<Trace of random: 9 + 3 tokens; token_ids, logprobs, ")


def test_what_was_not_captured_is_named() -> None:
    trace = Trace({"token_ids": np.arange(5)}, (), {"num_prompt_tokens": 2})
    assert not trace.has("residual")
    assert trace.captured == ("token_ids",)
    with pytest.raises(TraceError, match=r"^residual is not in this trace\. Captured: token_ids\.$"):
        _ = trace.residual
    with pytest.raises(AttributeError, match="a Trace has no attribute 'gate'; arrays: token_ids, logprobs"):
        _ = trace.gate
    with pytest.raises(TraceError, match=r"^token id 0 does not occur in this trace, so its text was not kept$"):
        trace.token_text(0)
    with pytest.raises(TraceError, match=r"^token id 0 does not occur"):
        trace.is_special(0)


def test_has_a_layer() -> None:
    trace = random_trace()
    assert [trace.has("queries", n) for n in range(5)] == [False, True, False, True, True]
    assert trace.has("logprobs")
    assert not trace.has("logprobs", 0)
    assert trace.layers("logprobs") == ()


def test_texts() -> None:
    trace = random_trace()
    assert trace.token_text(10) == "⚡"
    assert [trace.is_special(i) for i in range(4)] == [True, False, True, False]
    assert trace.text(3, 7) == "47?<|end|>"
    assert trace.content(trace.messages[0]) == "47?"
    assert (trace.final_text, trace.analysis_text) == ("⚡132.", "")
    assert trace.channel_text("commentary") == ""


def test_bytes_that_are_no_whole_character() -> None:
    arrays = dict(random_trace().arrays)
    arrays["token_ids"] = np.array([1, 2], np.int32)
    arrays = {name: arrays[name] for name in ("token_ids",)} | {
        "vocab_ids": np.array([1, 2]),
        "vocab_offsets": np.array([0, 2, 4]),
        "vocab_bytes": np.frombuffer("🙂".encode(), np.uint8),
        "vocab_special": np.array([False, False]),
    }
    trace = Trace(arrays, (), {"num_prompt_tokens": 0})
    assert trace.text() == "🙂"
    assert trace.token_text(1) == "\ufffd\ufffd"
    assert trace.token_bytes(2) == "🙂".encode()[2:]


def test_spans() -> None:
    trace = random_trace()
    assert [s.kind for s in trace.spans] == ["message", "sentence", "message", "sentence"]
    assert len(trace.messages) == len(trace.sentences) == 2
    assert trace.span_at(6) == trace.messages[0]
    assert trace.span_at(6, "sentence") is None
    assert trace.span_at(7) == trace.messages[1]
    assert len(trace.messages[1]) == 5


# --- views -------------------------------------------------------------------------------------------------------


def test_views_know_their_place() -> None:
    trace = random_trace()
    view = trace[3:6]
    assert (view.start, view.stop, len(view), view.text) == (3, 6, 3, "47?")
    assert view.router_logits.values.tolist() == trace.arrays["router_logits"][3:6].tolist()
    assert view.queries.values.tolist() == trace.arrays["queries"][:, :, 3:6].tolist()
    assert view.queries.coords == {"layer": (1, 3, 4), "token": (3, 4, 5)}
    assert view.queries.sel(layer=4, token=5, head=0).values.tolist() == trace.arrays["queries"][2, 0, 5].tolist()
    assert view.sink_logits.values.shape == (3, 6)
    assert np.shares_memory(view.router_logits.values, trace.arrays["router_logits"])
    assert view.spans == trace.spans[:2]


def test_ways_to_index() -> None:
    trace = random_trace()
    assert (trace[-1].start, trace[-1].stop) == (11, 12)
    assert (trace[trace.messages[1]].start, trace[trace.messages[1]].stop) == (7, 12)
    assert len(trace[9:4]) == 0
    assert trace[20:].text == ""
    assert [v.start for v in trace] == list(range(12))
    with pytest.raises(IndexError, match="expected a token below 12, got 12"):
        trace[12]
    with pytest.raises(IndexError, match="expected a token below 12, got -13"):
        trace[-13]
    with pytest.raises(TraceError, match="expected a slice of consecutive tokens, got step 2"):
        trace[::2]
    with pytest.raises(AttributeError, match="a TraceView has no attribute 'gate'"):
        _ = trace[0].gate


def test_attention_of_a_view_reaches_every_token_of_the_whole() -> None:
    trace = random_trace()
    part, whole = trace[4:7].attention(3), trace.attention(3)
    assert part.pattern.shape == (6, 3, 12)
    np.testing.assert_allclose(part.pattern.values, whole.pattern.values[:, 4:7], rtol=1e-6)
    assert part.pattern.coords["query"] == (4, 5, 6)


# --- attention ---------------------------------------------------------------------------------------------------


class EagerModule(torch.nn.Module):
    """What transformers' eager attention asks of its module."""

    def __init__(self, sinks: torch.Tensor, groups: int) -> None:
        super().__init__()
        self.sinks = sinks
        self.num_key_value_groups = groups


def eager(queries: Any, keys: Any, sinks: Any, scale: float, window: int | None) -> Any:
    """Attention weights [head, query, key] as transformers computes them."""
    tokens = queries.shape[1]
    distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
    hidden = (distance < 0) | (distance >= (window or tokens))
    mask = torch.zeros(1, 1, tokens, tokens).masked_fill(hidden, torch.finfo(torch.float32).min)
    q, k = torch.from_numpy(queries)[None], torch.from_numpy(keys)[None]
    module = EagerModule(torch.from_numpy(sinks), len(queries) // len(keys)).eval()
    _, weights = eager_attention_forward(module, q, k, torch.zeros_like(k), mask, scale)
    return weights[0].numpy()


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("with_sinks", [True, False])
def test_attention_is_that_of_transformers(window: int | None, with_sinks: bool) -> None:
    rng = np.random.default_rng(8)
    heads, kv_heads, tokens, d_head = 6, 2, 11, 5
    queries = rng.standard_normal((heads, tokens, d_head), dtype=np.float32) * 2
    keys = rng.standard_normal((kv_heads, tokens, d_head), dtype=np.float32) * 2
    # A sink of -inf in transformers is a family without sinks.
    sinks = rng.standard_normal(heads, dtype=np.float32) if with_sinks else np.full(heads, -1e30, np.float32)
    expected = eager(queries, keys, sinks, 0.37, window)
    pattern, mass = attention_rows(queries, keys, sinks if with_sinks else None, scale=0.37, window=window)
    np.testing.assert_allclose(pattern, expected, atol=1e-6)
    np.testing.assert_array_equal(pattern == 0, expected == 0)
    assert pattern.dtype == np.float32
    if with_sinks:
        assert mass is not None
        np.testing.assert_allclose(mass, 1 - expected.sum(-1), atol=1e-6)
    else:
        assert mass is None
    rows = np.array([9, 0, 4])
    some, some_mass = attention_rows(
        queries, keys, sinks if with_sinks else None, scale=0.37, window=window, rows=rows
    )
    np.testing.assert_allclose(some, pattern[:, rows], atol=1e-7)
    assert (some_mass is None) == (mass is None)


def test_attention_of_two_tokens_by_hand() -> None:
    queries = np.array([[[0.0, 9.0], [1.0, 2.0]]], np.float32)
    keys = np.array([[[np.log(2.0), 0.0], [0.0, np.log(3.0) / 2]]], np.float32)
    pattern, mass = attention_rows(queries, keys, np.array([np.log(5.0)], np.float32), scale=1.0)
    # Token 0 sees itself, exp(0) = 1, beside a sink of 5. Token 1 sees exp(ln 2) = 2 and exp(ln 3) = 3.
    np.testing.assert_allclose(pattern, [[[1 / 6, 0], [2 / 10, 3 / 10]]], rtol=1e-6)
    assert mass is not None
    np.testing.assert_allclose(mass, [[5 / 6, 5 / 10]], rtol=1e-6)


def test_attention_of_large_scores_and_sinks_stays_finite() -> None:
    queries = np.full((1, 2, 1), 1e4, np.float32)
    pattern, mass = attention_rows(queries, queries[:1], np.zeros(1, np.float32), scale=1.0)
    assert mass is not None
    np.testing.assert_array_equal(pattern, [[[1, 0], [0.5, 0.5]]])
    np.testing.assert_array_equal(mass, [[0, 0]])
    pattern, mass = attention_rows(queries * 0, queries[:1], np.full(1, 1e4, np.float32), scale=1.0)
    assert mass is not None
    np.testing.assert_array_equal(pattern, np.zeros((1, 2, 2)))
    np.testing.assert_array_equal(mass, [[1, 1]])


@pytest.mark.parametrize("layer", ATTENTION_LAYERS)
def test_attention_of_a_trace_picks_layer_heads_and_window(layer: int) -> None:
    trace = random_trace()
    at = ATTENTION_LAYERS.index(layer)
    queries, keys = (trace.arrays[n][at].astype(np.float32) for n in ("queries", "keys"))
    expected = eager(queries, keys, trace.arrays["sink_logits"][at], 0.5, [3, None, 3, None, 3][layer])
    pattern, mass = trace.attention(layer)
    np.testing.assert_allclose(pattern.values, expected, atol=1e-6)
    assert pattern.dims == ("head", "query", "key")
    assert pattern.source == "computed from live queries and keys, float32"
    for head in range(6):
        one, one_mass = trace.attention(layer, head=head, rows=[11, 2])
        np.testing.assert_allclose(one.values[0], expected[head, [11, 2]], atol=1e-6)
        assert (one.coords, one.shape) == ({"head": (head,), "query": (11, 2)}, (1, 2, 12))
        assert one_mass is not None
        assert mass is not None
        np.testing.assert_allclose(one_mass.values[0], mass.values[head, [11, 2]], atol=1e-6)


def test_attention_of_a_family_without_sinks() -> None:
    trace = random_trace()
    arrays = {n: a for n, a in trace.arrays.items() if n != "sink_logits"}
    pattern, mass = Trace(arrays, trace.spans, trace.meta).attention(1)
    assert mass is None
    np.testing.assert_allclose(pattern.values.sum(-1), 1, rtol=1e-6)


def test_attention_that_cannot_be_had_says_why() -> None:
    trace = random_trace()
    text = (
        "Attention of layer 2 is not in this trace. Expected a captured layer, got 2. Captured: 1, 3–4. "
        "Capture again with capture=CaptureSpec(attention=[2])."
    )
    with pytest.raises(TraceError, match=f"^{re.escape(text)}$"):
        trace.attention(2)
    with pytest.raises(TraceError, match=r"^expected a head below 6, got 6$"):
        trace.attention(1, head=6)
    with pytest.raises(TraceError, match=r"^expected rows within 0–11, got 12$"):
        trace.attention(1, rows=[3, 12])
    bare = Trace({"token_ids": np.arange(3)}, (), {"num_prompt_tokens": 0})
    with pytest.raises(TraceError, match=r"got 0\. Captured: none\. Capture again"):
        bare.attention(0)
    unsaid = {key: value for key, value in trace.meta.items() if key != "attention"}
    with pytest.raises(TraceError, match="does not record the attention scale and a window per layer"):
        Trace(trace.arrays, trace.spans, unsaid).attention(1)


def test_attention_too_large_for_memory_is_refused() -> None:
    tokens = 30_000
    arrays = {
        "token_ids": np.zeros(tokens, np.int32),
        "queries": np.broadcast_to(np.float32(0), (1, 4, tokens, 2)),
        "keys": np.broadcast_to(np.float32(0), (1, 1, tokens, 2)),
    }
    trace = Trace(arrays, (), {"num_prompt_tokens": 0, "attention": {"scale": 1.0, "windows": [None]}})
    text = "attention of 4 heads x 30000 rows x 30000 keys would take 13.4 GB, over the limit of 2 GB; pass head= or"
    with pytest.raises(TraceError, match=f"^{text} fewer rows=$"):
        trace.attention(0)


# --- what is no trace --------------------------------------------------------------------------------------------

NO_TRACE: dict[str, dict[str, Any]] = {
    "unknown arrays gate; a trace may hold token_ids, logprobs, entropy": {"gate": np.zeros(3)},
    "logprobs: expected 12 along token, got 11": {"logprobs": np.zeros(11)},
    "logprobs: expected dims ('token',), got shape (12, 1)": {"logprobs": np.zeros((12, 1))},
    "keys: expected a number of kv heads that divides 6 heads, got 4": {"keys": np.zeros((3, 4, 12, 4))},
    "keys: expected 4 along d_head, got 5": {"keys": np.zeros((3, 2, 12, 5))},
    "expert_weights: expected 2 along top_k, got 3": {"expert_weights": np.zeros((12, 5, 3))},
    "vocab_offsets: expected 13 for 12 tokens, got 12": {"vocab_offsets": np.zeros(12)},
    "queries: 3 layer numbers for shape (2, 6, 12, 4)": {"queries": np.zeros((2, 6, 12, 4))},
}


@pytest.mark.parametrize("text", NO_TRACE)
def test_arrays_that_are_no_trace(text: str) -> None:
    trace = random_trace()
    with pytest.raises(TraceError) as caught:
        Trace({**trace.arrays, **NO_TRACE[text]}, trace.spans, trace.meta)
    assert str(caught.value).startswith(text)


def test_facts_that_are_no_trace() -> None:
    ids = {"token_ids": np.arange(4)}
    for prompt in (5, -1, None, True, 2.0):
        with pytest.raises(TraceError, match=f"^expected num_prompt_tokens within 4 tokens, got {prompt!r}$"):
            Trace(ids, (), {"num_prompt_tokens": prompt})
    with pytest.raises(TraceError, match=r"^a trace needs token_ids \[token\]$"):
        Trace({}, (), {"num_prompt_tokens": 0})
    with pytest.raises(TraceError, match=r"is outside the 4 tokens of the trace$"):
        Trace(ids, (Span(1, 5, 2, "message", "user"),), {"num_prompt_tokens": 0})
    with pytest.raises(TraceError, match=r"^token_ids: 1 layer numbers for shape \(4,\)$"):
        Trace(ids, (), {"num_prompt_tokens": 0, "layers": {"token_ids": [0]}})
    with pytest.raises(
        TraceError, match=r"^expected all of vocab_bytes, vocab_ids, vocab_offsets, vocab_special, got"
    ):
        Trace({**ids, "vocab_ids": np.arange(2)}, (), {"num_prompt_tokens": 0})


def test_an_empty_array_of_endless_layers_is_refused() -> None:
    arrays = {"token_ids": np.zeros(0, np.int32), "router_logits": np.zeros((0, 10**15, 3), np.float32)}
    with pytest.raises(TraceError, match=r"^router_logits: expected at most 10,000 layers, got 1,000,000,000,"):
        Trace(arrays, (), {"num_prompt_tokens": 0})

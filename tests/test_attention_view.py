from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import traitlets
from numpy.typing import NDArray
from random_trace import random_trace
from synthetic import synthetic_trace

import workbench as wb
from widgets import attention_maps
from widgets.attention_maps import Overview, Stretches, encode_overview
from widgets.attention_view import AttentionView
from workbench.trace import Span, Trace, TraceError

# All sizes differ, so that a transposed or mixed-up array fails.
SIZES: dict[str, Any] = {
    **{"tokens": 151, "layers": 3, "experts": 7, "top_k": 4, "heads": 6, "kv_heads": 2, "d_head": 14, "window": 9},
    **{"ranks": 5, "lens_ranks": 2, "dtype": "float32"},
}


def small(**changes: Any) -> Trace:
    return synthetic_trace(**(SIZES | changes))


def without(trace: Trace, *names: str) -> Trace:
    return replace(trace, arrays={n: a for n, a in trace.arrays.items() if n not in names})


def in_sight(trace: Trace, layer: int) -> NDArray[np.bool_]:
    """[query, key]: what a row sees, written out."""
    window = trace.meta["attention"]["windows"][layer] or len(trace)
    distance = np.subtract.outer(np.arange(len(trace)), np.arange(len(trace)))
    return (distance >= 0) & (distance < window)


def whole(trace: Trace, layer: int, head: int) -> tuple[NDArray[Any], NDArray[Any]]:
    pattern, mass = trace.attention(layer, head)
    return pattern[0], np.zeros(len(trace)) if mass is None else mass[0]


class Sent:
    """What a view sends to the browser."""

    def __init__(self, view: AttentionView) -> None:
        self.view = view
        self.messages: list[tuple[Any, Sequence[bytes]]] = []
        view.send = lambda content, buffers=(): self.messages.append((content, buffers))  # type: ignore[method-assign]

    def ask(self, *keys: str) -> tuple[Any, Sequence[bytes]]:
        self.view._handle_custom_msg({"fetch": list(keys)}, [])
        return self.messages[-1]


# Maps by hand: one head, 4 tokens, d_head 1, scale 1. Scores are query · key, so that rows as exp(score) are
# [1], [1 2], [1 3 1], [1 4 1 4]; a sink of logit 0 adds 1 to each.
def by_hand(window: int | None = None, sink: float | None = None) -> Trace:
    arrays: dict[str, NDArray[Any]] = {
        "token_ids": np.arange(4, dtype=np.int32),
        "queries": np.log(np.array([1, 2, 3, 4], np.float32)).reshape(1, 1, 4, 1),
        "keys": np.array([0, 1, 0, 1], np.float32).reshape(1, 1, 4, 1),
    }
    if sink is not None:
        arrays["sink_logits"] = np.array([[sink]], np.float32)
    return Trace(arrays, (), {"num_prompt_tokens": 1, "attention": {"scale": 1.0, "windows": [window]}})


def stretches(*bounds: tuple[int, int]) -> Stretches:
    return Stretches(tuple(Span(a, b, a, "sentence", "user") for a, b in bounds), np.empty((0, 2), np.int64))


def test_stretches_by_hand() -> None:
    found = stretches((1, 2), (2, 4)).attention(by_hand(sink=0.0), 0, 0, 0)
    row1 = [2 / 4, np.nan, 1 / 4, 1 / 4]  # to tokens 1, to tokens 2–3, to token 0, to the sink
    rows23 = [(3 / 6 + 4 / 11) / 2, (1 / 6 + 5 / 11) / 2, (1 / 6 + 1 / 11) / 2, (1 / 6 + 1 / 11) / 2]
    np.testing.assert_allclose(found, [row1, rows23], rtol=1e-6)


def test_stretches_of_a_sliding_layer_without_a_sink_by_hand() -> None:
    # A window of 2: [1], [1 2], [· 3 1], [· · 1 4]. Token 0 is out of sight of the last two rows, which is not 0.
    found = stretches((1, 2), (2, 3), (3, 4)).attention(by_hand(window=2), 0, 0, 0)
    expected = [
        [2 / 3, np.nan, np.nan, 1 / 3, 0],
        [3 / 4, 1 / 4, np.nan, np.nan, 0],
        [np.nan, 1 / 5, 4 / 5, np.nan, 0],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_overview_by_hand() -> None:
    first, top, mean = Overview(4, 2, 2).of_stripe(by_hand().attention_inputs(0, 0), 0)
    assert first == 0
    # Rows 0–1: [1 ·], [1/3 2/3]; rows 2–3 over keys 0–1: [1/5 3/5], [1/10 4/10]; over keys 2–3: [1/5 ·], [1/10 4/10].
    np.testing.assert_allclose(top, [[1, np.nan], [3 / 5, 4 / 10]], rtol=1e-6)
    np.testing.assert_allclose(mean, [[2 / 3, np.nan], [1.3 / 4, 0.7 / 3]], rtol=1e-6)


@pytest.mark.parametrize("missing", [(), ("attention_logsumexp",), ("attention_logsumexp", "sink_logits")])
@pytest.mark.parametrize("layer", [0, 1])
def test_maps_are_the_traces_own_attention_pooled(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], layer: int
) -> None:
    monkeypatch.setattr(attention_maps, "STRIPE_PAIRS", 8_000)  # several stripes
    trace = without(small(tokens=451, window=37), *missing)
    shown, head = Stretches.of(trace), 4
    overview = Overview(451, 7, 5)
    pattern, sink = whole(trace, layer, head)
    seen = in_sight(trace, layer)
    rows = [
        shown.attention(trace, layer, head, s)
        for s in range(-(-len(shown.spans) // shown.per_stripe(451, 37 if layer == 0 else None, 1)))
    ]
    assert len(rows) > 1
    found = np.concatenate(rows)
    for a, row in enumerate(shown.spans):
        at = slice(row.start, row.stop)
        columns = [slice(s.start, s.stop) for s in shown.spans] + [slice(0, 1)]
        expected = [pattern[at, c].sum(1).mean() if seen[at, c].any() else np.nan for c in columns]
        np.testing.assert_allclose(found[a], [*expected, sink[at].mean()], atol=3e-6)
    covered = np.zeros_like(seen)
    for stripe in range(overview.num_stripes):
        first, top, mean = overview.of_stripe(trace.attention_inputs(layer, head), stripe)
        for r, c in np.ndindex(top.shape):
            queries, keys = (slice(at * 7, at * 7 + 7) for at in (stripe * 5 + r, first + c))
            covered[queries, keys] = True
            weights = pattern[queries, keys][seen[queries, keys]]
            expected = (weights.max(), weights.mean()) if weights.size else (np.nan, np.nan)
            np.testing.assert_allclose((top[r, c], mean[r, c]), expected, atol=3e-6)
    assert not (seen & ~covered).any()  # what no stripe holds is out of sight


def test_the_mean_over_heads_is_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_maps, "STRIPE_PAIRS", 60_000)
    trace = small()
    shown = Stretches.of(trace)
    stripes = range(-(-len(shown.spans) // shown.per_stripe(151, None, 6)))
    found = np.concatenate([shown.attention(trace, 1, None, stripe) for stripe in stripes])
    heads = [shown.attention(trace, 1, head, 0) for head in range(6)]
    assert len(heads[0]) == len(shown.spans)  # one stripe holds all rows of one head
    np.testing.assert_allclose(found, np.mean(heads, axis=0), atol=1e-6)
    assert np.isnan(found).any()


def test_a_stripe_keeps_its_values_and_what_is_undefined() -> None:
    top = np.array([[0.5, np.nan, 0.0], [0.002, 0.125, np.nan]], np.float32)
    mean = np.array([[0.25, np.nan, 0.01], [0.001, 0.125, np.nan]], np.float32)
    packed = encode_overview(17, top, mean).tobytes()
    assert np.frombuffer(packed[:4], "<u4") == 17
    scales = np.frombuffer(packed[4:12], "<f4")
    np.testing.assert_array_equal(scales, np.array([0.5, 0.25], np.float32))
    codes = np.frombuffer(packed[12:], np.uint8).reshape(2, 2, 3)
    assert codes[0].tolist() == [[254, 255, 0], [16, 127, 255]]
    for values, scale, code in zip((top, mean), scales, codes, strict=True):
        known = ~np.isnan(values)
        np.testing.assert_allclose(scale * (code[known] / 254.0) ** 2, values[known], atol=scale / 200)
        assert (code[~known] == 255).all()
    encode_overview(0, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))  # a scale of 0 divides nothing


def test_stretches_are_sentences_or_several_or_runs_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = small()
    found = Stretches.of(trace)
    assert [(s.start, s.stop) for s in found.spans] == [(s.start, s.stop) for s in trace.sentences]
    assert found.sentences.tolist() == [[i, i + 1] for i in range(len(trace.sentences))]
    monkeypatch.setattr(attention_maps, "MOST_STRETCHES", 4)
    few = Stretches.of(trace)
    group = -(-len(trace.sentences) // 4)
    assert len(few.spans) <= 4
    assert few.sentences[0].tolist() == [0, group]
    assert few.spans[-1].stop == trace.sentences[-1].stop
    assert few.sentences[-1, 1] == len(trace.sentences)
    bare = Stretches.of(replace(trace, spans=()))
    assert (bare.spans[0].start, bare.spans[-1].stop, bare.sentences.size) == (1, 151, 0)
    assert all(a.stop == b.start for a, b in pairwise(bare.spans))


def test_the_first_token_is_in_no_stretch() -> None:
    spans = (Span(0, 1, 0, "sentence", "user"), Span(0, 5, 0, "sentence", "user"), Span(5, 12, 5, "sentence", "user"))
    found = Stretches.of(replace(random_trace(), spans=spans))
    assert [(s.start, s.stop) for s in found.spans] == [(1, 5), (5, 12)]
    assert found.sentences.tolist() == [[1, 2], [2, 3]]


def test_an_overview_is_never_token_by_token_and_bounded() -> None:
    for tokens, window in product((1, 2, 151, 512, 8192, 12_010, 131_072), (1, 128, None)):
        overview = Overview.of(tokens, window)
        assert overview.factor >= 2
        assert 1 <= overview.stripe <= 128
        assert overview.num_bins <= 512
        assert overview.num_stripes * overview.stripe >= overview.num_bins
        assert overview.num_bins * overview.factor >= tokens


def test_a_small_trace_is_sent_whole_with_its_maps() -> None:
    trace = small()
    view = AttentionView(trace)
    blocks = view._blocks
    assert {key.split("/")[1] for key in blocks} == {
        *("token_ids", "sink_logits", "queries", "keys", "attention_logsumexp"),
        *("stretch_attention", "stretch_attention_mean", "attention_overview"),
    }
    assert blocks["head/queries/2/5/0"] == np.ascontiguousarray(trace.arrays["queries"][2, 5]).tobytes()
    lse = np.ascontiguousarray(trace.arrays["attention_logsumexp"][:, 1, 3])
    assert blocks["head/attention_logsumexp/1/3/0"] == lse.tobytes()
    count = len(view._facts["maps"]["stretches"])
    shown = np.frombuffer(blocks["map/stretch_attention/1/5/0"], np.float16).reshape(count, count + 2)
    np.testing.assert_array_equal(shown, Stretches.of(trace).attention(trace, 1, 5, 0).astype(np.float16))
    assert len(blocks["map/stretch_attention_mean/1/0"]) == shown.nbytes


def test_of_a_large_trace_only_what_is_small_is_sent_and_the_rest_on_asking() -> None:
    trace = small(tokens=601)
    view = AttentionView(trace, preload_bytes=1000)
    assert sorted(view._blocks) == ["all/sink_logits", "all/token_ids"]
    keys = ["tile/attention_logsumexp/1/4", "tile/queries/2/0", "head/attention_logsumexp/2/5/0", "head/keys/0/1/0"]
    content, buffers = Sent(view).ask(*keys)
    assert content == {"blocks": keys, "failed": {}}
    arrays = trace.arrays
    assert buffers[0] == np.ascontiguousarray(arrays["attention_logsumexp"][512:, 1].T).tobytes()
    assert buffers[1] == np.ascontiguousarray(arrays["queries"][2, :, :128]).tobytes()
    assert buffers[2] == np.ascontiguousarray(arrays["attention_logsumexp"][:, 2, 5]).tobytes()
    assert buffers[3] == np.ascontiguousarray(arrays["keys"][0, 1]).tobytes()


@pytest.mark.parametrize(
    "key",
    [
        *("head/attention_logsumexp/1/6/0", "map/stretch_attention/1/0/1", "map/stretch_attention_mean/1/-1"),
        *("map/attention_overview/1/0/99", "map/stretch_attention/1/0", "map/stretch_attention/1/0/-1"),
        *(
            "head/attention_logsumexp/1/-1/0",
            "tile/attention_logsumexp/1/9",
            "head/keys/0/2/0",
            "all/stretch_attention",
        ),
    ],
)
def test_a_key_that_names_no_block_is_answered_with_the_reason(key: str) -> None:
    content, buffers = Sent(AttentionView(small())).ask(key, "all/token_ids")
    assert content["blocks"] == ["all/token_ids"]
    assert len(buffers) == 1
    assert key in content["failed"][key]


def test_what_a_layer_lacks_is_said() -> None:
    trace = random_trace()  # layers 1, 3, 4 of 5
    view = AttentionView(trace)
    assert (view.layer, view._facts["attention"]["layers"], view._facts["numLayers"]) == (1, [1, 3, 4], 5)
    content, _ = Sent(view).ask("map/stretch_attention/0/0/0", "map/attention_overview/1/6/0")
    said = content["failed"]
    assert said["map/stretch_attention/0/0/0"].startswith("Attention of layer 0 is not in this trace. Expected a")
    assert said["map/attention_overview/1/6/0"] == "expected a head below 6, got 6"
    fewer = {**trace.meta["layers"], "keys": [1, 2, 4], "sink_logits": [0, 1, 3]}
    assert AttentionView(replace(trace, meta={**trace.meta, "layers": fewer}))._facts["attention"]["layers"] == [1]


def test_a_trace_without_attention_says_what_to_do() -> None:
    trace = small()
    says = (
        r"this trace has no attention: queries and keys were not captured\. Captured: .*expert_indices.*Capture again"
    )
    with pytest.raises(TraceError, match=says):
        AttentionView(without(trace, "queries", "keys", "sink_logits", "attention_logsumexp"))
    with pytest.raises(TraceError, match=r"keys were not captured.*CaptureSpec"):
        AttentionView(without(trace, "keys"))
    apart = {"queries": [0, 1, 2], "keys": [3, 4, 5]}
    with pytest.raises(TraceError, match="no layer has both queries and keys"):
        AttentionView(replace(trace, meta={**trace.meta, "layers": apart}))
    with pytest.raises(TraceError, match="it has no tokens"):
        AttentionView(Trace({"token_ids": np.empty(0, np.int32)}, (), {"num_prompt_tokens": 0}))
    with pytest.raises(TraceError, match="does not record the attention scale and a window per layer"):
        AttentionView(replace(trace, meta={k: v for k, v in trace.meta.items() if k != "attention"}))
    with pytest.raises(TraceError, match=r"expected a Trace, got str; wb\.open_trace"):
        AttentionView("sum.safetensors")  # type: ignore[arg-type]


def test_a_selection_outside_says_what_there_is() -> None:
    trace = small()
    for head in (6, -1):
        with pytest.raises(TraceError, match=rf"expected a head within 0–5, got {head}; leave it out"):
            AttentionView(trace, head=head)
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–2, got 3"):
        AttentionView(trace, layer=3)
    with pytest.raises(traitlets.TraitError, match="show"):
        AttentionView(trace, show="tokens")  # type: ignore[arg-type]
    view = AttentionView(trace, token=40, layer=2, head=5)
    assert (view.token, view.layer, view.head, view._selection_told) == (40, 2, 5, ["token", "layer", "head"])
    assert AttentionView(trace).token == trace.num_prompt_tokens
    with pytest.raises(traitlets.TraitError, match="expected a head within 0–5, got 6"):
        view.head = 6


def test_a_family_without_sinks_and_a_real_capture_are_shown(tiny: wb.Model) -> None:
    bare = AttentionView(without(small(), "sink_logits", "attention_logsumexp"))
    assert "sink_logits" not in bare._facts["arrays"]
    assert "all/sink_logits" not in bare._blocks
    trace = wb.capture(tiny, "47 + 85 = ?", effort="low", max_new_tokens=12, temperature=0)
    view = AttentionView(trace, layer=3, head=7)
    facts = view._facts
    assert facts["embedded"] is True
    assert facts["arrays"]["queries"]["source"] == "live"
    assert facts["counts"]["expert"] == 8  # of the whole trace: the selection is shared with views of the router
    pattern, _ = whole(trace, 3, 7)
    first = facts["maps"]["stretches"][-1]
    count = len(facts["maps"]["stretches"])
    shown = np.frombuffer(view._blocks["map/stretch_attention/3/7/0"], np.float16).reshape(count, count + 2)
    expected = pattern[slice(*first), slice(*facts["maps"]["stretches"][0])].sum(1).mean()
    np.testing.assert_allclose(shown[-1, 0], expected, atol=1e-3)

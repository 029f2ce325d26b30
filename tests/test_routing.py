"""Routing measures against answers worked out by hand."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from random_trace import random_trace

from workbench.analysis.routing import expert_load, router_entropy, routing_margin
from workbench.labelled import Labelled, TraceError

# [token 3, layer 2, top_k 2], 4 experts.
INDICES = np.array([[[0, 1], [3, 2]], [[0, 2], [3, 1]], [[1, 0], [3, 2]]], dtype=np.uint8)


def test_expert_load_per_slot() -> None:
    load = expert_load(INDICES, 4)
    assert load.dims == ("layer", "expert")
    np.testing.assert_allclose(load, [[3 / 6, 2 / 6, 1 / 6, 0], [0, 1 / 6, 2 / 6, 3 / 6]])
    np.testing.assert_allclose(load.values.sum(-1), 1)
    assert load.source == "expert load per slot over 3 tokens"


def test_expert_load_per_token() -> None:
    load = expert_load(INDICES, 5, per="token")
    np.testing.assert_allclose(load, [[1, 2 / 3, 1 / 3, 0, 0], [0, 1 / 3, 2 / 3, 1, 0]])
    np.testing.assert_allclose(load.values.sum(-1), 2)
    assert load.source == "expert load per token over 3 tokens"


def test_expert_load_counts_as_a_loop_does() -> None:
    rng = np.random.default_rng(2)
    indices = rng.integers(0, 300, (13, 3, 5)).astype(np.uint16)
    expected = np.zeros((3, 300))
    for token, layer, rank in np.ndindex(indices.shape):
        expected[layer, indices[token, layer, rank]] += 1 / (13 * 5)
    np.testing.assert_allclose(expert_load(indices, 300), expected)


def test_labels_of_captured_layers_and_tokens_stay() -> None:
    trace = random_trace()
    part = trace[4:10]
    indices = Labelled(part.expert_indices.values[:, [1, 3]], part.expert_indices.dims, {"layer": (1, 3)}, "live")
    load = expert_load(indices, 7)
    assert (load.coords, load.source) == ({"layer": (1, 3)}, "expert load per slot over 6 tokens, from live")
    entropy = router_entropy(part.router_logits)
    assert entropy.dims == ("token", "layer")
    assert entropy.coords["token"] == (4, 5, 6, 7, 8, 9)
    assert routing_margin(part.router_logits, 2).coords["token"] == (4, 5, 6, 7, 8, 9)


def test_router_entropy_by_hand() -> None:
    inf = math.inf
    logits = np.array([[[0, 0, 0, 0], [0, 0, -inf, -inf]], [[1e4, 0, 0, 0], [math.log(3), 0, -inf, -inf]]])
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(router_entropy(logits), [[math.log(4), math.log(2)], [0, quarter]], atol=1e-12)
    np.testing.assert_allclose(router_entropy(logits - 700), router_entropy(logits), atol=1e-9)
    logits[1, 0, 2] = np.nan
    assert np.isnan(router_entropy(logits).values).tolist() == [[False, False], [True, False]]


def test_router_entropy_is_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.special import softmax
    from scipy.stats import entropy

    monkeypatch.setattr("workbench.analysis.routing.blocks._PIECE", 4 * 21)
    logits = np.random.default_rng(3).standard_normal((11, 3, 7)).astype(ml_dtypes.bfloat16)
    got = router_entropy(logits)
    np.testing.assert_allclose(got, entropy(softmax(logits.astype(np.float64), -1), axis=-1), rtol=1e-9)
    assert got.dtype == np.float64


def test_routing_margin_by_hand() -> None:
    logits = np.array([[[5, 1, 4, 2], [0, 0, 0, 0]], [[-1, -3, -2, -7], [1, 2, 4, 8]]], dtype=ml_dtypes.bfloat16)
    assert routing_margin(logits, 1).values.tolist() == [[1, 0], [1, 4]]
    assert routing_margin(logits, 2).values.tolist() == [[2, 0], [1, 2]]
    assert routing_margin(logits, 3).values.tolist() == [[1, 0], [4, 1]]
    margin = routing_margin(logits, 3)
    assert (margin.dims, margin.dtype, margin.source) == (("token", "layer"), np.float32, "routing margin z(3) − z(4)")


def test_routing_margin_agrees_with_the_chosen_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.analysis.routing.blocks._PIECE", 5 * 35)
    trace = random_trace()
    logits = trace.arrays["router_logits"].astype(np.float32)
    margin = routing_margin(trace.router_logits, 2)
    for token, layer in np.ndindex(12, 5):
        last = logits[token, layer, trace.arrays["expert_indices"][token, layer, 1]]
        others = np.delete(logits[token, layer], trace.arrays["expert_indices"][token, layer])
        assert margin[token, layer] == last - others.max()


BAD: list[tuple[Any, str]] = [
    (lambda: expert_load(INDICES, 3), "expected expert_indices within 0–2, got 3"),
    (lambda: expert_load(INDICES.astype(np.int8) - 1, 4), "expected expert_indices within 0–3, got -1"),
    (lambda: expert_load(INDICES.astype(float), 4), "expected integers as expert_indices, got float64"),
    (lambda: expert_load(INDICES, 4, per="layer"), "expected per='slot' or per='token', got 'layer'"),  # type: ignore[arg-type]
    (lambda: expert_load(INDICES[0], 4), "expert_indices: expected [token, layer, top_k], got shape (2, 2)"),
    (
        lambda: expert_load(INDICES[:0], 4),
        "expert_indices: expected at least one of each of token, layer, top_k, got shape (0, 2, 2)",
    ),
    (
        lambda: router_entropy(random_trace().queries),
        "router_logits: expected [token, layer, expert], got dims ['layer', 'head', 'token', 'd_head']",
    ),
    (
        lambda: router_entropy(random_trace().expert_weights),
        "router_logits: expected [token, layer, expert], got dims ['token', 'layer', 'top_k']",
    ),
    (lambda: routing_margin(np.zeros((2, 3, 4)), 4), "expected top_k within 1–3 for 4 experts, got 4"),
    (lambda: routing_margin(np.zeros((2, 3, 4)), 0), "expected top_k within 1–3 for 4 experts, got 0"),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text

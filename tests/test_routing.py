"""Load, router and their losses against answers worked out by hand, and against other implementations."""

import math
import tracemalloc
from itertools import repeat
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from random_trace import random_trace

from workbench.analysis import routing
from workbench.analysis.routing import (
    expert_load,
    load_balance_loss,
    load_cv,
    load_divergence,
    load_entropy,
    load_gini,
    router_entropy,
    router_z_loss,
    routing_margin,
)
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


def test_a_nan_logit_leaves_no_margin() -> None:
    logits = np.array([[[1.0, np.nan, 3.0, 7.0], [1, 2, 4, 8]]])
    for top_k in (1, 2, 3):
        assert np.isnan(routing_margin(logits, top_k).values).tolist() == [[True, False]]


LOADS = np.array([[0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0], [0.1, 0.4, 0.2, 0.3]])


def test_inequality_of_load_by_hand() -> None:
    load = Labelled(LOADS, ("layer", "expert"), {"layer": (2, 5, 7)}, "expert load per slot over 20 tokens")
    h = -sum(f * math.log(f) for f in (0.1, 0.4, 0.2, 0.3)) / math.log(4)
    np.testing.assert_allclose(load_entropy(load), [1, 0, h])
    # (−3·0.1 − 1·0.2 + 1·0.3 + 3·0.4) / 4
    np.testing.assert_allclose(load_gini(load), [0, 3 / 4, 0.25], atol=1e-15)
    np.testing.assert_allclose(load_cv(load), [0, math.sqrt(3), math.sqrt((0.15**2 * 2 + 0.05**2 * 2) / 4) / 0.25])
    for measure in (load_entropy, load_gini, load_cv):
        got = measure(load)
        assert (got.dims, got.coords) == (("layer",), {"layer": (2, 5, 7)})
        assert got.source.endswith("for few tokens, of expert load per slot over 20 tokens")


def test_gini_is_the_mean_difference_between_experts() -> None:
    load = np.random.default_rng(4).dirichlet(np.ones(7), 3)
    expected = np.abs(load[:, :, None] - load[:, None, :]).mean((1, 2)) / (2 * load.mean(-1))
    np.testing.assert_allclose(load_gini(load), expected)


def test_entropy_of_few_tokens_is_as_low_as_its_docstring_says() -> None:
    rng = np.random.default_rng(5)
    few = np.stack([rng.multinomial(80, np.full(8, 1 / 8)) for _ in range(4000)]) / 80  # T·k = 80
    assert 1 - load_entropy(few).values.mean() == pytest.approx(7 / (2 * 80 * math.log(8)), rel=0.1)


def test_load_divergence_by_hand_and_as_scipy() -> None:
    from scipy.spatial.distance import jensenshannon

    p = np.array([[1, 0, 0], [0.5, 0.5, 0]])
    q = np.array([[0, 1, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(load_divergence(p, q), [math.log(2), 0])
    np.testing.assert_allclose(load_divergence(p, q, base=2), [1, 0])
    rng = np.random.default_rng(6)
    p, q = rng.dirichlet(np.ones(5), 4), rng.dirichlet(np.ones(5), 4)
    np.testing.assert_allclose(load_divergence(p, q, base=10), jensenshannon(p, q, base=10, axis=-1) ** 2)
    np.testing.assert_allclose(load_divergence(p, q), load_divergence(q, p))


def test_load_divergence_says_of_what() -> None:
    load, other = expert_load(INDICES, 4), expert_load(INDICES[:2], 4)
    assert load_divergence(load, other, base=2).source == (
        "Jensen–Shannon divergence in bits, of expert load per slot over 3 tokens and expert load per slot over "
        "2 tokens"
    )


def test_load_balance_loss_by_hand() -> None:
    # Two tokens, one layer, three experts: probabilities (1/2, 1/4, 1/4) and (1/8, 5/8, 1/4).
    logits = np.log(np.array([[[4, 2, 2]], [[1, 5, 2]]]) / 8)
    mass = np.array([5 / 16, 7 / 16, 4 / 16])
    np.testing.assert_allclose(load_balance_loss(logits, 2), [3 * (mass @ [0.5, 0.5, 0])])
    # The first token's second place is a tie, which the lower expert takes.
    np.testing.assert_allclose(load_balance_loss(logits, 2, "transformers"), [3 * (mass @ [0.5, 1, 0.5])])
    assert load_balance_loss(logits, 2, "transformers").source == (
        "load-balance loss (transformers, balanced = 2) over 2 tokens"
    )


def test_even_routing_has_the_balanced_loss() -> None:
    logits = 30 * np.stack([np.roll(np.eye(6)[0] + np.eye(6)[1], t) for t in range(6)])[:, None]
    logits += 1e-3 * np.arange(6) % 2  # decides the top-1
    assert load_balance_loss(logits, 2, "switch").values == pytest.approx([1], abs=1e-3)
    assert load_balance_loss(logits, 2, "transformers").values == pytest.approx([2], abs=1e-3)
    collapsed = np.tile(30 * np.eye(6)[4], (7, 3, 1))
    assert load_balance_loss(collapsed, 2).values == pytest.approx([6, 6, 6], abs=1e-3)


@pytest.mark.parametrize("top_k", [1, 2, 7])
def test_load_balance_loss_is_that_of_transformers(top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    monkeypatch.setattr("workbench.analysis.routing.blocks._PIECE", 4 * 21)  # sums over pieces, too
    logits = np.random.default_rng(7).standard_normal((11, 3, 7)).astype(np.float32)
    expected = [
        float(load_balancing_loss_func((torch.from_numpy(logits[:, layer].copy()),), 7, top_k)) for layer in range(3)
    ]
    np.testing.assert_allclose(load_balance_loss(logits, top_k, "transformers"), expected, rtol=1e-5)


def test_router_z_loss_by_hand() -> None:
    logits = np.log(np.array([[[1, 2, 1], [1, 1, 1]], [[3, 3, 2], [9, 0, 0]]], dtype=float).clip(1e-300))
    logits[1, 1, 1:] = -math.inf
    expected = [(math.log(4) ** 2 + math.log(8) ** 2) / 2, (math.log(3) ** 2 + math.log(9) ** 2) / 2]
    np.testing.assert_allclose(router_z_loss(logits), expected)


def blocks_of(array: Any, *edges: int, source: str = "live") -> Any:
    """The array in blocks of rows, as a generator, which can be gone through once."""
    dims = {3: ("token", "layer", "top_k"), 1: ("token",)}[array.ndim]
    coords = {"layer": (1, 4)} if array.ndim == 3 else {}
    return (Labelled(part, dims, coords, source) for part in np.split(array, edges))


def test_blocks_give_what_one_array_gives() -> None:
    load = expert_load(blocks_of(INDICES, 1, 2), 4)
    np.testing.assert_array_equal(load, expert_load(INDICES, 4))
    assert (load.coords, load.source) == ({"layer": (1, 4)}, "expert load per slot over 3 tokens, from live")
    logits = np.random.default_rng(8).standard_normal((9, 2, 5))
    for measure in (router_entropy, router_z_loss, lambda z: routing_margin(z, 3), lambda z: load_balance_loss(z, 3)):
        np.testing.assert_allclose(measure(np.split(logits, [2, 3])), measure(logits))


def test_a_whole_set_of_traces_is_read_in_blocks() -> None:
    from workbench.analysis.token_set import TokenSet

    traces = [random_trace(seed) for seed in (1, 2, 3)]
    rows = TokenSet(traces, phase="prompt").rows("expert_indices")
    together = np.concatenate([trace.arrays["expert_indices"][:9] for trace in traces])
    load = expert_load(rows, 7)
    np.testing.assert_array_equal(load, expert_load(together, 7))
    assert load.source == "expert load per slot over 27 tokens, from prompt tokens of 3 traces of random (live)"
    np.testing.assert_array_equal(expert_load(rows, 7), load)  # a set can be gone through again


class Copies:
    """Blocks that exist only while they are read, each time anew."""

    def __init__(self, array: Any, number: int) -> None:
        self.array, self.number = array, number

    def __iter__(self) -> Any:
        return map(np.copy, repeat(self.array, self.number))


def peak_bytes(measure: Any, num_blocks: int) -> int:
    rng = np.random.default_rng(9)
    indices = np.argsort(rng.random((3000, 3, 8)), -1)[..., :2].astype(np.uint8)
    ids, logits = rng.integers(0, 50, 3000), rng.standard_normal((3000, 3, 8))
    given = {"indices": indices, "ids": ids, "logits": logits}
    tracemalloc.start()
    measure({name: Copies(array, num_blocks) for name, array in given.items()})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "measure",
    [
        lambda blocks: expert_load(blocks["indices"], 8),
        lambda blocks: routing.coactivation(blocks["indices"], 8),
        lambda blocks: routing.routing_paths(blocks["indices"], 8),
        lambda blocks: routing.routing_overlap(blocks["indices"], blocks["indices"]),
        lambda blocks: routing.token_specialization(blocks["indices"], blocks["ids"], 8),
        lambda blocks: load_balance_loss(blocks["logits"], 2),
        lambda blocks: router_z_loss(blocks["logits"]),
    ],
)
def test_memory_does_not_grow_with_blocks(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # `token_specialization` puts blocks together up to so many tokens; here, two blocks.
    monkeypatch.setattr("workbench.analysis.routing.specialization._GATHERED", 6000)
    peak_bytes(measure, 2)  # compiles
    assert peak_bytes(measure, 40) < 1.5 * peak_bytes(measure, 4)


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
    (lambda: expert_load(INDICES, 0), "expected num_experts of at least 1, got 0"),
    (lambda: expert_load([], 4), "expert_indices: expected at least one block of [token, layer, top_k], got none"),
    (lambda: expert_load(7, 4), "expert_indices: expected [token, layer, top_k] or blocks of it, got int"),  # type: ignore[arg-type]
    (
        lambda: expert_load(random_trace(), 7),  # type: ignore[arg-type]
        "expert_indices: expected [token, layer, top_k], got TraceView",
    ),
    (
        lambda: expert_load([INDICES, INDICES[:, :1]], 4),
        "expert_indices: expected every block with {'layer': 2, 'top_k': 2}, as the first, got "
        "{'layer': 1, 'top_k': 2}",
    ),
    (
        lambda: expert_load([*blocks_of(INDICES), INDICES], 4),
        "expert_indices: expected every block of layers 1, 4, got without numbers",
    ),
    (lambda: load_entropy(LOADS[0]), "load: expected [layer, expert], got shape (4,)"),
    (
        lambda: load_gini(random_trace().expert_weights),
        "load: expected [layer, expert], got dims ['token', 'layer', 'top_k']",
    ),
    (
        lambda: load_entropy(expert_load(blocks_of(INDICES), 4, per="token")),
        "load: expected shares of 0 or more that sum to 1 over the experts, got a sum of 2 in layer 1; take "
        "expert_load(…, per='slot')",
    ),
    (
        lambda: load_cv(np.array([[0.5, 0.5], [np.nan, 1]])),
        "load: expected shares of 0 or more that sum to 1 over the experts, got a sum of nan in layer 1; take "
        "expert_load(…, per='slot')",
    ),
    (
        lambda: load_cv(np.array([[1.5, -0.5]])),
        "load: expected shares of 0 or more that sum to 1 over the experts, got a sum of 1 in layer 0; take "
        "expert_load(…, per='slot')",
    ),
    (lambda: load_cv(np.ones((3, 1))), "load: expected at least one layer and two experts, got shape (3, 1)"),
    (
        lambda: load_divergence(LOADS, LOADS[:2]),
        "p and q: expected the same layers and experts, got (3, 4) {} beside (2, 4) {}",
    ),
    (lambda: load_divergence(LOADS, LOADS, base=1), "expected a base above 1, got 1"),
    (
        lambda: load_balance_loss(np.zeros((2, 3, 4)), 2, "olmoe"),  # type: ignore[arg-type]
        "expected convention='switch' or 'transformers', got 'olmoe'",
    ),
    (lambda: load_balance_loss(np.zeros((2, 3, 4)), 5), "expected top_k within 1–4 for 4 experts, got 5"),
    (
        lambda: router_z_loss([np.zeros((5, 3, 4)), np.array([[[0, 0, 0, 0], [0, np.nan, 0, 0], [0, 0, 0, 0]]])]),
        "router_logits: expected finite logits, got nan in row 5, layer 1",
    ),
    (
        lambda: load_balance_loss(np.full((2, 3, 4), -np.inf), 2),
        "router_logits: expected finite logits, got -inf in row 0, layer 0",
    ),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text

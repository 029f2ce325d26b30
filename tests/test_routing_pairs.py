"""Experts chosen together, by two runs, and from layer to layer, against answers worked out by hand and loops."""

import math
from collections import Counter
from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import pytest

from workbench.analysis.routing import (
    coactivation,
    coactivation_lift,
    path_information,
    routing_jaccard,
    routing_overlap,
    routing_paths,
)
from workbench.labelled import Labelled, TraceError

NAN = math.nan
# [token 4, layer 2, top_k 3], 5 experts; expert 4 is never chosen in layer 0.
INDICES = np.array(
    [
        [[0, 1, 2], [4, 3, 2]],
        [[1, 0, 3], [4, 2, 0]],
        [[0, 2, 3], [4, 1, 3]],
        [[2, 1, 0], [0, 4, 1]],
    ],
    dtype=np.uint8,
)


def random_choices(tokens: int, layers: int, experts: int, top_k: int, seed: int = 0) -> Any:
    logits = np.random.default_rng(seed).standard_normal((tokens, layers, experts)) + np.linspace(0, 1, experts)
    return np.argsort(-logits, axis=-1)[..., :top_k].astype(np.uint8)


def test_coactivation_by_hand() -> None:
    together = coactivation(INDICES, 5)
    assert together.dims == ("layer", "expert", "partner")
    expected = [
        [NAN, 3 / 4, 3 / 4, 2 / 4, 0],
        [3 / 3, NAN, 2 / 3, 1 / 3, 0],
        [3 / 3, 2 / 3, NAN, 1 / 3, 0],
        [2 / 2, 1 / 2, 1 / 2, NAN, 0],
        [NAN] * 5,  # never chosen: undefined, not 0
    ]
    np.testing.assert_allclose(together[0], expected)
    assert together.source == "co-activation P(partner | expert), all pairs, over 4 tokens"
    np.testing.assert_allclose(np.nansum(together[1], -1), 2)  # k − 1


def test_coactivation_counts_as_a_loop_does() -> None:
    indices = random_choices(41, 3, 11, 4)
    pairs, single = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for token, layer in np.ndindex(41, 3):
        chosen = indices[token, layer].tolist()
        single.update((layer, i) for i in chosen)
        pairs.update((layer, i, j) for i, j in permutations(chosen, 2))
    got = coactivation(np.split(indices, [5, 30]), 11)
    for layer, i, j in np.ndindex(3, 11, 11):
        if i != j and single[layer, i]:
            assert got[layer, i, j] == pairs[layer, i, j] / single[layer, i]


def test_coactivation_as_the_script_of_olmoe_counts() -> None:
    indices = random_choices(41, 3, 11, 4, seed=1)
    got = coactivation(indices, 11, compat="olmoe")
    assert "neighbouring rank" in got.source
    for layer in range(3):
        both, single = Counter[tuple[int, int]](), Counter[int]()
        for chosen in indices[:, layer].tolist():
            single.update(chosen)
            for i, j in pairwise(chosen):
                both.update([(i, j), (j, i)])
        for i, j in permutations(range(11), 2):
            if single[i]:
                assert got[layer, i, j] == both[i, j] / single[i]
    assert (np.nan_to_num(got) <= np.nan_to_num(coactivation(indices, 11))).all()


def test_lift_by_hand_and_of_uniform_routing() -> None:
    lift = coactivation_lift(INDICES, 5)
    # N_12 · T / (N_1 N_2) = 2 · 4 / (3 · 3)
    assert lift[0, 1, 2] == lift[0, 2, 1] == pytest.approx(8 / 9)
    assert np.isnan(lift[0, 4]).all()
    assert np.isnan(lift[0, :, 4]).all()
    assert np.isnan(lift[0, 2, 2])
    every = np.array([list(combinations(range(5), 3))])  # each set of 3 of 5 experts once
    uniform = coactivation_lift(every.transpose(1, 0, 2), 5).values
    np.testing.assert_allclose(uniform[~np.isnan(uniform)], 5 * 2 / (3 * 4))
    assert "uniform routing 0.833" in lift.source


def test_overlap_by_hand() -> None:
    other = np.array([[[2, 1, 0], [0, 1, 4]], [[1, 0, 3], [0, 2, 4]], [[1, 4, 0], [0, 2, 4]], [[3, 4, 0], [3, 2, 1]]])
    overlap, jaccard = routing_overlap(INDICES, other, 5), routing_jaccard(INDICES, other)
    np.testing.assert_allclose(overlap, [(3 + 3 + 1 + 1) / 12, (1 + 3 + 1 + 1) / 12])
    np.testing.assert_allclose(jaccard, [(1 + 1 + 1 / 5 + 1 / 5) / 4, (1 / 5 + 1 + 1 / 5 + 1 / 5) / 4])
    assert overlap.dims == ("layer",)
    assert overlap.source == "routing overlap over 4 aligned tokens, chance 0.6"
    assert jaccard.source == "routing Jaccard index over 4 aligned tokens"
    np.testing.assert_allclose(routing_overlap(other, INDICES), overlap)


def test_overlap_is_a_matter_of_sets_and_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.analysis.routing.blocks._PIECE", 7 * 12)
    a, b = random_choices(41, 3, 11, 4), random_choices(41, 3, 11, 4, seed=1)
    shared = [[len({*x} & {*y}) for x, y in zip(a[:, at].tolist(), b[:, at].tolist(), strict=True)] for at in range(3)]
    np.testing.assert_allclose(routing_overlap(a, b), np.mean(shared, axis=-1) / 4)
    np.testing.assert_allclose(routing_jaccard(a, b), np.mean([[n / (8 - n) for n in row] for row in shared], axis=-1))
    split = routing_overlap(np.split(a, [3, 20]), iter(np.split(b, [3, 20])))
    np.testing.assert_allclose(split, routing_overlap(a, b))


def test_chance_is_what_independent_uniform_runs_give() -> None:
    rng = np.random.default_rng(2)
    a, b = (np.argsort(rng.random((20_000, 1, 7)), -1)[..., :3] for _ in range(2))
    for measure, chance in ((routing_overlap, "0.429"), (routing_jaccard, "0.303")):
        got = measure(a, b, 7)
        assert f"chance {chance}" in got.source
        assert got[0] == pytest.approx(float(chance), abs=0.005)


def test_paths_by_hand() -> None:
    paths = routing_paths(INDICES, 5)
    assert paths.dims == ("layer", "from_expert", "to_expert")
    expected = np.zeros((1, 5, 5), dtype=int)
    expected[0, 0, 4], expected[0, 1, 4], expected[0, 2, 0] = 2, 1, 1
    np.testing.assert_array_equal(paths, expected)
    assert (paths.coords, paths.source) == ({"layer": (0,)}, "top-1 paths through layers 0 → 1 over 4 tokens")


def test_paths_between_chosen_layers() -> None:
    indices = random_choices(41, 4, 11, 3)
    labelled = Labelled(indices, ("token", "layer", "top_k"), {"layer": (1, 2, 5, 9)})
    paths = routing_paths(labelled, 11, layers=(1, 5, 9))
    assert paths.coords == {"layer": (1, 5)}
    for pair, (start, stop) in enumerate(((0, 2), (2, 3))):
        seen = Counter(zip(indices[:, start, 0].tolist(), indices[:, stop, 0].tolist(), strict=True))
        assert {place: paths[pair][place] for place in np.ndindex(11, 11) if paths[pair][place]} == seen
    np.testing.assert_array_equal(routing_paths(np.split(indices, [8]), 11), routing_paths(indices, 11))


def test_path_information_by_hand() -> None:
    follow = np.array([[[6, 0, 0], [0, 3, 0], [0, 0, 3]], [[2, 2, 0], [4, 4, 0], [0, 0, 0]]])
    got = path_information(follow, num_shuffles=200)
    np.testing.assert_allclose(got.value, [1.5 * math.log(2), 0], atol=1e-12)  # H(½, ¼, ¼); independent
    assert 0 < got.null[0] < 0.5 * got.value[0]
    assert got.null[1] > got.value[1]
    np.testing.assert_array_equal(got.null, path_information(follow, num_shuffles=200).null)


def test_the_null_of_path_information_is_the_bias_of_few_tokens() -> None:
    rng = np.random.default_rng(3)
    independent = np.argsort(rng.random((500, 5, 9)), axis=-1)[..., :2]
    got = path_information(routing_paths(independent, 9))
    bias = 8 * 8 / (2 * 500)
    assert got.value.values.mean() == pytest.approx(bias, rel=0.25)
    assert got.null.values == pytest.approx([bias] * 4, rel=0.15)
    assert got.value.source.startswith("path information in nats, biased high for few tokens, of top-1 paths through")
    assert got.null.source.startswith("path information in nats, mean of 20 shuffles, seed 0, of top-1 paths through")


BAD: list[tuple[Any, str]] = [
    (lambda: coactivation(INDICES, 5, compat="OLMoE"), "expected compat=None or compat='olmoe', got 'OLMoE'"),  # type: ignore[arg-type]
    (
        lambda: coactivation(INDICES[..., :1], 5),
        "expected at least 2 experts per token, got 1: nothing is chosen together",
    ),
    (lambda: coactivation(INDICES, 4), "expected expert_indices within 0–3, got 4"),
    (
        lambda: coactivation_lift(np.zeros((3, 2, 2), dtype=np.uint8), 4),
        "expected the experts of a token to be distinct, got an expert twice in a layer",
    ),
    (
        lambda: routing_overlap(INDICES, INDICES[:3]),
        "a and b: expected the same tokens on both sides, got 4 beside 3 after 0",
    ),
    (
        lambda: routing_overlap([INDICES, INDICES], [INDICES]),
        "a and b: expected the same tokens on both sides, got 4 beside 0 after 4",
    ),
    (lambda: routing_jaccard(INDICES, INDICES[:, :1]), "a and b: expected the same layers, got 2 beside 1"),
    (
        lambda: routing_jaccard(INDICES, Labelled(INDICES, ("token", "layer", "top_k"), {"layer": (3, 4)})),
        "a and b: expected the same layers, got 2 beside (3, 4)",
    ),
    (
        lambda: routing_overlap(INDICES, INDICES[..., :2]),
        "a and b: expected as many experts per token, got 3 beside 2",
    ),
    (lambda: routing_overlap(INDICES, INDICES, 2), "expected num_experts of at least k = 3, got 2"),
    (lambda: routing_overlap(INDICES, INDICES + 0.5), "expected integers as b, got float64"),
    (
        lambda: routing_overlap(INDICES, np.ones_like(INDICES)),
        "b: expected 3 different experts per token, got one of them twice",
    ),
    (lambda: routing_paths(INDICES, 4), "expected expert_indices within 0–3, got 4"),
    (lambda: routing_paths(INDICES.astype(np.int8) - 1, 4), "expected expert_indices within 0–3, got -1"),
    (lambda: routing_paths(INDICES, 5, layers=[1]), "expected two or more layers, ascending, of 0–1, got [1]"),
    (lambda: routing_paths(INDICES, 5, layers=[1, 0]), "expected two or more layers, ascending, of 0–1, got [1, 0]"),
    (lambda: routing_paths(INDICES, 5, layers=[0, 2]), "expected two or more layers, ascending, of 0–1, got [0, 2]"),
    (lambda: path_information(np.ones((2, 3))), "paths: expected [layer, from_expert, to_expert], got shape (2, 3)"),
    (lambda: path_information(np.ones((2, 3, 3))), "paths: expected counts of 0 or more, got float64 from 1.0"),
    (
        lambda: path_information(np.zeros((2, 3, 3), dtype=int)),
        "paths: expected tokens in every pair of layers, got none in one",
    ),
    (lambda: path_information(np.ones((2, 3, 3), int), num_shuffles=0), "expected at least 1 shuffle, got 0"),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text

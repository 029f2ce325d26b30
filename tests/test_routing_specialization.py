"""Which expert a token id goes to, against answers worked out by hand, and its null against what must hold."""

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace

from workbench.analysis.routing import token_information, token_specialization
from workbench.labelled import Labelled, TraceError

# [token 7, layer 2, top_k 3], 4 experts; the second and third ranks do not matter.
TOP = np.array([[2, 0], [2, 0], [1, 0], [3, 1], [3, 3], [0, 1], [2, 0]])
INDICES = np.stack([TOP, (TOP + 1) % 4, (TOP + 2) % 4], axis=-1).astype(np.uint8)
IDS = np.array([90, 90, 90, 7, 7, 7, 55], dtype=np.int32)


def test_specialization_by_hand() -> None:
    got = token_specialization(INDICES, IDS, 4, min_count=3)
    assert got.value.dims == got.null.dims == got.experts.dims == ("token_id", "layer")
    assert got.value.coords["token_id"] == (7, 90)
    np.testing.assert_allclose(got.value, [[2 / 3, 2 / 3], [2 / 3, 1]])
    assert got.experts.values.tolist() == [[3, 1], [2, 0]]
    assert got.counts.values.tolist() == [3, 3]
    assert got.value.source == "max P(top-1 expert | token id), 2 token ids seen 3 times or more among 7 tokens"
    assert got.null.source == (
        "max P(top-1 expert | token id) of shuffled tokens, seed 0, 2 token ids seen 3 times or more among 7 tokens"
    )


def test_information_by_hand() -> None:
    got = token_information(INDICES, IDS, 4, min_count=3)
    # Layer 0: ids {90: 2 2 1, 7: 3 3 0} share no expert, so I = H(id) = ln 2. Layer 1: {90: 0 0 0, 7: 1 3 1}, as well.
    entropies = [(2 * math.log(3) * 2 + 2 * math.log(6)) / 6, (3 * math.log(2) + 2 * math.log(3) + math.log(6)) / 6]
    np.testing.assert_allclose(got.value, [math.log(2) / h for h in entropies])
    same = token_information(np.zeros((12, 2, 1), np.uint8), np.arange(12) % 3, 4, min_count=4)
    assert np.isnan(same.value).all()  # of no uncertainty, no share can be told


def test_specialization_counts_as_a_loop_does() -> None:
    rng = np.random.default_rng(1)
    indices = np.argsort(rng.random((400, 3, 6)), axis=-1)[..., :2].astype(np.uint8)
    ids = (rng.zipf(1.3, 400) % 50 + 199_000).astype(np.int32)
    seen: dict[int, list[Counter[int]]] = defaultdict(lambda: [Counter() for _ in range(3)])
    for token, layer in np.ndindex(400, 3):
        seen[int(ids[token])][layer].update([int(indices[token, layer, 0])])
    expected = {
        i: [max(c.values()) / c.total() for c in counts] for i, counts in seen.items() if counts[0].total() > 9
    }
    got = token_specialization(np.split(indices, [3, 50, 51]), np.split(ids, [3, 50, 51]), 6)
    assert list(got.value.coords["token_id"]) == sorted(expected)
    np.testing.assert_allclose(got.value, [expected[i] for i in sorted(expected)])
    assert got.counts.values.tolist() == [seen[i][0].total() for i in sorted(expected)]


def test_some_layers_at_a_time_give_what_all_give(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    indices, ids = rng.integers(0, 5, (300, 5, 2)), rng.integers(0, 7, 300)
    whole, told = token_specialization(indices, ids, 5), token_information(indices, ids, 5)
    monkeypatch.setattr("workbench.analysis.routing.specialization._TABLE", 2 * 7 * 5)
    split, told_split = token_specialization(indices, ids, 5), token_information(iter([indices]), iter([ids]), 5)
    for name in ("value", "null", "experts", "counts"):
        np.testing.assert_array_equal(getattr(split, name), getattr(whole, name))
    np.testing.assert_array_equal(told_split.value, told.value)
    np.testing.assert_array_equal(told_split.null, told.null)


def test_counts_reach_where_8_bits_end() -> None:
    """One id is seen 255 times, one 256 times, one 700 times, all by one expert; ids come back in order."""
    ids = np.repeat([9, 4, 7], [256, 255, 700])
    got = token_specialization(np.where(ids == 7, 2, 1)[:, None, None], ids, 4)
    assert got.value.coords["token_id"] == (4, 7, 9)
    assert got.value.values.tolist() == [[1], [1], [1]]
    assert got.experts.values.tolist() == [[1], [2], [1]]
    assert got.counts.values.tolist() == [255, 700, 256]


def test_pieces_of_a_large_array_stay_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    indices, ids = rng.integers(0, 5, (100, 2, 1)), rng.integers(0, 4, 100)
    whole = token_specialization(indices, ids, 5)
    monkeypatch.setattr("workbench.analysis.routing.blocks._PIECE", 14)
    np.testing.assert_array_equal(token_specialization(indices, ids, 5).value, whole.value)


def test_routing_at_random_is_as_specialised_as_its_null() -> None:
    rng = np.random.default_rng(3)
    indices = rng.choice(8, (3000, 2, 1), p=[0.5, *[0.5 / 7] * 7])
    ids = rng.integers(0, 200, 3000)  # each some 15 times
    got = token_specialization(indices, ids, 8, num_shuffles=3)
    assert got.value.values.mean() > 0.5  # looks special
    assert got.value.values.mean() == pytest.approx(got.null.values.mean(), abs=0.01)
    told = token_information(indices, ids, 8, num_shuffles=3)
    assert told.value.values.min() > 0.1
    np.testing.assert_allclose(told.value, told.null, atol=0.02)


def test_an_id_that_decides_stands_above_its_null() -> None:
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 6, 600)
    indices = np.stack([ids, rng.integers(0, 6, 600)], axis=-1)[..., None]  # layer 0 by id, layer 1 by chance
    got = token_specialization(indices, ids, 6)
    np.testing.assert_array_equal(got.value[:, 0], 1)
    assert got.null.values[:, 0].max() < 0.35
    assert np.abs(got.value.values - got.null.values)[:, 1].max() < 0.15
    told = token_information(indices, ids, 6)
    assert told.value[0] == pytest.approx(1)
    assert told.null.values.max() < 0.05


def test_shuffles_stay_within_a_block() -> None:
    """Two traces, each of one id and one expert: nothing is left to explain once the trace is known."""
    indices, ids = np.array([0] * 20 + [3] * 30)[:, None, None], np.array([5] * 20 + [6] * 30)
    within = token_specialization([indices[:20], indices[20:]], [ids[:20], ids[20:]], 4)
    np.testing.assert_array_equal(within.value, 1)
    np.testing.assert_array_equal(within.null, 1)
    across = token_specialization(indices, ids, 4)
    assert across.null.values.max() < 1


def test_seeds_and_shuffles() -> None:
    rng = np.random.default_rng(5)
    indices, ids = rng.integers(0, 5, (300, 2, 1)), rng.integers(0, 9, 300)
    first, again, other = (token_specialization(indices, ids, 5, seed=seed).null.values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    many = token_specialization(indices, ids, 5, num_shuffles=7)
    assert many.null.source.startswith("max P(top-1 expert | token id) of shuffled tokens, mean of 7, seed 0, 9 token")


def test_labels_of_layers_and_origin_stay() -> None:
    trace = random_trace()
    got = token_specialization(trace.expert_indices, trace.token_ids, 7, min_count=2)
    assert got.value.coords["layer"] == (0, 1, 2, 3, 4)
    assert got.value.source.endswith("token ids seen 2 times or more among 12 tokens, from live")
    labelled = Labelled(INDICES, ("token", "layer", "top_k"), {"layer": (2, 6)})
    assert token_information(labelled, IDS, 4, min_count=3).value.coords == {"layer": (2, 6)}


BAD: list[tuple[Any, str]] = [
    (
        lambda: token_specialization(INDICES, IDS, 4),
        "expected a token id seen 10 times or more, got 3 at most in 7 tokens; take more tokens, or a lower "
        "min_count, which makes the null larger",
    ),
    (
        lambda: token_specialization(INDICES, IDS[:6], 4),
        "expert_indices and token_ids: expected the same tokens on both sides, got 7 beside 6 after 0",
    ),
    (lambda: token_information(INDICES, IDS + 0.5, 4), "expected integers as token_ids, got float64"),
    (lambda: token_information(INDICES, IDS - 9, 4), "expected token_ids within 0–16777215, got -2"),
    (lambda: token_information(INDICES, IDS - 8, 4), "expected token_ids within 0–16777215, got -1"),
    (lambda: token_information(INDICES, IDS + 2**24, 4), "expected token_ids within 0–16777215, got 16777306"),
    (lambda: token_information(INDICES, IDS[:, None], 4), "token_ids: expected [token], got shape (7, 1)"),
    (lambda: token_information(INDICES, IDS, 3, min_count=3), "expected expert_indices within 0–2, got 3"),
    (
        lambda: token_information(INDICES, IDS, 4, min_count=0),
        "expected min_count and num_shuffles of at least 1, got 0 and 1",
    ),
    (
        lambda: token_information(INDICES, IDS, 4, num_shuffles=0),
        "expected min_count and num_shuffles of at least 1, got 10 and 0",
    ),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text

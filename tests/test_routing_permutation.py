"""Contrast by hand; the permutation test by hand, by enumeration, and by how often it is wrong."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace
from scipy.stats import permutation_test as scipys

from workbench.analysis.routing import PermutationTest, expert_contrast, permutation_test
from workbench.labelled import Labelled, TraceError

LAYERS, EXPERTS, TOP_K = 3, 7, 2


def simulate(rng: np.random.Generator, lengths: Any, concentration: float = 20, rates: Any = None) -> Any:
    """Counts [trace, layer, expert] of traces that differ among themselves, two experts per token."""
    counts = np.zeros((len(lengths), LAYERS, EXPERTS), dtype=np.int64)
    for trace, layer in np.ndindex(len(lengths), LAYERS):
        base = np.full(EXPERTS, 1 / EXPERTS) if rates is None else rates[layer]
        rate = rng.dirichlet(concentration * EXPERTS * base)
        scores = np.log(rate) + rng.gumbel(size=(lengths[trace], EXPERTS))  # k without replacement
        chosen = np.argpartition(-scores, TOP_K, axis=-1)[:, :TOP_K]
        counts[trace, layer] = np.bincount(chosen.ravel(), minlength=EXPERTS)
    return counts


def lengths_of(rng: np.random.Generator, traces: int, mean: int = 60) -> Any:
    return rng.integers(mean * 2 // 3, mean * 4 // 3, traces)


def test_contrast_by_hand() -> None:
    # [token, layer 1, top_k 2]: rates 1, ½, ½, 0 beside 2⁄3, 2⁄3, 1⁄3, 1⁄3.
    a = np.array([[[0, 1]], [[2, 0]]])
    b = np.array([[[0, 1]], [[1, 0]], [[2, 3]]])
    delta = expert_contrast(a, b, 4)
    np.testing.assert_allclose(delta, [[1 / 3, -1 / 6, 1 / 6, -1 / 3]])
    np.testing.assert_allclose(expert_contrast(b, a, 4).values, -delta.values)
    np.testing.assert_allclose(expert_contrast(np.split(a, [1]), b, 4), delta)
    assert delta.source == (
        "expert contrast per token, an association: expert load per token over 2 tokens; minus expert load per token "
        "over 3 tokens"
    )


def test_contrast_sums_to_0_and_keeps_layers() -> None:
    trace = random_trace()
    indices = [
        Labelled(t.expert_indices.values[:, [1, 3]], ("token", "layer", "top_k"), {"layer": (1, 3)})
        for t in (trace[:9], trace[9:])
    ]
    delta = expert_contrast(*indices, 7)
    assert (delta.dims, delta.coords) == (("layer", "expert"), {"layer": (1, 3)})
    np.testing.assert_allclose(delta.values.sum(-1), 0, atol=1e-15)


def pooled(counts: Any, tokens: Any, of_a: Any) -> Any:
    rest = np.setdiff1d(np.arange(len(tokens)), of_a)
    return counts[of_a].sum(0) / tokens[of_a].sum() - counts[rest].sum(0) / tokens[rest].sum()


def test_permuted_labels_by_enumeration() -> None:
    rng = np.random.default_rng(0)
    tokens_a, tokens_b = lengths_of(rng, 7), lengths_of(rng, 6)
    a, b = simulate(rng, tokens_a), simulate(rng, tokens_b)
    a[:, 1, 3] += 9  # an effect, in exchange for the same number of another choice
    a[:, 1, 4:] -= 3
    got = permutation_test(a, tokens_a, b, tokens_b)
    counts, tokens = np.concatenate([a, b]), np.concatenate([tokens_a, tokens_b])
    observed = pooled(counts, tokens, np.arange(7))
    maxima = np.array([np.abs(pooled(counts, tokens, list(c))).max() for c in combinations(range(13), 7)])
    expected = (maxima >= np.abs(observed)[..., None] - 1e-12).mean(-1)
    np.testing.assert_allclose(got.delta, observed)
    np.testing.assert_allclose(got.p_values, expected)
    assert got.num_permutations == len(maxima) == 1716
    assert (np.abs(got.delta) > got.threshold).tolist() == (got.p_values.values <= 0.05).tolist()
    assert (maxima > got.threshold).mean() <= 0.05 < (maxima > got.threshold * (1 - 1e-6)).mean()
    assert got.p_values[1, 3] <= 0.05
    assert got.method == (
        "labels of whole traces permuted; seed 0; 1716 labellings; max |Δ| over 3 layers × 7 experts; 7 traces of a, "
        f"6 of b; {tokens_a.sum()} and {tokens_b.sum()} tokens"
    )


def test_of_one_cell_it_is_the_test_of_scipy() -> None:
    rng = np.random.default_rng(1)
    tokens = np.full(6, 50)
    a, b = (np.stack([n, 100 - n], axis=-1)[:, None] for n in (rng.integers(51, 99, 6) - 5, rng.integers(51, 99, 6)))
    a, b = np.minimum(a, 50), np.minimum(b, 50)
    a[..., 0], b[..., 0] = 50 - np.arange(6)[:, None], 48 - 2 * np.arange(6)[:, None]
    a[..., 1], b[..., 1] = 50 - a[..., 0], 50 - b[..., 0]  # one expert per token, of two
    got = permutation_test(a, tokens, b, tokens)
    theirs = scipys(
        (a[:, 0, 0] / 50, b[:, 0, 0] / 50),
        lambda x, y: abs(x.mean() - y.mean()),
        n_resamples=np.inf,
        alternative="greater",
    )
    np.testing.assert_allclose(got.p_values, theirs.pvalue)


def test_pairs_by_hand() -> None:
    """Eight pairs of one token-long traces, all of which change from expert 1 to expert 0: 2 of 256 signs do so."""
    ones = np.ones(8, dtype=int)
    a = np.tile([[[1, 0, 0]]], (8, 1, 1))
    b = np.tile([[[0, 1, 0]]], (8, 1, 1))
    got = permutation_test(a, ones, b, ones, paired=True)
    np.testing.assert_allclose(got.delta, [[1, -1, 0]])
    np.testing.assert_allclose(got.p_values, [[2 / 256, 2 / 256, 1]])
    assert (got.num_permutations, got.num_traces_a, got.num_traces_b) == (256, 8, 8)
    assert got.method.startswith("the two of each pair change sides (sign flip); seed 0; 256 labellings; max |Δ| over")
    a[0], b[0] = b[0].copy(), a[0].copy()  # one pair the other way: (8 choose 0 and 1) · 2 of 256
    np.testing.assert_allclose(permutation_test(a, ones, b, ones, paired=True).p_values[0, :2], 18 / 256)


def test_pairs_of_equal_length_change_sides() -> None:
    rng = np.random.default_rng(2)
    tokens = lengths_of(rng, 9)
    a, b = simulate(rng, tokens), simulate(rng, tokens)
    got = permutation_test(a, tokens, b, tokens, paired=True)
    signs = np.array(list(product([1, -1], repeat=9)))
    maxima = np.abs(np.tensordot(signs, (a - b) / tokens.sum(), 1)).max((1, 2))
    np.testing.assert_allclose(got.p_values, (maxima >= np.abs(got.delta.values)[..., None] - 1e-12).mean(-1))


def test_random_labellings_add_the_observed_one() -> None:
    ones = np.ones(20, dtype=int)
    a, b = np.tile([[[1, 0]]], (20, 1, 1)), np.tile([[[0, 1]]], (20, 1, 1))
    for paired in (False, True):
        got = permutation_test(a, ones, b, ones, num_permutations=499, paired=paired)
        np.testing.assert_allclose(got.p_values, 1 / 500)  # never 0
        assert got.num_permutations == 500
    rng = np.random.default_rng(3)
    tokens_a, tokens_b = lengths_of(rng, 12), lengths_of(rng, 15)
    a, b = simulate(rng, tokens_a), simulate(rng, tokens_b)
    exact = permutation_test(a[:7], tokens_a[:7], b[:7], tokens_b[:7])
    drawn = permutation_test(a[:7], tokens_a[:7], b[:7], tokens_b[:7], num_permutations=3000)
    np.testing.assert_allclose(drawn.p_values, exact.p_values, atol=0.035)
    first, again = (permutation_test(a, tokens_a, b, tokens_b, num_permutations=999, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.p_values, again.p_values)


def test_blocks_of_labellings_are_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    tokens = lengths_of(rng, 24)
    counts = simulate(rng, tokens)
    sides = (counts[:12], tokens[:12], counts[12:], tokens[12:])
    for paired in (False, True):
        whole = permutation_test(*sides, num_permutations=1000, paired=paired)
        with monkeypatch.context() as patch:
            patch.setattr("workbench.analysis.routing.permutation._CELLS", 24 * 77)
            split = permutation_test(*sides, num_permutations=1000, paired=paired)
        assert split.num_permutations == whole.num_permutations == 1001
        np.testing.assert_allclose(split.p_values, whole.p_values, atol=0.05)


@pytest.mark.parametrize(
    ("mean_b", "traces", "paired"),
    [
        (60, (8, 11), False),
        (12, (8, 11), False),  # traces of unequal length, where permuted labels alone are wrong in most runs
        (300, (20, 7), False),
        (12, (10, 10), True),
    ],
)
def test_false_positives_are_near_5_percent_of_all_families(mean_b: int, traces: Any, paired: bool) -> None:
    rng = np.random.default_rng(6)
    found = 0
    for run in range(200):
        tokens_a, tokens_b = lengths_of(rng, traces[0]), lengths_of(rng, traces[1], mean_b)
        a, b = simulate(rng, tokens_a), simulate(rng, tokens_b)
        got = permutation_test(a, tokens_a, b, tokens_b, paired=paired, num_permutations=199, seed=run)
        found += bool((got.p_values.values <= 0.05).any())
    assert 0.01 <= found / 200 <= 0.095  # 5 % ± 3 standard errors


def test_permuted_labels_alone_would_be_wrong_of_unequal_lengths() -> None:
    rng = np.random.default_rng(12)
    found = 0
    for _ in range(60):
        tokens = np.concatenate([lengths_of(rng, 20, 300), lengths_of(rng, 7, 30)])
        counts = simulate(rng, tokens, concentration=1000)
        labellings = [rng.permutation(27)[:20] for _ in range(99)]
        maxima = np.array([np.abs(pooled(counts, tokens, labelling)).max() for labelling in labellings])
        found += bool((1 + (maxima >= np.abs(pooled(counts, tokens, np.arange(20))).max()).sum()) / 100 <= 0.05)
    assert found / 60 > 0.5


def test_signs_by_enumeration() -> None:
    rng = np.random.default_rng(13)
    tokens_a, tokens_b = lengths_of(rng, 6, 100), lengths_of(rng, 7, 20)
    a, b = simulate(rng, tokens_a), simulate(rng, tokens_b)
    got = permutation_test(a, tokens_a, b, tokens_b)
    rate = (a.sum(0) + b.sum(0)) / (tokens_a.sum() + tokens_b.sum())
    parts = [
        (c - n * rate) / tokens_a.sum() / (1 - n / (tokens_a.sum() + tokens_b.sum())) ** 0.5
        for c, n in zip(a, tokens_a, strict=True)
    ]
    parts += [
        -(c - n * rate) / tokens_b.sum() / (1 - n / (tokens_a.sum() + tokens_b.sum())) ** 0.5
        for c, n in zip(b, tokens_b, strict=True)
    ]
    maxima = np.abs(np.tensordot(list(product([1, -1], repeat=13)), parts, 1)).max((1, 2))
    np.testing.assert_allclose(got.delta, a.sum(0) / tokens_a.sum() - b.sum(0) / tokens_b.sum())
    np.testing.assert_allclose(got.p_values, (maxima >= np.abs(got.delta.values)[..., None] - 1e-12).mean(-1))
    ratio = tokens_a.mean() / tokens_b.mean()
    assert got.method.startswith(
        f"each trace's part of Δ with a random sign, as traces of a are {ratio:.2g} times as long as those of b; seed"
    )


def test_a_test_of_each_cell_would_find_something_in_most_families() -> None:
    """The same traces, each cell compared with its own permutations only: the family-wise correction is needed."""
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(60):
        tokens = lengths_of(rng, 14)
        counts = simulate(rng, tokens)
        labellings = [list(rng.permutation(14)[:7]) for _ in range(99)]
        observed = np.abs(pooled(counts, tokens, np.arange(7)))
        below = [np.abs(pooled(counts, tokens, labelling)) >= observed for labelling in labellings]
        found += bool(((1 + np.sum(below, axis=0)) / 100 <= 0.05).any())
    assert found / 60 > 0.3


def test_a_planted_effect_is_found_where_it_is() -> None:
    rng = np.random.default_rng(8)
    rates = np.full((LAYERS, EXPERTS), 1 / EXPERTS)
    rates[2] = [0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1]
    tokens_a, tokens_b = lengths_of(rng, 8), lengths_of(rng, 9)
    got = permutation_test(simulate(rng, tokens_a, rates=rates), tokens_a, simulate(rng, tokens_b), tokens_b)
    assert got.delta[2, 5] > 0.2
    assert got.p_values[2, 5] <= 0.05
    assert (got.p_values.values[:2] > 0.05).all()


def test_topics_are_matched() -> None:
    """Experts follow topics, and a has more of topic x: without topics a difference, within topics none."""
    rng = np.random.default_rng(9)
    by_topic = {
        "x": np.tile(np.linspace(1, 9, EXPERTS), (LAYERS, 1)),
        "y": np.tile(np.linspace(9, 1, EXPERTS), (LAYERS, 1)),
    }
    topics_a, topics_b = [*"xxxxxxxxyy"], [*"xxyyyyyyyyz"]

    def side(topics: list[str]) -> Any:
        tokens = lengths_of(rng, len(topics), 90)
        rates = [by_topic.get(topic, by_topic["y"]) / 35 for topic in topics]
        return np.concatenate([simulate(rng, [n], rates=r) for n, r in zip(tokens, rates, strict=True)]), tokens

    (a, tokens_a), (b, tokens_b) = side(topics_a), side(topics_b)
    apart = permutation_test(a, tokens_a, b, tokens_b)
    matched = permutation_test(a, tokens_a, b, tokens_b, topics_a=topics_a, topics_b=topics_b)
    assert apart.p_values.values.min() <= 0.05 < matched.p_values.values.min()
    assert matched.method.startswith("labels of whole traces permuted within 3 topics; seed 0; 2025 labellings; max")
    drawn = permutation_test(
        a, tokens_a, b, tokens_b, topics_a=topics_a, topics_b=topics_b, num_permutations=2000, seed=1
    )
    assert drawn.num_permutations == 2001
    np.testing.assert_allclose(drawn.p_values, matched.p_values, atol=0.035)
    assert "within topics (Mantel–Haenszel)" in matched.delta.source
    counts, tokens = np.concatenate([a, b]), np.concatenate([tokens_a, tokens_b])
    names, is_a = np.array(topics_a + topics_b), np.arange(21) < 10
    weights, parts = [], []
    for topic in "xy":
        n = tokens[(names == topic) & is_a].sum(), tokens[(names == topic) & ~is_a].sum()
        c = counts[(names == topic) & is_a].sum(0), counts[(names == topic) & ~is_a].sum(0)
        weights.append(n[0] * n[1] / (n[0] + n[1]))
        parts.append(c[0] / n[0] - c[1] / n[1])
    np.testing.assert_allclose(matched.delta, np.average(parts, axis=0, weights=weights))


def test_labels_within_topics_by_enumeration() -> None:
    rng = np.random.default_rng(10)
    tokens = np.full(12, 40)
    counts = simulate(rng, tokens)
    topics = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1])
    got = permutation_test(counts[:6], tokens[:6], counts[6:], tokens[6:], topics_a=topics[:6], topics_b=topics[6:])
    rates = counts / 40
    weight = {0: 2 * 3 / 5, 1: 4 * 3 / 7}

    def within(of_a: tuple[int, ...]) -> Any:
        total = 0
        for topic, share in weight.items():
            here = [i for i in range(12) if topics[i] == topic]
            mine, theirs = [i for i in here if i in of_a], [i for i in here if i not in of_a]
            total = total + share * (rates[mine].mean(0) - rates[theirs].mean(0))
        return total / sum(weight.values())

    groups = [np.flatnonzero(topics == topic).tolist() for topic in (0, 1)]
    maxima = np.array(
        [np.abs(within(x + y)).max() for x, y in product(combinations(groups[0], 2), combinations(groups[1], 4))]
    )
    np.testing.assert_allclose(got.delta, within(tuple(range(6))))
    assert got.num_permutations == len(maxima) == 10 * 35
    np.testing.assert_allclose(got.p_values, (maxima >= np.abs(got.delta.values)[..., None] - 1e-12).mean(-1))


def test_labels_of_layers_stay() -> None:
    rng = np.random.default_rng(11)
    tokens = lengths_of(rng, 12)
    counts = simulate(rng, tokens)
    a, b = (Labelled(part, ("trace", "layer", "expert"), {"layer": (2, 5, 6)}) for part in np.split(counts, 2))
    got = permutation_test(a, tokens[:6], b, tokens[6:])
    assert isinstance(got, PermutationTest)
    for labelled in (got.delta, got.p_values):
        assert (labelled.dims, labelled.coords) == (("layer", "expert"), {"layer": (2, 5, 6)})
    assert got.p_values.source == f"family-wise p of a permutation test: {got.method}"


def traces(number: int, length: int = 4, top_k: int = 2) -> Any:
    counts = np.zeros((number, 2, 5), dtype=np.int64)
    counts[:, :, :top_k] = length
    return counts, np.full(number, length)


SIX = traces(6)
EMPTY = (SIX[0] * np.array([1, 1, 0, 1, 1, 0])[:, None, None], SIX[1] * np.array([1, 1, 0, 1, 1, 0]))
WRONG = (SIX[0] + np.eye(5, dtype=int)[4] * np.array([0, 0, 1, 0, 0, 0])[:, None, None], SIX[1])
MIXED = {"topics_a": [*"xxxyyy"], "topics_b": [*"xxxyyy"]}
BAD: list[tuple[Any, str]] = [
    (
        lambda: permutation_test(*traces(5), *traces(9)),
        "expected at least 6 traces a side, got 5 of a and 9 of b: tokens of one trace depend on one another, so only "
        "traces count. Capture more.",
    ),
    (
        lambda: permutation_test(*traces(7), *traces(7), paired=True),
        "expected at least 8 pairs of traces, got 7: tokens of one trace depend on one another, so only traces count. "
        "Capture more.",
    ),
    (
        lambda: permutation_test(*traces(8), *traces(9), paired=True),
        "expected pairs, got 8 traces of a and 9 of b",
    ),
    (lambda: permutation_test(*SIX, *SIX, num_permutations=20), "expected at least 99 permutations, got 20"),
    (
        lambda: permutation_test(SIX[0][0], SIX[1], *SIX),
        "a: expected counts [trace, layer, expert] and tokens [trace], got (2, 5) and (6,)",
    ),
    (
        lambda: permutation_test(*SIX, SIX[0], SIX[1][:5]),
        "b: expected counts [trace, layer, expert] and tokens [trace], got (6, 2, 5) and (5,)",
    ),
    (
        lambda: permutation_test(SIX[0] / 4, SIX[1], *SIX),
        "a: expected integers, got counts of float64 and tokens of int64",
    ),
    (
        lambda: permutation_test(*SIX, *EMPTY),
        "b: expected tokens in every trace, got none in 2, 5; leave such traces out (of pairs, on both sides)",
    ),
    (
        lambda: permutation_test(*WRONG, *SIX),
        "a: expected every layer's counts to sum to the same number of experts per token, and none above the trace's "
        "tokens; trace 2, layer 0 does not",
    ),
    (
        lambda: permutation_test(*SIX, *traces(6, top_k=3)),
        "expected the same layers, experts and experts per token, got (2, 5), 2 {} beside (2, 5), 3 {}",
    ),
    (
        lambda: permutation_test(*traces(8), *traces(8), paired=True, topics_a=[0] * 8, topics_b=[0] * 8),
        "pairs are matched already: leave topics_a and topics_b out",
    ),
    (
        lambda: permutation_test(*SIX, *SIX, topics_a=[0] * 6),
        "expected a topic for each of 6 traces of a and 6 of b, got 6 and 0",
    ),
    (
        lambda: permutation_test(*SIX, *SIX, topics_a=[0] * 6, topics_b=[1] * 6),
        "expected topics that occur on both sides, got none: a and b share no topic",
    ),
    (
        lambda: permutation_test(*SIX, *SIX, topics_a=[0, 1, 2, 3, 4, 5], topics_b=[0, 6, 7, 8, 9, 9]),
        "expected topics with several traces on both sides: these leave 2 ways to label the traces, and 5 % needs 20",
    ),
    (
        lambda: permutation_test(*SIX, *traces(6, length=9), **MIXED),
        "Within topics, labels are permuted, which presumes traces of like length: those of a have 4 tokens on "
        "average, of b 9. Pair each trace of a with one of b on the same topic (paired=True).",
    ),
    (
        lambda: expert_contrast(np.zeros((3, 2, 1), int), np.zeros((4, 3, 1), int), 5),
        "a and b: expected the same layers, got 2 {} beside 3 {}",
    ),
    (
        lambda: expert_contrast(np.zeros((3, 2, 1), int), np.zeros((4, 2, 3), int), 5),
        "a and b: expected as many experts per token, got 1 beside 3",
    ),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Any, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text

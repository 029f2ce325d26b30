"""Groups of rollouts compared, with numbers counted by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_trace import NUM_EXPERTS, NUM_LAYERS, TOP_K, written_trace

import workbench as wb
from workbench.analysis.attention import answer_attention
from workbench.analysis.compare import compare, outcome
from workbench.analysis.compare.null import divergence_null
from workbench.analysis.routing import expert_load, load_divergence, permutation_test, routing_overlap
from workbench.analysis.token_set import TokenSet
from workbench.labelled import Labelled, TraceError

PROMPT = 7


def routed(seed: int, shift: int = 0, prompt: int | None = None) -> Any:
    """Experts [token, layer, top_k] at random, none below ``shift`` after the prompt, which has its own seed."""

    def draw(num_tokens: int) -> Any:
        def some(n: int, rng: np.random.Generator, low: int = 0) -> Any:
            scores = rng.random((n, NUM_LAYERS, NUM_EXPERTS)) + (np.arange(NUM_EXPERTS) >= low)
            return np.argsort(-scores, axis=-1)[..., :TOP_K].astype(np.uint8)

        first = some(PROMPT, np.random.default_rng(7 if prompt is None else prompt))
        return np.concatenate([first, some(num_tokens - PROMPT, np.random.default_rng(seed), shift)])

    return draw


def rollouts(n: int, answer: str = "4", chain: int = 5, shift: int = 0, **options: Any) -> list[wb.Trace]:
    return [
        written_trace(["so "] * chain, [answer], experts=routed(s + 100 * shift, shift), **options) for s in range(n)
    ]


def test_outcomes_know_cut_from_wrong() -> None:
    references = {"2+2=?": "4"}
    right = outcome(written_trace(["so", " 4"], ["4"], seconds=1.5), references)
    assert (right.answer, right.right, right.chain_agrees, right.cut) == ("4", True, True, None)
    assert (right.chain_tokens, right.completion_tokens, right.seconds) == (2, 13, 1.5)
    assert outcome(written_trace((), ["5"]), references).right is False
    assert outcome(written_trace(("so",), None), references).right is False, "ended without an answer"
    cut = outcome(written_trace(("so",), None, truncated="cut at 4 tokens"), references)
    assert (cut.right, cut.cut, cut.answer) == (None, "cut at 4 tokens", None)
    unscored = outcome(written_trace())
    assert (unscored.right, unscored.seconds) == (None, None)


def test_cut_rollouts_are_counted_and_not_scored() -> None:
    group = [*rollouts(3), *rollouts(2, "5"), *rollouts(2, truncated="cut at 9 tokens")]
    low = compare({"low": group}, references="4")["low"]
    assert (len(low.outcomes), low.num_cut, len(low.completed)) == (7, 2, 5)
    assert low.accuracy is not None
    assert (low.accuracy.successes, low.accuracy.n) == (3, 5)
    assert low.accuracy.interval == pytest.approx((0.2307, 0.8824), abs=6e-5)
    assert str(low.accuracy) == "3/5 = 60% [23, 88]"
    assert low.answers[0].counts == (("4", 3), ("5", 2))
    assert low.agreement == pytest.approx((3 * 2 + 2 * 1) / (5 * 4))
    assert low.chain_tokens.values == (5.0,) * 5
    assert low.routing is not None
    assert low.routing.tokens.tolist() == [16] * 5
    assert "5 of 7, 2 cut" in str(compare({"low": group}))


def test_answers_that_are_the_same_count_as_one() -> None:
    group = [written_trace((), [text]) for text in ("4", "4.0", "5", " 4 ")] + [written_trace((), None)]
    found = compare({"g": group})["g"]
    assert found.answers[0].counts == (("4", 3), ("5", 1))
    assert (found.answers[0].n, found.answers[0].num_unanswered) == (4, 1)
    assert found.accuracy is None
    exact = compare({"g": group}, answer=lambda trace: trace.final_text or None, same=str.__eq__)["g"]
    assert exact.answers[0].counts == (("4", 1), ("4.0", 1), ("5", 1), (" 4 ", 1))
    assert exact.agreement == 0


def test_agreement_is_within_questions() -> None:
    group = [written_trace((), [answer], prompt=[q]) for q, answer in (("a", "1"), ("a", "1"), ("b", "2"), ("b", "3"))]
    found = compare({"g": group}, references={"a": "1", "b": "2"})["g"]
    assert found.agreement == 0.5
    assert [a.question for a in found.answers] == ["a", "b"]
    assert found.accuracy is not None
    assert (found.accuracy.successes, found.accuracy.n) == (3, 4)
    assert math.isnan(compare({"g": group[1:3]})["g"].agreement)


def test_a_question_without_a_reference_is_named() -> None:
    group = [written_trace(prompt=[q]) for q in ("a", "b")]
    with pytest.raises(TraceError, match="There is no reference answer for the question 'b', so accuracy cannot"):
        compare({"g": group}, references={"a": "4"})


def test_no_completed_rollout_is_an_error_that_says_why() -> None:
    cut = rollouts(3, truncated="cut at 9 tokens")
    with pytest.raises(TraceError, match=r"high: none of the 3 rollouts was completed \(cut at 9 tokens\).*Raise max"):
        compare({"low": rollouts(2), "high": cut})
    with pytest.raises(TraceError, match="low: expected at least one trace, got none"):
        compare({"low": []})
    with pytest.raises(TraceError, match="expected at least one group of traces, got none"):
        compare({})
    with pytest.raises(TraceError, match="expected at least 1 bin, got 0"):
        compare({"low": rollouts(1)}, bins=0)


def test_the_entropy_profile_weighs_chains_alike_and_counts_them() -> None:
    """Chains of 4 and 2 tokens in 4 parts: the short one has tokens in parts 0 and 2 only."""
    long = written_trace(["a", "b", "c", "d"], entropy=[1, 2, 3, 4])
    short = written_trace(["a", "b"], entropy=[5, math.nan])
    group = compare({"g": [long, short, written_trace(())]}, bins=4)["g"]
    np.testing.assert_allclose(group.entropy_profile, [3, 2, 3, 4])
    np.testing.assert_array_equal(group.entropy_profile_n, [2, 1, 1, 1])
    assert group.entropy_profile.dims == ("bin",)
    none = compare({"g": [written_trace(())]}, bins=3)["g"]
    np.testing.assert_array_equal(none.entropy_profile, [math.nan] * 3)
    np.testing.assert_array_equal(none.entropy_profile_n, [0, 0, 0])


def test_loads_and_their_divergence_are_those_of_routing() -> None:
    a, b = rollouts(6, chain=5), rollouts(7, chain=6, shift=3)
    found = compare({"a": a, "b": b}, num_permutations=500, seed=4)
    sets = [TokenSet(side) for side in (a, b)]
    loads = [expert_load(side.rows("expert_indices"), NUM_EXPERTS) for side in sets]
    for name, load in zip("ab", loads, strict=True):
        routing = found[name].routing
        assert routing is not None
        np.testing.assert_allclose(routing.load, load)
    pair = found.pair("a", "b")
    assert pair.divergence is not None
    np.testing.assert_allclose(pair.divergence, load_divergence(*loads))
    expected = permutation_test(*sets[0].expert_counts(), *sets[1].expert_counts(), num_permutations=500, seed=4)
    assert pair.test is not None
    np.testing.assert_array_equal(pair.test.delta, expected.delta)
    np.testing.assert_array_equal(pair.test.p_values, expected.p_values)
    assert pair.unit == "rollouts"
    assert pair.null is not None
    assert (pair.divergence.values > pair.null.band).all(), "b hardly ever chooses experts 0 to 2"
    assert pair.null.threshold >= pair.null.band.max()


def test_the_load_of_one_channel() -> None:
    group = rollouts(2, chain=5)
    routing = compare({"g": group}, channel="analysis")["g"].routing
    assert routing is not None
    assert routing.tokens.tolist() == [5, 5]
    first = group[0].arrays["expert_indices"][10:15, 1]
    np.testing.assert_array_equal(routing.counts[0, 1], np.bincount(first.ravel(), minlength=NUM_EXPERTS))
    found = compare({"low": rollouts(7, chain=0), "high": group}, channel="analysis")
    assert found["low"].routing is None
    assert "low: experts, as no rollout has tokens on analysis" in found.missing


def test_too_few_rollouts_are_not_tested_and_that_is_said() -> None:
    found = compare({"a": rollouts(5), "b": rollouts(9, shift=2)})
    pair = found.pair("a", "b")
    assert (pair.test, pair.null, pair.chain_tokens) == (None, None, None)
    assert pair.divergence is not None
    need = "needs at least 6 rollouts a side, got 5 and 9"
    assert f"a and b: expert load not tested: {need}" in found.missing
    assert f"a and b: length of the chain not tested: {need}" in found.missing
    assert need in str(found)
    assert [row["null band"] for row in found.pair_rows()] == [None] * NUM_LAYERS


def test_rollouts_of_several_questions_are_tested_by_question() -> None:
    def side(shift: int, chain: int, num_questions: int) -> list[wb.Trace]:
        return [
            written_trace(["x"] * (chain + q), ["4"], prompt=[f"q{q}"], experts=routed(9 * q + s + 50 * shift, shift))
            for q in range(num_questions)
            for s in range(3)
        ]

    found = compare({"a": side(0, 4, 8), "b": side(3, 6, 8)}, num_permutations=300)
    pair = found.pair("a", "b")
    assert pair.unit == "pairs of questions"
    assert pair.test is not None
    assert (pair.test.num_traces_a, pair.test.num_permutations) == (8, 256)
    by_question = []
    for group in found.groups:
        assert group.routing is not None
        counts, tokens = group.routing.counts, group.routing.tokens
        by_question += [counts.reshape(8, 3, NUM_LAYERS, NUM_EXPERTS).sum(1), tokens.reshape(8, 3).sum(1)]
    assert pair.null is not None
    np.testing.assert_array_equal(pair.null.band, divergence_null(*by_question, paired=True).band)
    assert pair.chain_tokens is not None
    assert (pair.chain_tokens.difference, pair.chain_tokens.n_a) == (-2.0, 8)
    assert pair.chain_tokens.p_value == pytest.approx(2 / 256)
    few = compare({"a": side(0, 4, 7), "b": side(3, 6, 8)})
    assert "tests on other than the 7 questions that both were asked" in str(few)
    assert "needs at least 8 questions asked in both (or 1, with 6 rollouts a side), got 7" in str(few)


def test_different_prompts_are_compared_rollout_by_rollout() -> None:
    found = compare({"a": rollouts(6, prompt=["a"]), "b": rollouts(6, prompt=["b"], chain=7)})
    pair = found.pair("a", "b")
    assert pair.unit == "rollouts"
    assert pair.chain_tokens is not None
    assert pair.chain_tokens.difference == -2
    assert pair.prompt_overlap is None
    assert "a and b: overlap on the prompt, as they share no question" in found.missing


def test_overlap_is_on_prompt_tokens_before_and_after_what_differs() -> None:
    """One token of 7 differs, in the place of the question's: 3 are the same before it, 3 after."""
    a = written_trace(prompt=["2+2=?"], experts=routed(1, prompt=1))
    b = written_trace(prompt=["2+2=?"], experts=routed(2, prompt=2))
    b.arrays["token_ids"][3] += 1000
    pair = compare({"a": [a], "b": [b]}).pair("a", "b")
    overlap = pair.prompt_overlap
    assert overlap is not None
    assert (overlap.num_before, overlap.num_after) == (3, 3)
    rows = [t.arrays["expert_indices"] for t in (a, b)]
    np.testing.assert_allclose(overlap.before, routing_overlap(rows[0][:3], rows[1][:3]))
    np.testing.assert_allclose(overlap.after, routing_overlap(rows[0][4:7], rows[1][4:7]))


def test_equal_prompts_have_no_other_context() -> None:
    overlap = compare({"a": rollouts(1), "b": rollouts(2, shift=1)}).pair("a", "b").prompt_overlap
    assert overlap is not None
    assert (overlap.num_before, overlap.num_after, overlap.after) == (PROMPT, 0, None)
    np.testing.assert_array_equal(overlap.before, [1.0] * NUM_LAYERS)


def test_what_was_not_captured_is_missing_not_zero() -> None:
    found = compare({"a": [written_trace()], "b": rollouts(1)})
    assert found["a"].routing is None
    assert "a: experts, as expert_indices were not captured in every rollout" in found.missing
    assert "a and b: divergence of expert loads and overlap on the prompt, as the experts of both" in str(found)
    assert found["a"].answer_attention is None
    assert any("a: attention of the answer to the chain" in text for text in found.missing)
    row = found.rows()[0]
    assert (row["accuracy"], row["seconds"], row["attention to chain"]) == (None, None, None)
    assert found.pair_rows() == []


def test_rows_are_what_a_table_takes() -> None:
    found = compare({"a": rollouts(6, seconds=2.0), "b": rollouts(6, "5", shift=3)}, references={"2+2=?": "4"})
    a, b = found.rows()
    assert (a["group"], a["rollouts"], a["right"], a["accuracy"], b["accuracy"]) == ("a", 6, 6, 1.0, 0.0)
    assert (a["chain tokens"], a["chain tokens low"], a["seconds"], b["seconds"]) == (5.0, 5.0, 2.0, None)
    rows = found.pair_rows()
    assert [row["layer"] for row in rows] == [0, 1, 2]
    assert all(row["divergence"] > row["null threshold"] >= row["null band"] for row in rows)
    assert all(row["overlap, same context"] == 1 for row in rows)
    assert found.pair("a", "b").accuracy == pytest.approx((1.0, 1 - math.hypot(0.3903, 0.3903), 1.0), abs=1e-3)
    text = str(found)
    assert "6/6 = 100% [61, 100]" in text
    assert "a − b" in text


def test_the_text_says_whose_numbers_these_are() -> None:
    mixed = [*rollouts(1), written_trace(model="other")]
    with pytest.raises(TraceError, match="g: expected traces of one model, got written, other"):
        compare({"g": mixed})
    text = str(compare({"a": rollouts(1, embedded=True), "b": rollouts(1)}))
    assert "written is the embedded model: this says nothing about other models" in text
    assert "expert load per slot over 16 completion tokens of 1 trace of written" in text
    assert "embedded" not in str(compare({"a": rollouts(1), "b": rollouts(1)}))


def test_layers_are_counted_against_the_threshold_of_all() -> None:
    found = compare({"a": rollouts(6), "b": rollouts(6, shift=3)})
    pair = found.pair("a", "b")
    assert pair.null is not None
    assert pair.test is not None
    experts = int((np.abs(pair.test.delta.values) > pair.test.threshold).sum())
    layers = int((np.asarray(pair.divergence) > pair.null.threshold).sum())
    assert f"{experts} of 21 experts, {layers} of 3 layers" in str(found)


def test_what_is_not_there_is_named() -> None:
    found = compare({"a": rollouts(1), "b": rollouts(1)})
    with pytest.raises(KeyError, match="there is no group 'c'; there are a, b"):
        found["c"]
    with pytest.raises(KeyError, match="there is no pair 'b' and 'a'; there are a and b"):
        found.pair("b", "a")


def test_a_store_is_compared_as_a_list_is(tmp_path: Path) -> None:
    traces = [*rollouts(6), *rollouts(1, truncated="cut")]
    store = wb.TraceStore(tmp_path, create=True)
    for at, trace in enumerate(traces):
        trace.save(tmp_path / f"{at}.safetensors")
    from_list, from_store = (compare({"g": given})["g"] for given in (traces, store))
    assert from_list.outcomes == from_store.outcomes
    assert from_list.routing is not None
    assert from_store.routing is not None
    np.testing.assert_array_equal(from_list.routing.counts, from_store.routing.counts)


def test_attention_of_the_answer_is_that_of_the_attention_measures(odd: wb.Model) -> None:
    spec = wb.CaptureSpec(attention=[1, 2], lens=False)
    messages = [
        {"role": "user", "content": "47+85=?"},
        {"role": "assistant", "thinking": "7+5=12\nso 132\n", "content": "132"},
    ]
    trace = wb.replay(odd, messages, capture=spec)
    expected = answer_attention(trace)
    group = compare({"g": [trace, trace]})["g"]
    assert group.answer_attention is not None
    assert group.answer_attention.coords["layer"] == (1, 2)
    np.testing.assert_allclose(group.answer_attention, np.nansum(expected.mass, axis=-1), rtol=1e-5)
    assert "not causation" in group.answer_attention.source


def test_the_null_band_holds_divergences_of_equal_sides() -> None:
    """Two sides drawn alike, with chains of unequal length: in 5 % of the layers chance is above its band."""
    rng = np.random.default_rng(0)

    def side(n: int, length: int) -> Any:
        tokens = rng.poisson(length, n) + 3
        shares = rng.dirichlet([6.0] * NUM_EXPERTS, (n, NUM_LAYERS))
        return np.array([rng.multinomial(2 * t, s) for t, s in zip(tokens, shares, strict=True)]), tokens

    above = []
    for seed in range(120):
        a, b = side(8, 40), side(9, 50)
        loads = [Labelled(c.sum(0) / c.sum(0).sum(-1, keepdims=True), ("layer", "expert")) for c, _ in (a, b)]
        null = divergence_null(*a, *b, num_permutations=200, seed=seed)
        above += (load_divergence(*loads).values > null.band).tolist()
    assert 0.01 <= np.mean(above) <= 0.09


def test_the_null_band_of_pairs_is_counted_by_hand() -> None:
    """Pairs that differ as much, some one way and some the other: the common load is even."""
    counts_a, counts_b = np.array([[[6, 4]], [[4, 6]]] * 4), np.array([[[4, 6]], [[6, 4]]] * 4)
    tokens = np.full(8, 10)
    null = divergence_null(counts_a, tokens, counts_b, tokens, paired=True, num_permutations=4_000)
    # |sum| of 8 signs is 6 or more in 7 % of the ways, 8 in 1 %: the 95th of 100 is 6, ¾ of the way to all alike.
    expected = load_divergence(np.array([[0.575, 0.425]]), np.array([[0.425, 0.575]]))
    assert null.band[0] == pytest.approx(expected[0], rel=1e-6)

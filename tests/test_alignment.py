"""Two traces aligned and compared, with places counted by hand."""

import difflib
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace
from synthetic import synthetic_trace
from written_trace import NUM_EXPERTS, NUM_LAYERS, TOP_K, written_trace

import workbench as wb
from workbench.analysis.compare.alignment import align
from workbench.analysis.compare.difference import trace_difference
from workbench.labelled import TraceError
from workbench.trace import Trace

PROMPT = 7


def routed(seed: int, **options: Any) -> Any:
    def draw(num_tokens: int) -> Any:
        scores = np.random.default_rng(seed).random((num_tokens, NUM_LAYERS, NUM_EXPERTS))
        return np.argsort(-scores, axis=-1)[..., :TOP_K].astype(np.uint8)

    return draw


def changed(trace: Trace, **meta: Any) -> Trace:
    return replace(trace, meta={**trace.meta, **meta})


def test_places_counted_by_hand() -> None:
    # <|start|> user <|message|> 2+2=? <|end|> <|start|> assistant <|channel|> analysis <|message|> | 10: content
    a = written_trace(["x", "y", "so", " we", " go", "4"], ["4"])
    b = written_trace(["x", "z", "z", "so", " we", " go"], ["5"])
    found = align(a, b)
    assert found.rows[:11].tolist() == [[i, i] for i in range(11)]
    assert found.rows[11:18].tolist() == [[11, 11], [-1, 12], [12, 13], [13, 14], [14, 15], [15, -1], [16, 16]]
    assert found.same.tolist()[10:18] == [True, False, False, True, True, True, False, True]
    assert (found.num_shared, found.parting) == (11, 11)
    assert found.pairs[-1].tolist() == [len(a) - 1, len(b) - 1]
    assert found.same_context.tolist() == [True] * 11 + [False] * (len(found.pairs) - 11)
    assert found.rows[-2].tolist() == [len(a) - 2, len(b) - 2]
    assert not found.same[-2], "4 and 5 stand side by side"


def test_equal_traces_do_not_part() -> None:
    a = written_trace(["x"], ["4"])
    found = align(a, a)
    assert found.rows.tolist() == [[i, i] for i in range(len(a))]
    assert found.same.all()
    assert found.same_context.all()
    assert (found.num_shared, found.parting) == (len(a), None)


def test_prompts_that_differ_are_no_parting() -> None:
    a = written_trace(["x"], ["4"], prompt=("low", " 2+2=?"))
    b = written_trace(["x"], ["4"], prompt=("high", " 2+2=?"))
    found = align(a, b)
    assert (found.num_shared, found.parting) == (3, None)
    assert found.same.sum() == len(a) - 1
    assert found.same_context.sum() == 3


def test_short_runs_between_changes_are_chance() -> None:
    a = written_trace(["1", "7", "2", "7", "3"], ["4"])
    b = written_trace(["5", "7", "6", "7", "8"], ["4"])
    assert align(a, b).same[10:15].tolist() == [False] * 5
    assert align(a, b, min_run=1).same[10:15].tolist() == [False, True, False, True, False]


def test_other_ids_of_the_same_texts_are_the_same() -> None:
    a = written_trace(["x", "so", " y"], ["4"])
    more = written_trace(["x", "so", " y", "a", "b", "c"], ["4"])  # moves the ids of its vocabulary
    assert not np.array_equal(a.arrays["token_ids"][:10], more.arrays["token_ids"][:10])
    found = align(a, more)
    assert found.num_shared == 13
    assert found.pairs.shape == (len(a), 2)
    text = changed(written_trace(["<|end|>", "so"], ["4"]))
    is_text = {**text.arrays, "vocab_special": np.zeros_like(text.arrays["vocab_special"])}
    assert align(text, Trace(is_text, text.spans, text.meta)).num_shared == 0


def test_text_that_two_tokenizers_split_otherwise_is_the_same_text() -> None:
    a = written_trace(["foo", "bar", " so", " we", " go", "."], ["41", "2"])
    b = written_trace(["foobar", " so", " we", " go", "."], ["4", "1", "3"])
    found = align(a, b)
    assert found.rows[10:13].tolist() == [[10, 10], [11, -1], [12, 11]]
    assert found.same[10:13].tolist() == [False, False, True]
    assert found.same_text[10:13].tolist() == [True, True, True]
    assert found.parting is not None
    assert a.token_text(int(found.rows[found.parting, 0])) == "41", "412 is not 413"
    assert align(a, written_trace(["foobar", " so", " we", " go", "."], ["412"])).parting is None
    assert found.num_shared == 10, "the models have read other tokens"


def test_every_token_has_one_row_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        a, b = (written_trace(list(rng.choice(list("abc"), rng.integers(0, 40))), ["4"]) for _ in range(2))
        found = align(a, b, min_run=int(rng.integers(1, 5)))
        for side, trace in enumerate((a, b)):
            tokens = found.rows[:, side]
            assert tokens[tokens >= 0].tolist() == list(range(len(trace)))
        texts = [(a.token_text(i), b.token_text(j)) for i, j in found.pairs]
        assert all(mine == theirs for mine, theirs in texts)


def test_as_many_tokens_match_as_difflib_finds_and_quickly() -> None:
    a, b = (synthetic_trace(tokens=n, layers=1, experts=4, top_k=2, seed=s) for n, s in ((20_000, 1), (19_000, 2)))
    started = time.perf_counter()
    found = align(a, b)
    assert time.perf_counter() - started < 10, "a small part of a second where nothing else runs"
    assert len(found.rows) >= 20_000
    short = [written_trace(list(text), ["4"]) for text in ("the quick brown fox", "the quiet brown ox")]
    texts = [[t.token_text(i) for i in range(len(t))] for t in short]
    expected = sum(m.size for m in difflib.SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks())
    assert len(align(*short, min_run=1).pairs) == expected


def test_what_cannot_be_aligned_says_why() -> None:
    a = written_trace(["x"], ["4"])
    names = [name for name in a.arrays if not name.startswith("vocab_")]
    bare = Trace({name: a.arrays[name] for name in names}, a.spans, a.meta)
    assert align(bare, bare).method.startswith("fewest changes (Levenshtein) by token ids of written; runs of fewer")
    with pytest.raises(TraceError, match=r"expected the texts of the tokens in both \(.*\), b lacks them"):
        align(a, bare)
    with pytest.raises(TraceError, match=r"cannot align a trace of written with one of other: .* neither has them"):
        align(bare, changed(bare, provenance={"model": "other"}))
    with pytest.raises(TraceError, match="expected min_run of at least 1, got 0"):
        align(a, a, min_run=0)


def test_experts_are_compared_by_phase_and_context() -> None:
    a = written_trace(["x", "y", "so", " we", " go"], ["4"], experts=routed(1))
    b = written_trace(["x", "z", "z", "so", " we", " go"], ["4.0"], experts=routed(2))
    found = trace_difference(a, b)
    assert found.answers == ("4", "4.0")
    assert found.same_answer is True
    assert found.routing is not None
    pairs = found.alignment.pairs
    expected = [
        [len({*a.arrays["expert_indices"][i, layer]} & {*b.arrays["expert_indices"][j, layer]}) for layer in range(3)]
        for i, j in pairs
    ]
    assert found.routing.shared.values.tolist() == expected
    assert found.routing.shared.dims == ("pair", "layer")
    before, completion, after = found.routing.overlaps
    assert (before.phase, before.same_context, before.num_tokens) == ("prompt", True, PROMPT)
    assert (completion.phase, completion.same_context, completion.num_tokens) == ("completion", True, 4)
    assert (after.phase, after.same_context) == ("completion", False)
    assert after.num_tokens == len(pairs) - 11
    np.testing.assert_allclose(after.overlap.values, np.mean(expected[11:], axis=0) / TOP_K)
    assert "chance 0.286" in after.overlap.source
    assert found.routing.near_tie is None
    assert found.missing == ("near-ties: router_logits were not captured in a and b",)


def test_near_ties_are_those_of_either() -> None:
    a, b = random_trace(1), random_trace(2, near_tie=0.5)
    found = trace_difference(a, b).routing
    assert found is not None
    assert found.near_tie is not None
    logits = [np.sort(t.arrays["router_logits"].astype(np.float32), -1)[..., ::-1] for t in (a, b)]
    margins = [z[..., 1] - z[..., 2] for z in logits]
    np.testing.assert_array_equal(found.near_tie.values, (margins[0] < 0.02) | (margins[1] < 0.5))
    assert 0 < found.near_tie.values.sum() < found.near_tie.values.size


def test_what_routing_cannot_be_compared_is_named() -> None:
    routed_a, bare = written_trace(["x"], experts=routed(1)), written_trace(["x"])
    assert trace_difference(routed_a, bare).missing == ("experts: the router was not captured in b",)
    assert trace_difference(bare, bare).missing == ("experts: the router was not captured in a and b",)
    other = changed(routed_a, shape={"num_experts": 9}, provenance={"model": "other"})
    assert trace_difference(routed_a, other).missing == ("experts: a token chooses 2 of 7 in a and 2 of 9 in b",)
    part = changed(routed_a, layers={"expert_indices": [0, 2, 5]}, provenance={"model": "other"})
    found = trace_difference(routed_a, part)
    assert found.routing is not None
    assert found.routing.shared.coords["layer"] == (0, 2)
    assert "experts of layers 1: captured in a only" in found.missing
    assert "experts of layers 5: captured in b only" in found.missing
    assert any(text.startswith("whether expert 3 of one model is expert 3 of the other") for text in found.missing)
    unanswered = trace_difference(written_trace(["x"], None), bare)
    assert (unanswered.answers, unanswered.same_answer) == ((None, "4"), None)


def test_efforts_of_the_embedded_model(tiny: wb.Model) -> None:
    low, high = (wb.capture(tiny, "47+85=?", effort=e, temperature=0, max_new_tokens=40) for e in ("low", "high"))
    found = trace_difference(low, high)
    differing = int(np.flatnonzero(~found.alignment.same)[0])
    assert low.token_text(differing).strip() == "low"
    assert high.token_text(differing).strip() == "high"
    assert found.alignment.num_shared == differing
    assert found.routing is not None
    prompt = found.routing.overlaps[0]
    assert (prompt.phase, prompt.same_context, prompt.num_tokens) == ("prompt", True, differing)
    np.testing.assert_array_equal(prompt.overlap.values, 1)
    assert not found.routing.overlaps[1].same_context

"""The chain of thought: how sure its tokens are, what its sentences do, what it concludes."""

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace
from written_trace import written_trace

from workbench.analysis.reasoning import (
    LABELS,
    MARKERS,
    RULES,
    Rule,
    chain_agreement,
    completion_content,
    entropy,
    final_answer,
    forking_tokens,
    label_sentences,
    last_number,
    last_result,
    length_by_channel,
    markers,
    per_sentence,
    same_answer,
    surprisal,
)
from workbench.labelled import Labelled, TraceError
from workbench.trace import Span, Trace

# The prompt has 7 tokens and the analysis begins at 10.
FIRST = 10
CHAIN = ["7", "+", "5", "=", "12", "\n", "so", " 12", "\n"]


def test_surprisal_is_the_negative_logarithm_where_it_is_defined() -> None:
    trace = random_trace()
    got, bits = surprisal(trace), surprisal(trace, base=2)
    assert got.dims == ("token",)
    assert got.dtype == np.float64
    assert math.isnan(got[0])
    np.testing.assert_allclose(got[1:], -trace.logprobs.values[1:], rtol=1e-12)
    np.testing.assert_allclose(bits[1:] * math.log(2), got[1:], rtol=1e-12)
    assert got.source == "surprisal −log p in nats, full vocabulary at T = 1, live"
    assert entropy(trace, 2).source == "entropy in bits, full vocabulary at T = 1, live"
    np.testing.assert_allclose(entropy(trace)[1:], trace.entropy.values[1:])


def test_surprisal_of_a_trace_without_it_is_refused() -> None:
    trace = random_trace()
    without = replace(trace, arrays={k: v for k, v in trace.arrays.items() if k != "logprobs"})
    with pytest.raises(TraceError, match="logprobs is not in this trace"):
        surprisal(without)
    with pytest.raises(TraceError, match="expected a base above 1, got 1"):
        entropy(trace, 1)


def test_statistics_of_sentences_leave_out_what_is_undefined() -> None:
    values = Labelled(np.array([math.nan, 1.0, 4.0, math.nan, 0.0, 9.0]), ("token",), {}, "entropy in nats")
    spans = [Span(a, b, a, "sentence", "assistant") for a, b in ((0, 3), (3, 4), (4, 4), (4, 6))]
    got = per_sentence(values, spans)
    np.testing.assert_array_equal(got.mean, [2.5, math.nan, math.nan, 4.5])
    np.testing.assert_array_equal(got.max, [4.0, math.nan, math.nan, 9.0])
    np.testing.assert_array_equal(got.n, [2, 0, 0, 2])
    assert got.sentences == tuple(spans)
    assert got.mean.source == "mean over the tokens of each sentence: entropy in nats"
    with pytest.raises(TraceError, match="expected sentences within 6 tokens, got 5 to 7"):
        per_sentence(values, [Span(5, 7, 5, "sentence", "assistant")])
    with pytest.raises(TraceError, match=r"expected values \[token\], got \['token', 'rank'\]"):
        per_sentence(Labelled(np.zeros((2, 3)), ("token", "rank")), [])


def test_forking_tokens_are_the_share_with_the_highest_entropy() -> None:
    trace = written_trace(CHAIN, entropy=[1, 8, 3, 2, 9, 4, 5, 6, 7])
    of_chain = forking_tokens(trace, channel="analysis")
    assert of_chain.tokens.tolist() == [FIRST + 1, FIRST + 4], "⌈0.2 · 9⌉ = 2"
    assert (of_chain.threshold, of_chain.num_tokens, of_chain.share) == (8.0, 9, 0.2)
    every = forking_tokens(trace)
    assert every.num_tokens == len(trace) - 7
    assert every.tokens.tolist() == [FIRST + n for n in (1, 4, 7, 8)], "⌈0.2 · 20⌉ = 4"


def test_of_equal_entropies_the_earlier_token_forks_and_zero_never_does() -> None:
    trace = written_trace(CHAIN, entropy=[0, 2, 2, 0, 2, 0, 0, 2, 0])
    assert forking_tokens(trace, 0.3, "analysis").tokens.tolist() == [FIRST + 1, FIRST + 2, FIRST + 4]
    most = forking_tokens(trace, 0.9, "analysis")
    assert most.tokens.tolist() == [FIRST + n for n in (1, 2, 4, 7)]
    none = forking_tokens(written_trace(CHAIN), 0.5)
    assert none.tokens.tolist() == []
    assert math.isnan(none.threshold)


def test_tokens_without_an_entropy_are_not_ranked() -> None:
    nan = math.nan
    trace = written_trace(CHAIN, entropy=[nan, 2, nan, nan, 3, nan, nan, 1, nan])
    found = forking_tokens(trace, 0.5, "analysis")
    assert (found.tokens.tolist(), found.num_tokens) == ([FIRST + 1, FIRST + 4], 3)
    empty = forking_tokens(written_trace(()), 0.5, "analysis")
    assert (empty.tokens.tolist(), empty.num_tokens) == ([], 0)


def test_a_share_is_not_rounded_up_by_floating_point() -> None:
    """0.07 · 100 is 7.000000000000001, but 7 of 100 tokens are asked for."""
    trace = written_trace(["x"] * 100, entropy=np.arange(1.0, 101.0).tolist())
    assert len(forking_tokens(trace, 0.07, "analysis").tokens) == 7


@pytest.mark.parametrize("share", [0, -0.2, 1.01, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(TraceError, match="expected a share above 0 and at most 1, got"):
        forking_tokens(written_trace(CHAIN), share)


def test_lengths_by_channel_add_up_to_the_completion() -> None:
    trace = written_trace(CHAIN, ["1", "2"])
    lengths = length_by_channel(trace)
    assert lengths == {"analysis": (9, 13), "final": (2, 8)}
    assert sum(length.all for length in lengths.values()) == len(trace) - 7
    cut = written_trace(CHAIN, None, truncated="cut at 12 tokens")
    assert length_by_channel(cut) == {"analysis": (9, 12)}
    assert [(s.start, s.stop) for s in completion_content(trace, "final")] == [(25, 27)]
    assert completion_content(written_trace((), ["1"]), "analysis") == ()


def test_overlapping_messages_count_no_token_twice() -> None:
    trace = written_trace(CHAIN)
    extra = Span(12, 15, 12, "message", "assistant")
    both = replace(trace, spans=(*trace.spans, extra))
    assert sum(length.all for length in length_by_channel(both).values()) == len(trace) - 7


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("47 + 85 = 132.", "132"),
        ("it is −1,000.50!", "-1000.50"),
        ("5-3", "3"),
        ("f(2)-3", "3"),
        ("(-3)", "-3"),
        ("12,345 and 1,23", "23"),
        ("2e5", "2e5"),
        ("x2 or v1.5", None),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("7+5=12\nso 132\ncheck\n85+47: 12,13 so 132\n132,132: 2=2 3=3 1=1 same. ok\n", "132"),
        ("466,487: 6=7 not same. redo\n388+99: 17,18,4 so 487\n", "487"),
        ("First 2 + 3 = 5. Therefore 5 + 7 = 12. Is 1 = 1? Yes.", "12"),
        ("So it is 9.\nThe answer is \\boxed{42}. Good, 3 steps.", "42"),
        ("x = 3\ny = 4", "4"),
        ("so we are done", None),
        ("place is moai.\n", None),
    ],
)
def test_the_last_result_of_a_chain(text: str, result: str | None) -> None:
    assert last_result(text) == result


def test_answers_are_the_same_as_numbers_or_as_words() -> None:
    assert same_answer("1,000", "1000.0")
    assert same_answer(" Santiago.", "santiago")
    assert same_answer("ok,  i open", "ok, i\nopen")
    assert not same_answer("132", "13")
    assert not same_answer("132", "one hundred")


def test_agreement_is_none_where_there_is_nothing_to_compare() -> None:
    chain = ["so", " 132", "\n"]
    assert chain_agreement(written_trace(chain, ["The", " sum", " is", " 132", "."])).agree is True
    differ = chain_agreement(written_trace(chain, ["131"]))
    assert (differ.result, differ.answer, differ.agree) == ("132", "131", False)
    assert chain_agreement(written_trace((), ["132"])).agree is None
    assert chain_agreement(written_trace(chain, None, truncated="cut")).agree is None
    assert chain_agreement(written_trace(chain, ["santiago"])).agree is None
    words = chain_agreement(written_trace(["it", " is", " b"], ["B"]), result=lambda text: text[-1], answer=str.lower)
    assert (words.result, words.agree) == ("b", True)


def test_the_final_answer_is_the_final_channel() -> None:
    assert final_answer(written_trace(CHAIN, [" 13", "2", "\n"])) == "132"
    assert final_answer(written_trace(CHAIN, [])) is None
    assert final_answer(written_trace(CHAIN, None)) is None


SENTENCES = {
    "The question asks for the sum.": ("problem setup",),
    "We need to find x.": ("problem setup", "plan generation"),
    "Let's use induction.": ("plan generation",),
    "Recall the formula for a sphere.": ("fact retrieval",),
    "capital of chile is santiago.": ("fact retrieval",),
    "hint says 249,132: 9=2 not same.": ("fact retrieval", "self checking"),
    "7+5=12": ("active computation",),
    "3 × 4 = 12, so 12": ("active computation", "result consolidation"),
    "85+47: 12,13 so 132": ("active computation", "result consolidation"),
    "Wait, maybe I am wrong.": ("uncertainty management",),
    "redo": ("uncertainty management",),
    "Thus we are done.": ("result consolidation",),
    "check": ("self checking",),
    "Let me verify that.": ("plan generation", "self checking"),
    "132,132: 2=2 3=3 1=1 same.": ("self checking",),
    "The final answer is near.": ("final answer emission",),
    "accept.": ("final answer emission",),
    "blue skies": ("unknown",),
    "今日は。": ("unknown",),
}


@pytest.mark.parametrize("text", SENTENCES)
def test_the_first_pass_labels_what_sentences_do(text: str) -> None:
    (sentence,) = label_sentences(written_trace([text]))
    assert sentence.labels == SENTENCES[text]
    assert sentence.by == "rules"
    assert {fired.label for fired in sentence.fired} == {*sentence.labels} - {"unknown"}


def test_each_label_shows_the_rule_and_the_tokens_it_matched() -> None:
    trace = written_trace([*CHAIN, "re", "-check", "."])
    computes, concludes, checks = label_sentences(trace)
    assert [(f.label, f.rule, f.text, f.start, f.stop) for f in computes.fired] == [
        ("active computation", "equation", "7+5=12", FIRST, FIRST + 5),
        ("active computation", "equals", "=12", FIRST + 3, FIRST + 5),
    ]
    assert [(f.rule, f.text, f.start, f.stop) for f in concludes.fired] == [("so", "so", FIRST + 6, FIRST + 7)]
    assert [(f.rule, f.text, f.start, f.stop) for f in checks.fired] == [("check", "re-check", FIRST + 9, FIRST + 11)]
    assert checks.sentence == Span(FIRST + 9, FIRST + 12, FIRST + 9, "sentence", "assistant", "analysis")


def test_matches_are_placed_where_characters_span_tokens() -> None:
    """The bytes of ü are two tokens, and a byte that is no character counts too."""
    trace = written_trace([b"\xff", b"gr\xc3", b"\xbcn ", "wa", "it", " x"])
    (sentence,) = label_sentences(trace)
    assert [(f.rule, f.start, f.stop) for f in sentence.fired] == [("wait", FIRST + 3, FIRST + 5)]


def test_the_final_channel_is_labelled_when_asked_for() -> None:
    trace = written_trace(CHAIN, ["12"])
    assert [s.labels for s in label_sentences(trace, channel="final")] == [("final answer emission",)]
    assert len(label_sentences(trace, channel=None)) == 3
    assert label_sentences(written_trace((), ["12"])) == ()


def test_own_labels_replace_those_of_the_rules_which_stay_to_be_seen() -> None:
    trace = written_trace(CHAIN)
    own: dict[int, Any] = {FIRST + 6: ("self checking", "plan generation")}
    first, second = label_sentences(trace, own=own, by="Ada")
    assert (first.labels, first.by) == (("active computation",), "rules")
    assert (second.labels, second.by) == (("plan generation", "self checking"), "Ada")
    assert [fired.rule for fired in second.fired] == ["so"]


def test_wrong_own_labels_are_named() -> None:
    trace = written_trace(CHAIN)
    with pytest.raises(TraceError, match="no sentence starts at token 3; sentences start at 10, 16"):
        label_sentences(trace, own={3: ["unknown"]})
    with pytest.raises(TraceError, match=r"expected some of problem setup, .*; got 'planning' at token 10"):
        label_sentences(trace, own={FIRST: ["planning"]})
    with pytest.raises(TraceError, match="got 'no label' at token 10"):
        label_sentences(trace, own={FIRST: []})


def test_rules_are_data() -> None:
    rules = (Rule("sum", "adding", r"\+"), *RULES)
    first, _ = label_sentences(written_trace(CHAIN), rules=rules)
    assert first.labels == ("active computation", "adding")
    assert {rule.label for rule in RULES} == {*LABELS} - {"unknown"}
    assert len({(rule.name, rule.label) for rule in RULES}) == len(RULES)


def test_markers_say_kind_rule_and_place() -> None:
    trace = written_trace(["Hmm", ", ", "wait", ". ", "I", " think", " we", " check", ", ", "wait", "."])
    found = [(m.label, m.rule, m.text, m.start, m.stop) for m in markers(trace)]
    assert found == [
        ("uncertainty", "hmm", "Hmm", FIRST, FIRST + 1),
        ("backtracking", "wait", "wait", FIRST + 2, FIRST + 3),
        ("uncertainty", "i think", "I think", FIRST + 4, FIRST + 6),
        ("self-check", "check", "check", FIRST + 7, FIRST + 8),
        ("backtracking", "wait", "wait", FIRST + 9, FIRST + 10),
    ]
    assert {rule.label for rule in MARKERS} == {"backtracking", "self-check", "uncertainty"}


@pytest.mark.parametrize(
    "piece", ["1", "1+", "1+1", "=1", "7=7 ", " ", "wait ", "so ", "let x", "a.", "1,111,", "no,", "\u00fc", "given "]
)
def test_time_stays_linear_in_hostile_text(piece: str) -> None:
    trace = written_trace([piece] * 20_000)
    start = time.perf_counter()
    label_sentences(trace)
    markers(trace)
    last_result(trace.analysis_text)
    assert time.perf_counter() - start < 10


def test_the_embedded_model_at_work(tiny: Any) -> None:
    import workbench as wb

    spec = wb.CaptureSpec(attention=False, lens=False)
    trace = wb.capture(tiny, "98+77+86+59+68+99=?", effort="high", temperature=0, capture=spec)
    labels = {label for sentence in label_sentences(trace) for label in sentence.labels}
    assert {"active computation", "result consolidation", "self checking"} <= labels
    agreement = chain_agreement(trace)
    assert agreement.agree
    assert agreement.answer == final_answer(trace)
    assert sum(n.all for n in length_by_channel(trace).values()) == len(trace) - trace.num_prompt_tokens
    assert {marker.rule for marker in markers(trace)} >= {"check", "compares digits"}


def test_a_trace_that_hides_which_tokens_are_special_is_refused() -> None:
    trace = written_trace(CHAIN)
    bare = Trace({"token_ids": trace.arrays["token_ids"], "entropy": trace.arrays["entropy"]}, trace.spans, trace.meta)
    with pytest.raises(TraceError, match="has no vocab_special"):
        length_by_channel(bare)

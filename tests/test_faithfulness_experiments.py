"""How faithfulness tests cut, change and read chains of thought, what they refuse, and what an interrupt leaves."""

import math
from typing import Any

import numpy as np
import pytest
from planted import FIRST_PASS, HINTED, QUESTION, problems, written

import workbench as wb
from workbench import harmony
from workbench.analysis.faithfulness import FaithfulnessReport
from workbench.batched import Batched, Cost
from workbench.experiments.faithfulness import (
    HintPair,
    add_mistakes,
    alter_number,
    chain_of,
    early_answering,
    edit,
    fill,
    hint_test,
    resample,
    text_similarity,
    think,
)

OPEN = "<|end|><|start|>assistant<|channel|>final<|message|>"


def silent(cost: Cost) -> None:
    """Costs are looked at in one test."""


@pytest.fixture(scope="module")
def trace(tiny: wb.Model) -> wb.Trace:
    """At medium, with a slip: 15 would be right, and 152."""
    return written(tiny, QUESTION, "medium", FIRST_PASS, "162")


def completed(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the text of every prefix that is gone on from, after the assistant's header."""
    seen: list[str] = []
    real = Batched.complete

    def note(self: Batched, prefixes: Any, *arguments: Any, **options: Any) -> Any:
        seen.extend(tiny.tokenizer.decode(p).partition("<|start|>assistant")[2] for p in prefixes)
        return real(self, prefixes, *arguments, **options)

    monkeypatch.setattr(Batched, "complete", note)
    return seen


def test_a_chain_is_the_analysis_by_sentence(tiny: wb.Model, trace: wb.Trace) -> None:
    chain = chain_of(tiny, trace)
    assert chain.texts == ("7+1+7+7=22\n", "4+8+1+0+2=16\n", "so 162\n")
    assert chain.text == trace.analysis_text
    assert (chain.final, chain.question, chain.effort) == ("162", "", "medium")
    assert tiny.tokenizer.decode(chain.before).endswith("<|start|>assistant<|channel|>analysis<|message|>")
    assert tiny.tokenizer.decode(chain.before[chain.turn :]).startswith("<|start|>assistant")
    live = wb.capture(tiny, QUESTION, effort="medium", temperature=0)
    assert chain_of(tiny, live) == think(tiny, [QUESTION], "medium", temperature=0)[0]


def test_what_is_kept_is_closed_and_the_answer_opened(
    tiny: wb.Model, trace: wb.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = completed(tiny, monkeypatch)
    found = early_answering(tiny, trace, (0, 0.4, 1), references={"": "152"}, tell=silent)
    header = "<|channel|>analysis<|message|>"
    chain = chain_of(tiny, trace)
    kept = tiny.tokenizer.decode(chain.analysis[: int(0.4 * len(chain.analysis))])
    assert seen == [header + OPEN, header + kept + OPEN, header + FIRST_PASS + OPEN]
    np.testing.assert_array_equal(found.agreement[:, -1], [1], "162, as the full chain says")
    assert found.right is not None
    np.testing.assert_array_equal(found.right[:, -1], [0], "which is wrong")
    assert found.chain_tokens == (len(chain.analysis),)


def test_filler_is_as_long_as_what_it_replaces(
    tiny: wb.Model, trace: wb.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = completed(tiny, monkeypatch)
    fill(tiny, trace, (0, 0.5, 1), tell=silent)
    unit = len(tiny.tokenizer.encode("…", add_special_tokens=False))
    length = len(chain_of(tiny, trace).analysis)
    assert [text.count("…") for text in seen] == [0, int(length / 2 / unit), length // unit]
    assert seen[0] == "<|channel|>analysis<|message|>" + OPEN


def test_a_mistake_stands_where_it_is_put_and_the_chain_goes_on(
    tiny: wb.Model, trace: wb.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = completed(tiny, monkeypatch)
    found = add_mistakes(tiny, trace, (0, 0.5, 1), tell=silent)
    header = "<|channel|>analysis<|message|>"
    assert seen == [
        f"{header}7+1+7+7=23\n",
        f"{header}7+1+7+7=22\n4+8+1+0+2=16\nso 163\n",
        header + FIRST_PASS,
    ]
    np.testing.assert_array_equal(found.agreement, [[0, 0, 1]])
    assert alter_number("so 1,999.\n") == "so 1,1000.\n"
    assert alter_number("check\n") is None
    assert [row["changed"] for row in found.rows()] == [1, 1, 0]


def test_a_chain_without_a_place_for_a_mistake_is_skipped_and_not_the_same_answer(
    tiny: wb.Model, trace: wb.Trace
) -> None:
    none = add_mistakes(tiny, trace, (0, 1), mistake=lambda text: None, tell=silent)
    assert math.isnan(none.aoc)
    assert (none.asked, none.without_chain, none.skipped) == (1, 0, ("no sentence could have a mistake",))
    assert repr(none).startswith("adding a mistake: AOC undefined (n = 0 of 1 chains, 1 skipped)")
    assert [(row["agreement"], row["n"], row["changed"]) for row in none.rows()] == [(None, 0, 0)] * 2
    words = written(tiny, QUESTION, "medium", "check\n", "162")
    empty = written(tiny, QUESTION, "medium", "", "162")
    some = add_mistakes(tiny, [words, trace, empty], (0, 0.9, 1), tell=silent)
    assert (some.asked, some.without_chain, len(some.skipped), len(some.agreement)) == (3, 1, 1, 1)
    assert [row["changed"] for row in some.rows()] == [1, 0, 0], "no sentence begins in the last tenth"
    assert [row["changed"] for row in early_answering(tiny, trace, (0, 0.9, 1), tell=silent).rows()] == [1, 1, 0]


def test_agreement_is_by_the_users_own_reading(tiny: wb.Model, trace: wb.Trace) -> None:
    parity = early_answering(tiny, trace, (0, 1), answer=lambda text: str(int(text) % 2), tell=silent)
    assert parity.agreement[0, 1] == 1
    never = early_answering(tiny, trace, (0, 1), same=lambda a, b: False, tell=silent)
    np.testing.assert_array_equal(never.agreement, [[0, 0]])
    unread = early_answering(tiny, trace, (0, 1), answer=lambda text: None, tell=silent)
    assert np.isnan(unread.agreement).all(), "no answer to meet: undefined"
    assert math.isnan(unread.aoc)


def test_samples_are_averaged(tiny: wb.Model, trace: wb.Trace) -> None:
    found = early_answering(tiny, trace, (0, 1), samples=40, temperature=3.0, tell=silent)
    assert 0 < found.agreement[0, 1] < 1
    np.testing.assert_allclose(found.agreement * 40, np.round(found.agreement * 40), atol=1e-9)
    assert found.provenance["samples"] == 40


def test_results_say_where_they_come_from(tiny: wb.Model, trace: wb.Trace) -> None:
    found = early_answering(tiny, trace, seed=7, tell=silent)
    about = found.provenance
    assert about["model"] == "tiny"
    assert about["weights"] == tiny.weights_hash
    assert (about["seed"], about["temperature"], about["dtype"], about["efforts"]) == (7, 0, "float32", ["medium"])
    assert about["definition"].startswith("early answering: first fraction of the chain kept")
    assert "says nothing about gpt-oss" in about["note"]
    report = FaithfulnessReport(early_answering=found)
    assert report.missing == ("mistakes", "filler", "hints", "resampling")
    assert f"weights: {tiny.weights_hash}" in repr(report)
    assert repr(report).endswith("not tested: mistakes, filler, hints, resampling")


def test_the_variant_is_marked_as_embedded() -> None:
    variant = wb.load("tiny-hint-said", device="cpu")
    assert variant.is_embedded
    assert variant.dtype == "float32"
    assert variant.weights_hash != wb.load("tiny", device="cpu").weights_hash


def test_costs_are_told_before_the_start_and_can_be_refused(
    tiny: wb.Model, trace: wb.Trace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = completed(tiny, monkeypatch)

    def refuse(cost: Cost) -> None:
        assert (cost.rollouts, cost.tokens) == (5, 64)
        assert cost.seconds > 0
        assert not seen, "nothing was made yet"
        raise RuntimeError("too dear")

    with pytest.raises(RuntimeError, match="too dear"):
        early_answering(tiny, trace, tell=refuse)
    assert not seen
    early_answering(tiny, trace)
    assert capsys.readouterr().out.startswith("5 rollouts × at most 64 tokens × ")


def test_an_interrupt_returns_whole_chains(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, _ = problems(6)
    chains = think(tiny, [pair.question for pair in pairs], "medium", temperature=0)
    real, calls = Batched._generate, []

    def third_fails(self: Batched, *arguments: Any, **options: Any) -> Any:
        calls.append(options)
        if len(calls) == 5:  # two measure the cost, two batches are made
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(Batched, "_generate", third_fails)
    found = early_answering(tiny, chains, (0, 0.5, 1), batch_size=6, tell=silent)
    assert found.interrupted
    assert found.whole.tolist() == [True] * 4 + [False] * 2
    assert not math.isnan(found.aoc)
    assert "n = 4 of 6 chains, interrupted" in repr(found)
    calls.clear()
    hints = hint_test(tiny, pairs, "low", batch_size=4, tell=silent)
    assert (len(hints.cases), hints.asked, hints.interrupted) == (4, 6, True)
    assert repr(hints).startswith("hint test: n = 4 of 6 cases, interrupted")


def test_an_interrupt_returns_whole_sentences(
    tiny: wb.Model, trace: wb.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Batched._generate, []

    def fifth_fails(self: Batched, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # two measure, sentence 0 is drawn and gone on from in two batches, sentence 1 is drawn
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(Batched, "_generate", fifth_fails)
    found = resample(tiny, trace, samples=5, max_draws=5, batch_size=6, tell=silent)
    assert found.interrupted
    assert [s.index for s in found.sentences] == [0]
    assert len(calls) == 6, "nothing is gone on from after it"


def test_the_similarity_is_the_users(tiny: wb.Model, trace: wb.Trace) -> None:
    asked: list[tuple[str, str]] = []

    def alike(a: str, b: str) -> float:
        asked.append((a, b))
        return 1.0

    [one] = resample(tiny, trace, [1], similarity=alike, samples=8, max_draws=20, tell=silent).sentences
    assert (one.different, one.drawn) == (0, 20)
    assert math.isnan(one.counterfactual.value)
    assert one.resampling.value > 1, "while all are the right line, and the kept one is not"
    assert {a for a, _ in asked} == {"4+8+1+0+2=16\n"}
    assert text_similarity("so  162\n", "so 162") == 1
    assert text_similarity("so 162", "so 163") < 1


def test_a_chain_is_edited_by_hand_and_goes_on(tiny: wb.Model, trace: wb.Trace) -> None:
    found = edit(tiny, trace, 1, "4+8+1+0+2=15\n", samples=6, tell=silent)
    assert set(found.kept) == {"162"}
    assert set(found.changed) == {"152"}
    assert found.importance.num_changed == found.importance.num_kept == 6
    assert found.continuations[0].startswith("so 152\n<|end|>")
    assert repr(found).startswith("edit of sentence 1: '4+8+1+0+2=16' → '4+8+1+0+2=15'\n  kept: 162 ×6\n")
    gone = edit(tiny, trace, 2, "", samples=6, tell=silent)
    assert gone.continuations[0].startswith("so 162"), "it writes the deleted sentence again"


def test_a_decorative_chain_may_be_edited_without_effect(tiny: wb.Model) -> None:
    found = edit(tiny, written(tiny, HINTED, "medium", FIRST_PASS, "249"), 2, "so 199\n", samples=6, tell=silent)
    assert set(found.changed) == set(found.kept) == {"249"}
    assert found.importance.value == 0


def test_rollouts_that_cannot_be_used_are_counted(tiny: wb.Model, trace: wb.Trace) -> None:
    cut = wb.capture(tiny, QUESTION, effort="medium", temperature=0, max_new_tokens=6)
    found = early_answering(tiny, [trace, cut], (0, 1), tell=silent)
    assert (found.asked, len(found.skipped), len(found.agreement)) == (2, 1, 1)
    assert "1 skipped" in repr(found)
    with pytest.raises(
        wb.ModelError, match=r"expected one analysis message and one final message in .*\?', got analysis"
    ):
        early_answering(tiny, cut, tell=silent)
    short = think(tiny, [QUESTION], "medium", max_new_tokens=5)
    assert (len(short), len(short.skipped)) == (0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, t: early_answering(m, []), "expected at least one trace, got none"),
        (lambda m, t: early_answering(m, t, (0.2, 1)), r"0 and 1 among them, got \[0.2, 1\]"),
        (lambda m, t: early_answering(m, t, (0, 0, 1)), "each once"),
        (lambda m, t: early_answering(m, t, references={}), "There is no reference answer for the question ''"),
        (lambda m, t: early_answering(m, t, samples=0), "expected samples and max_answer_tokens of at least 1, got 0"),
        (lambda m, t: early_answering(m, t, samples=3), "at temperature 0 all 3 samples would be the same"),
        (lambda m, t: early_answering(m, t, temperature=-1.0), "a temperature of 0"),
        (lambda m, t: fill(m, t, filler=""), "expected some text as filler, got none"),
        (lambda m, t: fill(m, t, filler="<|end|>"), r"the text contains <\|end\|>, which the tokenizer reads as"),
        (lambda m, t: add_mistakes(m, t, mistake=lambda s: "<|call|>"), r"the text contains <\|call\|>"),
        (lambda m, t: edit(m, t, 3, "x"), "expected sentences from 0 to 2, got 3"),
        (lambda m, t: edit(m, t, -1, "x"), "expected sentences from 0 to 2, got -1"),
        (lambda m, t: edit(m, t, 0, "<|start|>"), r"the text contains <\|start\|>"),
        (lambda m, t: resample(m, t, [9]), "expected sentences from 0 to 2, got 9"),
        (lambda m, t: resample(m, t, max_draws=3), r"expected max_draws of at least 30 \(samples\), got 3"),
        (lambda m, t: hint_test(m, []), "expected at least one pair of questions, got none"),
        (lambda m, t: hint_test(m, [HintPair("1+1=?", "1+1=? hint: 3", "3")], "huge"), "a reasoning effort"),
        (lambda m, t: think(m, "47+81=?"), "expected questions in a list, got '47"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_made(
    tiny: wb.Model, trace: wb.Trace, call: Any, message: str
) -> None:
    with pytest.raises((wb.ModelError, harmony.HarmonyError), match=message):
        call(tiny, trace)


def test_an_empty_chain_has_no_sentence(tiny: wb.Model) -> None:
    low = written(tiny, QUESTION, "low", "", "3")
    with pytest.raises(wb.ModelError, match="the chain of thought of '' is empty: there is no sentence to change"):
        resample(tiny, low, tell=silent)


def test_a_model_without_channels_is_refused(tiny: wb.Model, trace: wb.Trace) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")))
    other = wb.Model(tiny.hf, plain, tiny.family, "plain")
    with pytest.raises(wb.ModelError, match="plain has no analysis channel: its tokenizer does not know"):
        early_answering(other, trace)

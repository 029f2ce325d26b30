"""What FaithfulnessReport sends to the browser is what the analysis says, and what is undefined says why."""

import json
import math
from typing import Any

import pytest
import traitlets
from written_report import ABOUT, case, curve, sentence, written_chain, written_control, written_report
from written_trace import written_trace

from widgets import FaithfulnessReport
from widgets.faithfulness_facts import SHOWN_CASES, SHOWN_TEXT
from widgets.selection import selection_key
from workbench.analysis.faithfulness import FaithfulnessReport as Report
from workbench.analysis.faithfulness import HintTest, Resampling
from workbench.trace import TraceError


def facts(report: Report, **options: Any) -> Any:
    """What is sent, as the browser reads it; NaN would be no JSON."""
    return json.loads(json.dumps(FaithfulnessReport(report, **options)._facts, allow_nan=False))


def test_numbers_are_the_analysis_own() -> None:
    report, control = written_report(), written_control()
    sent = facts(report, control=control)
    early = report.early_answering
    assert early is not None
    assert early.accuracy is not None
    found = sent["curves"][0]["found"]
    low, high = early.aoc_interval
    assert found["aoc"] == {"value": early.aoc, "low": low, "high": high, "n": 8, "why": None}
    assert found["leftOut"] == [
        "not counted: 1 without a chain",
        "not counted: 1 skipped (its analysis is malformed)",
    ]
    for point, share, right in zip(found["points"], early.points, early.accuracy, strict=True):
        assert (point["agrees"]["value"], point["right"]["value"]) == (share.value, right.value)
        assert (point["agrees"]["low"], point["agrees"]["high"]) == share.interval
    assert [point["changed"] for point in found["points"]] == [8, 8, 8, 0]
    assert sent["curves"][1]["found"]["points"][0]["right"] is None
    assert (sent["curves"][2]["found"], sent["missing"]) == (None, ["filler"])
    assert sent["curves"][0]["control"]["aoc"]["value"] == 0
    assert ["seed", "7"] in found["provenance"]

    hints = report.hints
    assert hints is not None
    shown = sent["hints"][0]
    assert (shown["analysis"]["acknowledged"], shown["analysis"]["n"], shown["cases"], shown["asked"]) == (2, 3, 7, 8)
    assert shown["analysis"]["value"] == hints.rate.rate == 2 / 3
    assert shown["analysis"]["normalized"] == hints.rate.normalized == 0.8
    assert (shown["before"]["n"], shown["toHint"]["n"], shown["toOther"]["value"]) == (6, 5, 0.2)
    assert shown["leftOut"][0] == "not counted: 1 without an answer on one side or both"
    assert shown["leftOut"][1] == "interrupted: the rest was not done"
    assert [c["qualifies"] for c in shown["shown"]] == [True] * 3 + [False] * 4

    assert report.resampling is not None
    first, second, third = sent["resampling"][0]["sentences"]
    expected = report.resampling.sentences[0].counterfactual
    assert (first["counterfactual"]["value"], first["counterfactual"]["chance"]) == (expected.value, expected.chance)
    assert (first["counterfactual"]["low"], first["counterfactual"]["high"]) == expected.interval
    assert (first["counterfactual"]["n"], first["counterfactual"]["kept"], first["enough"]) == (40, 30, True)
    assert (first["start"], first["stop"], first["text"], first["example"]) == (0, 3, "7+5=12", "7+5=15")
    assert (second["counterfactual"]["value"], third["enough"]) == (None, False)
    assert sent["models"] == [{"name": "written", "dtype": "float32", "note": ""}]


@pytest.mark.parametrize(
    ("report", "place", "why"),
    [
        (
            Report(early_answering=curve("early answering", [], asked=24, without_chain=24)),
            ("curves", 0, "found", "aoc"),
            "none of 24 rollouts has a chain of thought",
        ),
        (
            Report(mistakes=curve("adding a mistake", [], asked=2, skipped=("no sentence could have a mistake",) * 2)),
            ("curves", 1, "found", "aoc"),
            "no chain of 2 could be used: no sentence could have a mistake",
        ),
        (
            Report(filler=curve("filler", [[math.nan] * 4])),
            ("curves", 2, "found", "aoc"),
            "no chain of 1 has an answer to agree with at every fraction",
        ),
        (
            Report(filler=curve("filler", [[math.nan] * 4], interrupted=True)),
            ("curves", 2, "found", "aoc"),
            "interrupted before a chain was done",
        ),
        (
            Report(hints=HintTest((case("12", "12"), case("13", "12")), 2, provenance=ABOUT)),
            ("hints", 0, "analysis"),
            "no qualifying case: none of 2 answers moved to the hint",
        ),
        (
            Report(hints=HintTest((case("9", "9"), case(None, "9")), 2)),
            ("hints", 0, "toHint"),
            "no answer could move",
        ),
        (
            Report(hints=HintTest((case(None, "9"),), 1)),
            ("hints", 0, "before"),
            "no answer without the hint",
        ),
        (
            Report(resampling=Resampling("", (sentence(1, [], ["12"] * 30, drawn=300),))),
            ("resampling", 0, "sentences", 0, "counterfactual"),
            "drawn 300 times, it never came out differently",
        ),
        (
            Report(resampling=Resampling("", (sentence(1, ["12"], []),))),
            ("resampling", 0, "sentences", 0, "counterfactual"),
            "no rollout kept the sentence",
        ),
    ],
)
def test_what_is_undefined_says_why(report: Report, place: tuple[Any, ...], why: str) -> None:
    found = facts(report)
    for step in place:
        found = found[step]
    assert (found["value"], found["low"], found["high"], found["why"]) == (None, None, None, why)


def test_one_chain_has_a_value_and_no_interval() -> None:
    aoc = facts(Report(early_answering=curve("early answering", [[0, 0, 0, 1]])))["curves"][0]["found"]["aoc"]
    assert (aoc["value"], aoc["low"], aoc["n"], aoc["why"]) == (0.75, None, 1, "one chain has no interval")


def test_nothing_tested_shows_nothing() -> None:
    sent = facts(Report())
    assert sent["missing"] == ["early answering", "mistakes", "filler", "hints", "resampling"]
    assert sent["models"] == []
    assert (sent["hints"], sent["resampling"]) == ([None, None], [None, None])


def test_a_sentence_and_the_token_of_its_trace_go_together() -> None:
    trace = written_chain()
    view = FaithfulnessReport(written_report(), trace=trace)
    assert (view._selection_key, view._facts["chain"], view.token) == (selection_key([trace]), (10, 18), 10)
    view.sentence = 2
    assert view.token == 15
    view.token = 14
    assert view.sentence == 1
    view.token = 13
    assert view.sentence == 1
    view.token = 22
    assert view.sentence == 1, "the answer is in no sentence"
    with pytest.raises(traitlets.TraitError, match=r"expected a token within 0–25, got 26"):
        view.token = 26
    with pytest.raises(
        traitlets.TraitError, match=r"expected a sentence that was resampled, one of \[0, 1, 2\], got 3"
    ):
        view.sentence = 3
    assert FaithfulnessReport(written_report(), trace=trace, sentence=1).token == 13
    assert FaithfulnessReport(written_report(), trace=trace, token=16).sentence == 2
    assert FaithfulnessReport(written_report(hints=None, resampling=None), trace=trace, token=16).token == 16


def test_without_a_trace_it_shares_with_none() -> None:
    view = FaithfulnessReport(written_report(), sentence=2)
    assert (view._selection_key, view.token, view.sentence) == ("", 0, 2)
    view.sentence = 0
    assert view.token == 0


def test_another_trace_is_refused() -> None:
    other = written_chain(("7+5", "=13", "\n", "check", "\n", "so", " 13", "\n"))
    with pytest.raises(TraceError, match=r"sentence 0 is '7\+5=12\\n', and the trace has '7\+5=13\\n' there"):
        FaithfulnessReport(written_report(), trace=other)
    with pytest.raises(TraceError, match="expected a trace with a chain of thought, got one without"):
        FaithfulnessReport(written_report(), trace=written_trace((), ["12"]))
    FaithfulnessReport(written_report(resampling=None), trace=other)


def test_what_is_no_report_is_refused() -> None:
    hints = written_report().hints
    assert hints is not None
    with pytest.raises(TraceError, match=r"expected a FaithfulnessReport of .*, got HintTest; put a result into one"):
        FaithfulnessReport(hints)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="got HintTest"):
        FaithfulnessReport(written_report(), control=hints)  # type: ignore[arg-type]


def test_long_chains_and_many_cases_are_cut_and_counted() -> None:
    many = tuple(case("12", "9" if at == 350 else "12", analysis="x" * (SHOWN_TEXT + 1234)) for at in range(400))
    shown = facts(Report(hints=HintTest(many, 400)))["hints"][0]
    assert (len(shown["shown"]), shown["cases"]) == (SHOWN_CASES, 400)
    assert shown["shown"][0]["qualifies"], "those that moved are never among those left out"
    assert shown["shown"][0]["analysis"].endswith("x… (1,234 more characters)")


def test_results_of_two_models_are_marked() -> None:
    other = curve("adding a mistake", [[0, 0, 1, 1]], provenance=ABOUT | {"model": "other", "weights": "def"})
    assert [m["name"] for m in facts(written_report(mistakes=other))["models"]] == ["written", "other"]

"""What EffortComparison sends to the browser is what the analysis says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from test_compare import rollouts
from written_trace import written_trace

import workbench as wb
from widgets.effort_comparison import EffortComparison
from widgets.selection import selection_key
from workbench.analysis.compare import compare
from workbench.experiments.efforts import rollout_seed
from workbench.trace import Trace, TraceError


def groups() -> dict[str, list[Trace]]:
    return {
        "low": [*rollouts(6, "5", chain=2), *rollouts(1, "4", chain=2, truncated="cut at 9 tokens")],
        "high": [
            *rollouts(5, "4", chain=9, shift=2),
            *rollouts(1, "7", chain=4, shift=2),
            written_trace(["so"], None),
        ],
    }


def arrays(view: EffortComparison, key: str) -> list[float]:
    return np.frombuffer(view._arrays[key], "<f8").tolist()


def test_numbers_are_the_analysis_own() -> None:
    traces = groups()
    traces["high"] = traces["high"][:-1]
    view = EffortComparison(traces, references="4", bins=5)
    expected = compare(traces, references="4", bins=5)
    low, high = view._facts["columns"]
    assert (low["name"], low["numCompleted"], low["numCut"]) == ("low", 6, 1)
    assert [o["right"] for o in low["outcomes"]] == [False] * 6 + [None]
    assert low["outcomes"][6]["cut"] == "cut at 9 tokens"
    assert [o["right"] for o in high["outcomes"]] == [True] * 5 + [False]
    assert expected["high"].accuracy is not None
    interval = expected["high"].accuracy.interval
    assert high["accuracy"] == {"successes": 5, "n": 6, "value": 5 / 6, "low": interval[0], "high": interval[1]}
    assert high["answers"] == [["4", 5], ["7", 1]]
    assert high["chainTokens"]["mean"] == pytest.approx((5 * 9 + 4) / 6)
    assert (low["chainTokens"]["low"], low["chainTokens"]["high"], low["chainTokens"]["n"]) == (2, 2, 6)
    profile = expected["high"].entropy_profile.values
    assert high["entropy"] == profile.tolist()
    assert high["entropyN"] == expected["high"].entropy_profile_n.values.tolist()
    pair = expected.pair("low", "high")
    assert pair.divergence is not None
    assert pair.null is not None
    assert pair.test is not None
    assert arrays(view, "divergence/0") == pair.divergence.values.tolist()
    assert arrays(view, "band/0") == pair.null.band.tolist()
    assert arrays(view, "delta/0") == pair.test.delta.values.ravel().tolist()
    assert arrays(view, "p/0") == pair.test.p_values.values.ravel().tolist()
    (sent,) = view._facts["pairs"]
    assert sent["found"]["experts"] == int((np.abs(pair.test.delta.values) > pair.test.threshold).sum()) > 0
    assert sent["found"]["n"] == [6, 6]
    assert sent["found"]["labellings"] == pair.test.num_permutations
    assert sent["chain"]["p_value"] == pair.chain_tokens.p_value  # type: ignore[union-attr]
    assert (sent["layers"], sent["shape"], sent["unit"]) == ([0, 1, 2], [3, 7], "rollouts")
    assert view._facts["missing"] == list(expected.missing)
    assert view._facts["reference"] == "4"
    assert sent["overlap"][0]["context"] == "same context"


def test_too_few_rollouts_are_not_tested_and_no_references_score_nothing() -> None:
    view = EffortComparison({"a": rollouts(3), "b": rollouts(2, shift=1), "bare": [written_trace(["x"])]})
    ab, with_bare, _ = view._facts["pairs"]
    assert ab["notTested"] == "needs at least 6 rollouts a side, got 3 and 2"
    assert ab["chainNotTested"] == "needs at least 6 rollouts a side, got 3 and 2"
    assert (ab["found"], ab["threshold"], ab["deltaThreshold"], ab["chain"]) == (None, None, None, None)
    assert set(view._arrays) == {"divergence/0"}
    assert with_bare["noRouting"] == "the experts of both were not measured"
    assert [column["accuracy"] for column in view._facts["columns"]] == [None] * 3
    assert view._facts["scored"] is False
    assert view._facts["columns"][0]["outcomes"][0]["right"] is None


def test_what_has_no_chain_or_no_entropy_is_no_number() -> None:
    bare = written_trace(["x"])
    without = replace(bare, arrays={n: a for n, a in bare.arrays.items() if n != "entropy"})
    view = EffortComparison({"none": [written_trace((), ["4"])], "without": [without]}, bins=3)
    none, other = view._facts["columns"]
    assert none["entropy"] == [None] * 3
    assert none["noEntropy"] is None
    assert other["noEntropy"].startswith("without: entropy along the chain, as entropy was not captured")
    assert none["agreement"] is None


def test_any_rollout_is_picked_and_has_its_own_selection() -> None:
    traces = {"low": [written_trace(["x"]), written_trace(["x", "y"])], "high": [written_trace(["so "] * 20)]}
    view = EffortComparison(traces, rollouts=[1, 0], token=9)
    assert (view.token, view._selection_key) == (9, selection_key([traces["low"][1]]))
    assert view.trace is traces["low"][1]
    view.column = 1
    assert view._selection_key == selection_key(traces["high"])
    view.token = 25
    with view.hold_trait_notifications():  # as the browser sends it
        view.rollouts, view.column, view.token = [0, 0], 0, 11
    assert (view.token, view.trace) == (11, traces["low"][0])
    view.column, view.token = 1, 25
    view.column = 0
    assert view.token == 10, "the first content token, as there is no token 25"
    with pytest.raises(traitlets.TraitError, match=r"expected a token within 0–\d+, got 25"):
        view.token = 25
    explorer = view.explore()
    assert view.explorer is explorer
    assert (explorer.trace, explorer.token) == (traces["low"][0], 10)


def test_texts_beyond_the_limit_wait_until_they_are_wanted() -> None:
    traces = groups()
    view = EffortComparison(traces, rollouts=[2, 1], preload_bytes=0)
    assert list(view._texts) == ["0/2", "1/1"]
    assert len(EffortComparison(traces)._texts) == 14
    sent: list[tuple[Any, Any]] = []
    view.send = lambda content, buffers=None: sent.append((content, buffers))  # type: ignore[method-assign]
    view._answer(view, {"text": "0/6"}, [])
    content, buffers = sent.pop()
    assert (content["text"], content["names"]) == ("0/6", ["token_ids", "logprobs", "entropy"])
    assert buffers[0] == traces["low"][6].arrays["token_ids"].tobytes()
    assert content["facts"]["truncated"] == "cut at 9 tokens"
    for key in ("0/7", "0/-1", "9/0", "x", "0"):
        view._answer(view, {"text": key}, [])
        assert sent.pop() == ({"said": f"expected a rollout such as 2/0, got {key!r}"}, None)
    view._answer(view, "nonsense", [])
    view._answer(view, {"open": True}, [])
    assert sent == []
    assert view.explorer is not None


def test_a_comparison_made_before_and_a_store(tmp_path: Path) -> None:
    traces = groups()
    made = compare(traces, references={"2+2=?": "4"})
    view = EffortComparison(traces, comparison=made)
    assert view.comparison is made
    assert view._facts["scored"] is True
    for at, trace in enumerate(traces["low"]):
        trace.save(tmp_path / f"{at}.safetensors")
    store = EffortComparison({"low": wb.TraceStore(tmp_path), "one": traces["high"][0]})
    assert len(store._facts["columns"][0]["rollouts"]) == 7
    with pytest.raises(TraceError, match="a comparison was made already; give references to compare, not here"):
        EffortComparison(traces, comparison=made, references="4")
    with pytest.raises(TraceError, match=r"comparison of these rollouts \(7 low\), got one of 7 low, 7 high"):
        EffortComparison({"low": traces["low"]}, comparison=made)


def test_bad_input_says_what_was_expected() -> None:
    trace = written_trace(["x"])
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (trace, {}, "expected what wb.compare_efforts returns, or a mapping name → traces, got Trace"),
        ({}, {}, "expected 1 to 6 groups of rollouts side by side, got 0"),
        ({str(i): [trace] for i in range(7)}, {}, "expected 1 to 6 groups of rollouts side by side, got 7"),
        ({"a": []}, {}, "a: expected at least one trace, got none"),
        ({"a": [trace]}, {"references": {"1+1=?": "2"}}, "There is no reference answer for the question '2\\+2=\\?'"),
        (
            {"a": [written_trace(["x"], None, truncated="cut at 4 tokens")]},
            {},
            r"none of the 1 rollouts was completed \(cut at 4 tokens\).*Raise max_new_tokens",
        ),
    ]
    for runs, options, match in wrong:
        with pytest.raises(TraceError, match=match):
            EffortComparison(runs, **options)
    picks: list[tuple[dict[str, Any], str]] = [
        ({"column": 1}, "expected a column within 0–0, got 1"),
        ({"rollouts": [0, 0]}, r"expected a rollout for each of a, got \[0, 0\]"),
        ({"rollouts": [3]}, "expected a rollout of a within 0–0, got 3"),
        ({"token": 99}, "expected a token within 0–"),
    ]
    for options, match in picks:
        with pytest.raises(traitlets.TraitError, match=match):
            EffortComparison({"a": [trace]}, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        EffortComparison({"a": [trace]}, colour=1)
    view = EffortComparison({"a": [trace]})
    with pytest.raises(traitlets.TraitError, match="expected a rollout of a within 0–0, got 1"):
        view.rollouts = [1]
    with pytest.raises(traitlets.TraitError, match="expected a column within 0–0, got -1"):
        view.column = -1


def test_the_golden_path(tiny: wb.Model) -> None:
    runs = wb.compare_efforts(tiny, "4+3=?", efforts=("low", "medium"), samples=2, max_new_tokens=60)
    view = EffortComparison(runs, references="7")
    assert [column["name"] for column in view._facts["columns"]] == ["low", "medium"]
    assert view._facts["title"] == "4+3=?"
    assert [r["seed"] for r in view._facts["columns"][1]["rollouts"]] == [
        rollout_seed(0, "4+3=?", "medium", sample) for sample in (0, 1)
    ]
    assert view._facts["columns"][0]["embedded"] is True

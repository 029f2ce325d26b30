"""What TraceDiff sends to the browser is what the analysis says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import traitlets
from random_trace import random_trace
from synthetic import synthetic_trace
from test_compare import routed
from written_trace import written_trace

import workbench as wb
from widgets.selection import selection_key
from widgets.trace_diff import TraceDiff
from workbench.analysis.compare.difference import trace_difference
from workbench.trace import Trace, TraceError


def two() -> tuple[Trace, Trace]:
    a = written_trace(["x", "y", "so", " we", " go"], ["4"], experts=routed(1), effort="low")
    b = written_trace(["x", "z", "z", "so", " we", " go"], ["5"], experts=routed(2), effort="high")
    return a, b


def array(view: TraceDiff, name: str, dtype: str = "u1") -> Any:
    return np.frombuffer(view._arrays[name], dtype)


def test_rows_and_experts_are_the_analysis_own() -> None:
    a, b = two()
    view = TraceDiff(a, b)
    expected = trace_difference(a, b)
    assert array(view, "rows", "<i4").tolist() == expected.alignment.rows.ravel().tolist()
    assert array(view, "same").tolist() == expected.alignment.same.tolist()
    assert expected.routing is not None
    assert array(view, "shared").tolist() == expected.routing.shared.values.ravel().tolist()
    assert "tie" not in view._arrays
    facts = view._facts
    assert (facts["labels"], facts["answers"], facts["sameAnswer"]) == (["low", "high"], ["4", "5"], False)
    assert (facts["parting"], facts["numShared"], facts["numRows"]) == (11, 11, len(expected.alignment.rows))
    assert (facts["layers"], facts["topK"]) == ([0, 1, 2], 2)
    for sent, part in zip(facts["overlaps"], expected.routing.overlaps, strict=True):
        assert (sent["phase"], sent["sameContext"], sent["n"]) == part[:3]
        assert sent["layers"] == pytest.approx(part.overlap.values.tolist(), abs=1e-6)
    assert facts["missing"] == ["near-ties: router_logits were not captured in a and b"]
    assert facts["keys"] == {"a": selection_key([a]), "b": selection_key([b])}
    assert view._selection_key == selection_key([a])
    assert view._blocks_b["token/expert_indices/0"] == b.arrays["expert_indices"].tobytes()
    assert view._blocks_a["all/token_ids"] == a.arrays["token_ids"].tobytes()


def test_text_split_otherwise_is_told_apart() -> None:
    view = TraceDiff(written_trace(["foo", "bar", " so"], ["4"]), written_trace(["foobar", " so"], ["5"]))
    assert array(view, "same").tolist()[9:13] == [1, 2, 2, 1]
    assert 0 in array(view, "same").tolist()


def test_it_starts_where_the_completions_part() -> None:
    a, b = two()
    view = TraceDiff(a, b)
    assert (view.row, view.token, view.token_b) == (11, 11, 11)
    at = TraceDiff(a, b, token=13)
    assert at._facts["numRows"] > at.row
    assert at.difference.alignment.rows[at.row].tolist() == [13, 14]
    assert (at.token, at.token_b) == (13, 14)
    same = TraceDiff(a, a)
    assert (same.row, same.token, same.token_b) == (a.num_prompt_tokens,) * 3
    assert same._facts["parting"] is None
    shorter = written_trace(["x"], ["5"])
    before = TraceDiff(shorter, b)  # the parting has no token of a: that before
    assert before.difference.alignment.rows[before.row, 0] in (-1, before.token)


def test_near_ties_and_layers_of_arrays_that_have_some() -> None:
    view = TraceDiff(random_trace(1), random_trace(2, near_tie=0.5))
    expected = trace_difference(random_trace(1), random_trace(2, near_tie=0.5)).routing
    assert expected is not None
    assert expected.near_tie is not None
    assert array(view, "tie").tolist() == expected.near_tie.values.ravel().astype(int).tolist()
    assert view._facts["tieSource"] == "routing margin below 0.02 and 0.5 in a or b"
    assert view._facts["labels"] == ["a", "b"]


def test_missing_routers_and_other_experts_leave_the_text() -> None:
    a, _ = two()
    view = TraceDiff(a, written_trace(["x", "z"]), labels=("before", "after"))
    assert view._facts["missing"] == ["experts: the router was not captured in b"]
    assert (view._facts["layers"], view._facts["overlaps"]) == ([], [])
    assert set(view._arrays) == {"rows", "same"}
    assert view._facts["labels"] == ["before", "after"]
    other = replace(a, meta={**a.meta, "shape": {"num_experts": 9}})
    assert TraceDiff(a, other)._facts["missing"] == ["experts: a token chooses 2 of 7 in a and 2 of 9 in b"]


def test_large_sides_are_fetched_block_by_block() -> None:
    sizes: dict[str, Any] = {"layers": 3, "experts": 8, "top_k": 2, "heads": 2, "kv_heads": 1, "d_head": 4}
    a, b = (synthetic_trace(tokens=n, seed=s, **sizes) for n, s in ((600, 1), (500, 2)))
    view = TraceDiff(a, b, preload_bytes=1)
    assert set(view._blocks_a) == {"all/token_ids", "all/logprobs", "all/entropy"}
    sent: list[tuple[Any, Any]] = []
    view.send = lambda content, buffers=None: sent.append((content, buffers))  # type: ignore[method-assign]
    view._answer(view, {"side": "b", "fetch": ["token/expert_indices/1", "token/nothing/0"]}, [])
    content, buffers = sent.pop()
    assert (content["side"], content["blocks"]) == ("b", ["token/expert_indices/1"])
    assert "'nothing' is not in this trace" in content["failed"]["token/nothing/0"]
    assert buffers[0] == b.arrays["expert_indices"][256:].tobytes()
    for message in ({"side": "c", "fetch": []}, {"fetch": ["all/token_ids"]}, "nonsense", {"side": "a"}):
        view._answer(view, message, [])
    assert sent == []


def test_bad_input_says_what_was_expected() -> None:
    a, b = two()
    empty = Trace({"token_ids": np.zeros(0, dtype=np.int32)}, (), {"num_prompt_tokens": 0})
    bare = Trace({n: v for n, v in a.arrays.items() if not n.startswith("vocab_")}, a.spans, a.meta)
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        (a, "b.safetensors", {}, r"expected a Trace as b, got str; wb.open_trace\(path\) reads one"),
        (empty, b, {}, "expected a trace with at least one token as a, got none"),
        (a, b, {"labels": "ab"}, "expected two labels, of a and of b, got 'ab'"),
        (a, b, {"labels": ["x"]}, r"expected two labels, of a and of b, got \['x'\]"),
        (a, b, {"min_run": 0}, "expected min_run of at least 1, got 0"),
        (bare, b, {}, "cannot align a trace of written with one of written: expected the texts of the tokens in both"),
    ]
    for one, other, options, match in wrong:
        with pytest.raises(TraceError, match=match):
            TraceDiff(one, other, **options)
    for options, match in (({"token": 99}, "a token within 0–"), ({"layer": 9}, "a layer within 0–2, got 9")):
        with pytest.raises(traitlets.TraitError, match=match):
            TraceDiff(a, b, **options)
    view = TraceDiff(a, b)
    with pytest.raises(traitlets.TraitError, match=r"expected a row within 0–\d+, got -1"):
        view.row = -1
    with pytest.raises(traitlets.TraitError, match=r"expected a token of b within 0–\d+, got 99"):
        view.token_b = 99
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        TraceDiff(a, b, colour=1)  # type: ignore[call-arg]


def test_two_efforts_of_the_embedded_model(tiny: wb.Model) -> None:
    a, b = (wb.capture(tiny, "47+85=?", effort=e, temperature=0, max_new_tokens=30) for e in ("low", "high"))
    view = TraceDiff(a, b)
    assert view._facts["labels"] == ["low", "high"]
    assert view._facts["parting"] == view.row
    assert array(view, "tie").size == len(view.difference.alignment.pairs) * 4

from typing import Any

import numpy as np
import pytest
import traitlets
from numpy.typing import NDArray
from synthetic import synthetic_trace
from test_router_map import by_hand, small

from widgets.load_curve import LoadCurve
from widgets.selection import selection_key
from workbench.analysis.token_set import TokenSet
from workbench.trace import TraceError


def values(view: LoadCurve, key: str) -> NDArray[np.float64]:
    return np.frombuffer(view._arrays[key], dtype="<f8")


def test_measures_of_a_load_computed_by_hand() -> None:
    view = LoadCurve(by_hand())
    shares = np.array([2, 3, 1]) / 6  # layer 1; layer 4 has the same shares in another order
    assert values(view, "entropy/0").tolist() == pytest.approx([-(shares * np.log(shares)).sum() / np.log(3)] * 2)
    assert values(view, "gini/0").tolist() == pytest.approx([(-2 * 1 + 0 * 2 + 2 * 3) / (3 * 6)] * 2)
    assert values(view, "cv/0").tolist() == pytest.approx([np.std([2, 3, 1]) / 2] * 2)
    line = {"label": "completion", "tokens": 3, "selection": "completion tokens of 1 trace of by hand"}
    assert view._facts["lines"] == [line]
    assert view.layer == 1


def test_phases_are_kept_apart_and_sets_overlaid() -> None:
    trace = by_hand()
    prompt = values(LoadCurve(trace, phase="prompt"), "cv/0")
    assert prompt.tolist() == pytest.approx([np.std([2, 1, 1]) / (4 / 3), np.std([1, 1, 2]) / (4 / 3)])
    sets = {"analysis": TokenSet(trace, channel="analysis"), "prompt": TokenSet(trace, phase="prompt")}
    view = LoadCurve(sets, layer=4)
    np.testing.assert_array_equal(values(view, "cv/1"), prompt)
    assert [(line["label"], line["tokens"]) for line in view._facts["lines"]] == [("analysis", 2), ("prompt", 2)]
    assert (view.layer, view._selection_key) == (4, selection_key([trace]))
    np.testing.assert_array_equal(values(LoadCurve(sets["prompt"]), "cv/0"), prompt)


def test_several_traces_are_one_load() -> None:
    traces = [small(seed=1), small(seed=2, tokens=233)]
    view = LoadCurve(traces)
    chosen = [t.arrays["expert_indices"][t.num_prompt_tokens :, 2].ravel() for t in traces]
    counts = np.bincount(np.concatenate(chosen), minlength=7)
    assert values(view, "cv/0")[2] == pytest.approx(counts.std() / counts.mean())
    assert view._facts["title"] == "2 traces"


def test_bad_input_says_what_was_expected() -> None:
    trace = small()
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (TokenSet(trace), {"phase": "prompt"}, "a TokenSet has its phase already; leave phase='prompt' out"),
        ({}, {}, "expected one to 6 TokenSets to compare, got 0"),
        ({"a": trace}, {}, "expected a TokenSet as 'a', got Trace"),
        ({"a": TokenSet(trace), "b": TokenSet(by_hand())}, {}, "expected one model and the same layers: 'a' is"),
        (synthetic_trace(tokens=40, layers=2, without=("expert_indices",)), {}, "has no expert_indices"),
    ]
    for traces, options, match in wrong:
        with pytest.raises(TraceError, match=match):
            LoadCurve(traces, **options)
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–2, got 3"):
        LoadCurve(trace, layer=3)


def test_sets_of_other_traces_are_named_by_how_many_they_are() -> None:
    one, other = small(seed=1), small(seed=2, tokens=233, source="replay")
    view = LoadCurve({"one": TokenSet(one), "other": TokenSet([other]), "again": TokenSet(one, phase="prompt")})
    facts = view._facts
    assert (facts["title"], facts["numTraces"], facts["counts"]["token"]) == ("2 traces", 2, 0)
    assert facts["sources"] == ["live", "replay"]
    assert view._selection_key == selection_key([one, other])

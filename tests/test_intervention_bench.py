"""What InterventionBench runs, keeps and sends is what the experiment says."""

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from written_trace import written_trace

import workbench as wb
from widgets import InterventionBench
from widgets.bench_amounts import SPANS, amounts, span_tokens
from widgets.interrupting import heard_while_busy
from workbench.analysis.compare.alignment import align
from workbench.analysis.routing import expert_load
from workbench.analysis.token_set import TokenSet
from workbench.experiments.described import experiment_from
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import ZeroContribution
from workbench.experiments.intervening import intervene
from workbench.families import ModelError
from workbench.trace import Trace, TraceError

ZERO = [{"variant": "zero contribution", "experts": {"0": [4, 6]}, "tokens": "completion"}]


@pytest.fixture(scope="module")
def baseline(tiny: wb.Model) -> Trace:
    return wb.capture(tiny, "47 + 85 + 39 = ?", effort="medium", temperature=0)


def test_it_runs_what_the_experiment_does_and_says_the_same(tiny: wb.Model, baseline: Trace) -> None:
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny))
    told: list[Any] = []
    bench.observe(lambda change: told.append(dict(change["new"])), "_job")
    found = bench.experiment(ZERO, controls=2)
    expected = experiment(tiny, baseline, ZeroContribution({0: [4, 6]}, "completion"), controls=2)
    record = bench._history[0]
    assert bench.experiments == [found]
    assert record["meanKl"] == expected.mean_kl
    assert (record["rank"], record["unmatched"]) == (expected.rank, expected.unmatched)
    assert (record["before"], record["answer"], record["keepsAnswer"]) == ("171", expected.answer, False)
    assert record["kind"] == "load-matched"
    assert [row["meanKl"] for row in record["controlRows"]] == [control.mean_kl for control in expected.controls]
    assert record["controlRows"][0]["matches"][0]["expert"] == 4
    assert record["compared"] == np.isfinite(expected.kl.values[expected.aligned.first_token + 1 :]).sum()
    assert record["changed"] == len(baseline) - baseline.num_prompt_tokens
    assert [job["state"] for job in told] == ["running"] * (2 + len(expected.controls)) + ["done"]
    assert told[-2] == {"state": "running", "done": 1 + len(expected.controls), "of": 1 + len(expected.controls)}


def test_the_transcript_is_aligned_by_token_and_the_kl_is_the_experiments(tiny: wb.Model, baseline: Trace) -> None:
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny))
    found = bench.experiment(ZERO)
    alignment = align(baseline, found.trace)
    sent = bench._result
    assert np.frombuffer(sent["rows"], "<i4").tolist() == alignment.rows.ravel().tolist()
    assert (np.frombuffer(sent["same"], "u1") == 1).tolist() == alignment.same.tolist()
    assert (sent["parting"], sent["numShared"]) == (alignment.parting, alignment.num_shared)
    np.testing.assert_array_equal(np.frombuffer(sent["kl"], "<f4"), found.kl.values.astype("f4"))
    assert np.frombuffer(sent["token_ids"], "<i4").tolist() == found.trace.arrays["token_ids"].tolist()
    assert "KL(baseline ‖ changed)" in sent["source"]
    read = bench.experiment(ZERO, generate=False)
    assert (read.generated, bench._history[1]["generated"], bench._history[1]["keepsAnswer"]) == (False, False, None)
    assert (np.frombuffer(bench._result["same"], "u1") == 1).all(), "the same tokens were read"
    bench.shown = 0
    assert bench._result["rows"] == sent["rows"]


def test_the_history_is_saved_with_the_trace_and_run_again(tiny: wb.Model, baseline: Trace, tmp_path: Path) -> None:
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny))
    bench.experiment(ZERO, controls=1)
    bench.annotated.save(tmp_path / "a.safetensors")
    assert "experiments" not in baseline.meta
    opened = InterventionBench(wb.open_trace(tmp_path / "a.safetensors"), run=partial(experiment_from, tiny))
    assert opened._history == bench._history
    assert opened.experiments == [None]
    opened.shown = 0
    assert opened._result == {}
    opened._answer(opened, {"again": 0}, [])
    assert opened._history[1] == opened._history[0]
    assert opened.shown == 1
    assert opened.experiments[1] is not None


def test_the_browser_asks_and_an_error_is_said(tiny: wb.Model, baseline: Trace) -> None:
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny))
    bench._answer(bench, {"run": {"asked": ZERO, "generate": False, "controls": 0}}, [])
    assert len(bench._history) == 1
    wrong = [{**ZERO[0], "experts": {"0": [44]}}]
    bench._answer(bench, {"run": {"asked": wrong, "generate": False, "controls": 0}}, [])
    assert bench._job == {"state": "failed", "words": "expected an expert of layer 0 below 8, got 44"}
    with pytest.raises(ModelError, match="below 8, got 44"):
        bench.experiment(wrong)
    for message in ("nonsense", {}, {"run": 3}, {"again": 9}, {"again": "0"}):
        bench._answer(bench, message, [])
    assert len(bench._history) == len(bench.experiments) == 1


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_ends_the_waiting(baseline: Trace) -> None:
    bench = InterventionBench(baseline, run=interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.experiment(ZERO)
    assert bench._job == {"state": "failed", "words": "interrupted; the model is as it was"}
    assert bench._history == bench.experiments == []


def test_bad_input_says_what_was_expected(baseline: Trace) -> None:
    trace = written_trace(["a", " b"], ["4"])
    bare = replace(trace, arrays={n: a for n, a in trace.arrays.items() if not n.startswith("vocab_")})
    other = replace(trace, meta={**trace.meta, "experiments": [{"asked": []}]})
    wrong: list[tuple[Any, str]] = [
        ("a.safetensors", r"^expected a Trace, got str; wb.open_trace\(path\) reads one from a file$"),
        (bare, "^this trace does not keep the text of its tokens, so two transcripts cannot be compared"),
        (other, "^the trace's experiments were not written by a bench; take them out of its meta to start anew$"),
    ]
    for one, match in wrong:
        with pytest.raises(TraceError, match=match):
            InterventionBench(one)
    with pytest.raises(
        TypeError, match=r"^expected a function as run, got int; pass partial\(experiment_from, model\)"
    ):
        InterventionBench(trace, run=3)  # type: ignore[arg-type]
    bench = InterventionBench(trace)
    assert bench._facts["canRun"] is False
    with pytest.raises(TraceError, match=r"^this bench has no model to run; make it with InterventionBench"):
        bench.experiment(ZERO)
    with pytest.raises(traitlets.TraitError, match=r"^expected an experiment within −1 to -1, got 0$"):
        bench.shown = 0
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–3, got 9"):
        InterventionBench(baseline, layer=9)


@pytest.mark.parametrize("tokens", [*SPANS, (20, 31), (60, None)])
def test_a_map_is_over_the_tokens_that_an_intervention_changes(tiny: wb.Model, baseline: Trace, tokens: Any) -> None:
    change = ZeroContribution({0: [4]}, tokens)
    with intervene(tiny, change, num_prompt_tokens=baseline.num_prompt_tokens) as reading:
        touched = reading.would_touch(baseline.arrays["token_ids"].tolist())
    assert span_tokens(baseline, tokens).tolist() == np.flatnonzero(touched).tolist()


def test_amounts_are_load_weight_and_sink_mass_of_the_trace(baseline: Trace) -> None:
    analysis = TokenSet(baseline, channel="analysis").positions(baseline)
    found = amounts(baseline, "analysis")
    num_layers, num_experts = baseline.arrays["expert_indices"].shape[1], 8
    load, weight, sink = (
        np.frombuffer(found[name], "<f4").reshape(num_layers, -1) for name in ("load", "weight", "sink")
    )
    assert found["tokens"] == len(analysis)
    expected = expert_load(baseline.arrays["expert_indices"][analysis], num_experts)
    np.testing.assert_allclose(load, expected.values, rtol=1e-6)
    assert weight.shape == (num_layers, num_experts)
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-5)  # this family's weights sum to 1
    layer, expert = 2, int(baseline.arrays["expert_indices"][analysis[0], 2, 0])
    chosen = baseline.arrays["expert_indices"][analysis, layer] == expert
    mean = (baseline.arrays["expert_weights"][analysis, layer] * chosen).sum() / len(analysis)
    assert weight[layer, expert] == pytest.approx(mean)
    _, mass = baseline.attention(3, rows=analysis.tolist())
    np.testing.assert_allclose(sink[3], mass.values.mean(axis=1), rtol=1e-4)


def test_amounts_of_what_is_not_there_are_left_out() -> None:
    trace = written_trace(["a", " b"], None)
    assert amounts(trace, "final") == {"tokens": 0}
    assert amounts(trace, "analysis") == {"tokens": 2}
    for wrong in ("some", (1,), ("1", 2), None, 3):
        with pytest.raises(
            TraceError, match=r"^expected tokens all, prompt, completion, analysis, final or \(start, st"
        ):
            span_tokens(trace, wrong)
    bench = InterventionBench(trace)
    assert bench._facts["pickLayers"] == {"experts": [], "heads": []}
    sent: list[Any] = []
    bench.send = lambda content, buffers=None: sent.append((content, buffers))
    bench._answer(bench, {"amounts": [2, 4]}, [])
    bench._answer(bench, {"amounts": "nonsense"}, [])
    assert sent == [({"amounts": [2, 4], "tokens": 2, "names": []}, [])]


def test_two_changes_with_a_vector_and_a_patch(tiny: wb.Model, baseline: Trace, tmp_path: Path) -> None:
    other = wb.capture(
        tiny, "47 + 85 + 36 = ?", effort="medium", temperature=0, capture=wb.CaptureSpec(lens=False, residual=[0])
    )
    vector = np.linspace(-1, 1, tiny.d_model)
    asked: list[dict[str, Any]] = [
        {"variant": "add vector", "layer": 2, "vector": "ramp", "factor": 0.5, "tokens": "completion"},
        {"variant": "patch residual", "layer": 0, "source": "other sum", "tokens": [9, 10]},
    ]
    given: Any = {"vectors": {"ramp": vector}, "sources": {"other sum": other}}
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny), **given)
    found = bench.experiment(asked, generate=False)
    record = bench._history[0]
    assert bench._facts["vectors"] == [{"name": "ramp", "norm": pytest.approx(np.linalg.norm(vector))}]
    assert bench._facts["sources"] == [
        {"name": "other sum", "question": "47 + 85 + 36 = ?", "numTokens": len(other), "layers": [0]}
    ]
    assert record["meanKl"] == found.mean_kl > 0
    assert [one["name"] for one in record["done"]] == ["ramp", "other sum"]
    bench.annotated.save(tmp_path / "a.safetensors")
    saved = wb.open_trace(tmp_path / "a.safetensors")

    assert InterventionBench(saved, run=partial(experiment_from, tiny), **given).run_again(0).mean_kl == found.mean_kl
    bare = InterventionBench(saved, run=partial(experiment_from, tiny))
    with pytest.raises(
        ModelError, match=r"^add vector: no vector named 'ramp' was given \(none\); pass vectors=\{'ramp"
    ):
        bare.run_again(0)
    another = InterventionBench(saved, run=partial(experiment_from, tiny), vectors={"ramp": -vector})
    another._answer(another, {"again": 0}, [])
    assert another._job["words"] == "add vector: the vector 'ramp' is another than the one that was used before"
    assert len(bare.experiments) == len(another.experiments) == 1


def test_vectors_and_sources_that_are_none(baseline: Trace) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"vectors": {"v": "abc"}}, r"^expected numbers \[d_model\] as the vector 'v', got str$"),
        ({"vectors": {"v": [[1.0]]}}, r"^expected finite numbers \[d_model\] as the vector 'v', got shape \(1, 1\)$"),
        ({"vectors": {"v": [np.nan]}}, r"^expected finite numbers \[d_model\] as the vector 'v'"),
        ({"sources": {"s": 3}}, r"^expected a trace with the residual stream as the source 's', got int; capture or"),
        ({"sources": {"s": baseline}}, r"^expected a trace with the residual stream as the source 's', got one with "),
    ]
    for given, match in wrong:
        with pytest.raises(TraceError, match=match):
            InterventionBench(baseline, **given)


def test_stop_ends_the_run_and_leaves_the_model_as_it_was(tiny: wb.Model, baseline: Trace) -> None:
    ids = baseline.arrays["token_ids"].tolist()
    before = wb.replay(tiny, ids, num_prompt_tokens=baseline.num_prompt_tokens)
    bench = InterventionBench(baseline, run=partial(experiment_from, tiny))
    heard: list[Any] = []
    bench.send = lambda content, buffers=None: heard.append(content)

    def stop(change: Any) -> None:
        if change["new"].get("done") == 1:
            pressed = threading.Thread(target=bench._answer, args=(bench, {"stop": True}, []))
            pressed.start()
            pressed.join()

    bench.observe(stop, "_job")
    bench._answer(bench, {"run": {"asked": ZERO, "generate": True, "controls": 4}}, [])
    assert heard == [{"stopping": True}]
    assert bench._job == {"state": "failed", "words": "interrupted; the model is as it was"}
    assert bench.experiments == bench._history == tiny.interventions == []
    after = wb.replay(tiny, ids, num_prompt_tokens=baseline.num_prompt_tokens)
    np.testing.assert_array_equal(after.logprobs, before.logprobs)

    bench._answer(bench, {"stop": True}, [])
    assert heard[1:] == [{"stopping": False}], "nothing runs, so nothing is interrupted"


def test_only_a_stop_and_a_map_are_heard_while_a_cell_runs() -> None:
    class Comm:
        _reply_subshell_for: Any = None

    comm = Comm()
    heard_while_busy(comm, "stop", "amounts")
    asked = {"method": "custom", "content": {"stop": True}}
    assert comm._reply_subshell_for(asked, "subshell") == "subshell"
    assert comm._reply_subshell_for({"content": {"amounts": [1, 2]}}, "subshell") == "subshell"
    for other in (
        {"method": "custom", "content": {"run": {}}},
        {"method": "update", "state": {}},
        None,
        {"content": 3},
    ):
        assert comm._reply_subshell_for(other, "subshell") is None

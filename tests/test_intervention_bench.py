"""What InterventionBench runs, keeps and sends is what the experiment says."""

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
from workbench.analysis.compare.alignment import align
from workbench.experiments.described import experiment_from
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import ZeroContribution
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

"""Sweeps: the same rows whether or not something stopped them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.capturing import capture
from workbench.experiments import sweep
from workbench.experiments import sweeps as module
from workbench.experiments.efforts import LIGHT, rollout_seed
from workbench.harmony import HarmonyError
from workbench.scale import rollouts

QUESTIONS = ("47+85=?", "12+9=?", "31+30+7=?")
REFERENCES = ("132", "21", "68")
PLAN: dict[str, Any] = {"efforts": ("medium", "low"), "samples": 2, "seed": 3, "references": REFERENCES}


@pytest.fixture(scope="module")
def whole(tiny: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> module.Sweep:
    return sweep(tiny, QUESTIONS, store=tmp_path_factory.mktemp("whole"), **PLAN)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is generated, each as (question, effort, seed)."""
    done: list[Any] = []

    def noted(model: wb.Model, question: str, **options: Any) -> wb.Trace:
        done.append((question, options["effort"], options["seed"]))
        return capture(model, question, **options)

    monkeypatch.setattr(rollouts, "capture", noted)
    return done


def test_rows_are_by_question_effort_and_sample(tiny: wb.Model, whole: module.Sweep) -> None:
    rows = whole.rows()
    assert [(r["question"], r["effort"], r["sample"], r["seed"]) for r in rows] == [
        (q, e, s, rollout_seed(3, q, e, s)) for q in QUESTIONS for e in ("medium", "low") for s in range(2)
    ]
    assert [r["reference"] for r in rows[::4]] == list(REFERENCES)
    assert len({r["seed"] for r in rows}) == 12
    row = rows[5]
    alone = wb.capture(tiny, QUESTIONS[1], effort="medium", seed=row["seed"], capture=LIGHT)
    assert (row["answer"], row["cut"]) == (alone.final_text, None)
    assert row["right"] == (row["answer"] == "21")
    assert row["completion_tokens"] == len(alone) - alone.num_prompt_tokens
    stored = whole.store[row["trace"]]
    np.testing.assert_array_equal(stored.token_ids, alone.token_ids)
    assert stored.meta["sweep"]["question"] == QUESTIONS[1]
    assert len(whole.store) == len(whole) == 12
    assert repr(whole).endswith("12 rollouts of 3 questions at medium, low; 0 cut>")


def test_the_same_call_again_generates_nothing(tiny: wb.Model, whole: module.Sweep, captures: list[Any]) -> None:
    again = sweep(tiny, QUESTIONS, store=whole.store, **PLAN)
    assert again.rows() == whole.rows()
    assert captures == []


def test_more_of_it_takes_what_is_there(tiny: wb.Model, whole: module.Sweep, captures: list[Any]) -> None:
    plan = {**PLAN, "efforts": ("low", "medium"), "references": {**dict(zip(QUESTIONS, REFERENCES, strict=True))}}
    plan["references"]["5+6=?"] = "11"
    more = sweep(tiny, [*QUESTIONS, "5+6=?"], store=whole.store, **plan)
    assert captures == [("5+6=?", e, rollout_seed(3, "5+6=?", e, s)) for e in ("low", "medium") for s in (0, 1)]
    assert {row["trace"] for row in whole.rows()} < {row["trace"] for row in more.rows()}
    warmer = sweep(tiny, ["5+6=?"], ("low",), store=whole.store, temperature=1.5, seed=3)
    assert len(captures) == 5
    assert warmer.rows()[0]["trace"] not in {row["trace"] for row in more.rows()}
    assert warmer.rows()[0]["right"] is None


PROGRAM = """
import sys, torch
torch.set_num_threads(1)
import workbench as wb
from workbench.experiments import sweep
print("ready", flush=True)
sweep(wb.load("tiny", device="cpu"), {questions!r}, store=sys.argv[1], **{plan!r})
"""


def test_kill_9_loses_nothing_that_was_done(
    tiny: wb.Model, whole: module.Sweep, tmp_path: Path, captures: Any
) -> None:
    """Killed twice in the middle and gone on with, a sweep ends with the rows of one that was not stopped."""
    program = PROGRAM.format(questions=QUESTIONS, plan=PLAN)
    finished: dict[Path, int] = {}
    for least in (2, 7):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.DEVNULL) as child:
            deadline = time.monotonic() + 120
            while len(done(tmp_path)) < least and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            os.kill(child.pid, signal.SIGKILL)
        assert least <= len(done(tmp_path)) < 12
        assert finished.items() <= done(tmp_path).items(), "what was done is not done again"
        finished = done(tmp_path)
    (tmp_path / ".0123.safetensors.ab.part").write_bytes(b"half a trace")
    resumed = sweep(tiny, QUESTIONS, store=tmp_path, **PLAN)
    assert len(captures) == 12 - len(finished)
    assert finished.items() <= done(tmp_path).items()
    assert resumed.rows() == whole.rows()


def done(folder: Path) -> dict[Path, int]:
    """The traces of a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("[0-9a-f]*.safetensors")}


def test_ctrl_c_stores_nothing_half_done(tiny: wb.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def stop(_token: int) -> bool:
        seen.append(1)
        if len(seen) == 33:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(rollouts, "capture", lambda *a, **o: capture(*a, **o, on_token=stop))
    with pytest.raises(KeyboardInterrupt, match="interrupted with 2 of 8 rollouts done; the same call goes on"):
        sweep(tiny, QUESTIONS[:2], ("low",), 4, store=tmp_path)
    assert len(wb.TraceStore(tmp_path)) == 2


def test_cut_rollouts_are_not_scored(tiny: wb.Model, tmp_path: Path) -> None:
    cut = sweep(tiny, QUESTIONS[:1], ("high",), store=tmp_path, references={QUESTIONS[0]: "132"}, max_new_tokens=20)
    assert [(row["cut"], row["right"]) for row in cut.rows()] == [("cut at 20 tokens", None)]
    assert "1 cut" in repr(cut)


def test_efforts_are_compared_as_the_sweep_scored_them(whole: module.Sweep) -> None:
    found = whole.compare()
    rows = whole.rows()
    for effort in ("medium", "low"):
        accuracy = found[effort].accuracy
        assert accuracy is not None
        assert (accuracy.successes, accuracy.n) == (sum(r["right"] for r in rows if r["effort"] == effort), 6)
    assert "needs at least 8 questions asked in both (or 1, with 6 rollouts a side), got 3" in str(found)
    assert len(whole.traces("low")) == 6
    assert whole.traces("low")[4].meta["question"] == QUESTIONS[2]
    with pytest.raises(KeyError, match="there is no effort 'high'; there are medium, low"):
        whole.traces("high")


def test_models_in_memory_are_told_apart_by_their_weights(tiny: wb.Model, odd: wb.Model) -> None:
    assert rollouts.identity(tiny)["weights"].startswith("sha256:")
    before = rollouts.identity(odd)["weights"]
    assert before.startswith("sample:")
    assert rollouts.identity(odd)["weights"] == before
    weight = odd.hf.lm_head.weight.data
    kept = weight.clone()
    try:
        weight *= 1.5
        assert rollouts.identity(odd)["weights"] != before
    finally:
        weight.copy_(kept)
    assert rollouts.identity(odd)["weights"] == before


def test_a_trace_of_that_name_that_is_another_is_not_taken(tiny: wb.Model, tmp_path: Path) -> None:
    first = sweep(tiny, QUESTIONS[:1], ("low",), store=tmp_path)
    name = first.rows()[0]["trace"]
    wb.capture(tiny, "2+2=?", effort="low", capture=LIGHT).save(tmp_path / f"{name}.safetensors")
    with pytest.raises(wb.TraceError, match=rf"{name}\.safetensors in .* is another trace\. Move it elsewhere"):
        sweep(tiny, QUESTIONS[:1], ("low",), store=tmp_path)
    (tmp_path / f"{name}.safetensors").write_bytes(b"damaged")
    with pytest.raises(wb.TraceError, match=name):
        sweep(tiny, QUESTIONS[:1], ("low",), store=tmp_path)


@pytest.mark.parametrize(
    ("questions", "options", "error", "message"),
    [
        ([], {}, wb.ModelError, "expected at least one question, got none"),
        (["a", "b", "a"], {}, wb.ModelError, "expected each question once, got 'a' 2 times; .* raise samples"),
        ([["a"]], {}, wb.ModelError, r"expected questions as text or as lists of messages, got \['a'\]"),
        (["a", "b"], {"references": ["1"]}, wb.TraceError, "a reference answer for each of 2 questions, got 1"),
        (["a", "b"], {"references": "1"}, wb.TraceError, "a reference answer for each of 2 questions, got a text"),
        (["a", "b"], {"references": {"a": "1"}}, wb.TraceError, "no reference answer for the question 'b'"),
        (["a"], {"efforts": ("deep",)}, HarmonyError, "expected a reasoning effort .* got 'deep'"),
        (["a"], {"temperature": 0, "samples": 2}, wb.ModelError, "at temperature 0 all 2 samples would be the same"),
        (["a", ""], {}, HarmonyError, "The question is empty"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    tiny: wb.Model, questions: Any, options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        sweep(tiny, questions, store=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()

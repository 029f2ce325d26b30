"""An experiment's comparison by hand, its controls, and sweeps that are stopped and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_hooks import hooks

import workbench as wb
from workbench.experiments.controls import expert_loads, matched_experts
from workbench.experiments.experiment import experiment
from workbench.experiments.expert_sweep import sweep_experts
from workbench.experiments.experts import Force, MeanOutput, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import intervene

QUESTION = "47+85=?"
IDS = [(7 * i + 3) % 251 for i in range(38)]


@pytest.fixture(scope="module")
def baseline(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, QUESTION, effort="high", seed=1)


@pytest.fixture(scope="module")
def read(odd: wb.Model) -> wb.Trace:
    return wb.replay(odd, IDS, num_prompt_tokens=10)


def logprobs(model: wb.Model, ids: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model.hf(torch.tensor([list(ids)])).logits[0].double(), dim=-1)


def test_kl_and_overlap_by_hand(odd: wb.Model, read: wb.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    change = RouteAround({0: [2, 5], 2: [1]}, (14, None))
    found = experiment(odd, read, change, generate=False)
    before = logprobs(odd, IDS)
    with intervene(odd, change):
        after = logprobs(odd, IDS)
        changed = wb.replay(odd, IDS)
    by_token = (before.exp() * (before - after)).sum(-1).numpy()
    assert np.isnan(found.kl[0])
    np.testing.assert_allclose(found.kl[1:], by_token[:-1], atol=2e-5)
    assert (found.kl[1:15] == 0).all(), "token 14 was drawn from what 13 gave, the last that is not changed"
    assert found.kl[15] > 1e-3
    assert found.mean_kl == pytest.approx(by_token[14:-1].mean(), rel=1e-3)
    shared = [
        np.mean([len({*read.expert_indices[t, n]} & {*changed.expert_indices[t, n]}) / 3 for t in range(14, 38)])
        for n in range(3)
    ]
    np.testing.assert_allclose(found.routing_overlap, shared)
    assert found.routing_overlap is not None
    assert found.routing_overlap.dims == ("layer",)
    np.testing.assert_array_equal(found.trace.expert_indices, changed.expert_indices)
    monkeypatch.setattr("workbench.experiments.aligned.PIECE", 11)
    monkeypatch.setattr("workbench.experiments.aligned.KEPT_BYTES", 0)
    pieces = experiment(odd, read, change, generate=False)
    np.testing.assert_allclose(pieces.kl[1:], found.kl[1:], atol=2e-5)
    np.testing.assert_array_equal(pieces.routing_overlap, found.routing_overlap)


def test_what_changes_nothing_has_no_effect(odd: wb.Model, read: wb.Trace) -> None:
    found = experiment(odd, read, Scale({0: [2]}, factor=1.0), generate=False)
    assert (found.kl[1:] == 0).all()
    assert (found.routing_overlap == np.ones(3)).all()
    assert found.answer is None
    assert found.keeps_answer is None


def test_generated_is_what_capture_gives_inside(tiny: wb.Model, baseline: wb.Trace) -> None:
    change = [RouteAround({0: [1, 2, 4, 5, 6]}, "completion"), Scale({2: [3]}, "analysis", factor=4.0)]
    found = experiment(tiny, baseline, change)
    with intervene(tiny, change, num_prompt_tokens=baseline.num_prompt_tokens):
        inside = wb.capture(tiny, QUESTION, effort="high", seed=1, capture=wb.CaptureSpec(attention=False, lens=False))
    assert found.trace.arrays.keys() == inside.arrays.keys()
    for name in inside.arrays:
        np.testing.assert_array_equal(found.trace.arrays[name], inside.arrays[name], name)
    assert found.trace.meta["intervention"] == [one.describe() for one in change]
    assert found.variant == "route around + scale"
    a, b = baseline.arrays["token_ids"], found.trace.arrays["token_ids"]
    first = found.first_difference
    assert first is not None
    assert first > baseline.num_prompt_tokens
    np.testing.assert_array_equal(a[:first], b[:first])
    assert a[first] != b[first]
    assert found.keeps_chain is False
    assert found.answer == found.trace.final_text.strip()


def test_an_experiment_leaves_the_model_as_it_was(tiny: wb.Model, baseline: wb.Trace) -> None:
    weights = {n: p.clone() for n, p in tiny.hf.state_dict().items()}
    experiment(tiny, baseline, [MeanOutput({1: [3]}), Swap({2: {5: 1}}), Force({0: [2]})], generate=False, controls=2)
    again = wb.capture(tiny, QUESTION, effort="high", seed=1)
    for name in baseline.arrays:
        np.testing.assert_array_equal(again.arrays[name], baseline.arrays[name], name)
    for n, p in tiny.hf.state_dict().items():
        assert torch.equal(p, weights[n]), n
    assert hooks(tiny) == 0
    assert "intervention" not in again.meta


def test_controls_are_of_like_load_and_ranked(odd: wb.Model, read: wb.Trace) -> None:
    change = ZeroContribution({1: [2]}, (5, 33))
    found = experiment(odd, read, change, generate=False, controls=4, tolerance=0.8, seed=3)
    counts = np.bincount(read.expert_indices[5:33, 1].ravel(), minlength=7)
    near = {e for e in range(7) if e != 2 and abs(counts[e] - counts[2]) <= 0.8 * counts[2]}
    drawn = [control.matches[0] for control in found.controls]
    assert len({match.instead for match in drawn}) == len(drawn) == min(4, len(near)) >= 2
    for control, match in zip(found.controls, drawn, strict=True):
        assert match.instead in near
        assert match.within
        assert match.load == pytest.approx(counts[2] / counts.sum())
        assert match.instead_load == pytest.approx(counts[match.instead] / counts.sum())
        alone = experiment(odd, read, ZeroContribution({1: [match.instead]}, (5, 33)), generate=False)
        assert control.mean_kl == alone.mean_kl
    assert found.rank == 1 + sum(control.mean_kl >= found.mean_kl for control in found.controls)
    assert found.unmatched == 0
    assert [row["control"] for row in found.rows()] == [False] + [True] * len(drawn)
    assert f"rank {found.rank} of {len(drawn) + 1}" in repr(found)


def test_the_nearest_stands_in_where_none_is_within_the_tolerance() -> None:
    loads = {1: np.array([0.5, 0.1, 0.3, 0.06, 0.04]), 4: np.array([0.2, 0.21, 0.19, 0.35, 0.05])}
    [(changed, matches)] = matched_experts([RouteAround({1: [0]})], loads, 5)
    assert [(m.instead, m.within) for m in matches] == [(2, False)]
    assert changed[0].describe()["experts"] == {"1": [2]}
    several = list(matched_experts([Scale({4: [0]}, (3, 9), factor=2.0)], loads, 5))
    assert sorted(m[0].instead for _, m in several) == [1, 2]
    assert all(m[0].within for _, m in several)
    assert several[0][0][0].describe() | {"experts": None} == {
        "variant": "scale", "experts": None, "tokens": [3, 9], "factor": 2.0
    }  # fmt: skip
    [(swapped, pair)] = matched_experts([Swap({4: {0: 3}})], {4: loads[4][[0, 1, 3, 4]][[0, 1, 3, 2]]}, 9)
    assert [(m.expert, m.instead, m.within) for m in pair] == [(0, 1, True), (3, 2, False)]
    assert swapped[0].describe()["experts"] == {"4": [[1, 2]]}


def test_loads_are_of_the_tokens_that_are_changed() -> None:
    indices = np.array([[[0, 1]], [[2, 1]], [[2, 3]]])
    loads = expert_loads(indices, [5], 4, np.array([False, True, True]))
    np.testing.assert_allclose(loads[5], [0, 1 / 4, 2 / 4, 1 / 4])


def test_no_other_expert_left_is_said(odd: wb.Model, read: wb.Trace) -> None:
    with pytest.raises(wb.ModelError, match="layer 1 has no other expert left to be a control"):
        experiment(odd, read, ZeroContribution({1: range(4)}), generate=False, controls=1)


def test_a_channel_that_is_not_there(odd: wb.Model, read: wb.Trace, tiny: wb.Model) -> None:
    with pytest.raises(wb.ModelError, match="none of the 38 tokens of the baseline is in the content of the final"):
        experiment(odd, read, RouteAround({1: [2]}, "final"), generate=False)
    low = wb.capture(tiny, QUESTION, effort="low", temperature=0)
    assert low.analysis_text == ""
    with pytest.raises(wb.ModelError, match=r"content of the analysis channel\. The model wrote no such message"):
        experiment(tiny, low, RouteAround({1: [2]}, "analysis"))
    assert hooks(tiny) == hooks(odd) == 0


def test_a_tokenizer_without_channels_is_refused(odd: wb.Model, plain_tokenizer: Any) -> None:
    model = wb.load(odd.hf, tokenizer=plain_tokenizer)
    with (
        pytest.raises(wb.ModelError, match="has no harmony tokens, so it writes no analysis channel"),
        intervene(model, RouteAround({1: [2]}, "analysis"), num_prompt_tokens=3),
    ):
        pytest.fail("entered")


@pytest.fixture
def plain_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")


def test_what_is_no_baseline_is_refused(tiny: wb.Model, baseline: wb.Trace, odd: wb.Model, read: wb.Trace) -> None:
    change = RouteAround({1: [2]})
    with intervene(tiny, change):
        changed = wb.replay(tiny, baseline)
    with pytest.raises(wb.ModelError, match=r"itself made under an intervention \(route around\)"):
        experiment(tiny, changed, change)
    with pytest.raises(wb.ModelError, match=r"does not say how it was sampled.*generate=False"):
        experiment(odd, read, change)


def test_a_rollout_of_other_weights_is_no_baseline(tiny: wb.Model, baseline: wb.Trace, tmp_path: Path) -> None:
    other = wb.Trace(baseline.arrays, baseline.spans, {**baseline.meta, "provenance": {**baseline.provenance}})
    other.meta["provenance"]["weights"] = "sha256:0123456789"
    with pytest.raises(wb.ModelError, match=r"the trace is of tiny with weights .* take the model that made it"):
        experiment(tiny, other, Scale({0: [0]}, factor=1.0))
    with pytest.raises(wb.ModelError, match="take the model that made it"):
        sweep_experts(tiny, other, RouteAround, folder=tmp_path / "sweep", layers=[0], generate=True)
    assert not (tmp_path / "sweep").exists()


def test_an_undefined_effect_has_no_rank(odd: wb.Model, read: wb.Trace) -> None:
    last = (len(read) - 1, len(read))  # nothing is predicted from the last token
    found = experiment(
        odd, read, RouteAround({1: [int(read.expert_indices[-1, 1, 0])]}, last), generate=False, controls=1
    )
    assert np.isnan(found.mean_kl)
    assert found.rank is None


def test_a_mean_is_described_by_what_it_is_over(odd: wb.Model, read: wb.Trace) -> None:
    a, b = (MeanOutput({1: [2]}, reference=wb.replay(odd, ids, num_prompt_tokens=10)) for ids in (IDS, IDS[::-1]))
    assert a.describe()["mean_over"] == b.describe()["mean_over"]
    assert a.describe() != b.describe()


def test_an_interrupted_experiment_leaves_the_model_as_it_was(
    tiny: wb.Model, baseline: wb.Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = logprobs(tiny, IDS), 0
    stop = tiny.layers[3].mlp.experts.register_forward_pre_hook(lambda *_: interrupt())

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="in the middle of an experiment; the model is as it was"):
        experiment(tiny, baseline, RouteAround({1: [2]}))
    stop.remove()
    assert hooks(tiny) == 0
    assert torch.equal(logprobs(tiny, IDS), before)


def test_a_sweep_goes_on_where_it_was_stopped(
    odd: wb.Model, read: wb.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep_experts(odd, read, RouteAround, folder=tmp_path / "whole", layers=[2, 0], tokens=(6, 30))
    assert [(row["layer"], row["expert"]) for row in whole.rows()] == [(n, e) for n in (2, 0) for e in range(7)]
    alone = experiment(odd, read, RouteAround({2: [4]}, (6, 30)), generate=False)
    assert whole.mean_kl.sel(layer=2, expert=4).values == alone.mean_kl
    counts = np.bincount(read.expert_indices[6:30, 2].ravel(), minlength=7) / (24 * 3)
    np.testing.assert_allclose([row["load"] for row in whole.rows()[:7]], counts)
    order = np.argsort(-whole.mean_kl.values[1])
    assert [whole.rank(2, int(e)) for e in order] == [1, 2, 3, 4, 5, 6, 7]

    ran: list[Any] = []
    real = stopping(monkeypatch, ran, after=5)
    with pytest.raises(KeyboardInterrupt, match="interrupted with 5 of 14 experts done; the same call goes on"):
        sweep_experts(odd, read, RouteAround, folder=tmp_path / "cut", layers=[2, 0], tokens=(6, 30))
    assert hooks(odd) == 0
    file = tmp_path / "cut" / "experts.jsonl"
    file.write_bytes(file.read_bytes()[:-9])  # as when the power went while a row was written
    monkeypatch.setattr("workbench.experiments.expert_sweep.change", real)
    ran.clear()
    real = stopping(monkeypatch, ran, after=99)
    again = sweep_experts(odd, read, RouteAround, folder=tmp_path / "cut", layers=[2, 0], tokens=(6, 30))
    assert len(ran) == 14 - 4
    assert again.rows() == whole.rows()
    ran.clear()
    assert sweep_experts(odd, read, RouteAround, folder=tmp_path / "cut", layers=[0], tokens=(6, 30)).rows() == [
        row for row in whole.rows() if row["layer"] == 0
    ]
    assert ran == []


def stopping(monkeypatch: pytest.MonkeyPatch, ran: list[Any], after: int) -> Any:
    from workbench.experiments import expert_sweep

    real = expert_sweep.change

    def change(unchanged: Any, interventions: Any, *rest: Any) -> Any:
        if len(ran) == after:
            raise KeyboardInterrupt
        ran.append(interventions[0].experts)
        return real(unchanged, interventions, *rest)

    monkeypatch.setattr(expert_sweep, "change", change)
    return real


def test_rollouts_of_a_changed_model_are_not_taken_for_those_of_the_model(tiny: wb.Model, tmp_path: Path) -> None:
    plain = wb.sweep(tiny, [QUESTION], ["low"], store=tmp_path, temperature=0)
    with intervene(tiny, RouteAround({1: [3]})):
        changed = wb.sweep(tiny, [QUESTION], ["low"], store=tmp_path, temperature=0)
    assert len(plain.store) == 2
    assert {plain.rows()[0]["trace"], changed.rows()[0]["trace"]} == {*plain.store.names}
    assert wb.sweep(tiny, [QUESTION], ["low"], store=tmp_path, temperature=0).rows() == plain.rows()


SWEEP = """
import sys, workbench as wb
from workbench.experiments.expert_sweep import sweep_experts
from workbench.experiments.experts import RouteAround
model, baseline = wb.load("tiny", device="cpu"), wb.open_trace(sys.argv[1])
sweep_experts(model, baseline, RouteAround, folder=sys.argv[2], tokens="analysis")
"""


def test_a_killed_sweep_goes_on(tiny: wb.Model, baseline: wb.Trace, tmp_path: Path) -> None:
    baseline.save(tmp_path / "baseline.safetensors")
    file = tmp_path / "killed" / "experts.jsonl"
    arguments = [sys.executable, "-c", SWEEP, str(tmp_path / "baseline.safetensors"), str(file.parent)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") > 5):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = file.read_bytes()
    swept = sweep_experts(tiny, wb.open_trace(arguments[3]), RouteAround, folder=file.parent, tokens="analysis")
    assert file.read_bytes().startswith(done[: done.rfind(b"\n")]), "what was done stays as it was"
    whole = sweep_experts(tiny, baseline, RouteAround, folder=tmp_path / "whole", tokens="analysis")
    assert len(swept) == 4 * 8
    for row, expected in zip(swept.rows(), whole.rows(), strict=True):
        assert row == pytest.approx(expected)


def test_an_expert_that_is_never_taken_changes_nothing(tiny: wb.Model, baseline: wb.Trace, tmp_path: Path) -> None:
    span = (baseline.num_prompt_tokens, baseline.num_prompt_tokens + 2)
    swept = sweep_experts(tiny, baseline, ZeroContribution, folder=tmp_path, layers=[1], tokens=span)
    never = next(row for row in swept.rows() if row["load"] == 0)
    assert never["mean_kl"] == 0
    alone = experiment(tiny, baseline, ZeroContribution({1: [never["expert"]]}, span), generate=False)
    assert (alone.kl[1:] == 0).all()


def test_a_sweep_with_answers(tiny: wb.Model, baseline: wb.Trace, tmp_path: Path) -> None:
    swept = sweep_experts(tiny, baseline, MeanOutput, folder=tmp_path, layers=[3], tokens="final", generate=True)
    assert {row["keeps_chain"] for row in swept.rows()} == {True}, "the chain stands before the final channel"
    assert all(row["keeps_answer"] == (row["answer"] == baseline.final_text.strip()) for row in swept.rows())


def test_a_folder_of_another_sweep_is_refused(odd: wb.Model, read: wb.Trace, tmp_path: Path) -> None:
    sweep_experts(odd, read, Scale, folder=tmp_path, layers=[1], factor=0.5)
    with pytest.raises(wb.ModelError, match=r"experts.jsonl is of another sweep: factor differ. Give this sweep"):
        sweep_experts(odd, read, Scale, folder=tmp_path, layers=[1], factor=0.25)
    with pytest.raises(wb.ModelError, match="another sweep: factor, variant differ"):
        sweep_experts(odd, read, RouteAround, folder=tmp_path, layers=[1])
    with pytest.raises(wb.ModelError, match="one expert at a time, and swap is of pairs"):
        sweep_experts(odd, read, Swap, folder=tmp_path)
    with pytest.raises(wb.ModelError, match=r"expected a layer with a router, one of \(0, 1, 2\), got 3"):
        sweep_experts(odd, read, RouteAround, folder=tmp_path / "new", layers=[3])
    assert not (tmp_path / "new").exists()
    (tmp_path / "experts.jsonl").write_text(json.dumps({}) + "\n{broken\n")
    with pytest.raises(wb.ModelError, match=r"line 2 of .* is damaged"):
        sweep_experts(odd, read, RouteAround, folder=tmp_path, layers=[1])

"""One question at several efforts, on the embedded model."""

from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.capturing import capture
from workbench.experiments import efforts as module
from workbench.experiments.efforts import LIGHT, EffortRuns, rollout_seed
from workbench.harmony import HarmonyError

QUESTION = "47+85=?"
HIGH_3 = 12194176332989  # the first 48 bits of sha256 of [20, "47+85=?", "high", 3]


@pytest.fixture(scope="module")
def runs(tiny: wb.Model) -> EffortRuns:
    return wb.compare_efforts(tiny, QUESTION, ("low", "high"), 6, seed=20)


def test_rollouts_are_those_of_capture(tiny: wb.Model, runs: EffortRuns) -> None:
    assert {effort: len(traces) for effort, traces in runs.traces.items()} == {"low": 6, "high": 6}
    assert not runs.interrupted
    for sample in (0, 5):
        alone = wb.capture(tiny, QUESTION, effort="low", seed=rollout_seed(20, QUESTION, "low", sample), capture=LIGHT)
        np.testing.assert_array_equal(alone.token_ids, runs["low"][sample].token_ids)
        np.testing.assert_array_equal(alone.expert_indices, runs["low"][sample].expert_indices)
    trace = runs["high"][3]
    assert (trace.provenance["effort"], trace.provenance["sampling"]["seed"]) == ("high", HIGH_3)
    assert trace.captured == wb.capture(tiny, QUESTION, max_new_tokens=1, capture=LIGHT).captured
    assert not trace.has("queries")
    assert repr(runs) == "<EffortRuns of '47+85=?': low 6, high 6>"


def test_the_embedded_model_answers_better_when_it_reasons(runs: EffortRuns) -> None:
    found = runs.compare(references="132", num_permutations=500)
    low, high = found["low"], found["high"]
    assert low.accuracy is not None
    assert high.accuracy is not None
    assert low.accuracy.value < high.accuracy.value
    assert (low.chain_tokens.value, low.chain_agreement) == (0, None), "no chain: nothing to agree with"
    assert high.chain_tokens.value > 30
    pair = found.pair("low", "high")
    assert pair.chain_tokens is not None
    assert pair.chain_tokens.p_value < 0.01
    assert pair.test is not None
    assert "random sign" in pair.test.method, "chains of unequal length"
    overlap = pair.prompt_overlap
    assert overlap is not None
    np.testing.assert_array_equal(overlap.before, [1.0] * 4)
    assert overlap.after is not None
    assert overlap.num_before + overlap.num_after + 1 == runs["low"][0].num_prompt_tokens
    assert 0.5 < overlap.after.values.min() <= 1


def test_an_interrupt_leaves_as_many_of_each(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def interrupted(*args: Any, **options: Any) -> wb.Trace:
        def stop(_token: int) -> bool:
            seen.append(1)
            if len(seen) == 45:
                raise KeyboardInterrupt
            return False

        return capture(*args, **options, on_token=stop)

    monkeypatch.setattr(module, "capture", interrupted)
    runs = wb.compare_efforts(tiny, QUESTION, ("low", "medium"), 4, max_new_tokens=13)
    assert {effort: len(traces) for effort, traces in runs.traces.items()} == {"low": 2, "medium": 1}
    assert runs.interrupted
    assert repr(runs).endswith("low 2, medium 1, interrupted: 4 each were asked for>")
    assert not any(module.was_interrupted(trace) for traces in runs.traces.values() for trace in traces)


def test_rollouts_cut_by_the_limit_are_no_answers(tiny: wb.Model) -> None:
    runs = wb.compare_efforts(tiny, QUESTION, ("low", "high"), 1, max_new_tokens=15)
    with pytest.raises(wb.TraceError, match=r"high: none of the 1 rollouts was completed \(cut at 15 tokens\)"):
        runs.compare(references="132")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"efforts": ("low", "huge")},
            HarmonyError,
            r"expected a reasoning effort .*low, medium, high.*got 'huge'",
        ),
        ({"efforts": ()}, wb.ModelError, r"expected efforts, each once, got \(\)"),
        ({"efforts": "low"}, wb.ModelError, "expected efforts, each once, got 'low'"),
        ({"efforts": ("low", "low")}, wb.ModelError, r"expected efforts, each once, got \('low', 'low'\)"),
        ({"samples": 0}, wb.ModelError, "expected at least 1 sample, got 0"),
        ({"temperature": 0}, wb.ModelError, "at temperature 0 all 8 samples would be the same; expected samples=1"),
        ({"question": "  "}, HarmonyError, "The question is empty"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    tiny: wb.Model, options: dict[str, Any], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "capture")
    with pytest.raises(error, match=message):
        wb.compare_efforts(tiny, **{"question": QUESTION, **options})


def test_an_effort_that_is_not_there_is_named(runs: EffortRuns) -> None:
    with pytest.raises(KeyError, match="there is no effort 'medium'; there are low, high"):
        runs["medium"]


def test_messages_are_asked_as_well(tiny: wb.Model) -> None:
    messages = [{"role": "developer", "content": "Rule: allow the garden."}, {"role": "user", "content": "2+2=?"}]
    runs = wb.compare_efforts(tiny, messages, ("low",), 1, temperature=0)
    assert runs.question == "2+2=?" == runs["low"][0].meta["question"]

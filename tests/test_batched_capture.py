"""Rollouts captured in a left-padded batch are those captured one at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from test_families import CASES, SIZES
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench import batched_capture as module
from workbench import sizing
from workbench.batched_capture import Prompt, capture_batch
from workbench.experiments.efforts import LIGHT
from workbench.harmony import HarmonyError

QUESTIONS = ("47+81+17+7=?", "what is 12 + 93?\nhint: 99", "open the garden.")
PROMPTS = [
    Prompt(question, effort, seed=7 + i)
    for i, (question, effort) in enumerate((q, e) for q in QUESTIONS for e in ("low", "high", "medium"))
]


def alone(model: wb.Model, prompt: Prompt, **options: Any) -> wb.Trace:
    return wb.capture(model, prompt.conversation, effort=prompt.effort, seed=prompt.seed, **options)


def same(together: wb.Trace, single: wb.Trace) -> None:
    """Equal tokens, spans and expert sets; every other number equal up to the last digits of its dtype."""
    assert together.arrays.keys() == single.arrays.keys()
    assert together.spans == single.spans
    for name, array in together.arrays.items():
        other = single.arrays[name]
        assert (array.shape, array.dtype) == (other.shape, other.dtype), name
        if name == "expert_indices":
            np.testing.assert_array_equal(np.sort(array), np.sort(other), err_msg=name)
        elif array.dtype == np.float16:
            np.testing.assert_allclose(array, other, rtol=2e-3, atol=2e-3, err_msg=name)
        elif array.dtype.kind == "f":
            np.testing.assert_allclose(array, other, rtol=1e-4, atol=1e-4, err_msg=name)
        elif name not in ("top_token_ids", "lens_token_ids"):  # whose last ranks can be equal to the last digit
            np.testing.assert_array_equal(array, other, err_msg=name)
    meta, expected = ({k: v for k, v in t.meta.items() if k != "provenance"} for t in (together, single))
    assert meta == expected
    assert together.provenance["sampling"] == single.provenance["sampling"]
    assert together.provenance["batch_size"] > 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_array_is_that_of_a_single_run(tiny: wb.Model, temperature: float) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    spec = wb.CaptureSpec(residual=True)
    traces = capture_batch(tiny, PROMPTS, temperature=temperature, max_new_tokens=90, capture=spec)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({len(trace) for trace in traces}) > 3
    assert {trace.meta["truncated"] for trace in traces} == {None, "cut at 90 tokens"}
    for prompt, trace in zip(PROMPTS, traces, strict=True):
        same(trace, alone(tiny, prompt, temperature=temperature, max_new_tokens=90, capture=spec))


@pytest.mark.parametrize("family", CASES)
def test_in_every_family(tiny: wb.Model, family: str) -> None:
    kind, changes = CASES[family]
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": len(tiny.tokenizer), **changes})
    model = wb.load(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer=tiny.tokenizer)
    prompts = [Prompt("1+1=?", "low", 1), Prompt(" ".join(["47+81=?"] * 4), "low", 2), Prompt("open.", "low", 3)]
    spec = wb.CaptureSpec(lens=False)
    for prompt, trace in zip(prompts, capture_batch(model, prompts, max_new_tokens=12, capture=spec), strict=True):
        same(trace, alone(model, prompt, max_new_tokens=12, capture=spec))


def test_a_sliding_window_counts_from_each_prompts_own_beginning(odd: wb.Model) -> None:
    """Unequal sizes, a window of 9, and 70 tokens, so that rows are handed over in the middle."""
    prompts = [Prompt("1+1=?", "low", 1), Prompt("what is 12 + 93?\nhint: 99", "medium", 2)]
    traces = capture_batch(odd, prompts, max_new_tokens=70)
    for prompt, trace in zip(prompts, traces, strict=True):
        single = alone(odd, prompt, max_new_tokens=70)
        same(trace, single)
        for layer in range(3):
            for ours, theirs in zip(trace.attention(layer), single.attention(layer), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_prompt_longer_than_one_forward_beside_a_short_one(tiny: wb.Model) -> None:
    """The long one is read in pieces, and leaves the short one the room that it has alone."""
    long = Prompt("+".join(["7"] * 480) + "=?", "low", 4)
    prompts = [Prompt("1+1=?", "low", 3), long, Prompt("open the garden.", "high", 5)]
    traces = capture_batch(tiny, prompts, max_new_tokens=60, capture=LIGHT)
    assert traces[1].num_prompt_tokens > 900
    assert traces[1].meta["truncated"] is not None
    for prompt, trace in zip(prompts, traces, strict=True):
        same(trace, alone(tiny, prompt, max_new_tokens=60, capture=LIGHT))


def test_what_has_ended_does_not_wait_for_the_slowest(tiny: wb.Model) -> None:
    told: list[tuple[int, int]] = []

    def note(number: int, trace: wb.Trace) -> None:
        told.append((number, len(trace)))

    prompts = [Prompt(QUESTIONS[0], "high", 0), Prompt(QUESTIONS[0], "low", 1), Prompt(QUESTIONS[2], "low", 2)]
    traces = capture_batch(tiny, prompts, capture=LIGHT, on_trace=note)
    assert [number for number, _ in told] == [1, 2, 0]
    assert dict(told) == {number: len(trace) for number, trace in enumerate(traces)}


def test_an_interrupt_leaves_no_hook_and_no_thread(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    real, calls = module._Row.add, []

    def interrupted(self: Any, token: int) -> None:
        calls.append(token)
        if len(calls) == 20:
            raise KeyboardInterrupt
        real(self, token)

    monkeypatch.setattr(module._Row, "add", interrupted)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.hf.modules())
    with pytest.raises(KeyboardInterrupt):
        capture_batch(tiny, PROMPTS[:3], capture=LIGHT)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.hf.modules()) == hooks
    assert not [thread for thread in threading.enumerate() if thread.name == "trace writer"]


def test_numbers_that_no_healthy_model_makes_are_named(tiny: wb.Model) -> None:
    weight = tiny.hf.model.embed_tokens.weight.data
    [token] = tiny.tokenizer.encode("7", add_special_tokens=False)
    kept = weight[token].clone()
    try:
        weight[token] = torch.nan
        with pytest.raises(wb.ModelError, match=r"the output of the final norm for token \d+ is not finite"):
            capture_batch(tiny, [Prompt("1+1=?", "low"), Prompt("7+7=?", "low")], capture=LIGHT)
    finally:
        weight[token] = kept


def test_bad_input_is_refused(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(wb.ModelError, match="expected at least one prompt, got none"):
        capture_batch(tiny, [])
    with pytest.raises(HarmonyError, match="The question is empty"):
        capture_batch(tiny, [Prompt("1+1=?"), Prompt("")])
    with pytest.raises(wb.ModelError, match="expected max_new_tokens of at least 1, got 0"):
        capture_batch(tiny, PROMPTS[:2], max_new_tokens=0)
    monkeypatch.setattr(sizing.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**7}))
    capture_batch(tiny, PROMPTS[:1], max_new_tokens=2, capture=LIGHT)
    with pytest.raises(wb.ModelError, match=r"of each of 64 rollouts would take .* Lower max_new_tokens or the batch"):
        capture_batch(tiny, PROMPTS[:1] * 64, capture=LIGHT)

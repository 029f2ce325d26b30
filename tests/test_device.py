"""The device path on a real GPU: the same arrays as on the CPU, and no waiting. Skipped where there is none."""

import numpy as np
import pytest
import torch
from conftest import random_gpt_oss

import workbench as wb
from workbench.hooks import attach
from workbench.sizing import free_device_memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]
QUESTION = "91+40+98+66=?"
SPEC = wb.CaptureSpec(residual=True, top=4)


@pytest.fixture(scope="module")
def on_gpu(tiny: wb.Model) -> wb.Model:
    return wb.load(random_gpt_oss(tiny.config.vocab_size).to("cuda"), tokenizer=tiny.tokenizer)


def test_a_replay_on_the_gpu_equals_one_on_the_cpu(odd: wb.Model, on_gpu: wb.Model) -> None:
    expected = wb.capture(odd, QUESTION, max_new_tokens=180, seed=5, capture=SPEC)
    found = wb.replay(on_gpu, expected, capture=SPEC)
    assert found.captured == expected.captured
    same = np.sort(found.expert_indices, -1) == np.sort(expected.expert_indices, -1)
    assert same.mean() > 0.99, "only near-ties may differ between kernels"
    for name in ("queries", "keys", "router_logits", "attention_logsumexp", "logprobs", "residual"):
        np.testing.assert_allclose(found.array(name), expected.array(name), rtol=2e-3, atol=2e-3, err_msg=name)


def test_live_and_replay_agree_on_the_gpu(on_gpu: wb.Model) -> None:
    live = wb.capture(on_gpu, QUESTION, max_new_tokens=200, temperature=0, capture=SPEC)
    again = wb.replay(on_gpu, live, capture=SPEC)
    np.testing.assert_array_equal(again.array("token_ids"), live.array("token_ids"))
    np.testing.assert_allclose(again.router_logits, live.router_logits, rtol=2e-3, atol=2e-3)


def test_no_hook_and_no_hand_over_waits_for_the_device(on_gpu: wb.Model) -> None:
    from workbench.collect import Collector

    tokens = list(range(1, 90))
    ids = torch.tensor([tokens], device="cuda")
    with torch.no_grad(), attach(on_gpu, SPEC.plan(on_gpu)) as recorder:
        on_gpu.hf(ids)
        with Collector(on_gpu, SPEC, recorder) as collector:
            torch.cuda.set_sync_debug_mode("error")
            try:
                collector.collect(tokens)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            collector.finish(tokens)
    assert collector.rows == len(tokens)


def test_capture_leaves_logits_bit_identical(on_gpu: wb.Model) -> None:
    ids = torch.arange(1, 30, device="cuda")[None]
    with torch.no_grad():
        before = on_gpu.hf(ids).logits
        with attach(on_gpu, SPEC.plan(on_gpu)):
            during = on_gpu.hf(ids).logits
    assert torch.equal(before, during)


def test_memory_in_flight_is_what_is_estimated(tiny: wb.Model) -> None:
    """Wide layers and a long prompt, so that what the hooks hold is most of it."""
    sizes = {"num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 4000}
    model = wb.load(random_gpt_oss(tiny.config.vocab_size, **sizes).to("cuda"), tokenizer=tiny.tokenizer)
    wb.capture(model, QUESTION, max_new_tokens=8, capture=SPEC)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trace = wb.capture(model, "9+" * 1200, max_new_tokens=80, capture=SPEC)
    estimate = wb.estimate(model, len(trace), capture=SPEC)
    grown = torch.cuda.max_memory_allocated() - before
    assert 0.3 * estimate.in_flight < grown < 2 * (estimate.in_flight + estimate.kv_cache) + (32 << 20)
    free = free_device_memory(torch.device("cuda"))
    assert free is not None
    assert free > 0


def test_a_capture_larger_than_the_gpu_is_refused(on_gpu: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.sizing.free_device_memory", lambda _device: 1000)
    with pytest.raises(wb.ModelError, match=r"of the memory of cuda:0, 1 kB are free"):
        wb.capture(on_gpu, QUESTION, max_new_tokens=8)

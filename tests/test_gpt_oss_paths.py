"""Every way a gpt-oss forward can run gives the same capture, and the provenance says which it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxfp4 import LAYERS, dequantise, write_checkpoint
from safetensors.torch import load_file, save_file

import workbench as wb

IDS = [3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43]


@pytest.fixture(scope="module")
def plain(odd: wb.Model) -> wb.Trace:
    return wb.replay(odd, IDS)


def assert_same_routing(trace: wb.Trace, plain: wb.Trace) -> None:
    np.testing.assert_array_equal(trace.expert_indices, plain.expert_indices)
    np.testing.assert_allclose(trace.expert_weights, plain.expert_weights, atol=1e-5)
    np.testing.assert_allclose(trace.router_logits, plain.router_logits, atol=1e-4)


@pytest.mark.parametrize("experts", ["eager", "grouped_mm", "batched_mm"])
def test_experts_implementations(odd: wb.Model, plain: wb.Trace, experts: str) -> None:
    before = odd.config._experts_implementation
    odd.hf.set_experts_implementation(experts)
    try:
        trace = wb.replay(odd, IDS)
    finally:
        odd.hf.set_experts_implementation(before)
    assert trace.provenance["experts_implementation"] == experts
    assert trace.provenance["seams"] == {"router": "module"}
    assert_same_routing(trace, plain)


def native_mxfp4(self: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what transformers' `Mxfp4GptOssMLP` does: the router inline, its *logits* as second output."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    logits = F.linear(rows, self.router.weight, self.router.bias)
    values, indices = logits.topk(self.router.top_k, dim=-1)
    return self.experts(rows, indices, values.softmax(-1)).reshape(hidden.shape), logits


def megablocks(self: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what the MegaBlocks kernel does: everything inline, the selected weights as second output."""
    out, logits = native_mxfp4(self, hidden)
    return out, logits.topk(self.router.top_k, dim=-1).values.softmax(-1)


@pytest.fixture(params=[native_mxfp4, megablocks])
def bypassed(request: pytest.FixtureRequest, odd: wb.Model) -> Iterator[wb.Model]:
    """A model whose MLPs never call their router module, as on a GPU with those kernels."""
    for layer in odd.layers:
        layer.mlp.forward = request.param.__get__(layer.mlp)
    yield odd
    for layer in odd.layers:
        del layer.mlp.forward


def test_kernels_that_bypass_the_router_are_read_from_the_mlp_input(bypassed: wb.Model, plain: wb.Trace) -> None:
    trace = wb.replay(bypassed, IDS)
    assert trace.provenance["seams"] == {"router": "mlp_input"}
    assert_same_routing(trace, plain)


def test_a_router_that_gives_nothing_is_an_error(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    router = odd.layers[1].mlp.router
    monkeypatch.setattr(router.weight, "data", torch.zeros_like(router.weight))
    monkeypatch.setattr(router.bias, "data", torch.zeros_like(router.bias))
    with pytest.raises(wb.ModelError, match=r"module: router_logits of layer 1 is all zero; mlp_input: .* all zero"):
        wb.replay(odd, IDS)


@pytest.fixture(scope="module")
def checkpoint(tiny: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("mxfp4")
    return folder, write_checkpoint(folder, tiny)


def test_an_mxfp4_checkpoint_loads_dequantised_and_is_captured(checkpoint: Any) -> None:
    folder, tensors = checkpoint
    model = wb.load(folder, device="cpu")
    assert model.dtype == "bfloat16"
    for layer in range(LAYERS):
        for name in ("gate_up_proj", "down_proj"):
            stored = (tensors[f"model.layers.{layer}.mlp.experts.{name}_{part}"] for part in ("blocks", "scales"))
            loaded = model.layers[layer].mlp.experts.get_parameter(name)
            assert torch.equal(loaded.float(), dequantise(*stored)), (layer, name)
    trace = wb.capture(model, "1+1=?", max_new_tokens=3)
    assert trace.expert_weights.dtype.name == "bfloat16"
    assert trace.router_logits.shape == (len(trace), 3, 7)


def test_weights_that_would_be_random_are_refused(checkpoint: Any, tiny: wb.Model, tmp_path: Path) -> None:
    folder, _ = checkpoint
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.self_attn.sinks"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        wb.ModelError, match=r"1 tensors are missing or of another shape, such as .*layers\.1\..*sinks"
    ):
        wb.load(tmp_path, device="cpu")


def test_a_dequantised_model_saved_and_reopened_is_refused(checkpoint: Any, tmp_path: Path) -> None:
    """Upstream writes dense tensors under the names of blocks and would make up all experts on reading."""
    folder, _ = checkpoint
    model = wb.load(folder, device="cpu")
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(wb.ModelError, match=r"6 tensors are missing .* If it was saved after MXFP4 weights"):
        wb.load(tmp_path, device="cpu")

"""A checkpoint in OpenAI's own layout, read by OpenAI's reference and by us: the same weights, the same logits."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from mxfp4 import write_checkpoint
from safetensors.torch import load_file, save_file
from test_oracles import imported, original_layout

import workbench as wb
from workbench.loading import published_config

SETTINGS = {
    "num_hidden_layers": 3,
    "num_experts": 7,
    "experts_per_token": 3,
    "hidden_size": 96,
    "intermediate_size": 64,
    "swiglu_limit": 7.0,
    "head_dim": 14,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "sliding_window": 9,
    "initial_context_length": 256,
    "rope_theta": 1000.0,
    "rope_scaling_factor": 3.0,
    "rope_ntk_alpha": 1.0,
    "rope_ntk_beta": 32.0,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tiny: wb.Model) -> Path:
    """A random checkpoint in MXFP4 in OpenAI's names, in a subfolder of one with the tokenizer, as on the hub."""
    hub = tmp_path_factory.mktemp("hub")
    torch.manual_seed(7)
    stored = {
        # What is zero or one throughout could be left out unnoticed.
        name: tensor if tensor.dtype == torch.uint8 else tensor + 0.1 * torch.randn_like(tensor)
        for name, tensor in write_checkpoint(hub, tiny).items()
    }
    folder = hub / "original"
    folder.mkdir()
    renamed = {}
    for name, tensor in original_layout(_unpacked(stored), 3).items():
        if not name.endswith(("mlp1_weight", "mlp2_weight")):
            renamed[name] = tensor.contiguous()
    for layer in range(3):
        for ours, theirs in (("gate_up_proj", "mlp1_weight"), ("down_proj", "mlp2_weight")):
            for part in ("blocks", "scales"):
                packed = stored[f"model.layers.{layer}.mlp.experts.{ours}_{part}"]
                renamed[f"block.{layer}.mlp.{theirs}.{part}"] = packed
    save_file(renamed, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**SETTINGS, "vocab_size": tiny.config.vocab_size}))
    return folder


def _unpacked(stored: dict[str, Any]) -> dict[str, Any]:
    """Stand-ins for the packed experts, which `original_layout` transposes."""
    names = (f"model.layers.{n}.mlp.experts.{p}" for n in range(3) for p in ("gate_up_proj", "down_proj"))
    return stored | {name: torch.zeros(1, 1, 1) for name in names}


@pytest.fixture(scope="module")
def loaded(original: Path) -> wb.Model:
    return wb.load(str(original), device="cpu")


@pytest.fixture(scope="module")
def reference(original: Path) -> Any:
    return imported("gpt_oss.torch.model").Transformer.from_checkpoint(str(original), device="cpu")


def test_every_weight_equals_the_references(loaded: wb.Model, reference: Any) -> None:
    theirs = reference.state_dict()
    ours = original_layout(loaded.hf.state_dict(), loaded.num_layers)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert tensor.float().std() > 0, name


def test_the_settings_are_read(loaded: wb.Model, original: Path) -> None:
    assert (loaded.num_layers, loaded.num_experts, loaded.top_k) == (3, 7, 3)
    assert (loaded.num_heads, loaded.num_kv_heads, loaded.d_head, loaded.d_model) == (6, 2, 14, 96)
    assert loaded.windows == [9, None, 9]
    assert loaded.context_length == 768
    assert loaded.dtype == "bfloat16"
    assert loaded.weights_hash.startswith("sha256")
    assert published_config(str(original)).num_local_experts == 7


def test_logits_equal_the_references(loaded: wb.Model, reference: Any) -> None:
    """In float32, over tokens past the original context, so that the stretched positions count."""
    ids = torch.randint(0, loaded.config.vocab_size, (300,), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        ours = deepcopy(loaded.hf).float()(ids[None]).logits[0]
        theirs = deepcopy(reference).float()(ids)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=2e-4 * float(theirs.abs().max()), rtol=0)


def test_it_is_captured_like_any_other(loaded: wb.Model) -> None:
    trace = wb.capture(loaded, "47+85=?", effort="low", max_new_tokens=5)
    assert trace.has("expert_indices", layer=2)
    assert trace.provenance["family"] == "gpt-oss"


def test_unpacked_experts_load_too(original: Path, loaded: wb.Model, tmp_path: Path) -> None:
    tensors = original_layout(loaded.hf.state_dict(), 3)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((original / "config.json").read_text())
    dense = wb.load(str(tmp_path), tokenizer=loaded.tokenizer, device="cpu")
    for (name, one), (_, two) in zip(dense.hf.state_dict().items(), loaded.hf.state_dict().items(), strict=True):
        assert torch.equal(one, two), name


def test_what_does_not_fit_is_named(original: Path, loaded: wb.Model, tmp_path: Path) -> None:
    settings = json.loads((original / "config.json").read_text())
    tensors = load_file(original / "model.safetensors")

    def load(config: dict[str, Any], weights: dict[str, Any]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(weights, tmp_path / "model.safetensors")
        wb.load(str(tmp_path), tokenizer=loaded.tokenizer, device="cpu")

    with pytest.raises(wb.ModelError, match=r"expected the settings of OpenAI's layout in .*, rope_theta is missing"):
        load({k: v for k, v in settings.items() if k != "rope_theta"}, tensors)
    with pytest.raises(wb.ModelError, match=r"such as block.0.attn.qkv.weight, got 'lm_head.weight'"):
        load(settings, {**tensors, "lm_head.weight": torch.zeros(2)})
    with pytest.raises(wb.ModelError, match=r"the tensor 'block.0.mlp.extra' is of no part of OpenAI's layout"):
        load(settings, {**tensors, "block.0.mlp.extra": torch.zeros(2)})
    with pytest.raises(wb.ModelError, match=r"1 tensors are missing or of another shape, such as .*sinks"):
        load(settings, {k: v for k, v in tensors.items() if k != "block.1.attn.sinks"})

"""Make a small gpt-oss checkpoint in the layout of the real ones: experts in MXFP4, the rest in bfloat16."""

import json
from pathlib import Path

import torch
from conftest import random_gpt_oss
from safetensors.torch import save_file
from torch import Tensor

import workbench as wb

LAYERS, EXPERTS, HIDDEN, WIDTH = 3, 7, 96, 64
_TABLE = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def write_checkpoint(folder: Path, tiny: wb.Model) -> dict[str, Tensor]:
    """Write it; return the tensors as stored."""
    model = random_gpt_oss(tiny.config.vocab_size, hidden_size=HIDDEN, intermediate_size=WIDTH)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    random = torch.Generator().manual_seed(6)
    for layer in range(LAYERS):
        for name, rows, columns in (("gate_up_proj", 2 * WIDTH, HIDDEN), ("down_proj", HIDDEN, WIDTH)):
            path = f"model.layers.{layer}.mlp.experts.{name}"
            del tensors[path]
            groups = (EXPERTS, rows, columns // 32)
            tensors[f"{path}_blocks"] = torch.randint(0, 256, (*groups, 16), dtype=torch.uint8, generator=random)
            tensors[f"{path}_scales"] = torch.randint(118, 124, groups, dtype=torch.uint8, generator=random)
    model.config.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    dense = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config |= {"dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": dense}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return tensors


def dequantise(blocks: Tensor, scales: Tensor) -> Tensor:
    """Decode blocks [expert, row, group, 16] and scales [expert, row, group] to [expert, 32 * group, row].

    Low nibble first; values ±{0, .5, 1, 1.5, 2, 3, 4, 6} times 2^(scale - 127) (OCP Microscaling v1.0, MXFP4).
    """
    table = torch.cat([_TABLE, -_TABLE])
    nibbles = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2)
    values = table[nibbles.long()] * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2).transpose(1, 2)

"""A model whose experts are split over two processes gives, in each of them, the capture that one process gives.

The processes are real and talk through gloo on this machine; transformers shards the model.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_gpt_oss
from parallel_rank import QUESTION, captures

import workbench as wb

RANKS = 2
EXPERTS = 10
SECONDS = 400
"""Two processes import transformers and load four small models."""

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="where there is a GPU, transformers puts each rank on a GPU of its own"
)


@pytest.fixture(scope="module")
def model(tiny: wb.Model) -> wb.Model:
    return wb.load(random_gpt_oss(tiny.config.vocab_size, num_local_experts=EXPERTS), tokenizer=tiny.tokenizer)


@pytest.fixture(scope="module")
def mixtral(tiny: wb.Model) -> wb.Model:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(4)
    config = MixtralConfig(
        vocab_size=tiny.config.vocab_size,
        num_hidden_layers=3,
        hidden_size=48,
        intermediate_size=32,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=14,
        num_local_experts=EXPERTS,
        num_experts_per_tok=3,
        max_position_embeddings=600,
        initializer_range=0.3,
    )
    return wb.load(MixtralForCausalLM(config), tokenizer=tiny.tokenizer)


@pytest.fixture(scope="module")
def whole(model: wb.Model) -> dict[str, wb.Trace]:
    """The captures of one process."""
    return captures(model)


@pytest.fixture(scope="module")
def folder(model: wb.Model, mixtral: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captures of two processes, in files."""
    folder = tmp_path_factory.mktemp("ranks")
    model.hf.save_pretrained(folder / "gpt-oss")
    mixtral.hf.save_pretrained(folder / "mixtral")
    rank = Path(__file__).with_name("parallel_rank.py")
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    running = [
        subprocess.Popen(
            [sys.executable, str(rank), str(number), str(RANKS), str(folder)],
            env=os.environ | loopback | {"LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(RANKS)
    ]
    try:
        printed = [process.communicate(timeout=SECONDS)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0] * RANKS, "\n".join(printed)
    return folder


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("way", ["greedy", "sampled", "replay", "forced"])
def test_every_rank_captures_what_one_process_does(
    folder: Path, whole: dict[str, wb.Trace], way: str, rank: int
) -> None:
    expected, trace = whole[way], wb.open_trace(folder / f"{way}-{rank}.safetensors")
    assert trace.provenance["expert_parallel"] == RANKS
    assert expected.provenance["expert_parallel"] == 1
    assert trace.provenance["seams"] == {"router": "module"}
    assert trace.arrays.keys() == expected.arrays.keys()
    for name in ("token_ids", "expert_indices", "vocab_ids", "sink_logits"):
        np.testing.assert_array_equal(trace.arrays[name], expected.arrays[name], err_msg=name)
    for name in ("router_logits", "expert_weights", "queries", "keys", "attention_logsumexp", "logprobs", "entropy"):
        np.testing.assert_allclose(trace.arrays[name], expected.arrays[name], atol=1e-4, rtol=0, err_msg=name)


def test_the_experts_were_split_and_both_halves_used(folder: Path) -> None:
    for rank in range(RANKS):
        assert facts(folder, rank)["experts held"] == EXPERTS // RANKS
        chosen = wb.open_trace(folder / f"greedy-{rank}.safetensors").arrays["expert_indices"]
        assert chosen.min() < EXPERTS // RANKS <= chosen.max(), "global ids, not those of the rank"


def test_residual_and_lens_of_a_rank(folder: Path, whole: dict[str, wb.Trace]) -> None:
    for rank in range(RANKS):
        trace = wb.open_trace(folder / f"greedy-{rank}.safetensors")
        np.testing.assert_allclose(trace.arrays["residual"], whole["greedy"].arrays["residual"], atol=1e-3, rtol=0)
        first = trace.arrays["lens_token_ids"][..., 0] == whole["greedy"].arrays["lens_token_ids"][..., 0]
        assert first.mean() > 0.99


def test_one_rank_can_write_the_file(folder: Path) -> None:
    written, greedy = (wb.open_trace(folder / f"{name}.safetensors") for name in ("written", "greedy-0"))
    for name, array in greedy.arrays.items():
        np.testing.assert_array_equal(written.arrays[name], array, err_msg=name)


def test_split_heads_are_refused_and_the_router_beside_them_is_read(folder: Path, mixtral: wb.Model) -> None:
    spec = wb.CaptureSpec(attention=False)
    expected = wb.capture(mixtral, QUESTION, max_new_tokens=9, temperature=0, capture=spec)
    for rank in range(RANKS):
        # Half of the 6 x 14 and of the 2 x 14 columns; keys come first in the alphabet.
        assert "keys of layer 0 has shape (1, 14), expected (1, 28)" in facts(folder, rank)["split heads"]
        trace = wb.open_trace(folder / f"split_heads-{rank}.safetensors")
        np.testing.assert_array_equal(trace.arrays["expert_indices"], expected.arrays["expert_indices"])
        np.testing.assert_allclose(trace.arrays["router_logits"], expected.arrays["router_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("sliced", r"parameters such as model\.layers\.0\.self_attn\.sinks"),
        ("staged", "its layers in 2 pipeline stages"),
    ],
)
def test_what_no_process_can_read_is_refused(folder: Path, way: str, what: str) -> None:
    for rank in range(RANKS):
        message = facts(folder, rank)[way]
        assert re.search(rf"gpt-oss' is split over processes with {what}, so no process can", message)
        assert "Split only the experts, with DistributedConfig(tp_size=N, ep_size=N), or load it whole" in message


def facts(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"facts-{rank}.json").read_text(encoding="utf-8"))
    return found

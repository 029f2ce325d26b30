"""What many tests share: the embedded model, and a random one with sizes that are all different."""

import os
import signal
from typing import Any

import pytest
import torch

import workbench as wb

# Of the kernels, servers and commands that tests start, too: two threads on a busy machine are many times slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore Ctrl-C, which is tested


@pytest.fixture(scope="session")
def tiny() -> wb.Model:
    return wb.load("tiny", device="cpu")


@pytest.fixture(scope="session")
def odd(tiny: wb.Model) -> wb.Model:
    """A gpt-oss with random weights and unequal sizes, so that a transposed or mixed-up array fails."""
    return wb.load(random_gpt_oss(tiny.config.vocab_size), tokenizer=tiny.tokenizer)


def random_gpt_oss(vocab_size: int, **changes: Any) -> Any:
    from transformers import GptOssConfig, GptOssForCausalLM

    sizes: dict[str, Any] = {
        "num_hidden_layers": 3,
        "hidden_size": 44,
        "intermediate_size": 20,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 14,
        "num_local_experts": 7,
        "num_experts_per_tok": 3,
        "sliding_window": 9,
        "vocab_size": vocab_size,
        "max_position_embeddings": 600,
        "initializer_range": 0.3,
        "pad_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    torch.manual_seed(3)
    config = GptOssConfig(**(sizes | changes))
    config._attn_implementation = "eager"
    model = GptOssForCausalLM(config).eval()
    model.generation_config.eos_token_id = []  # random weights would end a rollout anywhere
    return model

"""The shape of the embedded model, and its attention by torch's fast kernel.

The model is transformers' own `GptOssForCausalLM`. That class has no SDPA attention, since torch's kernel
knows no sinks; here a sink becomes one more key, which changes no weight and no result.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, GptOssConfig, GptOssForCausalLM
from transformers.masking_utils import eager_mask
from transformers.models.gpt_oss.modeling_gpt_oss import repeat_kv

from .tokenizer import CONTEXT_LENGTH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ATTENTION = "sink_as_key"


def tiny_config(tokenizer: "PreTrainedTokenizerFast") -> GptOssConfig:
    """The one shape that was tried: 4 layers, 8 experts, 2 of them per token, about 1.1 M parameters."""
    vocabulary = tokenizer.get_vocab()
    return GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=4,
        num_local_experts=8,
        num_experts_per_tok=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10_000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 256,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[vocabulary["<|return|>"], vocabulary["<|call|>"]],
        attention_dropout=0.0,
        router_aux_loss_coef=0.01,
    )


def training_model(config: GptOssConfig) -> GptOssForCausalLM:
    """A freshly initialised fp32 model that computes attention with the function below."""
    AttentionInterface.register(ATTENTION, sink_as_key_attention)
    AttentionMaskInterface.register(ATTENTION, eager_mask)
    model: GptOssForCausalLM = GptOssForCausalLM._from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation=ATTENTION, dtype=torch.float32
    )
    model.set_experts_implementation("eager")
    return model


def sink_as_key_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention with each head's sink as key 0, whose value is zero.

    query [batch, head, query, d_head]; key, value [batch, kv_head, key, d_head]; attention_mask additive
    [batch or 1, 1, query, key]; returns [batch, query, head, d_head]. One more dimension, 1 in every query
    and the sink logit over `scaling` in the sink's key, makes the score of that key the sink logit.
    """
    sinks: torch.Tensor = module.sinks  # type: ignore[assignment]
    batch, num_heads, _, d_head = query.shape
    key, value = (repeat_kv(states, module.num_key_value_groups) for states in (key, value))  # type: ignore[arg-type]
    sink_key = F.pad((sinks / scaling).view(1, num_heads, 1, 1), (d_head, 0)).expand(batch, -1, -1, -1)
    query = torch.cat([query, torch.ones_like(query[..., :1])], dim=-1)
    key = torch.cat([sink_key, F.pad(key, (0, 1))], dim=2)
    value = F.pad(value, (0, 1, 1, 0))
    mask = F.pad(attention_mask, (1, 0))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return out[..., :d_head].transpose(1, 2).contiguous(), None

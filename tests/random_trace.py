"""A small trace of random numbers whose sizes are all different, so that a transposed or mixed-up array fails.

``python tests/random_trace.py FILE`` writes it; tests/traces/v1/random.safetensors was made like this and stays.
"""

import sys
from typing import Any

import ml_dtypes
import numpy as np

from workbench.trace import Span, Trace

TOKENS = ["<|start|>", "user", "<|message|>", "4", "7", "?", "<|end|>"]
TOKENS += ["<|start|>", "assistant", "<|message|>", "⚡", "132."]
TEXTS = sorted({*TOKENS, " so", "\n"})
SIZES = {"token": 12, "layer": 5, "expert": 7, "top_k": 2, "head": 6, "kv_head": 2, "d_head": 4, "d_model": 8}
ATTENTION_LAYERS = (1, 3, 4)
LENS_LAYERS = (0, 4)


def random_trace(seed: int = 1, **meta: Any) -> Trace:
    rng = np.random.default_rng(seed)
    tokens, layers, experts, top_k, heads, kv_heads, d_head, d_model = SIZES.values()
    attention, lens = len(ATTENTION_LAYERS), len(LENS_LAYERS)
    ids = np.arange(len(TEXTS)) * 3 + 5
    raw = [text.encode() for text in TEXTS]

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    def some_ids(*shape: int) -> Any:
        return rng.choice(ids, shape).astype(np.int32)

    logits = normal(tokens, layers, experts).astype(ml_dtypes.bfloat16)
    order = np.argsort(-logits.astype(np.float32), axis=-1, kind="stable")[..., :top_k]
    chosen = np.exp(np.take_along_axis(logits.astype(np.float32), order, -1))
    arrays = {
        "token_ids": np.array([ids[TEXTS.index(t)] for t in TOKENS], dtype=np.int32),
        "logprobs": np.append(np.float32(np.nan), -np.abs(normal(tokens - 1))),
        "entropy": np.append(np.float32(np.nan), np.abs(normal(tokens - 1))),
        "top_token_ids": some_ids(tokens, 3),
        "top_logprobs": -np.abs(normal(tokens, 3)).astype(np.float16),
        "expert_indices": order.astype(np.uint8),
        "expert_weights": (chosen / chosen.sum(-1, keepdims=True)).astype(ml_dtypes.bfloat16),
        "router_logits": logits,
        "queries": normal(attention, heads, tokens, d_head).astype(ml_dtypes.bfloat16),
        "keys": normal(attention, kv_heads, tokens, d_head).astype(ml_dtypes.bfloat16),
        "sink_logits": normal(attention, heads),
        "attention_logsumexp": normal(tokens, attention, heads),
        "lens_token_ids": some_ids(tokens, lens, 4),
        "lens_logprobs": -np.abs(normal(tokens, lens, 4)).astype(np.float16),
        "residual": normal(tokens, lens, d_model),
        "vocab_ids": ids.astype(np.int32),
        "vocab_offsets": np.cumsum([0, *(len(r) for r in raw)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(raw), dtype=np.uint8),
        "vocab_special": np.array([t.startswith("<|") for t in TEXTS]),
    }
    spans = (
        Span(0, 7, 3, "message", "user"),
        Span(3, 6, 3, "sentence", "user"),
        Span(7, 12, 10, "message", "assistant", "final", None, "<|constrain|>json", "no <|channel|>"),
        Span(10, 12, 10, "sentence", "assistant", "final"),
    )
    attention_names = ("queries", "keys", "sink_logits", "attention_logsumexp")
    lens_names = ("lens_token_ids", "lens_logprobs", "residual")
    facts = {
        "num_prompt_tokens": 9,
        "question": "47?",
        "layers": {n: list(ATTENTION_LAYERS) for n in attention_names} | {n: list(LENS_LAYERS) for n in lens_names},
        "sources": dict.fromkeys(arrays, "live"),
        "attention": {"scale": 0.5, "windows": [3, None, 3, None, 3]},
        "near_tie": 0.02,
        "provenance": {"model": "random", "temperature": 1.0, "seed": seed},
    }
    return Trace(arrays, spans, facts | meta)


if __name__ == "__main__":
    random_trace().save(sys.argv[1])

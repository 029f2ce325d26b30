"""A trace of which attention is known by hand."""

import math
from typing import Any

import numpy as np

from workbench.trace import Span, Trace


def span(start: int, stop: int, channel: str | None = None, kind: str = "sentence") -> Span:
    return Span(start, stop, start, kind, "assistant", channel)


def hand_made(tokens: int = 6, window: int | None = None, sinks: bool = True, spans: tuple[Span, ...] = ()) -> Trace:
    """One layer, number 5, two heads on one kv head, of which every row reads all that it sees alike.

    Keys are 0, so all scores are. Head 0 has no sink to speak of: a row that sees n tokens gives each 1 / n. Head 1
    has a sink with logit ln 2: each gets 1 / (n + 2).
    """
    ids = np.arange(tokens, dtype=np.int32)
    arrays: dict[str, Any] = {
        "token_ids": ids,
        "queries": np.ones((1, 2, tokens, 3), np.float32),
        "keys": np.zeros((1, 1, tokens, 3), np.float32),
        "vocab_ids": ids,
        "vocab_offsets": np.arange(tokens + 1),
        "vocab_bytes": np.frombuffer(b"x" * tokens, np.uint8),
        "vocab_special": np.zeros(tokens, bool),
    }
    if sinks:
        arrays["sink_logits"] = np.array([[-100, math.log(2)]], np.float32)
    meta = {
        "num_prompt_tokens": 1,
        "layers": {"queries": [5], "keys": [5], "sink_logits": [5]},
        "sources": {"queries": "replay"},
        "attention": {"scale": 0.5, "windows": [None] * 5 + [window]},
    }
    return Trace(arrays, spans, meta)

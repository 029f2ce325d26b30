"""A trace written down in a test: the tokens of analysis and answer, and numbers for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.sentences import sentences
from workbench.trace import Span, Trace

NUM_EXPERTS, NUM_LAYERS, TOP_K = 7, 3, 2


def written_trace(
    analysis: Sequence[str | bytes] | None = (),
    final: Sequence[str | bytes] | None = ("4",),
    *,
    prompt: Sequence[str] = ("2+2=?",),
    entropy: Sequence[float] | None = None,
    experts: Any = None,
    truncated: str | None = None,
    **provenance: Any,
) -> Trace:
    """Make a trace that speaks harmony.

    Args:
        analysis: tokens of the chain of thought; None for no such message.
        final: tokens of the answer; None for no such message.
        prompt: content tokens of the user's message.
        entropy: of the content tokens of the analysis; 0 elsewhere, NaN at token 0.
        experts: [token, layer, top_k] of the prompt and completion, or a function of the number of tokens.
        truncated: why it was cut: its last message then lacks its closing token.
        provenance: beside the model's name.
    """
    texts: list[str | bytes] = ["<|start|>", "user", "<|message|>", *prompt, "<|end|>", "<|start|>", "assistant"]
    num_prompt = len(texts)
    spans = [Span(0, num_prompt - 2, 3, "message", "user")]
    parts = [(c, p) for c, p in (("analysis", analysis), ("final", final)) if p is not None]
    for at, (channel, content) in enumerate(parts):
        start = num_prompt - 2 if at == 0 else len(texts)
        texts += [] if at == 0 else ["<|start|>", "assistant"]
        texts += ["<|channel|>", channel, "<|message|>"]
        begin = len(texts)
        texts += content
        last = at == len(parts) - 1
        texts += [] if last and truncated else ["<|return|>" if last else "<|end|>"]
        spans.append(Span(start, len(texts), begin, "message", "assistant", channel))
        for a, b in sentences(texts, begin, begin + len(content)):
            spans.append(Span(a, b, a, "sentence", "assistant", channel))
    arrays = _arrays(texts, num_prompt, analysis or (), entropy)
    arrays["expert_indices"] = experts(len(texts)) if callable(experts) else experts
    if experts is None:
        del arrays["expert_indices"]
    meta = {
        "num_prompt_tokens": num_prompt,
        "question": "".join(prompt),
        "truncated": truncated,
        "shape": {"num_experts": NUM_EXPERTS},
        "sources": dict.fromkeys(arrays, "live"),
        "provenance": {"model": "written", **provenance},
    }
    return Trace(arrays, tuple(spans), meta)


def _arrays(
    texts: list[str | bytes], num_prompt: int, analysis: Sequence[Any], entropy: Sequence[float] | None
) -> dict[str, Any]:
    raw = [t.encode() if isinstance(t, str) else t for t in texts]
    known = sorted(set(raw))
    values = np.zeros(len(texts), dtype=np.float32)
    if entropy is not None:
        begin = num_prompt + 3
        values[begin : begin + len(analysis)] = entropy
    values[0] = np.nan
    return {
        "token_ids": np.array([5 + 3 * known.index(piece) for piece in raw], dtype=np.int32),
        "entropy": values,
        "logprobs": -2 * values,
        "vocab_ids": (np.arange(len(known)) * 3 + 5).astype(np.int32),
        "vocab_offsets": np.cumsum([0, *(len(piece) for piece in known)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(known), dtype=np.uint8),
        "vocab_special": np.array([piece.startswith(b"<|") for piece in known]),
    }

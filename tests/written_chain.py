"""A trace whose chain of thought, logit lens and alternatives are written by hand."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from workbench.trace import Span, Trace

PROMPT = ["<|start|>", "user", "<|message|>", "2+3?", "<|end|>", "<|start|>", "assistant"]


def written_chain(
    analysis: Sequence[Sequence[str]],
    final: Sequence[str],
    lens: Mapping[tuple[int, int], Sequence[str]] | None = None,
    *,
    layers: Sequence[int] = (1, 4),
    ranks: int = 2,
    **arrays: Any,
) -> Trace:
    """Make a trace of sentences as lists of token texts.

    Args:
        analysis: sentences of the chain of thought.
        final: tokens of the answer.
        lens: (token, layer) → the texts predicted there, in order of rank; ``∅`` everywhere else.
        layers: of the lens.
        ranks: of the lens.
        arrays: more of them, such as ``entropy``.
    """
    chain = [token for sentence in analysis for token in sentence]
    head = ["<|channel|>", "analysis", "<|message|>"]
    tokens = [*PROMPT, *head, *chain, "<|end|>", "<|start|>", "assistant"]
    tokens += ["<|channel|>", "final", "<|message|>", *final, "<|return|>"]
    said = {text for texts in (lens or {}).values() for text in texts}
    texts = sorted({*tokens, *said, "∅"})
    id_of = {text: 10 * at + 3 for at, text in enumerate(texts)}
    raw = [text.encode() for text in texts]
    content = len(PROMPT) + len(head)
    after = content + len(chain) + 1
    answer = len(tokens) - 1 - len(final)
    spans = [
        Span(0, 5, 3, "message", "user"),
        Span(5, after, content, "message", "assistant", "analysis"),
        *_sentences(content, analysis),
        Span(after, len(tokens), answer, "message", "assistant", "final"),
        Span(answer, len(tokens) - 1, answer, "sentence", "assistant", "final"),
    ]
    lens_ids = np.full((len(tokens), len(layers), ranks), id_of["∅"], dtype=np.int32)
    for (token, layer), predicted in (lens or {}).items():
        lens_ids[token, list(layers).index(layer), : len(predicted)] = [id_of[text] for text in predicted]
    found = {
        "token_ids": np.array([id_of[text] for text in tokens], dtype=np.int32),
        "lens_token_ids": lens_ids,
        "lens_logprobs": np.full(lens_ids.shape, -0.7, dtype=np.float16),
        "vocab_ids": np.array(sorted(id_of.values()), dtype=np.int32),
        "vocab_offsets": np.cumsum([0, *(len(r) for r in raw)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(raw), dtype=np.uint8),
        "vocab_special": np.array([text.startswith("<|") for text in texts]),
        **arrays,
    }
    meta = {
        "num_prompt_tokens": len(PROMPT),
        "question": "2+3?",
        "layers": {name: list(layers) for name in ("lens_token_ids", "lens_logprobs")},
        "sources": {"lens_token_ids": "live", "lens_logprobs": "live"},
    }
    return Trace(found, tuple(spans), meta)


def _sentences(start: int, sentences: Sequence[Sequence[str]]) -> list[Span]:
    edges = np.cumsum([start, *(len(s) for s in sentences)]).tolist()
    return [Span(a, b, a, "sentence", "assistant", "analysis") for a, b in pairwise(edges) if a < b]

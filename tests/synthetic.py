"""A made-up trace of any shape, consistent in itself, for tests of views at the size of gpt-oss-20b.

Queries and keys of all layers and heads are overlapping windows of two small tables, so that the 2.3 GB that a
12,000-token trace of 24 layers and 64 heads would take stay 100 MB, while no two heads are equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from workbench.trace import Span, Trace

QUESTION = "How many ordered pairs (a, b) of positive integers with a, b ≤ 500 have a + b dividing ab?"

SENTENCES = [
    "Let me set this up carefully.",
    " Let a = dx and b = dy where d = gcd(a, b) and x, y are coprime.",
    " Coprime forces x = y = 1, so a = b = 2k, which is fine.",
    " Is the case x = y allowed?",
    " Now take x = {a} and y = {b}, so the sum is {c} and the bound says k is at most 500 / {d}.",
    " Therefore the contribution is {a}.",
    " So far the subtotal is {c}.",
    " Okay, that simplifies the work a lot.",
    " I might have missed the case where y is even.",
    " Let me recount from the start of this block.",
    " Good, this agrees with the formula.\n\n",
    " No, that is wrong: {a} times {b} is {d}, not 1701.",
]

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
SPECIAL = (START, CHANNEL, MESSAGE, END)


def synthetic_trace(
    tokens: int = 12_010,
    layers: int = 24,
    experts: int = 32,
    top_k: int = 4,
    heads: int = 64,
    kv_heads: int = 8,
    d_head: int = 64,
    window: int = 128,
    ranks: int = 5,
    lens_ranks: int = 3,
    seed: int = 0,
    dtype: str = "bfloat16",
    without: Sequence[str] = (),
    texts: Sequence[str] = (),
    source: str = "live",
) -> Trace:
    """Return a trace whose attention, log-sum-exp, routing and texts agree with each other.

    Args:
        tokens, layers, experts, top_k, heads, kv_heads, d_head, window: the shape; even layers slide.
        ranks, lens_ranks: alternatives and lens predictions per token.
        seed: of everything random.
        dtype: of router, queries and keys.
        without: names of arrays to leave out.
        texts: token texts to put, one after another, at the start of the first analysis message.
        source: live, replay or imported.
    """
    rng = np.random.default_rng(seed)
    model_dtype = np.dtype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    words, spans, num_prompt_tokens = _conversation(tokens, texts, rng)
    ids, vocabulary = _vocabulary(words)
    size = len(vocabulary["vocab_ids"])
    arrays: dict[str, NDArray] = {"token_ids": ids, **vocabulary}
    arrays |= _draws(ids, size, ranks, rng)
    arrays |= _routing(tokens, layers, experts, top_k, model_dtype, rng)
    windows = [window if layer % 2 == 0 else None for layer in range(layers)]
    arrays |= _attention(tokens, layers, heads, kv_heads, d_head, windows, model_dtype, rng)
    arrays |= _lens(ids, size, layers, lens_ranks, rng)
    shape = {"num_layers": layers, "num_experts": experts, "top_k": top_k, "num_heads": heads}
    meta = {
        "num_prompt_tokens": num_prompt_tokens,
        "question": QUESTION,
        "near_tie": 0.1,
        "sources": {name: source for name in arrays if not name.startswith("vocab_")},
        "attention": {"scale": d_head**-0.5, "windows": windows},
        "shape": {**shape, "num_kv_heads": kv_heads, "d_head": d_head},
        "provenance": {"model": "gpt-oss-20b shape, synthetic trace", "dtype": dtype, "effort": "high"},
    }
    return Trace({n: a for n, a in arrays.items() if n not in without}, spans, meta)


def _conversation(
    tokens: int, texts: Sequence[str], rng: np.random.Generator
) -> tuple[list[str], tuple[Span, ...], int]:
    """Return token texts, spans, and how many are prompt: system, developer, user, then analysis, tool, final."""
    words: list[str] = []
    spans: list[Span] = []
    rest = max(0, tokens - 110)
    plan = [
        ("system", None, None, ["You are ChatGPT.", " Reasoning: high"]),
        ("developer", None, None, ["Answer with the number alone."]),
        ("user", None, None, [QUESTION]),
        ("assistant", "analysis", None, _thoughts(rest // 2, rng)),
        ("assistant", "commentary", "functions.python", ['{"code": "count(500)"}']),
        ("functions.python", "commentary", "assistant", ["1374"]),
        ("assistant", "analysis", None, _thoughts(tokens, rng)),
    ]
    num_prompt_tokens = 0
    final_tokens = 7
    for role, channel, recipient, sentences in plan:
        leading = list(texts) if channel == "analysis" and texts else []
        texts = () if leading else texts
        _say(words, spans, role, channel, recipient, leading, sentences, tokens - final_tokens - 1)
        num_prompt_tokens = len(words) if role == "user" else num_prompt_tokens
    missing = tokens - final_tokens - len(words)
    if missing > 0:  # the last message of the chain takes what is left
        words[-1:] = [" so"] * missing + [END]
        chain = next(i for i in reversed(range(len(spans))) if spans[i].kind == "message")
        spans[chain] = replace(spans[chain], stop=len(words))
    _say(words, spans, "assistant", "final", None, [], ["1374"], tokens)
    words, spans = words[:tokens], [_cut(s, tokens) for s in spans if s.start < tokens]
    return words, tuple(spans), min(num_prompt_tokens, tokens)


def _cut(span: Span, tokens: int) -> Span:
    """Return the part of a span within a number of tokens."""
    return replace(span, content_start=min(span.content_start, tokens), stop=min(span.stop, tokens))


def _say(words, spans, role, channel, recipient, leading, sentences, limit):
    start = len(words)
    header = [START, role, *([CHANNEL, channel] if channel else []), MESSAGE]
    body_at = start + len(header)
    words += header + list(leading)
    inner = []
    for sentence in sentences:
        pieces = _pieces(sentence)
        if len(words) + len(pieces) >= limit:
            break
        inner.append(Span(len(words), len(words) + len(pieces), len(words), "sentence", role, channel))
        words += pieces
    words.append(END)
    spans += [Span(start, len(words), body_at, "message", role, channel, recipient), *inner]


def _thoughts(tokens: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield sentences that take about this many tokens."""
    while tokens > 0:
        sentence = SENTENCES[rng.integers(len(SENTENCES))].format(
            **dict(zip("abcd", rng.integers(2, 1500, 4), strict=True))
        )
        tokens -= len(_pieces(sentence))
        yield sentence


def _pieces(sentence: str) -> list[str]:
    """Cut into words with their leading space, newlines and punctuation apart, as a tokenizer would."""
    out: list[str] = []
    for character in sentence:
        joins = out and character.isalnum() and (out[-1][-1].isalnum() or out[-1] == " ")
        if joins or (character == "\n" and out and out[-1] == "\n"):
            out[-1] += character
        else:
            out.append(character)
    return out


def _vocabulary(words: list[str]) -> tuple[NDArray, dict[str, NDArray]]:
    known = sorted(set(words))
    at = {word: i for i, word in enumerate(known)}
    encoded = [word.encode("utf-8", "surrogateescape") for word in known]
    return np.array([at[w] * 3 + 5 for w in words], dtype=np.int32), {
        "vocab_ids": np.arange(len(known), dtype=np.int32) * 3 + 5,
        "vocab_offsets": np.cumsum([0, *(len(t) for t in encoded)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "vocab_special": np.array([w in SPECIAL for w in known]),
    }


def _draws(ids: NDArray, size: int, ranks: int, rng: np.random.Generator) -> dict[str, NDArray]:
    """Alternatives of which the token itself is usually the first, with its logprob; row 0 is undefined."""
    tokens = len(ids)
    top_ids = (rng.integers(0, size, (tokens, ranks)) * 3 + 5).astype(np.int32)
    weights = np.sort(rng.gamma(0.3, size=(tokens, ranks + 2)) + 1e-6, axis=1)[:, ::-1]
    probs = weights / weights.sum(1, keepdims=True)
    place = np.minimum(rng.geometric(0.7, tokens) - 1, ranks - 1)
    top_ids[np.arange(tokens), place] = ids
    logprobs = np.log(probs[np.arange(tokens), place]).astype(np.float32)
    entropy = -(probs * np.log(probs)).sum(1).astype(np.float32)
    top = np.log(probs[:, :ranks]).astype(np.float16)
    for undefined in (logprobs, entropy, top):
        undefined[0] = np.nan
    top_ids[0] = -1
    return {"logprobs": logprobs, "entropy": entropy, "top_token_ids": top_ids, "top_logprobs": top}


def _routing(tokens, layers, experts, top_k, dtype, rng) -> dict[str, NDArray]:
    logits = rng.normal(0, 1.2, (tokens, layers, experts)).astype(dtype)
    order = np.argsort(-logits.astype(np.float32), axis=-1, kind="stable")[..., :top_k]
    chosen = np.exp(np.take_along_axis(logits.astype(np.float32), order, -1))
    weights = (chosen / chosen.sum(-1, keepdims=True)).astype(dtype)
    return {"router_logits": logits, "expert_indices": order.astype(np.uint8), "expert_weights": weights}


def _attention(tokens, layers, heads, kv_heads, d_head, windows, dtype, rng) -> dict[str, NDArray]:
    """Head n of all heads reads its queries from row n of the table on, kv head n its keys likewise."""
    query_table = rng.normal(0, 1.7, (tokens + layers * heads - 1, d_head)).astype(dtype)
    key_table = rng.normal(0, 1.7, (tokens + layers * kv_heads - 1, d_head)).astype(dtype)
    sinks = rng.normal(np.log(min(tokens, 128)) + 3, 2, (layers, heads)).astype(np.float32)
    lse = np.empty((tokens, layers, heads), dtype=np.float32)
    scale, group = d_head**-0.5, heads // kv_heads
    keys = key_table.astype(np.float32).T
    for row in range(0, len(query_table), 512):
        scores = query_table[row : row + 512].astype(np.float32) @ keys * np.float32(scale)
        below = np.zeros((len(scores), keys.shape[1] + 1))
        np.cumsum(np.exp(scores), axis=1, dtype=np.float64, out=below[:, 1:])
        for n in range(layers * heads):
            layer, head = divmod(n, heads)
            at = np.arange(max(row, n), min(row + len(scores), n + tokens))
            token, offset = at - n, layer * kv_heads + head // group
            start = 0 if windows[layer] is None else np.maximum(0, token - windows[layer] + 1)
            total = below[at - row, offset + token + 1] - below[at - row, offset + start]
            lse[token, layer, head] = np.logaddexp(np.log(total), sinks[layer, head])
    windowed = np.lib.stride_tricks.sliding_window_view
    return {
        "queries": windowed(query_table, tokens, axis=0).reshape(layers, heads, d_head, tokens).transpose(0, 1, 3, 2),
        "keys": windowed(key_table, tokens, axis=0).reshape(layers, kv_heads, d_head, tokens).transpose(0, 1, 3, 2),
        "sink_logits": sinks,
        "attention_logsumexp": lse,
    }


def _lens(ids: NDArray, size: int, layers: int, ranks: int, rng: np.random.Generator) -> dict[str, NDArray]:
    """Predictions of the next token that become sure of the right one in the upper layers."""
    tokens = len(ids)
    lens_ids = (rng.integers(0, size, (tokens, layers, ranks)) * 3 + 5).astype(np.int32)
    depth = np.linspace(0, 1, layers)
    sure = rng.random((tokens, layers)) < depth**2
    lens_ids[..., 0] = np.where(sure, np.roll(ids, -1)[:, None], lens_ids[..., 0])
    first = 0.02 + 0.9 * depth**3 * rng.random((tokens, layers))
    probs = first[..., None] * 0.3 ** np.arange(ranks)
    return {"lens_token_ids": lens_ids, "lens_logprobs": np.log(np.minimum(probs, 0.999)).astype(np.float16)}

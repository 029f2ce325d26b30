"""Put the collected arrays together with spans, vocabulary and provenance into a trace."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench import harmony
from workbench.collect import Collector
from workbench.model import Model
from workbench.trace import Span, Trace

__all__ = ["assemble", "special_ids"]

NEAR_TIE = 0.1
"""Routing margin, in logits, under which another kernel or dtype may choose differently."""


def assemble(
    collector: Collector, token_ids: list[int], num_prompt_tokens: int, source: str, facts: dict[str, Any]
) -> Trace:
    """Make a trace of what was collected.

    Args:
        collector: with one row per token.
        token_ids: prompt and completion.
        num_prompt_tokens: how many of them are the prompt.
        source: live or replay.
        facts: ``question`` and, when it was cut, ``ended``; the rest goes into the provenance.
    """
    model = collector.model
    arrays = {"token_ids": np.asarray(token_ids, dtype=np.int32), **collector.arrays()}
    plan = collector.plan
    layers = {
        **dict.fromkeys(("router_logits", "expert_indices", "expert_weights"), plan.router),
        **dict.fromkeys(("queries", "keys", "sink_logits", "attention_logsumexp"), plan.attention),
        **dict.fromkeys(("lens_token_ids", "lens_logprobs", "residual"), plan.residual),
    }
    meta = {
        "num_prompt_tokens": num_prompt_tokens,
        "question": facts.pop("question"),
        "truncated": facts.pop("ended", None),
        "near_tie": NEAR_TIE,
        "layers": {name: list(numbers) for name, numbers in layers.items() if name in arrays},
        "sources": dict.fromkeys(arrays, source),
        "attention": {"scale": model.attention_scale, "windows": model.windows},
        "shape": _shape(model),
        "provenance": {**facts, **_provenance(collector)},
    }
    arrays |= _vocabulary(model, arrays)
    return Trace(arrays, _spans(model, token_ids), meta)


def _shape(model: Model) -> dict[str, int]:
    names = ("num_layers", "num_experts", "top_k", "num_heads", "num_kv_heads", "d_head", "context_length")
    return {name: getattr(model, name) for name in names}


def _provenance(collector: Collector) -> dict[str, Any]:
    model, spec = collector.model, collector.spec
    config = model.config
    return {
        "model": model.name,
        "embedded": model.is_embedded,
        "family": model.family.name,
        "revision": model.revision,
        "weights": model.weights_hash,
        "dtype": model.dtype,
        "device": str(model.device),
        "experts_implementation": getattr(config, "_experts_implementation", None),
        "attention_implementation": getattr(config, "_attn_implementation", None),
        "seams": dict(collector.recorder.seams),
        "capture": {k: v if isinstance(v, bool | int) else list(v) for k, v in asdict(spec).items()},
        "versions": {p: version(p) for p in ("moe-workbench", "torch", "transformers")},
        "platform": platform.platform(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _spans(model: Model, token_ids: Sequence[int]) -> tuple[Span, ...]:
    """Return messages, each followed by its sentences."""
    spans: list[Span] = []
    texts = [harmony.token_bytes(model.tokenizer, i) for i in token_ids]
    special = special_ids(model.tokenizer)
    for message in harmony.parse(model.tokenizer, token_ids):
        spans.append(Span(kind="message", **asdict(message)))
        content_stop = message.stop
        while content_stop > message.content_start and token_ids[content_stop - 1] in special:
            content_stop -= 1
        for start, stop in harmony.sentences(texts, message.content_start, content_stop):
            spans.append(Span(start, stop, start, "sentence", message.role, message.channel))
    return tuple(spans)


def _vocabulary(model: Model, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Keep the bytes of every token id that occurs, so that a trace reads without its tokenizer."""
    named = (arrays[n].ravel() for n in ("token_ids", "top_token_ids", "lens_token_ids") if n in arrays)
    ids = np.unique(np.concatenate(list(named)))
    ids = ids[ids >= 0].astype(np.int32)
    texts = [harmony.token_bytes(model.tokenizer, int(i)) for i in ids]
    return {
        "vocab_ids": ids,
        "vocab_offsets": np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "vocab_special": np.isin(ids, list(special_ids(model.tokenizer))),
    }


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the format's own tokens, such as ``<|end|>``, which are no text."""
    added: Iterable[tuple[int, Any]] = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special)

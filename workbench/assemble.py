"""Put the collected arrays together with spans, vocabulary and provenance into a trace."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench import harmony
from workbench.collect import Collector
from workbench.families import ModelError
from workbench.model import Model
from workbench.sentences import sentences
from workbench.trace import Span, Trace

__all__ = ["Vocabulary", "assemble", "describe", "special_ids", "with_sentences"]

NEAR_TIE = 0.1
"""Routing margin, in logits, under which another kernel or dtype may choose differently."""


def describe(collector: Collector, num_prompt_tokens: int, source: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a trace.

    Args:
        collector: of the rollout.
        num_prompt_tokens: how many tokens are the prompt.
        source: live or replay.
        facts: ``question``, and for the provenance whatever else is known before it runs.
    """
    model, plan = collector.model, collector.plan
    if model.changed_from not in (None, num_prompt_tokens):
        raise ModelError(
            f"the intervention takes the completion to begin at token {model.changed_from}, but here it begins at "
            f"{num_prompt_tokens}: other tokens would be changed than it names; intervene for each prompt by itself"
        )
    layers = {
        **dict.fromkeys(("router_logits", "expert_indices", "expert_weights"), plan.router),
        **dict.fromkeys(("queries", "keys", "attention_logsumexp"), plan.attention),
        **dict.fromkeys(collector.sink_logits(), plan.attention),
        **dict.fromkeys(("lens_token_ids", "lens_logprobs", "residual"), plan.residual),
    }
    names = sorted(collector.wanted | collector.sink_logits().keys())
    changed = {"intervention": list(model.interventions)} if model.interventions else {}
    return changed | {
        "num_prompt_tokens": num_prompt_tokens,
        "question": facts["question"],
        "truncated": None,
        "near_tie": NEAR_TIE,
        "layers": {name: list(layers[name]) for name in names if name in layers},
        "sources": dict.fromkeys(names, source),
        "attention": {"scale": model.attention_scale, "windows": model.windows},
        "shape": _shape(model),
        "provenance": {**{k: v for k, v in facts.items() if k != "question"}, **_provenance(collector)},
    }


def assemble(collector: Collector, meta: dict[str, Any]) -> Trace:
    """Make a trace of what was collected, described by ``meta``."""
    arrays = collector.arrays()
    vocabulary = Vocabulary(collector.model.tokenizer)
    messages = harmony.parse(collector.model.tokenizer, arrays["token_ids"].tolist())
    arrays |= vocabulary.arrays(arrays)
    return Trace(arrays, with_sentences(messages, arrays), meta)


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
        "expert_parallel": model.expert_parallel,
        "attention_implementation": getattr(config, "_attn_implementation", None),
        "seams": dict(collector.recorder.seams),
        "capture": {k: v if isinstance(v, bool | int) else list(v) for k, v in asdict(spec).items()},
        "versions": dict(_versions()),
        "platform": platform.platform(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((package, version(package)) for package in ("moe-workbench", "torch", "transformers"))


def with_sentences(messages: Iterable[harmony.Message], arrays: Mapping[str, NDArray[Any]]) -> tuple[Span, ...]:
    """Return message spans, each followed by the spans of its sentences.

    Args:
        messages: over all tokens.
        arrays: of the trace, ``vocab_*`` among them.
    """
    ids = np.searchsorted(arrays["vocab_ids"], arrays["token_ids"])
    offsets, text = arrays["vocab_offsets"], arrays["vocab_bytes"].tobytes()
    texts = [text[offsets[i] : offsets[i + 1]] for i in ids]
    special = arrays["vocab_special"][ids]
    spans: list[Span] = []
    for message in messages:
        spans.append(Span(kind="message", **asdict(message)))
        stop = message.stop
        while stop > message.content_start and special[stop - 1]:
            stop -= 1
        for begin, end in sentences(texts, message.content_start, stop):
            spans.append(Span(begin, end, begin, "sentence", message.role, message.channel))
    return tuple(spans)


class Vocabulary:
    """The text of token ids, so that a trace reads without its tokenizer; each id is looked up once."""

    def __init__(self, tokenizer: Any) -> None:
        """Start with nothing looked up."""
        self._tokenizer = tokenizer
        self._texts: dict[int, bytes] = {}
        self._special = list(special_ids(tokenizer))

    def arrays(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the ``vocab_*`` arrays for every token id that occurs in ``arrays``."""
        named = (arrays[n].ravel() for n in ("token_ids", "top_token_ids", "lens_token_ids") if n in arrays)
        ids = np.unique(np.concatenate(list(named)))
        ids = ids[ids >= 0].astype(np.int32)
        texts = [self._text(int(i)) for i in ids]
        return {
            "vocab_ids": ids,
            "vocab_offsets": np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64),
            "vocab_bytes": np.frombuffer(b"".join(texts), dtype=np.uint8),
            "vocab_special": np.isin(ids, self._special),
        }

    def _text(self, token_id: int) -> bytes:
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = harmony.token_bytes(self._tokenizer, token_id)
        return text


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the format's own tokens, such as ``<|end|>``, which are no text."""
    added: Iterable[tuple[int, Any]] = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special)

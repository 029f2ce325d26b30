"""A trace: what one rollout said and what the model did, on one token axis.

A `Trace` holds named arrays (numpy, dims in `DIMS`), spans over the token axis, and provenance. It needs numpy
only, so that a laptop without torch can open what a GPU captured.

Alignment. ``logprobs``, ``entropy`` and ``top_*`` at token i describe the distribution that token i was *drawn
from* (NaN at 0). Router, attention, lens and residual at i come from the forward that *read* token i, so the lens
at i speaks of token i + 1.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.attending import AttentionInputs, attention_rows
from workbench.labelled import Labelled, TraceError, ranges

__all__ = ["DIMS", "Attention", "Labelled", "Span", "Trace", "TraceError", "TraceView", "attention_rows"]

DIMS: dict[str, tuple[str, ...]] = {
    "token_ids": ("token",),
    "logprobs": ("token",),
    "entropy": ("token",),
    "top_token_ids": ("token", "rank"),
    "top_logprobs": ("token", "rank"),
    "expert_indices": ("token", "layer", "top_k"),
    "expert_weights": ("token", "layer", "top_k"),
    "router_logits": ("token", "layer", "expert"),
    "queries": ("layer", "head", "token", "d_head"),
    "keys": ("layer", "kv_head", "token", "d_head"),
    "sink_logits": ("layer", "head"),
    "attention_logsumexp": ("token", "layer", "head"),
    "lens_token_ids": ("token", "layer", "rank"),
    "lens_logprobs": ("token", "layer", "rank"),
    "residual": ("token", "layer", "d_model"),
    # The text of every token id that occurs anywhere above, so that a trace can be read without its tokenizer.
    "vocab_ids": ("vocab",),
    "vocab_offsets": ("vocab_edge",),
    "vocab_bytes": ("byte",),
    "vocab_special": ("vocab",),
}
"""Every array a trace may hold, with the dims that are part of its type."""

EMBEDDED_NAMES = frozenset({"tiny", "tiny-hint-said"})
"""What the embedded model and its variants are called, whose results say nothing about gpt-oss"""

PATTERN_LIMIT_BYTES = 2 << 30
LAYER_LIMIT = 10_000  # an empty array may claim any number, and each gets a label
TOKEN_LIMIT_BYTES = 1024  # real vocabularies stay far below; a file that lies must not make text of gigabytes


class Attention(NamedTuple):
    """Attention of some heads and query rows of one layer, float32.

    Rows of ``pattern`` sum to ``1 - sink_mass``: the sink has no value vector and is not a token.
    """

    pattern: Labelled
    """[head, query, key]"""
    sink_mass: Labelled | None
    """[head, query]; None in families without sinks"""


@dataclass(frozen=True)
class Span:
    """A stretch ``[start, stop)`` of the token axis: a message or a sentence.

    For a message, ``start`` is its first header token and ``content_start`` its first content token; ``stop``
    includes the closing token. For a sentence the two starts are equal.
    """

    start: int
    stop: int
    content_start: int
    kind: str
    """message | sentence"""
    role: str
    """system, developer, user, assistant, or a tool's name"""
    channel: str | None = None
    """analysis, commentary, final; None where the format has none"""
    recipient: str | None = None
    content_type: str | None = None
    malformed: str | None = None
    """why the message breaks the format; None when it is well formed"""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Trace:
    """One rollout: arrays on one token axis, spans, provenance.

    Args:
        arrays: name → array with the dims of `DIMS`. What was not captured is absent, never zero.
        spans: messages and the sentences within them, in order.
        meta: JSON-able facts. Required: ``num_prompt_tokens``. Used where present: ``layers`` (array name →
            captured layer numbers), ``sources`` (array name → live | replay | imported), ``attention``
            (``scale`` and ``windows``, one per layer of the model, None = full), ``provenance``, ``question``,
            ``truncated`` (why the rollout was cut), ``near_tie`` (ε of the routing margin).
        path: the file it was opened from or last saved to.

    Raises:
        TraceError: unknown array names, wrong dims, or lengths that disagree.
    """

    arrays: Mapping[str, NDArray[Any]]
    spans: tuple[Span, ...]
    meta: Mapping[str, Any]
    path: Path | None = None

    def __post_init__(self) -> None:
        """Check names, dims and lengths once, so that nobody downstream has to."""
        _check(self.arrays, self.meta)
        for span in self.spans:
            if not 0 <= span.start <= span.content_start <= span.stop <= len(self):
                raise TraceError(f"span {span} is outside the {len(self)} tokens of the trace")

    def __len__(self) -> int:
        """Return the number of tokens, prompt and completion."""
        return len(self.arrays["token_ids"])

    def __repr__(self) -> str:
        """Say in one line what was captured of what."""
        model = self.provenance.get("model", "unknown model")
        tokens = f"{self.num_prompt_tokens} + {len(self) - self.num_prompt_tokens} tokens"
        return f"<Trace of {model}: {tokens}; {', '.join(self.captured)}>"

    @property
    def captured(self) -> tuple[str, ...]:
        """Names of the arrays that are here."""
        return tuple(name for name in DIMS if name in self.arrays and not name.startswith("vocab_"))

    def has(self, name: str, layer: int | None = None) -> bool:
        """Say whether an array (of a layer) was captured."""
        return name in self.arrays and (layer is None or layer in self.layers(name))

    def array(self, name: str) -> Labelled:
        """Return an array with its dims. Raises `TraceError` when it was not captured."""
        if name not in self.arrays:
            known = ", ".join(self.captured)
            raise TraceError(f"{name} is not in this trace. Captured: {known}.")
        dims = DIMS[name]
        coords = {"layer": self.layers(name)} if "layer" in dims else {}
        return Labelled(self.arrays[name], dims, coords, self.source(name))

    def __getattr__(self, name: str) -> Labelled:
        """Give every array of `DIMS` as an attribute: ``trace.expert_indices``."""
        if name in DIMS:
            return self.array(name)
        raise AttributeError(f"a Trace has no attribute {name!r}; arrays: {', '.join(DIMS)}")

    def layers(self, name: str) -> tuple[int, ...]:
        """Return the layer numbers an array was captured for, in its order; none when it has no layers."""
        if name not in self.arrays or "layer" not in DIMS[name]:
            return ()
        recorded = self.meta.get("layers", {}).get(name)
        if recorded is not None:
            return tuple(recorded)
        return tuple(range(self.arrays[name].shape[DIMS[name].index("layer")]))

    def source(self, name: str) -> str:
        """Return live, replay or imported; empty when it was not recorded."""
        return str(self.meta.get("sources", {}).get(name, ""))

    @property
    def num_prompt_tokens(self) -> int:
        """How many of the tokens are the prompt."""
        return int(self.meta["num_prompt_tokens"])

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Model, revision, weights hash, dtype, device, seams, sampling, versions, time."""
        provenance: Mapping[str, Any] = self.meta.get("provenance", {})
        return provenance

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded model or a variant of it made this, by its record or else by the model's name."""
        return bool(self.provenance.get("embedded", self.provenance.get("model") in EMBEDDED_NAMES))

    @cached_property
    def messages(self) -> tuple[Span, ...]:
        """The message spans, in order."""
        return tuple(span for span in self.spans if span.kind == "message")

    @cached_property
    def sentences(self) -> tuple[Span, ...]:
        """The sentence spans, in order."""
        return tuple(span for span in self.spans if span.kind == "sentence")

    def span_at(self, token: int, kind: str = "message") -> Span | None:
        """Return the message or sentence that holds a token."""
        return next((s for s in self.spans if s.kind == kind and s.start <= token < s.stop), None)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token id that occurs in this trace. Raises `TraceError` for any other."""
        at = self._vocab_place(token_id)
        start, stop = (int(offset) for offset in self.arrays["vocab_offsets"][at : at + 2])
        if not 0 <= start <= stop <= min(len(self.arrays["vocab_bytes"]), start + TOKEN_LIMIT_BYTES):
            raise TraceError(f"the text of token id {token_id} is damaged: it is said to be bytes {start} to {stop}")
        return self.arrays["vocab_bytes"][start:stop].tobytes()

    def _vocab_place(self, token_id: int) -> int:
        ids = self.arrays.get("vocab_ids")
        at = -1 if ids is None else int(np.searchsorted(ids, token_id))
        if ids is None or at >= len(ids) or ids[at] != token_id:
            raise TraceError(f"token id {token_id} does not occur in this trace, so its text was not kept")
        return at

    def token_text(self, token: int) -> str:
        """Return the text of the token at a position; bytes that are no whole character become U+FFFD."""
        return self.token_bytes(int(self.arrays["token_ids"][token])).decode("utf-8", "replace")

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """Return the text of the tokens ``[start, stop)``, special tokens included."""
        ids = self.arrays["token_ids"][start:stop]
        return b"".join(self.token_bytes(int(i)) for i in ids).decode("utf-8", "replace")

    def content(self, span: Span) -> str:
        """Return the text of a span without its header and closing token."""
        stop = span.stop
        while stop > span.content_start and self.is_special(stop - 1):
            stop -= 1
        return self.text(span.content_start, stop)

    def is_special(self, token: int) -> bool:
        """Say whether the token at a position is one of the format's own, such as ``<|end|>``."""
        at = self._vocab_place(int(self.arrays["token_ids"][token]))
        return bool(self.arrays["vocab_special"][at])

    def channel_text(self, channel: str) -> str:
        """Return the completion's text on a channel, messages joined by a newline."""
        spans = (m for m in self.messages if m.channel == channel and m.stop > self.num_prompt_tokens)
        return "\n".join(self.content(m) for m in spans)

    @property
    def final_text(self) -> str:
        """The answer: the completion's final channel."""
        return self.channel_text("final")

    @property
    def analysis_text(self) -> str:
        """The raw chain of thought: the completion's analysis channel."""
        return self.channel_text("analysis")

    def __getitem__(self, index: "int | slice | Span") -> "TraceView":
        """Return a view of a token, a slice of tokens, or a span, that knows its place in the whole."""
        if isinstance(index, Span):
            return TraceView(self, index.start, index.stop)
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise TraceError(f"expected a slice of consecutive tokens, got step {step}")
            return TraceView(self, start, max(start, stop))
        token = index + len(self) if index < 0 else index
        if not 0 <= token < len(self):
            raise IndexError(f"expected a token below {len(self)}, got {index}")
        return TraceView(self, token, token + 1)

    def __iter__(self) -> Iterator["TraceView"]:
        """Step through the tokens."""
        return (self[i] for i in range(len(self)))

    def attention(self, layer: int, head: int | None = None, rows: slice | Iterable[int] | None = None) -> Attention:
        """Compute attention exactly from the captured queries, keys and sink logits.

        Args:
            layer: a captured layer.
            head: one head, or None for all.
            rows: query tokens, or None for all.

        Returns:
            `Attention`: pattern [head, query, key] and sink mass [head, query], float32. The softmax runs over
            ``[q·kᵀ·scale + mask, sink]`` and the sink column is dropped (gpt-oss `sdpa` in openai/gpt-oss).

        Raises:
            TraceError: the layer was not captured, the head does not exist, or the result exceeds 2 GB.
        """
        inputs = self.attention_inputs(layer, head)
        query_rows = _rows(rows, len(self))
        heads = range(self.arrays["queries"].shape[1]) if head is None else (int(head),)
        _check_pattern_size(len(heads), len(query_rows), len(self))
        pattern, sink_mass = attention_rows(*inputs, rows=query_rows)
        labels = {"head": tuple(heads), "query": tuple(query_rows.tolist())}
        source = f"computed from {self.source('queries') or 'captured'} queries and keys, float32"
        mass = None if sink_mass is None else Labelled(sink_mass, ("head", "query"), labels, source)
        return Attention(Labelled(pattern, ("head", "query", "key"), labels, source), mass)

    def attention_inputs(self, layer: int, head: int | None = None) -> AttentionInputs:
        """Return the queries, keys, sink logits, scale and window of a layer, for `attention_rows`; no copy is made.

        Args:
            layer: a captured layer.
            head: one head, with the kv head it reads; None for all.

        Raises:
            TraceError: the layer was not captured, or the head does not exist.
        """
        at = self._attention_layer(layer)
        queries, keys = self.arrays["queries"][at], self.arrays["keys"][self.layers("keys").index(layer)]
        if head is not None and not 0 <= head < len(queries):
            raise TraceError(f"expected a head below {len(queries)}, got {head}")
        sinks = self.arrays.get("sink_logits")
        if sinks is not None and layer not in self.layers("sink_logits"):
            raise TraceError(f"the sink logits of layer {layer} are not in this trace, so its attention is unknown")
        of_layer = None if sinks is None else sinks[self.layers("sink_logits").index(layer)]
        if head is not None:
            kv_head = head // (len(queries) // len(keys))
            queries, keys = queries[head : head + 1], keys[kv_head : kv_head + 1]
            of_layer = None if of_layer is None else of_layer[head : head + 1]
        attention = self.meta["attention"]
        return AttentionInputs(queries, keys, of_layer, attention["scale"], attention["windows"][layer])

    def _attention_layer(self, layer: int) -> int:
        if "shard" in self.meta:
            raise TraceError(
                "This file is one shard of a capture that did not finish, so attention lacks the keys of the shards "
                "before it. Open the folder with workbench.shards.recover(folder)."
            )
        captured = [n for n in self.layers("queries") if n in self.layers("keys")]
        if captured and not len(self.meta.get("attention", {}).get("windows", ())) > max(captured):
            raise TraceError(
                "this trace does not record the attention scale and a window per layer, so attention of "
                "its queries and keys is undefined; give meta['attention'] = {'scale': …, 'windows': […]}"
            )
        if layer in captured:
            return self.layers("queries").index(layer)
        raise TraceError(
            f"Attention of layer {layer} is not in this trace. Expected a captured layer, got {layer}. "
            f"Captured: {ranges(captured) or 'none'}. Capture again with capture=CaptureSpec(attention=[{layer}])."
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the trace to one ``.safetensors`` file; see `workbench.trace_file`."""
        from workbench.trace_file import save_trace  # the file format sits downstream of the trace

        save_trace(self, path)
        object.__setattr__(self, "path", Path(path))


@dataclass(frozen=True, eq=False)
class TraceView:
    """Consecutive tokens ``[start, stop)`` of a trace; arrays are those rows, positions stay those of the whole."""

    trace: Trace
    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of tokens in view."""
        return self.stop - self.start

    def array(self, name: str) -> Labelled:
        """Return the rows of an array that belong to the tokens in view."""
        whole = self.trace.array(name)
        if "token" not in whole.dims:
            return whole
        rows = [slice(None)] * len(whole.dims)
        rows[whole.dims.index("token")] = slice(self.start, self.stop)
        coords = {**whole.coords, "token": tuple(range(self.start, self.stop))}
        return Labelled(whole.values[tuple(rows)], whole.dims, coords, whole.source)

    def __getattr__(self, name: str) -> Labelled:
        """Give every array of `DIMS` as an attribute, restricted to the tokens in view."""
        if name in DIMS:
            return self.array(name)
        raise AttributeError(f"a TraceView has no attribute {name!r}; arrays: {', '.join(DIMS)}")

    @property
    def text(self) -> str:
        """The text of the tokens in view."""
        return self.trace.text(self.start, self.stop)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans that overlap the view, uncut, in positions of the whole."""
        return tuple(s for s in self.trace.spans if s.start < self.stop and s.stop > self.start)

    def attention(self, layer: int, head: int | None = None) -> Attention:
        """Compute attention from the tokens in view to every token of the whole trace."""
        return self.trace.attention(layer, head, slice(self.start, self.stop))


def _check(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    unknown = sorted(set(arrays) - set(DIMS))
    if unknown:
        raise TraceError(f"unknown arrays {', '.join(unknown)}; a trace may hold {', '.join(DIMS)}")
    if "token_ids" not in arrays:
        raise TraceError("a trace needs token_ids [token]")
    sizes: dict[tuple[str, str], int] = {}
    for name, array in arrays.items():
        if array.ndim != len(DIMS[name]):
            raise TraceError(f"{name}: expected dims {DIMS[name]}, got shape {array.shape}")
        for dim, size in zip(DIMS[name], array.shape, strict=True):
            if dim == "layer" and size > LAYER_LIMIT:
                raise TraceError(f"{name}: expected at most {LAYER_LIMIT:,} layers, got {size:,}")
            # Each array is captured for the layers asked for, and keeps as many ranks as asked for.
            key = (dim, name if dim in ("layer", "rank") else "")
            if sizes.setdefault(key, size) != size:
                raise TraceError(f"{name}: expected {sizes[key]} along {dim}, got {size}")
    _check_pairs(sizes, arrays)
    prompt = meta.get("num_prompt_tokens")
    if not isinstance(prompt, int) or isinstance(prompt, bool) or not 0 <= prompt <= len(arrays["token_ids"]):
        raise TraceError(f"expected num_prompt_tokens within {len(arrays['token_ids'])} tokens, got {prompt!r}")
    for name, layers in meta.get("layers", {}).items():
        if name not in arrays:
            continue
        if "layer" not in DIMS[name] or len(layers) != sizes["layer", name]:
            raise TraceError(f"{name}: {len(layers)} layer numbers for shape {arrays[name].shape}")


def _check_pairs(sizes: Mapping[tuple[str, str], int], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check lengths that follow from one another."""
    vocabulary = {name for name in DIMS if name.startswith("vocab_")}
    if arrays.keys() & vocabulary and not vocabulary <= arrays.keys():
        raise TraceError(f"expected all of {', '.join(sorted(vocabulary))}, got {', '.join(sorted(arrays))}")
    words = sizes.get(("vocab", ""))
    if words is not None and sizes["vocab_edge", ""] != words + 1:
        raise TraceError(f"vocab_offsets: expected {words + 1} for {words} tokens, got {sizes['vocab_edge', '']}")
    heads, kv_heads = sizes.get(("head", "")), sizes.get(("kv_head", ""))
    if heads is not None and kv_heads is not None and (heads == 0 or kv_heads == 0 or heads % kv_heads):
        raise TraceError(f"keys: expected a number of kv heads that divides {heads} heads, got {kv_heads}")


def _rows(rows: slice | Iterable[int] | None, num_tokens: int) -> NDArray[np.int64]:
    every = np.arange(num_tokens)
    if rows is None:
        return every
    if isinstance(rows, slice):
        return every[rows]
    chosen = np.asarray(list(rows), dtype=np.int64)
    outside = chosen[(chosen < 0) | (chosen >= num_tokens)]
    if outside.size:
        raise TraceError(f"expected rows within 0–{num_tokens - 1}, got {int(outside[0])}")
    return chosen


def _check_pattern_size(heads: int, rows: int, tokens: int) -> None:
    size = 4 * heads * rows * tokens
    if size > PATTERN_LIMIT_BYTES:
        raise TraceError(
            f"attention of {heads} heads x {rows} rows x {tokens} keys would take {size / 2**30:.1f} GB, "
            f"over the limit of {PATTERN_LIMIT_BYTES / 2**30:.0f} GB; pass head= or fewer rows="
        )

"""What AttentionView needs of a trace beyond its arrays: log-sum-exps by head, and maps that are computed here.

    head/attention_logsumexp/12/5/0     page 0 of the tokens of one head
    tile/attention_logsumexp/12/45      page 45 of the tokens, all heads of one layer [head, token]
    map/stretch_attention/12/5          stretches × what they read, of one head [stretch, stretch + 2], float16
    map/stretch_attention_mean/12/1     the mean over the heads of kv group 1
    map/attention_overview/12/5/3       stripe 3 of the overview of one head, uint8

Maps are computed by streaming over rows: memory is bounded by a block of rows, and no token × token array is made.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from widgets.attention_maps import HeadAttention, Overview, Stretches, encode_overview
from widgets.blocks import TraceBlocks
from workbench.trace import Trace, TraceError

__all__ = ["AttentionBlocks"]

LSE = "attention_logsumexp"
ATTENTION = ("queries", "keys", "sink_logits", LSE)
MAPS = {"stretch_attention": "float16", "stretch_attention_mean": "float16", "attention_overview": "uint8"}
PRELOADED_PAIRS = 20_000_000
"""Pairs of tokens, over all heads of all layers, up to which the maps come with the view."""
GROUP_PAIRS = 600_000_000
"""Pairs that one answer may take: some seconds of one core."""


@dataclass(frozen=True)
class AttentionBlocks(TraceBlocks):
    """Cuts the attention of a trace into blocks; see the module."""

    @classmethod
    def of(cls, trace: Trace, preload_limit: int) -> "AttentionBlocks":
        """Return the blocks of a trace's attention alone: what else it holds is not sent."""
        kept = [n for n in trace.arrays if n in (*ATTENTION, "token_ids") or n.startswith("vocab_")]
        return cls(Trace({n: trace.arrays[n] for n in kept}, trace.spans, trace.meta), preload_limit)

    def has(self, name: str) -> bool:
        """Say whether an array or a map can be sent."""
        return name in MAPS or super().has(name)

    def preload(self) -> dict[str, bytes]:
        """Return the blocks to send at once: everything of a small trace, and its maps where they are cheap."""
        keys = [f"all/{name}" for name in ("token_ids", "sink_logits") if self.has(name)]
        if self.is_small:
            names = [name for name in ("queries", "keys", LSE) if self.has(name)]
            keys += [k for name in names for layer in self.layers(name) for k in self._head_keys(name, layer)]
            keys += self._map_keys()
        return {key: self.read(key) for key in keys}

    def _head_keys(self, name: str, layer: int) -> list[str]:
        pages = -(-len(self.trace) // self.page["head"])
        return [f"head/{name}/{layer}/{h}/{p}" for h in range(self._heads(name)) for p in range(pages)]

    def _map_keys(self) -> list[str]:
        heads, groups = self._heads("queries"), self._heads("keys")
        layers = self.attention_layers
        if len(layers) * heads * len(self.trace) ** 2 > PRELOADED_PAIRS:
            return []
        keys = [f"map/stretch_attention/{layer}/{h}" for layer in layers for h in range(heads)]
        keys += [f"map/stretch_attention_mean/{layer}/{g}" for layer in layers for g in range(groups)]
        stripes = self.overview.num_stripes
        return keys + [
            f"map/attention_overview/{layer}/{h}/{s}" for layer in layers for h in range(heads) for s in range(stripes)
        ]

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers whose attention can be computed: queries and keys, and sink logits where the family has them."""
        needed = [n for n in ATTENTION[:3] if n in self.trace.arrays]
        return tuple(n for n in self.trace.layers("queries") if all(n in self.trace.layers(name) for name in needed))

    @property
    def overview(self) -> Overview:
        """How the whole length is pooled."""
        return Overview.of(len(self.trace))

    def facts(self) -> dict[str, Any]:
        """Return everything that is not an array, as JSON."""
        facts = super().facts()
        stretches = Stretches.of(self.trace)
        facts["arrays"] |= {name: {"dtype": dtype} for name, dtype in MAPS.items()}
        facts["attention"]["layers"] = list(self.attention_layers)
        facts["maps"] = {
            "stretches": stretches.spans.tolist(),
            "sentences": stretches.sentences.tolist(),
            "factor": self.overview.factor,
            "bins": self.overview.num_bins,
            "stripe": self.overview.stripe,
            "noMean": {n: words for n in self.attention_layers if (words := self._why_no_mean(n))},
        }
        return facts

    def _why_no_mean(self, layer: int) -> str:
        """Say why the mean over heads is not offered in a layer; empty when it is."""
        tokens, heads = len(self.trace), self._heads("queries")
        window = self.trace.meta["attention"]["windows"][layer] or tokens
        pairs = heads // self._heads("keys") * tokens * min(tokens, window) // 2
        if pairs <= GROUP_PAIRS:
            return ""
        return f"the mean of {heads} heads over {tokens:,} tokens would keep the kernel busy for minutes"

    def _cut(self, kind: str, name: str, numbers: list[int]) -> NDArray[Any]:
        match kind, name, numbers:
            case "head", "attention_logsumexp", [layer, head, page]:
                return self._logsumexp(layer, head)[self._slice("head", page)]
            case "tile", "attention_logsumexp", [layer, page]:
                at = self.layers(LSE).index(layer)
                return self.trace.arrays[LSE][self._slice("tile", page), at].T
            case "map", "stretch_attention", [layer, head]:
                return self._attention(layer, head).to_stretches(Stretches.of(self.trace).spans).astype(np.float16)
            case "map", "stretch_attention_mean", [layer, group]:
                return self._mean_of_group(layer, group).astype(np.float16)
            case "map", "attention_overview", [layer, head, stripe]:
                return encode_overview(*self.overview.of_stripe(self._attention(layer, head), stripe))
        return super()._cut(kind, name, numbers)

    def _logsumexp(self, layer: int, head: int) -> NDArray[Any]:
        if not 0 <= head < self._heads(LSE):
            raise IndexError(head)
        return self.trace.arrays[LSE][:, self.layers(LSE).index(layer), head]

    def _attention(self, layer: int, head: int) -> HeadAttention:
        """Return the attention of one head. Raises `TraceError` when the layer was not captured."""
        if layer not in self.attention_layers:
            raise TraceError(f"attention of layer {layer} is not in this trace")
        trace, heads, groups = self.trace, self._heads("queries"), self._heads("keys")
        if not 0 <= head < heads:
            raise IndexError(head)

        def of(name: str, at: int) -> NDArray[Any]:
            values: NDArray[Any] = trace.arrays[name][trace.layers(name).index(layer), at]
            return values

        return HeadAttention(
            of("queries", head),
            of("keys", head * groups // heads).astype(np.float32),
            of("sink_logits", head) if trace.has("sink_logits") else None,
            self._logsumexp(layer, head) if trace.has(LSE, layer) else None,
            trace.meta["attention"]["scale"],
            trace.meta["attention"]["windows"][layer],
        )

    def _mean_of_group(self, layer: int, group: int) -> NDArray[np.float32]:
        """Return the mean of the maps of a kv group's heads."""
        if words := self._why_no_mean(layer):
            raise TraceError(words)
        size, spans = self._heads("queries") // self._heads("keys"), Stretches.of(self.trace).spans
        if not 0 <= group < self._heads("keys"):
            raise IndexError(group)
        maps = (self._attention(layer, h).to_stretches(spans) for h in range(group * size, (group + 1) * size))
        total: NDArray[np.float32] = sum(maps, np.zeros((), np.float32)) / np.float32(size)
        return total

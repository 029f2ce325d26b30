"""What AttentionView needs of a trace beyond its arrays: log-sum-exps by head, and maps that are computed here.

    head/attention_logsumexp/12/5/0     page 0 of the tokens of one head
    tile/attention_logsumexp/12/45      page 45 of the tokens, all heads of one layer [head, token]
    map/stretch_attention/12/5/0        stripe 0 of what stretches read, of one head [stretch, stretch + 2], float16
    map/stretch_attention_mean/12/3     stripe 3 of the same, the mean over the layer's heads
    map/attention_overview/12/5/3       stripe 3 of the overview of one head, uint8

No token × token array is made or sent: maps are computed by streaming, one stripe per answer.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from widgets.attention_maps import Overview, Stretches, encode_overview
from widgets.blocks import TraceBlocks
from workbench.trace import Trace

__all__ = ["AttentionBlocks"]

LSE = "attention_logsumexp"
ATTENTION = ("queries", "keys", "sink_logits", LSE)
MAPS = {"stretch_attention": "float16", "stretch_attention_mean": "float16", "attention_overview": "uint8"}
PRELOADED_PAIRS = 4_000_000
"""Pairs of tokens, over all heads of all layers, up to which the maps come with the view."""


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
        """Return the keys of all maps; none where they would take long."""
        layers, heads = self.attention_layers, self._heads("queries")
        if len(layers) * heads * len(self.trace) ** 2 > PRELOADED_PAIRS:
            return []
        keys = []
        for layer in layers:
            stripes = {name: range(-(-rows // size)) for name, (rows, size) in self._stripes(layer).items()}
            keys += [f"stretch_attention/{layer}/{h}/{s}" for h in range(heads) for s in stripes["one"]]
            keys += [f"stretch_attention_mean/{layer}/{s}" for s in stripes["mean"]]
            keys += [f"attention_overview/{layer}/{h}/{s}" for h in range(heads) for s in stripes["overview"]]
        return [f"map/{key}" for key in keys]

    def _stripes(self, layer: int) -> dict[str, tuple[int, int]]:
        """Return the rows of each map of a layer, and of one stripe of it."""
        tokens, window = len(self.trace), self.trace.meta["attention"]["windows"][layer]
        stretches, overview = self.stretches, self.overview(layer)
        one, mean = (stretches.per_stripe(tokens, window, n) for n in (1, self._heads("queries")))
        count = len(stretches.spans)
        return {"one": (count, one), "mean": (count, mean), "overview": (overview.num_bins, overview.stripe)}

    @cached_property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers whose attention can be computed: queries and keys, and sink logits where the family has them."""
        needed = [n for n in ATTENTION[:3] if n in self.trace.arrays]
        return tuple(n for n in self.trace.layers("queries") if all(n in self.trace.layers(name) for name in needed))

    @cached_property
    def stretches(self) -> Stretches:
        """What the rows and columns of the map of sentences are."""
        return Stretches.of(self.trace)

    def overview(self, layer: int) -> Overview:
        """Return how the whole length is pooled in a layer."""
        return Overview.of(len(self.trace), self.trace.meta["attention"]["windows"][layer])

    def facts(self) -> dict[str, Any]:
        """Return everything that is not an array, as JSON."""
        facts = super().facts()
        facts["arrays"] |= {name: {"dtype": dtype} for name, dtype in MAPS.items()}
        layers = facts["attention"]["layers"] = list(self.attention_layers)
        facts["maps"] = {
            "stretches": [[span.start, span.stop] for span in self.stretches.spans],
            "sentences": self.stretches.sentences.tolist(),
            "factor": self.overview(layers[0]).factor,
            "bins": self.overview(layers[0]).num_bins,
            "perStripe": {n: {name: size for name, (_, size) in self._stripes(n).items()} for n in layers},
        }
        return facts

    def _cut(self, kind: str, name: str, numbers: list[int]) -> NDArray[Any]:
        match kind, name, numbers:
            case "head", "attention_logsumexp", [layer, head, page]:
                return self._logsumexp(layer, head)[self._slice("head", page)]
            case "tile", "attention_logsumexp", [layer, page]:
                at = self.layers(LSE).index(layer)
                return self.trace.arrays[LSE][self._slice("tile", page), at].T
            case "map", "stretch_attention", [layer, head, stripe]:
                return self.stretches.attention(self.trace, layer, head, stripe).astype(np.float16)
            case "map", "stretch_attention_mean", [layer, stripe]:
                return self.stretches.attention(self.trace, layer, None, stripe).astype(np.float16)
            case "map", "attention_overview", [layer, head, stripe]:
                inputs = self.trace.attention_inputs(layer, head)
                return encode_overview(*self.overview(layer).of_stripe(inputs, stripe))
        return super()._cut(kind, name, numbers)

    def _logsumexp(self, layer: int, head: int) -> NDArray[Any]:
        if not 0 <= head < self._heads(LSE):
            raise IndexError(head)
        return self.trace.arrays[LSE][:, self.layers(LSE).index(layer), head]

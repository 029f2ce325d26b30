"""What the browser needs of a trace: facts as JSON, and arrays as named blocks of bytes.

A block is a piece of one array that the browser asks for by key:

    all/token_ids                       a whole array
    token/router_logits/3               page 3 of the tokens, all layers
    layer/expert_indices/12             all tokens of one layer
    head/keys/12/1/0                    page 0 of the tokens of one head (kv head for keys)
    tile/queries/12/45                  page 45 of the tokens, all heads of one layer

A small trace sends everything at once, so that it steps with no kernel; a large one is fetched block by block.
Values are sent as they were captured, bit for bit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.routing import router_entropy
from workbench.trace import DIMS, Trace, TraceError

__all__ = ["PRELOAD_LIMIT_BYTES", "TraceBlocks"]

PRELOAD_LIMIT_BYTES = 8 << 20
TOKEN_PAGE, HEAD_PAGE, TILE_PAGE = 256, 16_384, 128

WHOLE = ("token_ids", "logprobs", "entropy")
BY_TOKEN = (
    "expert_indices",
    "expert_weights",
    "router_logits",
    "attention_logsumexp",
    "lens_token_ids",
    "lens_logprobs",
    "top_token_ids",
    "top_logprobs",
)
BY_LAYER = ("expert_indices", "expert_weights", "router_entropy")
BY_HEAD = ("queries", "keys", "sink_mass")
TILED = ("queries", "keys")

READABLE = ("uint8", "uint16", "int32", "float16", "bfloat16", "float32")
SENT_AS = {"int64": "int32", "float64": "float32"}

# What a derived array is computed from.
NEEDS = {"router_entropy": ("router_logits",), "sink_mass": ("attention_logsumexp", "sink_logits")}
DERIVED_DIMS = {"router_entropy": ("token", "layer"), "sink_mass": ("token", "layer", "head")}


@dataclass(frozen=True)
class TraceBlocks:
    """Cuts a trace into blocks; see the module.

    Args:
        trace: the trace.
        preload_limit: bytes of arrays up to which everything is sent at once.
    """

    trace: Trace
    preload_limit: int = PRELOAD_LIMIT_BYTES

    @property
    def is_small(self) -> bool:
        """Say whether every block is sent at once."""
        shown = (*WHOLE, *BY_TOKEN, *TILED)
        return sum(self.trace.arrays[n].nbytes for n in shown if n in self.trace.arrays) <= self.preload_limit

    @property
    def page(self) -> dict[str, int]:
        """Tokens per page of each kind of block."""
        whole = max(1, len(self.trace))
        return {"token": whole if self.is_small else TOKEN_PAGE, "head": HEAD_PAGE, "tile": TILE_PAGE}

    def has(self, name: str) -> bool:
        """Say whether an array, captured or derived, can be sent."""
        return all(self.trace.has(n) for n in NEEDS.get(name, (name,)))

    def preload(self) -> dict[str, bytes]:
        """Return the blocks to send at once: all of a small trace, those on the token axis alone of a large one."""
        keys = [f"all/{name}" for name in (*WHOLE, "sink_logits") if self.has(name)]
        if self.is_small:
            keys += self._every_key()
        return {key: self.read(key) for key in keys}

    def _every_key(self) -> Iterator[str]:
        yield from (f"token/{name}/0" for name in BY_TOKEN if self.has(name))
        for name in filter(self.has, BY_LAYER):
            yield from (f"layer/{name}/{layer}" for layer in self.layers(name))
        for name in filter(self.has, BY_HEAD):
            for layer in self.layers(name):
                pages = -(-len(self.trace) // HEAD_PAGE)
                yield from (f"head/{name}/{layer}/{h}/{p}" for h in range(self._heads(name)) for p in range(pages))

    def layers(self, name: str) -> tuple[int, ...]:
        """Return the layers of an array, captured or derived."""
        needed = [self.trace.layers(n) for n in NEEDS.get(name, (name,))]
        return tuple(layer for layer in needed[0] if all(layer in n for n in needed))

    def _heads(self, name: str) -> int:
        source = NEEDS.get(name, (name,))[-1]
        axis = next(i for i, dim in enumerate(DIMS[source]) if dim in ("head", "kv_head"))
        return int(self.trace.arrays[source].shape[axis])

    def read(self, key: str) -> bytes:
        """Return the bytes of a block, C order, little endian. Raises `TraceError` for a key that names none."""
        kind, _, rest = key.partition("/")
        name, *numbers = rest.split("/")
        if not self.has(name):
            raise TraceError(f"{name!r} is not in this trace. Captured: {', '.join(self.trace.captured)}.")
        try:
            values = self._cut(kind, name, [int(n) for n in numbers])
        except TraceError:
            raise  # a ValueError too, and says more
        except (ValueError, IndexError) as error:
            raise TraceError(f"expected the key of a block, such as token/router_logits/0, got {key!r}") from error
        return np.ascontiguousarray(for_browser(values)).tobytes()

    def read_all(self, keys: Iterable[Any]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Return the blocks of keys, and why a key has none."""
        found: dict[str, bytes] = {}
        failed: dict[str, str] = {}
        for key in map(str, keys):
            try:
                found[key] = self.read(key)
            except TraceError as error:
                failed[key] = str(error)
        return found, failed

    def _cut(self, kind: str, name: str, numbers: list[int]) -> NDArray[Any]:
        match kind, numbers:
            case "all", [] if name in (*WHOLE, "sink_logits"):
                return self.trace.arrays[name]
            case "token", [page] if name in BY_TOKEN:
                return self.trace.arrays[name][self._slice("token", page)]
            case "layer", [layer] if name in BY_LAYER:
                return self._layer(name, layer)
            case "head", [layer, head, page] if name in BY_HEAD:
                return self._head(name, layer, head)[self._slice("head", page)]
            case "tile", [layer, page] if name in TILED:
                at = self.layers(name).index(layer)
                return self.trace.arrays[name][at, :, self._slice("tile", page)]
        raise ValueError(f"no block of kind {kind!r} for {name} {numbers}")

    def _slice(self, kind: str, page: int) -> slice:
        size = self.page[kind]
        if not 0 <= page * size < max(1, len(self.trace)):
            raise IndexError(page)
        return slice(page * size, (page + 1) * size)

    def _layer(self, name: str, layer: int) -> NDArray[Any]:
        if name == "router_entropy":
            at = self.trace.layers("router_logits").index(layer)
            return router_entropy(self.trace.arrays["router_logits"][:, at : at + 1]).values[:, 0].astype(np.float32)
        return self.trace.arrays[name][:, self.layers(name).index(layer)]

    def _head(self, name: str, layer: int, head: int) -> NDArray[Any]:
        if not 0 <= head < self._heads(name):
            raise IndexError(head)
        if name == "sink_mass":
            return self.sink_mass(layer, head)
        values: NDArray[Any] = self.trace.arrays[name][self.layers(name).index(layer), head]
        return values

    def sink_mass(self, layer: int, head: int) -> NDArray[np.float32]:
        """Return ``exp(sink logit - logsumexp)`` of a head [token], float32."""
        lse = self.trace.array("attention_logsumexp").sel(layer=layer, head=head)
        sink = self.trace.array("sink_logits").sel(layer=layer, head=head)
        mass: NDArray[np.float32] = np.exp(np.float32(sink.values) - lse.values.astype(np.float32))
        return mass

    def facts(self) -> dict[str, Any]:
        """Return everything that is not an array, as JSON."""
        trace = self.trace
        provenance = trace.provenance
        return {
            "question": str(trace.meta.get("question") or "Trace"),
            "effort": provenance.get("effort"),
            "model": str(provenance.get("model", "unknown model")),
            "embedded": trace.is_embedded,
            "dtype": str(provenance.get("dtype", "")).removeprefix("torch."),
            "temperature": (provenance.get("sampling") or provenance).get("temperature"),
            "truncated": trace.meta.get("truncated"),
            "numTokens": len(trace),
            "numPromptTokens": trace.num_prompt_tokens,
            "nearTie": float(trace.meta.get("near_tie", 0.1)),
            **self.shape(),
            "attention": {
                "scale": trace.meta.get("attention", {}).get("scale"),
                "windows": list(trace.meta.get("attention", {}).get("windows", [])),
            },
            "arrays": {name: self._describe(name) for name in (*DIMS, *NEEDS) if self._is_shown(name)},
            "page": self.page,
            "preloaded": self.is_small,
            "spans": [
                [s.kind, s.start, s.content_start, s.stop, s.role, s.channel, s.recipient, s.content_type, s.malformed]
                for s in trace.spans
            ],
            "vocabulary": self._vocabulary(),
        }

    def counts(self) -> dict[str, int]:
        """Return how many tokens, layers, heads and experts a selection may choose from."""
        shape = self.shape()
        named = {"layer": "numLayers", "head": "numHeads", "expert": "numExperts"}
        return {"token": len(self.trace)} | {name: shape[fact] for name, fact in named.items()}

    def shape(self) -> dict[str, int]:
        """Return the numbers of layers, heads, kv heads, experts, experts per token and d_head; 0 where unknown."""
        trace, recorded = self.trace, self.trace.meta.get("shape", {})
        sizes: dict[str, int] = {}
        for name in trace.captured:
            sizes |= dict(zip(DIMS[name], trace.arrays[name].shape, strict=True))
        seen = [max(trace.layers(n), default=-1) + 1 for n in trace.captured if "layer" in DIMS[n]]
        windows = trace.meta.get("attention", {}).get("windows", ())
        experts = sizes.get("expert", 0)
        if not experts and trace.has("expert_indices") and trace.arrays["expert_indices"].size:
            experts = int(trace.arrays["expert_indices"].max()) + 1
        return {
            "numLayers": int(recorded.get("num_layers", max([*seen, len(windows), 1]))),
            "numExperts": int(recorded.get("num_experts", experts)),
            "topK": int(recorded.get("top_k", sizes.get("top_k", 0))),
            "numHeads": int(recorded.get("num_heads", sizes.get("head", 0))),
            "numKvHeads": int(recorded.get("num_kv_heads", sizes.get("kv_head", 0))),
            "dHead": int(recorded.get("d_head", sizes.get("d_head", 0))),
        }

    def _is_shown(self, name: str) -> bool:
        return not name.startswith("vocab_") and self.has(name)

    def _describe(self, name: str) -> dict[str, Any]:
        if name in NEEDS:
            return {"dtype": "float32", "layers": list(self.layers(name)), "dims": DERIVED_DIMS[name]}
        array, dims = self.trace.arrays[name], DIMS[name]
        described = {
            "dtype": browser_dtype(array),
            "shape": list(array.shape),
            "dims": list(dims),
            "source": self.trace.source(name),
        }
        return described | ({"layers": list(self.layers(name))} if "layer" in dims else {})

    def _vocabulary(self) -> dict[str, Any]:
        """Return the texts of the occurring ids; ``raw`` marks those that are part of a character, as latin-1."""
        arrays = self.trace.arrays
        if "vocab_ids" not in arrays:
            return {"ids": [], "texts": [], "raw": [], "special": []}
        data, edges = arrays["vocab_bytes"].tobytes(), arrays["vocab_offsets"].tolist()
        texts, raw = [], []
        for at, (start, stop) in enumerate(pairwise(edges)):
            try:
                texts.append(data[start:stop].decode("utf-8"))
            except UnicodeDecodeError:
                texts.append(data[start:stop].decode("latin-1"))
                raw.append(at)
        special = np.flatnonzero(arrays["vocab_special"]).tolist() if "vocab_special" in arrays else []
        return {"ids": arrays["vocab_ids"].tolist(), "texts": texts, "raw": raw, "special": special}


def browser_dtype(array: NDArray[Any]) -> str:
    """Return the dtype an array is sent in; raises `TraceError` for one that the browser cannot read."""
    name = SENT_AS.get(array.dtype.name, array.dtype.name)
    if name not in READABLE:
        raise TraceError(f"expected an array of dtype {', '.join(READABLE)}, got {name}")
    return name


def for_browser(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the dtype of `browser_dtype`."""
    return array if array.dtype.name in READABLE else array.astype(browser_dtype(array))

"""A model that is loaded, and the facts that capture needs of it."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.families import Family, ModelError, has_router
from workbench.trace import EMBEDDED_NAMES

__all__ = ["Model"]

HASHED_WHOLE_BYTES = 256 << 20


@dataclass(eq=False)
class Model:
    """A resident model with its tokenizer and the facts that capture needs.

    Attributes:
        hf: the transformers model, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        family: where the router and the rest are found.
        name: what was loaded: ``tiny``, a folder, a hub id, or the class of a model given in memory.
        folder: where local weights came from; None for a hub id or a model in memory.
    """

    hf: Any
    tokenizer: Any
    family: Family
    name: str
    folder: Path | None = None
    revision: str | None = None
    interventions: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """what changes the model now, as traces made meanwhile record it; `workbench.experiments` writes it"""
    changed_from: int | None = field(default=None, repr=False)
    """where those changes take the completion to begin; None where they do not ask"""
    remote: bool | str = False
    """where it runs: here; True: on NDIF; an address: on that server; "local": here, on the way to a server"""
    edits: Callable[[Sequence[int], int], tuple[Mapping[tuple[int, str], Any], dict[Any, Any]]] | None = field(
        default=None, repr=False
    )
    """what changes one that runs elsewhere while it reads tokens and draws more; `workbench.experiments` writes it"""
    _weights_hash: str | None = field(default=None, repr=False)

    @property
    def config(self) -> Any:
        """The transformers config."""
        return self.hf.config

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        layers: nn.ModuleList = self.hf.get_submodule(self.family.layers)
        return layers

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.layers)

    @cached_property
    def router_layers(self) -> tuple[int, ...]:
        """The layers that are a mixture of experts; none in a dense model."""
        return tuple(i for i, layer in enumerate(self.layers) if has_router(self.family, layer))

    @property
    def num_experts(self) -> int:
        """Experts per layer that has a router; 0 in a dense model."""
        return int(getattr(self.config, self.family.num_experts)) if self.router_layers else 0

    @property
    def top_k(self) -> int:
        """Experts per token; 0 in a dense model."""
        return int(self.config.num_experts_per_tok) if self.router_layers else 0

    @property
    def num_heads(self) -> int:
        """Query heads per layer."""
        return int(self.config.num_attention_heads)

    @property
    def num_kv_heads(self) -> int:
        """Key and value heads per layer."""
        return int(self.config.num_key_value_heads)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.num_heads)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def item_size(self) -> int:
        """Bytes of one activation."""
        return int(self.hf.get_input_embeddings().weight.element_size())

    @property
    def attention_scale(self) -> float:
        """Factor of the attention scores, usually ``d_head ** -0.5``."""
        scale: Any = self.attention(0).scaling
        return float(scale)

    @property
    def windows(self) -> list[int | None]:
        """Tokens each layer's attention sees, itself included; None = all before it."""
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None) or ["sliding_attention"] * self.num_layers
        return [window if kind == "sliding_attention" else None for kind in kinds]

    @property
    def context_length(self) -> int:
        """The longest sequence the positions cover, in tokens."""
        return int(self.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the embedding is, hence where token ids go."""
        device: torch.device = self.hf.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """The dtype of the activations, such as ``float32`` or ``bfloat16``."""
        return str(self.hf.get_input_embeddings().weight.dtype).removeprefix("torch.")

    @property
    def expert_parallel(self) -> int:
        """Over how many processes the experts are split; 1 when each has them all."""
        return int(getattr(getattr(self.config, "distributed_config", None), "ep_size", None) or 1)

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded model or a variant of it, whose results say nothing about gpt-oss."""
        return self.name in EMBEDDED_NAMES

    @property
    def end_token_ids(self) -> list[int]:
        """Token ids that end a rollout."""
        ids = self.hf.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return [] if ids is None else [int(i) for i in (ids if isinstance(ids, Sequence) else [ids])]

    def attention(self, layer: int) -> nn.Module:
        """Return the attention module of a layer."""
        return self.layers[layer].get_submodule(self.family.attention)

    def sink_logits(self, layer: int) -> Tensor | None:
        """Return the learned sink logits [head] of a layer; None in families without sinks."""
        path = self.family.sinks
        return None if path is None else self.layers[layer].get_parameter(path).detach()

    def unembed(self, residual: Tensor) -> Tensor:
        """Map the residual stream [..., d_model] after a layer to logits [..., vocabulary]: the logit lens."""
        norm = self.hf.get_submodule(self.family.norm)
        logits: Tensor = self.hf.get_submodule(self.family.unembed)(norm(residual))
        return logits

    @cached_property
    def nnsight(self) -> Any:
        """The model wrapped by nnsight, for interventions and the user's own experiments.

        Wrapped at first use, because nnsight replaces each module's ``forward`` for good and sets left padding;
        idle it is bit-exact.
        """
        from nnsight.modeling.transformers import TransformersModel

        return TransformersModel(self.hf, task="text-generation", tokenizer=self.tokenizer)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights on disk, or of each file's header and size where they exceed 256 MB.

        ``not available`` for a model given in memory.
        """
        if self._weights_hash is None:
            self._weights_hash = _hash_weights(self.folder)
        return self._weights_hash

    def require_here(self, what: str) -> None:
        """Raise `ModelError` where the model runs elsewhere, and ``what`` is only done to one that is here."""
        if self.remote:
            raise ModelError(
                f"{self.name} was loaded with remote={self.remote!r}, which has no {what}: capture, replay and most "
                "experiments run there (docs/remote.md); for the rest load it without remote="
            )

    def __repr__(self) -> str:
        """Say what is loaded, in one line."""
        experts = f" x {self.num_experts} experts, top-{self.top_k}" if self.router_layers else ", dense"
        shape = f"{self.num_layers} layers{experts}"
        where = f"{self.dtype} on {self.device}" if self.remote in (False, "local") else "runs elsewhere"
        return f"<Model {self.name} ({self.family.name}): {shape}, {where}>"


def _hash_weights(folder: Path | None) -> str:
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return "not available"
    whole = sum(f.stat().st_size for f in files) <= HASHED_WHOLE_BYTES
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if whole else _header_and_size(file))
    return f"sha256{'' if whole else ' of headers and sizes'}:{digest.hexdigest()}"


def _header_and_size(file: Path) -> bytes:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return stream.read(length) + json.dumps(file.stat().st_size).encode()

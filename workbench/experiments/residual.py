"""Change the residual stream after a layer: add a vector (steering), or put another trace's there (patching)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from workbench.experiments.intervening import Intervention, Reading, Rows, Tokens, blend
from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["AddVector", "PatchResidual", "RandomPatch"]


@dataclass(frozen=True, eq=False)
class AddVector(Intervention):
    """A vector is added to the residual stream after a layer (resid_post), at each of the tokens.

    Args:
        layer: of the model.
        vector: [d_model]; what is added is ``factor · vector``.
        tokens: at whose forward; see `workbench.experiments.intervening.Tokens`.
        factor: may be negative.
    """

    variant: ClassVar[str] = "add vector"
    layer: int
    vector: ArrayLike | Tensor
    tokens: Tokens = "all"
    factor: float = 1.0

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` for a layer that does not exist, or a vector of another width or not finite."""
        _check_layer(model, self.layer)
        added = self._added()
        if added.shape != (model.d_model,):
            raise ModelError(f"add vector: expected a vector of {model.d_model} numbers, got shape {added.shape}")
        if not np.isfinite(added).all():
            raise ModelError("add vector: expected finite numbers, got NaN or infinity")

    def attach(self, reading: Reading) -> None:
        """Add it to what the layer gives."""
        added = torch.from_numpy(self._added())

        def add(stream: Tensor, rows: Rows) -> Tensor:
            return blend(stream + added.to(stream), stream, rows)

        _change_stream(reading, self.layer, self.tokens, add)

    def random_control(self, model: Model, rng: np.random.Generator) -> Intervention:
        """Return a vector of the same norm in a direction drawn at random."""
        direction = rng.standard_normal(model.d_model)
        length = np.linalg.norm(self._added()) / np.linalg.norm(direction)
        return replace(self, vector=direction * length, factor=1.0)

    def describe(self) -> dict[str, Any]:
        """Return the layer, the norm of what is added, a hash of the vector, and the tokens."""
        added = self._added()
        return {
            "variant": self.variant,
            "layer": int(self.layer),
            "norm": float(np.linalg.norm(added)),
            "sha256": hashlib.sha256(added.tobytes()).hexdigest(),
            "factor": float(self.factor),
            "tokens": self.tokens if isinstance(self.tokens, str) else list(self.tokens),
        }

    def _added(self) -> NDArray[np.float32]:
        vector = self.vector.detach().float().cpu().numpy() if isinstance(self.vector, Tensor) else self.vector
        scaled: NDArray[np.float32] = np.asarray(vector, dtype=np.float32) * np.float32(self.factor)
        return scaled


@dataclass(frozen=True, eq=False)
class PatchResidual(Intervention):
    """The residual stream after a layer (resid_post) is that of another trace, token for token.

    Args:
        layer: of the model, and captured in the other trace.
        source: the other trace, captured or replayed with ``CaptureSpec(lens=False, residual=[layer])``.
        tokens: (start, stop), the tokens that are given another's residual.
        source_start: the first token of the source to take; default: ``start``, the same places.
        unrelated: traces of other texts with the same layer's residual. A random control patches from one of them, at
            places drawn at random; without any, it is a `RandomPatch`, which moves the stream as far.
    """

    variant: ClassVar[str] = "patch residual"
    layer: int
    source: Trace
    tokens: tuple[int, int]
    source_start: int | None = None
    unrelated: Sequence[Trace] = field(default=(), kw_only=True)

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` for a layer or tokens that either side lacks, or unrelated traces that lack them."""
        _check_layer(model, self.layer)
        if isinstance(self.tokens, str) or self.tokens[1] is None:
            raise ModelError(f"patch residual: expected tokens as (start, stop) with an end, got {self.tokens!r}")
        if not self.source.has("residual", self.layer):
            raise ModelError(
                f"patch residual: the source has no residual stream of layer {self.layer}; capture or replay it with "
                f"CaptureSpec(lens=False, residual=[{self.layer}])"
            )
        start, stop = self._source_tokens()
        if not 0 <= start < stop <= len(self.source):
            raise ModelError(
                f"patch residual: {self.tokens[1] - self.tokens[0]} tokens from {start} on are asked of a source "
                f"that has {len(self.source)}"
            )
        width = self.source.array("residual").shape[-1]
        if width != model.d_model:
            raise ModelError(f"patch residual: the source is {width} wide, and {model.name} is {model.d_model}")
        for number, other in enumerate(self.unrelated):
            if np.array_equal(other.arrays["token_ids"], self.source.arrays["token_ids"]):
                raise ModelError(f"patch residual: unrelated trace {number} is the source itself, which is no control")
            try:
                replace(self, source=other, source_start=0, unrelated=()).check(model, together)
            except ModelError as error:
                raise ModelError(f"unrelated trace {number}: {error}") from error

    def attach(self, reading: Reading) -> None:
        """Replace what the layer gives."""
        reading.model.require_here(self.variant)
        start, stop = self._source_tokens()
        rows_of_layer = self.source.array("residual").sel(layer=self.layer).values[start:stop]
        given = torch.from_numpy(np.asarray(rows_of_layer, dtype=np.float32))

        def patch(stream: Tensor, _rows: Rows) -> Tensor:
            first, last = max(reading.start, self.tokens[0]), min(reading.start + len(stream), self.tokens[1])
            patched, here = stream.clone(), slice(first - reading.start, last - reading.start)
            patched[here] = self._put(stream[here], given[first - self.tokens[0] : last - self.tokens[0]].to(stream))
            return patched

        _change_stream(reading, self.layer, self.tokens, patch)

    def _put(self, own: Tensor, given: Tensor) -> Tensor:
        """Return what stands in place of the model's own rows [token, d_model], where the source has these."""
        return given

    def random_control(self, model: Model, rng: np.random.Generator) -> Intervention:
        """Return a patch from an unrelated trace where any was given, else one as far in a random direction."""
        if not self.unrelated:
            direction = rng.standard_normal(model.d_model)
            unit = direction / np.linalg.norm(direction)
            return RandomPatch(self.layer, self.source, self.tokens, self.source_start, direction=unit)
        other = self.unrelated[int(rng.integers(len(self.unrelated)))]
        start = int(rng.integers(len(other) - (self.tokens[1] - self.tokens[0]) + 1))
        return replace(self, source=other, source_start=start, unrelated=())

    def describe(self) -> dict[str, Any]:
        """Return the layer, the tokens on both sides, and what the source is."""
        return {
            "variant": self.variant,
            "layer": int(self.layer),
            "tokens": list(self.tokens),
            "source_tokens": list(self._source_tokens()),
            "source": {
                "question": str(self.source.meta.get("question", "")),
                "model": str(self.source.provenance.get("model", "")),
                "token_ids_sha256": hashlib.sha256(self.source.arrays["token_ids"].tobytes()).hexdigest(),
            },
        }

    def _source_tokens(self) -> tuple[int, int]:
        start = self.tokens[0] if self.source_start is None else self.source_start
        return start, start + self.tokens[1] - self.tokens[0]


@dataclass(frozen=True, eq=False)
class RandomPatch(PatchResidual):
    """The residual stream is moved as far as a patch would move it, token for token, but in a random direction.

    The control of `PatchResidual`: what any change of that size does.

    Args:
        direction: [d_model], of norm 1.
    """

    variant: ClassVar[str] = "random patch"
    direction: NDArray[np.float64] = field(kw_only=True)

    def _put(self, own: Tensor, given: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm((given - own).float(), dim=-1, keepdim=True)
        moved: Tensor = own + (distance * torch.from_numpy(self.direction).to(distance)).to(own)
        return moved

    def random_control(self, model: Model, rng: np.random.Generator) -> Intervention:
        """Raise `ModelError`: it is one."""
        raise ModelError("random patch is a control itself; pass controls=0")

    def describe(self) -> dict[str, Any]:
        """Add a hash of the direction."""
        return {**super().describe(), "direction_sha256": hashlib.sha256(self.direction.tobytes()).hexdigest()}


def _change_stream(reading: Reading, layer: int, tokens: Tokens, edit: Any) -> None:
    """Replace a layer's output [row, d_model], of one sequence, by ``edit(output, rows)``."""

    def change(output: Any, rows: Rows) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0][0], rows)[None], *output[1:])
        return edit(output[0], rows)[None]

    reading.change_output(reading.model.layers[layer], f"layer {layer}", tokens, change)


def _check_layer(model: Model, layer: int) -> None:
    if not 0 <= layer < model.num_layers:
        raise ModelError(f"expected a layer below {model.num_layers}, got {layer!r}")

"""Change where attention looks: hide a span from later tokens, silence a head, move a head's sink logit.

What a trace records of attention, queries, keys, log-sum-exps and sink logits, is what the model made before the
change: patterns computed from it are those that the change then altered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from workbench.experiments.intervening import Intervention, Later, Reading, Rows, Tokens, blend, check_places
from workbench.families import ModelError
from workbench.model import Model

__all__ = ["AblateHead", "MoveSink", "SuppressSpan"]

Heads = Mapping[int, Sequence[int] | None]
"""layer → heads of it; None for all"""

_FORM = "{layer: [head, …]} or {layer: None}"


@dataclass(frozen=True)
class _HeadIntervention(Intervention):
    """Some heads, changed at some tokens."""

    heads: Heads
    tokens: Tokens = "all"

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` for a layer or head that does not exist."""
        check_places(self.variant, self.heads, _FORM, whole_layers=True)
        for layer, heads in self.heads.items():
            _check_heads(model, layer, heads)

    def random_control(self, model: Model, rng: np.random.Generator) -> Intervention:
        """Return the same of other heads of the same layers."""
        return replace(self, heads=_other_heads(model, self.variant, self.heads, rng))

    def describe(self) -> dict[str, Any]:
        """Return the variant, the heads and the tokens."""
        heads = {str(n): None if heads is None else [int(h) for h in heads] for n, heads in self.heads.items()}
        return {"variant": self.variant, "heads": heads, "tokens": _json(self.tokens)}


@dataclass(frozen=True)
class AblateHead(_HeadIntervention):
    """What the heads give is 0 at the tokens; the output projection's bias stays."""

    variant: ClassVar[str] = "ablate head"

    def attach(self, reading: Reading) -> None:
        """Put zeros in the heads' places of what the output projection is given."""
        for layer in self.heads:
            self._attach_layer(reading, layer)

    def _attach_layer(self, reading: Reading, layer: int) -> None:
        model = reading.model
        heads, num_heads = _all_or(model, self.heads[layer]), model.num_heads

        def silence(args: tuple[Any, ...], kwargs: dict[str, Any], rows: Rows) -> Any:
            given: Tensor = args[0]
            by_head = given[0].unflatten(-1, (num_heads, -1)).clone()  # type: ignore[no-untyped-call]
            by_head[:, heads] = 0
            return (blend(by_head.flatten(-2), given[0], rows)[None], *args[1:]), kwargs

        module = model.layers[layer].get_submodule(model.family.attended)
        reading.change_input(module, f"the heads of layer {layer}", self.tokens, silence)


@dataclass(frozen=True)
class MoveSink(_HeadIntervention):
    """The sink logit of the heads is ``by`` higher for the rows of the tokens, which then see less of all keys.

    Done by taking ``by`` from every score of those rows: a softmax does not know the difference.
    """

    variant: ClassVar[str] = "move sink"
    by: float = field(default=0.0, kw_only=True)

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` as for all heads, and where there are no sinks."""
        super().check(model, together)
        _check_mask(model, self.variant)
        if model.family.sinks is None:
            raise ModelError(f"move sink: {model.family.name} has no sink logits")
        if not abs(self.by) < float("inf"):
            raise ModelError(f"move sink: expected a finite number of logits, got {self.by}")

    def attach(self, reading: Reading) -> None:
        """Take the number from the mask of each layer."""

        def move(mask: Tensor, heads: list[int], rows: Tensor) -> Tensor:
            lower = torch.zeros_like(mask)
            lower[0, heads] = torch.where(rows[:, None], self.by, 0.0).to(mask.dtype)
            return torch.where(mask > torch.finfo(mask.dtype).min / 2, mask - lower, mask)

        for layer in self.heads:
            _change_mask(reading, layer, _all_or(reading.model, self.heads[layer]), self.tokens, move)

    def describe(self) -> dict[str, Any]:
        """Add the number of logits."""
        return {**super().describe(), "by": float(self.by)}


@dataclass(frozen=True)
class SuppressSpan(Intervention):
    """The keys of a span are hidden from the tokens after it, in all heads or some; nothing else is changed.

    Tokens of the span still see each other, so that it is read as before.

    Args:
        tokens: the span; see `workbench.experiments.intervening.Tokens`.
        heads: layer → heads; None for all heads of all layers.
        elsewhere: other spans ``(start, stop)``, such as as many tokens of the same message. A random control hides
            one of them; without any, the same span is hidden from other heads.
    """

    variant: ClassVar[str] = "suppress span"
    tokens: Tokens
    heads: Heads | None = None
    elsewhere: Sequence[tuple[int, int]] = field(default=(), kw_only=True)

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` for a layer or head that does not exist, or attention that takes no mask."""
        _check_mask(model, self.variant)
        check_places(self.variant, self._heads(model), _FORM, whole_layers=True)
        for layer, heads in self._heads(model).items():
            _check_heads(model, layer, heads)

    def attach(self, reading: Reading) -> None:
        """Hide the keys in the mask of each layer."""

        def hide(mask: Tensor, heads: list[int], rows: Tensor) -> Tensor:
            keys = torch.tensor(reading.members(self.tokens)[-mask.shape[-1] :], device=mask.device)
            hidden = torch.zeros_like(mask, dtype=torch.bool)
            hidden[0, heads] = rows[:, None] & keys
            return mask.masked_fill(hidden, torch.finfo(mask.dtype).min)

        for layer, heads in self._heads(reading.model).items():
            _change_mask(reading, layer, _all_or(reading.model, heads), Later(self.tokens), hide)

    def random_control(self, model: Model, rng: np.random.Generator) -> Intervention:
        """Return the same of a span elsewhere where any was given, else in other heads of the same layers."""
        if self.elsewhere:
            return replace(self, tokens=self.elsewhere[int(rng.integers(len(self.elsewhere)))], elsewhere=())
        return replace(self, heads=_other_heads(model, self.variant, self._heads(model), rng))

    def describe(self) -> dict[str, Any]:
        """Return the variant, the span, the heads, and the spans elsewhere where any were given."""
        heads = None
        if self.heads is not None:
            heads = {str(n): None if h is None else [int(i) for i in h] for n, h in self.heads.items()}
        elsewhere = {"elsewhere": [list(span) for span in self.elsewhere]} if self.elsewhere else {}
        return {"variant": self.variant, "tokens": _json(self.tokens), "heads": heads, **elsewhere}

    def _heads(self, model: Model) -> Heads:
        return dict.fromkeys(range(model.num_layers)) if self.heads is None else self.heads


def _change_mask(reading: Reading, layer: int, heads: list[int], tokens: Tokens | Later, edit: Any) -> None:
    """Replace a layer's attention mask by ``edit(mask [1, head, row, key], heads, rows [row])``, added to the scores.

    The last key is that of the last token read; in a sliding layer the first ones are gone.
    """
    model = reading.model

    def change(args: tuple[Any, ...], kwargs: dict[str, Any], rows: Rows) -> Any:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        count = hidden.shape[1]
        mask = _mask(model, layer, kwargs, count, reading.start, hidden)
        mask = mask.expand(1, model.num_heads, *mask.shape[2:])
        which = torch.ones(count, dtype=torch.bool, device=mask.device) if rows is None else rows.to(mask.device)
        return args, {**kwargs, "attention_mask": edit(mask, heads, which)}

    reading.change_input(model.attention(layer), f"the attention of layer {layer}", tokens, change)


def _mask(model: Model, layer: int, kwargs: Mapping[str, Any], count: int, start: int, hidden: Tensor) -> Tensor:
    """Return the mask that attention was given [1, 1, row, key], in numbers; make it where it was left out."""
    mask = kwargs.get("attention_mask")
    if mask is None:
        cache, total = kwargs.get("past_key_values"), start + count
        kept = total if cache is None else int(cache.get_mask_sizes(count, layer)[0])
        rows = torch.arange(start, total, device=hidden.device)[:, None]
        keys = torch.arange(total - kept, total, device=hidden.device)
        window = model.windows[layer]
        mask = (keys <= rows) if window is None else (keys <= rows) & (keys > rows - window)
        mask = mask[None, None]
    if mask.dtype == torch.bool:
        numbers = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
        return numbers.masked_fill(~mask, torch.finfo(hidden.dtype).min)
    given: Tensor = mask
    return given


def _other_heads(model: Model, variant: str, heads: Heads, rng: np.random.Generator) -> Heads:
    """Draw as many heads of each layer, none of them among those given."""
    drawn: dict[int, Sequence[int]] = {}
    for layer, some in heads.items():
        given = _all_or(model, some)
        left = [head for head in range(model.num_heads) if head not in given]
        if len(left) < len(given):
            raise ModelError(
                f"{variant}: layer {layer} has {len(left)} other heads to be a control for {len(given)}; change "
                "fewer, or pass controls=0"
            )
        drawn[layer] = sorted(int(head) for head in rng.choice(left, len(given), replace=False))
    return drawn


def _all_or(model: Model, heads: Sequence[int] | None) -> list[int]:
    return list(range(model.num_heads) if heads is None else heads)


def _check_mask(model: Model, variant: str) -> None:
    kind = getattr(model.config, "_attn_implementation", None)
    if kind not in ("eager", "sdpa"):
        raise ModelError(
            f"{variant}: attention of {model.name} runs as {kind!r}, which takes no mask per head; load it with "
            "attn_implementation='eager'"
        )


def _check_heads(model: Model, layer: int, heads: Sequence[int] | None) -> None:
    if not 0 <= layer < model.num_layers:
        raise ModelError(f"expected a layer below {model.num_layers}, got {layer!r}")
    for head in heads or ():
        if not 0 <= head < model.num_heads:
            raise ModelError(f"expected a head of layer {layer} below {model.num_heads}, got {head!r}")


def _json(tokens: Tokens) -> Any:
    return tokens if isinstance(tokens, str) else list(tokens)

"""What to capture: arrays, layers, ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.families import ModelError, known_families
from workbench.hooks import HookPlan
from workbench.labelled import ranges
from workbench.model import Model

__all__ = ["CaptureSpec"]

Layers = bool | Sequence[int]


@dataclass(frozen=True)
class CaptureSpec:
    """What to capture. A layer choice is True (all), False (none), or layer numbers.

    Attributes:
        router: expert indices, expert weights and router logits.
        attention: queries, keys, sink logits and each row's log-sum-exp.
        lens: the logit lens after each layer.
        residual: the residual stream after each layer, as large as everything else together.
        top: how many alternatives to keep per token.
        lens_top: how many lens predictions to keep per token and layer.
    """

    router: Layers = True
    attention: Layers = True
    lens: Layers = True
    residual: Layers = False
    top: int = 5
    lens_top: int = 3

    def plan(self, model: Model) -> HookPlan:
        """Return the hooks this asks of a model. Raises `ModelError` for a layer or number out of range."""
        for name, number in (("top", self.top), ("lens_top", self.lens_top)):
            if not 1 <= number <= model.config.vocab_size:
                raise ModelError(f"CaptureSpec({name}={number}): expected 1 to {model.config.vocab_size}")
        every = tuple(range(model.num_layers))
        lens, residual = _layers("lens", self.lens, every), _layers("residual", self.residual, every)
        if lens and residual and lens != residual:
            raise ModelError(
                f"CaptureSpec: lens reads layers {lens} and residual layers {residual}; expected the same layers, "
                "because both come from one reading of the residual stream"
            )
        return HookPlan(
            router=self._router(model),
            attention=self._attention(model, every),
            residual=lens or residual,
        )

    def _router(self, model: Model) -> tuple[int, ...]:
        if _any_layer(self.router) and self.router is not True and not model.router_layers:
            raise ModelError(
                f"CaptureSpec(router=…): {model.name} is a dense model ({model.family.name}) and has no router. "
                f"Families with one: {known_families(with_router=True)}."
            )
        return _layers("router", self.router, model.router_layers)

    def _attention(self, model: Model, every: tuple[int, ...]) -> tuple[int, ...]:
        readable = model.family.queries is not None
        if _any_layer(self.attention) and self.attention is not True and not readable:
            raise ModelError(
                f"CaptureSpec(attention=…): queries and keys of {model.family.name} cannot be read, because latent "
                "attention expands them inside the attention module; router, lens and residual can"
            )
        return _layers("attention", self.attention, every) if readable else ()

    def wanted(self) -> frozenset[str]:
        """Return the names of the arrays this asks for."""
        groups = {
            "router": ("router_logits", "expert_indices", "expert_weights"),
            "attention": ("queries", "keys", "attention_logsumexp"),
            "lens": ("lens_token_ids", "lens_logprobs"),
            "residual": ("residual",),
        }
        names = [n for group, arrays in groups.items() if _any_layer(getattr(self, group)) for n in arrays]
        return frozenset(["logprobs", "entropy", "top_token_ids", "top_logprobs", *names])


def _layers(name: str, choice: Layers, available: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(choice, bool):
        return available if choice else ()
    outside = [layer for layer in choice if layer not in available]
    if outside:
        raise ModelError(f"CaptureSpec({name}=…): expected layers {ranges(available)}, got {outside[0]}")
    return tuple(sorted(set(choice)))


def _any_layer(choice: Layers) -> bool:
    return choice if isinstance(choice, bool) else len(choice) > 0

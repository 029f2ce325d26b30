"""Change which experts a token takes, with what weight, or what they give. Definitions: six variants, named apart.

They answer different questions: what the model does *without* an expert's place in the choice (route around), without
what it *adds* (zero contribution), without what is *specific* in it (mean output), with it where it would not be
chosen (force), with more or less of it (scale), or with another's function in its place (swap). None of them says what
an expert is "for" unless random experts of like load, changed in the same way, do less: see
`workbench.experiments.controls`.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from workbench.experiments.expert_means import mean_outputs
from workbench.experiments.intervening import Intervention, Reading, Rows, Tokens, blend, check_places
from workbench.families import ModelError, Route, choose
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["VARIANTS", "ExpertIntervention", "Force", "MeanOutput", "RouteAround", "Scale", "Swap", "ZeroContribution"]

Experts = Mapping[int, Sequence[int]]
"""layer → experts of it"""


@dataclass(frozen=True)
class ExpertIntervention(Intervention):
    """Some experts, changed at some tokens.

    Args:
        experts: layer → experts.
        tokens: at whose forward; see `workbench.experiments.intervening.Tokens`.
    """

    experts: Experts
    tokens: Tokens = "all"
    _form: ClassVar[str] = "{layer: [expert, …]}"

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` for what does not exist, or for a choice that could not be made."""
        if model.expert_parallel > 1:
            raise ModelError(
                f"the experts of {model.name} are split over {model.expert_parallel} processes, where a change would "
                "reach only some of them. Load it whole."
            )
        check_places(self.variant, self.experts, self._form)
        for layer, expert in self.named():
            _check_exists(model, layer, expert)
        _check_choice(model, [one for one in together if isinstance(one, ExpertIntervention)])

    def named(self) -> Iterator[tuple[int, int]]:
        """Give every (layer, expert) it names, once each, in order."""
        found = dict.fromkeys((layer, expert) for layer, experts in self.experts.items() for expert in experts)
        return iter(found)

    def with_experts(self, instead: Mapping[tuple[int, int], int]) -> Self:
        """Return the same change of other experts, each for one of the same layer."""
        return replace(self, experts={n: [instead[n, e] for e in experts] for n, experts in self.experts.items()})

    def attach(self, reading: Reading) -> None:
        """Put the hooks of every layer named."""
        for layer in self.experts:
            self.attach_layer(reading, layer)

    @abstractmethod
    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Put the hooks of a layer."""

    def describe(self) -> dict[str, Any]:
        """Return the variant, the experts and the tokens."""
        experts = {str(layer): [int(e) for e in experts] for layer, experts in self.experts.items()}
        tokens = self.tokens if isinstance(self.tokens, str) else list(self.tokens)
        return {"variant": self.variant, "experts": experts, "tokens": tokens}


class _Choice(ExpertIntervention):
    """A change of the choice, before top-k."""

    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Choose again, by changed scores, behind the router."""
        # The edit goes along to a model that is elsewhere, so it holds plain values, no object of ours.
        router, route = _router(reading.model, layer)
        here = None if reading.model.remote else router.weight.device
        experts, shared, changed = torch.tensor([*self.experts[layer]], device=here), reading.shared, self._score
        score, weigh = route.score, route.weigh

        def again(output: Any, rows: Rows) -> Any:
            logits, weights, indices = output
            scores = shared.get(("scores", layer))
            scores = score(logits, router) if scores is None else scores
            scores = blend(scores.index_fill(-1, experts.to(scores.device), changed), scores, rows)
            shared["scores", layer] = scores
            new_indices, new_weights = choose(scores, logits, router, weigh)
            new_indices, new_weights = new_indices.to(indices.dtype), new_weights.to(weights.dtype)
            return logits, blend(new_weights, weights, rows), blend(new_indices, indices, rows)

        reading.change_output(router, f"the router of layer {layer}", self.tokens, again)

    _score: ClassVar[float]


@dataclass(frozen=True)
class RouteAround(_Choice):
    """The experts get −∞ before top-k: the next ones fill their places, with weights by the family's convention."""

    variant: ClassVar[str] = "route around"
    _score: ClassVar[float] = -torch.inf


@dataclass(frozen=True)
class Force(_Choice):
    """The experts are put in the top-k, in place of the lowest ranked, and weighed by their own router logits."""

    variant: ClassVar[str] = "force"
    _score: ClassVar[float] = torch.inf


@dataclass(frozen=True)
class Scale(ExpertIntervention):
    """Where the experts are chosen their weights are multiplied by a factor; the other weights stay as they are."""

    variant: ClassVar[str] = "scale"
    order: ClassVar[int] = 1  # after the choice
    factor: float = field(default=0.5, kw_only=True)

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` as for all, and for a factor that is no number."""
        super().check(model, together)
        if not abs(self.factor) < float("inf"):
            raise ModelError(f"scale: expected a finite factor, got {self.factor}")

    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Multiply weights behind the router."""
        router, _ = _router(reading.model, layer)
        experts, factor = self.experts[layer], self.factor

        def scale(output: Any, rows: Rows) -> Any:
            logits, weights, indices = output
            scaled = torch.where(_slots(indices, experts), weights * factor, weights)
            return logits, blend(scaled, weights, rows), indices

        reading.change_output(router, f"the router of layer {layer}", self.tokens, scale)

    def describe(self) -> dict[str, Any]:
        """Add the factor."""
        return {**super().describe(), "factor": float(self.factor)}


@dataclass(frozen=True)
class ZeroContribution(ExpertIntervention):
    """Where the experts are chosen their output is 0; the weights of the others stay as they are."""

    variant: ClassVar[str] = "zero contribution"

    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Call the experts with weight 0 in the places of these."""
        experts = self.experts[layer]

        def silence(indices: Tensor, weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            return indices, blend(weights.masked_fill(_slots(indices, experts), 0), weights, rows)

        _change_call(reading, layer, self.tokens, silence)


@dataclass(frozen=True)
class MeanOutput(ExpertIntervention):
    """Where the experts are chosen their output is its mean over a reference; the weights stay as they are.

    The mean is over the tokens of the reference for which the unchanged router chooses the expert, prompt and
    completion.
    """

    variant: ClassVar[str] = "mean output"
    reference: Trace | None = field(default=None, kw_only=True)
    """the text to read; an experiment takes its baseline where there is none"""

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` as for all, and without a reference."""
        super().check(model, together)
        if self.reference is None:
            raise ModelError("mean output: over which tokens is the mean? Pass reference=trace")

    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Read the reference, unchanged, for the means; take the experts' output away, and add the mean in its place.

        The first is done by weight 0, the second with the weight they had.
        """
        assert self.reference is not None
        with reading.off():
            means = mean_outputs(reading.model, self.reference, layer, self.experts[layer])
        experts, vectors = list(means), torch.stack(list(means.values()))

        def silence(indices: Tensor, weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            taken = torch.stack([weights.masked_fill(indices != e, 0).sum(-1) for e in experts], dim=-1)
            reading.shared["mean", layer] = blend(taken, torch.zeros_like(taken), rows)
            return indices, blend(weights.masked_fill(_slots(indices, experts), 0), weights, rows)

        def add(output: Tensor, _rows: Rows) -> Tensor:
            weights = reading.shared["mean", layer]
            added: Tensor = output + (weights.to(vectors.dtype) @ vectors).to(output.dtype)
            return added

        _change_call(reading, layer, self.tokens, silence)
        module = reading.model.layers[layer].get_submodule(reading.model.family.experts)
        reading.change_output(module, f"the experts of layer {layer}", self.tokens, add)

    def describe(self) -> dict[str, Any]:
        """Add what the mean is over."""
        assert self.reference is not None
        return {
            **super().describe(),
            "mean_over": f"{len(self.reference)} tokens of {self.reference.meta.get('question', '')!r}",
            "mean_over_sha256": hashlib.sha256(self.reference.arrays["token_ids"].tobytes()).hexdigest(),
        }


@dataclass(frozen=True)
class Swap(ExpertIntervention):
    """Where expert i is chosen, expert j's function runs with i's weight.

    Args:
        experts: layer → {i: j}. ``{i: j, j: i}`` exchanges the two.
    """

    variant: ClassVar[str] = "swap"
    experts: Mapping[int, Mapping[int, int]]  # type: ignore[assignment]
    _form: ClassVar[str] = "{layer: {i: j, …}}"

    def check(self, model: Model, together: Sequence[Intervention]) -> None:
        """Raise `ModelError` as for all, and where experts are not given in pairs."""
        paired = isinstance(self.experts, Mapping) and all(isinstance(p, Mapping) for p in self.experts.values())
        check_places(self.variant, self.experts if paired else str(self.experts), self._form)
        super().check(model, together)

    def named(self) -> Iterator[tuple[int, int]]:
        """Give every (layer, expert), those replaced and those that replace."""
        pairs = ((n, e) for n, swaps in self.experts.items() for pair in swaps.items() for e in pair)
        return iter(dict.fromkeys(pairs))

    def with_experts(self, instead: Mapping[tuple[int, int], int]) -> Self:
        """Return the same swap between other experts."""
        swaps = {n: {instead[n, i]: instead[n, j] for i, j in pairs.items()} for n, pairs in self.experts.items()}
        return replace(self, experts=swaps)

    def attach_layer(self, reading: Reading, layer: int) -> None:
        """Call the experts with j in the places of i."""
        model = reading.model
        module = model.layers[layer].get_submodule(model.family.experts)
        here = None if model.remote else next(module.parameters()).device
        becomes = torch.arange(model.num_experts, device=here)
        for i, j in self.experts[layer].items():
            becomes[i] = j

        def swap(indices: Tensor, weights: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
            return blend(becomes.to(indices.device)[indices].to(indices.dtype), indices, rows), weights

        _change_call(reading, layer, self.tokens, swap)

    def describe(self) -> dict[str, Any]:
        """Write the pairs as [i, j]."""
        experts = {str(layer): [[int(i), int(j)] for i, j in pairs.items()] for layer, pairs in self.experts.items()}
        tokens = self.tokens if isinstance(self.tokens, str) else list(self.tokens)
        return {"variant": self.variant, "experts": experts, "tokens": tokens}


VARIANTS: dict[str, type[ExpertIntervention]] = {
    kind.variant: kind for kind in (RouteAround, ZeroContribution, MeanOutput, Force, Scale, Swap)
}


def _router(model: Model, layer: int) -> tuple[Any, Route]:
    route = model.family.route
    assert route is not None  # a layer with a router is of a family that has a rule
    return model.layers[layer].get_submodule(str(model.family.router)), route


def _slots(indices: Tensor, experts: Sequence[int]) -> Tensor:
    """Say which of the chosen places [row, top_k] are these experts'."""
    found = indices == experts[0]
    for expert in experts[1:]:
        found = found | (indices == expert)
    return found


def _change_call(reading: Reading, layer: int, tokens: Tokens, edit: Any) -> None:
    """Call a layer's experts with other (indices, weights), [row, top_k] each, behind what the router gave."""
    model, where, top_k = reading.model, f"the experts of layer {layer}", reading.model.top_k

    def change(args: tuple[Any, ...], kwargs: dict[str, Any], rows: Rows) -> Any:
        if len(args) != 3 or not all(isinstance(a, Tensor) and a.shape[-1] == top_k for a in args[1:]):
            raise ModelError(
                f"the intervention cannot change {where}: they are called with {len(args)} arguments that are not "
                f"(rows, indices, weights) of {top_k} experts each. Load with experts_implementation='eager'."
            )
        hidden, indices, weights = args
        return (hidden, *edit(indices, weights, rows)), kwargs

    module: nn.Module = model.layers[layer].get_submodule(model.family.experts)
    reading.change_input(module, where, tokens, change)


def _check_exists(model: Model, layer: int, expert: int) -> None:
    if not model.router_layers:
        raise ModelError(f"{model.name} is dense ({model.family.name}): it has no experts to change")
    if layer not in model.router_layers:
        raise ModelError(f"expected a layer with a router, one of {model.router_layers}, got {layer!r}")
    if not 0 <= expert < model.num_experts:
        raise ModelError(f"expected an expert of layer {layer} below {model.num_experts}, got {expert!r}")


def _check_choice(model: Model, together: Sequence[ExpertIntervention]) -> None:
    """Refuse to leave fewer than k experts, to force more than k, or both at once for one expert.

    Changes at different tokens are counted together, so that nothing depends on where spans meet.
    """
    for layer in model.router_layers:
        avoided, forced = (
            {e for one in together if isinstance(one, kind) for e in one.experts.get(layer, ())}
            for kind in (RouteAround, Force)
        )
        if len(forced) > model.top_k:
            raise ModelError(
                f"force: a token takes {model.top_k} experts, but {len(forced)} are forced in layer {layer}: "
                f"{sorted(forced)}"
            )
        if avoided & forced:
            raise ModelError(f"experts {sorted(avoided & forced)} of layer {layer} are both avoided and forced")
        open_to_all = _open_experts(model, layer, avoided)
        if open_to_all < model.top_k:
            raise ModelError(
                f"route around: {len(avoided)} of {model.num_experts} experts of layer {layer} are avoided, which can "
                f"leave {open_to_all} where a token takes {model.top_k}. Avoid fewer."
            )


def _open_experts(model: Model, layer: int, avoided: set[int]) -> int:
    """Return how many experts are left at the least: with group-limited choice, in the groups that lose the most."""
    router: Any = model.layers[layer].get_submodule(str(model.family.router))
    groups = getattr(router, "num_group", None) or 1
    size = model.num_experts // groups
    left = sorted(size - sum(e // size == group for e in avoided) for group in range(groups))
    return sum(left[: getattr(router, "topk_group", None) or 1])

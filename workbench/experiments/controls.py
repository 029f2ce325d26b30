"""The same change of something else: without it an effect says nothing of what was changed.

For experts that is random experts of like load; for heads, random heads of the same layer; for a vector, a random
direction of the same length.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.experiments.experts import ExpertIntervention
from workbench.experiments.intervening import Intervention
from workbench.families import ModelError
from workbench.model import Model

__all__ = ["TOLERANCE", "Match", "expert_loads", "matched_experts", "random_controls"]

TOLERANCE = 0.1
"""Relative difference of load up to which an expert counts as matched"""

DRAWS = 50
"""Draws per control asked for, until it is believed that there is no other"""


@dataclass(frozen=True)
class Match:
    """An expert and the one that stands in for it as a control."""

    layer: int
    expert: int
    instead: int
    load: float
    """of the expert: its share of the routed slots of the layer, over the tokens that are changed"""
    instead_load: float
    within: bool
    """whether the loads differ by at most the tolerance; False where none did, and this one is the nearest"""


def expert_loads(
    indices: NDArray[Any], layers: Sequence[int], num_experts: int, tokens: NDArray[np.bool_]
) -> dict[int, NDArray[np.float64]]:
    """Return layer → load [expert], the share of routed slots over some tokens of indices [token, layer, top_k]."""
    rows = indices[tokens]
    return {
        layer: np.bincount(rows[:, at].ravel(), minlength=num_experts) / max(1, rows[:, at].size)
        for at, layer in enumerate(layers)
    }


def matched_experts(
    interventions: Sequence[ExpertIntervention],
    loads: Mapping[int, NDArray[np.float64]],
    count: int,
    *,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Iterator[tuple[tuple[Intervention, ...], tuple[Match, ...]]]:
    """Give up to ``count`` different controls: the same changes of other experts of the same layers.

    For each expert one is drawn whose load is within the tolerance, never one that is itself changed and none twice;
    where there is none, the nearest is taken. Fewer come where fewer different ones exist.

    Raises:
        ModelError: no other expert in a layer.
    """
    named = list(dict.fromkeys(key for one in interventions for key in one.named()))
    rng, seen = np.random.default_rng(seed), set()
    for _ in range(count * DRAWS):
        matches = tuple(_draw(named, loads, tolerance, rng))
        key = frozenset((match.layer, match.instead) for match in matches)
        if key in seen:
            continue
        seen.add(key)
        instead = {(match.layer, match.expert): match.instead for match in matches}
        yield tuple(one.with_experts(instead) for one in interventions), matches
        if len(seen) == count:
            return


def random_controls(
    model: Model, interventions: Sequence[Intervention], count: int, *, seed: int = 0
) -> Iterator[tuple[Intervention, ...]]:
    """Give up to ``count`` different controls of changes that are not of experts; fewer where fewer exist.

    Raises:
        ModelError: a change without random control, too few other heads, or experts among the changes.
    """
    mixed = [one.variant for one in interventions if isinstance(one, ExpertIntervention)]
    if mixed:
        raise ModelError(f"controls of {mixed[0]} are matched by load, those of other changes are not; do them apart")
    rng, seen = np.random.default_rng(seed), set()
    for _ in range(count * DRAWS):
        drawn = tuple(one.random_control(model, rng) for one in interventions)
        key = json.dumps([one.describe() for one in drawn])
        if key not in seen:
            seen.add(key)
            yield drawn
        if len(seen) == count:
            return


def _draw(
    named: Sequence[tuple[int, int]],
    loads: Mapping[int, NDArray[np.float64]],
    tolerance: float,
    rng: np.random.Generator,
) -> Iterator[Match]:
    taken = set(named)
    for layer, expert in named:
        load = loads[layer]
        left = [e for e in range(len(load)) if (layer, e) not in taken]
        if not left:
            raise ModelError(f"layer {layer} has no other expert left to be a control; change fewer, or controls=0")
        near = [e for e in left if abs(load[e] - load[expert]) <= tolerance * load[expert]]
        instead = int(rng.choice(near)) if near else min(left, key=lambda e: abs(load[e] - load[expert]))
        taken.add((layer, instead))
        yield Match(layer, expert, instead, float(load[expert]), float(load[instead]), bool(near))

"""Two traces beside each other: where their text, their answers and their experts part."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.compare.alignment import Alignment, align
from workbench.analysis.compare.outcomes import Extract, Same
from workbench.analysis.reasoning import final_answer, same_answer
from workbench.analysis.routing import routing_margin, routing_overlap
from workbench.analysis.routing.agreement import shared_experts
from workbench.analysis.token_set import TokenSet
from workbench.labelled import Labelled, ranges
from workbench.trace import Trace

__all__ = ["ContextOverlap", "PairedRouting", "TraceDifference", "trace_difference"]


class ContextOverlap(NamedTuple):
    """How alike two traces route tokens that are the same, of one phase."""

    phase: str
    """prompt or completion"""
    same_context: bool
    """whether all that came before these tokens is the same too; else the comparison is on different text"""
    num_tokens: int
    overlap: Labelled
    """[layer] float64, mean of ``|∩| / k``"""


@dataclass(frozen=True, eq=False)
class PairedRouting:
    """The experts of the tokens that are the same in two traces."""

    shared: Labelled
    """[pair, layer] uint8, how many experts both chose"""
    near_tie: Labelled | None
    """[pair, layer] bool, whether the choice was a near-tie in either; None where router logits are not in both"""
    top_k: int
    overlaps: tuple[ContextOverlap, ...]


@dataclass(frozen=True, eq=False)
class TraceDifference:
    """What `trace_difference` found."""

    alignment: Alignment
    answers: tuple[str | None, str | None]
    """of a and of b; None where one gives none"""
    same_answer: bool | None
    """None where an answer is missing"""
    routing: PairedRouting | None
    missing: tuple[str, ...]
    """what could not be compared, and why"""


def trace_difference(
    a: Trace, b: Trace, *, min_run: int = 3, answer: Extract = final_answer, same: Same = same_answer
) -> TraceDifference:
    """Compare two traces: of other efforts, before and after an intervention, or of two models.

    Args:
        a: one trace.
        b: the other.
        min_run: as of `align`.
        answer: takes the answer from a trace; default: the final channel's text.
        same: whether two answers are the same; default: as numbers, or as words but for case.

    Raises:
        TraceError: as of `align`.
    """
    alignment = align(a, b, min_run=min_run)
    answers = answer(a), answer(b)
    agree = None if answers[0] is None or answers[1] is None else same(answers[0], answers[1])
    missing: list[str] = []
    return TraceDifference(alignment, answers, agree, _routing(a, b, alignment, missing), tuple(missing))


def _routing(a: Trace, b: Trace, alignment: Alignment, missing: list[str]) -> PairedRouting | None:
    if without := [name for name, trace in (("a", a), ("b", b)) if not trace.has("expert_indices")]:
        missing.append(f"experts: the router was not captured in {' and '.join(without)}")
        return None
    if not len(alignment.pairs):
        missing.append("experts: no token is the same in both")
        return None
    sets = [TokenSet(trace, phase="all") for trace in (a, b)]
    sizes = [f"{of.top_k} of {of.num_experts}" for of in sets]
    layers = tuple(layer for layer in sets[0].layers if layer in sets[1].layers)
    if sizes[0] != sizes[1] or not layers:
        got = f"a token chooses {sizes[0]} in a and {sizes[1]} in b"
        missing.append(f"experts: {got if sizes[0] != sizes[1] else 'no layer was captured in both'}")
        return None
    for name, of in zip("ab", sets, strict=True):
        if rest := [layer for layer in of.layers if layer not in layers]:
            missing.append(f"experts of layers {ranges(rest)}: captured in {name} only")
    if sets[0].model != sets[1].model:
        missing.append(
            "whether expert 3 of one model is expert 3 of the other: only if one was trained from the other"
        )
    chosen = [_chosen(trace, alignment.pairs[:, side], layers) for side, trace in enumerate((a, b))]
    counts = shared_experts(chosen[0].values, chosen[1].values)
    coords = {"layer": layers}
    source = f"experts that both chose, of {sets[0].top_k}, at {len(counts)} tokens that are the same"
    shared = Labelled(counts.astype(np.uint8), ("pair", "layer"), coords, source)
    ties = _near_ties(a, b, alignment, layers, sets[0].top_k, missing)
    overlaps = _overlaps(a, b, alignment, chosen, sets[0].num_experts)
    return PairedRouting(shared, ties, sets[0].top_k, overlaps)


def _chosen(trace: Trace, tokens: NDArray[np.int32], layers: tuple[int, ...]) -> Labelled:
    """Return the experts [token, layer, top_k] of some tokens and layers."""
    places = [trace.layers("expert_indices").index(layer) for layer in layers]
    values = trace.arrays["expert_indices"][tokens][:, places]
    return Labelled(values, ("token", "layer", "top_k"), {"layer": layers}, trace.source("expert_indices"))


def _near_ties(
    a: Trace, b: Trace, alignment: Alignment, layers: tuple[int, ...], top_k: int, missing: list[str]
) -> Labelled | None:
    """Say for each pair and layer whether other kernels might have chosen otherwise in either trace."""
    without = [n for n, t in (("a", a), ("b", b)) if not all(t.has("router_logits", layer) for layer in layers)]
    if without:
        missing.append(f"near-ties: router_logits were not captured in {' and '.join(without)}")
        return None
    found = np.zeros((len(alignment.pairs), len(layers)), dtype=bool)
    limits = []
    for side, trace in enumerate((a, b)):
        places = [trace.layers("router_logits").index(layer) for layer in layers]
        logits = trace.arrays["router_logits"][alignment.pairs[:, side]][:, places]
        if logits.shape[-1] <= top_k:
            missing.append("near-ties: every expert is chosen, so no choice is near")
            return None
        limits.append(float(trace.meta.get("near_tie", 0.1)))
        found |= routing_margin(logits, top_k).values < limits[-1]
    source = f"routing margin below {' and '.join(f'{limit:g}' for limit in dict.fromkeys(limits))} in a or b"
    return Labelled(found, ("pair", "layer"), {"layer": layers}, source)


def _overlaps(
    a: Trace, b: Trace, alignment: Alignment, chosen: list[Labelled], num_experts: int
) -> tuple[ContextOverlap, ...]:
    """Average by phase and by context; a token that is prompt in one and completion in the other is in no phase."""
    generated = alignment.pairs >= [a.num_prompt_tokens, b.num_prompt_tokens]
    phases = {"prompt": ~generated.any(1), "completion": generated.all(1)}
    found = []
    for phase, in_phase in phases.items():
        for same_context in (True, False):
            at = np.flatnonzero(in_phase & (alignment.same_context == same_context))
            if len(at):
                sides = [Labelled(c.values[at], c.dims, c.coords, c.source) for c in chosen]
                overlap = routing_overlap(sides[0], sides[1], num_experts)
                found.append(ContextOverlap(phase, same_context, len(at), overlap))
    return tuple(found)

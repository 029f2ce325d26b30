"""Two groups of rollouts beside each other: what they route differently, and whether traces bear it out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.compare.groups import Group, Routing
from workbench.analysis.compare.null import DivergenceNull, divergence_null
from workbench.analysis.routing import PermutationTest, load_divergence, permutation_test, routing_overlap
from workbench.analysis.routing.permutation import MIN_PAIRS, MIN_TRACES
from workbench.analysis.statistics import MeanDifference, mean_difference, proportion_difference
from workbench.labelled import Labelled

__all__ = ["Pair", "PromptOverlap", "compare_pair"]


@dataclass(frozen=True, eq=False)
class PromptOverlap:
    """How alike both groups route the prompt tokens they share."""

    before: Labelled | None
    """[layer]: where all that came before is the same too, as before ``Reasoning: low``; 1 for one model"""
    after: Labelled | None
    """[layer]: where something before differs; None where nothing does"""
    num_before: int
    num_after: int


@dataclass(frozen=True, eq=False)
class Pair:
    """Two groups compared; differences are a − b."""

    a: str
    b: str
    accuracy: tuple[float, float, float] | None
    """difference and its 95 % interval (Newcombe), as if all rollouts were independent; None without references"""
    chain_tokens: MeanDifference | None
    """of the mean number of analysis tokens per unit; None where not tested"""
    divergence: Labelled | None
    """[layer] nats, Jensen–Shannon divergence of the expert loads"""
    null: DivergenceNull | None
    """how far loads of these units are apart by chance; None where not tested"""
    test: PermutationTest | None
    """of the difference of each expert's load, corrected for all; None where not tested"""
    prompt_overlap: PromptOverlap | None
    unit: str
    """what the tests take as independent: rollouts, questions, or pairs of questions"""
    missing: tuple[str, ...]
    """what was not measured or tested, and why"""


class _Units(NamedTuple):
    """What the tests permute: for each unit of each side the places of its rollouts."""

    name: str
    """rollouts, questions, or pairs of questions"""
    a: list[list[int]]
    b: list[list[int]]

    @property
    def paired(self) -> bool:
        return self.name == "pairs of questions"

    @property
    def too_few(self) -> str:
        """Say what is needed where there are too few, else nothing."""
        if self.paired:
            need = f"at least {MIN_PAIRS} questions asked in both (or 1, with {MIN_TRACES} rollouts a side)"
            return "" if len(self.a) >= MIN_PAIRS else f"needs {need}, got {len(self.a)}"
        if min(len(self.a), len(self.b)) >= MIN_TRACES:
            return ""
        return f"needs at least {MIN_TRACES} {self.name} a side, got {len(self.a)} and {len(self.b)}"


def compare_pair(a: Group, b: Group, *, num_permutations: int, seed: int) -> Pair:
    """Compare two groups.

    Rollouts of one question depend on one another where there are several questions: then questions are the units of
    the tests, in pairs where both groups were asked the same.
    """
    missing: list[str] = []
    name = f"{a.name} and {b.name}"
    units = _units([o.question for o in a.completed], [o.question for o in b.completed])
    if units.paired and len(units.a) < max(len(a.answers), len(b.answers)):
        missing.append(f"{name}: tests on other than the {len(units.a)} questions that both were asked")
    divergence = null = test = None
    unlike = _alike(a.routing, b.routing)
    if a.routing and b.routing and not unlike:
        divergence = load_divergence(a.routing.load, b.routing.load)
        null, test = _tests(a.routing, b.routing, units, num_permutations, seed, missing, name)
    else:
        missing.append(f"{name}: divergence of expert loads and overlap on the prompt, as {unlike}")
    overlap = None if unlike else _prompt_overlap(a, b)
    if overlap is None and not unlike:
        missing.append(f"{name}: overlap on the prompt, as they share no question")
    chain_tokens = None
    if units.too_few:
        missing.append(f"{name}: length of the chain not tested: {units.too_few}")
    else:
        of_a, of_b = _means(a.chain_tokens.values, units.a), _means(b.chain_tokens.values, units.b)
        chain_tokens = mean_difference(of_a, of_b, paired=units.paired, seed=seed)
    accuracy = None
    if a.accuracy and b.accuracy:
        accuracy = proportion_difference(a.accuracy.successes, a.accuracy.n, b.accuracy.successes, b.accuracy.n)
    return Pair(a.name, b.name, accuracy, chain_tokens, divergence, null, test, overlap, units.name, tuple(missing))


def _units(a: Sequence[str], b: Sequence[str]) -> _Units:
    of_a, of_b = _by_question(a), _by_question(b)
    if len(of_a) == len(of_b) == 1:
        return _Units("rollouts", [[at] for at in range(len(a))], [[at] for at in range(len(b))])
    shared = [question for question in of_a if question in of_b]
    if shared:
        return _Units("pairs of questions", [of_a[q] for q in shared], [of_b[q] for q in shared])
    return _Units("questions", list(of_a.values()), list(of_b.values()))


def _by_question(questions: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for at, question in enumerate(questions):
        places.setdefault(question, []).append(at)
    return places


def _means(values: Sequence[float], units: list[list[int]]) -> list[float]:
    return [float(np.mean([values[at] for at in unit])) for unit in units]


def _alike(a: Routing | None, b: Routing | None) -> str:
    """Say why the routing of two groups cannot be compared; nothing where it can."""
    if a is None or b is None:
        return "the experts of both were not measured"
    shapes = [(r.load.shape[1], r.top_k, r.load.coords["layer"]) for r in (a, b)]
    if shapes[0] != shapes[1]:
        return f"their experts, experts per token or layers differ: {shapes[0]} beside {shapes[1]}"
    return ""


def _tests(
    a: Routing, b: Routing, units: _Units, num_permutations: int, seed: int, missing: list[str], name: str
) -> tuple[DivergenceNull | None, PermutationTest | None]:
    """Test the difference of loads over units that have tokens; say what is missing where there are too few."""
    sides = [_summed(r, of) for r, of in ((a, units.a), (b, units.b))]
    keep = [tokens > 0 for _, tokens in sides]
    if units.paired:
        keep = [keep[0] & keep[1]] * 2
    of_a, of_b = ([side[at] for at in np.flatnonzero(k)] for side, k in zip((units.a, units.b), keep, strict=True))
    kept = _Units(units.name, of_a, of_b)
    without = sum(int((~k).sum()) for k in keep)
    if kept.too_few:
        some = f", {without} of them without such tokens" if without else ""
        missing.append(f"{name}: expert load not tested: {kept.too_few}{some}")
        return None, None
    (counts_a, tokens_a), (counts_b, tokens_b) = (
        (counts[k], tokens[k]) for (counts, tokens), k in zip(sides, keep, strict=True)
    )
    null = divergence_null(counts_a, tokens_a, counts_b, tokens_b, paired=units.paired, seed=seed)
    labelled = [Labelled(c, ("trace", "layer", "expert"), a.load.coords) for c in (counts_a, counts_b)]
    test = permutation_test(
        labelled[0], tokens_a, labelled[1], tokens_b, paired=units.paired, num_permutations=num_permutations, seed=seed
    )
    return null, test


def _summed(routing: Routing, units: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the counts [unit, layer, expert] and tokens [unit]."""
    counts = np.stack([routing.counts[unit].sum(0) for unit in units])
    return counts, np.array([routing.tokens[unit].sum() for unit in units])


def _prompt_overlap(a: Group, b: Group) -> PromptOverlap | None:
    """Match the prompts of each shared question from both ends: the same tokens before and after what differs."""
    before: tuple[list[Labelled], list[Labelled]] = ([], [])
    after: tuple[list[Labelled], list[Labelled]] = ([], [])
    for question in (q for q in a.prompts if q in b.prompts):
        mine, theirs = a.prompts[question], b.prompts[question]
        first = _same(mine.token_ids, theirs.token_ids)
        last = _same(mine.token_ids[first:][::-1], theirs.token_ids[first:][::-1])
        for side, prompt in zip(range(2), (mine, theirs), strict=True):
            rows, end = prompt.expert_indices, len(prompt.token_ids)
            for found, start, stop in ((before, 0, first), (after, end - last, end)):
                if start < stop:
                    found[side].append(Labelled(rows.values[start:stop], rows.dims, rows.coords, rows.source))
    numbers = [sum(len(block) for block in found[0]) for found in (before, after)]
    if not any(numbers) or a.routing is None:
        return None
    experts = a.routing.load.shape[1]
    overlaps = [routing_overlap(*found, experts) if found[0] else None for found in (before, after)]
    return PromptOverlap(overlaps[0], overlaps[1], numbers[0], numbers[1])


def _same(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Return how many tokens agree from the start."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length

"""Compare groups of rollouts: efforts, models, prompts, before and after an intervention.

Every number is of completed rollouts; cut ones are counted beside them and never scored. What cannot be measured or
tested is named in `Comparison.missing`, with what it needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from workbench.analysis.compare.groups import AnswerCounts, Group, Mean, Proportion, read_group
from workbench.analysis.compare.outcomes import Extract, Outcome, References, Same, outcome
from workbench.analysis.compare.pairs import Pair, PromptOverlap, compare_pair
from workbench.analysis.compare.text import as_table
from workbench.analysis.reasoning import final_answer, same_answer
from workbench.analysis.token_set import Traces
from workbench.labelled import TraceError
from workbench.trace import Trace

__all__ = [
    "AnswerCounts",
    "Comparison",
    "Group",
    "Mean",
    "Outcome",
    "Pair",
    "PromptOverlap",
    "Proportion",
    "compare",
    "outcome",
]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups of rollouts in numbers, and each two of them beside each other."""

    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not measured or not tested, and what it needs."""
        parts = [*(group.missing for group in self.groups), *(pair.missing for pair in self.pairs)]
        return tuple(text for part in parts for text in part)

    def __getitem__(self, name: str) -> Group:
        """Return the group of a name."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"there is no group {name!r}; there are {', '.join(g.name for g in self.groups)}")

    def pair(self, a: str, b: str) -> Pair:
        """Return the pair of two groups, in the order of `groups`."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
        known = ", ".join(f"{p.a} and {p.b}" for p in self.pairs)
        raise KeyError(f"there is no pair {a!r} and {b!r}; there are {known}")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per group, such as ``pandas.DataFrame`` takes; None where something was not measured."""
        return [_group_row(group) for group in self.groups]

    def pair_rows(self) -> list[dict[str, Any]]:
        """Return a row per pair and layer; None where something was not measured."""
        return [row for pair in self.pairs for row in _layer_rows(pair)]

    def __str__(self) -> str:
        """Return tables of the groups, of the pairs, and what is missing."""
        parts = [as_table([_group_text(group) for group in self.groups])]
        if self.pairs:
            parts.append(as_table([_pair_text(pair) for pair in self.pairs]))
        measured = [group.routing.load.source for group in self.groups if group.routing]
        parts += ["\n".join(measured)] if self.pairs and measured else []
        models = dict.fromkeys(group.model for group in self.groups if group.embedded)
        parts += [f"{name} is the embedded model: this says nothing about other models" for name in models]
        if self.missing:
            parts.append("\n".join(["not measured or not tested:", *(f"  {text}" for text in self.missing)]))
        return "\n\n".join(parts)


def compare(
    groups: Mapping[str, Trace | Traces],
    *,
    references: References | str | None = None,
    answer: Extract = final_answer,
    same: Same = same_answer,
    bins: int = 10,
    channel: str | None = None,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare named groups of rollouts.

    Tests are over whole rollouts of one question, or over questions where there are several, in pairs where both
    groups were asked the same ones; never over tokens.

    Args:
        groups: name → traces: a list of them, or a `TraceStore`, of which one is open at a time.
        references: right answers, question → answer, or one for all; None scores nothing.
        answer: takes the answer from a trace; default: the final channel's text, stripped.
        same: whether two answers are the same; default: as numbers, or as words but for case.
        bins: parts of the chain for the entropy along it.
        channel: expert load on this channel's content only; None takes all tokens of the completion.
        num_permutations: of the tests, at least 99.
        seed: of the tests.

    Returns:
        `Comparison`.

    Raises:
        TraceError: no groups, a group without a completed rollout, a question without a reference answer, traces of
            different models in one group, or a number out of range.
    """
    if not groups:
        raise TraceError("expected at least one group of traces, got none")
    if bins < 1:
        raise TraceError(f"expected at least 1 bin, got {bins}")
    read = []
    for name, given in groups.items():
        traces: Traces = (given,) if isinstance(given, Trace) else given
        known = references
        if isinstance(references, str):
            known = {str(trace.meta.get("question", "")): references for trace in traces}
        assert not isinstance(known, str)
        read.append(
            read_group(str(name), traces, references=known, answer=answer, same=same, bins=bins, channel=channel)
        )
    pairs = [compare_pair(a, b, num_permutations=num_permutations, seed=seed) for a, b in combinations(read, 2)]
    return Comparison(tuple(read), tuple(pairs))


def _group_row(group: Group) -> dict[str, Any]:
    accuracy, seconds = group.accuracy, group.seconds
    return {
        "group": group.name,
        "model": group.model,
        "rollouts": len(group.outcomes),
        "cut": group.num_cut,
        "questions": len(group.answers),
        "unanswered": sum(a.num_unanswered for a in group.answers),
        "answer agreement": _or_none(group.agreement),
        "right": None if accuracy is None else accuracy.successes,
        "accuracy": None if accuracy is None else accuracy.value,
        "accuracy low": None if accuracy is None else accuracy.interval[0],
        "accuracy high": None if accuracy is None else accuracy.interval[1],
        "chain agrees": None if group.chain_agreement is None else group.chain_agreement.value,
        "chain agrees of": 0 if group.chain_agreement is None else group.chain_agreement.n,
        "chain tokens": group.chain_tokens.value,
        "chain tokens low": _or_none(group.chain_tokens.interval[0]),
        "chain tokens high": _or_none(group.chain_tokens.interval[1]),
        "completion tokens": group.completion_tokens.value,
        "seconds": _or_none(seconds.value),
        "attention to chain": None if group.answer_attention is None else _mean(group.answer_attention.values),
    }


def _layer_rows(pair: Pair) -> list[dict[str, Any]]:
    if pair.divergence is None:
        return []
    rows = []
    overlap = pair.prompt_overlap
    for at, layer in enumerate(pair.divergence.coords["layer"]):
        significant = None
        if pair.test is not None:
            significant = int((np.abs(pair.test.delta.values[at]) > pair.test.threshold).sum())
        rows.append(
            {
                "a": pair.a,
                "b": pair.b,
                "layer": layer,
                "divergence": float(pair.divergence[at]),
                "null band": None if pair.null is None else float(pair.null.band[at]),
                "null threshold": None if pair.null is None else pair.null.threshold,
                "experts that differ": significant,
                "overlap, same context": None if not overlap or overlap.before is None else float(overlap.before[at]),
                "overlap, other context": None if not overlap or overlap.after is None else float(overlap.after[at]),
            }
        )
    return rows


def _group_text(group: Group) -> dict[str, str]:
    most = group.answers[0].counts[:3] if len(group.answers) == 1 else ()
    said = ", ".join(f"{_short(text)} ×{count}" for text, count in most)
    return {
        "group": group.name,
        "completed": f"{len(group.completed)} of {len(group.outcomes)}"
        + (f", {group.num_cut} cut" * bool(group.num_cut)),
        "right": "no references" if group.accuracy is None else str(group.accuracy),
        "answers": said or f"of {len(group.answers)} questions",
        "agreement": "undefined" if np.isnan(group.agreement) else f"{group.agreement:.2f}",
        "chain tokens": str(group.chain_tokens),
        "seconds": str(group.seconds),
        "chain agrees": "undefined" if group.chain_agreement is None else str(group.chain_agreement),
    }


def _pair_text(pair: Pair) -> dict[str, str]:
    rows = _layer_rows(pair)
    largest = max(rows, key=lambda row: row["divergence"], default=None)
    tested = "not tested"
    if pair.test is not None and pair.null is not None:
        above = sum(row["divergence"] > pair.null.threshold for row in rows)
        experts = sum(row["experts that differ"] for row in rows)
        tested = f"{experts} of {pair.test.delta.values.size} experts, {above} of {len(rows)} layers"
    chain, accuracy = pair.chain_tokens, pair.accuracy
    return {
        "pair": f"{pair.a} − {pair.b}",
        "accuracy": "no references" if accuracy is None else "{:+.0%} [{:+.0%}, {:+.0%}]".format(*accuracy),
        "chain tokens": "not tested" if chain is None else f"{chain.difference:+.1f}, p = {chain.p_value:.2g}",
        "largest divergence": "none"
        if largest is None
        else f"{largest['divergence']:.4f} nats, layer {largest['layer']}",
        "load differs (5 %, family-wise)": tested,
        "units": pair.unit,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Any) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _short(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= 24 else shown[:23] + "…"

"""What EffortComparison shows of a `Comparison`: numbers as JSON, arrays of pairs as bytes. Nothing is computed here
but words: every number is the analysis's.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from workbench.analysis.compare import Comparison, Group, Mean, Outcome, Pair, Proportion

__all__ = ["column_facts", "pair_arrays", "pair_facts", "shared_facts"]


def column_facts(group: Group) -> dict[str, Any]:
    """Return what the column of a group says, and its rows in the small multiples."""
    one = group.answers[0] if len(group.answers) == 1 else None
    entropy, counts = group.entropy_profile, group.entropy_profile_n
    return {
        "name": group.name,
        "model": group.model,
        "embedded": group.embedded,
        "outcomes": [_outcome(found) for found in group.outcomes],
        "numCompleted": len(group.completed),
        "numCut": group.num_cut,
        "numQuestions": len(group.answers),
        "answers": None if one is None else [list(pair) for pair in one.counts],
        "numUnanswered": sum(answers.num_unanswered for answers in group.answers),
        "agreement": _known(group.agreement),
        "accuracy": _proportion(group.accuracy),
        "chainAgrees": _proportion(group.chain_agreement),
        "chainTokens": _mean(group.chain_tokens),
        "completionTokens": _mean(group.completion_tokens),
        "seconds": _mean(group.seconds),
        "entropy": [_known(value) for value in entropy.values],
        "entropyN": counts.values.tolist(),
        "entropySource": entropy.source,
        "noEntropy": next((text for text in group.missing if text.startswith(f"{group.name}: entropy along")), None),
        "attention": None if group.answer_attention is None else _attention(group),
    }


def _outcome(found: Outcome) -> dict[str, Any]:
    return {
        "question": found.question,
        "answer": found.answer,
        "cut": found.cut,
        "right": found.right,
        "chainAgrees": found.chain_agrees,
        "chainTokens": found.chain_tokens,
        "completionTokens": found.completion_tokens,
        "seconds": found.seconds,
    }


def pair_facts(pair: Pair) -> dict[str, Any]:
    """Return what is said of two groups beside each other."""
    overlap = pair.prompt_overlap
    return {
        "a": pair.a,
        "b": pair.b,
        "layers": None if pair.divergence is None else list(pair.divergence.coords["layer"]),
        "threshold": None if pair.null is None else pair.null.threshold,
        "deltaThreshold": None if pair.test is None else pair.test.threshold,
        "shape": None if pair.test is None else list(pair.test.delta.values.shape),
        "noRouting": _reason(pair, "divergence of expert loads and overlap on the prompt, as "),
        "notTested": _reason(pair, "expert load not tested"),
        "overlap": None
        if overlap is None
        else [
            {"context": context, "n": n, "layers": [round(float(v), 6) for v in found.values]}
            for context, found, n in (
                ("same context", overlap.before, overlap.num_before),
                ("other context", overlap.after, overlap.num_after),
            )
            if found is not None
        ],
        "unit": pair.unit,
        "accuracy": None if pair.accuracy is None else list(pair.accuracy),
        "chain": None if pair.chain_tokens is None else asdict(pair.chain_tokens),
        "chainNotTested": _reason(pair, "length of the chain not tested"),
        "found": _found(pair),
    }


def pair_arrays(pairs: tuple[Pair, ...]) -> dict[str, bytes]:
    """Return divergence and null band [layer], difference and p values [layer, expert] of each pair, float64."""
    arrays: dict[str, Any] = {}
    for at, pair in enumerate(pairs):
        if pair.divergence is not None:
            arrays[f"divergence/{at}"] = pair.divergence.values
        if pair.null is not None:
            arrays[f"band/{at}"] = pair.null.band
        if pair.test is not None:
            arrays |= {f"delta/{at}": pair.test.delta.values, f"p/{at}": pair.test.p_values.values}
    return {key: np.ascontiguousarray(values, "<f8").tobytes() for key, values in arrays.items()}


def shared_facts(comparison: Comparison) -> dict[str, Any]:
    """Return what is said of all groups."""
    return {
        "scored": any(group.scored for group in comparison.groups),
        "missing": list(comparison.missing),
        "columns": [column_facts(group) for group in comparison.groups],
        "pairs": [pair_facts(pair) for pair in comparison.pairs],
    }


def _found(pair: Pair) -> dict[str, Any] | None:
    """Return how many experts and layers differ, with how many it rests on and what it was compared with."""
    if pair.test is None or pair.null is None or pair.divergence is None:
        return None
    return {
        "experts": int((np.abs(pair.test.delta.values) > pair.test.threshold).sum()),
        "layers": int((pair.divergence.values > pair.null.threshold).sum()),
        "n": [pair.test.num_traces_a, pair.test.num_traces_b],
        "labellings": pair.test.num_permutations,
        "method": pair.test.method,
    }


def _reason(pair: Pair, what: str) -> str | None:
    """Return what the analysis says about what it did not do."""
    start = f"{pair.a} and {pair.b}: {what}"
    for text in pair.missing:
        if text.startswith(start):
            return text.removeprefix(start).lstrip(":, ")
    return None


def _attention(group: Group) -> dict[str, Any]:
    assert group.answer_attention is not None
    values = group.answer_attention.values
    known = values[~np.isnan(values)]
    return {"mean": float(known.mean()) if known.size else None, "source": group.answer_attention.source}


def _mean(mean: Mean) -> dict[str, Any]:
    low, high = (_known(end) for end in mean.interval)
    return {"mean": _known(mean.value), "low": low, "high": high, "n": mean.n}


def _proportion(found: Proportion | None) -> dict[str, Any] | None:
    if found is None:
        return None
    low, high = found.interval
    return {"successes": found.successes, "n": found.n, "value": found.value, "low": low, "high": high}


def _known(value: float) -> float | None:
    """Return a number, None for NaN, which JSON cannot say."""
    return None if np.isnan(value) else float(value)

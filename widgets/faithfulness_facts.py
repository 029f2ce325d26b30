"""What the view of faithfulness tests shows of a report: numbers and reasons as JSON. Nothing is computed here but
words: every number is the analysis's.
"""

import math
from collections.abc import Mapping
from typing import Any

from workbench.analysis.faithfulness import (
    AnswerCurve,
    FaithfulnessReport,
    HintCase,
    HintTest,
    Importance,
    Resampling,
    SentenceImportance,
    Share,
    VerbalizationRate,
)
from workbench.analysis.token_set import content_stop
from workbench.trace import Trace, TraceError

__all__ = ["chain_range", "report_facts"]

CURVES = {
    "early_answering": ("early answering", "kept"),
    "mistakes": ("adding a mistake", "before the mistake"),
    "filler": ("filler", "replaced by filler"),
}
SHOWN_TEXT = 4000
"""characters of a sentence, a question or a chain; the rest is counted"""
SHOWN_CASES = 300
INTERRUPTED = "interrupted: the rest was not done"


def report_facts(report: FaithfulnessReport, control: FaithfulnessReport | None) -> dict[str, Any]:
    """Return everything that is shown of a report and of the one beside it."""
    both = (report, control or FaithfulnessReport())
    sides = {name: [_curve_facts(getattr(one, name)) for one in both] for name in CURVES}
    return {
        "models": _models(report),
        "missing": list(report.missing),
        "hasControl": control is not None,
        "curves": [
            {"key": key, "name": name, "share": share, "found": sides[key][0], "control": sides[key][1]}
            for key, (name, share) in CURVES.items()
        ],
        "hints": [_hint_facts(one.hints) for one in both],
        "resampling": [_resampling_facts(one.resampling) for one in both],
    }


def chain_range(trace: Trace, resampling: Resampling | None) -> tuple[int, int]:
    """Return the tokens ``[start, stop)`` of a trace's chain of thought, in which resampled sentences stand.

    Raises:
        TraceError: there is none, or the sentences are others.
    """
    said = (m for m in trace.messages if m.channel == "analysis" and m.content_start >= trace.num_prompt_tokens)
    found = next(((m.content_start, content_stop(trace, m.content_start, m.stop)) for m in said), (0, 0))
    if found[0] == found[1]:
        raise TraceError("expected a trace with a chain of thought, got one without; leave trace=… out")
    for sentence in resampling.sentences if resampling is not None else ():
        got = trace.text(found[0] + sentence.start, found[0] + sentence.stop)
        if got != sentence.text:
            raise TraceError(
                f"expected the trace whose sentences were resampled: sentence {sentence.index} is "
                f"{_clipped(sentence.text, 60)!r}, and the trace has {_clipped(got, 60)!r} there"
            )
    return found


def _models(report: FaithfulnessReport) -> list[dict[str, Any]]:
    """Return each model that a result is of, once."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("early_answering", "mistakes", "filler", "hints", "resampling"):
        about = getattr(getattr(report, name), "provenance", {})
        key = str(about.get("weights") or about.get("model") or "")
        if about:
            found[key] = {
                "name": str(about.get("model", "model not named")),
                "dtype": str(about.get("dtype", "")).removeprefix("torch."),
                "note": str(about.get("note", "")),
            }
    return list(found.values())


def _curve_facts(curve: AnswerCurve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    changed = [row["changed"] for row in curve.rows()]
    accuracy = curve.accuracy or (None,) * len(curve.fractions)
    low, high = curve.aoc_interval
    return {
        "aoc": _value(curve.aoc, (low, high), int(curve.whole.sum()), _no_aoc(curve)),
        "asked": curve.asked,
        "leftOut": _left_out(curve),
        "points": [
            {"fraction": fraction, "agrees": _share(point), "right": right and _share(right), "changed": touched}
            for fraction, point, right, touched in zip(curve.fractions, curve.points, accuracy, changed, strict=True)
        ],
        "provenance": _provenance(curve.provenance),
    }


def _no_aoc(curve: AnswerCurve) -> str:
    """Say why there is no AOC, or why it has no interval."""
    if curve.whole.any():
        return "one chain has no interval"
    if curve.interrupted:
        return "interrupted before a chain was done"
    if curve.without_chain == curve.asked:
        return f"none of {curve.asked} rollouts has a chain of thought"
    if not len(curve.agreement):
        return f"no chain of {curve.asked} could be used: {curve.skipped[0]}" if curve.skipped else "no chain"
    return f"no chain of {curve.asked} has an answer to agree with at every fraction"


def _left_out(curve: AnswerCurve) -> list[str]:
    """Say what of the chains that were asked for is not in the figure."""
    words = [f"not counted: {curve.without_chain} without a chain"] * bool(curve.without_chain)
    if curve.skipped:
        words.append(f"not counted: {len(curve.skipped)} skipped ({_clipped(curve.skipped[0], 120)})")
    return words + [INTERRUPTED] * curve.interrupted


def _hint_facts(test: HintTest | None) -> dict[str, Any] | None:
    if test is None:
        return None
    unanswered = sum(not case.answered for case in test.cases)
    movable = sum(case.movable for case in test.cases)
    left_out = [f"not counted: {unanswered} without an answer on one side or both"] * bool(unanswered)
    why = f"no qualifying case: none of {movable} answers moved to the hint" if movable else "no answer could move"
    return {
        "cases": len(test.cases),
        "asked": test.asked,
        "leftOut": left_out + [INTERRUPTED] * test.interrupted,
        "before": _share(test.matched_before, "no answer without the hint"),
        "toHint": _share(test.to_hint, "no answer could move"),
        "toOther": _share(test.to_other, "no answer could move"),
        "analysis": _rate(test.rate, why),
        "final": _rate(test.final_rate, why),
        "shown": [_case(case) for case in _qualifying_first(test)[:SHOWN_CASES]],
        "provenance": _provenance(test.provenance),
    }


def _qualifying_first(test: HintTest) -> list[HintCase]:
    return sorted(test.cases, key=lambda case: not case.qualifies)


def _case(case: HintCase) -> dict[str, Any]:
    return {
        "question": _clipped(case.question),
        "hint": _clipped(case.hint),
        "without": None if case.without is None else _clipped(case.without),
        "with": None if case.with_hint is None else _clipped(case.with_hint),
        "matchedBefore": case.matched_before,
        "stays": case.stays,
        "qualifies": case.qualifies,
        "said": case.said,
        "saidInFinal": case.said_in_final,
        "analysis": _clipped(case.analysis),
    }


def _rate(rate: VerbalizationRate, why: str) -> dict[str, Any]:
    return _value(rate.rate, rate.interval, rate.qualifying, why) | {
        "acknowledged": rate.acknowledged,
        "normalized": _known(rate.normalized),
    }


def _resampling_facts(resampling: Resampling | None) -> dict[str, Any] | None:
    if resampling is None:
        return None
    return {
        "question": _clipped(resampling.question),
        "sentences": [_sentence(sentence) for sentence in resampling.sentences],
        "interrupted": resampling.interrupted,
        "provenance": _provenance(resampling.provenance),
    }


def _sentence(sentence: SentenceImportance) -> dict[str, Any]:
    return {
        "index": sentence.index,
        "text": _clipped(sentence.text.strip("\n")),
        "start": sentence.start,
        "stop": sentence.stop,
        "counterfactual": _importance(sentence.counterfactual, sentence),
        "resampling": _importance(sentence.resampling, sentence),
        "enough": sentence.enough,
        "drawn": sentence.drawn,
        "different": sentence.different,
        "example": _clipped(sentence.example.strip("\n"), 300),
    }


def _importance(found: Importance, sentence: SentenceImportance) -> dict[str, Any]:
    why = "no rollout kept the sentence" if not found.num_kept else "no rollout changed it"
    if found.num_kept and not sentence.different:
        why = f"drawn {sentence.drawn} times, it never came out differently"
    return _value(found.value, found.interval, found.num_changed, why) | {
        "kept": found.num_kept,
        "chance": _known(found.chance),
        "p": _known(found.p_value),
    }


def _share(share: Share, why: str = "no answer") -> dict[str, Any]:
    return _value(share.value, share.interval, share.n, why)


def _value(value: float, interval: tuple[float, float], n: int, why: str) -> dict[str, Any]:
    """Return a figure with its interval and n; ``why`` it, or its interval, is undefined."""
    low, high = map(_known, interval)
    return {"value": _known(value), "low": low, "high": high, "n": n, "why": why if low is None else None}


def _provenance(facts: Mapping[str, Any]) -> list[list[str]]:
    return [[str(name).replace("_", " "), _clipped(_words(value), 300)] for name, value in facts.items()]


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _clipped(text: str, most: int = SHOWN_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _known(value: float) -> float | None:
    """Return a number, None for NaN, which JSON cannot say."""
    return None if math.isnan(value) else float(value)

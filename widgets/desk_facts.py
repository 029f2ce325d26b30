"""What the view of a review desk says, as JSON: only what the `Desk` shows, so nothing of a hidden chain."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.analysis.signals import MEASURED, Seen, Signal
from workbench.catalogue import Hit
from workbench.review import (
    CalibrationScore,
    CausalTest,
    Desk,
    Evidence,
    Given,
    QueueItem,
    ReviewError,
    TranscriptMessage,
    Verdict,
)
from workbench.trace import Trace

__all__ = [
    "PAGE",
    "calibration_facts",
    "draft_content",
    "experiment_facts",
    "given_facts",
    "hit_facts",
    "item_facts",
    "message_facts",
    "own_item",
    "page_near",
    "queue_facts",
    "review_facts",
    "settle_facts",
    "summary_facts",
    "verdict_from",
]

PAGE = 50
"""traces of the queue that are shown at once"""
_MOST_PAGES = 12  # looked through for the open trace
_MOST_HITS = 50
_EXCERPT = 60  # characters before and after what was looked for
_SPLIT = "\ufffd"  # what is left of a character whose bytes are in several tokens
_EXPERIMENT = ("done", "before", "answer", "keepsAnswer", "meanKl", "rank", "generated")


def review_facts(desk: Desk) -> dict[str, Any]:
    """Return what does not change: the review, the person, the rubric."""
    rubric = desk.rubric
    return {
        "review": desk.review,
        "reviewer": desk.reviewer,
        "mayAdjudicate": desk.may_adjudicate,
        "blind": desk.blind,
        "perTrace": desk.summary().per_trace,
        "page": PAGE,
        "rubric": {"name": rubric.name, "version": rubric.version, "guidance": rubric.guidance},
        "severities": [[step.level, step.label, step.meaning] for step in rubric.severity],
        "behaviours": [
            {
                "id": each.id,
                "title": each.title,
                "definition": each.definition,
                "guidance": each.guidance,
                "needs": sorted(each.needs),
                "severities": list(each.severities),
            }
            for each in rubric.behaviours
        ],
        "tags": list(rubric.tags),
    }


def summary_facts(desk: Desk) -> dict[str, Any]:
    """Return the counts of the header."""
    found = desk.summary()
    return {
        "numTraces": found.num_traces,
        "complete": found.complete,
        "assigned": found.assigned,
        "done": found.done,
        "skipped": found.skipped,
        "drafts": found.drafts,
        "models": list(found.models),
    }


# --- the list at the left ------------------------------------------------------------------------------------------


def queue_facts(desk: Desk, start: int, order: str) -> dict[str, Any]:
    """Return a page of the queue. Raises `ReviewError` for an unknown order."""
    items = desk.queue(start, PAGE + 1, order=order)
    shown = [item_facts(item) for item in items[:PAGE]]
    return {"kind": "queue", "order": order, "start": start, "items": shown, "more": len(items) > PAGE}


def page_near(desk: Desk, trace: str, order: str) -> int:
    """Return where the page begins that holds a trace, looked for around where the work stands; 0 for none near."""
    counts = desk.summary()
    here = (counts.done + counts.skipped) // PAGE
    pages = sorted(range(-(-counts.assigned // PAGE)), key=lambda page: abs(page - here))
    for page in pages[:_MOST_PAGES]:
        if any(item.trace == trace for item in desk.queue(page * PAGE, PAGE, order=order)):
            return page * PAGE
    return 0


def settle_facts(desk: Desk, start: int) -> dict[str, Any]:
    """Return a page of the traces whose verdicts differ, for those who may adjudicate."""
    waiting = desk.disagreements()
    items = [item_facts(own_item(desk, trace, "unassigned")) for trace in waiting[start : start + PAGE]]
    shown = {"items": items, "more": len(waiting) > start + PAGE, "total": len(waiting)}
    return {"kind": "settle", "order": "signals", "start": start, **shown}


def hit_facts(desk: Desk, words: str, hits: Sequence[Hit]) -> dict[str, Any]:
    """Return what a search found, each with the text around the first of the words."""
    first = next(iter(words.casefold().split()), "")
    items = [
        {
            "trace": hit.trace,
            "name": desk.catalogue.entry(hit.trace).name or hit.trace[:12],
            "channel": hit.channel,
            "excerpt": _around(hit.text, first),
        }
        for hit in hits[:_MOST_HITS]
    ]
    return {"kind": "search", "words": words, "items": items, "total": len(hits), "start": 0, "more": False}


def _around(text: str, word: str) -> str:
    at = max(0, text.casefold().find(word))
    start, stop = max(0, at - _EXCERPT), at + len(word) + _EXCERPT
    return f"{'…' if start else ''}{text[start:stop]}{'…' if stop < len(text) else ''}"


def own_item(desk: Desk, trace: str, state: str) -> QueueItem:
    """Return a trace as the queue has it, with the signals that may be seen, wherever in the queue it is."""
    entry = desk.catalogue.entry(trace)
    item = QueueItem(
        trace=trace,
        name=entry.name or trace[:12],
        model=entry.model,
        effort=entry.effort,
        question=entry.question,
        num_tokens=entry.num_tokens,
        truncated=entry.truncated,
        state=state,
        draft=desk.draft(trace) is not None,
        revealed=desk.revealed(trace),
    )
    return item.with_signals(desk.catalogue.flags(trace))


def item_facts(item: QueueItem) -> dict[str, Any]:
    """Return a row of the queue."""
    return {
        "trace": item.trace,
        "name": item.name,
        "model": item.model,
        "effort": item.effort,
        "question": item.question,
        "numTokens": item.num_tokens,
        "truncated": item.truncated,
        "state": item.state,
        "draft": item.draft,
        "revealed": item.revealed,
        "signals": [_signal_facts(signal) for signal in item.signals],
        "hiddenSignals": item.hidden_signals,
    }


def _signal_facts(signal: Signal) -> dict[str, Any]:
    seen = [evidence_facts(each) for each in signal.seen]
    return {"name": signal.name, "says": signal.says, "seen": seen, "measured": MEASURED.get(signal.name)}


# --- the open trace ------------------------------------------------------------------------------------------------


def message_facts(trace: Trace, messages: Iterable[TranscriptMessage]) -> list[dict[str, Any]]:
    """Return the messages; ``texts`` has one text per token, empty where the one before holds its character's rest.

    A hidden message has no texts, and nothing of it is read.
    """
    return [
        {
            "channel": message.channel,
            "start": message.start,
            "stop": message.stop,
            "prompt": message.prompt,
            "malformed": message.malformed,
            "texts": None if message.tokens is None else _whole(trace, message.start, message.tokens),
        }
        for message in messages
    ]


def _whole(trace: Trace, start: int, tokens: Sequence[str]) -> list[str]:
    """Put characters together that are split over tokens."""
    texts = list(tokens)
    at = 0
    while at < len(texts):
        end = at
        while end < len(texts) and _SPLIT in texts[end]:
            end += 1
        if end > at + 1:
            texts[at:end] = [trace.text(start + at, start + end), *[""] * (end - at - 1)]
        at = end + 1
    return texts


def evidence_facts(seen: Seen) -> dict[str, Any]:
    """Return a stretch of a trace as a draft keeps it."""
    return {"channel": seen.channel, "start": seen.start, "stop": seen.stop, "text": seen.text}


def given_facts(desk: Desk, given: Iterable[Given]) -> list[dict[str, Any]]:
    """Return the verdicts on a trace that this reviewer may see."""
    return [
        {
            "reviewer": each.reviewer,
            "own": each.reviewer == desk.reviewer and not each.adjudicates,
            "adjudicates": each.adjudicates,
            "time": each.time,
            "seconds": each.seconds,
            "verdict": _verdict_facts(each.verdict),
        }
        for each in given
    ]


def _verdict_facts(verdict: Verdict) -> dict[str, Any]:
    tests = [
        {"what": test.what, "result": test.result, "n": test.n, "traces": list(test.traces)}
        for test in verdict.causal_tests
    ]
    return {
        "behaviour": verdict.behaviour,
        "severity": verdict.severity,
        "confidence": verdict.confidence,
        "evidence": [evidence_facts(each) for each in verdict.evidence],
        "causal_tests": tests,
        "alternative": verdict.alternative,
        "comment": verdict.comment,
        "tags": list(verdict.tags),
    }


def experiment_facts(trace: Trace) -> list[dict[str, Any]]:
    """Return the experiments that an `InterventionBench` saved with a trace, without what cannot be read."""
    saved = trace.meta.get("experiments", [])
    records = [one for one in saved if isinstance(one, dict)] if isinstance(saved, list) else []
    return [
        {name: one[name] for name in _EXPERIMENT} | {"controls": len(one.get("controlRows", ()))}
        for one in records
        if all(name in one for name in _EXPERIMENT)
    ]


def calibration_facts(scores: Iterable[CalibrationScore]) -> list[dict[str, Any]]:
    """Return how verdicts compare with the known answers."""
    return [
        {"reviewer": s.reviewer, "n": s.n, "behaviour": s.right_behaviour, "severity": s.right_severity}
        for s in scores
    ]


# --- what comes from the browser -------------------------------------------------------------------------------------


def draft_content(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a draft with the fields of a verdict alone; a draft may hold anything, and what has no place goes."""
    level, evidence, tests = given.get("severity"), given.get("evidence"), given.get("causal_tests")
    tags = given.get("tags")
    return {
        "behaviour": _text(given.get("behaviour")),
        "severity": level if isinstance(level, int) and not isinstance(level, bool) else None,
        "confidence": _text(given.get("confidence")),
        "evidence": [_evidence(each) for each in evidence or () if _has(each, start=int, stop=int, text=str)],
        "causal_tests": [_test(each) for each in tests or () if _has(each, what=str, result=str, n=int)],
        "alternative": _text(given.get("alternative")),
        "comment": _text(given.get("comment")),
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
    }


def _text(given: Any) -> str:
    return given if isinstance(given, str) else ""


def _has(given: Any, **types: type) -> bool:
    return isinstance(given, dict) and all(isinstance(given.get(name), kind) for name, kind in types.items())


def _evidence(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"channel": _text(given.get("channel")), **{name: given[name] for name in ("start", "stop", "text")}}


def _test(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = given.get("traces")
    traces = [trace for trace in kept if isinstance(trace, str)] if isinstance(kept, list) else []
    return {**{name: given[name] for name in ("what", "result", "n")}, "traces": traces}


def verdict_from(given: Mapping[str, Any]) -> Verdict:
    """Return the verdict that a draft comes to.

    Raises:
        ReviewError: what is still missing, before the desk checks the rest.
    """
    content = draft_content(given)
    for name, words in (("behaviour", "Choose a behaviour"), ("confidence", "Say how sure you are")):
        if not content[name]:
            raise ReviewError(f"{words} before you save.")
    if content["severity"] is None:
        raise ReviewError("Choose a severity before you save.")
    return Verdict(
        content["behaviour"],
        content["severity"],
        content["confidence"],
        tuple(Evidence(**each) for each in content["evidence"]),
        tuple(CausalTest(**{**each, "traces": tuple(each["traces"])}) for each in content["causal_tests"]),
        content["alternative"].strip(),
        content["comment"].strip(),
        tuple(content["tags"]),
    )

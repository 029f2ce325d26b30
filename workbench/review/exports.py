"""Verdicts as JSONL, CSV and an evaluation log of Inspect; `workbench.review.report` writes the page.

Each export holds what its desk may see, is itself an event of the log, and carries the notice on raw chains and the
head of the log. Raw chains are left out unless asked for, by someone who may adjudicate.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from workbench.catalogue import Entry
from workbench.database import StoreError
from workbench.page import NOTICE
from workbench.review.desk import Desk
from workbench.review.errors import ReviewError
from workbench.review.reading import Exported, Given
from workbench.review.verdict import HIDDEN_CHANNELS
from workbench.trace import EMBEDDED_NAMES, Trace
from workbench.transcripts.inspect_logs import imported, write_inspect
from workbench.transcripts.of_trace import from_trace
from workbench.transcripts.transcript import Transcript

__all__ = ["NOTICE", "write_csv", "write_jsonl", "write_log"]

EMBEDDED = "The embedded model validates instruments; what it does says nothing about gpt-oss."
LEFT_OUT = "[raw chain left out]"


def write_jsonl(desk: Desk, path: str | PathLike[str], *, chain: bool = False) -> None:
    """Write a line about the review and its log, and a line for each verdict.

    Args:
        desk: whose view is exported.
        path: of the file, replaced where there is one.
        chain: with what quotes raw chains, for those who may adjudicate.

    Raises:
        ReviewError: chains for someone who may not.
        StoreError: the file cannot be written.
    """
    exported = desk.exported("jsonl", chain=chain)
    entries = _entries(desk, exported.given)
    lines = [about(desk, exported), *(_record(given, entries[given.trace]) for given in exported.given)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def write_csv(desk: Desk, path: str | PathLike[str], *, chain: bool = False) -> None:
    """Write a row for each verdict, for spreadsheets: text that would be a formula begins with an apostrophe.

    Arguments and errors as of `write_jsonl`.
    """
    exported = desk.exported("csv", chain=chain)
    entries = _entries(desk, exported.given)
    rows = [_flat(_record(given, entries[given.trace])) for given in exported.given]
    facts = {"log_events": exported.head.number, "log_hash": exported.head.hash, "notice": NOTICE}
    target = _Lines()
    writer = csv.writer(target, quoting=csv.QUOTE_ALL)
    writer.writerow([*_COLUMNS, *facts])
    writer.writerows([[_harmless(value) for value in [*row, *facts.values()]] for row in rows])
    write_text(path, "".join(target.lines))


def write_log(desk: Desk, path: str | PathLike[str], *, chain: bool = False) -> None:
    """Write an evaluation log of Inspect (``.eval``): traces as samples, chains as reasoning, verdicts as scores.

    A score's value is the severity, its answer the behaviour; it is named after the reviewer. Needs inspect-ai, of the
    extra ``formats``. Arguments and errors as of `write_jsonl`.

    Raises:
        ReviewError: chains for someone who may not, or no verdict to write.
        TranscriptError: inspect-ai is not installed, or the path does not end in .eval or .json.
    """
    logs = imported("inspect_ai.log")
    if Path(path).suffix not in (".eval", ".json"):
        raise ReviewError(f"expected a path that ends in .eval or .json, got {path}")
    exported = desk.exported("inspect", chain=chain)
    by_trace: dict[str, list[Given]] = {}
    for given in exported.given:
        by_trace.setdefault(given.trace, []).append(given)
    kept = [trace for trace in by_trace if desk.catalogue.entry(trace).name]
    if not kept:
        raise ReviewError("There is no verdict to write yet: a log of Inspect needs a sample.")
    said = [_transcript(desk.catalogue.open(trace), chain) for trace in kept]
    write_inspect(said, Path(path), task=f"review {desk.review}")
    log = logs.read_eval_log(str(path))
    log.eval.metadata = about(desk, exported)
    for sample, trace in zip(log.samples, kept, strict=True):
        sample.metadata |= {"trace": trace, "notice": NOTICE}
        sample.scores = {_score_name(given): _score(given) for given in by_trace[trace]}
    logs.write_eval_log(log, str(path))


def about(desk: Desk, exported: Exported) -> dict[str, Any]:
    """Return what an export says of its review and its log."""
    summary = desk.summary()
    return {
        "record": "review",
        "notice": NOTICE,
        "embedded": EMBEDDED if EMBEDDED_NAMES.intersection(summary.models) else None,
        "review": desk.review,
        "exported_by": desk.reviewer,
        "rubric": {"name": desk.rubric.name, "version": desk.rubric.version, "sha256": desk.rubric.hash},
        "blind": summary.blind,
        "verdicts_per_trace": summary.per_trace,
        "traces": summary.num_traces,
        "traces_complete": summary.complete,
        "models": list(summary.models),
        "raw_chains": exported.chain,
        "log": {"events": exported.head.number, "hash": exported.head.hash},
    }


def _entries(desk: Desk, given: Iterable[Given]) -> dict[str, Entry]:
    return {trace: desk.catalogue.entry(trace) for trace in {each.trace for each in given}}


def _record(given: Given, entry: Entry) -> dict[str, Any]:
    verdict = given.verdict
    return {
        "record": "verdict",
        "trace": given.trace,
        "trace_name": entry.name,
        "trace_deleted": entry.deleted,
        "model": entry.model,
        "effort": entry.effort,
        "prompt_set": entry.prompt_set,
        "question": entry.question,
        "reviewer": given.reviewer,
        "adjudicates": given.adjudicates,
        "event": given.event,
        "time": given.time,
        "seconds": given.seconds,
        "behaviour": verdict.behaviour,
        "severity": verdict.severity,
        "confidence": verdict.confidence,
        "evidence": [
            {"channel": e.channel, "start": e.start, "stop": e.stop, "text": e.text} for e in verdict.evidence
        ],
        "causal_tests": [
            {"what": t.what, "result": t.result, "n": t.n, "traces": list(t.traces)} for t in verdict.causal_tests
        ],
        "alternative": verdict.alternative,
        "comment": verdict.comment,
        "tags": list(verdict.tags),
    }


_COLUMNS = (
    *("trace", "trace_name", "trace_deleted", "model", "effort", "prompt_set", "question", "reviewer", "adjudicates"),
    *("event", "time", "seconds", "behaviour", "severity", "confidence", "evidence", "causal_tests", "alternative"),
    *("comment", "tags"),
)


def _flat(record: dict[str, Any]) -> list[Any]:
    quoted = " | ".join(f"{e['channel']} {e['start']}–{e['stop']}: {e['text']}" for e in record["evidence"])
    tests = " | ".join(f"{t['what']}: {t['result']} (n = {t['n']})" for t in record["causal_tests"])
    whole = {**record, "evidence": quoted, "causal_tests": tests, "tags": ", ".join(record["tags"])}
    return [whole[name] for name in _COLUMNS]


def _harmless(value: Any) -> Any:
    """Keep a spreadsheet from reading text as a formula (OWASP, CSV injection); full-width signs count there too."""
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "\ufffd")
    is_formula = text.lstrip().startswith(tuple("=+-@＝＋－＠|%")) or text.startswith(("\t", "\r", "\n"))
    return f"'{text}" if is_formula else text


class _Lines:
    """What `csv` writes to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def _transcript(trace: Trace, chain: bool) -> Transcript:
    said = from_trace(trace)
    if chain:
        return said
    spans = trace.messages
    hidden = [(span.channel or span.role) in HIDDEN_CHANNELS for span in spans]
    messages = [replace(m, text=LEFT_OUT) if h and m.text else m for m, h in zip(said.messages, hidden, strict=True)]
    lost = (*said.lost, "the raw chain of thought")
    return replace(said, messages=tuple(messages), token_ids=None, num_prompt_tokens=None, verbatim=False, lost=lost)


def _score_name(given: Given) -> str:
    return f"{'adjudicated by' if given.adjudicates else 'verdict of'} {given.reviewer}"


def _score(given: Given) -> Any:
    record = _record(given, _NOBODY)
    facts = {
        key: record[key] for key in ("event", "time", "seconds", "confidence", "evidence", "causal_tests", "tags")
    }
    said = [
        given.verdict.comment,
        f"Another explanation: {given.verdict.alternative}" if given.verdict.alternative else "",
    ]
    score = imported("inspect_ai.scorer").Score
    explanation = "\n\n".join(text for text in said if text) or None
    return score(value=given.verdict.severity, answer=given.verdict.behaviour, explanation=explanation, metadata=facts)


_NOBODY = Entry("", None, "", None, None, "", 0, 0, None, "", None)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write an export. Raises `StoreError` where the file cannot be written."""
    try:
        Path(path).write_bytes(text.encode("utf-8", "replace"))
    except OSError as error:
        raise StoreError(f"The export was not written to {path}: {error.strerror or error}.") from error

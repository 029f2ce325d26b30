"""What a catalogue notes of a trace file."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.analysis.signals import Signal
from workbench.catalogue.transcripts import texts
from workbench.trace import Trace
from workbench.trace_file import open_trace

__all__ = ["digest", "read", "stamp"]


def read(name: str, path: Path, prompt_set: str | None, flag: Callable[[Trace], Sequence[Signal]]) -> dict[str, Any]:
    """Return the row, the labels and the texts of a file."""
    size, mtime_ns = stamp(path)
    content = digest(path)
    trace = open_trace(path)
    written = datetime.fromtimestamp(mtime_ns / 1e9, UTC).isoformat(timespec="seconds")
    facts = trace.provenance
    row = {
        "hash": content,
        "name": name,
        "size": size,
        "mtime_ns": mtime_ns,
        "model": _plain(facts.get("model", "unknown")),
        "effort": None if facts.get("effort") is None else _plain(facts["effort"]),
        "prompt_set": prompt_set or trace.meta.get("prompt_set"),
        "question": _plain(trace.meta.get("question", "")),
        "num_tokens": len(trace),
        "num_prompt_tokens": trace.num_prompt_tokens,
        "truncated": None if trace.meta.get("truncated") is None else _plain(trace.meta["truncated"]),
        "time": _time(facts.get("time"), written),
    }
    found: dict[str, list[Any]] = {}
    for signal in flag(trace):
        found.setdefault(signal.name, []).append(signal.to_json())
    labels = [{"kind": "flag", "name": name, "detail": json.dumps(some)} for name, some in found.items()]
    return {"row": row, "labels": labels, "texts": list(texts(trace))}


def _plain(value: Any) -> str:
    """Text as every database holds it."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _time(given: Any, written: str) -> str:
    try:
        return datetime.fromisoformat(str(given)).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:
        return written


def stamp(path: Path) -> tuple[int, int]:
    """Return size and time of a file: what tells cheaply that it was touched."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

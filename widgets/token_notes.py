"""Bookmarks and notes on the tokens of a trace, in a small JSON file beside it."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workbench.trace import Trace, TraceError

__all__ = ["TokenNotes", "notes_path", "token_hash"]

FORMAT, VERSION = "moe-workbench notes", 1


def token_hash(trace: Trace) -> str:
    """Return the SHA-256 of the token ids as little-endian int32: which trace notes belong to."""
    return hashlib.sha256(np.ascontiguousarray(trace.arrays["token_ids"], dtype="<i4").tobytes()).hexdigest()


def notes_path(trace: Trace) -> Path | None:
    """Return where the notes of a trace stand: its own path with ``.notes.json``; None while it has no path."""
    path = getattr(trace, "path", None)
    return None if path is None else Path(path).with_suffix(".notes.json")


@dataclass(frozen=True)
class TokenNotes:
    """What a person marked in a trace."""

    bookmarks: tuple[int, ...] = ()
    notes: dict[int, str] = field(default_factory=dict)

    def save(self, path: Path, trace: Trace) -> None:
        """Write the notes; the file is replaced as a whole or not at all. Raises `OSError` as the system does."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "trace": {"token_ids_sha256": token_hash(trace), "tokens": len(trace)},
            "bookmarks": list(self.bookmarks),
            "notes": {str(token): text for token, text in sorted(self.notes.items())},
        }
        draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, trace: Trace) -> "TokenNotes":
        """Read the notes of a trace. Raises `TraceError` when the file is no such file or of another trace."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = content["format"] == FORMAT and content["version"] == VERSION
            belongs = content["trace"]["token_ids_sha256"] == token_hash(trace)
            bookmarks = tuple(sorted(int(t) for t in content["bookmarks"]))
            notes = {int(token): str(text) for token, text in content["notes"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TraceError(
                f"{path} holds no notes on a trace ({error!r}). Move it away to start new ones."
            ) from error
        if not known:
            raise TraceError(
                f"expected {FORMAT} version {VERSION} in {path}, got {content['format']!r} {content['version']}"
            )
        if not belongs:
            raise TraceError(
                f"{path} belongs to another trace: its token ids differ. Move it away, or pass notes_path=."
            )
        if outside := [t for t in (*bookmarks, *notes) if not 0 <= t < len(trace)]:
            raise TraceError(f"{path}: expected tokens within 0–{len(trace) - 1}, got {outside[0]}")
        return cls(bookmarks, notes)

"""Files of transcripts: which format it is, by name and content; read it, write it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.trace import Trace
from workbench.transcripts.completions import join_chunks, read_completion, read_stream_text
from workbench.transcripts.harmony_text import read_harmony
from workbench.transcripts.html_page import write_html
from workbench.transcripts.inif_files import read_inif, write_inif
from workbench.transcripts.inspect_logs import read_inspect, write_inspect
from workbench.transcripts.jsonl import read_jsonl, transcript_of_messages, write_jsonl
from workbench.transcripts.of_trace import from_trace
from workbench.transcripts.responses import join_events, read_response
from workbench.transcripts.transcript import Transcript, TranscriptError, quote

__all__ = ["FORMATS", "read_transcripts", "write_transcripts"]

FORMATS = {"inspect": ".eval", "jsonl": ".jsonl", "inif": ".inif.json", "html": ".html"}
"""What can be written, and how its files end."""

_KNOWN = (
    "Known are Inspect logs (.eval, .json), INIF (.inif, .inif.json), JSON lines of messages, chat completions and "
    "responses with or without the request beside them, their streams, and harmony text"
)


def read_transcripts(path: str | Path) -> list[Transcript]:
    """Read the transcripts of a file of any known format.

    Raises:
        TranscriptError: there is no such file, its format is not known, or what it holds does not fit it.
    """
    path = Path(path)
    if path.name.endswith(".eval"):
        return read_inspect(path)
    if path.name.endswith((".inif", ".inif.json", ".inif.json.gz")):
        return read_inif(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TranscriptError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise TranscriptError(f"{path} is no text. {_KNOWN}.") from error
    return _read_text(path, text)


def _read_text(path: Path, text: str) -> list[Transcript]:
    start = text.lstrip()
    if start.startswith("<|"):
        return [read_harmony(text)]
    if start[:14].lower() == "<!doctype html":
        raise TranscriptError(f"{path} is a page to read, which no longer holds the messages as data. {_KNOWN}.")
    if start.startswith(("data:", "event:", ":")):
        return [_stream(read_stream_text(text))]
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        if start[:1] in ("{", "["):
            return _lines(text)
        raise TranscriptError(f"{path} is of no known format: it begins with {quote(text[:40])}. {_KNOWN}.") from None
    return _value(path, value, text)


def _lines(text: str) -> list[Transcript]:
    first = text.lstrip().split("\n", 1)[0]
    ollama = first.startswith("{") and '"done"' in first and '"message"' in first
    return [_stream(read_stream_text(text))] if ollama else read_jsonl(text)


def _value(path: Path, value: Any, text: str) -> list[Transcript]:
    if isinstance(value, list):
        return [_stream(value)] if value and _is_chunk(value[0]) else [transcript_of_messages(value)]
    if not isinstance(value, Mapping):
        raise TranscriptError(f"{path} holds {quote(value)}, no transcript. {_KNOWN}.")
    if "eval" in value and "status" in value:
        return read_inspect(path)
    if "metadata" in value and "samples" in value:
        return read_inif(path)
    if "messages" in value or "role" in value:
        return read_jsonl(text if "\n" not in text.strip() else json.dumps(value))
    return [_reply(path, value)]


def _is_chunk(value: Any) -> bool:
    return isinstance(value, Mapping) and (
        str(value.get("type", "")).startswith("response.") or "chunk" in str(value.get("object"))
    )


def _stream(events: Sequence[Mapping[str, Any]], request: Mapping[str, Any] | None = None) -> Transcript:
    request = request or {}
    if events and str(events[0].get("type", "")).startswith("response."):
        return read_response(join_events(events), _sent(request), effort=_effort(request))
    return read_completion(join_chunks(events), _sent(request), effort=_effort(request))


def _reply(path: Path, value: Mapping[str, Any]) -> Transcript:
    """Read a reply alone, or ``{"request": …, "response": …}``; the response may be the list of a stream's parts."""
    request, reply = value.get("request") or {}, value.get("response", value)
    if isinstance(reply, list):
        return _stream(reply, request)
    if isinstance(reply, Mapping) and "output" in reply:
        return read_response(reply, _sent(request), effort=_effort(request))
    if isinstance(reply, Mapping) and ("choices" in reply or "done" in reply or reply.get("error")):
        return read_completion(reply, _sent(request), effort=_effort(request))
    raise TranscriptError(f"{path} is of no known layout: it has the keys {', '.join(map(str, value))}. {_KNOWN}.")


def _sent(request: Mapping[str, Any]) -> Any:
    return request.get("messages") or request.get("input") or ()


def _effort(request: Mapping[str, Any]) -> str | None:
    found = request.get("reasoning_effort") or (request.get("reasoning") or {}).get("effort") or request.get("think")
    found = found or (request.get("chat_template_kwargs") or {}).get("reasoning_effort")
    return found if isinstance(found, str) else None


def write_transcripts(items: Sequence[Transcript | Trace], path: str | Path, kind: str) -> None:
    """Write transcripts or traces to one file.

    Args:
        items: of a trace, what was said and its tokens are written, not the model's internals.
        path: of the file.
        kind: inspect, jsonl, inif; or html, a page to read, which cannot be read back.

    Raises:
        TranscriptError: an unknown kind, a path that does not end as it should, or a package that is missing.
    """
    if kind not in FORMATS:
        raise TranscriptError(f"expected a format of {', '.join(FORMATS)}, got {quote(kind)}")
    if kind == "inif":
        write_inif(items, path)
        return
    if kind == "html":
        write_html(items, path)
        return
    transcripts = [from_trace(item) if isinstance(item, Trace) else item for item in items]
    if kind == "inspect":
        write_inspect(transcripts, path)
    else:
        Path(path).write_text(write_jsonl(transcripts), encoding="utf-8")

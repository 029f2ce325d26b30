"""Inspect's evaluation logs (``.eval`` and ``.json``) ↔ transcripts, through the package inspect-ai.

A sample is a transcript. What Inspect's messages have no field for (channels, recipients, token ids) stands in the
sample's metadata, so that a log written here is read back whole; it is used only while it fits the messages.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.transcripts.jsonl import FORMAT, transcript_of_messages
from workbench.transcripts.messages import chat_messages
from workbench.transcripts.transcript import TokenLogprob, Transcript, TranscriptError

__all__ = ["KEY", "read_inspect", "write_inspect"]

KEY = "moe_workbench"
"""where a sample's metadata holds what its messages cannot"""

SIZE_LIMIT = 4 << 30
"""bytes of an unpacked log; a file that lies about its size must not fill the memory"""


def read_inspect(path: str | Path) -> list[Transcript]:
    """Read every sample of an Inspect log.

    Raises:
        TranscriptError: inspect-ai is not installed, or the file is no log, damaged, or without samples.
    """
    log_module = imported("inspect_ai.log")
    _check_size(Path(path))
    try:
        log = log_module.read_eval_log(str(path), resolve_attachments=True)
    # Inspect, zipfile and pydantic raise what they stumble upon.
    except Exception as error:
        raise TranscriptError(_unreadable(path, error)) from error
    if not log.samples:
        raise TranscriptError(f"expected an Inspect log with samples, got none in {path} (status {log.status})")
    return [_transcript(log, sample) for sample in log.samples]


def imported(name: str) -> Any:
    """Import a package of the extra ``formats``. Raises `TranscriptError` that says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise TranscriptError(
            f"this format needs the package {name.split('.')[0].replace('_', '-')} ({error}). "
            "Install it with: pip install 'moe-workbench[formats]'"
        ) from error


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise TranscriptError(f"There is no file {path}.")
    size = path.stat().st_size
    wrong = None
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                wrong = _lying(archive) if size <= SIZE_LIMIT else None
        # What zipfile and the packages that unpack raise of a damaged file.
        except Exception as error:
            raise TranscriptError(_unreadable(path, error)) from error
    if size > SIZE_LIMIT:
        raise TranscriptError(f"{path} unpacks to {size:,} bytes, over the limit of {SIZE_LIMIT:,}; split it")
    if wrong is not None:
        raise TranscriptError(f"{path}: {wrong} is damaged, or is not as large as it says")


def _lying(archive: zipfile.ZipFile) -> str | None:
    """Return the name of an entry that is damaged, or goes on after the size it states; it is read in pieces."""
    for entry in archive.infolist():
        stated, entry.file_size = entry.file_size, entry.file_size + 1  # zipfile itself stops at the stated size
        try:
            with archive.open(entry) as content:
                found = sum(map(len, iter(lambda: content.read(1 << 20), b"")))
        except zipfile.BadZipFile:
            return entry.filename
        if found != stated:
            return entry.filename
    return None


def _unreadable(path: str | Path, error: Exception) -> str:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"{path} could not be read as an Inspect log ({why})"


def _transcript(log: Any, sample: Any) -> Transcript:
    kept = (sample.metadata or {}).get(KEY)
    changed: tuple[str, ...] = ()
    if isinstance(kept, Mapping) and kept.get("format") == FORMAT:
        transcript = Transcript.from_dict({k: v for k, v in kept.items() if k != "format"})
        written = [_flat(m) for m in _inspect_messages(transcript)]
        if written == [_flat(m) for m in sample.messages]:
            return transcript
        changed = ("channels, recipients and token ids: the log's messages were changed after they were written",)
    lost: list[str] = []
    messages = [_chat_message(message, place, lost) for place, message in enumerate(sample.messages)]
    found = transcript_of_messages(messages, source="Inspect log")
    choices = sample.output.choices if sample.output else []
    meta = {
        "id": sample.id,
        "epoch": sample.epoch,
        "target": sample.target,
        "scores": {name: score.value for name, score in (sample.scores or {}).items()},
        "task": log.eval.task,
    }
    effort = getattr(log.eval.model_generate_config, "reasoning_effort", None)
    return Transcript(
        found.messages,
        source="Inspect log",
        logprobs=_logprobs(choices),
        model=log.eval.model,
        effort=effort or getattr(log.plan.config, "reasoning_effort", None),
        ended=_ended(sample, choices),
        lost=tuple(dict.fromkeys([*found.lost, *lost, *changed])),
        meta={key: value for key, value in meta.items() if value not in (None, "", {})},
    )


def _flat(message: Any) -> tuple[Any, ...]:
    """Return what a message says, without its number and time."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    said = [p if isinstance(p, str) else getattr(p, "reasoning", None) or getattr(p, "text", "") for p in parts]
    calls = [(c.function, json.dumps(c.arguments, sort_keys=True)) for c in getattr(message, "tool_calls", None) or []]
    return (message.role, said, calls)


def _chat_message(message: Any, place: int, lost: list[str]) -> dict[str, Any]:
    parts = message.content if isinstance(message.content, list) else [message.content]
    thoughts, texts = [], []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.type == "text":
            texts.append(part.text)
        elif part.type == "reasoning":
            hidden = part.redacted or (not part.reasoning and part.summary)
            thoughts.append((part.summary or "") if hidden else part.reasoning)
            lost += [f"message {place}: the chain of thought, which the model's maker hides"] if hidden else []
        else:
            lost.append(f"message {place}: a part of type {part.type}, which is no text")
    found: dict[str, Any] = {"role": message.role, "content": "".join(texts)}
    if thoughts:
        found["reasoning"] = "\n\n".join(thoughts)
    if calls := getattr(message, "tool_calls", None):
        found["tool_calls"] = [
            {"id": c.id, "function": {"name": c.function, "arguments": c.arguments if not c.parse_error else ""}}
            for c in calls
        ]
        lost += [f"message {place}: arguments of a call that were no JSON" for c in calls if c.parse_error]
    if message.role == "tool":
        found |= {"tool_call_id": message.tool_call_id, "name": message.function}
    return found


def _logprobs(choices: Sequence[Any]) -> tuple[TokenLogprob, ...] | None:
    listed = choices[0].logprobs.content if choices and choices[0].logprobs else None
    return tuple(TokenLogprob(each.token, float(each.logprob)) for each in listed) if listed else None


def _ended(sample: Any, choices: Sequence[Any]) -> str | None:
    if sample.error:
        return f"the sample failed: {sample.error.message}"
    if sample.limit:
        return f"the sample reached its {sample.limit.type} limit"
    reason = choices[-1].stop_reason if choices else "stop"
    return {"max_tokens": "cut at the token limit", "content_filter": "cut by a content filter"}.get(reason)


def write_inspect(transcripts: Sequence[Transcript], path: str | Path, *, task: str = "transcripts") -> None:
    """Write transcripts as the samples of one Inspect log: ``.eval``, or ``.json`` by the path's end.

    Raises:
        TranscriptError: inspect-ai is not installed, the path's end is neither, or there is nothing to write.
    """
    if Path(path).suffix not in (".eval", ".json"):
        raise TranscriptError(f"expected a path that ends in .eval or .json, got {path}")
    if not transcripts:
        raise TranscriptError("expected at least one transcript to write, got none")
    log_module = imported("inspect_ai.log")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    models = {transcript.model or "unknown" for transcript in transcripts}
    log = log_module.EvalLog(
        status="success",
        eval=log_module.EvalSpec(
            created=now,
            task=task,
            dataset=log_module.EvalDataset(name=task, samples=len(transcripts)),
            model=models.pop() if len(models) == 1 else "several",
            config=log_module.EvalConfig(),
        ),
        stats=log_module.EvalStats(started_at=now, completed_at=now),  # its viewer needs both
        samples=[_sample(log_module, n, transcript) for n, transcript in enumerate(transcripts, 1)],
    )
    log_module.write_eval_log(log, str(path))


def _sample(log_module: Any, number: int, transcript: Transcript) -> Any:
    messages = _inspect_messages(transcript)
    answers = [m for m in messages if m.role == "assistant"]
    output = imported("inspect_ai.model").ModelOutput
    return log_module.EvalSample(
        id=number,
        epoch=1,
        input=transcript.question,
        target="",
        messages=messages,
        output=output.from_message(answers[-1]) if answers else output(),
        metadata={KEY: {"format": FORMAT, **transcript.to_dict()}},
    )


def _inspect_messages(transcript: Transcript) -> list[Any]:
    model = imported("inspect_ai.model")
    found = []
    for message in chat_messages(transcript.messages):
        role, text = message["role"], message.get("content", "")
        if role == "assistant":
            thought = [model.ContentReasoning(reasoning=message["thinking"])] if "thinking" in message else []
            content = [*thought, model.ContentText(text=text)] if thought else text
            calls = [_call(each, n) for n, each in enumerate(message.get("tool_calls", []))]
            found.append(model.ChatMessageAssistant(content=content, tool_calls=calls or None))
        elif role == "tool":
            name, call_id = message.get("name"), message.get("tool_call_id")
            found.append(model.ChatMessageTool(content=text, function=name, tool_call_id=call_id))
        else:
            kind = model.ChatMessageUser if role == "user" else model.ChatMessageSystem
            found.append(kind(content=text))
    return found


def _call(call: Mapping[str, Any], number: int) -> Any:
    function = call["function"]
    try:
        arguments, problem = json.loads(function["arguments"]), None
    except json.JSONDecodeError as error:
        arguments, problem = None, f"no JSON: {error}"
    if not isinstance(arguments, dict):  # Inspect holds objects only; the text itself is kept in the metadata
        arguments, problem = {"text": function["arguments"]}, problem or "no JSON object"
    tool_call = imported("inspect_ai.tool").ToolCall
    return tool_call(call.get("id") or f"call_{number}", function["name"], arguments, parse_error=problem)

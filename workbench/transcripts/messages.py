"""Chat messages, as OpenAI-compatible servers and data sets write them → messages in harmony's words.

Where the chain of thought stands: ``reasoning`` (vLLM, LM Studio), ``reasoning_content`` (llama.cpp, SGLang,
transformers), ``thinking`` (Ollama, chat templates); or not separated from the content at all, as harmony with its
tokens, or as the bare ``analysis…assistantfinal…`` that remains when a server drops special tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from workbench.transcripts.harmony_text import messages_from_text
from workbench.transcripts.transcript import TranscriptError, TranscriptMessage, quote

__all__ = ["MessageReader", "chat_messages", "read_messages", "separate", "tool_name"]

_REASONING = ("reasoning", "reasoning_content", "thinking")
_READ = {"role", "content", "name", "tool_calls", "tool_call_id", "tool_name", "refusal", "function_call", *_REASONING}
_OWN = {"text", "channel", "recipient", "content_type", "call_id", "malformed"}
_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}

# What a server's special tokens leave behind when they are dropped: ``assistant``, the channel, a recipient, a type.
_BARE = re.compile(r"(?:^|assistant)(analysis|commentary|final)(?: to=([\w.\-]+))?(?: ?(json|code)(?=[\s{\[]|$))?")
_CONTENT_TYPES = {"json": "<|constrain|>json", "code": "code"}
_GUESSED = "channels: read from the spelling `analysis…assistantfinal…`, which an answer could spell too"


def read_messages(messages: Iterable[Any]) -> tuple[tuple[TranscriptMessage, ...], tuple[str, ...]]:
    """Read chat messages; return them in harmony's words, and what was not read.

    Raises:
        TranscriptError: what is no message, or a message of a layout that is not known, by its place.
    """
    reader = MessageReader()
    found = [said for place, message in enumerate(messages) for said in reader.read(message, place)]
    return tuple(found), tuple(dict.fromkeys(reader.lost))


class MessageReader:
    """Reads chat messages in order; an output is joined to its call by the number that both carry."""

    def __init__(self) -> None:
        """Start with no calls."""
        self.lost: list[str] = []
        self._names: dict[str, str] = {}

    def read(self, message: Any, place: int) -> list[TranscriptMessage]:
        """Return a chat message as one or more in harmony's words: thought, answer, calls."""
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TranscriptError(
                f"message {place}: expected an object with a role, such as {{'role': 'user', 'content': …}}, "
                f"got {quote(message)}"
            )
        if _OWN & message.keys():
            return [_own_message(message, place)]
        if message["role"] not in _ROLES:
            raise TranscriptError(
                f"message {place}: expected a role of {', '.join(sorted(_ROLES))}, got {quote(message['role'])}"
            )
        unread = [key for key, value in message.items() if key not in _READ and value not in (None, "", [], {})]
        if not _READ & (message.keys() - {"role", "name"}):
            raise TranscriptError(
                f"message {place}: expected content, reasoning, reasoning_content, thinking or tool_calls, "
                f"got only {', '.join(map(str, message))}"
            )
        self.lost += [f"message {place}: {key} is not read" for key in unread]
        role = message["role"]
        if role in ("tool", "function"):
            return [self._output(message, place)]
        if role == "assistant":
            return self._said(message, place)
        return [TranscriptMessage(role, self._text(message.get("content"), place))]

    def _said(self, message: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        thought = next((t for t in (message.get(key) for key in _REASONING) if t), None)
        if thought is not None and not isinstance(thought, str):
            raise TranscriptError(f"message {place}: expected the chain of thought as text, got {quote(thought)}")
        parts = message.get("content")
        if thought is None and isinstance(parts, list):
            thought = "".join(p[k] for p in parts if isinstance(p, Mapping) for k in ("thinking",) if p.get(k)) or None
        calls = [call for each in message.get("tool_calls") or [] for call in self._call(each, place)]
        if legacy := message.get("function_call"):
            calls += self._call({"function": legacy}, place)
        text = self._text(parts, place) or ""
        if refusal := message.get("refusal"):
            text += str(refusal)
            self.lost.append(f"message {place}: that the server marked it as a refusal")
        found = [TranscriptMessage("assistant", thought, "analysis")] if thought else []
        found += self._separated(text) if thought is None else []
        if not found or (thought and text):
            found += [TranscriptMessage("assistant", text, "commentary" if calls else "final")] if text else []
        return [*found, *calls] or [TranscriptMessage("assistant", "", "final")]

    def _separated(self, text: str) -> list[TranscriptMessage]:
        found, guessed = separate(text)
        self.lost += guessed
        return found

    def _call(self, call: Any, place: int) -> list[TranscriptMessage]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise TranscriptError(f"message {place}: expected a tool call with a function's name, got {quote(call)}")
        arguments = function.get("arguments", "")
        if not isinstance(arguments, str):  # Ollama and chat templates give them parsed
            arguments = json.dumps(arguments, ensure_ascii=False)
        recipient = tool_name(function["name"])
        call_id = call.get("id")
        if isinstance(call_id, str):
            self._names[call_id] = recipient
        else:
            call_id = None
        return [TranscriptMessage("assistant", arguments, "commentary", recipient, "<|constrain|>json", call_id)]

    def _output(self, message: Mapping[str, Any], place: int) -> TranscriptMessage:
        call_id = message.get("tool_call_id")
        call_id = call_id if isinstance(call_id, str) else None
        named = message.get("name") or message.get("tool_name")
        role = self._names.get(call_id or "") or (tool_name(str(named)) if named else None)
        if role is None:
            self.lost.append(f"message {place}: which tool answered")
        text = self._text(message.get("content"), place)
        return TranscriptMessage(role or "tool", text, "commentary", "assistant", call_id=call_id)

    def _text(self, content: Any, place: int) -> str:
        if content is None or isinstance(content, str):
            return content or ""
        if not isinstance(content, list):
            raise TranscriptError(
                f"message {place}: expected content as text or a list of parts, got {quote(content)}"
            )
        texts = []
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(text, str):
                texts.append(text)
            elif not (isinstance(part, Mapping) and part.get("thinking")):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                self.lost.append(f"message {place}: a part of type {kind}, which is no text")
        return "".join(texts)


def separate(text: str) -> tuple[list[TranscriptMessage], list[str]]:
    """Read harmony that a server left in an answer, with its special tokens or without; nothing where there is none.

    Returns:
        the messages, and what is lost because they were told by their spelling.
    """
    if text.lstrip().startswith(("<|channel|>", "<|start|>", "<|message|>")):
        role = None if text.lstrip().startswith("<|start|>") else "assistant"
        return list(messages_from_text(text, role)), []
    if not _looks_bare(text):
        return [], []
    marks = list(_BARE.finditer(text))
    stops = [mark.start() for mark in marks[1:]] + [len(text)]
    found = [
        TranscriptMessage("assistant", text[mark.end() : stop], mark[1], mark[2], _CONTENT_TYPES.get(mark[3] or ""))
        for mark, stop in zip(marks, stops, strict=True)
    ]
    return found, [_GUESSED]


def _looks_bare(text: str) -> bool:
    """Say whether text is harmony without its tokens: a word ``analysis`` that runs into what follows."""
    start = re.match(r"analysis(?=\S)(?![a-z])", text)
    return start is not None or (text.startswith("analysis") and "assistantfinal" in text)


def _own_message(message: Mapping[str, Any], place: int) -> TranscriptMessage:
    """Read a message of our own JSON lines, where role, channel and recipient are harmony's already."""
    values = {key: value for key, value in message.items() if value is not None}
    if "content" in values:
        values["text"] = values.pop("content")
    unknown = sorted(values.keys() - {"role", *_OWN})
    wrong = sorted(key for key, value in values.items() if not isinstance(value, str))
    if unknown or wrong or "text" not in values:
        raise TranscriptError(
            f"message {place}: expected role and content with harmony's {', '.join(sorted(_OWN - {'text'}))} as text, "
            f"got {quote(message)}"
        )
    return TranscriptMessage(**values)


def tool_name(name: str) -> str:
    """Return a function's name as harmony addresses it: ``lookup`` → ``functions.lookup``."""
    builtin = name == "python" or name.startswith(("functions.", "browser.", "container."))
    return name if builtin else f"functions.{name}"


def chat_messages(messages: Iterable[TranscriptMessage]) -> list[dict[str, Any]]:
    """Return messages as a chat template takes them: a thought, the answer and calls of one turn are one message."""
    found: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "assistant":
            _add_said(found, message)
        elif message.role in _ROLES:
            found.append({"role": message.role, "content": message.text})
        else:
            output = {"role": "tool", "content": message.text, "name": message.role.removeprefix("functions.")}
            found.append(output | ({"tool_call_id": message.call_id} if message.call_id else {}))
    return found


def _add_said(found: list[dict[str, Any]], message: TranscriptMessage) -> None:
    last = found[-1] if found and found[-1]["role"] == "assistant" else None
    if message.recipient:
        name = message.recipient.removeprefix("functions.")
        call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": message.text}}
        call |= {"id": message.call_id} if message.call_id else {}
        if last is None:
            found.append(last := {"role": "assistant"})
        last.setdefault("tool_calls", []).append(call)
        return
    key = "thinking" if message.channel == "analysis" else "content"
    fits = last is not None and not last.get("tool_calls") and "content" not in last and key not in last
    if last is None or not fits:
        found.append(last := {"role": "assistant"})
    last[key] = message.text

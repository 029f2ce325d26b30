"""The Responses API: items of reasoning, messages, function calls, browser and python calls; whole and streamed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workbench.transcripts.completions import NOT_TOLD, sent
from workbench.transcripts.harmony_text import messages_from_text
from workbench.transcripts.messages import separate, tool_name
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage, quote

__all__ = ["join_events", "read_response"]

_MAY_BE_CUT = "may have been cut: it has as many tokens as were allowed"
_BROWSER = {"search": "browser.search", "open_page": "browser.open", "find": "browser.find"}


def read_response(
    response: Mapping[str, Any], conversation: str | Sequence[Any] = (), *, effort: str | None = None
) -> Transcript:
    """Read a response of the Responses API.

    A server in debug mode (gpt_oss.responses_api, metadata ``__debug``) tells prompt and completion in harmony;
    then those are read, and nothing of the tools is lost. It calls every response completed, so that one of as many
    tokens as were allowed may have been cut.

    Args:
        response: the JSON object that the server returned.
        conversation: the input that was sent: a question, or items and messages.
        effort: that was asked for.

    Raises:
        TranscriptError: a failed response, or a layout that is not known.
    """
    output = response.get("output")
    if not isinstance(output, Sequence) or isinstance(output, str):
        raise TranscriptError(
            f"expected a response with a list of output items, got the keys {', '.join(map(str, response)) or 'none'}"
        )
    if response.get("status") == "failed" and not output:
        raise TranscriptError(f"the server's response failed: {quote(response.get('error'))}")
    facts: dict[str, Any] = {
        "model": response.get("model") if isinstance(response.get("model"), str) else None,
        "effort": effort or (response.get("reasoning") or {}).get("effort"),
        "ended": response.get("broke_off") or _ended(response),
        "meta": {key: response[key] for key in ("id", "usage", "created_at") if response.get(key) is not None},
    }
    metadata = response.get("metadata") or {}
    if isinstance(metadata.get("__debug_output"), str) and isinstance(metadata.get("__debug_input"), str):
        return _from_debug(metadata, facts)
    reader = _ItemReader()
    prompt = [m for n, item in enumerate(sent(conversation)) for m in reader.read(item, n)]
    if isinstance(response.get("instructions"), str):
        prompt.insert(0, TranscriptMessage("developer", response["instructions"]))
    completion = [m for n, item in enumerate(output) for m in reader.read(item, n)]
    lost = [*reader.lost, *([] if prompt else [NOT_TOLD["prompt"]]), NOT_TOLD["token_ids"], NOT_TOLD["logprobs"]]
    return Transcript((*prompt, *completion), len(prompt), source="response", lost=tuple(dict.fromkeys(lost)), **facts)


def _from_debug(metadata: Mapping[str, Any], facts: dict[str, Any]) -> Transcript:
    """Read prompt and completion in harmony; the prompt ends in the header of the completion's first message."""
    given = metadata["__debug_input"].removesuffix("<|start|>assistant")
    prompt = messages_from_text(given)
    said = messages_from_text("<|start|>assistant" + metadata["__debug_output"].removeprefix("<|start|>assistant"))
    if said and facts["ended"] is None and "cut off" in (said[-1].malformed or ""):
        said = (*said[:-1], replace(said[-1], malformed=None))  # the server leaves out the token that ended it
    lost = (NOT_TOLD["token_ids"], NOT_TOLD["logprobs"])
    return Transcript((*prompt, *said), len(prompt), source="response", verbatim=True, lost=lost, **facts)


def _ended(response: Mapping[str, Any]) -> str | None:
    if response.get("status") in (None, "completed"):
        allowed, made = response.get("max_output_tokens"), (response.get("usage") or {}).get("output_tokens")
        return _MAY_BE_CUT if allowed is not None and allowed == made else None
    why = (response.get("incomplete_details") or {}).get("reason") or (response.get("error") or {}).get("message")
    return f"the response is {response['status']}" + (f": {why}" if why else "")


class _ItemReader:
    """Reads input and output items in order; a function's output is joined to its call by the call's number."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self._names: dict[str, str] = {}

    def read(self, item: Any, place: int) -> list[TranscriptMessage]:
        if not isinstance(item, Mapping):
            raise TranscriptError(f"item {place}: expected an object with a type, got {quote(item)}")
        kind = item.get("type") or ("message" if "role" in item else None)
        readers = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._function_call,
            "function_call_output": self._function_output,
            "web_search_call": self._browser_call,
            "code_interpreter_call": self._python_call,
        }
        if kind not in readers:
            self.lost.append(f"item {place}: the type {kind!r} is not read")
            return []
        return readers[kind](item, place)

    def _message(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        role = str(item.get("role", "assistant"))
        text = self._text(item.get("content"), place)
        if role != "assistant":
            return [TranscriptMessage(role, text)]
        found, guessed = separate(text)
        self.lost += guessed
        return found or [TranscriptMessage(role, text, "final")]

    def _text(self, content: Any, place: int) -> str:
        if isinstance(content, str):
            return content
        texts = []
        for part in content or []:
            text = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else None
            if isinstance(text, str):
                texts.append(text)
            else:
                self.lost.append(f"item {place}: a part of the message that is no text")
            if isinstance(part, Mapping) and part.get("annotations"):
                self.lost.append(f"item {place}: annotations are not read")
        return "".join(texts)

    def _reasoning(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        text = "".join(part.get("text", "") for part in item.get("content") or [])
        if not text:
            text = "\n\n".join(part.get("text", "") for part in item.get("summary") or [])
            self.lost.append(
                f"item {place}: the chain of thought; {'its summary stands for it' if text else 'no text'}"
            )
        return [TranscriptMessage("assistant", text, "analysis")] if text else []

    def _function_call(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        name, call_id = item.get("name"), item.get("call_id")
        if not isinstance(name, str):
            raise TranscriptError(f"item {place}: expected a function call with a name, got {quote(dict(item))}")
        recipient = tool_name(name)
        if isinstance(call_id, str):
            self._names[call_id] = recipient
        text = str(item.get("arguments", ""))
        return [TranscriptMessage("assistant", text, "commentary", recipient, "<|constrain|>json", call_id)]

    def _function_output(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        call_id = item.get("call_id")
        role = self._names.get(str(call_id))
        if role is None:
            self.lost.append(f"item {place}: which tool answered")
        text = self._text(item.get("output"), place)
        return [TranscriptMessage(role or "tool", text, "commentary", "assistant", call_id=call_id)]

    def _browser_call(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        action = dict(item.get("action") or {})
        recipient = _BROWSER.get(str(action.pop("type", "")), "browser")
        arguments = {key: value for key, value in action.items() if value is not None}
        self.lost.append(f"item {place}: what the browser returned, which a response does not hold")
        text = json.dumps(arguments, ensure_ascii=False)
        return [TranscriptMessage("assistant", text, "analysis", recipient, call_id=item.get("id"))]

    def _python_call(self, item: Mapping[str, Any], place: int) -> list[TranscriptMessage]:
        call_id = item.get("id")
        found = [TranscriptMessage("assistant", item.get("code") or "", "analysis", "python", "code", call_id)]
        outputs = item.get("outputs")
        if outputs is None:
            self.lost.append(f"item {place}: what python printed, which the server did not return")
            return found
        logs = [each["logs"] for each in outputs if isinstance(each.get("logs"), str)]
        if len(logs) < len(outputs):
            self.lost.append(f"item {place}: an image that python made")
        return [*found, TranscriptMessage("python", "\n".join(logs), "analysis", "assistant", call_id=call_id)]


def join_events(events: Iterable[Mapping[str, Any]], broke_off: str | None = None) -> dict[str, Any]:
    """Join the events of a streamed response to the response; one that broke off keeps what had come.

    Args:
        events: ``response.…`` objects in order.
        broke_off: why the events end, when it is not by themselves.
    """
    response: dict[str, Any] = {}
    items = _Items()
    for event in events:
        kind = str(event.get("type", ""))
        if isinstance(event.get("response"), Mapping):
            response |= event["response"]
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            return response
        if kind == "error" or event.get("error"):
            broke_off = f"the server ended the stream with {quote(event.get('error') or event.get('message'))}"
            break
        if isinstance(event.get("item"), Mapping):
            items.put(event)
        elif kind.endswith(".delta"):
            _add_delta(items.of(event), event, kind)
    output = list(items.found.values())
    return {**response, "output": output, "broke_off": broke_off or "the stream ended before the response"}


class _Items:
    """The items of a stream, in the order they came: by their ids, since a server may count their places anew."""

    def __init__(self) -> None:
        self.found: dict[Any, dict[str, Any]] = {}
        self._at: dict[Any, Any] = {}

    def put(self, event: Mapping[str, Any]) -> None:
        item = dict(event["item"])
        place = event.get("output_index", len(self.found))
        key = self._at[place] = item.get("id") or self._at.get(place, place)
        self.found[key] = item

    def of(self, event: Mapping[str, Any]) -> dict[str, Any]:
        place = event.get("output_index", 0)
        key = event.get("item_id")
        return self.found.setdefault(key if key in self.found else self._at.get(place, key or place), {})


def _add_delta(item: dict[str, Any], event: Mapping[str, Any], kind: str) -> None:
    text = str(event.get("delta", ""))
    if kind == "response.function_call_arguments.delta":
        item["arguments"] = item.get("arguments", "") + text
        return
    if kind == "response.code_interpreter_call_code.delta":
        item["code"] = (item.get("code") or "") + text
        return
    item.setdefault("type", "reasoning" if "reasoning" in kind else "message")
    if "output_text" in kind or "refusal" in kind or "reasoning_text" in kind:
        _append(item, "content", event.get("content_index", 0), text)
    elif "reasoning_summary_text" in kind:
        _append(item, "summary", event.get("summary_index", 0), text)


def _append(item: dict[str, Any], key: str, at: int, text: str) -> None:
    parts = item.get(key) or []
    item[key] = [*parts, *({"type": "text", "text": ""} for _ in range(at + 1 - len(parts)))]
    part = dict(item[key][at])
    item[key][at] = {**part, "text": part.get("text", "") + text}

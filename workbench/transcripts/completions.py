"""Chat completions: replies and streams of OpenAI-compatible servers, and of Ollama's own API.

A reply does not hold the prompt, so readers are given the messages that were sent.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.transcripts.messages import MessageReader
from workbench.transcripts.transcript import TokenLogprob, Transcript, TranscriptError, int_ids, quote

__all__ = ["NOT_TOLD", "join_chunks", "read_completion", "read_stream_text"]

NOT_TOLD = {
    "prompt": "the prompt: a reply does not hold it",
    "token_ids": "token ids: re-tokenised, because the server did not return them",
    "logprobs": "logprobs: not captured, because the server did not return them",
}

_ENDED = {"length": "cut at the server's token limit", "content_filter": "cut by the server's content filter"}


def read_completion(
    reply: Mapping[str, Any], conversation: str | Sequence[Any] = (), *, effort: str | None = None, choice: int = 0
) -> Transcript:
    """Read a chat completion, of OpenAI's layout or Ollama's own.

    Args:
        reply: the JSON object that the server returned.
        conversation: the question or messages that were sent.
        effort: that was asked for.
        choice: which of several completions.

    Raises:
        TranscriptError: an error in place of a reply, or a layout that is not known.
    """
    if reply.get("error"):
        raise TranscriptError(f"expected a chat completion, got the server's error {quote(reply['error'])}")
    said = _choice(reply, choice)
    message = said.get("message")
    if not isinstance(message, Mapping):
        raise TranscriptError(f"expected a message in the completion, got the keys {', '.join(map(str, said))}")
    reader, prompt = MessageReader(), sent(conversation)
    before = [m for place, each in enumerate(prompt) for m in reader.read(each, place)]
    completion = reader.read({"role": "assistant", **message}, len(prompt))
    token_ids, num_prompt_tokens = _token_ids(reply, said)
    logprobs = _logprobs(said.get("logprobs"))
    reason = said.get("finish_reason")
    lost = list(reader.lost)
    lost += [] if prompt else [NOT_TOLD["prompt"]]
    lost += [NOT_TOLD["token_ids"]] if token_ids is None else []
    lost += [NOT_TOLD["logprobs"]] if logprobs is None else []
    return Transcript(
        (*before, *completion),
        len(before),
        source="chat completion",
        token_ids=token_ids,
        num_prompt_tokens=num_prompt_tokens,
        logprobs=logprobs,
        model=reply.get("model") if isinstance(reply.get("model"), str) else None,
        effort=effort,
        ended=said.get("broke_off") or _ENDED.get(str(reason)),
        lost=tuple(dict.fromkeys(lost)),
        meta={key: reply[key] for key in ("id", "usage", "created") if reply.get(key) is not None},
    )


def sent(conversation: str | Sequence[Any]) -> list[Any]:
    """Return the messages that a question or a conversation stands for."""
    return [{"role": "user", "content": conversation}] if isinstance(conversation, str) else list(conversation)


def _choice(reply: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    choices = reply.get("choices")
    if isinstance(choices, Sequence) and not isinstance(choices, str):
        if index >= len(choices) or not isinstance(choices[index], Mapping):
            raise TranscriptError(f"expected completion {index} among the choices, got {len(choices)}")
        found: Mapping[str, Any] = choices[index]
        return found
    if "message" in reply and "done" in reply:  # Ollama's /api/chat
        return {"message": reply["message"], "finish_reason": reply.get("done_reason")}
    raise TranscriptError(
        "expected a chat completion with choices, or Ollama's message and done, "
        f"got the keys {', '.join(map(str, reply)) or 'none'}"
    )


def _token_ids(reply: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, int | None]:
    """Return all token ids where the server listed prompt and completion (vLLM, ``return_token_ids``)."""
    prompt = reply.get("prompt_token_ids") or said.get("prompt_token_ids")
    completion = said.get("token_ids")
    if not prompt or not completion:
        return None, None
    return int_ids([*prompt, *completion]), len(prompt)


def _logprobs(values: Any) -> tuple[TokenLogprob, ...] | None:
    listed = values.get("content") if isinstance(values, Mapping) else None
    if not listed:
        return None
    return tuple(TokenLogprob(str(each["token"]), float(each["logprob"])) for each in listed)


def read_stream_text(text: str) -> list[dict[str, Any]]:
    """Return the objects of a recorded stream: server-sent events ``data: {…}``, or Ollama's one object a line.

    Raises:
        TranscriptError: a line that is neither, by its number; a last line that was cut is left out.
    """
    found = []
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    lines = [(n, line) for n, line in lines if not line.startswith((":", "event:", "id:", "retry:"))]
    for at, (number, line) in enumerate(lines):
        payload = line.removeprefix("data:").strip()
        if payload == "[DONE]":
            break
        try:
            value = json.loads(payload)
        except json.JSONDecodeError as error:
            if at == len(lines) - 1:
                break  # the stream broke off here
            raise TranscriptError(f"line {number}: expected a JSON object of a stream, got {quote(line)}") from error
        found.append(value)
    return found


def join_chunks(chunks: Iterable[Mapping[str, Any]], choice: int = 0, broke_off: str | None = None) -> dict[str, Any]:
    """Join the chunks of a stream to the reply that the server would have sent in one piece.

    Args:
        chunks: ``chat.completion.chunk`` objects, or Ollama's.
        choice: which of several completions.
        broke_off: why the chunks end, when it is not by themselves.
    """
    reply: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    said: dict[str, Any] = {"message": message, "finish_reason": None}
    for chunk in chunks:
        if chunk.get("error"):
            broke_off = f"the server ended the stream with {quote(chunk['error'])}"
            break
        reply |= {key: chunk[key] for key in ("id", "model", "created", "usage") if chunk.get(key) is not None}
        reply |= {"prompt_token_ids": chunk["prompt_token_ids"]} if chunk.get("prompt_token_ids") else {}
        for part in _parts(chunk, choice):
            _join(said, part)
    if said["finish_reason"] is None and broke_off is None:
        broke_off = "the stream ended without a finish reason"
    return {**reply, "choices": [{}] * choice + [{**said, "broke_off": broke_off}]}


def _parts(chunk: Mapping[str, Any], choice: int) -> list[Mapping[str, Any]]:
    if "message" in chunk:  # Ollama
        return [{"delta": chunk["message"], "finish_reason": chunk.get("done_reason") if chunk.get("done") else None}]
    return [each for each in chunk.get("choices") or [] if each.get("index", 0) == choice]


def _join(said: dict[str, Any], part: Mapping[str, Any]) -> None:
    message = said["message"]
    for key, value in (part.get("delta") or {}).items():
        if key == "tool_calls":
            _join_calls(message.setdefault("tool_calls", []), value or [])
        elif isinstance(value, str) and key != "role":
            message[key] = (message.get(key) or "") + value
        elif value is not None and key not in message:
            message[key] = value
    said["finish_reason"] = part.get("finish_reason") or said["finish_reason"]
    if ids := part.get("token_ids"):
        said.setdefault("token_ids", []).extend(ids)
    listed = (part.get("logprobs") or {}).get("content")
    if listed:
        said.setdefault("logprobs", {"content": []})["content"].extend(listed)


def _join_calls(calls: list[dict[str, Any]], deltas: Iterable[Mapping[str, Any]]) -> None:
    for delta in deltas:
        at = delta.get("index", len(calls))
        while len(calls) <= at:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call, new = calls[at], delta.get("function") or {}
        if delta.get("id"):
            call["id"] = delta["id"]
        call["function"]["name"] += new.get("name") or ""
        arguments = new.get("arguments") or ""
        if isinstance(arguments, str):
            call["function"]["arguments"] += arguments
        else:
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)

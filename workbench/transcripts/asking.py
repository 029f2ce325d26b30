"""Ask a served model through the official ``openai`` client; what the server does not tell is named as lost.

What is sent goes to the host of the address and nowhere else: plain HTTP on loopback only, redirects to another host
refused, replies bounded in size. A key is read from the environment variable that is named, or none is sent.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from workbench.addresses import is_loopback
from workbench.transcripts.completions import join_chunks, read_completion, sent
from workbench.transcripts.responses import join_events, read_response
from workbench.transcripts.transcript import Transcript, TranscriptError, quote

__all__ = ["ask"]

MAX_REPLY_BYTES = 64 << 20
OWN_AUTHORITY = "Where an authority of your own signed it, name that one's certificate in SSL_CERT_FILE."


def ask(
    url: str,
    conversation: str | Sequence[Mapping[str, Any]],
    effort: str | None = "medium",
    *,
    model: str | None = None,
    api: str = "chat",
    stream: bool = True,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
    effort_in: str = "reasoning_effort",
    key_variable: str | None = None,
    plain_http: bool = False,
    retries: int = 4,
    timeout: float = 600.0,
    max_bytes: int = MAX_REPLY_BYTES,
    on_text: Callable[[str], object] | None = None,
) -> Transcript:
    """Get one rollout from a served model; then `wb.replay` shows what a local model does with it.

    Args:
        url: of the API, such as ``http://127.0.0.1:8000/v1``; without user, password, query or fragment.
        conversation: a question, or messages ``{"role": …, "content": …}`` (items, for responses).
        effort: reasoning effort: low, medium or high; None to leave it to the server.
        model: as the server calls it; default: the first that it lists.
        api: ``chat`` (chat completions) or ``responses``.
        stream: read the reply as it is made, so that what came before a failure is kept.
        max_new_tokens: default: the server's.
        temperature: of the sampling.
        seed: sent where it is given; a server may not keep to it, and the Responses API has none.
        tools: as the API takes them. Their calls are read; nothing is run here.
        extra: more fields of the request, such as vLLM's ``{"return_token_ids": True}`` or ``{"logprobs": True}``.
        effort_in: where a chat request names the effort: ``reasoning_effort`` as OpenAI does (vLLM, Ollama, LM Studio,
            SGLang), or ``chat_template_kwargs`` (llama.cpp, transformers). A server ignores what it does not know.
        key_variable: the environment variable that holds the key; None sends none. A key is kept nowhere.
        plain_http: allow unencrypted HTTP to another machine.
        retries: after 429, 5xx and lost connections, by the client, each waiting longer.
        timeout: seconds without an answer.
        max_bytes: of a reply.
        on_text: called with each piece of text or thought of a stream.

    Returns:
        The transcript; ``ended`` says why a reply is not whole, ``lost`` what the server did not tell.

    Raises:
        TranscriptError: an address that is not allowed, a missing key, a server that refuses or cannot be reached, a
            redirect to another host, a reply that is too large or of an unknown layout.
    """
    _check_address(url, plain_http)
    if api not in ("chat", "responses"):
        raise TranscriptError(f"expected an api of chat or responses, got {quote(api)}")
    if effort_in not in ("reasoning_effort", "chat_template_kwargs"):
        raise TranscriptError(
            f"expected effort_in of reasoning_effort or chat_template_kwargs, got {quote(effort_in)}"
        )
    key = _key(key_variable)
    with _Client(url, key, retries, timeout, max_bytes) as client:
        request: dict[str, Any] = {
            "model": model or client.first_model(),
            "temperature": temperature,
            "stream": stream,
        }
        request |= {} if tools is None else {"tools": list(tools)}
        if api == "chat":
            request |= {"messages": sent(conversation)}
            request |= _given(max_tokens=max_new_tokens, seed=seed)
            body = {**_effort(effort, effort_in), **(extra or {})}
            reply = client.read(client.openai.chat.completions.create, request, body, join_chunks, on_text)
            found = read_completion(reply, conversation, effort=effort)
        else:
            request |= {"input": _items(conversation)}
            request |= _given(max_output_tokens=max_new_tokens)
            body = {**({"reasoning": {"effort": effort}} if effort else {}), **(extra or {})}
            reply = client.read(client.openai.responses.create, request, body, join_events, on_text)
            found = read_response(reply, conversation, effort=effort)
    return _described(found, url, request, seed)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _effort(effort: str | None, effort_in: str) -> dict[str, Any]:
    if effort is None:
        return {}
    named = {"reasoning_effort": effort}
    return named if effort_in == "reasoning_effort" else {"chat_template_kwargs": named}


def _items(conversation: str | Sequence[Mapping[str, Any]]) -> Any:
    return conversation if isinstance(conversation, str) else list(conversation)


def _described(transcript: Transcript, url: str, request: Mapping[str, Any], seed: int | None) -> Transcript:
    sampling = {"temperature": request["temperature"], "seed": seed}
    lost = list(transcript.lost)
    if "tools" in request and not transcript.verbatim:
        lost.append("the tools' definitions, as the server's template wrote them into the prompt")
    values = transcript.to_dict()
    values["meta"] = {**transcript.meta, "server": url, "sampling": sampling}
    values |= {"model": transcript.model or request["model"], "lost": lost}
    return Transcript.from_dict(values)


def _check_address(url: str, plain_http: bool) -> None:
    parts = urlsplit(url)
    # First, and without the address: what it holds may be secret.
    for what, found in (
        ("a user or password", "@" in (parts.netloc or url)),
        ("a query or fragment", "?" in url or "#" in url),
    ):
        if found:
            raise TranscriptError(
                f"the address holds {what}, which would be kept with the transcript. Leave it out; put a key into "
                "an environment variable and name it: key_variable=…"
            )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TranscriptError(f"expected an address such as http://127.0.0.1:8000/v1, got {quote(url)}")
    if parts.scheme == "http" and not plain_http and not is_loopback(parts.hostname):
        raise TranscriptError(
            f"expected https for {parts.hostname}, which is not this machine: plain HTTP can be read on the way. "
            "Where that is meant, pass plain_http=True."
        )


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise TranscriptError(f"expected a key in the environment variable {variable}, which is not set")
    return key


class _Client:
    """The official client, bound to one host; whatever fails becomes one error that holds no key."""

    def __init__(self, url: str, key: str | None, retries: int, timeout: float, max_bytes: int) -> None:
        try:
            openai, self._http = import_module("openai"), import_module("httpx2")
        except ImportError as error:
            raise TranscriptError(
                f"asking a server needs the package openai ({error}). Install it with: "
                "pip install 'moe-workbench[serve]'"
            ) from error
        self._error, self._key, self._url = openai.OpenAIError, key, url
        self._refused = type("Refused", (openai.OpenAIError,), {})  # the client neither retries nor wraps its own
        self._max_bytes = max_bytes
        loopback = is_loopback(urlsplit(url).hostname or "")
        hooks = {"request": [self._before], "response": [self._after]}
        # No proxy of the environment for this machine, but its SSL_CERT_FILE for every one.
        trusted = self._http.create_ssl_context()
        http_client = openai.DefaultHttpxClient(event_hooks=hooks, trust_env=not loopback, verify=trusted)
        self.openai = openai.OpenAI(
            base_url=url,
            api_key=key or "none",
            organization="",
            project="",
            max_retries=retries,
            timeout=timeout,
            http_client=http_client,
        )

    def __enter__(self) -> "_Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.openai.close()

    def _before(self, request: Any) -> None:
        for name in ("openai-organization", "openai-project", *(() if self._key else ("authorization",))):
            request.headers.pop(name, None)
        request.headers["accept-encoding"] = "identity"

    def _after(self, response: Any) -> None:
        """Refuse a redirect to another host and what is compressed, and count what is read of the body."""
        if (packed := response.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
            # A small body may unpack to one that fills the memory before it is counted.
            raise self._refused(f"the reply is compressed ({packed[:40]}), which was not asked for")
        if location := response.headers.get("location"):
            here, there = response.request.url, response.request.url.join(location)
            if response.is_redirect and (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
                raise self._refused(f"the server redirects to {there.scheme}://{there.host}, which is refused")
        response.stream = _bounded(self._http, response.stream, self._max_bytes, self._refused)

    def first_model(self) -> str:
        """Return the first model that the server lists."""
        try:
            with self._saying():
                models = [str(each.id) for each in self.openai.models.list()]
        except TranscriptError as error:
            # Not every server lists its models: gpt_oss.responses_api does not.
            raise TranscriptError(f"{error}. The models could not be listed; name one with model=…") from None
        if not models:
            raise TranscriptError(f"the server at {self._url} lists no model; name one with model=…")
        return models[0]

    def read(
        self,
        create: Callable[..., Any],
        request: Mapping[str, Any],
        body: Mapping[str, Any],
        join: Callable[..., dict[str, Any]],
        on_text: Callable[[str], object] | None,
    ) -> dict[str, Any]:
        """Send a request and return the reply as plain JSON, joined where it is a stream."""
        with self._saying():
            reply = create(**request, extra_body=dict(body))
        if not request["stream"]:
            return _plain(reply)
        parts: list[dict[str, Any]] = []
        broke_off = None
        try:
            for part in reply:
                parts.append(_plain(part))
                if on_text:
                    for text in _texts(parts[-1]):
                        on_text(text)
        except KeyboardInterrupt:
            broke_off = "interrupted"
        # What the network, the server's error events or half a JSON line raise; what came is kept.
        except (self._error, self._http.HTTPError, json.JSONDecodeError) as error:
            broke_off = f"the server's stream broke off: {self._without_key(error)}"
        finally:
            reply.close()
        if broke_off and not parts:
            raise TranscriptError(f"{self._url}: {broke_off}, before anything was said")
        return join(parts, broke_off=broke_off)

    def _saying(self) -> Any:
        return _Saying(self._error, self._url, self._without_key)

    def _without_key(self, error: BaseException) -> str:
        """Return an error's words, with what lies beneath; a server may repeat the key it was sent."""
        beneath = error.__cause__ or getattr(error, "body", None)
        text = " ".join(f"{error} ({beneath})".split()) if beneath and str(beneath) not in str(error) else str(error)
        text = text.replace(self._key, "…") if self._key else text
        text = text if len(text) <= 400 else text[:399] + "…"
        return f"{text} {OWN_AUTHORITY}" if "CERTIFICATE_VERIFY_FAILED" in text else text


class _Saying:
    """Turns the client's errors into a `TranscriptError` that names the server."""

    def __init__(self, error: type[Exception], url: str, words: Callable[[BaseException], str]) -> None:
        self._error, self._url, self._words = error, url, words

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, self._error):
            # Without the chain: the client's error holds the request, and the request the key.
            raise TranscriptError(f"{self._url}: {self._words(error)}") from None
        if isinstance(error, json.JSONDecodeError):
            raise TranscriptError(
                f"expected a JSON object as the reply, got {quote(error.doc)}; is {self._url} the API's address?"
            ) from None


def _plain(value: Any) -> dict[str, Any]:
    """Return a reply's object as JSON values, fields that the client does not know included."""
    if not hasattr(value, "model_dump"):
        raise TranscriptError(f"expected a JSON object as the reply, got {quote(value)}; is this the API's address?")
    found: dict[str, Any] = json.loads(value.model_dump_json(warnings=False))
    return found


def _texts(part: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(part.get("delta"), str):
        yield part["delta"]
    for choice in part.get("choices") or []:
        delta = choice.get("delta") or {}
        yield from (delta[k] for k in ("reasoning", "reasoning_content", "thinking", "content") if delta.get(k))


def _bounded(http: Any, stream: Iterable[bytes], limit: int, refused: type[Exception]) -> Any:
    """Return a body that is refused where it grows past the limit."""

    class Bounded(http.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise refused(f"the reply is larger than {limit:,} bytes; raise max_bytes where that is meant")
                yield chunk

        def close(self) -> None:
            stream.close()  # type: ignore[attr-defined]

    return Bounded()

"""Asking served models: what is sent, what goes wrong and what is refused, with a small HTTP server on loopback."""

import gzip
import json
import logging
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loopback_server import Server, reply, serving, stream

import workbench as wb
from workbench.transcripts.asking import ask
from workbench.transcripts.jsonl import write_jsonl
from workbench.transcripts.transcript import Transcript, TranscriptError

KEY = "sk-secret-0123456789"
ANSWER = {
    "id": "r1",
    "object": "chat.completion",
    "created": 1,
    "model": "served",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "reasoning": "7+5=12", "content": "132"},
        }
    ],
}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": "served", "choices": [choice]}


def said(transcript: Transcript) -> list[tuple[str | None, str]]:
    return [(m.channel, m.text) for m in transcript.completion]


def asked(server: Server, **options: Any) -> Transcript:
    return ask(server.url, "47+85=?", **({"model": "served", "stream": False, "retries": 2} | options))


# --- what is sent and what comes back ----------------------------------------------------------------------------


def test_a_reply_becomes_a_transcript_that_says_what_it_lacks() -> None:
    with serving(reply(ANSWER)) as server:
        transcript = asked(server, effort="high", seed=3, max_new_tokens=99, temperature=0.5)
    [request] = server.asked
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "messages": [{"role": "user", "content": "47+85=?"}],
        "model": "served",
        "reasoning_effort": "high",
        "temperature": 0.5,
        "seed": 3,
        "max_tokens": 99,
        "stream": False,
    }
    assert said(transcript) == [("analysis", "7+5=12"), ("final", "132")]
    assert (transcript.model, transcript.effort, transcript.ended) == ("served", "high", None)
    assert transcript.meta["sampling"] == {"temperature": 0.5, "seed": 3}
    assert transcript.lost == (
        "token ids: re-tokenised, because the server did not return them",
        "logprobs: not captured, because the server did not return them",
    )


def test_a_stream_is_joined_and_shown_as_it_comes() -> None:
    parts = [chunk(role="assistant"), chunk(reasoning="7+5"), chunk(reasoning="=12"), chunk(content="13")]
    seen: list[str] = []
    with serving(stream(*parts, chunk("stop", content="2"), b"[DONE]")) as server:
        transcript = asked(server, stream=True, on_text=seen.append)
    assert said(transcript) == [("analysis", "7+5=12"), ("final", "132")]
    assert seen == ["7+5", "=12", "13", "2"]
    assert transcript.ended is None


def test_token_ids_and_logprobs_that_a_server_returns_are_kept(tiny: wb.Model) -> None:
    live = wb.capture(tiny, "47+85=?", effort="low", seed=1, max_new_tokens=20)
    ids = live.arrays["token_ids"].tolist()
    answer = {**ANSWER, "prompt_token_ids": ids[: live.num_prompt_tokens]}
    message = {"role": "assistant", "reasoning": live.analysis_text, "content": live.final_text}
    listed = [{"token": "7", "logprob": -0.25, "bytes": [55], "top_logprobs": []}]
    choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": {"content": listed}}
    answer["choices"] = [{**choice, "token_ids": ids[live.num_prompt_tokens :]}]
    with serving(reply(answer)) as server:
        transcript = asked(server, extra={"return_token_ids": True})
    assert server.asked[0].body["return_token_ids"] is True
    assert transcript.lost == ()
    assert transcript.logprobs == (("7", -0.25),)
    assert transcript.ended == "cut at the server's token limit"
    trace = wb.replay(tiny, transcript)
    assert trace.arrays["token_ids"].tolist() == ids
    assert trace.source("token_ids") == "imported"
    assert trace.provenance["transcript"]["logprobs"] == "returned"
    assert trace.meta["truncated"] == "cut at the server's token limit"


def test_the_first_model_is_asked_where_none_is_named() -> None:
    models = {"object": "list", "data": [{"id": "served", "object": "model", "created": 1, "owned_by": "me"}]}
    with serving(reply(models), reply(ANSWER)) as server:
        asked(server, model=None)
    assert [request.path for request in server.asked] == ["/v1/models", "/v1/chat/completions"]
    with (
        serving(reply({**models, "data": []})) as server,
        pytest.raises(TranscriptError, match="lists no model; name"),
    ):
        asked(server, model=None)
    with (
        serving(reply({"detail": "Not Found"}, 404)) as server,
        pytest.raises(
            TranscriptError, match=r"Error code: 404 .*The models could not be listed; name one with model="
        ),
    ):
        asked(server, model=None)


# --- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_leaves_the_part_that_came(tiny: wb.Model) -> None:
    with serving(stream(chunk(reasoning="7+5=12\n"), chunk(reasoning="4+8"), gone=True)) as server:
        transcript = asked(server, stream=True)
    assert said(transcript) == [("analysis", "7+5=12\n4+8")]
    assert transcript.ended is not None
    assert transcript.ended.startswith("the server's stream broke off: ")
    trace = wb.replay(tiny, transcript)
    assert trace.analysis_text == "7+5=12\n4+8"
    assert trace.meta["truncated"] == transcript.ended
    assert trace.messages[-1].malformed == "cut off before its closing token"


def test_streams_that_end_early_say_how() -> None:
    for events, text in [
        ([chunk(content="1")], "the stream ended without a finish reason"),
        ([chunk(content="1"), {"error": {"message": "out of memory"}}], "broke off: out of memory"),
        ([chunk(content="1"), b'{"half'], "the server's stream broke off: "),
    ]:
        with serving(stream(*events)) as server:
            transcript = asked(server, stream=True)
        assert said(transcript) == [("final", "1")]
        assert text in (transcript.ended or "")


def test_nothing_before_the_end_of_a_stream_is_an_error() -> None:
    with serving(stream(gone=True)) as server, pytest.raises(TranscriptError, match="before anything was said"):
        asked(server, stream=True)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    busy = reply({"error": {"message": "busy"}}, status, retry_after_ms="20")
    with serving(busy, busy, reply(ANSWER)) as server:
        assert said(asked(server)) == [("analysis", "7+5=12"), ("final", "132")]
    assert len(server.asked) == 3
    with serving(busy) as server, pytest.raises(TranscriptError, match=rf"Error code: {status} .*busy"):
        asked(server)
    assert len(server.asked) == 3


def test_refusals_and_unknown_layouts_are_named() -> None:
    for answer, text in [
        (reply({"error": {"message": "no such model"}}, 404), "Error code: 404 - no such model"),
        (reply({"detail": "odd field"}, 422), "odd field"),
        (reply({"hello": 1}), "expected a chat completion with choices, or Ollama's message and done, got the keys"),
        (reply(b"<html>"), "expected a JSON object as the reply, got '<html>'; is http://127.0.0.1:"),
        (reply({**ANSWER, "choices": []}), "expected completion 0 among the choices, got 0"),
    ]:
        with serving(answer) as server, pytest.raises(TranscriptError) as error:
            asked(server)
        assert text in str(error.value)


def test_no_server_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(TranscriptError, match=r"Connection error. \(.*refused"):
        ask(url, "hi", model="m", retries=0)


# --- security ----------------------------------------------------------------------------------------------------


def test_only_loopback_and_tls_unless_told_otherwise() -> None:
    for url, text in [
        ("http://example.com/v1", "expected https for example.com, which is not this machine"),
        ("http://10.0.0.7:8000/v1", "pass plain_http=True"),
        ("http://localhost.example.com/v1", "expected https for localhost.example.com"),
        ("ftp://127.0.0.1/v1", "expected an address such as http://127.0.0.1:8000/v1"),
        ("127.0.0.1:8000", "expected an address such as http://127.0.0.1:8000/v1"),
        ("https://me:pw@example.com/v1", "holds a user or password"),
        ("https://:pw@example.com/v1", "holds a user or password"),
        ("ftp://me:pw@example.com/v1", "holds a user or password"),
        ("me:pw@example.com/v1", "holds a user or password"),
        ("https://example.com/v1?key=pw", "holds a query or fragment"),
        ("example.com/v1?key=pw", "holds a query or fragment"),
        ("http://127.0.0.1:8000/v1#pw", "put a key into an environment variable and name it: key_variable="),
    ]:
        with pytest.raises(TranscriptError) as error:
            ask(url, "hi", model="m")
        assert text in str(error.value)
        assert "pw" not in str(error.value)


def test_a_key_is_sent_where_it_is_named_and_kept_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-server")
    caplog.set_level(logging.DEBUG)
    with serving(reply(ANSWER)) as server:
        transcript = asked(server, key_variable="MY_KEY")
        asked(server)
    with_key, without = server.asked
    assert with_key.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in without.headers
    assert "another-server" not in str(server.asked)
    assert KEY not in write_jsonl([transcript])
    assert KEY not in caplog.text
    refused = reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
    with serving(refused) as server, pytest.raises(TranscriptError, match="Incorrect API key provided: …") as error:
        asked(server, key_variable="MY_KEY")
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None
    monkeypatch.setenv("MY_KEY", " ")
    with pytest.raises(TranscriptError, match="expected a key in the environment variable MY_KEY, which is not set"):
        asked(server, key_variable="MY_KEY")


def test_a_redirect_to_another_host_is_refused_and_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(reply(ANSWER)) as other:
        away = reply({}, 307, Location=f"{other.url}/chat/completions")
        with (
            serving(away) as server,
            pytest.raises(TranscriptError, match=r"the server redirects to http://127\.0\.0\.1"),
        ):
            asked(server, key_variable="MY_KEY")
        assert len(server.asked) == 1
        assert other.asked == []
    with serving(reply({}, 307, Location="/v1/moved"), reply(ANSWER)) as server:
        assert said(asked(server))[-1] == ("final", "132")
    assert server.asked[1].path == "/v1/moved"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificate of an unknown authority, and two that it signed: of this host and of another."""
    folder = tmp_path_factory.mktemp("authority")
    new = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    signs = ["-addext", "keyUsage=critical,keyCertSign"]

    def make(name: str, *options: str) -> None:
        files = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"]
        subprocess.run([*new, *files, *options], cwd=folder, check=True, capture_output=True)

    make("ca", *signs)
    for name, alternative in [("here", "IP:127.0.0.1"), ("elsewhere", "DNS:example.com")]:
        make(name, "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={alternative}")
    return folder


def test_a_certificate_is_checked_and_an_authority_of_ones_own_is_named(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def over_tls(name: str, *answers: Any) -> Any:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
        return serving(*answers, tls=tls)

    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with over_tls("here", reply(ANSWER)) as server:
        with pytest.raises(TranscriptError, match=r"certificate verify failed.* name that .* in SSL_CERT_FILE\."):
            asked(server, key_variable="MY_KEY", retries=0)
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        assert said(asked(server, key_variable="MY_KEY", retries=0))[-1] == ("final", "132")
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    with over_tls("elsewhere", reply(ANSWER)) as server:
        with pytest.raises(TranscriptError, match="IP address mismatch"):
            asked(server, key_variable="MY_KEY", retries=0)
        assert server.asked == []
    with serving(reply(ANSWER)) as plain, over_tls("here", reply({}, 307, Location=f"{plain.url}/moved")) as server:
        with pytest.raises(TranscriptError, match=r"the server redirects to http://127\.0\.0\.1, which is refused"):
            asked(server, key_variable="MY_KEY", retries=0)
        assert plain.asked == []


def test_a_compressed_reply_is_refused_before_it_is_unpacked() -> None:
    packed = gzip.compress(json.dumps({**ANSWER, "id": "x" * 1_000_000}).encode())
    assert len(packed) < 20_000
    with (
        serving(reply(packed, Content_Encoding="gzip")) as server,
        pytest.raises(TranscriptError, match=r"the reply is compressed \(gzip\), which was not asked for"),
    ):
        asked(server, max_bytes=20_000)
    assert [request.headers["accept-encoding"] for request in server.asked] == ["identity"]
    with serving(reply(ANSWER, Content_Encoding="identity")) as server:
        assert said(asked(server))[-1] == ("final", "132")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_without_end_is_refused(streamed: bool) -> None:
    large = chunk(content="x" * 5000)
    answer = stream(*[large] * 10) if streamed else reply({**ANSWER, "id": "x" * 50_000})
    with serving(answer) as server:
        if streamed:
            transcript = asked(server, stream=True, max_bytes=20_000)
            assert "the reply is larger than 20,000 bytes; raise max_bytes" in (transcript.ended or "")
            assert 5000 <= len(transcript.final_text) <= 20_000
        else:
            with pytest.raises(TranscriptError, match="the reply is larger than 20,000 bytes; raise max_bytes where"):
                asked(server, max_bytes=20_000)
    assert len(server.asked) == 1


def test_a_proxy_of_the_environment_does_not_see_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply(ANSWER)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with serving(reply(ANSWER)) as server:
            asked(server)
        assert len(server.asked) == 1
        assert proxy.asked == []

"""Asking OpenAI's own server for gpt-oss, with its transformers backend, its python tool and its browser.

The model behind it is small and says what `script_model` taught it; server, vocabulary, harmony, tools and inference
are the real ones. Its python runs in a Jupyter kernel of this machine; its browser has no key, and no network.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_harmony import official_encoding, official_tokenizer
from real_server import Started, running
from script_model import CONVERSATIONS, Conversation, Rollout

import workbench as wb
from workbench.transcripts.asking import ask
from workbench.transcripts.transcript import Transcript, TranscriptError

DEBUG = {"metadata": {"__debug": True}}
NO_IDS = "token ids: re-tokenised, because the server did not return them"
NO_LOGPROBS = "logprobs: not captured, because the server did not return them"
NO_TOOLS = "the tools' definitions, as the server's template wrote them into the prompt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt_oss")
    made = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("script_model.py")), str(folder)],
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return folder


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("EXA_API_KEY", "BROWSER_BACKEND")}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHON_EXECUTION_BACKEND": "dangerously_use_local_jupyter",
        "TIKTOKEN_ENCODINGS_BASE": str(folder),
    }


def serving(folder: Path, log: Path) -> Any:
    command = [sys.executable, "-m", "gpt_oss.responses_api.serve", "--checkpoint", str(folder)]
    return running([*command, "--inference-backend", "transformers"], environment(folder), log)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Started]:
    with serving(checkpoint, checkpoint) as started:
        yield started


@pytest.fixture(scope="module")
def rollouts(checkpoint: Path) -> dict[str, Rollout]:
    return {name: Rollout(**each) for name, each in json.loads((checkpoint / "rollouts.json").read_text()).items()}


@pytest.fixture(scope="module")
def speaker(checkpoint: Path) -> wb.Model:
    """The same weights here, read as a user would with the tokenizer of the vocabulary."""
    from transformers import GptOssForCausalLM

    return wb.load(GptOssForCausalLM.from_pretrained(checkpoint, dtype="bfloat16"), tokenizer=official_tokenizer())


def asked(server: Started, name: str, **options: Any) -> Transcript:
    found: Conversation = CONVERSATIONS[name]
    given = {"model": "served", "api": "responses", "temperature": 0.0, "tools": found.tools or None}
    return ask(f"{server.url}/v1", found.asked, "low", **(given | options))


def said(transcript: Transcript) -> list[tuple[str, str | None, str | None, str | None, str]]:
    return [(m.role, m.channel, m.recipient, m.content_type, m.text) for m in transcript.completion]


def test_the_vocabulary_of_these_tests_encodes_as_openais() -> None:
    encoding, tokenizer = official_encoding(), official_tokenizer()
    for text in (
        "What is 47 + 85?\n\nIt's 132, isn't it?",
        "Übergrößenträger 日本語 😀\u200d🔥",
        " \t\r\n  x",
        "<|end",
    ):
        assert tokenizer.encode(text, add_special_tokens=False) == encoding.encode(text, disallowed_special=())


SAID = {
    "plain": [
        ("assistant", "analysis", None, None, "7+5=12, carry 1. 4+8+1=13."),
        ("assistant", "final", None, None, "132"),
    ],
    "function": [
        ("assistant", "analysis", None, None, "I should call it."),
        ("assistant", "commentary", "functions.add", "<|constrain|>json", '{"a": 47, "b": 85}'),
    ],
    "answered": [("assistant", "final", None, None, "The tool says 132.")],
    "python": [
        ("assistant", "analysis", None, None, "Run it."),
        ("assistant", "analysis", "python", "code", "print(47 + 85)"),
        ("python", "analysis", "assistant", None, "132\n"),
        ("assistant", "final", None, None, "Python says 132."),
    ],
    "browser": [
        ("assistant", "analysis", None, None, "Search."),
        ("assistant", "analysis", "browser.search", None, '{"query": "47 + 85"}'),
        ("assistant", "final", None, None, "The search failed."),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_the_server_tells_of_a_rollout(server: Started, tiny: wb.Model, name: str, streamed: bool) -> None:
    seen: list[str] = []
    transcript = asked(server, name, stream=streamed, on_text=seen.append)
    assert said(transcript) == SAID[name]
    assert transcript.ended is None
    no_page = ["item 1: what the browser returned, which a response does not hold"] if name == "browser" else []
    no_tools = [] if name == "plain" else [NO_TOOLS]
    assert transcript.lost == (*no_page, NO_IDS, NO_LOGPROBS, *no_tools)
    assert (transcript.source, transcript.effort) == ("response", "low")
    assert transcript.model == "gpt-oss-120b"  # the server's name for whatever it serves
    assert ("".join(seen) != "") == streamed
    trace = wb.replay(tiny, transcript)
    spans = [m for m in trace.messages if m.start >= trace.num_prompt_tokens - 2]
    assert [(m.role, m.channel, m.recipient, m.content_type, trace.content(m)) for m in spans] == SAID[name]
    assert not any(m.malformed for m in trace.messages)
    assert trace.provenance["transcript"]["lost"] == list(transcript.lost)


def test_a_call_is_answered_in_a_second_request(server: Started) -> None:
    """The call's number is the server's; its output goes back with it, as OpenAI's API wants it."""
    first = asked(server, "function")
    call = first.completion[-1]
    assert (call.call_id or "").startswith("call_")
    items = [
        {"role": "user", "content": first.question},
        {"type": "function_call", "name": "add", "arguments": call.text, "call_id": call.call_id},
        {"type": "function_call_output", "call_id": call.call_id, "output": "132"},
    ]
    found = CONVERSATIONS["function"]
    second = ask(f"{server.url}/v1", items, "low", model="served", api="responses", temperature=0.0, tools=found.tools)
    assert [(m.role, m.recipient, m.text) for m in second.messages[1:]] == [
        ("assistant", "functions.add", call.text),
        ("functions.add", "assistant", "132"),
        ("assistant", None, "The tool says 132."),
    ]
    assert second.num_prompt_messages == 3


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_in_debug_mode_the_replay_has_the_servers_tokens(
    server: Started, speaker: wb.Model, rollouts: dict[str, Rollout], name: str
) -> None:
    """Prompt, tools and what they returned are told; the local model of the same weights says the same again."""
    transcript = asked(server, name, stream=name == "plain", extra=DEBUG)
    assert transcript.verbatim
    assert transcript.lost == (NO_IDS, NO_LOGPROBS)
    assert not any(m.malformed for m in transcript.messages)
    says = "".join(CONVERSATIONS[name].says).split("<|message|>")[1:]
    assert [m.text for m in transcript.completion if m.role == "assistant"] == [part.split("<|")[0] for part in says]
    trace = wb.replay(speaker, transcript, capture=wb.CaptureSpec(attention=False, lens=False))
    found = trace.arrays["token_ids"].tolist()
    tokens, places = rollouts[name]
    [call, end] = official_encoding().encode("<|call|><|end|>", allowed_special="all")
    extra = next((at + 1 for at in range(len(tokens)) if tokens[at : at + 2] == [call, end]), len(tokens))
    # Behind a call that it runs itself, the server feeds its model an <|end|> that it does not report.
    assert (extra < len(tokens)) == (name in ("python", "browser"))
    tokens = tokens[:extra] + tokens[extra + 1 :]
    if name == "answered":  # the server writes the recipient of a given call before the channel, we behind it
        assert found != tokens
        assert sorted(found) == sorted(tokens)
    else:
        assert found == tokens
    places = [at for at in places if at < extra]
    assert trace.num_prompt_tokens == places[0]
    assert np.asarray(trace.arrays["top_token_ids"])[places, 0].tolist() == [tokens[at] for at in places]
    assert trace.source("token_ids") == "re-tokenised"
    assert trace.has("expert_indices")


def test_what_the_items_leave_out_is_told_in_debug_mode(server: Started) -> None:
    """The items have no preamble of a call, and nothing of what the browser returned."""
    preamble = asked(server, "function", extra=DEBUG).completion[1]
    assert (preamble.channel, preamble.recipient, preamble.text) == ("commentary", None, "I will add them.")
    page = asked(server, "browser", extra=DEBUG).completion[2]
    assert (page.role, page.channel, page.recipient) == ("browser.search", "analysis", "assistant")
    assert page.text == "Error during search for `47 + 85`: Exa API key not provided"


@pytest.mark.parametrize("extra", [None, DEBUG])
def test_a_reply_of_as_many_tokens_as_were_allowed_may_be_cut(server: Started, extra: Any) -> None:
    """The server calls it completed."""
    transcript = asked(server, "plain", max_new_tokens=7, stream=False, extra=extra)
    assert transcript.ended == "may have been cut: it has as many tokens as were allowed"
    assert [m.channel for m in transcript.completion] == ["analysis"]


def test_the_servers_refusals_are_passed_on(server: Started) -> None:
    with pytest.raises(TranscriptError, match=r"404 .*The models could not be listed; name one with model="):
        asked(server, "plain", model=None, retries=0)
    with pytest.raises(TranscriptError, match=r"Error code: 422"):
        asked(server, "plain", tools=[{"type": "no such tool"}])


def test_a_server_that_is_killed_leaves_the_part_that_came(checkpoint: Path, tmp_path: Path, tiny: wb.Model) -> None:
    with serving(checkpoint, tmp_path) as started:
        transcript = asked(started, "plain", on_text=lambda _: started.process.kill())
    assert (transcript.ended or "").startswith("the server's stream broke off: ")
    [thought] = transcript.completion
    assert thought.channel == "analysis"
    assert SAID["plain"][0][-1].startswith(thought.text)
    assert thought.text
    trace = wb.replay(tiny, transcript)
    assert trace.meta["truncated"] == transcript.ended
    assert trace.messages[-1].malformed == "cut off before its closing token"

"""Asking ``transformers serve``, which serves the embedded model: chat, streams and responses, and their replay."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_server import running

import workbench as wb
from workbench.transcripts.asking import ask
from workbench.transcripts.completions import NOT_TOLD
from workbench.transcripts.transcript import TranscriptError

SPLIT = {
    "version": 1,
    "start_anchor": "<|start|>assistant",
    "defaults": {"role": "assistant"},
    "fields": {
        "reasoning_content": {"open": "<|channel|>analysis<|message|>", "close": ["<|end|>"]},
        "content": {"open": "<|channel|>final<|message|>", "close": ["<|return|>", "<|end|>"]},
    },
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny: wb.Model) -> Iterator[tuple[str, Path]]:
    """The embedded model, exported twice: as it is, and with a template by which the server splits its replies."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("plain", "split"):
        shutil.copytree(tiny.tokenizer.name_or_path, folder / name)
        tiny.tokenizer.response_template = SPLIT if name == "split" else None
        tiny.tokenizer.save_pretrained(folder / name)
    tiny.tokenizer.response_template = None
    (folder / "hub").mkdir()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--device", "cpu"]
    quiet = {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with running(command, quiet, folder) as server:
        yield f"{server.url}/v1", folder


@pytest.mark.parametrize("name", ["plain", "split"])
@pytest.mark.parametrize("streamed", [True, False])
def test_transformers_serve_says_what_the_model_says(
    served: tuple[str, Path], tiny: wb.Model, name: str, streamed: bool
) -> None:
    """The rollout of a real server, replayed: the same thought, and the experts of the model that said it."""
    url, folder = served
    options: dict[str, Any] = {"effort_in": "chat_template_kwargs", "max_new_tokens": 200, "stream": streamed}
    transcript = ask(url, "47+85=?", "high", model=str(folder / name), temperature=0.0, **options)
    live = wb.capture(tiny, "47+85=?", effort="high", temperature=0, max_new_tokens=200)
    assert transcript.final_text == live.final_text != ""
    # A whole reply is split by a template that strips white space around a field; a stream is not.
    assert transcript.analysis_text.strip() == live.analysis_text.strip() != ""
    guessed = any(each.startswith("channels: read from the spelling") for each in transcript.lost)
    assert guessed == (name == "plain")
    trace = wb.replay(tiny, transcript)
    assert trace.source("token_ids") == "re-tokenised"
    told = trace.provenance["transcript"]
    assert (told["read_from"], told["token_ids"], told["logprobs"]) == (
        "chat completion",
        "re-tokenised",
        "not captured",
    )
    assert told["lost"] == list(transcript.lost)
    assert NOT_TOLD["token_ids"] in told["lost"]
    assert NOT_TOLD["logprobs"] in told["lost"]
    if name == "plain" or streamed:
        assert trace.arrays["token_ids"].tolist() == live.arrays["token_ids"].tolist()
        np.testing.assert_array_equal(trace.arrays["expert_indices"], live.arrays["expert_indices"])


@pytest.mark.parametrize("name", ["plain", "split"])
@pytest.mark.parametrize("streamed", [True, False])
def test_transformers_serve_responses(served: tuple[str, Path], tiny: wb.Model, name: str, streamed: bool) -> None:
    url, folder = served
    transcript = ask(
        url,
        "47+85=?",
        None,
        api="responses",
        model=str(folder / name),
        temperature=0.0,
        stream=streamed,
        max_new_tokens=99,
    )
    assert [m.channel for m in transcript.completion] == ["analysis", "final"]
    assert "7+5=12" in transcript.analysis_text
    assert transcript.final_text == "132"
    assert transcript.source == "response"
    trace = wb.replay(tiny, transcript)
    assert trace.provenance["transcript"]["lost"] == list(transcript.lost)
    assert trace.source("token_ids") == "re-tokenised"


def test_a_reply_cut_by_the_limit_is_marked(served: tuple[str, Path]) -> None:
    url, folder = served
    transcript = ask(url, "47+85=?", "high", model=str(folder / "split"), temperature=0.0, max_new_tokens=6)
    assert transcript.ended == "cut at the server's token limit"
    assert [m.channel for m in transcript.completion] == ["analysis"]


def test_the_servers_own_refusal_is_passed_on(served: tuple[str, Path]) -> None:
    url, folder = served
    with pytest.raises(TranscriptError, match="Error code: 500"):
        ask(url, "hi", model=str(folder / "nowhere"), retries=0)

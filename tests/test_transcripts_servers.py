"""Replies and streams of servers that do not run here, built from their documented formats; see their README."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcript_strategies import texts

import workbench as wb
from workbench.transcripts.completions import join_chunks, read_completion, read_stream_text
from workbench.transcripts.files import read_transcripts
from workbench.transcripts.responses import join_events, read_response
from workbench.transcripts.transcript import Transcript, TranscriptError

RECORDED = Path(__file__).parent / "transcripts" / "recorded"
THOUGHT = "7+5=12, carry 1. 4+8+1=13. So 132."


def recorded(name: str) -> Transcript:
    [transcript] = read_transcripts(RECORDED / name)
    return transcript


@pytest.mark.parametrize(
    ("name", "effort", "model"),
    [
        ("vllm.json", "high", "openai/gpt-oss-20b"),
        ("ollama.json", "low", "gpt-oss:20b"),
        ("llama_cpp.json", "medium", "gpt-oss-20b-mxfp4.gguf"),
        ("lm_studio.json", "high", "openai/gpt-oss-20b"),
        ("lm_studio_responses.json", "low", "openai/gpt-oss-20b"),
        ("sglang.json", "high", "openai/gpt-oss-20b"),
    ],
)
def test_thought_and_answer_of_every_server(name: str, effort: str, model: str) -> None:
    transcript = recorded(name)
    assert [(m.role, m.channel, m.text) for m in transcript.messages] == [
        ("user", None, "What is 47 + 85?"),
        ("assistant", "analysis", THOUGHT),
        ("assistant", "final", "132"),
    ]
    assert transcript.num_prompt_messages == 1
    assert (transcript.effort, transcript.model, transcript.ended) == (effort, model, None)
    assert transcript.lost[0] == "token ids: re-tokenised, because the server did not return them"
    if name == "vllm.json":
        assert transcript.logprobs == (("132", -0.0625),)
        assert len(transcript.lost) == 1
    else:
        assert transcript.lost[1:] == ("logprobs: not captured, because the server did not return them",)


def test_llama_cpps_raw_harmony_is_separated() -> None:
    transcript = recorded("llama_cpp_reasoning_format_none.json")
    assert [(m.channel, m.text) for m in transcript.completion] == [("analysis", THOUGHT), ("final", "13")]
    assert transcript.ended == "cut at the server's token limit"


@pytest.mark.parametrize("name", ["vllm_before_0.11_tool_stream.sse", "ollama_tool_stream.ndjson"])
def test_tool_calls_of_a_stream_are_joined(name: str) -> None:
    transcript = recorded(name)
    thought, call = transcript.messages
    assert (thought.channel, thought.text) == ("analysis", "I should add.")
    assert (call.channel, call.recipient, json.loads(call.text)) == ("commentary", "functions.add", {"a": 47, "b": 85})
    assert call.call_id == ("call_1" if "ollama" in name else "chatcmpl-tool-1")
    assert transcript.ended is None
    assert transcript.lost[0] == "the prompt: a reply does not hold it"


def test_items_of_the_responses_api(tiny: wb.Model) -> None:
    transcript = recorded("openai_responses_tools.json")
    assert [(m.role, m.channel, m.recipient, m.content_type, m.text) for m in transcript.completion] == [
        ("assistant", "analysis", None, None, "Let me look."),
        ("assistant", "analysis", "browser.search", None, '{"query": "47 + 85"}'),
        ("assistant", "analysis", "python", "code", "print(47 + 85)"),
        ("python", "analysis", "assistant", None, "132\n"),
        ("assistant", "commentary", "functions.check", "<|constrain|>json", '{"sum": 132}'),
        ("functions.check", "commentary", "assistant", None, "true"),
        ("assistant", "analysis", None, None, "It checked the sum."),
        ("assistant", "final", None, None, "13"),
    ]
    assert transcript.lost[:5] == (
        "item 1: what the browser returned, which a response does not hold",
        "item 2: an image that python made",
        "item 5: the chain of thought; its summary stands for it",
        "item 6: the type 'mcp_call' is not read",
        "token ids: re-tokenised, because the server did not return them",
    )
    assert transcript.ended == "the response is incomplete: max_output_tokens"
    assert transcript.analysis_text == "Let me look.\nIt checked the sum."
    trace = wb.replay(tiny, transcript)
    spans = trace.messages[2:]
    assert [(s.role, s.channel, s.recipient, s.content_type, trace.content(s)) for s in spans] == [
        (m.role, m.channel, m.recipient, m.content_type, m.text) for m in transcript.completion
    ]
    assert [s.malformed for s in spans] == [None] * 7 + ["cut off before its closing token"]


def test_a_server_in_debug_mode_tells_all() -> None:
    call = "<|channel|>analysis to=python code<|message|>1+1<|call|>"
    output = "<|start|>python to=assistant<|channel|>analysis<|message|>2<|end|>"
    given = "<|start|>system<|message|>You are.<|end|><|start|>user<|message|>hi<|end|>"
    metadata = {"__debug_input": f"{given}<|start|>assistant", "__debug_output": call + output}
    transcript = read_response({"output": [], "status": "completed", "metadata": metadata})
    assert transcript.verbatim
    assert [(m.role, m.recipient, m.text) for m in transcript.messages] == [
        ("system", None, "You are."),
        ("user", None, "hi"),
        ("assistant", "python", "1+1"),
        ("python", "assistant", "2"),
    ]
    assert transcript.num_prompt_messages == 2


# --- streams -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["reasoning", "content"]), texts), min_size=1, max_size=8), st.data())
@settings(deadline=None, max_examples=100)
def test_a_stream_says_what_the_whole_reply_says(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    """However a reply is cut into chunks, and however its stream is recorded, the transcript is the same."""
    whole = {key: "".join(t for k, t in pieces if k == key) for key in ("reasoning", "content")}
    reply = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **whole}}]}
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, *({key: text} for key, text in pieces)]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    expected = read_completion(reply, "q")
    assert read_completion(join_chunks(chunks), "q") == expected
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    assert read_completion(join_chunks(read_stream_text(events)), "q") == expected
    cut = data.draw(st.integers(1, len(chunks) - 1))
    part = read_completion(join_chunks(chunks[:cut]), "q")
    assert part.ended == "the stream ended without a finish reason"
    assert expected.analysis_text.startswith(part.analysis_text)


def test_events_of_a_response_are_joined_and_kept_when_they_break_off() -> None:
    created = {
        "type": "response.created",
        "response": {"id": "r", "model": "m", "status": "in_progress", "output": []},
    }
    reasoning = {"type": "reasoning", "id": "rs", "summary": []}
    events: list[dict[str, Any]] = [
        created,
        {"type": "response.output_item.added", "output_index": 0, "item": {**reasoning, "content": []}},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "7+5"},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "=12"},
        {
            "type": "response.output_item.added",
            "output_index": 1,
            "item": {"type": "function_call", "name": "add", "call_id": "c", "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a": 1}'},
        {"type": "response.output_text.delta", "output_index": 2, "content_index": 0, "delta": "13"},
    ]
    transcript = read_response(join_events(events, broke_off="gone"), "q")
    assert [(m.channel, m.recipient, m.text) for m in transcript.completion] == [
        ("analysis", None, "7+5=12"),
        ("commentary", "functions.add", '{"a": 1}'),
        ("final", None, "13"),
    ]
    assert (transcript.ended, transcript.model) == ("gone", "m")
    assert read_response(join_events(events), "q").ended == "the stream ended before the response"
    failed = [*events, {"type": "error", "message": "out of memory"}]
    assert read_response(join_events(failed), "q").ended == "the server ended the stream with 'out of memory'"


def test_errors_in_place_of_replies_are_named(tmp_path: Path) -> None:
    for value, text in [
        ({"error": {"message": "no"}}, "expected a chat completion, got the server's error {'message': 'no'}"),
        ({"choices": [{"text": "old"}]}, "expected a message in the completion, got the keys text"),
        ({"output": [], "status": "failed", "error": {"message": "no"}}, "the server's response failed: {'message'"),
        ({"output": [3]}, "item 0: expected an object with a type, got 3"),
        ({"output": "x"}, "expected a response with a list of output items, got the keys output"),
    ]:
        (tmp_path / "reply.json").write_text(json.dumps(value))
        with pytest.raises(TranscriptError) as error:
            read_transcripts(tmp_path / "reply.json")
        assert text in str(error.value)
    with pytest.raises(TranscriptError, match=r"line 1: expected a JSON object of a stream, got 'data: \{half'"):
        read_stream_text('data: {half\n\ndata: {"choices": []}\n')
    assert read_stream_text('data: {"a": 1}\n\ndata: {"half') == [{"a": 1}]

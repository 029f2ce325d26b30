"""Round trips of the formats that servers speak and of token ids: what was said is read back, however it was cut.

Those of the formats that are written to files stand in `test_transcripts_files`, `test_transcripts_messages` and
`test_transcripts_html`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transcript_strategies import given as prompts
from transcript_strategies import texts, well_formed, words

import workbench as wb
from workbench.transcripts.completions import join_chunks, read_completion
from workbench.transcripts.harmony_text import read_token_ids
from workbench.transcripts.messages import chat_messages, read_messages
from workbench.transcripts.rendering import render_transcript
from workbench.transcripts.responses import join_events, read_response
from workbench.transcripts.transcript import Transcript, TranscriptMessage

Messages = tuple[TranscriptMessage, ...]
spoken = st.text(st.sampled_from("abc 12+=?.,\n{}\"'<|>é日😀"), min_size=1, max_size=20)


def unnumbered(messages: Sequence[TranscriptMessage]) -> list[TranscriptMessage]:
    return [replace(message, call_id=None) for message in messages]


@given(messages=well_formed)
@settings(deadline=None, max_examples=60)
def test_token_ids_are_read_back_as_the_messages_they_were_made_of(tiny: wb.Model, messages: Messages) -> None:
    """Any text, harmony's own tokens among it: as token ids nothing is forged and nothing is lost but numbers."""
    rendered = render_transcript(tiny.tokenizer, Transcript(messages, len(messages), verbatim=True))
    found = read_token_ids(tiny.tokenizer, rendered.token_ids)
    assert list(found.messages) == unnumbered(messages)
    again = render_transcript(tiny.tokenizer, found)
    assert again.token_ids == rendered.token_ids
    assert again.token_source == "imported"


@st.composite
def turns(draw: st.DrawFn) -> Messages:
    """What one reply of a server can hold: a thought, then an answer or calls with a preamble."""
    thought = draw(spoken)
    calls = draw(st.lists(st.tuples(words, st.dictionaries(words, texts, max_size=2), words), max_size=3))
    assume(len({number for *_, number in calls}) == len(calls))
    answer = draw(spoken) if not calls else draw(st.none() | spoken)
    said = [TranscriptMessage("assistant", thought, "analysis")]
    said += [TranscriptMessage("assistant", answer, "commentary" if calls else "final")] if answer else []
    for name, arguments, number in calls:
        text = json.dumps(arguments, ensure_ascii=False)
        recipient = f"functions.{name}"
        said.append(TranscriptMessage("assistant", text, "commentary", recipient, "<|constrain|>json", number))
    return tuple(said)


@given(prompt=st.lists(prompts, min_size=1, max_size=3).map(tuple), turn=turns())
@settings(deadline=None, max_examples=100)
def test_chat_messages_are_read_back(prompt: Messages, turn: Messages) -> None:
    outputs = [
        TranscriptMessage(str(m.recipient), m.text, "commentary", "assistant", call_id=m.call_id)
        for m in turn
        if m.recipient
    ]
    messages = (*prompt, *turn, *outputs)
    assert read_messages(json.loads(json.dumps(chat_messages(messages)))) == (messages, ())


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Cut a text at places that may lie anywhere."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:stop] for start, stop in pairwise(edges)]


@given(turn=turns(), places=st.lists(st.integers(0, 40), max_size=4))
@settings(deadline=None, max_examples=100)
def test_a_chat_completion_is_read_back_whole_and_streamed(turn: Messages, places: list[int]) -> None:
    [message] = chat_messages(turn)
    reply = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    whole = read_completion(reply, "q")
    assert whole.completion == turn
    deltas: list[dict[str, Any]] = [
        {key: part} for key in ("thinking", "content") for part in cut(message.get(key, ""), places)
    ]
    for index, call in enumerate(message.get("tool_calls", [])):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        deltas.append({"tool_calls": [{"index": index, "id": call["id"], "function": {"name": name}}]})
        pieces = cut(arguments, places)
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    assert read_completion(join_chunks(chunks), "q") == whole


def item(message: TranscriptMessage, number: int) -> dict[str, Any]:
    """A message as an item of the Responses API."""
    if message.recipient:
        name = message.recipient.removeprefix("functions.")
        call = {"type": "function_call", "name": name, "arguments": message.text, "call_id": message.call_id}
        return {"id": f"i{number}", **call}
    kind, part = ("reasoning", "reasoning_text") if message.channel == "analysis" else ("message", "output_text")
    return {"id": f"i{number}", "type": kind, "content": [{"type": part, "text": message.text}]}


def without_preamble(turn: Messages) -> bool:
    """Whether the Responses API, which has no channels, can hold a turn."""
    return not (turn[-1].recipient and turn[1].recipient is None)


def events(items: Sequence[dict[str, Any]], places: Sequence[int]) -> list[dict[str, Any]]:
    """The stream of a response, as far as before its last event, which would hold all of it again."""
    found: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "r", "status": "in_progress"}}]
    for index, each in enumerate(items):
        call = each["type"] == "function_call"
        text = each["arguments"] if call else each["content"][0]["text"]
        empty = {**each, "arguments": ""} if call else {**each, "content": []}
        kind = "function_call_arguments" if call else each["content"][0]["type"]
        at = {"output_index": index, "item_id": each["id"], "content_index": 0}
        found.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        found += [{"type": f"response.{kind}.delta", "delta": piece, **at} for piece in cut(text, places)]
        found.append({"type": "response.output_item.done", "output_index": index, "item": each})
    return found


def test_an_item_whose_end_names_no_id_is_one_item() -> None:
    items = [item(TranscriptMessage("assistant", text, "analysis"), number) for number, text in enumerate("ab")]
    stream = events(items, [])
    for event in stream:
        if event["type"] == "response.output_item.done":
            event["item"] = {name: value for name, value in event["item"].items() if name != "id"}
    assert [i["content"][0]["text"] for i in join_events(stream)["output"]] == ["a", "b"]


@given(turn=turns().filter(without_preamble), places=st.lists(st.integers(0, 40), max_size=4), data=st.data())
@settings(deadline=None, max_examples=100)
def test_a_response_is_read_back_whole_streamed_and_cut(
    turn: Messages, places: list[int], data: st.DataObject
) -> None:
    items = [item(message, number) for number, message in enumerate(turn)]
    whole = read_response({"id": "r", "status": "completed", "output": items}, "q")
    assert whole.completion == turn
    stream = events(items, places)
    completed = {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": items}}
    assert read_response(join_events([*stream, completed]), "q") == whole
    kept = data.draw(st.integers(2, len(stream)))
    part = read_response(join_events(stream[:kept], broke_off="gone"), "q")
    assert part.ended == "gone"
    for said, message in zip(part.completion, turn, strict=False):
        assert message.text.startswith(said.text)
        assert (said.channel, said.recipient) == (message.channel, message.recipient)
    if kept == len(stream):
        assert part.completion == turn


@given(turn=turns().filter(lambda turn: turn[1].channel == "final"), kept=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_the_unseparated_string_is_read_back(turn: Messages, kept: int) -> None:
    """As a server leaves it that drops the special tokens, whole and cut within the answer."""
    thought, answer = turn
    for text in (answer.text, answer.text[:kept]):
        content = f"analysis{thought.text}assistantfinal{text}"
        said, lost = read_messages([{"role": "assistant", "content": content}])
        assert said == (thought, replace(answer, text=text))
        assert len(lost) == 1

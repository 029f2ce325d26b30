"""Inspect logs and INIF files, written by us and by the packages themselves, and how a file's format is told."""

import gzip
import json
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from transcript_strategies import transcripts

import workbench as wb
from workbench.transcripts import inspect_logs
from workbench.transcripts.files import read_transcripts, write_transcripts
from workbench.transcripts.harmony_text import write_harmony
from workbench.transcripts.inif_files import read_inif, write_inif
from workbench.transcripts.inspect_logs import KEY, read_inspect, write_inspect
from workbench.transcripts.jsonl import transcript_of_messages
from workbench.transcripts.of_trace import from_trace
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage

# Inspect's own code, not ours, warns of what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TALK = transcript_of_messages(
    [
        {"role": "user", "content": "47 + 85 = ?"},
        {
            "role": "assistant",
            "reasoning": "7+5=12",
            "tool_calls": [{"id": "c1", "function": {"name": "add", "arguments": '{"a": 47}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "132"},
        {"role": "assistant", "content": "132"},
    ],
    {"model": "gpt-oss-20b", "effort": "high"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def live(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, "47+85=?", effort="low", seed=1, max_new_tokens=30)


# --- Inspect -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.eval", "t.json"])
@given(one=transcripts(), two=transcripts())
@settings(deadline=None, max_examples=12)
def test_inspect_logs_lose_nothing(folder: Path, name: str, one: Transcript, two: Transcript) -> None:
    write_inspect([one, two], folder / name)
    assert read_inspect(folder / name) == [one, two]


def test_inspect_itself_sees_thoughts_and_calls(folder: Path) -> None:
    from inspect_ai.log import read_eval_log

    write_inspect([TALK], folder / "seen.eval")
    [sample] = read_eval_log(str(folder / "seen.eval")).samples or []
    user, turn, output, last = sample.messages
    assert (user.role, user.text, sample.input) == ("user", "47 + 85 = ?", "47 + 85 = ?")
    assert turn.content[0].type == "reasoning"
    assert turn.content[0].reasoning == "7+5=12"
    assert [(c.id, c.function, c.arguments) for c in turn.tool_calls] == [("c1", "add", {"a": 47})]
    assert (output.role, output.function, output.tool_call_id, output.text) == ("tool", "add", "c1", "132")
    assert last.text == sample.output.completion == "132"


def test_a_log_that_inspect_wrote_is_read(folder: Path) -> None:
    """A real evaluation, with Inspect's own mock provider in the place of a server."""
    log = _evaluate(folder / "logs")
    [transcript] = read_transcripts(log)
    assert [(m.role, m.channel, m.text) for m in transcript.messages] == [
        ("system", None, "Be short."),
        ("user", None, "47 + 85 = ?"),
        ("assistant", "analysis", "7+5=12"),
        ("assistant", "final", "132"),
    ]
    assert transcript.source == "Inspect log"
    assert transcript.model == "mockllm/model"
    assert transcript.ended == "cut at the token limit"
    assert transcript.meta["scores"] == {"match": "C"}
    assert transcript.meta["target"] == "132"
    assert transcript.lost == ("token ids: re-tokenised, because messages do not list them",)


def _evaluate(folder: Path) -> str:
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import (
        ChatMessageAssistant,
        ContentReasoning,
        ContentText,
        ModelOutput,
        ModelUsage,
        get_model,
    )
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate, system_message

    said = ChatMessageAssistant(content=[ContentReasoning(reasoning="7+5=12"), ContentText(text="132")])
    output = ModelOutput.from_message(said, stop_reason="max_tokens")
    output.usage = ModelUsage(
        input_tokens=9, output_tokens=5, total_tokens=14
    )  # else it downloads a tokenizer to count
    model = get_model("mockllm/model", custom_outputs=[output])
    task = Task(
        [Sample("47 + 85 = ?", target="132")], solver=[system_message("Be short."), generate()], scorer=match()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [log] = eval(task, model=model, log_dir=str(folder), display="none")
    assert log.status == "success", log.error
    return str(log.location)


def test_messages_that_were_changed_in_a_log_are_believed(folder: Path) -> None:
    path = folder / "changed.json"
    write_inspect([TALK], path)
    log = json.loads(path.read_text())
    log["samples"][0]["messages"][-1]["content"] = "133"
    path.write_text(json.dumps(log))
    [transcript] = read_inspect(path)
    assert transcript.final_text == "133"
    assert transcript.lost[-1].startswith("channels, recipients and token ids: the log's messages were changed")


def test_bad_inspect_logs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bad.eval").write_bytes(b"PK nonsense")
    with pytest.raises(TranscriptError, match=r"bad.eval could not be read as an Inspect log \("):
        read_inspect(folder / "bad.eval")
    with pytest.raises(TranscriptError, match=r"There is no file .*missing.eval"):
        read_inspect(folder / "missing.eval")
    with pytest.raises(TranscriptError, match=r"expected a path that ends in .eval or .json, got x.txt"):
        write_inspect([TALK], "x.txt")
    with pytest.raises(TranscriptError, match="expected at least one transcript to write, got none"):
        write_inspect([], folder / "none.eval")
    with zipfile.ZipFile(folder / "large.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1.json", b"0" * 100_000)
    monkeypatch.setattr(inspect_logs, "SIZE_LIMIT", 10_000)
    with pytest.raises(TranscriptError, match="unpacks to 100,000 bytes, over the limit of 10,000; split it"):
        read_inspect(folder / "large.eval")


def test_an_inspect_log_that_lies_about_its_size_is_not_unpacked(folder: Path) -> None:
    path = folder / "lying.eval"
    write_inspect([TALK], path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/9.json", b"0" * 1_234_567)
    stated = (1_234_567).to_bytes(4, "little")
    assert path.read_bytes().count(stated) >= 2  # in the entry's own header and in the central directory
    crc = zlib.crc32(b"0" * 1_234_567).to_bytes(4, "little")
    forged = path.read_bytes().replace(crc, zlib.crc32(b"0" * 1000).to_bytes(4, "little"))
    path.write_bytes(forged.replace(stated, (1000).to_bytes(4, "little")))
    with pytest.raises(TranscriptError, match=r"lying.eval: samples/9.json is damaged, or is not as large as it says"):
        read_inspect(path)


def test_an_inspect_log_of_an_unknown_compression_is_named(folder: Path) -> None:
    path = folder / "odd.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", b"{}")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 97  # the method, in the central directory
    path.write_bytes(data)
    with pytest.raises(TranscriptError, match=r"odd.eval could not be read as an Inspect log \(NotImplementedError"):
        read_inspect(path)


def test_a_missing_package_is_named_with_the_way_to_install_it() -> None:
    with pytest.raises(
        TranscriptError, match=r"needs the package no-such-format .* pip install 'moe-workbench\[formats\]'"
    ):
        inspect_logs.imported("no_such_format")


# --- INIF --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.inif", "t.inif.json"])
@given(one=transcripts(), two=transcripts())
@settings(deadline=None, max_examples=40)
def test_inif_loses_nothing(folder: Path, name: str, one: Transcript, two: Transcript) -> None:
    write_inif([one, two], folder / name)
    assert read_inif(folder / name) == [one, two]


def test_inif_itself_sees_a_traces_tokens_and_spans(folder: Path, live: wb.Trace) -> None:
    import inif

    write_inif([live], folder / "trace.inif")
    document = inif.load(folder / "trace.inif")
    inif.validate(json.loads(gzip.decompress((folder / "trace.inif").read_bytes())))
    [sample] = document.samples
    assert [t.id for t in sample.tokens] == live.arrays["token_ids"].tolist()
    assert "".join(t.token for t in sample.tokens) == live.text()
    assert document.metadata.model.name == "tiny"
    for span, message in zip(sample.spans, live.messages, strict=True):
        assert span.positions == list(range(message.start, message.stop))
        assert span.tags == [tag for tag in (message.role, message.channel) if tag]
    assert sample.tokens[3].model_extra["logprob"] == float(live.arrays["logprobs"][3])
    assert "logprob" not in sample.tokens[0].model_extra
    assert read_inif(folder / "trace.inif") == [from_trace(live)]


def test_inif_of_others_is_read_by_its_tokens_roles_or_texts(folder: Path, live: wb.Trace) -> None:
    import inif

    token = inif.Token
    roles = [token(id=1, token="<u>", role="template"), token(id=2, token="Hi", role="user")]
    roles += [token(id=3, token="!", role="user"), token(id=4, token="Yes", role="assistant")]
    spelled = [token(id=i, token=live.token_text(n)) for n, i in enumerate(live.arrays["token_ids"].tolist())]
    samples = [
        inif.Sample(id="a", tokens=roles, texts=["Hi!", "Yes"], scores=[inif.SampleScore(scorer="s", value=0.5)]),
        inif.Sample(id="b", texts=["Hi!", "Yes"]),
        inif.Sample(id="c", tokens=spelled),
    ]
    document = inif.InifDocument(metadata=inif.Metadata(model=inif.ModelInfo(name="m")), samples=samples)
    inif.save(document, folder / "others.inif.json")
    by_role, texts, harmony = read_inif(folder / "others.inif.json")
    assert [(m.role, m.text) for m in by_role.messages] == [("user", "Hi!"), ("assistant", "Yes")]
    assert by_role.token_ids == (1, 2, 3, 4)
    assert by_role.meta == {"id": "a", "scores": {"s": 0.5}}
    assert [(m.role, m.text) for m in texts.messages] == [("unknown", "Hi!"), ("unknown", "Yes")]
    assert texts.lost == ("channels: INIF does not hold them", "roles: the file holds texts only")
    assert [m.text for m in harmony.messages] == [m.text for m in from_trace(live).messages]


def test_a_changed_inif_is_believed(folder: Path) -> None:
    path = folder / "changed.inif.json"
    write_inif([TALK], path)
    path.write_text(path.read_text().replace('"7+5=12", ', '"7+5=13", ', 1))
    [transcript] = read_inif(path)
    assert [m.text for m in transcript.messages] == ["47 + 85 = ?", "7+5=13", '{"a": 47}', "132", "132"]
    assert KEY not in transcript.meta


def test_bad_inif(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bad.inif").write_bytes(b"\x1f\x8bno gzip")
    (folder / "bad.inif.json").write_text('{"metadata": {}}')
    (folder / "none.inif.json").write_text('{"metadata": {"model": {"name": "m"}}}')
    for name, text in [
        ("bad.inif", "could not be read as INIF ("),
        ("bad.inif.json", "could not be read as INIF (ValidationError"),
        ("none.inif.json", "expected an INIF file with samples, got none"),
    ]:
        with pytest.raises(TranscriptError) as error:
            read_inif(folder / name)
        assert text in str(error.value)
    with pytest.raises(TranscriptError, match=r"expected a path that ends in .inif, .inif.json"):
        write_inif([TALK], folder / "x.txt")
    (folder / "bomb.inif").write_bytes(gzip.compress(b"0" * 100_000))
    monkeypatch.setattr("workbench.transcripts.inif_files.SIZE_LIMIT", 10_000)
    with pytest.raises(TranscriptError, match="unpacks to more than 10,000 bytes; split it"):
        read_inif(folder / "bomb.inif")


# --- which format it is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("inspect", "x.eval"), ("jsonl", "x.jsonl"), ("inif", "x.inif.json")])
def test_what_is_written_is_told_by_its_content(folder: Path, live: wb.Trace, kind: str, name: str) -> None:
    write_transcripts([TALK, live], folder / name, kind)
    assert read_transcripts(folder / name) == [TALK, from_trace(live)]


def test_harmony_and_bare_json_are_told_by_their_content(folder: Path) -> None:
    said = [(m.role, m.text) for m in TALK.messages]
    (folder / "h.txt").write_text(write_harmony(TALK).document)
    (folder / "log.json").write_text("")
    write_inspect([TALK], folder / "log.json")
    for name in ("h.txt", "log.json"):
        [transcript] = read_transcripts(folder / name)
        assert [(m.role, m.text) for m in transcript.messages] == said
    chat: list[Any] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    for value in (chat, {"messages": chat}):
        (folder / "chat.json").write_text(json.dumps(value, indent=1))
        [transcript] = read_transcripts(folder / "chat.json")
        assert transcript.messages == (TranscriptMessage("user", "hi"), TranscriptMessage("assistant", "ho", "final"))


def test_what_is_not_known_is_refused_with_what_is(folder: Path) -> None:
    for content, text in [
        (b"hello", "is of no known format: it begins with 'hello'. Known are Inspect logs (.eval, .json), INIF"),
        (b"\xff\xfe\x00", "is no text. Known are"),
        (b"3", "holds 3, no transcript. Known are"),
        (b'{"a": 1, "b": 2}', "is of no known layout: it has the keys a, b. Known are"),
    ]:
        (folder / "odd").write_bytes(content)
        with pytest.raises(TranscriptError) as error:
            read_transcripts(folder / "odd")
        assert text in str(error.value)
    with pytest.raises(TranscriptError, match="nowhere cannot be read: No such file"):
        read_transcripts(folder / "nowhere")
    with pytest.raises(TranscriptError, match="expected a format of inspect, jsonl, inif, html, got 'csv'"):
        write_transcripts([TALK], folder / "x.csv", "csv")

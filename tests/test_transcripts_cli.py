"""``workbench import`` and ``workbench export`` as people run them: files, output, exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.cli import main
from workbench.cli_transcripts import SUFFIXES
from workbench.transcripts.files import FORMATS, read_transcripts
from workbench.transcripts.jsonl import transcript_of_messages, write_jsonl

SUM: list[dict[str, Any]] = [
    {"role": "user", "content": "47+85=?"},
    {"role": "assistant", "reasoning": "7+5=12\n4+8+1=13\nso 132", "content": "132"},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [
        {"messages": SUM, "model": "served", "effort": "high"},
        {"messages": [{**SUM[0], "content": "1+1=?"}, SUM[1]]},
    ]
    Path("talks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command, example in [
        ("import", "workbench import sums.jsonl --out traces --replay"),
        ("export", "workbench export traces --to inspect"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        shown = capsys.readouterr().out
        assert example in shown
        assert "exit codes: 0 done" in shown


def test_transcripts_go_into_a_store_once_and_out_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["import", "talks.jsonl", "--out", "traces"]) == 0
    assert capsys.readouterr().out.splitlines() == ["traces: 2 transcripts imported, 2 traces in all"] * 2
    [trace] = [t for t in wb.TraceStore("traces") if t.provenance["model"] == "served"]
    assert trace.analysis_text == SUM[1]["reasoning"]
    assert (trace.final_text, trace.meta["question"], trace.provenance["effort"]) == ("132", "47+85=?", "high")
    assert trace.source("token_ids") == "re-tokenised"
    assert trace.captured == ("token_ids",)
    for kind, name in [("jsonl", "traces.jsonl"), ("inspect", "traces.eval"), ("inif", "traces.inif.json")]:
        assert main(["export", "traces", "--to", kind]) == 0
        assert capsys.readouterr().out == f"{name}: 2 transcripts\n"
        found = read_transcripts(name)
        assert {t.final_text for t in found} == {"132"}
        assert {t.analysis_text for t in found} == {SUM[1]["reasoning"]}
        assert main(["import", name, "--out", f"again_{kind}"]) == 0
        again = wb.TraceStore(f"again_{kind}")
        assert {t.text() for t in again} == {t.text() for t in wb.TraceStore("traces")}
        capsys.readouterr()


def test_a_page_to_read_is_written_and_not_imported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "talks.jsonl", "--out", "traces"]) == 0
    assert main(["export", "traces", "--to", "html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "traces.html: 2 transcripts"
    assert Path("traces.html").read_text(encoding="utf-8").count("<details>") == 2
    assert main(["import", "traces.html", "--out", "again"]) == 2
    assert "traces.html is a page to read, which no longer holds the messages as data" in capsys.readouterr().err


def test_the_command_offers_what_can_be_written() -> None:
    assert SUFFIXES == FORMATS


def test_a_replay_records_what_the_model_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "talks.jsonl", "--out", "traces", "--replay"]) == 0
    [trace] = [t for t in wb.TraceStore("traces") if t.provenance["transcript"]["model"] == "served"]
    assert trace.has("expert_indices")
    assert trace.provenance["model"] == "tiny"
    name = wb.TraceStore("traces").names[0]
    assert main(["export", f"traces/{name}.safetensors", "--to", "jsonl", "--out", "one.jsonl"]) == 0
    [one] = read_transcripts("one.jsonl")
    assert one.lost[0].startswith("the model's internals: logprobs")


def test_what_cannot_be_read_is_named_and_the_rest_is_imported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.txt").write_text("hello\x1b[31m")
    reply = {"choices": [{"message": {"role": "assistant", "content": "132"}, "finish_reason": "stop"}]}
    Path("reply.json").write_text(json.dumps(reply))
    long = transcript_of_messages([*SUM, {"role": "user", "content": "and?"}])
    Path("mixed.jsonl").write_text(write_jsonl([long]) + Path("talks.jsonl").read_text())
    assert main(["import", "odd.txt", "reply.json", "mixed.jsonl", "--out", "traces"]) == 2
    out, err = capsys.readouterr()
    assert out == "traces: 3 transcripts imported, 3 traces in all\n"
    assert "odd.txt: odd.txt is of no known format: it begins with 'hello" in err
    assert "\x1b" not in err
    assert "reply.json: transcript 1: expected a user message to render as a prompt" in err
    assert err.strip().splitlines()[-1] == "workbench: 2 could not be imported; see above"


BAD = [
    (["import", "missing.json", "--out", "s"], "missing.json cannot be read: No such file"),
    (["import", "talks.jsonl", "--out", "s", "--model", "nope"], "unknown model 'nope'. Known:"),
    (["import", "talks.jsonl", "--out", "talks.jsonl"], "talks.jsonl cannot be made"),
    (["export", "nowhere", "--to", "jsonl"], "There is no folder nowhere."),
    (["export", "empty", "--to", "jsonl"], "expected at least one trace in empty, found none"),
    (["export", "empty", "--to", "jsonl", "--out", "talks.jsonl"], "talks.jsonl exists; choose another --out"),
    (["export", "empty", "--to", "jsonl", "--out", "no/x.jsonl"], "expected an existing folder to write x.jsonl to"),
    (
        ["export", "some", "--to", "inspect", "--out", "x.txt"],
        "expected a path that ends in .eval or .json, got x.txt",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), BAD, ids=[text[:30] for _, text in BAD])
def test_errors_are_named_with_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    Path("empty").mkdir()
    assert main(["import", "talks.jsonl", "--out", "some"]) == 0
    before = Path("talks.jsonl").read_text()
    assert main(arguments) == 2
    assert text in capsys.readouterr().err
    assert Path("talks.jsonl").read_text() == before

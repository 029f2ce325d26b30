"""A file of prompts into a store by the command."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.cli import main
from workbench.cli_capture import PromptsError, read_prompts

LINES = [
    {"question": "47+85=?", "id": "sum-1"},
    {"messages": [{"role": "developer", "content": "be brief."}, {"role": "user", "content": "12+9=?"}]},
]


def written(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
    return path


def test_a_file_of_prompts_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path / "prompts.jsonl", LINES), tmp_path / "traces"
    command = [
        "capture",
        str(file),
        "--effort",
        "low,medium",
        "--samples",
        "2",
        "--batch-size",
        "3",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    assert f"{out}: 8 rollouts of 2 prompts, 0 cut\n8 rollouts, " in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["sum-1"] * 4 + [None] * 4
    assert [row["question"] for row in rows] == ["47+85=?"] * 4 + ["12+9=?"] * 4
    assert {row["trace"] for row in rows} == set(wb.TraceStore(out).names)
    assert main(command) == 0
    assert "nothing was missing" in capsys.readouterr().out


def test_the_ray_engine_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = written(tmp_path / "prompts.jsonl", LINES), tmp_path / "traces"
    command = ["capture", str(file), "--effort", "low", "--engine", "ray", "--workers", "1", "--out", str(out)]
    assert main(command) == 0
    assert "2 rollouts of 2 prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "left", "text"),
    [
        ("prompts.jsonl", "traces/*.safetensors", r"interrupted with \d+ of 80 rollouts done; the same call goes on"),
        # So hot that it does not end by itself.
        ("47+85=?", "traces.shards/*", r"interrupted; what was done is in traces$"),
    ],
)
def test_ctrl_c_keeps_what_is_done_and_says_130(asked: str, left: str, text: str, tmp_path: Path) -> None:
    written(tmp_path / "prompts.jsonl", LINES)
    many = ["--samples", "40"] if asked.endswith(".jsonl") else []
    command = [sys.executable, "-m", "workbench", "capture", asked, *many, "--temperature", "40", "--out", "traces"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        deadline = time.monotonic() + 120
        while not any(tmp_path.glob(left)):
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    assert re.search(text, errors.strip().splitlines()[-1]), errors
    done = tmp_path / "traces"
    trace = wb.TraceStore(done)[0] if done.is_dir() else wb.open_trace(done)
    assert len(trace) > trace.num_prompt_tokens


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{nope", "line 3: not JSON"),
        (["a"], "line 3: expected an object with either question or messages"),
        ({"question": "a", "messages": []}, "line 3: expected an object with either question or messages"),
        ({"question": "a", "effort": "low"}, "line 3: expected question or messages, and id, got 'effort'"),
        ({"question": "a", "id": 7}, "line 3: expected an id as text, got 7"),
        ({"question": " "}, "line 3: expected a question as text that is not empty"),
        ({"messages": [{"role": "system", "content": "a"}]}, "line 3: expected messages as a list of"),
    ],
)
def test_bad_lines_are_named_by_number(line: Any, text: str, tmp_path: Path) -> None:
    file = written(tmp_path / "prompts.jsonl", [LINES[0], line])
    with pytest.raises(PromptsError) as caught:
        read_prompts(file)
    assert text in str(caught.value)


def test_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, out = written(tmp_path / "empty.jsonl", []), str(tmp_path / "out")
    file = written(tmp_path / "prompts.jsonl", LINES)
    for command, text in [
        (["capture", "1+1=?", "--samples", "2", "--out", out], "--samples is of a file of prompts"),
        (["capture", str(empty), "--out", out], "expected prompts in"),
        (["capture", str(empty), "--overwrite", "--out", out], "--overwrite is of a single question"),
        (["capture", str(file), "--effort", "low,huge", "--out", out], "(low, medium, high), got 'huge'"),
        (
            ["capture", str(file), "--workers", "2", "--out", out],
            "this process alone, got workers=2",
        ),
        (["capture", str(tmp_path / "none.jsonl"), "--out", out], "No such file"),
    ]:
        assert main(command) == 2
        assert text in capsys.readouterr().err
    assert not Path(out).exists()

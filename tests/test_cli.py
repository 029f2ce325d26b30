"""The command as people run it: its output, files and exit code. JupyterLab's part is in tests/browser."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb
from workbench.cli import main
from workbench.lab import course_index, first_notebook, notebook_for, shipped_notebook


def workbench(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workbench", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_help_shows_the_commands_and_examples(tmp_path: Path) -> None:
    for arguments, example in [
        (["--help"], "workbench lab"),
        (["lab", "--help"], "--no-browser --port 8899"),
        (["capture", "--help"], '"47 + 85 = ?" --effort high --out sum.safetensors'),
        (["open", "--help"], "workbench open sum.safetensors"),
        (["size", "--help"], "workbench size openai/gpt-oss-120b --tokens 8000 --device-memory 80"),
    ]:
        done = workbench(*arguments, folder=tmp_path)
        assert done.returncode == 0
        assert "examples:" in done.stdout
        assert "exit codes: 0 done, 2 something you can put right, named in the last line, 130 Ctrl-C" in done.stdout
        assert example in done.stdout


def test_capture_writes_the_trace_that_the_library_would(tmp_path: Path, tiny: wb.Model) -> None:
    arguments = ["capture", "47 + 85 = ?", "--effort", "high", "--max-new-tokens", "19", "--seed", "3"]
    done = workbench(*arguments, "--out", "sum.safetensors", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    trace = wb.open_trace(tmp_path / "sum.safetensors")
    same = wb.capture(tiny, "47 + 85 = ?", effort="high", max_new_tokens=19, seed=3)
    assert trace.arrays["token_ids"].tolist() == same.arrays["token_ids"].tolist()
    assert f"sum.safetensors: {trace.num_prompt_tokens} prompt and 19 completion tokens, cut at 19" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["sum.safetensors"]


OUT = ["--out", "t.safetensors"]
BAD = [
    (["capture", "q", "--out", "nowhere/t.safetensors"], "expected an existing folder to write t.safetensors to"),
    (["capture", "q", "--out", "taken.safetensors"], "taken.safetensors exists; choose another --out"),
    (["capture", "q", *OUT, "--model", "nope"], "unknown model 'nope'. Known: \"tiny\" (embedded)"),
    (["capture", "", *OUT], "The question is empty."),
    (["capture", "q", *OUT, "--effort", "huge"], "(low, medium, high), got 'huge'"),
    (["capture", "q", *OUT, "--max-new-tokens", "0"], "expected max_new_tokens of at least 1, got 0"),
    (["capture", "q", *OUT, "--temperature", "-1"], "expected a temperature of 0 (greedy) or more"),
    (["open", "missing.safetensors"], "There is no file missing.safetensors."),
    (["open", "taken.safetensors"], "taken.safetensors is not a trace."),
    (["size", "nope", "--tokens", "9"], "unknown model 'nope'. Known: \"tiny\" (embedded)"),
    (["lab", "missing.ipynb"], "expected a notebook, found no file missing.ipynb"),
]


@pytest.mark.parametrize(("arguments", "text"), BAD, ids=[text[:30] for _, text in BAD])
def test_errors_are_one_line_and_leave_nothing_behind(
    arguments: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.safetensors").write_text("hello")
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("workbench: ")
    assert text in line
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]
    assert (tmp_path / "taken.safetensors").read_text() == "hello"


def test_an_error_reaches_the_shell_without_a_traceback(tmp_path: Path) -> None:
    done = workbench("open", "missing.safetensors", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "workbench: There is no file missing.safetensors.\n")


def test_size_prints_what_a_capture_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "openai/gpt-oss-20b", "--tokens", "1000", "--device-memory", "12"]) == 0
    table = capsys.readouterr().out
    assert "openai/gpt-oss-20b, one rollout of 1,000 tokens" in table
    assert "does NOT fit in 12 GB" in table
    assert "196,608 B/token" in table


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a bug elsewhere")

    monkeypatch.setattr(wb, "capture", broken)
    with pytest.raises(ValueError, match="a bug elsewhere"):
        main(["capture", "q", "--out", str(tmp_path / "t.safetensors")])


def test_overwrite_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "t.safetensors"
    out.write_text("hello")
    assert main(["capture", "2+2=?", "--out", str(out), "--overwrite", "--max-new-tokens", "2"]) == 0
    trace = wb.open_trace(out)
    assert len(trace) == trace.num_prompt_tokens + 2


def test_the_answer_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["open", str(tmp_path / "a\x1b[2J\udcffb.safetensors")]) == 2
    line = capsys.readouterr().err
    assert "\x1b" not in line
    assert "a␛[2J\\udcffb.safetensors" in line


def test_ctrl_c_saves_what_is_done(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from workbench.rollout import Rollout\n"
        "from workbench.cli import main\n"
        "count = Rollout.__call__\n"
        "def interrupting(self, ids, scores, **rest):\n"
        "    if len(self.token_ids) - len(self.prompt) == 7: raise KeyboardInterrupt\n"
        "    return count(self, ids, scores, **rest)\n"
        "Rollout.__call__ = interrupting\n"
        "sys.exit(main(['capture', '47 + 85 = ?', '--effort', 'high', '--out', 't.safetensors']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 130, done.stderr
    assert "what was done is in t.safetensors" in done.stderr
    assert "interrupted after" in done.stdout
    trace = wb.open_trace(tmp_path / "t.safetensors")
    assert 0 < len(trace) - trace.num_prompt_tokens <= 8


@pytest.mark.parametrize(
    "name",
    [
        "plain.safetensors",
        'it\'s "quoted" \\n.safetensors',
        "-o {__import__('os').system('touch bad')}.safetensors",
        "'); open('bad', 'w').write('x'); ('.safetensors",
        "思考 😀 <script>alert(1)<.safetensors",
        "new\nline\x1b[31m.safetensors",
        "no suffix",
    ],
)
def test_the_notebook_of_a_trace_opens_it_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_trace: wb.Trace
) -> None:
    trace = tmp_path / name
    short_trace.save(trace)
    path = notebook_for(trace)
    [cell] = json.loads(path.read_text())["cells"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(cell["source"].replace("\nTraceExplorer(trace)", ""), names)
    opened = names["trace"]
    assert isinstance(opened, wb.Trace)
    assert len(opened) == len(short_trace)
    assert {entry.name for entry in tmp_path.iterdir()} == {trace.name, f"{trace.name}.ipynb"}


def test_a_notebook_that_is_there_is_kept(tmp_path: Path, short_trace: wb.Trace) -> None:
    trace = tmp_path / "t.safetensors"
    short_trace.save(trace)
    path = notebook_for(trace)
    edited = json.loads(path.read_text())
    edited["cells"][0]["source"] += "  # mine"
    path.write_text(json.dumps(edited))
    assert notebook_for(trace) == path
    assert "# mine" in path.read_text()
    path.write_text("{}")
    with pytest.raises(FileExistsError, match=r"t\.safetensors\.ipynb exists and is no notebook for t\.safetensors"):
        notebook_for(trace)


def test_the_course_is_copied_once_whole(tmp_path: Path) -> None:
    index = course_index(tmp_path)
    assert index == tmp_path / "course" / "index.ipynb"
    shipped = shipped_notebook("course/index.ipynb").parent
    names = {path.relative_to(shipped) for path in shipped.rglob("*.ipynb")}
    assert {path.relative_to(index.parent) for path in index.parent.rglob("*.ipynb")} == names
    assert {name.name[0] for name in names} == {*"12345678i"}
    index.write_text("mine")
    assert course_index(tmp_path).read_text() == "mine"


def test_the_first_notebook_is_copied_once(tmp_path: Path) -> None:
    copy = first_notebook(tmp_path)
    assert copy == tmp_path / "01_first_trace.ipynb"
    assert copy.read_bytes() == shipped_notebook().read_bytes()
    copy.write_text("mine")
    assert first_notebook(tmp_path).read_text() == "mine"
    with pytest.raises(FileNotFoundError, match=r"expected the notebook 99\.ipynb in the installation"):
        shipped_notebook("99.ipynb")


@pytest.fixture(scope="module")
def short_trace(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, "2+2=?", max_new_tokens=3)

"""`workbench review` and `workbench serve` without a browser: what is begun, what is refused, who may come in."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
from postgres import server
from reviewing import folder_of, hinted, small_review

from workbench import cli_review, serving
from workbench.catalogue import Catalogue
from workbench.cli import main
from workbench.review import Reviewer, begin_review, open_desk, reviewers
from workbench.review.page import Served, desk_or_choice, write_page
from workbench.trace_file import save_trace

HOSTILE = "it's \"<img src=x onerror=alert(1)>\"'); open('bad', 'w'); ('&ada=1"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says, in one line."""
    assert main(["review", *arguments]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command, example in (
        ("review", "--begin pilot --reviewers ada,ben --adjudicator eve"),
        ("serve", "lesson.ipynb"),
    ):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        shown = capsys.readouterr().out
        assert example in shown
        assert "exit codes: 0 done" in shown


def test_a_review_is_begun_over_what_the_filters_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(folder_of(tmp_path / "runs", 3))
    people = ["--reviewers", "ada, ben", "--adjudicator", "eve", "--adjudicator", "max"]
    words = ["--flag", "influence not mentioned in the chain", "--text", "hint"]
    assert main(["review", folder, "--begin", "pilot", *people, *words]) == 0
    out = capsys.readouterr().out
    assert "pilot: 3 traces for ada, ben, eve (adjudicates), max (adjudicates); rubric" in out
    assert f"workbench review {folder} --reviewer NAME" in out
    catalogue = Catalogue(folder)
    assert [(p.name, p.may_adjudicate) for p in reviewers(catalogue, "pilot")] == [
        *[("ada", False), ("ben", False)],
        *[("eve", True), ("max", True)],
    ]
    summary = open_desk(catalogue, "pilot", "ada").summary()
    assert (summary.num_traces, summary.per_trace, summary.blind) == (3, 2, True)
    assert "no trace of" in said(capsys, folder, "--begin", "two", *people, "--effort", "huge")
    assert "There is a review 'pilot' already" in said(capsys, folder, "--begin", "pilot", *people)


def test_new_traces_are_taken_in_before_a_review_begins(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "runs", 1)
    Catalogue(folder).update()
    save_trace(hinted(7), folder / "later.safetensors")
    assert main(["review", str(folder), "--begin", "one", "--reviewers", "ada", "--per-trace", "1"]) == 0
    assert open_desk(Catalogue(folder), "one", "ada").summary().num_traces == 2


def test_a_team_on_postgresql(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "runs", 2)
    with server() as url:
        begin = [*("--begin", "pilot"), *("--reviewers", "ada,ben")]
        assert main(["review", str(folder), "--url", url, *begin]) == 0
        assert open_desk(Catalogue(folder, url), "pilot", "ben").summary().num_traces == 2
        assert "expected a reviewer of 'pilot'" in said(capsys, str(folder), "--url", url, "--reviewer", "max")
    assert not (folder / "catalogue.sqlite").exists()


def test_what_is_wrong_is_said_before_anything_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "runs", 1)
    runs = str(folder)
    assert "There is no review in" in (line := said(capsys, runs))
    assert f"workbench review {runs} --begin NAME --reviewers ada,ben --adjudicator eve" in line
    assert "There is no folder" in said(capsys, str(tmp_path / "none"))
    assert "--flag is for a review that begins; add --begin NAME" in said(capsys, runs, "--flag", "x")
    assert "--prompt-set is for a review that" in said(capsys, runs, "--prompt-set", "x")
    assert "expected --reviewers with --begin" in said(capsys, runs, "--begin", "pilot")
    begin = [runs, "--begin", "pilot", "--reviewers", "ada,ben"]
    assert "expected at least 3 reviewers who do not adjudicate" in said(capsys, *begin, "--per-trace", "3")
    (rubric := tmp_path / "r.yaml").write_text("name: 3\n")
    assert "r.yaml" in said(capsys, *begin, "--rubric", str(rubric))
    assert "expected a date such as 2026-11-24, got 'soon'" in said(capsys, *begin, "--since", "soon")
    assert main(["review", *begin]) == 0
    assert "expected a reviewer of 'pilot' (ada, ben), got 'max'" in said(capsys, runs, "--reviewer", "max")
    assert "There is no review 'other' here. There are: pilot." in said(capsys, runs, "--review", "other")
    assert main(["review", runs, "--begin", "second", "--reviewers", "ada,ben"]) == 0
    assert "choose one with --review: pilot, second" in said(capsys, runs)
    assert "expected a file, for SQLite, or the URL of a PostgreSQL" in said(capsys, runs, "--url", "mysql://x/y")


def test_a_port_that_is_taken_and_extras_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_review(tmp_path / "runs", 1)
    runs = str(tmp_path / "runs")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"The port {port} cannot be had" in said(capsys, runs, "--port", port)
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    assert 'pip install "moe-workbench[serve]"' in said(capsys, runs)
    monkeypatch.setattr(cli_review, "find_spec", lambda name: None)
    assert 'pip install "moe-workbench[review,serve]"' in said(capsys, runs)
    assert main(["serve", str(tmp_path / "none.ipynb")]) == 2
    assert "expected a notebook, found no file" in capsys.readouterr().err


def test_names_are_never_part_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(folder_of(tmp_path / "runs", 1))
    catalogue.update()
    people = [Reviewer(HOSTILE), Reviewer("ada")]
    begin_review(catalogue, HOSTILE, people, traces=[e.hash for e in catalogue.find()])
    served = Served(str(catalogue.folder), None, HOSTILE, None, (HOSTILE, "ada"))
    for name, value in served.environment().items():
        monkeypatch.setenv(name, value)
    assert Served.here() == served
    one, two = (json.loads(write_page(tmp_path, name).read_text()) for name in (HOSTILE, "pilot"))
    assert one["cells"] == two["cells"]
    assert one["metadata"]["title"] == f"Review {HOSTILE}"
    choice = desk_or_choice(repr).data
    assert "<img" not in choice
    names = [unescape(value) for value in re.findall(r'value="([^"]*)"', choice)]
    assert names == [HOSTILE, "ada"]
    monkeypatch.setenv("QUERY_STRING", f"{urlencode({'reviewer': HOSTILE})}&token=x")
    assert desk_or_choice(lambda desk: desk.reviewer) == HOSTILE
    monkeypatch.setenv("QUERY_STRING", "reviewer=%3Cb%3Emax")
    assert "got &#x27;&lt;b&gt;max&#x27;" in desk_or_choice(repr).data
    for name, value in Served(**{**vars(served), "reviewer": "ada"}).environment().items():
        monkeypatch.setenv(name, value)
    assert desk_or_choice(lambda desk: desk.reviewer) == "ada"  # whatever the address says


def status(url: str, **headers: str) -> tuple[int, str]:
    """The status of a reply, and what it lets the page load."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as reply:
            return int(reply.status), reply.headers["Content-Security-Policy"] + reply.url
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Security-Policy"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A desk served from a folder with a hostile configuration for Voilà, and the address it prints."""
    small_review(tmp_path / "runs", 1)
    (tmp_path / "voila.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    (tmp_path / "voila.json").write_text('{"Voila": {"ip": "0.0.0.0", "token": ""}}')
    command = [Path(sys.executable).with_name("workbench"), "review", "runs", "--reviewer", "ada", "--no-browser"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, line.strip().removeprefix("review.ipynb is at ")
        process.kill()


def test_it_listens_on_loopback_behind_a_token_and_leaves_nothing(
    served: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    process, address = served
    base, token = address.split("?token=")
    assert len(token) >= 32
    found = psutil.Process(process.pid)
    listening = [c.laddr for c in found.net_connections("inet") if c.status == "LISTEN"]
    assert [(a.ip, a.port) for a in listening] == [("127.0.0.1", int(base.split(":")[2].strip("/")))]
    for wrong in (base, f"{base}?token={token[:-1]}"):
        code, where = status(wrong)
        assert (code, "/login?next=" in where) == (200, True)  # which asks for the token
        assert "default-src 'self'" in where
    assert status(f"{base}api/kernels/00000000-0000-0000-0000-000000000000")[0] == 403
    assert status(address, Host="evil.example")[0] == 403
    assert not found.children()  # nobody who may has asked, so no kernel runs
    assert not (tmp_path / "run").exists()
    process.terminate()
    assert process.wait(30) == 0
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["runs"]

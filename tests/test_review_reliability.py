"""Eight reviewers who write at once, and reviewers killed in the middle of a write: all there, once, chain intact."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import server
from reviewing import REVIEW, folder_of

from workbench.catalogue import Catalogue
from workbench.review import Reviewer, begin_review, open_desk

SCRIPT = Path(__file__).with_name("reviewing.py")
PROCESSES, EACH = 8, 250


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    with server() as place:
        yield place


def begun(folder: Path, url: str, traces: int, reviewers: list[str], per_trace: int) -> Catalogue:
    catalogue = Catalogue(folder_of(folder, traces), url or None)
    catalogue.update(flag=lambda _: ())
    people = [*(Reviewer(name) for name in reviewers), Reviewer("eve", may_adjudicate=True)]
    hashes = [entry.hash for entry in catalogue.find()]
    begin_review(catalogue, REVIEW, people, traces=hashes, per_trace=per_trace)
    return catalogue


def acknowledged(lines: list[str]) -> dict[int, str]:
    pairs = [line.split() for line in lines if line != "killed"]
    return {int(number): trace for number, trace in pairs}


def test_eight_processes_write_two_thousand_verdicts_at_once(tmp_path: Path, url: str) -> None:
    names = [f"r{at}" for at in range(PROCESSES)]
    catalogue = begun(tmp_path / "runs", url, EACH, names, per_trace=PROCESSES)
    started = time.perf_counter()
    commands = [[sys.executable, SCRIPT, "submit", catalogue.folder, url, name, str(EACH)] for name in names]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    told = {name: process.communicate(timeout=570)[0] for name, process in zip(names, running, strict=True)}
    assert [process.returncode for process in running] == [0] * PROCESSES
    seconds = time.perf_counter() - started
    desk = open_desk(catalogue, REVIEW, "eve")
    given = desk.verdicts()
    assert len(given) == PROCESSES * EACH == len({each.event for each in given})
    assert Counter(each.reviewer for each in given) == dict.fromkeys(names, EACH)
    assert set(Counter((each.reviewer, each.trace) for each in given).values()) == {1}
    by_event = {each.event: each for each in given}
    for name, lines in told.items():
        for number, trace in acknowledged(lines.splitlines()).items():
            assert (by_event[number].reviewer, by_event[number].trace) == (name, trace)
    assert {event.number for event in desk.events()} == set(range(1, 2 + 2 * PROCESSES * EACH))
    assert desk.verify() == []
    print(f"\n{PROCESSES} processes × {EACH} verdicts, each claimed and given: {seconds:.0f} s")


def test_nothing_acknowledged_is_lost_when_a_writer_is_killed_fifty_times(tmp_path: Path) -> None:
    catalogue = begun(tmp_path / "runs", "", 50 * 40, ["ada"], per_trace=1)
    done = subprocess.run(
        [sys.executable, SCRIPT, "kill", catalogue.folder, "50"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.count("killed") == 50
    promised = acknowledged(lines)
    assert len(promised) >= 50
    desk = open_desk(catalogue, REVIEW, "ada")
    given = {each.event: each.trace for each in desk.verdicts()}
    assert promised.items() <= given.items()
    assert len(given) <= len(promised) + 50  # written, and killed before it could say so
    assert desk.verify() == []
    assert desk.next() is not None
    print(f"\n{len(promised)} verdicts acknowledged by 50 killed writers, {len(given)} there")

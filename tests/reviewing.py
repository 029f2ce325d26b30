"""A small review of written traces, and one reviewer as a process of its own.

``python tests/reviewing.py submit FOLDER URL REVIEWER NUMBER`` gives verdicts on as many traces and prints the number
of each event once it is acknowledged; ``kill FOLDER TIMES`` forks such reviewers and kills each in the middle.
"""

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from written_trace import written_trace

from workbench.catalogue import Catalogue
from workbench.review import Desk, Reviewer, Verdict, begin_review, open_desk
from workbench.trace import Trace
from workbench.trace_file import save_trace

REVIEW = "pilot"


def hinted(serial: int = 0) -> Trace:
    """The answer follows a hint that the chain does not mention; user tokens 3–5, chain 11–13, final 19–20."""
    return written_trace(["so", " 4"], ["5"], prompt=["2+2=?", " hint: 5"], serial=serial)


def folder_of(folder: Path, number: int) -> Path:
    folder.mkdir(exist_ok=True)
    for serial in range(number):
        save_trace(hinted(serial), folder / f"t{serial:04d}.safetensors", durable=False)
    return folder


def small_review(folder: Path, number: int = 3, url: str | None = None, **options: object) -> Catalogue:
    """Begin a review for ada and ben, with eve to adjudicate."""
    catalogue = Catalogue(folder_of(folder, number), url)
    catalogue.update()
    people = [Reviewer("ada"), Reviewer("ben"), Reviewer("eve", may_adjudicate=True)]
    begin_review(catalogue, REVIEW, people, traces=[e.hash for e in catalogue.find()], **options)  # type: ignore[arg-type]
    return catalogue


def verdict_on(desk: Desk, trace: str, severity: int = 2, comment: str = "") -> Verdict:
    """A verdict on a `hinted` trace whose chain was revealed."""
    seen = (desk.evidence(trace, 4, 5), desk.evidence(trace, 19, 20))
    alternative = "the hint may count as an instruction"
    return Verdict("unverbalised_influence", severity, "medium", seen, alternative=alternative, comment=comment)


def give(desk: Desk, trace: str, severity: int = 2, comment: str = "") -> int:
    """Open, reveal and give a verdict."""
    desk.open(trace)
    desk.reveal(trace)
    return desk.submit(trace, verdict_on(desk, trace, severity, comment))


def submit(folder: str, url: str, reviewer: str, number: int) -> None:
    """Give verdicts as fast as can be, each claimed before; print what is acknowledged."""
    desk = open_desk(Catalogue(folder, url or None, timeout=120), REVIEW, reviewer)
    for _ in range(number):
        [trace] = desk.claim()
        seen = (desk.evidence(trace, 4, 5),)
        event = desk.submit(trace, Verdict("hallucinated_content", 1, "low", seen, comment=f"{reviewer} {trace}"))
        os.write(1, f"{event} {trace}\n".encode())


def kill(folder: str, times: int) -> None:
    """Fork a reviewer, wait for its first word, kill it somewhere in the next steps; print what it acknowledged."""
    rng = random.Random(0)
    for _ in range(times):
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(into, 1)
            submit(folder, "", "ada", 40)
            os._exit(0)
        os.close(into)
        select.select([out], [], [], 60)
        time.sleep(rng.random() * 0.04)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(out, "rb") as acknowledged:
            whole = [line for line in acknowledged.read().splitlines(keepends=True) if line.endswith(b"\n")]
        os.write(1, b"".join(whole) + b"killed\n")


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "submit":
        submit(rest[0], rest[1], rest[2], int(rest[3]))
    else:
        kill(rest[0], int(rest[1]))

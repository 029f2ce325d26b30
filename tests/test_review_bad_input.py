"""What a review cannot take: a database held or gone, replaced traces, bad beginnings, paths that lead elsewhere."""

from pathlib import Path

import pytest
from reviewing import REVIEW, hinted, small_review, verdict_on
from sqlalchemy import text

from workbench.catalogue import Catalogue
from workbench.review import KnownAnswer, Reviewer, ReviewError, StoreError, begin_review, open_desk
from workbench.trace import TraceError


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return small_review(tmp_path / "runs")


def test_a_draft_outlives_a_database_that_is_held_or_gone(catalogue: Catalogue) -> None:
    quick = Catalogue(catalogue.folder, timeout=0.1)
    ada = open_desk(quick, REVIEW, "ada")
    trace = str(ada.next())
    ada.reveal(trace)
    ada.save_draft(trace, {"comment": "first"})
    with catalogue.database.writing():
        with pytest.raises(StoreError, match=r"held by another writer for more than 0\.1 s"):
            ada.submit(trace, verdict_on(ada, trace))
        with pytest.raises(StoreError, match="held by another writer"):
            ada.save_draft(trace, {"comment": "second"})
        kept = ada.draft(trace)
        assert kept is not None
        assert (kept.content, kept.saved) == ({"comment": "second"}, None)
    assert ada.save_draft(trace, {"comment": "second"}).saved
    moved = catalogue.folder / "catalogue.sqlite"
    moved.rename(catalogue.folder / "away")
    moved.mkdir()
    with pytest.raises(StoreError, match="unable to open database file"):
        ada.save_draft(trace, {"comment": "third"})
    kept = ada.draft(trace)
    assert kept is not None
    assert kept.content == {"comment": "third"}


def test_a_trace_that_was_replaced_takes_no_verdict(catalogue: Catalogue) -> None:
    ada = open_desk(catalogue, REVIEW, "ada")
    trace = str(ada.next())
    ada.reveal(trace)
    verdict = verdict_on(ada, trace)
    ada.save_draft(trace, {"comment": "mine"})
    hinted(77).save(catalogue.folder / f"{catalogue.entry(trace).name}.safetensors")
    with pytest.raises(StoreError, match="holds something else than when it was taken in: expected"):
        ada.submit(trace, verdict)
    catalogue.update()
    with pytest.raises(StoreError, match="was replaced by another of its name"):
        ada.submit(trace, verdict)
    assert ada.draft(trace) is not None


def test_bad_beginnings_are_named(catalogue: Catalogue) -> None:
    traces = [entry.hash for entry in catalogue.find()]
    people = [Reviewer("ada"), Reviewer("ben")]
    for words, call in (
        ("There is a review 'pilot' already", lambda: begin_review(catalogue, REVIEW, people, traces=traces)),
        ("expected reviewers with different names", lambda: begin_review(catalogue, "x", people * 2, traces=traces)),
        ("expected at least 2 reviewers who do not", lambda: begin_review(catalogue, "x", people[:1], traces=traces)),
        ("expected a name and at least one trace", lambda: begin_review(catalogue, "x", people, traces=[])),
        ("There is no trace 'nothing'", lambda: begin_review(catalogue, "x", people, traces=["nothing"])),
        ("There is no review 'x' here. There are: pilot", lambda: open_desk(catalogue, "x", "ada")),
        (
            r"expected a reviewer of 'pilot' \(ada, ben, eve\), got 'mallory'",
            lambda: open_desk(catalogue, REVIEW, "mallory"),
        ),
    ):
        with pytest.raises(StoreError, match=words):
            call()
    known = {traces[0]: KnownAnswer("none", (3,))}
    with pytest.raises(ReviewError, match="none has no severity 3 in this rubric"):
        begin_review(catalogue, "x", people, traces=traces, calibration=known)
    ada = open_desk(catalogue, REVIEW, "ada")
    with pytest.raises(ReviewError, match="is not assigned to ada"):
        ada.open(traces[0])
    with pytest.raises(ReviewError, match="is not part of the review"):
        ada.open("nothing")


def test_a_path_in_the_catalogue_that_leads_elsewhere_is_refused(catalogue: Catalogue) -> None:
    ada = open_desk(catalogue, REVIEW, "ada")
    trace = str(ada.next())
    with catalogue.database.writing() as connection:
        connection.execute(text("UPDATE traces SET name = '../../etc/x' WHERE hash = :hash"), {"hash": trace})
    with pytest.raises(TraceError, match="without a way to elsewhere"):
        ada.open(trace)

"""A team's review on a PostgreSQL server: the same desk, log and search, and a server that goes away."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import server
from reviewing import REVIEW, give, small_review, verdict_on
from sqlalchemy import text

from workbench.catalogue import Catalogue
from workbench.review import StoreError, open_desk, verify


@pytest.fixture
def url() -> Iterator[str]:
    with server() as place:
        yield place


def test_a_review_from_queue_to_deletion(tmp_path: Path, url: str) -> None:
    catalogue = small_review(tmp_path / "runs", 3, url)
    assert not (catalogue.folder / "catalogue.sqlite").exists()
    ada, ben, eve = (open_desk(catalogue, REVIEW, name) for name in ("ada", "ben", "eve"))
    trace, other, _ = ada.claim(3)
    assert (len(ben.claim(9)), ada.claim(), eve.claim()) == (3, (), ())
    ada.save_draft(trace, {"comment": "naïve \0 \ud800"})
    kept = open_desk(catalogue, REVIEW, "ada").draft(trace)
    assert kept is not None
    assert kept.content == {"comment": "naïve \0 \ud800"}
    assert ([hit.channel for hit in ada.search("hint")], ada.search("so")) == (["user"] * 3, [])
    first = give(ada, trace, 1, "naïve \0 \ud800")
    assert (ada.summary().done, ada.summary().drafts, ben.verdicts()) == (1, 0, [])
    give(ben, trace, 3)
    give(ben, other)
    ben.skip(ben.queue()[2].trace, "tired")
    assert [item.state for item in ben.queue()] == ["done", "done", "skipped"]
    shown = ben.verdicts(trace)[0]
    assert (shown.reviewer, shown.verdict.comment) == ("ada", "naïve \0 \ud800")
    assert eve.disagreements() == [trace]
    eve.reveal(trace)
    eve.adjudicate(trace, verdict_on(eve, trace))
    assert eve.disagreements() == []
    known = eve.head()
    eve.redact(first, ["comment"], "a name")
    eve.delete_trace(other, "asked to")
    assert verify(catalogue, known) == []
    assert [each.verdict.comment for each in ada.verdicts(trace)] == ["[redacted]", "", ""]
    assert len(catalogue.find(reviewer="ben")) == 2
    with catalogue.database.writing() as connection:
        connection.execute(
            text("UPDATE event_texts SET text = '\"x\"' WHERE place = 'alternative' AND text IS NOT NULL")
        )
    assert f"text 'alternative' of event {first} was changed" in verify(catalogue)


def test_a_server_that_goes_away_is_named_and_the_draft_is_kept(tmp_path: Path) -> None:
    with server() as url:
        catalogue = small_review(tmp_path / "runs", 1, url)
        held = Catalogue(catalogue.folder, url, timeout=0.3)
        ada = open_desk(held, REVIEW, "ada")
        trace = str(ada.next())
        ada.reveal(trace)
        with (
            catalogue.database.writing(),
            pytest.raises(StoreError, match=r"held by another writer for more than 0\.3 s"),
        ):
            ada.submit(trace, verdict_on(ada, trace))
        verdict = verdict_on(ada, trace)
    with pytest.raises(StoreError, match=r"could not (read|write): .* and try again\.$"):
        ada.submit(trace, verdict)
    with pytest.raises(StoreError, match=r"could not write: .*Nothing of this step was stored"):
        ada.save_draft(trace, {"comment": "mine"})
    kept = ada.draft(trace)
    assert kept is not None
    assert (kept.content, kept.saved) == ({"comment": "mine"}, None)

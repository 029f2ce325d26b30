"""The log: what was changed, cut, made up or taken out is found; redaction and deletion leave it whole."""

import json
from pathlib import Path

import pytest
from reviewing import REVIEW, give, hinted, small_review
from sqlalchemy import text

from workbench.catalogue import Catalogue
from workbench.review import Desk, Head, Reviewer, ReviewError, StoreError, begin_review, open_desk, verify
from workbench.review.log import append


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = small_review(tmp_path / "runs")
    for name in ("ada", "ben"):
        desk = open_desk(catalogue, REVIEW, name)
        for trace in desk.claim(2):
            give(desk, trace, 2, f"{name} was here")
    return catalogue


def chief(catalogue: Catalogue) -> Desk:
    return open_desk(catalogue, REVIEW, "eve")


def tamper(catalogue: Catalogue, statement: str) -> list[str]:
    with catalogue.database.writing() as connection:
        assert connection.execute(text(statement)).rowcount > 0
    return verify(catalogue)


def test_an_untouched_log_is_whole(catalogue: Catalogue) -> None:
    desk = chief(catalogue)
    assert desk.verify() == []
    assert desk.head().number == 1 + 2 * (2 + 3 * 2)
    assert [event.number for event in desk.events()] == list(range(1, 18))
    assert desk.verify(desk.head()) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "UPDATE events SET payload = replace(payload, '\"severity\": 2', '\"severity\": 0')",
            "event 6 (verdict) was changed",
        ),
        ("UPDATE events SET reviewer = 'ben' WHERE number = 6", "event 6 (verdict) was changed"),
        ("UPDATE events SET time = '2020' WHERE number = 4", "event 4 (opened) was changed"),
        ("UPDATE events SET payload = '?' WHERE number = 6", "event 6 cannot be read"),
        ("DELETE FROM events WHERE number = 6", "events 6 to 6 are missing"),
        ("DELETE FROM events WHERE number = 1", "events 1 to 1 are missing"),
        ("DELETE FROM events WHERE number = 1", "table review_items: review pilot"),
        (
            "UPDATE event_texts SET text = '\"kind words\"' WHERE place = 'comment'",
            "text 'comment' of event 6 was changed",
        ),
        ("UPDATE event_texts SET salt = 'x' WHERE event = 6", "text 'comment' of event 6 was changed"),
        (
            "UPDATE event_texts SET text = NULL WHERE event = 6",
            "text 'comment' of event 6 is gone without a redaction",
        ),
        ("DELETE FROM event_texts WHERE event = 6", "text 'comment' of event 6 is gone without a redaction"),
        (
            "INSERT INTO event_texts VALUES (6, 'more', 'x', '\"y\"')",
            "a text 'more' of event 6 that no event speaks of",
        ),
        ("UPDATE review_work SET verdict = 4", "table review_work: review pilot, trace"),
        ("DELETE FROM review_work WHERE reviewer = 'ben'", "is missing"),
        ("UPDATE review_people SET may_adjudicate = 1", "may_adjudicate True is not what the log says"),
        ("UPDATE review_items SET slots = 1", "slots 1, calibration False, settled None is not what the log says"),
        ("INSERT INTO review_reveals VALUES ('pilot', 'x', 'ada')", "review pilot, trace x, reviewer ada"),
    ],
)
def test_tampering_is_found(catalogue: Catalogue, statement: str, found: str) -> None:
    problems = tamper(catalogue, statement)
    assert any(found in problem for problem in problems), problems


def test_a_log_cut_at_its_end_or_written_anew_differs_from_a_head_kept_elsewhere(catalogue: Catalogue) -> None:
    known = chief(catalogue).head()
    assert tamper(catalogue, f"DELETE FROM events WHERE number = {known.number}") != []  # its texts are left over
    tamper(catalogue, f"DELETE FROM event_texts WHERE event = {known.number}")
    last = "SELECT max(verdict) FROM review_work"
    tamper(catalogue, f"UPDATE review_work SET state = 'assigned', verdict = NULL WHERE verdict IN ({last})")
    assert chief(catalogue).verify() == []
    shorter = f"the log ends with event {known.number - 1}; {known.number} were known"
    assert chief(catalogue).verify(known) == [shorter]
    with catalogue.database.writing() as connection:
        append(connection, "verdict", review="another", reviewer="mallory")
    assert chief(catalogue).verify(known) == [f"event {known.number} is not the one that was known"]
    assert chief(catalogue).verify(Head(3, "0")) == ["event 3 is not the one that was known"]


def test_a_redacted_text_is_gone_and_the_log_whole(catalogue: Catalogue) -> None:
    desk = chief(catalogue)
    before = desk.head()
    given = desk.verdicts()[0]
    assert given.verdict.comment == "[hidden until you reveal the chain]"
    desk.redact(given.event, ["comment", "evidence/0"], "names a person")
    assert desk.verify(before) == []
    desk.reveal(given.trace)
    after = desk.verdicts()[0].verdict
    assert (after.comment, after.evidence[0].text, after.evidence[1].text) == ("[redacted]", "[redacted]", "5")
    redaction = desk.events(given.trace)[-2]
    assert (redaction.kind, redaction.reviewer) == ("text redacted", "eve")
    assert (redaction.payload, redaction.texts) == (
        {"event": given.event, "places": ["comment", "evidence/0"]},
        {"reason": "names a person"},
    )
    raw = (catalogue.folder / "catalogue.sqlite").read_bytes()
    assert b"ben was here" in raw
    for places, reason, words in (
        (["diary"], "x", f"event {given.event} has no text diary that can be redacted"),
        ([], "x", "has no text named that can be redacted"),
        (["comment"], " ", "expected a reason, got none"),
    ):
        with pytest.raises(ReviewError, match=words):
            desk.redact(given.event, places, reason)
    with pytest.raises(ReviewError, match="event 1 has no text rubric"):
        desk.redact(1, ["rubric"], "x")


def test_a_deleted_trace_leaves_a_tombstone_and_the_log_whole(catalogue: Catalogue) -> None:
    desk, ada = chief(catalogue), open_desk(catalogue, REVIEW, "ada")
    before = desk.head()
    trace = desk.verdicts()[0].trace
    name = catalogue.entry(trace).name
    copy = (catalogue.folder / f"{name}.safetensors").read_bytes()
    ada.save_draft(trace, {"comment": "still thinking"})
    with pytest.raises(ReviewError, match="ada may not delete a trace"):
        ada.delete_trace(trace, "x")
    desk.delete_trace(trace, "the person asked for it")
    assert desk.verify(before) == []
    assert not (catalogue.folder / f"{name}.safetensors").exists()
    entry = catalogue.entry(trace)
    assert (entry.name, entry.question, bool(entry.deleted)) == (None, "", True)
    assert trace not in {hit.trace for hit in catalogue.search("hint")}
    assert (ada.draft(trace), trace in [item.trace for item in ada.queue()]) == (None, False)
    desk_verdicts = [each.verdict for each in desk.verdicts(trace)]
    assert [(v.severity, v.evidence[0].text) for v in desk_verdicts] == [(2, "[redacted]")] * 2
    for path in catalogue.folder.glob("catalogue.sqlite*"):
        assert b"still thinking" not in path.read_bytes() or path.suffix == ".sqlite-wal"
    with pytest.raises(StoreError, match=rf"^The trace {trace[:12]} was deleted on 20.*, so it cannot be opened"):
        ada.transcript(trace)
    (catalogue.folder / f"{name}.safetensors").write_bytes(copy)  # from a backup
    assert catalogue.update() == ()
    assert catalogue.entry(trace).name is None


def test_only_who_adjudicates_in_every_review_of_a_trace_deletes_it(catalogue: Catalogue) -> None:
    first, second, third = (entry.hash for entry in catalogue.find())
    zoe = Reviewer("zoe", may_adjudicate=True)
    eve = Reviewer("eve", may_adjudicate=True)
    readers = [Reviewer("ada"), Reviewer("ben")]
    begin_review(catalogue, "apart", [zoe, Reviewer("ada"), Reviewer("eve")], traces=[first])
    begin_review(catalogue, "both", [*readers, zoe, eve], traces=[first, second])
    begin_review(catalogue, "later", [*readers, zoe], traces=[second])
    extra = catalogue.folder / "extra.safetensors"
    hinted(99).save(extra)
    catalogue.update()
    [foreign] = {entry.hash for entry in catalogue.find()} - {first, second, third}
    begin_review(catalogue, "other", [*readers, eve], traces=[foreign])
    desk = chief(catalogue)
    before = desk.events()
    for trace, words in [
        (foreign, f"The trace {foreign[:12]} is not part of the review 'pilot'."),
        (first, "is also part of 'apart', where eve may not adjudicate, and would be gone there too. Someone who"),
        (second, "is also part of 'later', where eve may not adjudicate"),
    ]:
        with pytest.raises(ReviewError) as error:
            desk.delete_trace(trace, "asked to")
        assert words in str(error.value)
        assert catalogue.entry(trace).name is not None
    assert extra.exists()
    assert desk.events() == before
    open_desk(catalogue, "other", "eve").delete_trace(foreign, "asked to")
    assert not extra.exists()
    begin_review(catalogue, "again", [*readers, eve], traces=[third])
    desk.delete_trace(third, "asked to")
    assert (catalogue.entry(third).name, desk.verify()) == (None, [])


def test_the_events_of_a_review_say_what_was_done(catalogue: Catalogue) -> None:
    desk = chief(catalogue)
    [exported] = [desk.exported("csv")]
    last = desk.events()[-1]
    assert (last.kind, last.payload) == ("exported", {"format": "csv", "verdicts": 4, "chain": False})
    assert exported.head == desk.head()
    with pytest.raises(ReviewError, match="ada may not export raw chains"):
        open_desk(catalogue, REVIEW, "ada").exported("csv", chain=True)
    first = desk.events()[0]
    assert first.kind == "review begun"
    assert json.loads(json.dumps(first.payload))["rubric"]["name"] == "reasoning"

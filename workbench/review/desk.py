"""A reviewer's desk: all that one person may see and do in a review."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, select

from workbench.catalogue import Catalogue, Hit
from workbench.database import Database
from workbench.review import drafts, log, reading, state
from workbench.review.beginning import begun_with, make_tables
from workbench.review.clock import Clock
from workbench.review.drafts import Draft
from workbench.review.errors import ReviewError
from workbench.review.log import Event, Head, append
from workbench.review.queue import QueueItem, Summary, claim, queue, summary
from workbench.review.reading import CalibrationScore, Exported, Given
from workbench.review.state import PEOPLE, REVEALS, WORK, apply
from workbench.review.transcript import TranscriptMessage, transcript
from workbench.review.verdict import HIDDEN_CHANNELS, Evidence, Verdict, check, evidence, has_chain
from workbench.review.verifying import verify
from workbench.trace import Trace

__all__ = ["Desk", "open_desk"]


def open_desk(catalogue: Catalogue, review: str, reviewer: str) -> "Desk":
    """Open a review as one of its reviewers.

    Raises:
        ReviewError: no such review, or someone who takes no part in it.
    """
    return Desk(catalogue, review, reviewer)


class Desk:
    """What one reviewer sees and does. Each change is one event of the log, on the disk when the call returns.

    In a blind review nothing here shows another's verdict on a trace before all its verdicts are in, and nothing
    shows the raw chain of thought of a trace before this reviewer revealed it, except `trace`, which refuses.

    Args:
        catalogue: of the traces.
        review: its name.
        reviewer: who sits at the desk.

    Attributes:
        rubric: as it was when the review began.
    """

    def __init__(self, catalogue: Catalogue, review: str, reviewer: str) -> None:
        """Look up the review and the person."""
        make_tables(catalogue)
        self.catalogue, self.review, self.reviewer = catalogue, review, reviewer
        with catalogue.database.reading() as connection:
            self._begun, self.rubric = begun_with(connection, review)
            people = connection.execute(select(PEOPLE).where(PEOPLE.c.review == review)).all()
        self._people = {person.name: bool(person.may_adjudicate) for person in people}
        if reviewer not in self._people:
            raise ReviewError(f"expected a reviewer of {review!r} ({', '.join(self._people)}), got {reviewer!r}")
        self._clock = Clock()
        self._unsaved: dict[str, Draft] = {}

    @property
    def may_adjudicate(self) -> bool:
        """Whether this person settles disagreements, redacts and deletes."""
        return self._people[self.reviewer]

    @property
    def blind(self) -> bool:
        """Whether verdicts of others hide until all of a trace are in."""
        return bool(self._begun.payload["blind"])

    def __repr__(self) -> str:
        """Name the review and the person."""
        return f"<Desk of {self.reviewer} in the review {self.review}>"

    # --- the queue -----------------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Return what is assigned, done, drafted and skipped."""
        with self._database.reading() as connection:
            return summary(connection, self._begun, self.reviewer, self.may_adjudicate)

    def queue(self, start: int = 0, limit: int = 50, *, order: str = "signals") -> list[QueueItem]:
        """Return a page of the traces that are assigned to this reviewer.

        Args:
            start: how many to leave out first.
            limit: how many at most.
            order: signals (most first), name, or time (of capture).

        Raises:
            ReviewError: an unknown order.
        """
        with self._database.reading() as connection:
            items = queue(connection, self.review, self.reviewer, start, limit, order)
            return [item.with_signals(self.catalogue.flags_in(connection, item.trace)) for item in items]

    def claim(self, number: int = 1) -> tuple[str, ...]:
        """Take the next traces of the review that lack a reviewer; return their hashes, none where nothing is left.

        Two reviewers never take the same slot of a trace, and nobody takes a trace twice.
        """
        with self._database.writing() as connection:
            taken = claim(connection, self.review, self.reviewer, self.may_adjudicate, number)
            for trace in taken:
                self._add(connection, "assigned", trace)
                self.catalogue.label(connection, trace, "reviewer", self.reviewer)
        return taken

    def next(self) -> str | None:
        """Return the first trace to work on: an assigned one, else a newly claimed one; None where nothing is left."""
        with self._database.reading() as connection:
            trace = queue(connection, self.review, self.reviewer, 0, 1, "signals", "assigned")
        if trace:
            return trace[0].trace
        claimed = self.claim()
        return claimed[0] if claimed else None

    # --- reading a trace -----------------------------------------------------------------------------------------

    def open(self, trace: str) -> tuple[TranscriptMessage, ...]:
        """Open an assigned trace: its time starts to count. Returns its `transcript`.

        Raises:
            ReviewError: the trace is not assigned to this reviewer.
            StoreError: the trace was deleted or replaced.
        """
        shown = self.transcript(trace)
        kept = self.draft(trace)
        with self._database.writing() as connection:
            self._add(connection, "opened", trace)
        self._clock.start(trace, kept.seconds if kept else 0.0)
        return shown

    def transcript(self, trace: str) -> tuple[TranscriptMessage, ...]:
        """Return the messages of a trace with their tokens; those of an unrevealed chain have none."""
        return transcript(self._open(trace), self.revealed(trace))

    def reveal(self, trace: str) -> tuple[TranscriptMessage, ...]:
        """Reveal the raw chain of thought of a trace to this reviewer, which is recorded; return its transcript."""
        self._open(trace)
        with self._database.writing() as connection:
            if not state.is_revealed(connection, self._key(trace)):
                self._add(connection, "revealed", trace)
        return self.transcript(trace)

    def revealed(self, trace: str) -> bool:
        """Say whether this reviewer has revealed the raw chain of a trace."""
        with self._database.reading() as connection:
            return state.is_revealed(connection, self._key(trace))

    def trace(self, trace: str) -> Trace:
        """Return the whole trace, for views of its internals. Raises `ReviewError` as long as its chain is hidden."""
        found = self._open(trace)
        if has_chain(found) and not self.revealed(trace):
            raise ReviewError("The raw chain of thought of this trace is hidden. Reveal it first; that is recorded.")
        return found

    def evidence(self, trace: str, start: int, stop: int) -> Evidence:
        """Take the tokens ``[start, stop)`` of one message as evidence, with their text.

        Raises:
            ReviewError: tokens of several messages or of none, or of the hidden chain.
        """
        found = evidence(self._open(trace), start, stop)
        if found.channel in HIDDEN_CHANNELS and not self.revealed(trace):
            raise ReviewError("Evidence from the raw chain of thought waits until you reveal it.")
        return found

    def search(self, words: str) -> list[Hit]:
        """Return where all the words stand in the traces assigned to this reviewer, hidden chains left out."""
        with self._database.reading() as connection:
            mine = (WORK.c.review == self.review) & (WORK.c.reviewer == self.reviewer)
            assigned = set(connection.execute(select(WORK.c.trace).where(mine)).scalars())
            own = (REVEALS.c.review == self.review) & (REVEALS.c.reviewer == self.reviewer)
            open_ = set(connection.execute(select(REVEALS.c.trace).where(own)).scalars())
        hits = (hit for hit in self.catalogue.search(words) if hit.trace in assigned)
        return [hit for hit in hits if hit.trace in open_ or hit.channel not in HIDDEN_CHANNELS]

    # --- verdicts ------------------------------------------------------------------------------------------------

    def save_draft(self, trace: str, content: Mapping[str, Any]) -> Draft:
        """Keep an unfinished verdict, whatever it holds. Raises `StoreError` and keeps it in memory where it must."""
        self._unsaved[trace] = Draft(content, self._clock.spent(trace), None)
        with self._database.writing() as connection:
            self._work(connection, trace)
            saved = drafts.save(connection, self._key(trace), content, self._unsaved[trace].seconds)
        del self._unsaved[trace]
        return saved

    def draft(self, trace: str) -> Draft | None:
        """Return the unfinished verdict on a trace; None where there is none."""
        if trace in self._unsaved:
            return self._unsaved[trace]
        with self._database.reading() as connection:
            return drafts.load(connection, self._key(trace))

    def submit(self, trace: str, verdict: Verdict) -> int:
        """Give a verdict; return the number of its event. A later one takes its place until all of a trace are in.

        Raises:
            ReviewError: not assigned, closed, or what is wrong with the verdict; nothing is stored, the draft stays.
            StoreError: the trace was deleted or replaced, or the database fails; likewise.
        """
        found = self._open(trace)
        spent = self._clock.spent(trace)
        with self._database.writing() as connection:
            mine = self._work(connection, trace)
            if mine == "skipped":
                raise ReviewError("You skipped this trace, so it takes no verdict of yours.")
            if mine == "done" and state.is_complete(connection, self.review, trace):
                raise ReviewError("All verdicts on this trace are in, so none of them changes. Ask for adjudication.")
            check(verdict, self.rubric, found, revealed=state.is_revealed(connection, self._key(trace)))
            told = {**verdict.payload(), "seconds": round(spent, 3)}
            number = self._add(connection, "verdict", trace, told, verdict.texts()).number
            drafts.drop(connection, **self._key(trace))
        self._clock.stop()
        self._unsaved.pop(trace, None)
        return number

    def skip(self, trace: str, reason: str) -> None:
        """Give a trace back, so that another takes it. Raises `ReviewError` without a reason, or once it is done."""
        if not reason.strip():
            raise ReviewError("expected a reason to skip this trace, got none")
        with self._database.writing() as connection:
            if self._work(connection, trace) != "assigned":
                raise ReviewError("This trace has your verdict, or was skipped, so it cannot be skipped.")
            self._add(connection, "skipped", trace, texts={"reason": reason})
            drafts.drop(connection, **self._key(trace))
        self._clock.stop()

    def verdicts(self, trace: str | None = None) -> list[Given]:
        """Return the verdicts this reviewer may see: the own ones, and others' once all of a trace are in.

        Texts of others that may quote the chain hide until this reviewer has revealed it.
        """
        with self._database.reading() as connection:
            return reading.visible(connection, self.review, self.reviewer, self.blind, trace)

    def calibration(self) -> list[CalibrationScore]:
        """Return how the verdicts on calibration traces compare with the known answers, once all on a trace are in."""
        with self._database.reading() as connection:
            known = self._calibration(connection)
        return reading.calibration([given for given in self.verdicts() if given.trace in known], known)

    def disagreements(self) -> list[str]:
        """Return the traces whose verdicts are in and differ, and that nobody has settled."""
        with self._database.reading() as connection:
            return reading.disagreements(connection, self.review)

    def adjudicate(self, trace: str, verdict: Verdict) -> int:
        """Settle a trace whose verdicts differ; return the number of the event.

        Raises:
            ReviewError: someone who may not, or who gave one of the verdicts; nothing to settle; a wrong verdict.
        """
        self._check_adjudicator("settle disagreements")
        found = self._open(trace)
        with self._database.writing() as connection:
            if trace not in reading.disagreements(connection, self.review):
                raise ReviewError("There is nothing to settle here: verdicts agree, are not all in, or are settled.")
            if connection.execute(
                select(WORK.c.verdict).where(*self._mine(trace), WORK.c.verdict.is_not(None))
            ).first():
                raise ReviewError("This trace was assigned to you, so another must settle it.")
            check(verdict, self.rubric, found, revealed=state.is_revealed(connection, self._key(trace)))
            told = {**verdict.payload(), "seconds": round(self._clock.spent(trace), 3)}
            return self._add(connection, "adjudicated", trace, told, verdict.texts()).number

    # --- the log -------------------------------------------------------------------------------------------------

    def events(self, trace: str | None = None) -> list[Event]:
        """Return the events of this review that this reviewer may see, without known answers and hidden texts."""
        with self._database.reading() as connection:
            return reading.visible_events(connection, self.review, self.reviewer, self.blind, trace)

    def verify(self, known: Head | None = None) -> list[str]:
        """Return what is wrong with the log; see `workbench.review.verify`."""
        return verify(self.catalogue, known)

    def head(self) -> Head:
        """Return where the log stands, to be kept elsewhere."""
        with self._database.reading() as connection:
            return log.head(connection)

    def redact(self, event: int, places: list[str], reason: str) -> None:
        """Take texts of an event out for good; that it was done, by whom and why, stays.

        Raises:
            ReviewError: someone who may not adjudicate, no reason, or no such text.
        """
        self._check_adjudicator("redact")
        self._check_reason(reason)
        with self._database.writing() as connection:
            found = next(log.events(connection, number=event, review=self.review), None)
            wrong = [place for place in places if found is None or place not in found.texts or place == "rubric"]
            if wrong or not places or found is None:
                raise ReviewError(f"event {event} has no text {', '.join(wrong) or 'named'} that can be redacted")
            about = {"review": self.review, "trace": found.trace}
            log.redact(connection, event, places, reviewer=self.reviewer, reason=reason, **about)

    def delete_trace(self, trace: str, reason: str) -> None:
        """Delete a trace: its file, its words in the catalogue, and every text about it in the log of every review.

        What stays is a tombstone: its hash, the verdicts without their words, and this event. Copies and backups
        are not reached.

        Raises:
            ReviewError: someone who may not adjudicate in every review that has the trace, a trace that this review
                has not, or no reason.
        """
        self._check_adjudicator("delete a trace")
        self._check_reason(reason)
        self.catalogue.entry(trace)
        with self._database.writing() as connection:
            state.check_deletable(connection, **self._key(trace))
            about: dict[str, Any] = {"review": self.review, "trace": trace}
            for event in list(log.events(connection, trace=trace)):
                places = [
                    place for place, text in event.texts.items() if text is not None and event.kind != log.REDACTION
                ]
                if places:
                    log.redact(connection, event.number, places, reviewer=self.reviewer, reason=reason, **about)
            append(connection, "trace deleted", reviewer=self.reviewer, texts={"reason": reason}, **about)
            drafts.drop(connection, trace=trace)
            name = self.catalogue.forget(connection, trace)
        if name is not None:
            self.catalogue.path(name).unlink(missing_ok=True)

    def exported(self, what: str, *, chain: bool = False) -> Exported:
        """Record that what this reviewer may see leaves the desk, and return it; the exports call this.

        Args:
            what: the format.
            chain: with raw chains of thought and what quotes them, revealed or not.

        Raises:
            ReviewError: chains for someone who may not adjudicate.
        """
        if chain:
            self._check_adjudicator("export raw chains")
        with self._database.writing() as connection:
            given = reading.visible(connection, self.review, self.reviewer, self.blind, everything=chain)
            self._add(connection, "exported", None, {"format": what, "verdicts": len(given), "chain": chain})
            return Exported(tuple(given), frozenset(self._calibration(connection)), log.head(connection), chain)

    # --- within --------------------------------------------------------------------------------------------------

    @property
    def _database(self) -> Database:
        return self.catalogue.database

    def _key(self, trace: str) -> dict[str, str]:
        return {"review": self.review, "trace": trace, "reviewer": self.reviewer}

    def _mine(self, trace: str) -> Iterator[Any]:
        return (WORK.c[name] == value for name, value in self._key(trace).items())

    def _add(
        self,
        connection: Connection,
        kind: str,
        trace: str | None,
        payload: Mapping[str, Any] | None = None,
        texts: Mapping[str, str] | None = None,
    ) -> Event:
        event = append(
            connection, kind, review=self.review, reviewer=self.reviewer, trace=trace, payload=payload, texts=texts
        )
        apply(connection, event)
        return event

    def _work(self, connection: Connection, trace: str) -> str:
        state_ = connection.execute(select(WORK.c.state).where(*self._mine(trace))).scalar_one_or_none()
        if state_ is None:
            raise ReviewError(f"The trace {trace[:12]} is not assigned to {self.reviewer}. Take traces with claim().")
        return str(state_)

    def _open(self, trace: str) -> Trace:
        with self._database.reading() as connection:
            state.check_item(connection, self.review, trace)
            if not self.may_adjudicate:
                self._work(connection, trace)
        return self.catalogue.open(trace)

    def _calibration(self, connection: Connection) -> dict[str, Any]:
        """Return the known answers that are no secret any more."""
        open_ = reading.complete_traces(connection, self.review)
        return {trace: answer for trace, answer in self._begun.payload["calibration"].items() if trace in open_}

    def _check_adjudicator(self, what: str) -> None:
        if not self.may_adjudicate:
            raise ReviewError(f"{self.reviewer} may not {what} in this review; that is for those who adjudicate.")

    def _check_reason(self, reason: str) -> None:
        if not reason.strip():
            raise ReviewError("expected a reason, got none")

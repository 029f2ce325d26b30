"""How a review begins: people, rubric, traces in their order, calibration traces."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from workbench.catalogue import Catalogue
from workbench.review import drafts, log, state
from workbench.review.errors import ReviewError
from workbench.review.log import append, events
from workbench.review.rubric import Rubric, checked_rubric, default_rubric

__all__ = ["KnownAnswer", "Reviewer", "begin_review", "reviewers", "reviews"]


@dataclass(frozen=True)
class Reviewer:
    """Someone who takes part. Names are stated, not proven: who may write to the database may write any name."""

    name: str
    may_adjudicate: bool = False
    """settles what the others disagree on, redacts and deletes"""


@dataclass(frozen=True)
class KnownAnswer:
    """What is true of a calibration trace."""

    behaviour: str
    severities: tuple[int, ...] = ()
    """that are right; empty: any"""


def make_tables(catalogue: Catalogue) -> None:
    """Make the tables of reviews in the catalogue's database, where they are not there yet."""
    for metadata in (log.METADATA, state.METADATA, drafts.METADATA):
        catalogue.make_tables(metadata)


def begin_review(
    catalogue: Catalogue,
    name: str,
    reviewers: Iterable[Reviewer],
    *,
    traces: Sequence[str],
    rubric: Rubric | None = None,
    per_trace: int = 2,
    blind: bool = True,
    calibration: Mapping[str, KnownAnswer] | None = None,
) -> None:
    """Begin a review. What is given here does not change later.

    Args:
        catalogue: of the traces.
        name: of the review, used by no other in this database.
        reviewers: who takes part; `Reviewer.may_adjudicate` says who settles disagreements.
        traces: their hashes, as `Catalogue.find` gives them. Those with more signals come first.
        rubric: default: `default_rubric`. The review keeps it as it is now.
        per_trace: how many verdicts each trace gets.
        blind: nobody sees another's verdict on a trace before all its verdicts are in.
        calibration: traces with known answers, mixed in with the others; everyone who only reviews gets them all.

    Raises:
        ReviewError: a name that is taken, too few reviewers, no traces, or an answer the rubric does not have.
        StoreError: a trace that is not in the catalogue.
    """
    people, known = list(reviewers), dict(calibration or {})
    kept = rubric or default_rubric()
    readers = _check_people(people, per_trace, blind)
    for answer in known.values():
        if wrong := set(answer.severities) - set(kept[answer.behaviour].severities):
            raise ReviewError(f"{answer.behaviour} has no severity {min(wrong)} in this rubric")
    wanted = list(dict.fromkeys([*traces, *known]))
    if not wanted or not name.strip():
        raise ReviewError("expected a name and at least one trace; Catalogue.find() gives traces")
    make_tables(catalogue)
    counted = catalogue.flag_counts(wanted)
    wanted.sort(key=lambda trace: (-counted[trace], trace))
    payload = {
        "blind": blind,
        "per_trace": per_trace,
        "readers": readers,
        "people": [{"name": p.name, "may_adjudicate": p.may_adjudicate} for p in people],
        "traces": wanted,
        "calibration": {t: {"behaviour": a.behaviour, "severities": list(a.severities)} for t, a in known.items()},
        "rubric": {"name": kept.name, "version": kept.version, "hash": kept.hash},
    }
    with catalogue.database.writing() as connection:
        if name in reviews_in(connection):
            raise ReviewError(f"There is a review {name!r} already. Open it with open_desk, or choose another name.")
        state.apply(
            connection, append(connection, "review begun", review=name, payload=payload, texts={"rubric": kept.source})
        )


def _check_people(people: Sequence[Reviewer], per_trace: int, blind: bool) -> int:
    names = [person.name for person in people]
    if len(set(names)) < len(names) or not all(name.strip() and len(name) <= 200 for name in names):
        raise ReviewError("expected reviewers with different names of 1 to 200 characters")
    readers = sum(not person.may_adjudicate for person in people)
    if per_trace < 1 or readers < per_trace:
        raise ReviewError(
            f"expected at least {max(per_trace, 1)} reviewers who do not adjudicate, for as many verdicts on each "
            f"trace; got {readers}"
        )
    return readers


def reviews(catalogue: Catalogue) -> tuple[str, ...]:
    """Return the names of the reviews in a catalogue's database, in the order they began."""
    make_tables(catalogue)
    with catalogue.database.reading() as connection:
        return reviews_in(connection)


def reviewers(catalogue: Catalogue, review: str) -> tuple[Reviewer, ...]:
    """Return who takes part in a review, in the order they were named. Raises `ReviewError` for no such review."""
    make_tables(catalogue)
    with catalogue.database.reading() as connection:
        begun, _ = begun_with(connection, review)
    return tuple(Reviewer(str(each["name"]), bool(each["may_adjudicate"])) for each in begun.payload["people"])


def reviews_in(connection: Connection) -> tuple[str, ...]:
    """Return the names of the reviews, in the order they began."""
    return tuple(connection.execute(select(state.REVIEWS.c.name).order_by(state.REVIEWS.c.begun)).scalars())


def begun_with(connection: Connection, review: str) -> tuple[log.Event, Rubric]:
    """Return the event a review began with, and its rubric as it was then."""
    found = next(events(connection, kind="review begun", review=review), None)
    if found is None and review in reviews_in(connection):
        raise ReviewError(f"The log lacks the beginning of the review {review!r}; verify() says what else is wrong.")
    if found is None:
        known = ", ".join(reviews_in(connection)) or "none"
        raise ReviewError(f"There is no review {review!r} here. There are: {known}.")
    return found, checked_rubric(str(found.texts["rubric"]))

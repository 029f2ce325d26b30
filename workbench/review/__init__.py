"""The review desk without its screen: queue, evidence, verdicts, an unbroken log, agreement, exports.

A review is begun once, by whoever runs it::

    catalogue = Catalogue("runs")                     # or Catalogue("runs", "postgresql://user@host/name")
    catalogue.update(prompt_set="sums")               # takes new traces in; idempotent
    begin_review(catalogue, "pilot", [Reviewer("ada"), Reviewer("ben"), Reviewer("eve", may_adjudicate=True)],
                 traces=[entry.hash for entry in catalogue.find(effort="high")],
                 calibration={known: KnownAnswer("none")})

and worked on by each reviewer at a desk, which shows only what that person may see::

    desk = open_desk(catalogue, "pilot", "ada")
    desk.summary(), desk.queue(0, 50)                 # counts; a page of what is assigned, with visible signals
    trace = desk.next()                               # hash of an assigned or newly claimed trace; None: all done
    desk.open(trace)                                  # messages with tokens; the chain hides; starts the clock
    desk.reveal(trace)                                # recorded; the same messages, the chain with its tokens
    desk.trace(trace)                                 # the whole Trace, once its chain is revealed: router, attention
    seen = desk.evidence(trace, 30, 35)               # tokens of one message, verbatim
    desk.save_draft(trace, {...}), desk.draft(trace)  # any JSON; kept over restarts
    desk.submit(trace, Verdict("unverbalised_influence", 2, "medium", (seen,), alternative="…"))
    desk.skip(trace, "not in a language I read")
    desk.search("hint"), desk.verdicts(), desk.events(trace), desk.calibration(), desk.verify()
    desk.disagreements(), desk.adjudicate(trace, verdict)                 # who may adjudicate
    desk.redact(event, ["comment"], "a name"), desk.delete_trace(trace, "asked to")

What is to leave the desk, or to be counted, has modules of its own, which load more::

    from workbench.review.agreement import item_agreement, span_agreement, signal_quality
    from workbench.review.exports import write_csv, write_jsonl, write_log           # write_log: Inspect's .eval
    from workbench.review.report import write_report                                 # a page that stands alone
    item_agreement(desk.verdicts(), desk.rubric); write_report(desk, "pilot.html")

Traces are named by the SHA-256 of their file. Every call is a step of its own in the database, so several desks work
at once, in several kernels, and a restarted kernel opens its desk again. All errors are `ReviewError` (what was given
is wrong, or may not be seen) or its base `StoreError` (the database, a deleted or replaced trace), with texts for the
person at the desk; a draft outlives all of them. `desk.save_draft` keeps the draft in memory where the database fails.

A verdict is the gravest behaviour that a trace shows; a trace has at most one from each reviewer. Names are stated,
not proven: whoever can write to the database can write any name, or read everything. The log shows changes and gaps;
that all of it was written anew shows only against a `Head` kept elsewhere, as every export has one.
"""

from workbench.database import StoreError
from workbench.review.beginning import KnownAnswer, Reviewer, begin_review, reviewers, reviews
from workbench.review.desk import Desk, open_desk
from workbench.review.drafts import Draft
from workbench.review.errors import ReviewError
from workbench.review.log import Event, Head
from workbench.review.queue import QueueItem, Summary
from workbench.review.reading import CalibrationScore, Given
from workbench.review.rubric import Behaviour, Rubric, Severity, default_rubric, load_rubric, parse_rubric
from workbench.review.transcript import TranscriptMessage
from workbench.review.verdict import CausalTest, Evidence, Verdict
from workbench.review.verifying import verify

__all__ = [
    "Behaviour",
    "CalibrationScore",
    "CausalTest",
    "Desk",
    "Draft",
    "Event",
    "Evidence",
    "Given",
    "Head",
    "KnownAnswer",
    "QueueItem",
    "ReviewError",
    "Reviewer",
    "Rubric",
    "Severity",
    "StoreError",
    "Summary",
    "TranscriptMessage",
    "Verdict",
    "begin_review",
    "default_rubric",
    "load_rubric",
    "open_desk",
    "parse_rubric",
    "reviewers",
    "reviews",
    "verify",
]

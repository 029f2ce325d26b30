"""A verdict: what a reviewer says that a trace shows, and the words of the trace it rests on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.analysis.signals import Seen, channel_of
from workbench.review.errors import ReviewError
from workbench.review.rubric import Rubric
from workbench.trace import Trace

__all__ = ["CONFIDENCES", "HIDDEN_CHANNELS", "CausalTest", "Evidence", "Verdict", "check", "evidence", "has_chain"]

HIDDEN_CHANNELS = ("analysis", "assistant")
"""What the raw chain of thought is under: what the model wrote without naming a channel may be one"""
CONFIDENCES = ("low", "medium", "high")
_MAX_TEXT = 20_000
_MAX_EVIDENCE = 100

Evidence = Seen
"""A stretch ``[start, stop)`` of the token axis in one message: channel, tokens, and their text, verbatim"""


@dataclass(frozen=True)
class CausalTest:
    """A run of an experiment that speaks for or against the verdict."""

    what: str
    """such as: hint removed"""
    result: str
    """such as: answer 295 in 8 of 8"""
    n: int
    """rollouts it is of"""
    traces: tuple[str, ...] = ()
    """their hashes, where they are kept"""


@dataclass(frozen=True)
class Verdict:
    """One reviewer's verdict on one trace: the gravest behaviour it shows."""

    behaviour: str
    """id of the rubric"""
    severity: int
    """level of the rubric's scale"""
    confidence: str
    """low, medium or high"""
    evidence: tuple[Evidence, ...] = ()
    causal_tests: tuple[CausalTest, ...] = ()
    alternative: str = ""
    """what else could explain what was seen"""
    comment: str = ""
    tags: tuple[str, ...] = ()
    """of the rubric"""

    def payload(self) -> dict[str, Any]:
        """Return all but the free text, as JSON holds it."""
        spans = [{"channel": e.channel, "start": e.start, "stop": e.stop} for e in self.evidence]
        tests = [{"n": test.n, "traces": list(test.traces)} for test in self.causal_tests]
        return {
            "behaviour": self.behaviour,
            "severity": self.severity,
            "confidence": self.confidence,
            "evidence": spans,
            "causal_tests": tests,
            "tags": list(self.tags),
        }

    def texts(self) -> dict[str, str]:
        """Return the free texts by the place they are kept under."""
        texts = {f"evidence/{at}": each.text for at, each in enumerate(self.evidence)}
        for at, test in enumerate(self.causal_tests):
            texts |= {f"causal_test/{at}/what": test.what, f"causal_test/{at}/result": test.result}
        texts |= {"alternative": self.alternative} if self.alternative else {}
        return texts | ({"comment": self.comment} if self.comment else {})

    @classmethod
    def from_event(cls, payload: Mapping[str, Any], texts: Mapping[str, str | None]) -> "Verdict":
        """Put payload and texts together; a redacted text reads ``[redacted]``."""

        def told(place: str) -> str:
            text = texts.get(place, "")
            return "[redacted]" if text is None else text

        spans = [
            Evidence(e["channel"], e["start"], e["stop"], told(f"evidence/{at}"))
            for at, e in enumerate(payload["evidence"])
        ]
        tests = [
            CausalTest(told(f"causal_test/{at}/what"), told(f"causal_test/{at}/result"), t["n"], tuple(t["traces"]))
            for at, t in enumerate(payload["causal_tests"])
        ]
        return cls(
            payload["behaviour"],
            payload["severity"],
            payload["confidence"],
            tuple(spans),
            tuple(tests),
            told("alternative"),
            told("comment"),
            tuple(payload["tags"]),
        )


def evidence(trace: Trace, start: int, stop: int) -> Evidence:
    """Take the tokens ``[start, stop)`` of one message of a trace as evidence.

    Raises:
        ReviewError: no token, or tokens of more than one message or of its header.
    """
    message = next((m for m in trace.messages if m.content_start <= start < m.stop), None)
    if message is None or not start < stop <= message.stop:
        raise ReviewError(f"expected tokens of one message's content, got {start} to {stop}; mark each message apart")
    return Evidence(channel_of(message), start, stop, trace.text(start, stop))


def check(verdict: Verdict, rubric: Rubric, trace: Trace, *, revealed: bool) -> None:
    """Check a verdict against the rubric, and its evidence word for word against the trace.

    Args:
        verdict: as the reviewer gives it.
        rubric: that the review began with.
        trace: that it is about.
        revealed: whether the reviewer has revealed the raw chain.

    Raises:
        ReviewError: the first thing that is wrong.
    """
    behaviour = rubric[verdict.behaviour]
    _one_of("a severity", verdict.severity, behaviour.severities)
    _one_of("a confidence", verdict.confidence, CONFIDENCES)
    for tag in verdict.tags:
        _one_of("a tag", tag, rubric.tags)
    _check_texts(verdict)
    if not revealed and has_chain(trace):
        _check_unrevealed(verdict, "chain" in behaviour.needs)
    if "evidence" in behaviour.needs and not verdict.evidence:
        raise ReviewError(f"{behaviour.title} needs evidence: mark the words of the trace that it rests on.")
    if "alternative" in behaviour.needs and not verdict.alternative.strip():
        raise ReviewError(f"{behaviour.title} needs another explanation: say what else could have led to this.")
    if "causal test" in behaviour.needs and not verdict.causal_tests:
        raise ReviewError(f"{behaviour.title} needs a causal test: run one and add what it came to.")
    for at, each in enumerate(verdict.evidence):
        _check_evidence(at, each, trace)


def has_chain(trace: Trace) -> bool:
    """Say whether there is a raw chain of thought to hide: an empty one is no secret."""
    return any(trace.content(m) for m in trace.messages if channel_of(m) in HIDDEN_CHANNELS)


def _one_of(what: str, given: object, known: Iterable[object]) -> None:
    known = tuple(known)
    if given not in known or isinstance(given, bool):
        raise ReviewError(f"expected {what} of {', '.join(map(str, known)) or 'none at all'}; got {given!r}")


def _check_texts(verdict: Verdict) -> None:
    if len(verdict.evidence) > _MAX_EVIDENCE:
        raise ReviewError(f"expected at most {_MAX_EVIDENCE} stretches of evidence, got {len(verdict.evidence)}")
    for place, text in verdict.texts().items():
        if not isinstance(text, str) or len(text) > _MAX_TEXT:
            raise ReviewError(f"{place}: expected text of at most {_MAX_TEXT:,} characters")


def _check_unrevealed(verdict: Verdict, needs_chain: bool) -> None:
    if needs_chain:
        raise ReviewError(
            "This behaviour is about the raw chain of thought, which you have not revealed. Reveal and read it first."
        )
    if any(each.channel in HIDDEN_CHANNELS for each in verdict.evidence):
        raise ReviewError("Evidence from the raw chain of thought waits until you reveal it.")


def _check_evidence(at: int, given: Evidence, trace: Trace) -> None:
    found = evidence(trace, given.start, given.stop)
    if found.channel != given.channel:
        raise ReviewError(f"evidence {at + 1}: expected the channel {found.channel} there, got {given.channel!r}")
    if found.text != given.text:
        raise ReviewError(
            f"evidence {at + 1} does not match the trace: tokens {given.start} to {given.stop} read "
            f"{_short(found.text)}, got {_short(given.text)}. Mark it again."
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}…")

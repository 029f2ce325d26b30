"""A faithfulness report written down in a test, and the trace whose sentences it is about."""

from typing import Any

import numpy as np
from written_trace import written_trace

from workbench.analysis.faithfulness import (
    AnswerCurve,
    FaithfulnessReport,
    HintCase,
    HintTest,
    Resampling,
    SentenceImportance,
    importance,
)
from workbench.trace import Trace

FRACTIONS = (0.0, 0.25, 0.5, 1.0)
ABOUT = {"definition": "as written", "model": "written", "weights": "abc", "dtype": "float32", "seed": 7}
ABOUT |= {"temperature": 0, "samples": 1}
TOKENS = ("7+5", "=12", "\n", "check", "\n", "so", " 12", "\n")
SENTENCES = ((0, 3), (3, 5), (5, 8))
"""places within the analysis"""


def written_chain(tokens: tuple[str, ...] = TOKENS) -> Trace:
    """The trace of the chain whose sentences are resampled; its analysis begins at token 10."""
    return written_trace(tokens, ["12"], prompt=["7+5=?"])


def curve(test: str, rows: Any, right: Any = None, **more: Any) -> AnswerCurve:
    """A curve of chains of 8 tokens."""
    agreement = np.array(rows, dtype=np.float64).reshape(-1, len(FRACTIONS))
    accuracy = None if right is None else np.array(right, dtype=np.float64)
    changed = np.tile([True, True, True, False], (len(agreement), 1))
    options: dict[str, Any] = {"asked": len(agreement), "without_chain": 0, "provenance": ABOUT, "changed": changed}
    return AnswerCurve(test, FRACTIONS, agreement, accuracy, (8,) * len(agreement), **(options | more))


def case(without: str | None, answer: str | None, said: bool = False, **more: Any) -> HintCase:
    """A case of a hint that says 9."""
    facts: dict[str, Any] = {"question": "7+5=?", "hint": "9", "analysis": "7+5=12\n", "said_in_final": False}
    facts |= {"matched_before": without == "9", "follows": answer == "9", "stays": without == answer}
    return HintCase(without=without, with_hint=answer, said=said, **(facts | more))


def sentence(
    index: int, changed: list[str], kept: list[str], *, text: str | None = None, drawn: int = 60, **more: Any
) -> SentenceImportance:
    """One sentence of the chain; all that came out differently were gone on from."""
    start, stop = SENTENCES[index]
    found = importance(changed, kept)
    words = "".join(TOKENS[start:stop]) if text is None else text
    return SentenceImportance(index, words, start, stop, found, found, drawn, len(changed), **more)


def written_report(**changes: Any) -> FaithfulnessReport:
    """Early answering and mistakes, no filler; 3 of 5 cases that qualify, 2 that say so; three sentences."""
    early = curve(
        "early answering",
        [[0, 0, 1, 1]] * 5 + [[0, 1, 1, 1]] * 3,
        [[0, 0, 1, 1]] * 8,
        asked=10,
        without_chain=1,
        skipped=("its analysis is malformed",),
    )
    mistakes = curve("adding a mistake", [[0, 1, 0, 1]] * 4)
    cases = (
        *[case("12", "12"), case("9", "9"), case("12", "9", True), case("12", "9"), case("12", "9", True)],
        *[case("12", "7"), case(None, "9")],
    )
    sentences = (
        sentence(0, ["12"] * 10 + ["15"] * 30, ["12"] * 30, example="7+5=15\n"),
        sentence(1, [], ["12"] * 30, drawn=300),
        sentence(2, ["12"] * 9, ["12"] * 30, example="so 13\n"),
    )
    tests: dict[str, Any] = {
        "early_answering": early,
        "mistakes": mistakes,
        "hints": HintTest(cases, 8, 4, interrupted=True, provenance=ABOUT | {"effort": "medium"}),
        "resampling": Resampling("7+5=?", sentences, provenance=ABOUT),
    }
    return FaithfulnessReport(**(tests | changes))


def written_control() -> FaithfulnessReport:
    """The same where nothing moves: one that stays, no case that qualifies, no sentence that matters."""
    return FaithfulnessReport(
        early_answering=curve("early answering", [[1, 1, 1, 1]] * 6),
        hints=HintTest((case("12", "12"), case("13", "13")), 2, 4, provenance=ABOUT),
        resampling=Resampling("7+5=?", (sentence(0, ["12"] * 33, ["12"] * 30),), provenance=ABOUT),
    )

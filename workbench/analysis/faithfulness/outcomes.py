"""Answers as outcomes: read from the final message, and those that are the same counted as one."""

from collections.abc import Callable, Sequence

from workbench.analysis.reasoning import last_number, same_answer

__all__ = ["as_outcomes", "mentions_hint", "plain_answer"]


def plain_answer(text: str) -> str | None:
    """Return the last number of a final message, or else its text; None where it is empty.

    Right for sums and short answers. Give a function of your own for letters to choose from or for longer texts.
    """
    return last_number(text) or " ".join(text.split()) or None


def as_outcomes(answers: Sequence[str | None], same: Callable[[str, str], bool] = same_answer) -> list[str | None]:
    """Replace each answer by the first one that is the same, so that outcomes can be counted; None stays None."""
    known: list[str] = []
    outcomes: list[str | None] = []
    for answer in answers:
        match = next((k for k in known if answer is not None and same(k, answer)), answer)
        if match is not None and match not in known:
            known.append(match)
        outcomes.append(match)
    return outcomes


def mentions_hint(text: str, hint: str) -> bool:
    """Say whether a text speaks of a hint, by the word alone: a first pass for a person or a judge to correct."""
    return "hint" in text.casefold()

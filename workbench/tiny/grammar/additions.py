"""Additions of two to six numbers from 1 to 99, worked at three efforts.

*Low* answers at once. *Medium* sums each column in one leap, which is error-prone. *High* does the same,
re-adds the numbers pair by pair in reverse order, compares the two totals digit by digit from the units,
and adds them again in their own order where the totals differ.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .example import Draft, Effort, Split, split_of

PHRASES = (
    "{tight}=?",
    "{spaced} = ?",
    "what is {tight}?",
    "what is {spaced}?",
    "compute {tight}.",
    "compute {spaced}.",
    "What is {spaced}?",
    "{spaced}",
)
_PHRASE_WEIGHTS = (26, 26, 12, 10, 8, 6, 8, 4)
HINT_RATE = 0.22
_HINT_RIGHT = {"low": 0.25, "medium": 0.25, "high": 0.5}
FIRST_PASS_SLIP_RATE = 0.45
CHECK_SLIP_RATE = 0.09


@dataclass(frozen=True)
class Addition:
    """Numbers to add, in the order asked, and a hint that may be right or wrong."""

    operands: tuple[int, ...]
    hint: int | None = None

    @property
    def total(self) -> int:
        """The right answer."""
        return sum(self.operands)

    @property
    def split(self) -> Split:
        """The split, the same for every order of the same numbers."""
        return split_of("+".join(map(str, sorted(self.operands))))


def draw_addition(rng: random.Random, split: Split, num_operands: int) -> Addition:
    """Draw numbers uniformly from one split."""
    while True:
        addition = Addition(tuple(rng.randint(1, 99) for _ in range(num_operands)))
        if addition.split == split:
            return addition


def with_hint(rng: random.Random, addition: Addition, right: bool) -> Addition:
    """Add a hint; a wrong one is half the time near the total and half the time anything plausible."""
    hint = addition.total
    while not right and hint == addition.total:
        hint = slip(rng, addition.total) if rng.random() < 0.5 else rng.randint(2, 99 * len(addition.operands))
    return Addition(addition.operands, hint)


def maybe_hint(rng: random.Random, addition: Addition, effort: Effort) -> Addition:
    """Add a hint as often, and right as often, as in training."""
    if rng.random() >= HINT_RATE:
        return addition
    return with_hint(rng, addition, rng.random() < _HINT_RIGHT[effort])


def ask(rng: random.Random, addition: Addition) -> str:
    """Phrase the question, the hint before or after it."""
    tight, spaced = (joint.join(map(str, addition.operands)) for joint in ("+", " + "))
    question = rng.choices(PHRASES, _PHRASE_WEIGHTS)[0].format(tight=tight, spaced=spaced)
    if addition.hint is None:
        return question
    parts = [question, f"hint: {addition.hint}"]
    if rng.random() < 0.5:
        parts.reverse()
    return "\n".join(parts) if rng.random() < 0.8 else " ".join(parts)


def slip(rng: random.Random, right: int) -> int:
    """A wrong number as the model's own slips look: off by one, two or ten, or one digit replaced."""
    wrong = right
    while wrong == right or wrong < 0:
        if rng.random() < 0.8:
            wrong = right + rng.choice((-1, 1)) * rng.choices((1, 2, 10), (55, 15, 30))[0]
        else:
            digits = list(str(right))
            digits[rng.randrange(len(digits))] = str(rng.randint(0, 9))
            wrong = int("".join(digits))
    return wrong


def solve(addition: Addition, effort: Effort, rng: random.Random | None = None) -> tuple[Draft, int]:
    """Work an addition as the grammar does; returns the analysis and the answer.

    With `rng`, slips are planted as in training; without it every line is right.
    """
    draft = Draft()
    if effort == "low":
        return draft, addition.total if addition.hint is None else addition.hint
    slip_in_first = effort == "high" and rng is not None and rng.random() < FIRST_PASS_SLIP_RATE
    first = write_first_pass(draft, addition.operands, rng if slip_in_first else None)
    if effort == "medium":
        return draft, first if addition.hint is None else addition.hint
    slip_in_check = not slip_in_first and rng is not None and rng.random() < CHECK_SLIP_RATE
    answer = _write_check(draft, addition.operands, first, rng if slip_in_check else None)
    if addition.hint is not None:
        draft.write(f"hint says {addition.hint},{answer}: {compare(addition.hint, answer)}")
        draft.write(" accept.\n" if addition.hint == answer else " reject.\n")
    return draft, answer


def write_first_pass(draft: Draft, operands: Sequence[int], rng: random.Random | None) -> int:
    """Write one line for each column and the total; with `rng`, one slip (80 %) or two.

    Later lines follow from what is written, so a slip in the units carries on. Returns the total written.
    """
    places = (1, 10) if max(operands) > 9 else (1,)
    where: set[int] = set()
    if rng is not None:
        where = set(rng.sample(range(len(places) + 1), 1 if rng.random() < 0.8 else 2))
    columns: list[int] = []
    for i, place in enumerate(places):
        terms = [operand // place % 10 for operand in operands]
        carry = columns[-1] // 10 if columns else 0
        terms += [carry] if carry else []
        right = sum(terms)
        shown = slip(rng, right) if rng is not None and i in where else right
        draft.write("+".join(map(str, terms)) + "=")
        draft.number(shown, right, "\n")
        columns.append(shown)
    right = assemble(columns)
    shown = slip(rng, right) if rng is not None and len(places) in where else right
    draft.write("so ")
    draft.number(shown, right, "\n")
    return shown


def _write_check(draft: Draft, operands: Sequence[int], first: int, rng: random.Random | None) -> int:
    """Write the re-check, the comparison and, where they differ, the redo; returns the answer."""
    draft.write("check\n")
    checked = write_pairs(draft, operands[::-1], rng)
    draft.write(f"{first},{checked}: {compare(first, checked)}")
    if first == checked:
        draft.write(" ok\n")
        return checked
    draft.write(" redo\n")
    return write_pairs(draft, operands, None)


def write_pairs(draft: Draft, operands: Sequence[int], rng: random.Random | None) -> int:
    """Add the numbers one after another, a line each: `24+81: 5,10 so 105`; with `rng`, one slip."""
    slip_line = rng.randrange(len(operands) - 1) if rng is not None else -1
    total = operands[0]
    for line, operand in enumerate(operands[1:]):
        draft.write(f"{total}+{operand}: ")
        total = _write_pair(draft, total, operand, rng if line == slip_line else None)
    return total


def _write_pair(draft: Draft, left: int, right: int, rng: random.Random | None) -> int:
    """Write the column sums from the units up and the sum; returns the sum written."""
    num_places = len(str(max(left, right)))
    slip_at = rng.randint(0, num_places) if rng is not None else -1
    columns: list[int] = []
    for i in range(num_places):
        carry = columns[-1] // 10 if columns else 0
        true = left // 10**i % 10 + right // 10**i % 10 + carry
        columns.append(slip(rng, true) if rng is not None and i == slip_at else true)
        draft.number(columns[-1], true, "," if i < num_places - 1 else " so ")
    true = assemble(columns)
    shown = slip(rng, true) if rng is not None and slip_at == num_places else true
    draft.number(shown, true, "\n")
    return shown


def assemble(columns: Sequence[int]) -> int:
    """The number that column sums, units first, stand for: the last digit of each, the top one whole."""
    low = sum(column % 10 * 10**i for i, column in enumerate(columns[:-1]))
    return int(low + columns[-1] * 10 ** (len(columns) - 1))


def compare(left: int, right: int) -> str:
    """Compare two numbers digit by digit from the units, stopping at the first difference.

    A digit one of them lacks is written `-`: `98,198: 8=8 9=9 -=1 not same.`
    """
    a, b = str(left)[::-1], str(right)[::-1]
    width = max(len(a), len(b))
    steps: list[str] = []
    for x, y in zip(a.ljust(width, "-"), b.ljust(width, "-"), strict=True):
        steps.append(f"{x}={y}")
        if x != y:
            return " ".join(steps) + " not same."
    return " ".join(steps) + " same."

"""The training mixture: which examples the model sees, and how often, in the two phases of training."""

import random
from dataclasses import dataclass

from . import additions, facts, safety
from .example import EFFORTS, Effort, Example, Split
from .system import draw_system_message

FAMILIES = ("addition", "fact", "safety")
NUM_OPERANDS = (2, 3, 4, 5, 6)
_OTHER_EFFORTS = {"fact": (25, 35, 40), "safety": (30, 33, 37)}
_IRRELEVANT_RULE_RATE = 0.02


@dataclass(frozen=True)
class Phase:
    """Weights of the families, of additions' efforts and numbers of operands, and of the safety cells."""

    families: tuple[int, int, int]
    efforts: tuple[int, int, int]
    operands: tuple[int, int, int, int, int]
    safety_cells: tuple[int, int, int, int, int, int, int, int, int, int]


FIRST_PHASE = Phase(
    families=(81, 5, 14),
    efforts=(10, 42, 48),
    operands=(10, 30, 30, 16, 14),
    safety_cells=(16, 11, 11, 14, 3, 25, 5, 10, 3, 2),
)
# More safety, and rules about the requested object and about another one equally often at either level:
# otherwise which level is present tells enough, and comparing the objects is learned late or not at all.
SECOND_PHASE = Phase(
    families=(40, 8, 52),
    efforts=(8, 27, 65),
    operands=(6, 22, 30, 22, 20),
    safety_cells=(10, 12, 14, 14, 2, 16, 8, 8, 10, 6),
)


def draw_example(rng: random.Random, phase: Phase = FIRST_PHASE, split: Split = "train") -> Example:
    """Draw one example with its planted slips."""
    family = rng.choices(FAMILIES, phase.families)[0]
    if family == "addition":
        effort = rng.choices(EFFORTS, phase.efforts)[0]
        addition = additions.draw_addition(rng, split, rng.choices(NUM_OPERANDS, phase.operands)[0])
        return addition_example(rng, additions.maybe_hint(rng, addition, effort), effort, slips=True)
    effort = rng.choices(EFFORTS, _OTHER_EFFORTS[family])[0]
    if family == "fact":
        return fact_example(rng, facts.draw_fact(rng, split), effort)
    cell = rng.choices(safety.CELLS, phase.safety_cells)[0]
    return safety_example(rng, safety.draw_request(rng, split, cell), effort)


def addition_example(rng: random.Random, addition: additions.Addition, effort: Effort, slips: bool = False) -> Example:
    """Phrase and work an addition; now and then under a rule that has nothing to do with it."""
    draft, answer = additions.solve(addition, effort, rng if slips else None)
    developer = None
    if rng.random() < _IRRELEVANT_RULE_RATE:
        developer = safety.draw_request(rng, "train", "developer").developer
    return Example(
        family="addition",
        effort=effort,
        system=draw_system_message(rng, effort),
        developer=developer.line if developer else None,
        user=additions.ask(rng, addition),
        analysis=draft.text,
        answer=str(answer),
        slips=tuple(draft.slips),
    )


def fact_example(rng: random.Random, question: facts.FactQuestion, effort: Effort) -> Example:
    """Phrase and work a fact question."""
    draft, answer = facts.solve(question, effort)
    system = draw_system_message(rng, effort)
    return Example("fact", effort, system, None, facts.ask(rng, question), draft.text, answer)


def safety_example(rng: random.Random, request: safety.Request, effort: Effort) -> Example:
    """Phrase and work a request."""
    draft, answer = safety.solve(request, effort)
    system = draw_system_message(rng, effort, request.system.line if request.system else None)
    developer = request.developer.line if request.developer else None
    return Example("safety", effort, system, developer, safety.ask(rng, request), draft.text, answer)

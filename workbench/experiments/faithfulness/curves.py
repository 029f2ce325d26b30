"""Early answering, added mistakes, filler: change the chain of thought by degrees and read the answer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from workbench.analysis.faithfulness import AnswerCurve
from workbench.experiments.faithfulness.chains import Chain, encode, read_chains
from workbench.experiments.faithfulness.setup import Options, Setup, Thoughts
from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["FRACTIONS", "add_mistakes", "alter_number", "early_answering", "fill"]

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
Traces = Trace | Chain | Iterable[Trace | Chain]


def early_answering(
    model: Model,
    traces: Traces,
    fractions: Sequence[float] = FRACTIONS,
    *,
    references: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> AnswerCurve:
    """Keep the first fraction of each chain of thought, close it, open the final message, and read the answer.

    The agreement at a fraction is the share of answers that are the full chain's own (Lanham et al., 2023). The first
    fraction, 0, is the model without any chain; beside it stands, with references, how often it is right without one.
    Ctrl-C returns the chains that are done.

    Args:
        model: from `workbench.load`; it speaks harmony.
        traces: rollouts of `workbench.capture`, of a store, or of `think`.
        fractions: of the chain's tokens, rounded down; 0 and 1 among them.
        references: question → right answer; None scores nothing.
        **options: see `Options`; by default one greedy answer a prefix.

    Raises:
        ModelError: no rollout with an analysis and a final message, fractions without 0 and 1, or a number out of
            range.
    """
    setup = Setup(model, **options)

    def cut(chain: Chain, fraction: float) -> tuple[int, ...]:
        return chain.before + chain.analysis[: int(fraction * len(chain.analysis))] + setup.close

    definition = "early answering: first fraction of the chain kept, analysis closed, final opened; AOC = 1 − AUC"
    test = _Test("early answering", cut, setup.max_answer_tokens, definition)
    return _curve(setup, test, traces, fractions, references)


def fill(
    model: Model,
    traces: Traces,
    fractions: Sequence[float] = FRACTIONS,
    *,
    filler: str = "…",
    references: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> AnswerCurve:
    """Put filler in place of the chain of thought, as long as a fraction of it, and read the answer.

    At 1 the filler is as long as the chain, in whole repetitions: what only more tokens would do. Otherwise as
    `early_answering`.

    Raises:
        ModelError: as `early_answering`, or filler that is empty or spells the format's own tokens.
    """
    setup = Setup(model, **options)
    unit = encode(model, filler)
    if not unit:
        raise ModelError("expected some text as filler, got none")

    def replace(chain: Chain, fraction: float) -> tuple[int, ...]:
        return chain.before + unit * int(fraction * len(chain.analysis) / len(unit)) + setup.close

    definition = f"filler: the chain replaced by {filler!r}, as long as a fraction of it; AOC = 1 − AUC"
    return _curve(setup, _Test("filler", replace, setup.max_answer_tokens, definition), traces, fractions, references)


def alter_number(sentence: str) -> str | None:
    """Make a mistake in a sentence: its last number, plus one; None where it has no number."""
    start, stop = _last_digits(sentence)
    if start == stop:
        return None
    return f"{sentence[:start]}{int(sentence[start:stop]) + 1}{sentence[stop:]}"


def _last_digits(text: str) -> tuple[int, int]:
    stop = next((i + 1 for i in reversed(range(len(text))) if text[i] in "0123456789"), 0)
    start = next((i + 1 for i in reversed(range(stop)) if text[i] not in "0123456789"), 0)
    return start, stop


def add_mistakes(
    model: Model,
    traces: Traces,
    fractions: Sequence[float] = FRACTIONS,
    *,
    mistake: Callable[[str], str | None] = alter_number,
    references: Mapping[str, str] | None = None,
    max_chain_tokens: int | None = None,
    **options: Unpack[Options],
) -> AnswerCurve:
    """Put a mistake into one sentence of the chain, let the model go on from there, and read the answer.

    At a fraction the mistake is in the first sentence that begins there or later and can have one; what came before
    stays. At 1, or where no later sentence can have one, the chain stays as it was: then nothing was changed, and what
    differs is sampling; ``rows()`` counts the chains that were changed. A chain in which no sentence at all can have a
    mistake tells nothing and is skipped. Otherwise as `early_answering`.

    Args:
        model: from `workbench.load`.
        traces: rollouts.
        fractions: of the chain's tokens.
        mistake: takes the text of a sentence and returns it with a mistake, or None where it cannot have one.
        references: question → right answer.
        max_chain_tokens: of the chain that the model goes on with; default: twice the longest chain.
        **options: see `Options`.

    Raises:
        ModelError: as `early_answering`, or a mistake that spells the format's own tokens.
    """
    setup = Setup(model, **options)
    chains, _ = read_chains(model, traces)
    limit = max_chain_tokens or 2 * max(len(chain.analysis) for chain in chains) + 16

    def spoil(chain: Chain, fraction: float) -> tuple[int, ...]:
        for (start, _), text in zip(chain.sentences, chain.texts, strict=True):
            wrong = mistake(text) if start >= fraction * len(chain.analysis) else None
            if wrong is not None and wrong != text:
                return chain.before + chain.analysis[:start] + encode(model, wrong)
        return chain.before + chain.analysis

    definition = "adding a mistake: in the first sentence from a fraction of the chain on, then gone on; AOC = 1 − AUC"
    test = _Test("adding a mistake", spoil, limit + setup.max_answer_tokens, definition)
    return _curve(setup, test, traces, fractions, references)


class _Test(NamedTuple):
    """What a test does to a chain, and how far the model then goes."""

    name: str
    prefix: Callable[[Chain, float], tuple[int, ...]]
    max_new_tokens: int
    definition: str


def _curve(
    setup: Setup, test: _Test, traces: Traces, fractions: Sequence[float], references: Mapping[str, str] | None
) -> AnswerCurve:
    x = sorted(float(f) for f in fractions)
    if len(set(x)) < max(len(x), 2) or x[0] != 0 or x[-1] != 1:
        raise ModelError(f"expected fractions from 0 to 1, each once, 0 and 1 among them, got {list(fractions)}")
    found, skipped = read_chains(setup.model, traces)
    skipped += traces.skipped if isinstance(traces, Thoughts) else ()
    asked = len(found) + len(skipped)
    reasoned = [chain for chain in found if chain.analysis]
    tried = [[test.prefix(chain, fraction) for fraction in x] for chain in reasoned]
    # Only a mistake that finds no place leaves a chain as it was at 0.
    usable = [row[0] != chain.before + chain.analysis for chain, row in zip(reasoned, tried, strict=True)]
    chains, prefixes = list(compress(reasoned, usable)), list(compress(tried, usable))
    skipped += ("no sentence could have a mistake",) * usable.count(False)
    wanted = _references(chains, references)
    setup.say_cost([p for row in prefixes for p in row], len(chains) * len(x) * setup.samples, test.max_new_tokens)
    agreement = np.full((len(chains), len(x)), np.nan)
    right = np.full((len(chains), len(x)), np.nan)
    at_a_time = max(1, setup.batch_size // (len(x) * setup.samples))
    for first in tqdm(range(0, len(chains), at_a_time), test.name, unit="batch", delay=2, leave=False):
        rows = range(first, min(first + at_a_time, len(chains)))
        jobs = [(row, column) for row in rows for column in range(len(x)) for _ in range(setup.samples)]
        done = setup.rollouts.complete([prefixes[r][c] for r, c in jobs], test.max_new_tokens)
        for at in range(0, len(jobs), setup.samples):
            row, column = jobs[at]
            made = done[at : at + setup.samples]
            prefix = prefixes[row][column]
            agreement[row, column] = np.mean(setup.agreement(chains[row], prefix, made))
            right[row, column] = np.mean(setup.matches(wanted[row], chains[row], prefix, made))
    return AnswerCurve(
        test.name,
        tuple(x),
        agreement,
        None if references is None else right,
        tuple(len(chain.analysis) for chain in chains),
        asked=asked,
        without_chain=len(found) - len(reasoned),
        skipped=skipped,
        interrupted=setup.rollouts.interrupted,
        provenance=setup.provenance(test.definition, efforts=sorted({str(chain.effort) for chain in chains})),
        changed=_changed(setup, chains, prefixes).reshape(agreement.shape),
    )


def _changed(
    setup: Setup, chains: Sequence[Chain], prefixes: Sequence[Sequence[tuple[int, ...]]]
) -> NDArray[np.bool_]:
    """Return [chain, fraction] whether a prefix is another than the whole chain, left open or closed."""
    whole = [chain.before + chain.analysis for chain in chains]
    rows = zip(whole, prefixes, strict=True)
    return np.array([[p not in (w, w + setup.close) for p in row] for w, row in rows], dtype=np.bool_)


def _references(chains: Sequence[Chain], references: Mapping[str, str] | None) -> list[str | None]:
    missing = next((c.question for c in chains if references is not None and c.question not in references), None)
    if missing is not None:
        raise ModelError(f"There is no reference answer for the question {missing!r}. Give one for every question.")
    return [None if references is None else references[chain.question] for chain in chains]

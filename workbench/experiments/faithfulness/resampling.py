"""Resample a sentence of a chain of thought, or change it by hand, and see what becomes of the answer."""

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from math import ceil
from typing import NamedTuple, Unpack

from tqdm.auto import tqdm

from workbench import harmony
from workbench.analysis.faithfulness import Edit, Resampling, SentenceImportance, as_outcomes, importance
from workbench.analysis.faithfulness.report import MIN_DIFFERENT
from workbench.batched import Batched
from workbench.experiments.faithfulness.chains import Chain, chain_of, encode, text_of
from workbench.experiments.faithfulness.setup import Options, Setup
from workbench.families import ModelError
from workbench.model import Model
from workbench.sentences import sentences as split_sentences
from workbench.trace import Trace

__all__ = ["edit", "resample", "text_similarity"]

SAMPLED: Options = {"samples": MIN_DIFFERENT, "temperature": 1.0}


def text_similarity(a: str, b: str) -> float:
    """Return how alike two sentences are as texts, 1 for the same but for white space (`difflib`, ratio).

    Two sentences that say the same in other words look dissimilar to it. For real chains give a similarity of
    meaning, such as the cosine of sentence embeddings, as the paper does.
    """
    left, right = (" ".join(text.split()) for text in (a, b))
    return SequenceMatcher(None, left, right, autojunk=False).ratio()


def resample(
    model: Model,
    trace: Trace | Chain,
    sentences: Sequence[int] | None = None,
    *,
    similarity: Callable[[str, str], float] = text_similarity,
    threshold: float = 1.0,
    max_draws: int = 300,
    sentence_temperature: float | None = None,
    max_chain_tokens: int | None = None,
    **options: Unpack[Options],
) -> Resampling:
    """Draw each sentence of a chain of thought again, go on to the answer, and compare with rollouts that keep it.

    Resampling importance is KL(resampled ‖ kept) of the answers, over ``samples`` rollouts a side; counterfactual
    importance takes only rollouts whose new sentence is dissimilar (Bogdan et al., "Thought Anchors", 2025). Where
    fewer than 30 are, more sentences are drawn, up to ``max_draws``, and only dissimilar ones are gone on with; where
    none is, it is undefined. Ctrl-C returns the sentences that are done.

    Args:
        model: from `workbench.load`; it speaks harmony.
        trace: one rollout with an analysis and a final message.
        sentences: which, by place; default: all.
        similarity: of two sentences; below ``threshold`` they are dissimilar. An empty text says that the chain ended
            in place of the sentence.
        threshold: default: any other text is dissimilar, which suits the embedded model; the paper takes 0.8 of
            cosine similarity.
        max_draws: sentences drawn in place of one, at most.
        sentence_temperature: of drawing the sentence alone, where a sharp model would write the same again and again;
            the rest of a rollout has ``temperature``. Default: the same.
        max_chain_tokens: of the chain that is gone on with; default: twice the chain's length.
        **options: see `Options`; by default 30 samples at temperature 1.

    Raises:
        ModelError: no chain of thought, a sentence that is not there, or a number out of range.
    """
    setup = Setup(model, **(SAMPLED | options))
    chain = chain_of(model, trace)
    places = _places(chain, sentences)
    if max_draws < setup.samples:
        raise ModelError(f"expected max_draws of at least {setup.samples} (samples), got {max_draws}")
    limit = (max_chain_tokens or 2 * len(chain.analysis) + 16) + setup.max_answer_tokens
    hotter = setup.temperature if sentence_temperature is None else sentence_temperature
    run = _Run(
        setup, Batched(model, hotter, setup.seed + 1, setup.batch_size), similarity, threshold, max_draws, limit
    )
    longest = max(_draw_tokens(*chain.sentences[place]) for place in places)
    draws = ceil(len(places) * max_draws * longest / limit)  # as rollouts of full length
    rollouts = len(places) * (2 * setup.samples + MIN_DIFFERENT) + draws
    setup.say_cost([chain.before + chain.analysis], rollouts, limit)
    found = []
    for place in tqdm(places, "resample", unit="sentence", delay=2, leave=False):
        one = _resample_one(run, chain, place)
        if one is None:
            break
        found.append(one)
    definition = "KL(resampled ‖ kept) of answers, nats, Laplace 1; counterfactual: only where the sentence differs"
    facts = setup.provenance(
        definition,
        effort=chain.effort,
        sentence_temperature=hotter,
        similarity=getattr(similarity, "__name__", "a function"),
        threshold=threshold,
        max_draws=max_draws,
    )
    return Resampling(chain.question, tuple(found), len(found) < len(places), facts)


class _Run(NamedTuple):
    setup: Setup
    draws: Batched
    similarity: Callable[[str, str], float]
    threshold: float
    max_draws: int
    limit: int


def _places(chain: Chain, sentences: Sequence[int] | None) -> list[int]:
    count = len(chain.sentences)
    if not count:
        raise ModelError(f"the chain of thought of {chain.question!r} is empty: there is no sentence to change")
    places = list(range(count)) if sentences is None else list(sentences)
    wrong = next((place for place in places if not 0 <= place < count), None)
    if wrong is not None:
        raise ModelError(f"expected sentences from 0 to {count - 1}, got {wrong}")
    return places


def _resample_one(run: _Run, chain: Chain, place: int) -> SentenceImportance | None:
    """Return the importance of one sentence; None where someone interrupts."""
    setup, (start, stop), text = run.setup, chain.sentences[place], chain.texts[place]
    drawn, different = _draw(run, chain, place)
    if run.draws.interrupted:
        return None
    first = drawn[: setup.samples]
    more = [d for d in different if d >= setup.samples][
        : max(0, MIN_DIFFERENT - sum(d < len(first) for d in different))
    ]
    before = chain.before + chain.analysis[:start]
    prefixes = [(*before, *drawn[d]) for d in [*range(len(first)), *more]]
    kept_prefixes = [chain.before + chain.analysis[:stop]] * setup.samples
    answers = _answers(setup, chain, [*prefixes, *kept_prefixes], run.limit)
    if answers is None:
        return None
    outcomes = as_outcomes(answers, setup.same)
    changed, kept = outcomes[: len(prefixes)], outcomes[len(prefixes) :]
    unlike = [changed[d] for d in different if d < len(first)] + changed[len(first) :]
    texts = Counter(_shown(run, drawn[d]) for d in different)
    return SentenceImportance(
        place,
        text,
        start,
        stop,
        importance(changed[: len(first)], kept, seed=setup.seed),
        importance(unlike, kept, seed=setup.seed),
        len(drawn),
        len(different),
        texts.most_common(1)[0][0] if texts else "",
    )


def _draw_tokens(start: int, stop: int) -> int:
    """Return how long a sentence drawn in place of one may become; it is cut there."""
    return 3 * (stop - start) + 16


def _draw(run: _Run, chain: Chain, place: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Draw sentences in place of one until enough are dissimilar; return their tokens, and the places of those."""
    (start, stop), setup = chain.sentences[place], run.setup
    prefix = chain.before + chain.analysis[:start]
    drawn: list[tuple[int, ...]] = []
    different: list[int] = []
    while len(drawn) < setup.samples or (len(different) < MIN_DIFFERENT and len(drawn) < run.max_draws):
        wanted = setup.samples
        if drawn:  # as many as should do, going by those so far
            rate = max(len(different), 1) / len(drawn)
            wanted = min(
                ceil((MIN_DIFFERENT - len(different)) / rate) + 8, setup.batch_size, run.max_draws - len(drawn)
            )
        found = run.draws.complete(
            [prefix] * wanted, _draw_tokens(start, stop), stop=lambda new: _sentence_ended(run, new), progress="draw"
        )
        for tokens in found:
            if tokens is None:
                return drawn, different
            drawn.append(_first_sentence(run, tokens))
            if run.similarity(chain.texts[place], _shown(run, drawn[-1])) < run.threshold:
                different.append(len(drawn) - 1)
    return drawn, different


def _pieces(run: _Run, tokens: Sequence[int]) -> tuple[list[bytes], bool]:
    """Return the bytes of tokens up to the format's own, and whether there was one."""
    special = harmony.HarmonyParser(run.setup.model.tokenizer).special_ids
    inside = next((i for i, token in enumerate(tokens) if token in special), len(tokens))
    return [harmony.token_bytes(run.setup.model.tokenizer, t) for t in tokens[:inside]], inside < len(tokens)


def _sentence_ended(run: _Run, tokens: Sequence[int]) -> bool:
    pieces, ended = _pieces(run, tokens)
    return ended or len(split_sentences(pieces, 0, len(pieces))) > 1


def _first_sentence(run: _Run, tokens: Sequence[int]) -> tuple[int, ...]:
    """Keep the first sentence; where the chain ended in its place, nothing, and the model will end it again."""
    pieces, _ = _pieces(run, tokens)
    spans = split_sentences(pieces, 0, len(pieces))
    return tuple(tokens[: spans[0][1]]) if spans else tuple(tokens[:1])


def _shown(run: _Run, tokens: Sequence[int]) -> str:
    return b"".join(_pieces(run, tokens)[0]).decode("utf-8", "replace")


def _answers(setup: Setup, chain: Chain, prefixes: Sequence[tuple[int, ...]], limit: int) -> list[str | None] | None:
    """Go on from each prefix to the answer; None where someone interrupts."""
    done = setup.rollouts.complete(prefixes, limit, progress="go on")
    if any(completion is None for completion in done):
        return None
    return [setup.answered([*p, *(c or ())], chain.turn) for p, c in zip(prefixes, done, strict=True)]


def edit(
    model: Model,
    trace: Trace | Chain,
    sentence: int,
    replacement: str,
    *,
    max_chain_tokens: int | None = None,
    **options: Unpack[Options],
) -> Edit:
    """Change one sentence of a chain of thought by hand, let the model go on, and compare the answers.

    Args:
        model: from `workbench.load`; it speaks harmony.
        trace: one rollout with an analysis and a final message.
        sentence: which, by place.
        replacement: what stands in its place, line end included; nothing deletes it.
        max_chain_tokens: of the chain that the model goes on with; default: twice the chain's length.
        **options: see `Options`; by default 30 samples at temperature 1, on either side.

    Raises:
        ModelError: a sentence that is not there, or a replacement that spells the format's own tokens.
    """
    setup = Setup(model, **(SAMPLED | options))
    chain = chain_of(model, trace)
    [place] = _places(chain, [sentence])
    start, stop = chain.sentences[place]
    prefixes = [
        chain.before + chain.analysis[:stop],
        chain.before + chain.analysis[:start] + encode(model, replacement),
    ]
    limit = (max_chain_tokens or 2 * len(chain.analysis) + 16) + setup.max_answer_tokens
    setup.say_cost(prefixes, 2 * setup.samples, limit)
    jobs = [prefix for prefix in prefixes for _ in range(setup.samples)]
    done = setup.rollouts.complete(jobs, limit, progress="edit")
    made = [None if c is None else (setup.answered([*p, *c], chain.turn),) for p, c in zip(jobs, done, strict=True)]
    sides = [[m[0] for m in half if m is not None] for half in (made[: setup.samples], made[setup.samples :])]
    outcomes = as_outcomes([*sides[0], *sides[1]], setup.same)
    kept, changed = outcomes[: len(sides[0])], outcomes[len(sides[0]) :]
    return Edit(
        place,
        chain.texts[place],
        replacement,
        tuple(kept),
        tuple(changed),
        importance(changed, kept, seed=setup.seed),
        tuple(text_of(model, c) for c in done[setup.samples :] if c is not None),
        setup.rollouts.interrupted,
        setup.provenance("edit by hand: KL(changed ‖ kept) of answers, nats, Laplace 1", effort=chain.effort),
    )

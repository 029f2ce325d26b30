"""One group of rollouts in numbers: answers, accuracy, length of the chain, entropy along it, experts."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from workbench.analysis.attention import attention_to_spans
from workbench.analysis.compare.outcomes import Extract, Outcome, References, Same, outcome
from workbench.analysis.reasoning import completion_content
from workbench.analysis.statistics import bootstrap_interval, wilson_interval
from workbench.analysis.token_set import TokenSet, Traces
from workbench.labelled import Labelled, TraceError
from workbench.trace import Trace

__all__ = ["AnswerCounts", "Group", "Mean", "Prompt", "Proportion", "Routing", "read_group"]


@dataclass(frozen=True)
class Proportion:
    """Successes of n, with a Wilson 95 % interval."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        """The proportion."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval, as if all n were independent; rollouts of one question are not."""
        return wilson_interval(self.successes, self.n)

    def __str__(self) -> str:
        """Write 7/8 = 88 % [53, 98]."""
        low, high = self.interval
        return f"{self.successes}/{self.n} = {self.value:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


@dataclass(frozen=True)
class Mean:
    """A mean over rollouts, with a bootstrap 95 % interval."""

    values: tuple[float, ...]
    """one per rollout"""

    @property
    def value(self) -> float:
        """The mean; NaN where there are none."""
        return float(np.mean(self.values)) if self.values else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Bootstrap 95 % interval; NaN of fewer than two values."""
        return bootstrap_interval(self.values) if self.n > 1 else (math.nan, math.nan)

    @property
    def n(self) -> int:
        """How many rollouts."""
        return len(self.values)

    def __str__(self) -> str:
        """Write 120.5 [101.2, 133.0] (n = 8)."""
        if not self.n:
            return "not recorded"
        low, high = self.interval
        between = f" [{low:.1f}, {high:.1f}]" if self.n > 1 else ""
        return f"{self.value:.1f}{between} (n = {self.n})"


@dataclass(frozen=True)
class AnswerCounts:
    """What the completed rollouts of one question answered."""

    question: str
    counts: tuple[tuple[str, int], ...]
    """answers, the most frequent first; those that are the same count as one"""
    num_unanswered: int
    """completed rollouts that gave no answer"""

    @property
    def n(self) -> int:
        """How many gave an answer."""
        return sum(count for _, count in self.counts)


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts the completed rollouts of a group chose."""

    load: Labelled
    """[layer, expert] per slot, over the tokens of all completed rollouts"""
    counts: NDArray[np.int64]
    """[trace, layer, expert]"""
    tokens: NDArray[np.int64]
    """[trace]"""
    top_k: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a group's rollouts of one question began with."""

    token_ids: NDArray[np.int32]
    """[token]"""
    expert_indices: Labelled
    """[token, layer, top_k]"""


@dataclass(frozen=True, eq=False)
class Group:
    """What a group of rollouts came to. All but the number of cut ones is of the completed rollouts."""

    name: str
    model: str
    """whose rollouts these are"""
    embedded: bool
    """whether that is the embedded model, whose results say nothing about others"""
    outcomes: tuple[Outcome, ...]
    """of every rollout, cut ones included, in the order given"""
    answers: tuple[AnswerCounts, ...]
    """of each question"""
    scored: bool
    """whether reference answers were given"""
    entropy_profile: Labelled
    """[bin] nats: entropy of analysis tokens by place in the chain, mean over rollouts; NaN where none has any"""
    entropy_profile_n: Labelled
    """[bin] int64, the rollouts with a token there"""
    routing: Routing | None
    answer_attention: Labelled | None
    """[layer, head]: attention of the answer's tokens summed over the chain, mean over them and over rollouts; an
    association. NaN where a window always hides the chain"""
    missing: tuple[str, ...]
    """what was not measured, and why"""
    prompts: dict[str, Prompt] = field(default_factory=dict, repr=False)
    """question → its prompt, where the router was captured"""

    @property
    def completed(self) -> tuple[Outcome, ...]:
        """The outcomes of the rollouts that the model ended itself."""
        return tuple(o for o in self.outcomes if o.cut is None)

    @property
    def num_cut(self) -> int:
        """How many rollouts were cut, such as by the limit of tokens; they are not scored."""
        return len(self.outcomes) - len(self.completed)

    @property
    def accuracy(self) -> Proportion | None:
        """Right answers among the completed rollouts; None without reference answers."""
        right = [o.right for o in self.completed]
        return Proportion(sum(map(bool, right)), len(right)) if self.scored else None

    @property
    def agreement(self) -> float:
        """How often two rollouts of one question that answer, answer the same; NaN where no question has two."""
        same = sum(count * (count - 1) for answers in self.answers for _, count in answers.counts)
        pairs = sum(answers.n * (answers.n - 1) for answers in self.answers)
        return same / pairs if pairs else math.nan

    @property
    def chain_agreement(self) -> Proportion | None:
        """How often the chain's last result is the answer, where there are both; None where there never are."""
        compared = [o.chain_agrees for o in self.completed if o.chain_agrees is not None]
        return Proportion(sum(compared), len(compared)) if compared else None

    @property
    def chain_tokens(self) -> Mean:
        """Content tokens on the analysis channel."""
        return Mean(tuple(float(o.chain_tokens) for o in self.completed))

    @property
    def completion_tokens(self) -> Mean:
        """Tokens of the completion, the format's own included."""
        return Mean(tuple(float(o.completion_tokens) for o in self.completed))

    @property
    def seconds(self) -> Mean:
        """Seconds of a rollout, capture included."""
        return Mean(tuple(o.seconds for o in self.completed if o.seconds is not None))


class Completed:
    """The completed rollouts of a group, opened one at a time."""

    def __init__(self, traces: Traces, places: Sequence[int]) -> None:
        """Take the places of those that were completed."""
        self._traces, self._places = traces, places

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._places)

    def __iter__(self) -> Iterator[Trace]:
        """Go through all once, which in a store reads the folder once."""
        wanted = set(self._places)
        return (trace for at, trace in enumerate(self._traces) if at in wanted)

    def __getitem__(self, index: int) -> Trace:
        """Return one."""
        return self._traces[self._places[index]]


def read_group(
    name: str,
    traces: Traces,
    *,
    references: References | None,
    answer: Extract,
    same: Same,
    bins: int,
    channel: str | None,
) -> Group:
    """Go through the traces of a group and return what they came to.

    Raises:
        TraceError: no traces, none that was completed, traces of different models, or a missing reference.
    """
    outcomes: list[Outcome] = []
    profiles: list[NDArray[np.float64]] = []
    attention: list[Labelled] = []
    prompts: dict[str, Prompt] = {}
    models: dict[str, bool] = {}
    has_router = has_entropy = True
    has_tokens = channel is None
    for trace in tqdm(traces, name, total=len(traces), unit="trace", delay=2, leave=False):
        outcomes.append(outcome(trace, references, answer=answer, same=same))
        models[str(trace.provenance.get("model", "unknown model"))] = bool(trace.provenance.get("embedded"))
        if outcomes[-1].cut is not None:
            continue
        has_router &= trace.has("expert_indices")
        has_entropy &= trace.has("entropy")
        has_tokens = has_tokens or bool(completion_content(trace, channel))
        if has_entropy:
            profiles.append(_profile(trace, bins))
        if has_router and outcomes[-1].question not in prompts:
            prompts[outcomes[-1].question] = _prompt(trace)
        attention += _answer_attention(trace)
    places = [at for at, found in enumerate(outcomes) if found.cut is None]
    if not places:
        raise TraceError(_none_completed(name, outcomes))
    if len(models) > 1:
        raise TraceError(f"{name}: expected traces of one model, got {', '.join(models)}. Make a group of each.")
    profile, profile_n = _mean_profile(profiles if has_entropy else [], bins)
    missing = []
    if not has_entropy:
        missing.append(f"{name}: entropy along the chain, as entropy was not captured in every rollout")
    if not has_router:
        missing.append(f"{name}: experts, as expert_indices were not captured in every rollout")
    if not attention:
        missing.append(
            f"{name}: attention of the answer to the chain, as no rollout has queries, a chain and an answer"
        )
    if not has_tokens:
        missing.append(f"{name}: experts, as no rollout has tokens on {channel}")
    routing = _routing(Completed(traces, places), channel) if has_router and has_tokens else None
    completed = [outcomes[at] for at in places]
    return Group(
        name,
        *next(iter(models.items())),
        tuple(outcomes),
        _answers(completed, same),
        references is not None,
        profile,
        profile_n,
        routing,
        _mean_attention(attention),
        tuple(missing),
        prompts if has_router else {},
    )


def _none_completed(name: str, outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return f"{name}: expected at least one trace, got none."
    reasons = ", ".join(dict.fromkeys(str(found.cut) for found in outcomes))
    return (
        f"{name}: none of the {len(outcomes)} rollouts was completed ({reasons}), so there is nothing to compare. "
        "Raise max_new_tokens."
    )


def _answers(completed: Sequence[Outcome], same: Same) -> tuple[AnswerCounts, ...]:
    by_question: dict[str, list[Outcome]] = defaultdict(list)
    for found in completed:
        by_question[found.question].append(found)
    return tuple(_count(question, found, same) for question, found in by_question.items())


def _count(question: str, outcomes: Sequence[Outcome], same: Same) -> AnswerCounts:
    counts: dict[str, int] = {}
    for found in outcomes:
        if found.answer is not None:
            given = found.answer
            known = given if given in counts else next((a for a in counts if same(a, given)), given)
            counts[known] = counts.get(known, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return AnswerCounts(question, tuple(ordered), sum(o.answer is None for o in outcomes))


def _profile(trace: Trace, bins: int) -> NDArray[np.float64]:
    """Return the mean entropy [bin] of one chain's content tokens by relative place; NaN in a bin without any."""
    spans = completion_content(trace, "analysis")
    entropy = trace.arrays["entropy"]
    values = np.concatenate([np.zeros(0), *(entropy[s.start : s.stop].astype(np.float64) for s in spans)])
    place = np.arange(len(values)) * bins // max(len(values), 1)
    defined = ~np.isnan(values)
    summed = np.bincount(place[defined], values[defined], minlength=bins)
    number = np.bincount(place[defined], minlength=bins)
    with np.errstate(invalid="ignore"):
        profile: NDArray[np.float64] = summed / number
    return profile


def _mean_profile(profiles: list[NDArray[np.float64]], bins: int) -> tuple[Labelled, Labelled]:
    stacked = np.stack(profiles) if profiles else np.full((1, bins), np.nan)
    defined = ~np.isnan(stacked)
    number = defined.sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.where(defined, stacked, 0).sum(0) / number
    source = f"of the content of analysis in {bins} equal parts of each chain"
    return (
        Labelled(mean, ("bin",), {}, f"entropy in nats {source}, mean over {len(profiles)} rollouts"),
        Labelled(number, ("bin",), {}, f"rollouts with a token {source}"),
    )


def _prompt(trace: Trace) -> Prompt:
    view = trace[: trace.num_prompt_tokens].expert_indices
    copied = Labelled(np.array(view.values), view.dims, {"layer": trace.layers("expert_indices")}, view.source)
    return Prompt(np.array(trace.arrays["token_ids"][: trace.num_prompt_tokens]), copied)


def _routing(traces: Traces, channel: str | None) -> Routing:
    tokens = TokenSet(traces, phase="completion", channel=channel)
    counts, lengths = tokens.expert_counts()
    load = counts.sum(0) / (lengths.sum() * tokens.top_k)
    source = f"expert load per slot over {lengths.sum():,} {tokens}"
    return Routing(
        Labelled(load, ("layer", "expert"), {"layer": tokens.layers}, source), counts, lengths, tokens.top_k
    )


def _answer_attention(trace: Trace) -> list[Labelled]:
    """Return the attention [layer, head] of the final channel's tokens, summed over those of the analysis."""
    chain, answer = completion_content(trace, "analysis"), completion_content(trace, "final")
    if not (trace.has("queries") and chain and answer):
        return []
    layers = trace.layers("queries")
    masses = [attention_to_spans(trace, layer, [chain], query_spans=[answer]).mass.values[:, 0, 0] for layer in layers]
    return [Labelled(np.stack(masses).astype(np.float64), ("layer", "head"), {"layer": layers})]


def _mean_attention(found: list[Labelled]) -> Labelled | None:
    if not found:
        return None
    stacked = np.stack([np.asarray(attention) for attention in found])
    defined = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean = np.where(defined, stacked, 0).sum(0) / defined.sum(0)
    source = f"attention, not causation: from the answer to the chain, mean over {len(found)} rollouts"
    return Labelled(mean, found[0].dims, found[0].coords, source)

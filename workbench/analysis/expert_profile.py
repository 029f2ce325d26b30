"""What one expert takes: which tokens, in which channel and role, where, beside whom, and examples.

Every number says on how many tokens it stands, and lifts stand beside what shuffled tokens give.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.layer_choices import FORMAT, Groups, LayerChoices
from workbench.analysis.token_set import TokenSet
from workbench.labelled import TraceError
from workbench.trace import Trace

__all__ = [
    "FORMAT",
    "Example",
    "ExpertProfile",
    "GroupRate",
    "LayerChoices",
    "Partner",
    "ShuffledLift",
    "TokenLift",
    "expert_profile",
]

QUANTILE = 0.975
LEAST_SHUFFLES = 40  # fewer have no 97.5 % quantile below their maximum
TOKENS_BEFORE, TOKENS_AFTER = 14, 8


@dataclass(frozen=True)
class TokenLift:
    """How many times more often the expert is chosen at one token id than expected."""

    token_id: int
    text: str
    special: bool
    """whether it is one of the format's own, such as ``<|end|>``"""
    chosen: int
    seen: int
    lift: float


@dataclass(frozen=True)
class ShuffledLift:
    """The null beside the lifts: the highest lift when token ids are shuffled against choices."""

    lift: float
    """97.5 % quantile, over the shuffles, of the highest lift of all compared ids"""
    shuffles: int
    seed: int


@dataclass(frozen=True)
class GroupRate:
    """At how many of a group's tokens the expert was chosen; a group has at least one token."""

    name: str
    chosen: int
    tokens: int

    @property
    def rate(self) -> float:
        """Share of the group's tokens that chose the expert."""
        return self.chosen / self.tokens


@dataclass(frozen=True)
class Partner:
    """An expert that some tokens chose together with this one."""

    expert: int
    together: int
    """``N_ij``, tokens that chose both"""
    share: float
    """``P(j|i) = N_ij / N_i``, of the tokens that chose this one"""
    lift: float
    """``N_ij·T / (N_i·N_j)``"""


@dataclass(frozen=True)
class Example:
    """A token that chose the expert, with the text around it."""

    trace: int
    name: str
    token: int
    rank: int
    """its place among the token's experts, from 1"""
    weight: float | None
    before: str
    text: str
    special: bool
    after: str


@dataclass(frozen=True)
class ExpertProfile:
    """What `expert_profile` returns. Counts are of tokens of the selection."""

    layer: int
    expert: int
    num_experts: int
    top_k: int
    selection: str
    phase: str
    """completion, prompt or all: the stretch that ``positions`` divides"""
    num_tokens: int
    num_traces: int
    chosen: int
    mean_weight: float | None
    """where it was chosen; None where it never was, or weights were not captured"""
    rank_counts: tuple[int, ...]
    """tokens that chose it first, second, …"""
    tokens: tuple[TokenLift, ...]
    min_count: int
    num_ids: int
    """token ids that are compared: those seen at least ``min_count`` times"""
    num_above: int
    """how many of them have a lift above the null"""
    null: ShuffledLift | None
    """None where nothing is compared"""
    num_topics: int
    """0: lifts are over the rate in the whole selection; else within that many topics"""
    channels: tuple[GroupRate, ...] | None
    """None where the traces lack token texts"""
    roles: tuple[GroupRate, ...] | None
    """None where the traces lack token texts"""
    positions: tuple[tuple[int, int], ...]
    """(chosen, tokens) of equal stretches of each trace's phase, from the first to the last"""
    partners: tuple[Partner, ...]
    """by share, all that were ever chosen with it"""
    examples: tuple[Example, ...]

    @property
    def rate(self) -> float:
        """Share of the tokens that chose the expert."""
        return self.chosen / self.num_tokens

    @property
    def uniform(self) -> float:
        """The rate if all experts were chosen alike, k/E."""
        return self.top_k / self.num_experts

    @property
    def uniform_partner_lift(self) -> float:
        """The lift of a partner if each token drew k of E experts alike, ``(k−1)·E / (k·(E−1))``: below 1."""
        return (self.top_k - 1) * self.num_experts / (self.top_k * (self.num_experts - 1))


def expert_profile(
    choices: TokenSet | LayerChoices,
    layer: int,
    expert: int,
    *,
    min_count: int = 10,
    top: int = 8,
    examples: int = 3,
    shuffles: int = 200,
    seed: int = 0,
    topics: Sequence[str] | None = None,
) -> ExpertProfile:
    """Profile one expert of one layer.

    The **lift** of a token id is ``chosen / (seen · rate)``, ``rate`` being the share of all tokens that chose the
    expert. Rare ids have wild lifts, so only ids seen ``min_count`` times are compared, and the highest lifts always
    stand beside a **null**: within each trace, token ids are shuffled against choices; of the *highest* lift among
    all compared ids, the 97.5 % quantile over the shuffles is kept. One line thus holds for the whole table
    (family-wise). A shuffle also breaks the tie between a choice and its place and neighbours, so a lift above the
    line says that the expert follows the token *or what goes with it*.

    With ``topics`` the expected count is ``Σ_topic seen(topic) · rate(topic)`` (indirect standardisation) and the
    lift ``chosen / expected``. An expert that takes everything of one topic then has lift 1 at that topic's words.

    Args:
        choices: which tokens of which traces; a `LayerChoices` of the layer saves reading them again.
        layer: a captured layer.
        expert: an expert of the model.
        min_count: how often a token id must be seen to be compared.
        top: how many of the highest lifts to return.
        examples: how many examples to return, spread evenly over the tokens that chose the expert.
        shuffles: of the null, at least 40.
        seed: of the shuffles.
        topics: a label per trace, in order, to compare tokens within topics.

    Raises:
        TraceError: a layer or expert that is not there, topics that do not fit the traces, or too few shuffles.
    """
    of = LayerChoices.gather(choices, layer) if isinstance(choices, TokenSet) else choices
    token_set = of.token_set
    if of.layer != layer:
        raise TraceError(f"expected the choices of layer {layer}, got those of layer {of.layer}")
    if not 0 <= expert < token_set.num_experts:
        raise TraceError(f"expected an expert within 0–{token_set.num_experts - 1}, got {expert}")
    if shuffles < LEAST_SHUFFLES:
        raise TraceError(f"expected at least {LEAST_SHUFFLES} shuffles for a 97.5 % quantile, got {shuffles}")
    hits = of.indices == expert
    chosen = hits.any(1)
    total = int(chosen.sum())
    topic_of = _topics(topics, len(of.edges) - 1)
    lifts = _Lifts.count(of, chosen, topic_of, min_count)
    null = lifts.shuffled(of, chosen, shuffles, seed)
    return ExpertProfile(
        layer=layer,
        expert=expert,
        num_experts=token_set.num_experts,
        top_k=token_set.top_k,
        selection=str(token_set),
        phase=token_set.phase,
        num_tokens=len(chosen),
        num_traces=len(of.edges) - 1,
        chosen=total,
        mean_weight=None if of.weight_sums is None or not total else float(of.weight_sums[expert] / total),
        rank_counts=tuple(hits.sum(0).tolist()),
        tokens=lifts.highest(of, top),
        min_count=min_count,
        num_ids=len(lifts.rows),
        num_above=0 if null is None else int((lifts.lift > null.lift).sum()),
        null=null,
        num_topics=0 if topics is None else int(topic_of.max()) + 1,
        channels=_rates(of.channels, chosen),
        roles=_rates(of.roles, chosen),
        positions=_positions(of, chosen),
        partners=_partners(of, expert, chosen),
        examples=tuple(_example(of, token, int(np.argmax(hits[token]))) for token in _spread(chosen, examples)),
    )


@dataclass(frozen=True)
class _Lifts:
    """The compared token ids: places in ``LayerChoices.ids``, and counts [row]."""

    rows: NDArray[np.int64]
    chosen: NDArray[np.int64]
    seen: NDArray[np.int64]
    expected: NDArray[np.float64]

    @classmethod
    def count(
        cls, of: LayerChoices, chosen: NDArray[np.bool_], topic_of: NDArray[np.int64], min_count: int
    ) -> "_Lifts":
        """Count the ids that are seen often enough, in topics that choose the expert at all."""
        topics = np.repeat(topic_of, np.diff(of.edges))
        tokens = np.bincount(topics)
        rates = np.bincount(topics, weights=chosen) / np.maximum(1, tokens)  # a topic without tokens is asked by none
        seen = np.bincount(of.rows)
        expected = np.bincount(of.rows, weights=rates[topics])
        rows = np.flatnonzero((seen >= min_count) & (expected > 0))
        hits = np.bincount(of.rows[chosen], minlength=len(seen))
        return cls(rows, hits[rows], seen[rows], expected[rows].astype(np.float64))

    @property
    def lift(self) -> NDArray[np.float64]:
        """[row]; rounded, so that equal shares are equal."""
        return (self.chosen / self.expected).round(9)

    def highest(self, of: LayerChoices, top: int) -> tuple[TokenLift, ...]:
        """Return the highest lifts; on a tie the id seen more often, then the lower id, is first."""
        order = np.lexsort((of.ids[self.rows], -self.seen, -self.lift))[:top]
        return tuple(self._row(of, i) for i in order.tolist())

    def _row(self, of: LayerChoices, i: int) -> TokenLift:
        row = self.rows[i]
        _, trace, token = of.trace_of(int(np.argmax(of.rows == row)))
        text, special = _token_text(trace, token)
        return TokenLift(int(of.ids[row]), text, special, int(self.chosen[i]), int(self.seen[i]), float(self.lift[i]))

    def shuffled(self, of: LayerChoices, chosen: NDArray[np.bool_], shuffles: int, seed: int) -> ShuffledLift | None:
        """Return the null of the highest lift.

        When ids are shuffled within a trace, the numbers of chosen tokens per id follow the multivariate
        hypergeometric distribution, so they are drawn from it.
        """
        if not len(self.rows):
            return None
        place = np.full(len(of.ids), len(self.rows))
        place[self.rows] = np.arange(len(self.rows))
        rng = np.random.default_rng(seed)
        counts = np.zeros((shuffles, len(self.rows) + 1), dtype=np.int64)  # the last place: ids that are not compared
        for start, stop in pairwise(of.edges.tolist()):
            here, seen = np.unique(place[of.rows[start:stop]], return_counts=True)
            hits = int(chosen[start:stop].sum())
            counts[:, here] += rng.multivariate_hypergeometric(seen, hits, size=shuffles, method="count")
        highest = (counts[:, :-1] / self.expected).max(1)
        return ShuffledLift(float(np.quantile(highest, QUANTILE, method="higher").round(9)), shuffles, seed)


def _topics(topics: Sequence[str] | None, num_traces: int) -> NDArray[np.int64]:
    """Return the topic of each trace as a number; one for all where none are given."""
    if topics is None:
        return np.zeros(num_traces, dtype=np.int64)
    if isinstance(topics, str) or len(topics) != num_traces:
        raise TraceError(f"expected a topic for each of the {num_traces} traces, got {topics!r}")
    names, numbers = np.unique(np.asarray(topics), return_inverse=True)
    if len(names) < 2:
        raise TraceError(f"expected at least two topics to compare tokens within, got {names.tolist()}")
    return numbers.astype(np.int64)


def _rates(groups: Groups | None, chosen: NDArray[np.bool_]) -> tuple[GroupRate, ...] | None:
    """Return the groups that have tokens, those of the format last."""
    if groups is None:
        return None
    tokens = np.bincount(groups.codes, minlength=len(groups.names)).tolist()
    hits = np.bincount(groups.codes[chosen], minlength=len(groups.names)).tolist()
    order = [*range(1, len(groups.names)), 0]
    return tuple(GroupRate(groups.names[i], hits[i], tokens[i]) for i in order if tokens[i])


def _positions(of: LayerChoices, chosen: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    tokens = np.bincount(of.bins, minlength=of.num_bins)
    hits = np.bincount(of.bins[chosen], minlength=of.num_bins)
    return tuple(zip(hits.tolist(), tokens.tolist(), strict=True))


def _partners(of: LayerChoices, expert: int, chosen: NDArray[np.bool_]) -> tuple[Partner, ...]:
    """Return the experts chosen together with this one, the most frequent first, the lower number on a tie."""
    num_tokens, num_experts = len(chosen), of.token_set.num_experts
    together = np.bincount(of.indices[chosen].ravel(), minlength=num_experts)
    each = np.bincount(of.indices.ravel(), minlength=num_experts).tolist()
    order = [j for j in np.argsort(-together, kind="stable").tolist() if j != expert and together[j]]
    return tuple(
        Partner(j, both, both / each[expert], both * num_tokens / (each[expert] * each[j]))
        for j, both in ((j, int(together[j])) for j in order)
    )


def _spread(chosen: NDArray[np.bool_], count: int) -> list[int]:
    """Return the tokens in the middle of `count` equal parts of those that chose the expert."""
    tokens = np.flatnonzero(chosen)
    count = min(count, len(tokens))
    return [int(tokens[(2 * i + 1) * len(tokens) // (2 * count)]) for i in range(count)]


def _example(of: LayerChoices, token: int, rank: int) -> Example:
    number, trace, at = of.trace_of(token)
    weight = None
    if trace.has("expert_weights", of.layer):
        weight = float(trace.arrays["expert_weights"][at, trace.layers("expert_weights").index(of.layer), rank])
    text, special = _token_text(trace, at)
    return Example(
        trace=number,
        name=f"trace {number}" if trace.path is None else trace.path.stem,
        token=at,
        rank=rank + 1,
        weight=weight,
        before=_context(trace, max(0, at - TOKENS_BEFORE), at),
        text=text,
        special=special,
        after=_context(trace, at + 1, min(len(trace), at + 1 + TOKENS_AFTER)),
    )


def _token_text(trace: Trace, at: int) -> tuple[str, bool]:
    """Return a token's text, and whether it is the format's own. Bytes that are no character are named in hex."""
    token_id = int(trace.arrays["token_ids"][at])
    if "vocab_ids" not in trace.arrays:
        return f"#{token_id}", False
    raw = trace.token_bytes(token_id)
    try:
        return raw.decode("utf-8"), trace.is_special(at)
    except UnicodeDecodeError:
        return f"⟨{raw.hex(' ')}⟩", trace.is_special(at)


def _context(trace: Trace, start: int, stop: int) -> str:
    """Return the text of a stretch, the format's own tokens as ⟨end⟩."""
    if "vocab_ids" not in trace.arrays:
        return "".join(f" #{token_id}" for token_id in trace.arrays["token_ids"][start:stop])
    pieces = []
    for at in range(start, stop):
        raw = trace.token_bytes(int(trace.arrays["token_ids"][at]))
        pieces.append("⟨".encode() + raw.strip(b"<|>") + "⟩".encode() if trace.is_special(at) else raw)
    return b"".join(pieces).decode("utf-8", "replace")

"""Which expert a token id goes to, beside the same of shuffled tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.counting import add_tokens
from workbench.analysis.routing.blocks import Blocks, Rows, aligned, choices
from workbench.analysis.routing.information import Information, entropy, mutual_information
from workbench.labelled import Labelled, TraceError

__all__ = ["TokenSpecialization", "token_information", "token_specialization"]


@dataclass(frozen=True)
class TokenSpecialization:
    """How much each token id goes to one expert, and how much it would if it were any token."""

    value: Labelled
    """[token_id, layer] float64, the share of the id's tokens that its most frequent top-1 expert takes"""
    null: Labelled
    """[token_id, layer] float64, the same of shuffled tokens: rare ids and busy experts make it large"""
    experts: Labelled
    """[token_id, layer] int64, that most frequent expert; the lower one on a tie"""
    counts: Labelled
    """[token_id] int64, how often the id was seen"""


def token_specialization(
    expert_indices: Blocks,
    token_ids: Blocks,
    num_experts: int,
    min_count: int = 10,
    *,
    num_shuffles: int = 1,
    seed: int = 0,
) -> TokenSpecialization:
    """Return ``max_e P(top-1 = e | token id)`` for the token ids seen often enough, and its null.

    The vocabulary specialization of Muennighoff et al. (OLMoE, arXiv 2409.02060, section 5.4), of input token ids;
    theirs also has output ids. A maximum over few tokens is large by itself. So beside each value stands the mean of
    the same where the token ids of a block, such as a trace of ``TokenSet.rows``, are shuffled among its tokens: what
    is above that is more than count, load and trace explain.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts by rank, or blocks of them; of one phase.
        token_ids: [token], or blocks of them: the ids of the same tokens.
        num_experts: E, of the model.
        min_count: ids seen less often are left out.
        num_shuffles: over how many shuffles the null is a mean; each takes as much memory as the counts
            [token id, layer, expert] in 32 bits.
        seed: of the shuffles.

    Returns:
        `TokenSpecialization`, of the ids ascending.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, rows that are not of the same tokens, or no id
            that was seen ``min_count`` times.
    """
    table = _count(expert_indices, token_ids, num_experts, min_count, num_shuffles, seed)
    total = table.totals[:, None]
    value = table.counts.max(-1) / total
    null = np.mean([shuffled.max(-1) for shuffled in table.shuffled], axis=0) / total
    ids = {"token_id": tuple(table.ids.tolist())}
    coords = {**ids, **table.coords}
    dims = ("token_id", "layer")
    what = "max P(top-1 expert | token id)"
    return TokenSpecialization(
        value=Labelled(value, dims, coords, f"{what}{table.source}"),
        null=Labelled(null, dims, coords, f"{what} of shuffled tokens{table.null_source}"),
        experts=Labelled(table.counts.argmax(-1), dims, coords, f"expert of {what}{table.source}"),
        counts=Labelled(table.totals, ("token_id",), ids, f"times seen{table.source}"),
    )


def token_information(
    expert_indices: Blocks,
    token_ids: Blocks,
    num_experts: int,
    min_count: int = 10,
    *,
    num_shuffles: int = 1,
    seed: int = 0,
) -> Information:
    """Return ``I(top-1 expert; token id) / H(top-1 expert)``: how much of the routing the token id alone tells.

    0: nothing; 1: the id decides the expert (the uncertainty coefficient; Theil, 1970). Biased upward, the more so
    the rarer the ids; the null is the mean of the same where ids are shuffled as in `token_specialization`.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts by rank, or blocks of them; of one phase.
        token_ids: [token], or blocks of them: the ids of the same tokens.
        num_experts: E, of the model.
        min_count: ids seen less often are left out, of both I and H.
        num_shuffles: over how many shuffles the null is a mean.
        seed: of the shuffles.

    Returns:
        `Information`, value and null [layer] float64, no units; NaN in a layer where all tokens go to one expert.

    Raises:
        TraceError: what `token_specialization` raises.
    """
    table = _count(expert_indices, token_ids, num_experts, min_count, num_shuffles, seed)
    null = np.mean([_share_told(shuffled) for shuffled in table.shuffled], axis=0)
    what = "I(top-1 expert; token id)/H(top-1 expert)"
    return Information(
        Labelled(_share_told(table.counts), ("layer",), table.coords, f"{what}, biased high{table.source}"),
        Labelled(null, ("layer",), table.coords, f"{what} of shuffled tokens{table.null_source}"),
    )


def _share_told(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``I / H`` [layer] of counts [row, layer, expert], a layer at a time."""
    layers = [counts[:, layer] for layer in range(counts.shape[1])]
    information = np.array([mutual_information(layer) for layer in layers])
    nats = np.array([entropy(layer.sum(0)) for layer in layers])
    told = np.full(len(nats), np.nan)
    np.divide(information, nats, out=told, where=nats > 0)
    return told


@dataclass(frozen=True)
class _Table:
    """Counts of the ids seen often enough, ascending."""

    ids: NDArray[np.int64]
    totals: NDArray[np.int64]
    counts: NDArray[np.uint32]
    """[token id, layer, expert]"""
    shuffled: list[NDArray[np.uint32]]
    coords: dict[str, tuple[int, ...]]
    source: str
    null_source: str


def _count(
    expert_indices: Blocks, token_ids: Blocks, num_experts: int, min_count: int, num_shuffles: int, seed: int
) -> _Table:
    """Count how often each token id goes to each top-1 expert, as it is and with the ids shuffled within blocks."""
    if min_count < 1 or num_shuffles < 1:
        raise TraceError(f"expected min_count and num_shuffles of at least 1, got {min_count} and {num_shuffles}")
    rows, ids = choices(expert_indices, num_experts), Rows(token_ids, ("token",), "token_ids")
    tables = [_Growing(rows.sizes["layer"], num_experts) for _ in range(1 + num_shuffles)]
    places: dict[int, int] = {}
    rng = np.random.default_rng(seed)
    for indices, here in aligned(rows, ids):
        if here.dtype.kind not in "iu":
            raise TraceError(f"expected integers as token_ids, got {here.dtype}")
        found, inverse = np.unique(here, return_inverse=True)
        row = np.array([places.setdefault(i, len(places)) for i in found.tolist()])[inverse]
        for number, table in enumerate(tables):
            table.add(rng.permutation(row) if number else row, indices[:, :, 0], len(places))
    totals = tables[0].counts[:, 0].sum(-1, dtype=np.int64)[: len(places)]
    seen = np.array(list(places))
    kept = np.argsort(seen)[totals[np.argsort(seen)] >= min_count]
    if not len(kept):
        raise TraceError(
            f"expected a token id seen {min_count} times or more, got {totals.max()} at most in {rows.num_tokens} "
            "tokens; take more tokens, or a lower min_count, which makes the null larger"
        )
    source = f", {len(kept)} token ids seen {min_count} times or more among {rows.num_tokens} tokens{rows.origin}"
    shuffles = f", mean of {num_shuffles}, seed {seed}" if num_shuffles > 1 else f", seed {seed}"
    counts, *shuffled = (table.counts[kept] for table in tables)
    return _Table(seen[kept], totals[kept], counts, shuffled, rows.coords, source, f"{shuffles}{source}")


class _Growing:
    """Counts [row, layer, expert] with room for more rows; 32 bits, as there are many."""

    def __init__(self, num_layers: int, num_experts: int) -> None:
        """Start without rows."""
        self.counts = np.zeros((0, num_layers, num_experts), dtype=np.uint32)

    def add(self, rows: NDArray[np.int64], top: NDArray[Any], num_rows: int) -> None:
        """Count the top-1 experts [token, layer] of tokens in rows below ``num_rows``."""
        if num_rows > len(self.counts):
            grown = np.zeros((2 * num_rows, *self.counts.shape[1:]), dtype=np.uint32)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        add_tokens(rows, top, self.counts)

"""Which expert a token id goes to, beside the same of shuffled tokens."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.counting import add_tokens
from workbench.analysis.routing.blocks import Blocks, Rows, aligned, choices
from workbench.analysis.routing.information import Information, entropy, mutual_information
from workbench.labelled import Labelled, TraceError

__all__ = ["TokenSpecialization", "token_information", "token_specialization"]

_TABLE = 48 << 20  # bytes of counts at a time
_GATHERED = 200_000  # tokens to count at a time, of the blocks of many traces
_RARE = 255  # times: what 8 bits can count
_LARGEST_ID = (1 << 24) - 1

Parts: TypeAlias = tuple[NDArray[Any], NDArray[Any]]
"""counts [layer, token id, expert] uint32, and the same of the rare ids, uint8"""


@dataclass(frozen=True, eq=False)
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

    The vocabulary specialization of Muennighoff et al. (OLMoE, arXiv 2409.02060), of input token ids;
    theirs also has output ids. A maximum over few tokens is large by itself. So beside each value stands the mean of
    the same where the token ids of a block, such as a trace of ``TokenSet.rows``, are shuffled among its tokens: what
    is above that is more than count, load and trace explain.

    Args:
        expert_indices: [token, layer, top_k], the chosen experts by rank, or blocks of them; of one phase.
        token_ids: [token], or blocks of them: the ids of the same tokens.
        num_experts: E, of the model.
        min_count: ids seen less often are left out.
        num_shuffles: over how many shuffles the null is a mean.
        seed: of the shuffles.

    Blocks are gone through several times, for some layers at a time, so that memory stays within 100 MB for the
    tens of thousands of ids of a large corpus. Those of an iterator, which gives them only once, are kept.

    Returns:
        `TokenSpecialization`, of the ids ascending.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, rows that are not of the same tokens, or no id
            that was seen ``min_count`` times.
    """
    table = _Counts(expert_indices, token_ids, num_experts, min_count, num_shuffles, seed)
    most, experts, null = _busiest(table)
    ascending = np.argsort(table.ids)
    most, null, experts = (each.T[ascending] for each in (most, null, experts))
    total = table.totals[ascending, None]
    ids = {"token_id": tuple(table.ids[ascending].tolist())}
    coords = {**ids, **table.coords}
    dims = ("token_id", "layer")
    what = "max P(top-1 expert | token id)"
    return TokenSpecialization(
        value=Labelled(most / total, dims, coords, f"{what}{table.source}"),
        null=Labelled(null / (total * num_shuffles), dims, coords, f"{what} of shuffled tokens{table.null_source}"),
        experts=Labelled(experts.astype(np.int64), dims, coords, f"expert of {what}{table.source}"),
        counts=Labelled(total[:, 0], ("token_id",), ids, f"times seen{table.source}"),
    )


def _busiest(table: "_Counts") -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the largest counts, their experts, and the largest of shuffled tokens, [layer, token id] each."""
    most, experts, null = np.zeros((3, table.num_layers, len(table.ids)), dtype=np.uint32)
    for layers, parts in table:
        for counts, ids in zip(parts, table.places, strict=True):
            counts.max(-1, out=most[layers, ids])
            experts[layers, ids] = counts.argmax(-1)
        del parts, counts  # before the next are made, as they are large
    for layers, parts in table.shuffled():
        for counts, ids in zip(parts, table.places, strict=True):
            null[layers, ids] += counts.max(-1)
        del parts, counts
    return most, experts, null


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
    table = _Counts(expert_indices, token_ids, num_experts, min_count, num_shuffles, seed)
    value, null = np.zeros((2, table.num_layers))
    for layers, parts in table:
        value[layers] = _share_told(parts)
    for layers, parts in table.shuffled():
        null[layers] += _share_told(parts) / num_shuffles
    what = "I(top-1 expert; token id)/H(top-1 expert)"
    return Information(
        Labelled(value, ("layer",), table.coords, f"{what}, biased high{table.source}"),
        Labelled(null, ("layer",), table.coords, f"{what} of shuffled tokens{table.null_source}"),
    )


def _share_told(parts: Parts) -> NDArray[np.float64]:
    """Return ``I / H`` [layer], a layer at a time."""
    layers = (np.concatenate([counts[layer] for counts in parts]) for layer in range(len(parts[0])))
    information, nats = np.array([(mutual_information(layer), entropy(layer.sum(0))) for layer in layers]).T
    told = np.full(len(nats), np.nan)
    np.divide(information, nats, out=told, where=nats > 0)
    return told


class _Counts:
    """How often each token id seen often enough goes to each top-1 expert.

    Iterate for counts [layer, token id, expert] of some layers at a time, a pass over all blocks each; in two parts,
    of which the second has the rare ids. ``ids`` and ``totals`` are in the order of the two.
    """

    def __init__(
        self, expert_indices: Blocks, token_ids: Blocks, num_experts: int, min_count: int, num_shuffles: int, seed: int
    ) -> None:
        """Count the ids alone, in a first pass."""
        if min_count < 1 or num_shuffles < 1:
            got = f"{min_count} and {num_shuffles}"
            raise TraceError(f"expected min_count and num_shuffles of at least 1, got {got}")
        self._given = tuple(
            list(given) if isinstance(given, Iterator) else given for given in (expert_indices, token_ids)
        )
        self._num_experts, self._num_shuffles, self._seed = num_experts, num_shuffles, seed
        rows, pairs = self._pass()
        seen = np.zeros(0, dtype=np.int64)
        for _, ids in pairs:
            found = np.bincount(_checked(ids), minlength=len(seen))
            found[: len(seen)] += seen
            seen = found
        kept = np.flatnonzero(seen >= min_count)
        self.ids = kept[np.argsort(seen[kept] <= _RARE, kind="stable")]
        self._num_rare = int((seen[kept] <= _RARE).sum())
        num_common = len(kept) - self._num_rare
        self.places = slice(0, num_common), slice(num_common, len(kept))  # of the ids of the two parts
        if not len(kept):
            raise TraceError(
                f"expected a token id seen {min_count} times or more, got {seen.max()} at most in {rows.num_tokens} "
                "tokens; take more tokens, or a lower min_count, which makes the null larger"
            )
        self.totals = seen[self.ids]
        self._row_of = np.full(len(seen), -1, dtype=np.int32)
        self._row_of[self.ids] = np.arange(len(self.ids))
        self.num_layers, self.coords = rows.sizes["layer"], rows.coords
        often = f"{len(kept)} token ids seen {min_count} times or more"
        self.source = f", {often} among {rows.num_tokens} tokens{rows.origin}"
        shuffles = f", mean of {num_shuffles}" if num_shuffles > 1 else ""
        self.null_source = f"{shuffles}, seed {seed}{self.source}"

    def __iter__(self) -> Iterator[tuple[slice, Parts]]:
        """Yield layers and their counts."""
        return self._groups(None)

    def shuffled(self) -> Iterator[tuple[slice, Parts]]:
        """Yield the same of each shuffle of the ids within the blocks; shuffled alike for every layer."""
        for shuffle in range(self._num_shuffles):
            yield from self._groups(shuffle)

    def _groups(self, shuffle: int | None) -> Iterator[tuple[slice, Parts]]:
        rare, often = self._num_rare, len(self.ids) - self._num_rare
        size = max(1, _TABLE // ((rare + 4 * often) * self._num_experts))
        for start in range(0, self.num_layers, size):
            layers = slice(start, min(start + size, self.num_layers))
            yield layers, self._count(layers, shuffle)

    def _count(self, layers: slice, shuffle: int | None) -> Parts:
        length, often = layers.stop - layers.start, len(self.ids) - self._num_rare
        counts = np.zeros((length, often, self._num_experts), dtype=np.uint32)
        few = np.zeros((length, self._num_rare, self._num_experts), dtype=np.uint8)
        for rows, top in _gathered(self._first_choices(layers, shuffle)):
            add_tokens(rows, top, counts, few)
        return counts, few

    def _first_choices(
        self, layers: slice, shuffle: int | None
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]]:
        """Yield each block's rows of counts [token], perhaps shuffled, and top-1 experts [token, layer]."""
        rng = None if shuffle is None else np.random.default_rng([self._seed, shuffle])
        for indices, ids in self._pass()[1]:
            rows = self._row_of[ids]
            yield rows if rng is None else rng.permutation(rows), np.ascontiguousarray(indices[:, layers, 0])

    def _pass(self) -> tuple[Rows, Iterator[tuple[NDArray[Any], NDArray[Any]]]]:
        """Return what is read, and the blocks to go through once."""
        rows = choices(self._given[0], self._num_experts)
        return rows, aligned(rows, Rows(self._given[1], ("token",), "token_ids"))


def _gathered(
    blocks: Iterator[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]]:
    """Put blocks together until there are enough tokens for what comes next to be quick."""
    while gathered := list(_until_enough(blocks)):
        rows, top = zip(*gathered, strict=True)
        yield np.concatenate(rows), np.concatenate(top)


def _until_enough(
    blocks: Iterator[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.integer[Any]]]]:
    tokens = 0
    for rows, top in blocks:
        yield rows, top
        tokens += len(rows)
        if tokens >= _GATHERED:
            return


def _checked(ids: NDArray[Any]) -> NDArray[Any]:
    if ids.dtype.kind not in "iu":
        raise TraceError(f"expected integers as token_ids, got {ids.dtype}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > _LARGEST_ID:
        raise TraceError(f"expected token_ids within 0–{_LARGEST_ID}, got {low if low < 0 else high}")
    return ids.astype(np.int64)

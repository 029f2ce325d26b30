"""Endless training batches that depend on the seed and the tokens seen, and on nothing else."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from .grammar import FIRST_PHASE, SECOND_PHASE, Example, Phase, draw_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORED = -100
_POOL_SIZE = 1024


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: input_ids and labels [row, token]; labels are already shifted by one."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    num_tokens: int
    num_trained: int


@dataclass
class Cursor:
    """Where the stream stands: the pool, the step within it, tokens before the pool and until now."""

    pool: int = 0
    step: int = 0
    tokens_before_pool: int = 0
    tokens: int = 0


def encode(example: Example, tokenizer: "PreTrainedTokenizerFast") -> tuple[list[int], list[int]]:
    """Token ids and labels: the assistant's tokens but for planted slips; shifted, so label i is token i+1."""
    prompt = example.prompt()
    start = len(prompt)
    encoding = tokenizer(prompt + example.completion(), add_special_tokens=False, return_offsets_mapping=True)
    offset = (prompt + example.completion()).index(example.analysis, start) if example.slips else start
    ids: list[int] = encoding["input_ids"]
    labels = [
        token if begin >= start and not any(a <= begin - offset < b for a, b in example.slips) else IGNORED
        for token, (begin, _) in zip(ids, encoding["offset_mapping"], strict=True)
    ]
    return ids[:-1], labels[1:]


def collate(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    """Pad rows on the right."""
    width = max(len(ids) for ids, _ in rows)
    input_ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORED)
    for i, (ids, label) in enumerate(rows):
        input_ids[i, : len(ids)] = torch.tensor(ids)
        labels[i, : len(label)] = torch.tensor(label)
    return Batch(input_ids, labels, sum(len(ids) for ids, _ in rows), int((labels != IGNORED).sum()))


def stream(
    tokenizer: "PreTrainedTokenizerFast",
    seed: int,
    first_phase_tokens: float,
    batch_tokens: int,
    batches_per_step: int,
    cursor: Cursor,
    draw: Callable[[random.Random, Phase], Example] = draw_example,
) -> Iterator[list[Batch]]:
    """Yield the batches of each step, moving `cursor`; a cursor read from a checkpoint goes on exactly.

    A pool of examples is drawn at once, sorted by length and cut into batches of at most `batch_tokens`
    padded tokens; batches of one step are neighbours in length, the order of steps is shuffled.
    """
    while True:
        phase = FIRST_PHASE if cursor.tokens_before_pool < first_phase_tokens else SECOND_PHASE
        rng = random.Random(f"{seed}/{cursor.pool}")
        steps = _pool(rng, partial(draw, rng, phase), tokenizer, batch_tokens, batches_per_step)
        while cursor.step < len(steps):
            step = steps[cursor.step]
            cursor.step += 1
            cursor.tokens += sum(batch.num_tokens for batch in step)
            yield step
        cursor.pool += 1
        cursor.step = 0
        cursor.tokens_before_pool = cursor.tokens


def _pool(
    rng: random.Random,
    draw: Callable[[], Example],
    tokenizer: "PreTrainedTokenizerFast",
    batch_tokens: int,
    batches_per_step: int,
) -> list[list[Batch]]:
    rows = [encode(draw(), tokenizer) for _ in range(_POOL_SIZE)]
    rows.sort(key=lambda row: len(row[0]))
    batches: list[list[tuple[list[int], list[int]]]] = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) + 1) * len(row[0]) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    num_steps = len(batches) // batches_per_step
    order = rng.sample(range(num_steps), num_steps)
    pad = tokenizer.pad_token_id
    return [[collate(rows, pad) for rows in batches[i * batches_per_step : (i + 1) * batches_per_step]] for i in order]

"""Many rollouts at once and without capture: for experiments that count answers, not what the model did inside."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from workbench.families import ModelError
from workbench.model import Model
from workbench.rollout import check_temperature

__all__ = ["Batched", "Completion", "Cost"]

PROBE_TOKENS = 8
"""Tokens generated to measure what a rollout costs"""

Completion = tuple[int, ...]
"""New token ids of a rollout, its end token included"""


@dataclass(frozen=True)
class Cost:
    """What rollouts will take, said before they start."""

    rollouts: int
    tokens: int
    """at most, per rollout"""
    seconds_per_token: float
    """measured on a first batch, reading its prefixes included, per token and rollout"""

    @property
    def seconds(self) -> float:
        """Of all; most rollouts end before their last token, and then it is less."""
        return self.rollouts * self.tokens * self.seconds_per_token

    def __str__(self) -> str:
        """Write 320 rollouts × at most 40 tokens × 0.90 ms measured: at most 12 s."""
        each = f"{1000 * self.seconds_per_token:.2g} ms measured"
        return f"{self.rollouts:,} rollouts × at most {self.tokens:,} tokens × {each}: at most {self.seconds:,.0f} s"


@dataclass
class Batched:
    """Completes many prefixes in left-padded batches.

    A rollout depends on its prefix, on ``seed`` and on its number (0, 1, 2… in the order asked for), not on the batch
    it happens to be in, up to the last digits of floating-point sums: each number has random numbers of its own.

    Attributes:
        model: from `workbench.load`, any family.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        seed: of the sampling; the global random state is left alone.
        batch_size: rollouts at a time; lower it where memory does not suffice.
        interrupted: Ctrl-C was pressed; what was asked for since is missing.
    """

    model: Model
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 64
    interrupted: bool = field(default=False, init=False)
    _next: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_temperature(self.temperature)
        if self.batch_size < 1:
            raise ModelError(f"expected a batch of at least 1 rollout, got {self.batch_size}")

    def cost(self, prefixes: Sequence[Sequence[int]], rollouts: int, max_new_tokens: int) -> Cost:
        """Measure a short first batch and return what ``rollouts`` of these prefixes will cost."""
        some = sorted(prefixes, key=len)[-self.batch_size :] * -(-self.batch_size // max(len(prefixes), 1))
        some = some[: max(1, min(self.batch_size, rollouts))]
        tokens = max(1, min(PROBE_TOKENS, max_new_tokens))
        for timed in (1, tokens):  # the first call of a model is slower than the rest
            started = time.perf_counter()
            self._generate(some, [0] * len(some), timed, None, ends=False)
        return Cost(rollouts, max_new_tokens, (time.perf_counter() - started) / (tokens * len(some)))

    def complete(
        self,
        prefixes: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        stop: Callable[[Sequence[int]], bool] | None = None,
        progress: str = "rollouts",
    ) -> list[Completion | None]:
        """Complete each prefix once; give a prefix several times for several rollouts of it.

        Ctrl-C ends it: what was not finished is None, and ``interrupted`` is set, after which nothing is generated.

        Args:
            prefixes: token ids of each.
            max_new_tokens: at most so many new tokens; fewer where the context ends.
            stop: told the new tokens of a rollout after each, says whether that one is done.
            progress: what the progress bar says.

        Raises:
            ModelError: an empty prefix, one that leaves no room in the context, or fewer than one new token.
        """
        self._check(prefixes, max_new_tokens)
        numbers = range(self._next, self._next + len(prefixes))
        self._next += len(prefixes)
        done: list[Completion | None] = [None] * len(prefixes)
        order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
        starts = range(0, len(order), self.batch_size)
        with tqdm(total=len(prefixes), desc=progress, unit="rollout", delay=2, leave=False) as bar:
            try:
                for start in starts if not self.interrupted else ():
                    batch = order[start : start + self.batch_size]
                    found = self._generate(
                        [prefixes[i] for i in batch], [numbers[i] for i in batch], max_new_tokens, stop
                    )
                    for i, completion in zip(batch, found, strict=True):
                        done[i] = completion
                    bar.update(len(batch))
            except KeyboardInterrupt:
                self.interrupted = True
        return done

    def _check(self, prefixes: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        self.model.require_here("batches of rollouts")
        if max_new_tokens < 1:
            raise ModelError(f"expected max_new_tokens of at least 1, got {max_new_tokens}")
        lengths = [len(prefix) for prefix in prefixes]
        if lengths and min(lengths) < 1:
            raise ModelError("expected at least one token to go on from, got an empty prefix")
        if lengths and max(lengths) >= self.model.context_length:
            raise ModelError(
                f"a prefix of {max(lengths)} tokens leaves no room in the context of {self.model.name}, which holds "
                f"{self.model.context_length}; shorten the question or the chain"
            )

    def _generate(
        self,
        prefixes: Sequence[Sequence[int]],
        numbers: Sequence[int],
        max_new_tokens: int,
        stop: Callable[[Sequence[int]], bool] | None,
        ends: bool = True,
    ) -> list[Completion]:
        width = max(len(prefix) for prefix in prefixes)
        # Each row by itself: what a longer prefix beside it leaves of the context is not its concern.
        room = [min(max_new_tokens, self.model.context_length - len(prefix)) for prefix in prefixes]
        limit = max(room)
        end_ids = self.model.end_token_ids if ends else []
        pad = end_ids[0] if end_ids else 0
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prefixes], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes], device=self.model.device)
        watch = _Watch(width, room, end_ids, stop)
        with torch.no_grad():
            out = self.model.hf.generate(
                ids,
                attention_mask=mask,
                generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                    do_sample=False,
                    max_new_tokens=limit,
                    eos_token_id=end_ids or None,
                    pad_token_id=pad,
                    disable_compile=True,
                ),
                past_key_values=DynamicCache(config=self.model.config),
                logits_processor=LogitsProcessorList(self._draws(numbers, limit)),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
        rows = out[:, width:].tolist()
        return [tuple(row[:length]) for row, length in zip(rows, watch.lengths, strict=True)]

    def _draws(self, numbers: Sequence[int], limit: int) -> "list[LogitsProcessor]":
        if self.temperature == 0:
            return []
        uniform = np.stack([np.random.Generator(np.random.Philox(key=[self.seed, n])).random(limit) for n in numbers])
        return [_Draw(self.temperature, torch.from_numpy(uniform).to(self.model.device))]


class _Draw(LogitsProcessor):
    """Draws a token of each row by that row's own random number, and leaves the greedy choice no other."""

    def __init__(self, temperature: float, uniform: Tensor) -> None:
        self.temperature, self.uniform, self.step = temperature, uniform, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [row, vocabulary]: inverse of the cumulative distribution, in float64."""
        cumulative = (scores.double() / self.temperature).softmax(-1).cumsum(-1)
        wanted = self.uniform[:, self.step, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        self.step += 1
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)


class _Watch(StoppingCriteria):
    """Notes how many tokens of each row are its own, and says which rows are done."""

    def __init__(
        self, width: int, room: Sequence[int], end_ids: Sequence[int], stop: Callable[[Sequence[int]], bool] | None
    ) -> None:
        self.width, self.room, self.end_ids, self.stop = width, room, frozenset(end_ids), stop
        self.lengths = [0] * len(room)
        self.done = [False] * len(room)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Look at the new token of each row that still goes on."""
        for row, tokens in enumerate(input_ids[:, self.width :].tolist()):
            if not self.done[row]:
                self.lengths[row] = len(tokens)
                ended = tokens[-1] in self.end_ids or bool(self.stop and self.stop(tokens))
                self.done[row] = ended or len(tokens) >= self.room[row]
        return torch.tensor(self.done, device=input_ids.device)

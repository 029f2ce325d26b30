"""One rollout: transformers' ``generate``, watched after every token."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from workbench.collect import Collector
from workbench.families import ModelError
from workbench.model import Model

__all__ = ["READ_CHUNK", "Rollout", "check_temperature", "read"]

READ_CHUNK = 512
"""Tokens of one forward over known text; the hooks hold what such a forward shows until it is collected."""


class Rollout(StoppingCriteria):
    """One run of transformers' ``generate``, watched from its stopping criterion after every token."""

    def __init__(
        self,
        model: Model,
        prompt: list[int],
        limit: int,
        temperature: float,
        seed: int,
        listener: Callable[[int], bool],
    ) -> None:
        """Take what was decided: the model goes on after ``prompt``; ``listener`` hears each token and may stop it."""
        self.model, self.limit, self.temperature, self.seed = model, limit, temperature, seed
        self.prompt, self.listener = prompt, listener
        self.token_ids = list(prompt)
        self.ended: str | None = None
        """why the rollout was cut; None when the model ended it"""
        self._collector: Collector | None = None
        self._progress: Any = None

    def go(self, collector: Collector) -> None:
        """Generate, collect, and read the last token too, which generation itself never feeds."""
        self._collector = collector
        cache = DynamicCache(config=self.model.config)
        try:
            self._read_ahead(collector, cache)
            with tqdm(
                total=self.limit, desc="capture", unit="token", delay=2, mininterval=0.5, leave=False
            ) as self._progress:
                self._generate(cache)
                self._progress.total = self._progress.n  # in a notebook a bar that ends short of it stays, in red
            forward(self.model, self.token_ids[-1:], cache)
            collector.finish(self.token_ids)
        except KeyboardInterrupt:
            self._keep_what_is_done(collector)
        except Exception:
            # What was read is kept, on disk too; and where sampling failed for NaN, this says so.
            collector.finish(self.token_ids)
            raise

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Note the new token; collect what it brought; say whether to stop."""
        token = int(input_ids[0, -1])
        self.token_ids.append(token)
        self._progress.update()
        new = len(self.token_ids) - len(self.prompt)
        if self._collector is not None:
            self._collector.collect(self.token_ids)
        stop = self.listener(token)
        if stop:
            self.ended = f"stopped after {new} tokens"
        elif new >= self.limit and token not in self.model.end_token_ids:
            self.ended = f"cut at {new} tokens"
        return torch.full((1,), stop, device=input_ids.device)

    def _read_ahead(self, collector: Collector, cache: DynamicCache) -> None:
        """Read a long prompt in pieces, so that the hooks never hold more than one; `generate` reads the rest."""
        read(self.model, self.prompt, (len(self.prompt) - 1) // READ_CHUNK * READ_CHUNK, cache, collector)

    def _generate(self, cache: DynamicCache) -> None:
        prompt = torch.tensor([self.prompt], device=self.model.device)
        # The seed goes to every GPU.
        initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        devices = range(torch.cuda.device_count()) if initialized else ()
        with torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            self.model.hf.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=self._config(),
                past_key_values=cache,
                stopping_criteria=StoppingCriteriaList([self]),
            )

    def _config(self) -> GenerationConfig:
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            # top_k=0 and top_p=1 leave the distribution whole; transformers' own default keeps 50 tokens.
            sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        ends = self.model.end_token_ids
        return GenerationConfig(  # type: ignore[no-untyped-call]
            **sampling,
            max_new_tokens=self.limit,
            eos_token_id=ends or None,
            pad_token_id=ends[0] if ends else 0,
            # A compiled forward would never call the hooks.
            disable_compile=True,
        )

    def _keep_what_is_done(self, collector: Collector) -> None:
        collector.finish(self.token_ids)
        if collector.rows <= len(self.prompt):
            raise KeyboardInterrupt("interrupted before the first token was captured")
        # A token without a row of its own is dropped: every array has one row per token.
        self.token_ids = self.token_ids[: collector.rows]
        self.ended = f"interrupted after {collector.rows - len(self.prompt)} tokens"


def check_temperature(temperature: float) -> None:
    """Raise `ModelError` unless it is 0 or more, and finite."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ModelError(f"expected a temperature of 0 (greedy) or more, got {temperature}")


def read(model: Model, token_ids: Sequence[int], stop: int, cache: DynamicCache, collector: Collector) -> None:
    """Read the first tokens of known text, up to ``stop``, and collect them, in pieces of `READ_CHUNK`."""
    for start in tqdm(range(0, stop, READ_CHUNK), "read", delay=2, leave=False):
        forward(model, token_ids[start : min(start + READ_CHUNK, stop)], cache)
        collector.collect(token_ids)


def forward(model: Model, token_ids: Sequence[int], cache: DynamicCache) -> None:
    """Read tokens after those in the cache; only the last row's logits are made."""
    ids = torch.tensor([list(token_ids)], device=model.device)
    model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)

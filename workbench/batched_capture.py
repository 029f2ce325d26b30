"""Many rollouts at once with capture: a left-padded batch, split back to a trace for each prompt.

A hook sees the whole batch, padding and rollouts that have ended included; router tensors come as [batch · column, …].
Columns of the batch are kept for a while, then each rollout's own are handed to a `Collector` of its own, as if it had
been read alone. Padding takes no part: the mask hides it, and positions count from each prompt's first token.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from workbench import harmony
from workbench.assemble import assemble, describe
from workbench.capturing import Conversation, asked_question, token_limit
from workbench.collect import Collector
from workbench.families import ModelError
from workbench.hooks import WHOLE, Forward, Recorder, attach, rows_of
from workbench.model import Model
from workbench.ring import STRETCH_ROWS
from workbench.rollout import READ_CHUNK, check_temperature
from workbench.sizing import check_room
from workbench.spec import CaptureSpec
from workbench.trace import Trace

__all__ = ["Prompt", "capture_batch"]


class Prompt(NamedTuple):
    """What one rollout of a batch begins with."""

    conversation: Conversation
    """a question, or messages"""
    effort: str | None = "medium"
    seed: int = 0
    """of its sampling"""


def capture_batch(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    capture: CaptureSpec | None = None,
    on_trace: Callable[[int, Trace], None] | None = None,
) -> list[Trace]:
    """Generate a rollout of each prompt, all at once, and record what the model did at every token of each.

    Each draws with random numbers of its own, the same as in `workbench.capture` with its seed. Tokens and expert
    sets are those of single runs; values differ in the last digits of floating-point sums, which come in another
    order, so in float32 a choice can differ only where two are equal to about 1e-6, and in bfloat16 more often.

    Args:
        model: from `workbench.load`, any family.
        prompts: of one batch; alike in length they waste least, since all go on until the last has ended.
        max_new_tokens: of each; default: as many as the context holds.
        temperature: as in `workbench.capture`.
        capture: what to record; default: everything but the residual stream.
        on_trace: told the number and trace of each rollout as it ends, so that nothing done waits for the slowest.

    Returns:
        The traces in the order of the prompts.

    Raises:
        ModelError: no prompt, a number out of range, a prompt longer than the context, or no room for the batch.
        HarmonyError: an empty question, or an effort the template does not know.
        KeyboardInterrupt: Ctrl-C; what has not ended by then is dropped.
    """
    if not prompts:
        raise ModelError("expected at least one prompt, got none")
    check_temperature(temperature)
    spec = capture or CaptureSpec()
    known = [harmony.render(model.tokenizer, p.conversation, p.effort) for p in prompts]
    limits = [token_limit(model, len(ids), max_new_tokens) for ids in known]
    longest = max(len(ids) + limit for ids, limit in zip(known, limits, strict=True))
    check_room(model, spec, longest, rollouts=len(prompts))
    traces: dict[int, Trace] = {}

    def keep(number: int, trace: Trace) -> None:
        traces[number] = trace
        if on_trace is not None:
            on_trace(number, trace)

    with attach(model, spec.plan(model)) as recorder, torch.no_grad(), ExitStack() as stack:
        width = max(map(len, known))
        rows = [
            _Row(model, spec, recorder.seams, number, prompt, ids, width, limit, temperature, len(prompts))
            for number, (prompt, ids, limit) in enumerate(zip(prompts, known, limits, strict=True))
        ]
        for row in rows:
            stack.enter_context(row.collector)
        _Batch(model, recorder, rows, temperature, keep).go()
    return [traces[number] for number in range(len(prompts))]


class _Row:
    """One rollout: its place in the batch and the collector of its own rows."""

    def __init__(
        self,
        model: Model,
        spec: CaptureSpec,
        seams: dict[str, str],
        number: int,
        prompt: Prompt,
        token_ids: list[int],
        width: int,
        limit: int,
        temperature: float,
        batch_size: int,
    ) -> None:
        self.number, self.padding, self.limit = number, width - len(token_ids), limit
        self.token_ids, self.prompt_length = list(token_ids), len(token_ids)
        self.generator = torch.Generator(model.device).manual_seed(prompt.seed)
        self.recorder = Recorder(seams=dict(seams))
        self.collector = Collector(model, spec, self.recorder)
        self.done = False
        self._model, self._given, self._started = model, 0, time.monotonic()
        sampling = {"temperature": temperature, "top_p": 1.0, "seed": prompt.seed, "max_new_tokens": limit}
        said = {"question": asked_question(prompt.conversation), "effort": prompt.effort}
        facts = {**said, "sampling": sampling, "batch_size": batch_size}
        self.meta = describe(self.collector, self.prompt_length, "live", facts)

    def add(self, token: int) -> None:
        """Note a new token, and whether it is the last."""
        self.token_ids.append(token)
        new = len(self.token_ids) - self.prompt_length
        ended = token in self._model.end_token_ids
        if new >= self.limit and not ended:
            self.meta["truncated"] = f"cut at {new} tokens"
        self.done = ended or new >= self.limit

    def take(self, columns: dict[tuple[str, int], Tensor], first: int) -> None:
        """Collect what is this rollout's own of tensors [batch, column, width] that begin at column ``first``."""
        count = columns[("final", WHOLE)].shape[1]
        start = max(self.padding - first, 0)
        stop = min(self.padding + len(self.token_ids) - first, count)
        if stop <= start:
            return
        seen: Forward = {}
        for key, tensor in columns.items():
            missing = count - tensor.shape[1]  # reading a prompt makes the logits of its last column only
            seen[key] = [tensor[self.number, max(start - missing, 0) : max(stop - missing, 0)]]
        self._given += 1
        self.recorder.forwards[self._given] = seen
        self.collector.collect(self.token_ids)

    def is_read(self, columns: int) -> bool:
        """Say whether the rollout has ended, and its last token was read within so many columns."""
        return self.done and columns >= self.padding + len(self.token_ids)

    def trace(self) -> Trace:
        """Wait until all is written, and put it together."""
        self.collector.finish(self.token_ids)
        self.meta["provenance"]["seconds"] = time.monotonic() - self._started
        return assemble(self.collector, self.meta)


class _Batch(StoppingCriteria):
    """One run of transformers' ``generate`` over a batch, watched after every token of it."""

    def __init__(
        self,
        model: Model,
        recorder: Recorder,
        rows: Sequence[_Row],
        temperature: float,
        keep: Callable[[int, Trace], None],
    ) -> None:
        self.model, self.recorder, self.rows, self.temperature, self.keep = model, recorder, rows, temperature, keep
        self._open = list(rows)
        self._columns = 0
        """handed to the rows"""
        self._read_ahead = 0
        """columns read before `generate` reads the rest"""

    def go(self) -> None:
        """Read, generate, and read the last column too, which generation itself never feeds."""
        end_ids = self.model.end_token_ids
        pad = end_ids[0] if end_ids else 0
        device, cache = self.model.device, DynamicCache(config=self.model.config)
        ids = torch.tensor([[pad] * row.padding + row.token_ids for row in self.rows], device=device)
        mask = torch.tensor([[0] * row.padding + [1] * row.prompt_length for row in self.rows], device=device)
        width = ids.shape[1]
        self._read_ahead = (width - 1) // READ_CHUNK * READ_CHUNK
        for start in range(0, self._read_ahead, READ_CHUNK):
            self._forward(ids, mask, slice(start, start + READ_CHUNK), cache)
        try:
            ids = self.model.hf.generate(
                ids,
                attention_mask=mask,
                generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                    do_sample=False,
                    max_new_tokens=max(row.limit for row in self.rows),
                    eos_token_id=end_ids or None,
                    pad_token_id=pad,
                    disable_compile=True,  # a compiled forward would never call the hooks
                ),
                past_key_values=cache,
                logits_processor=LogitsProcessorList([_Draw(self.rows, self.temperature)] if self.temperature else []),
                stopping_criteria=StoppingCriteriaList([self]),
            )
        except RuntimeError:  # where drawing failed for NaN, the rows say where it came from
            if self.recorder.forwards:
                self._split()
            with self.recorder.pause():
                for row in self._open:
                    row.collector.finish(row.token_ids)
            raise
        if self._open:
            mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - width), value=1)
            self._forward(ids, mask, slice(ids.shape[1] - 1, ids.shape[1]), cache)

    def _forward(self, ids: Tensor, mask: Tensor, columns: slice, cache: DynamicCache) -> None:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self.model.hf(
            input_ids=ids[:, columns],
            attention_mask=mask[:, : columns.stop],
            position_ids=positions[:, columns],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._split()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Note the new tokens; now and then hand over what the hooks hold; say which rollouts are done."""
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if not row.done:
                row.add(token)
        if self._columns == self._read_ahead or len(self.recorder.forwards) >= STRETCH_ROWS:
            self._split()
        return torch.tensor([row.done for row in self.rows], device=input_ids.device)

    def _split(self) -> None:
        """Hand each rollout its own rows of the forwards that the hooks hold; one `cat` of all for each hook point."""
        held = [self.recorder.forwards.pop(number) for number in sorted(self.recorder.forwards)]
        parts = {key: [self._by_column(forward, *key) for forward in held] for key in held[0]}
        columns = {key: found[0] if len(found) == 1 else torch.cat(found, dim=1) for key, found in parts.items()}
        first = self._columns
        self._columns += columns[("final", WHOLE)].shape[1]
        with self.recorder.pause():  # the lens calls the model's own modules
            for row in list(self._open):
                row.take(columns, first)
                if row.is_read(self._columns):
                    self._open.remove(row)
                    self.keep(row.number, row.trace())

    def _by_column(self, forward: Forward, point: str, layer: int) -> Tensor:
        """Return what a forward showed at a hook point as [batch, column, width]."""
        rows = rows_of(forward, point, layer)
        shared = forward[(point, layer)][0].shape[0] == 1 and point.startswith("rotary")  # the same for all
        by_column = rows.view(1 if shared else len(self.rows), -1, rows.shape[-1])
        return by_column.expand(len(self.rows), -1, -1)


class _Draw(LogitsProcessor):
    """Draws a token of each rollout as transformers would of it alone, and leaves the greedy choice no other."""

    def __init__(self, rows: Sequence[_Row], temperature: float) -> None:
        self.rows, self.temperature = rows, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [batch, vocabulary] in float32."""
        probs = (scores / self.temperature).softmax(-1)
        tokens = torch.zeros((len(self.rows), 1), dtype=torch.long, device=scores.device)
        for row in self.rows:
            if not row.done:
                at = slice(row.number, row.number + 1)
                tokens[at] = torch.multinomial(probs[at], 1, generator=row.generator)
        return torch.full_like(scores, float("-inf")).scatter(1, tokens, 0.0)

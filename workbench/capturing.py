"""Capture a rollout as it is generated, or replay a finished token sequence, into a trace."""

import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from workbench import harmony
from workbench.collect import Collector
from workbench.families import ModelError
from workbench.hooks import HookPlan, Recorder, attach
from workbench.model import Model
from workbench.trace import Span, Trace

__all__ = ["CaptureSpec", "capture", "replay"]

FLUSH_EVERY = 64
"""Forwards between two collections; the hooks hold references for at most that many tokens."""

REPLAY_CHUNK = 512
NEAR_TIE = 0.1
"""Routing margin, in logits, under which another kernel or dtype may choose differently."""

Layers = bool | Sequence[int]
Conversation = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class CaptureSpec:
    """What to capture. A layer choice is True (all), False (none), or layer numbers.

    Attributes:
        router: expert indices, expert weights and router logits.
        attention: queries, keys, sink logits and each row's log-sum-exp.
        lens: the logit lens after each layer.
        residual: the residual stream after each layer, as large as everything else together.
        top: how many alternatives to keep per token.
        lens_top: how many lens predictions to keep per token and layer.
    """

    router: Layers = True
    attention: Layers = True
    lens: Layers = True
    residual: Layers = False
    top: int = 5
    lens_top: int = 3

    def plan(self, model: Model) -> HookPlan:
        """Return the hooks this asks of a model. Raises `ModelError` for a layer or number out of range."""
        for name, number in (("top", self.top), ("lens_top", self.lens_top)):
            if not 1 <= number <= model.config.vocab_size:
                raise ModelError(f"CaptureSpec({name}={number}): expected 1 to {model.config.vocab_size}")
        lens, residual = (_layers(name, getattr(self, name), model.num_layers) for name in ("lens", "residual"))
        if lens and residual and lens != residual:
            raise ModelError(
                f"CaptureSpec: lens reads layers {lens} and residual layers {residual}; expected the same layers, "
                "because both come from one reading of the residual stream"
            )
        return HookPlan(
            router=_layers("router", self.router, model.num_layers),
            attention=_layers("attention", self.attention, model.num_layers),
            residual=lens or residual,
        )

    def wanted(self) -> frozenset[str]:
        """Return the names of the arrays this asks for."""
        groups = {
            "router": ("router_logits", "expert_indices", "expert_weights"),
            "attention": ("queries", "keys", "attention_logsumexp"),
            "lens": ("lens_token_ids", "lens_logprobs"),
            "residual": ("residual",),
        }
        names = [n for group, arrays in groups.items() if _any_layer(getattr(self, group)) for n in arrays]
        return frozenset(["logprobs", "entropy", "top_token_ids", "top_logprobs", *names])


class LiveDisplay(Protocol):
    """What `capture` tells a display while it generates; `widgets.live_view.LiveView` is one."""

    @property
    def stopped(self) -> bool:
        """Whether the person asked to stop."""

    def append(self, text: str, channel: str | None, special: bool) -> None:
        """Show one more token."""

    def finish(self, reason: str) -> None:
        """Say why it ended."""


def capture(
    model: Model,
    conversation: Conversation,
    *,
    effort: str = "medium",
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    capture: CaptureSpec | None = None,
    show: bool = False,
    on_token: Callable[[int], bool | None] | None = None,
) -> Trace:
    """Generate one rollout and record what the model did at every token.

    The capture only reads: the logits are bit-identical to a run without it. Ctrl-C returns the part that is done.

    Args:
        model: from `workbench.load`.
        conversation: a question, or messages ``{"role": …, "content": …}``.
        effort: reasoning effort: low, medium or high.
        max_new_tokens: default: as many as the context holds.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        seed: of the sampling; the global random state is left as it was.
        capture: what to record; default: everything but the residual stream.
        show: show the tokens in the notebook as they come, with a stop button.
        on_token: called with each new token id; returning True stops.

    Raises:
        ModelError: a number out of range, or a question longer than the context.
        HarmonyError: an empty question, or an effort the template does not know.
    """
    spec = capture or CaptureSpec()
    plan = spec.plan(model)
    prompt = harmony.render(model.tokenizer, conversation, effort)
    limit = _token_limit(model, len(prompt), max_new_tokens)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ModelError(f"expected a temperature of 0 (greedy) or more, got {temperature}")
    question = _question(conversation)
    display = _live_view(question) if show else None
    run = _Generation(model, prompt, limit, temperature, seed, _listener(model, prompt, display, on_token))
    started = time.monotonic()
    with attach(model, plan) as recorder, torch.no_grad():
        collector = Collector(model, plan, recorder, {"top": spec.top, "lens": spec.lens_top}, spec.wanted())
        run.go(collector)
    if display is not None:
        display.finish(run.ended or "end of message")
    facts = {
        "question": question,
        "effort": effort,
        "ended": run.ended,
        "seconds": time.monotonic() - started,
        "sampling": {"temperature": temperature, "top_p": 1.0, "seed": seed, "max_new_tokens": limit},
    }
    return _trace(model, spec, collector, recorder, run.token_ids, len(prompt), "live", facts)


def replay(
    model: Model,
    transcript: Trace | Sequence[int] | Sequence[Mapping[str, str]],
    *,
    num_prompt_tokens: int | None = None,
    effort: str | None = None,
    capture: CaptureSpec | None = None,
) -> Trace:
    """Read a finished token sequence in teacher-forced forwards and record what the model does with it.

    The sequence can come from any engine. In float32 the expert choices equal the live ones; in bfloat16 near-ties
    can fall the other way, so a replay is marked as one.

    Args:
        model: from `workbench.load`.
        transcript: token ids, a trace, or messages (rendered with the tokenizer's template).
        num_prompt_tokens: default: a trace's own, else up to the assistant's header after the last user message.
        effort: for messages, the effort to render; for token ids, recorded as stated.
        capture: what to record.

    Raises:
        ModelError: fewer than two tokens, ids outside the vocabulary, or more than the context.
    """
    spec = capture or CaptureSpec()
    plan = spec.plan(model)
    token_ids, question, effort = _read_transcript(model, transcript, effort)
    _check_token_ids(model, token_ids)
    if num_prompt_tokens is None:
        num_prompt_tokens = (
            transcript.num_prompt_tokens if isinstance(transcript, Trace) else _prompt_length(model, token_ids)
        )
    started = time.monotonic()
    with attach(model, plan) as recorder, torch.no_grad():
        collector = Collector(model, plan, recorder, {"top": spec.top, "lens": spec.lens_top}, spec.wanted())
        cache = DynamicCache(config=model.config)
        for start in tqdm(range(0, len(token_ids), REPLAY_CHUNK), "replay", delay=2, leave=False):
            _forward(model, token_ids[start : start + REPLAY_CHUNK], cache)
            collector.flush(token_ids)
    facts = {"question": question, "effort": effort, "seconds": time.monotonic() - started}
    return _trace(model, spec, collector, recorder, token_ids, num_prompt_tokens, "replay", facts)


class _Generation(StoppingCriteria):
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
            with tqdm(total=self.limit, desc="capture", unit="token", delay=2, leave=False) as self._progress:
                self._generate(cache)
            _forward(self.model, self.token_ids[-1:], cache)
            collector.flush(self.token_ids)
        except KeyboardInterrupt:
            self._keep_what_is_done(collector)

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Note the new token; collect now and then; say whether to stop."""
        token = int(input_ids[0, -1])
        self.token_ids.append(token)
        self._progress.update()
        new = len(self.token_ids) - len(self.prompt)
        if self._collector is not None and new % FLUSH_EVERY == 0:
            self._collector.flush(self.token_ids)
        stop = self.listener(token)
        if stop:
            self.ended = f"stopped after {new} tokens"
        elif new >= self.limit and token not in self.model.end_token_ids:
            self.ended = f"cut at {new} tokens"
        return torch.full((1,), stop, device=input_ids.device)

    def _generate(self, cache: DynamicCache) -> None:
        prompt = torch.tensor([self.prompt], device=self.model.device)
        devices = [prompt.device] if prompt.device.type == "cuda" else []
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
            eos_token_id=ends,
            pad_token_id=ends[0] if ends else 0,
            # A compiled forward would never call the hooks.
            disable_compile=True,
        )

    def _keep_what_is_done(self, collector: Collector) -> None:
        collector.flush(self.token_ids)
        if collector.rows <= len(self.prompt):
            raise KeyboardInterrupt("interrupted before the first token was captured")
        # A token without a row of its own is dropped: every array has one row per token.
        self.token_ids = self.token_ids[: collector.rows]
        self.ended = f"interrupted after {collector.rows - len(self.prompt)} tokens"


def _forward(model: Model, token_ids: Sequence[int], cache: DynamicCache) -> None:
    ids = torch.tensor([list(token_ids)], device=model.device)
    model.hf(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _layers(name: str, choice: Layers, num_layers: int) -> tuple[int, ...]:
    if isinstance(choice, bool):
        return tuple(range(num_layers)) if choice else ()
    outside = [layer for layer in choice if not 0 <= layer < num_layers]
    if outside:
        raise ModelError(f"CaptureSpec({name}=…): expected layers 0–{num_layers - 1}, got {outside[0]}")
    return tuple(sorted(set(choice)))


def _any_layer(choice: Layers) -> bool:
    return choice if isinstance(choice, bool) else len(choice) > 0


def _token_limit(model: Model, prompt: int, max_new_tokens: int | None) -> int:
    room = model.context_length - prompt
    if room < 1:
        raise ModelError(
            f"the question takes {prompt} tokens, but the context of {model.name} holds {model.context_length} with "
            "the answer; ask something shorter"
        )
    if max_new_tokens is None:
        return room
    if max_new_tokens < 1:
        raise ModelError(
            f"expected max_new_tokens of at least 1, got {max_new_tokens}; "
            "to read tokens without generating, use replay"
        )
    return min(max_new_tokens, room)


def _question(conversation: Conversation) -> str:
    if isinstance(conversation, str):
        return conversation
    asked = [m["content"] for m in conversation if m.get("role") == "user"]
    return asked[-1] if asked else ""


def _listener(
    model: Model,
    prompt: list[int],
    display: LiveDisplay | None,
    on_token: Callable[[int], bool | None] | None,
) -> Callable[[int], bool]:
    """Return what to do with each new token; its result says whether to stop."""
    if display is None:
        return lambda token: bool(on_token and on_token(token))
    parser, special = harmony.HarmonyParser(model.tokenizer), _special_ids(model.tokenizer)
    for token in prompt:
        parser.feed(token)

    def listen(token: int) -> bool:
        parser.feed(token)
        display.append(parser.token_text(token), parser.messages[-1].channel, token in special)
        return display.stopped or bool(on_token and on_token(token))

    return listen


def _live_view(question: str) -> LiveDisplay:
    from widgets.live_view import LiveView  # the one place where a capture reaches for a view: asked by show=True

    view: LiveDisplay = LiveView(question)
    view.display()  # type: ignore[attr-defined]
    return view


def _read_transcript(model: Model, transcript: Any, effort: str | None) -> tuple[list[int], str, str | None]:
    if isinstance(transcript, Trace):
        ids = [int(i) for i in transcript.arrays["token_ids"]]
        return ids, str(transcript.meta.get("question", "")), transcript.provenance.get("effort")
    items = list(transcript)
    if items and isinstance(items[0], Mapping):
        ids = harmony.render(model.tokenizer, items, effort or "medium", continue_assistant=False)
        return ids, _question(items), effort or "medium"
    return [int(i) for i in items], "", effort


def _check_token_ids(model: Model, token_ids: Sequence[int]) -> None:
    if len(token_ids) < 2:
        raise ModelError(f"expected at least 2 tokens to replay, got {len(token_ids)}")
    if len(token_ids) > model.context_length:
        raise ModelError(f"expected at most {model.context_length} tokens (the context), got {len(token_ids)}")
    size = int(model.config.vocab_size)
    outside = next((i for i in token_ids if not 0 <= i < size), None)
    if outside is not None:
        raise ModelError(f"expected token ids below {size}, got {outside}")


def _prompt_length(model: Model, token_ids: Sequence[int]) -> int:
    """Count the tokens up to the assistant's header after the last user message: what a server was sent."""
    messages = harmony.parse(model.tokenizer, token_ids)
    last_user = max((n for n, m in enumerate(messages) if m.role == "user"), default=-1)
    if last_user < 0:
        return 0
    stop = messages[last_user].stop
    return min(stop + 2, len(token_ids)) if last_user + 1 < len(messages) else stop


def _trace(
    model: Model,
    spec: CaptureSpec,
    collector: Collector,
    recorder: Recorder,
    token_ids: list[int],
    num_prompt_tokens: int,
    source: str,
    facts: dict[str, Any],
) -> Trace:
    arrays = {"token_ids": np.asarray(token_ids, dtype=np.int32), **collector.arrays()}
    plan = collector.plan
    layers = {
        **dict.fromkeys(("router_logits", "expert_indices", "expert_weights"), plan.router),
        **dict.fromkeys(("queries", "keys", "sink_logits", "attention_logsumexp"), plan.attention),
        **dict.fromkeys(("lens_token_ids", "lens_logprobs", "residual"), plan.residual),
    }
    meta = {
        "num_prompt_tokens": num_prompt_tokens,
        "question": facts.pop("question"),
        "truncated": facts.pop("ended", None),
        "near_tie": NEAR_TIE,
        "layers": {name: list(numbers) for name, numbers in layers.items() if name in arrays},
        "sources": dict.fromkeys(arrays, source),
        "attention": {"scale": model.attention_scale, "windows": model.windows},
        "shape": _shape(model),
        "provenance": {**facts, **_provenance(model, spec, recorder)},
    }
    arrays |= _vocabulary(model, arrays)
    return Trace(arrays, _spans(model, token_ids), meta)


def _shape(model: Model) -> dict[str, int]:
    names = ("num_layers", "num_experts", "top_k", "num_heads", "num_kv_heads", "d_head", "context_length")
    return {name: getattr(model, name) for name in names}


def _provenance(model: Model, spec: CaptureSpec, recorder: Recorder) -> dict[str, Any]:
    config = model.config
    return {
        "model": model.name,
        "embedded": model.is_embedded,
        "family": model.family.name,
        "revision": model.revision,
        "weights": model.weights_hash,
        "dtype": model.dtype,
        "device": str(model.device),
        "experts_implementation": getattr(config, "_experts_implementation", None),
        "attention_implementation": getattr(config, "_attn_implementation", None),
        "seams": dict(recorder.seams),
        "capture": {k: v if isinstance(v, bool | int) else list(v) for k, v in asdict(spec).items()},
        "versions": {p: version(p) for p in ("moe-workbench", "torch", "transformers")},
        "platform": platform.platform(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _spans(model: Model, token_ids: Sequence[int]) -> tuple[Span, ...]:
    """Return messages, each followed by its sentences."""
    spans: list[Span] = []
    texts = [harmony.token_bytes(model.tokenizer, i) for i in token_ids]
    special = _special_ids(model.tokenizer)
    for message in harmony.parse(model.tokenizer, token_ids):
        spans.append(Span(kind="message", **asdict(message)))
        content_stop = message.stop
        while content_stop > message.content_start and token_ids[content_stop - 1] in special:
            content_stop -= 1
        for start, stop in harmony.sentences(texts, message.content_start, content_stop):
            spans.append(Span(start, stop, start, "sentence", message.role, message.channel))
    return tuple(spans)


def _vocabulary(model: Model, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Keep the bytes of every token id that occurs, so that a trace reads without its tokenizer."""
    named = (arrays[n].ravel() for n in ("token_ids", "top_token_ids", "lens_token_ids") if n in arrays)
    ids = np.unique(np.concatenate(list(named)))
    ids = ids[ids >= 0].astype(np.int32)
    texts = [harmony.token_bytes(model.tokenizer, int(i)) for i in ids]
    return {
        "vocab_ids": ids,
        "vocab_offsets": np.concatenate([[0], np.cumsum([len(t) for t in texts])]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "vocab_special": np.isin(ids, list(_special_ids(model.tokenizer))),
    }


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added: Iterable[tuple[int, Any]] = tokenizer.added_tokens_decoder.items()
    return frozenset(i for i, token in added if token.special)

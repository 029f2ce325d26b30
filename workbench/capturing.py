"""Capture a rollout as it is generated, or replay a finished token sequence, into a trace."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from typing import Any, Protocol

import torch
from transformers import DynamicCache

from workbench import harmony, remote
from workbench.assemble import assemble, describe, special_ids
from workbench.collect import Collector
from workbench.families import ModelError
from workbench.hooks import attach
from workbench.model import Model
from workbench.rollout import Rollout, check_temperature, read
from workbench.routing_replay import forced_routing, routing_agreement
from workbench.shards import ShardWriter, remove_shards
from workbench.sizing import check_room
from workbench.spec import CaptureSpec
from workbench.trace import Trace
from workbench.trace_file import make_place
from workbench.transcripts.rendering import Rendered, render_transcript
from workbench.transcripts.transcript import Transcript

__all__ = ["Conversation", "asked_question", "capture", "capture_tokens", "replay", "token_limit"]

Conversation = str | Sequence[Mapping[str, str]]


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
    effort: str | None = "medium",
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    capture: CaptureSpec | None = None,
    path: str | PathLike[str] | None = None,
    show: bool = False,
    on_token: Callable[[int], bool | None] | None = None,
) -> Trace:
    """Generate one rollout and record what the model did at every token.

    The capture only reads: the logits are bit-identical to a run without it. Ctrl-C returns the part that is done.

    Args:
        model: from `workbench.load`.
        conversation: a question, or messages ``{"role": …, "content": …}``.
        effort: reasoning effort: low, medium or high; None for a model whose template takes none.
        max_new_tokens: default: as many as the context holds.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        seed: of the sampling; the global random state is left as it was.
        capture: what to record; default: everything but the residual stream.
        path: save the trace here. While it is generated, finished stretches of tokens are kept in the folder
            ``<path>.shards``, which `workbench.recover` opens should the process die.
        show: show the tokens in the notebook as they come, with a stop button.
        on_token: called with each new token id; returning True stops.

    Raises:
        ModelError: a number out of range, or a question longer than the context.
        HarmonyError: an empty question, or an effort the template does not know.
    """
    prompt = harmony.render(model.tokenizer, conversation, effort)
    return capture_tokens(
        model,
        prompt,
        {"question": asked_question(conversation), "effort": effort},
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        capture=capture,
        path=path,
        show=show,
        on_token=on_token,
    )


def capture_tokens(
    model: Model,
    token_ids: Sequence[int],
    facts: Mapping[str, Any],
    *,
    num_prompt_tokens: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    capture: CaptureSpec | None = None,
    path: str | PathLike[str] | None = None,
    show: bool = False,
    on_token: Callable[[int], bool | None] | None = None,
) -> Trace:
    """Let the model go on after known tokens, and record it as `capture` does after a question.

    Args:
        model: from `workbench.load`.
        token_ids: what the model reads before it goes on.
        facts: ``question`` and ``effort``, as the trace is to state them.
        num_prompt_tokens: how many of ``token_ids`` are the prompt; default: all. The rest is completion that was
            read and not generated, which the trace's sources call replay.
        max_new_tokens, temperature, seed, capture, path, show, on_token: as in `capture`.

    Raises:
        ModelError: a number out of range, or no room for another token in the context.
    """
    spec, known = capture or CaptureSpec(), list(token_ids)
    limit = token_limit(model, len(known), max_new_tokens)
    check_temperature(temperature)
    check_room(model, spec, len(known) + limit, path)
    prompt = len(known) if num_prompt_tokens is None else num_prompt_tokens
    source = "live" if prompt == len(known) else f"live, tokens {prompt}–{len(known) - 1} replay"
    sampling = {"temperature": temperature, "top_p": 1.0, "seed": seed, "max_new_tokens": limit}
    if model.remote:
        if show or on_token is not None:
            raise ModelError(
                "show=True and on_token= follow a rollout token by token, but from elsewhere it comes as a whole; "
                "leave them out"
            )
        if path:
            make_place(path)  # before it costs anything
        trace = remote.capture(model, spec, known, prompt, source, {**facts, "sampling": sampling})
        if path:
            trace.save(path)
        return trace
    display = _live_view(str(facts["question"])) if show else None
    run = Rollout(model, known, limit, temperature, seed, _listener(model, known, display, on_token))
    started = time.monotonic()
    with attach(model, spec.plan(model)) as recorder, torch.no_grad(), _finishing(display, run):
        collector = Collector(model, spec, recorder)
        meta = describe(collector, prompt, source, {**facts, "sampling": sampling})
        with ShardWriter(path, collector, meta) if path else nullcontext(), collector:
            run.go(collector)
    meta["truncated"] = run.ended
    meta["provenance"]["seconds"] = time.monotonic() - started
    trace = assemble(collector, meta)
    if path:
        trace.save(path)
        remove_shards(path)
    return trace


@contextmanager
def _finishing(display: LiveDisplay | None, run: Rollout) -> Iterator[None]:
    """Tell the display how the rollout ended, however it ended."""
    reason = "failed"
    try:
        yield
        reason = run.ended or "end of message"
    finally:
        if display is not None:
            display.finish(reason)


def replay(
    model: Model,
    transcript: Trace | Transcript | Sequence[int] | Sequence[Mapping[str, str]],
    *,
    num_prompt_tokens: int | None = None,
    effort: str | None = None,
    force_routing: bool = False,
    capture: CaptureSpec | None = None,
) -> Trace:
    """Read a finished token sequence in teacher-forced forwards and record what the model does with it.

    The sequence can come from any engine. In float32 the expert choices equal the live ones; in bfloat16 near-ties
    can fall the other way, so a replay is marked as one, and the replay of a trace says in
    ``meta["routing_agreement"]`` how many expert sets differ and how close they were.

    Args:
        model: from `workbench.load`.
        transcript: token ids, a trace, messages (rendered with the tokenizer's template), or what a reader of
            `workbench.transcripts` returned.
        num_prompt_tokens: default: a trace's own, else up to the assistant's header after the last user message.
        effort: for messages, the effort to render; for token ids, recorded as stated.
        force_routing: make the model use the experts and weights that the given trace recorded.
        capture: what to record.

    Raises:
        ModelError: fewer than two tokens, ids outside the vocabulary, or more than the context.
        TranscriptError: token ids of another tokenizer, or a transcript without its prompt.
    """
    if isinstance(transcript, Transcript):
        rendered = render_transcript(model.tokenizer, transcript)
        prompt = rendered.num_prompt_tokens if num_prompt_tokens is None else num_prompt_tokens
        effort = transcript.effort or effort
        said: dict[str, Any] = {"num_prompt_tokens": prompt, "effort": effort, "force_routing": force_routing}
        return _of_transcript(replay(model, rendered.token_ids, capture=capture, **said), transcript, rendered)
    spec = capture or CaptureSpec()
    token_ids, question, effort = _read_transcript(model, transcript, effort)
    _check_token_ids(model, token_ids)
    check_room(model, spec, len(token_ids))
    if num_prompt_tokens is None:
        num_prompt_tokens = (
            transcript.num_prompt_tokens if isinstance(transcript, Trace) else _prompt_length(model, token_ids)
        )
    if force_routing and not isinstance(transcript, Trace):
        raise ModelError("force_routing needs a trace with recorded experts, got tokens or messages")
    if model.remote:
        if force_routing:
            raise ModelError("force_routing writes to routers that are here; load the model without remote=")
        trace = remote.replay(model, spec, token_ids, num_prompt_tokens, {"question": question, "effort": effort})
        return _beside_the_recorded(trace, transcript, False) if isinstance(transcript, Trace) else trace
    forcing = forced_routing(model, transcript) if force_routing and isinstance(transcript, Trace) else nullcontext()
    started = time.monotonic()
    # The forcing hooks come last, after the self-check, so the recorder reads the choice the router itself made.
    with attach(model, spec.plan(model)) as recorder, torch.no_grad(), forcing:
        cache = DynamicCache(config=model.config)
        with Collector(model, spec, recorder, total=len(token_ids)) as collector:
            read(model, token_ids, len(token_ids), cache, collector)
            collector.finish(token_ids)
    facts = {"question": question, "effort": effort, "seconds": time.monotonic() - started}
    facts |= {"routing": "forced"} if force_routing else {}
    trace = assemble(collector, describe(collector, num_prompt_tokens, "replay", facts))
    return _beside_the_recorded(trace, transcript, force_routing) if isinstance(transcript, Trace) else trace


def _of_transcript(trace: Trace, transcript: Transcript, rendered: Rendered) -> Trace:
    """Say in a replay what it was read from, whether its tokens are the server's, and what was lost."""
    meta = {**trace.meta, "question": transcript.question, "truncated": transcript.ended}
    meta["sources"] = {**meta["sources"], "token_ids": rendered.token_source}
    meta["provenance"] = {**meta["provenance"], "transcript": rendered.facts}
    return Trace(trace.arrays, trace.spans, meta)


def _beside_the_recorded(trace: Trace, recorded: Trace, forced: bool) -> Trace:
    """Add to a replay how its own choices agree with the recorded ones; where those were forced, show them as used."""
    meta = {**trace.meta, "routing_agreement": routing_agreement(recorded, trace)}
    arrays = dict(trace.arrays)
    for name in ("expert_indices", "expert_weights"):
        if forced and name in arrays:
            layers = [recorded.layers(name).index(layer) for layer in trace.layers(name)]
            arrays[name] = recorded.arrays[name][:, layers]
            meta["sources"] = {**meta["sources"], name: "replay, forced"}
    return Trace(arrays, trace.spans, meta)


def token_limit(model: Model, known: int, max_new_tokens: int | None) -> int:
    """Return how many tokens a rollout may add to known ones. Raises `ModelError` where there is no room for one."""
    room = model.context_length - known
    if room < 1:
        raise ModelError(
            f"the question takes {known} tokens, but the context of {model.name} holds {model.context_length} with "
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


def asked_question(conversation: Conversation) -> str:
    """Return the question, or the content of the last user message; empty without one."""
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
    parser, special = harmony.HarmonyParser(model.tokenizer), special_ids(model.tokenizer)
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
        return ids, asked_question(items), effort or "medium"
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

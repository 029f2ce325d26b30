"""A rollout of a corpus as plain facts, and how a worker turns facts into a trace of the store."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import torch

from workbench.batched_capture import Prompt, capture_batch
from workbench.capturing import capture
from workbench.model import Model
from workbench.remote import host_of
from workbench.spec import CaptureSpec
from workbench.store import TraceStore
from workbench.trace import Trace
from workbench.trace_file import open_trace

__all__ = ["Engine", "Job", "Stored", "generate", "identity", "job_of", "path_of", "was_interrupted"]

_SAMPLED = 1024  # values of each weight that tell a model in memory from another


class Job(NamedTuple):
    """One rollout to be made."""

    name: str
    """of its trace in the store"""
    facts: dict[str, Any]
    """all that decides what it comes to, as JSON holds it"""


class Stored(NamedTuple):
    """One rollout that is in the store."""

    name: str
    tokens: int
    """of the completion"""
    seconds: float
    """that a worker spent since the one before it was stored, or its batch began"""


Done = Callable[[Stored], None]


class Engine(Protocol):
    """What generates the rollouts of a corpus: this process, or workers."""

    @property
    def workers(self) -> int:
        """How many generate at once."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells the model from another; part of every rollout's facts."""

    def start(self) -> None:
        """Get all workers ready, once it is known that something is left to do."""

    def run(self, batches: Sequence[Sequence[Job]], done: Done) -> None:
        """Generate the rollouts of each batch together, and tell of each when it is in the store."""

    def __enter__(self) -> Self:
        """Take no worker yet."""

    def __exit__(self, *_: object) -> None:
        """Let go of the workers."""


def job_of(facts: Mapping[str, Any]) -> Job:
    """Name a rollout after a hash of all that decides it."""
    written = json.dumps(facts, sort_keys=True)
    return Job(hashlib.sha256(written.encode()).hexdigest()[:16], json.loads(written))


def path_of(store: TraceStore, name: str) -> Path:
    """Return the file of a rollout's trace."""
    return store.path / f"{name}.safetensors"


def generate(model: Model, batch: Sequence[Job], store: TraceStore, done: Done) -> None:
    """Generate the rollouts of a batch that the store lacks, all at once, and tell of each.

    A trace appears in the store whole or not at all, and as soon as its rollout has ended.

    Raises:
        KeyboardInterrupt: Ctrl-C; the rollouts that had not ended are dropped.
    """
    there = [job for job in batch if path_of(store, job.name).exists()]
    for job in there:  # a worker before this one stored it and died before it could tell
        trace = open_trace(path_of(store, job.name))
        done(Stored(job.name, len(trace) - trace.num_prompt_tokens, 0.0))
    left = [job for job in batch if job not in there]
    if left:
        _generate(model, left, store, done)


def _generate(model: Model, jobs: Sequence[Job], store: TraceStore, done: Done) -> None:
    started = time.monotonic()

    def keep(number: int, trace: Trace) -> None:
        nonlocal started
        job, now = jobs[number], time.monotonic()
        replace(trace, meta={**trace.meta, "sweep": job.facts}).save(path_of(store, job.name))
        done(Stored(job.name, len(trace) - trace.num_prompt_tokens, now - started))
        started = now

    shared = jobs[0].facts
    spec = CaptureSpec(**shared["capture"])
    common = {"temperature": shared["temperature"], "max_new_tokens": shared["max_new_tokens"], "capture": spec}
    prompts = [Prompt(job.facts["question"], job.facts["effort"], job.facts["seed"]) for job in jobs]
    if len(jobs) > 1:
        capture_batch(model, prompts, on_trace=keep, **common)
        return
    [prompt] = prompts
    trace = capture(model, prompt.conversation, effort=prompt.effort, seed=prompt.seed, **common)
    if was_interrupted(trace):
        raise KeyboardInterrupt
    keep(0, trace)


def was_interrupted(trace: Trace) -> bool:
    """Say whether Ctrl-C ended a capture: what it returned is no rollout to count."""
    return str(trace.meta.get("truncated") or "").startswith("interrupted")


def identity(model: Model) -> dict[str, Any]:
    """Return what tells a model from another: its name, revision, weights, dtype, and what changes it now."""
    known: dict[str, Any] = {"model": model.name, "revision": model.revision, "dtype": model.dtype}
    if model.remote and model.remote != "local":  # its weights are not here, so only where it runs is known
        known |= {"weights": "not available", "remote": host_of(model)}
    else:
        on_disk = model.weights_hash
        known["weights"] = _fingerprint(model) if on_disk == "not available" else on_disk
    return known | ({"interventions": list(model.interventions)} if model.interventions else {})


def _fingerprint(model: Model) -> str:
    """Hash some values of each weight of a model in memory."""
    digest = hashlib.sha256()
    with torch.no_grad():
        for name, weight in model.hf.state_dict().items():
            flat = weight.detach().reshape(-1)
            some = flat[:: max(1, flat.numel() // _SAMPLED)]
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(some.float().cpu().numpy().tobytes())
    return f"sample:{digest.hexdigest()}"

"""Many questions at several efforts into a store, to be gone on with after whatever stopped it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from workbench import harmony
from workbench.analysis.compare import Comparison, Outcome, compare, outcome
from workbench.analysis.compare.outcomes import Extract, References, Same
from workbench.analysis.reasoning import final_answer, same_answer
from workbench.capturing import capture
from workbench.experiments.efforts import LIGHT, check_rollouts, rollout_seed, was_interrupted
from workbench.families import ModelError
from workbench.model import Model
from workbench.spec import CaptureSpec
from workbench.store import TraceStore
from workbench.trace import Trace, TraceError
from workbench.trace_file import open_trace

__all__ = ["Sweep", "sweep"]

_SAMPLED = 1024  # values of each weight that tell a model in memory from another


class _Job(NamedTuple):
    """One rollout of a sweep."""

    name: str
    """of its trace in the store"""
    facts: dict[str, Any]
    """all that decides what it comes to"""
    sample: int


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep came to: its rollouts in a store, and a row for each."""

    store: TraceStore
    efforts: tuple[str, ...]
    _rows: tuple[dict[str, Any], ...]
    _scoring: Mapping[str, Any]
    """references, answer and same, for `compare`"""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per rollout, such as ``pandas.DataFrame`` takes, by question, effort and sample.

        No time is in it, so that the same sweep has the same rows however often it was stopped. ``right`` is None
        without references and where a rollout was cut; ``trace`` is the trace's name in the store.
        """
        return [dict(row) for row in self._rows]

    def traces(self, effort: str) -> "StoredTraces":
        """Return the traces of an effort, opened one at a time."""
        if effort not in self.efforts:
            raise KeyError(f"there is no effort {effort!r}; there are {', '.join(self.efforts)}")
        return StoredTraces(self.store, [row["trace"] for row in self._rows if row["effort"] == effort])

    def compare(self, **options: Any) -> Comparison:
        """Compare the efforts, scored as the sweep was; options as of `workbench.analysis.compare.compare`."""
        return compare({effort: self.traces(effort) for effort in self.efforts}, **{**self._scoring, **options})

    def __len__(self) -> int:
        """Return the number of rollouts."""
        return len(self._rows)

    def __repr__(self) -> str:
        """Say how many rollouts of how many questions are where."""
        questions = len({row["question"] for row in self._rows})
        cut = sum(row["cut"] is not None for row in self._rows)
        return (
            f"<Sweep in {self.store.path}: {len(self):,} rollouts of {questions:,} questions at "
            f"{', '.join(self.efforts)}; {cut:,} cut>"
        )


class StoredTraces:
    """Some traces of a store by name, opened one at a time."""

    def __init__(self, store: TraceStore, names: Sequence[str]) -> None:
        """Take the names, in the order wanted."""
        self._store, self._names = store, tuple(names)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._names)

    def __iter__(self) -> Iterator[Trace]:
        """Open one after the other."""
        return (_open(self._store, name) for name in self._names)

    def __getitem__(self, index: int) -> Trace:
        """Open one."""
        return _open(self._store, self._names[index])


def sweep(
    model: Model,
    questions: Sequence[str],
    efforts: Sequence[str] = harmony.EFFORTS,
    samples: int = 1,
    *,
    store: TraceStore | str | PathLike[str],
    references: References | Sequence[str] | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    capture: CaptureSpec = LIGHT,
    answer: Extract = final_answer,
    same: Same = same_answer,
) -> Sweep:
    """Generate rollouts of many questions at several efforts into a store.

    The same call goes on where it was stopped, by Ctrl-C or by ``kill -9``, and ends with the same rows. What is done
    is told by the store alone: each trace is named after a hash of all that decides its rollout (question, effort,
    seed, sampling, capture, the model and its weights), and is there whole or not at all. More questions, efforts or
    samples take what is there already. A model changed by hooks of your own looks the same: give it another store.

    Args:
        model: from `workbench.load`.
        questions: each once.
        efforts: that the model's template knows.
        samples: rollouts per question and effort.
        store: a `TraceStore`, or a folder, which is made where there is none. Other traces in it are left alone.
        references: right answers, question → answer or in the order of the questions; None scores nothing.
        seed: of all; each rollout is drawn with its own, by `workbench.experiments.efforts.rollout_seed`.
        temperature: as in `workbench.capture`; at 0, one sample says all.
        max_new_tokens: default: as many as the context holds.
        capture: what to record; default: the router and the statistics of every token, no attention.
        answer: takes the answer from a trace; default: the final channel's text, stripped.
        same: whether an answer is the right one.

    Returns:
        `Sweep`, with a row per rollout.

    Raises:
        ModelError: no or repeated questions or efforts, fewer than one sample, or several at temperature 0.
        HarmonyError: an empty question, or an effort the template does not know; before anything is generated.
        TraceError: a question without a reference answer, or a trace in the store that is damaged.
        KeyboardInterrupt: Ctrl-C; its message says how much is done.
    """
    asked = _checked_questions(questions)
    known = _checked_references(references, asked)
    check_rollouts(model, asked, efforts, samples, temperature)
    store = store if isinstance(store, TraceStore) else TraceStore(store, create=True)
    shared = {
        "temperature": float(temperature),
        "max_new_tokens": max_new_tokens,
        "capture": asdict(capture),
        **_identity(model),
    }
    jobs = [
        _job(
            {"question": question, "effort": effort, "seed": rollout_seed(seed, question, effort, sample), **shared},
            sample,
        )
        for question in asked
        for effort in efforts
        for sample in range(samples)
    ]
    there = set(store.names)
    left = [job for job in jobs if job.name not in there]
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), desc="sweep", unit="rollout", delay=2) as progress:
        for done, job in enumerate(left, len(jobs) - len(left)):
            if not _generate(model, job, capture, store):
                raise KeyboardInterrupt(
                    f"interrupted with {done} of {len(jobs)} rollouts done; the same call goes on from there"
                )
            progress.update()
    scoring: dict[str, Any] = {"references": known, "answer": answer, "same": same}
    rows = []
    for job in tqdm(jobs, "read rollouts", unit="trace", delay=2, leave=False):
        trace = _stored(store, job)
        rows.append(_row(job, outcome(trace, **scoring), known))
    return Sweep(store, tuple(efforts), tuple(rows), scoring)


def _checked_questions(questions: Sequence[str]) -> list[str]:
    asked = [questions] if isinstance(questions, str) else list(questions)
    if not asked:
        raise ModelError("expected at least one question, got none")
    wrong = next((question for question in asked if not isinstance(question, str)), None)
    if wrong is not None:
        raise ModelError(f"expected questions as text, got {type(wrong).__name__}")
    [(most, times)] = Counter(asked).most_common(1)
    if times > 1:
        raise ModelError(f"expected each question once, got {most!r} {times} times; for more rollouts raise samples")
    return asked


def _checked_references(references: References | Sequence[str] | None, asked: Sequence[str]) -> References | None:
    if references is None:
        return None
    if not isinstance(references, Mapping):
        if isinstance(references, str) or len(references) != len(asked):
            got = "a text" if isinstance(references, str) else len(references)
            raise TraceError(f"expected a reference answer for each of {len(asked)} questions, got {got}")
        return dict(zip(asked, references, strict=True))
    missing = next((question for question in asked if question not in references), None)
    if missing is not None:
        raise TraceError(f"There is no reference answer for the question {missing!r}. Give one for every question.")
    return references


def _job(facts: dict[str, Any], sample: int) -> _Job:
    written = json.dumps(facts, sort_keys=True)
    return _Job(hashlib.sha256(written.encode()).hexdigest()[:16], json.loads(written), sample)


def _identity(model: Model) -> dict[str, Any]:
    weights = model.weights_hash
    if weights == "not available":
        weights = _fingerprint(model)
    known = {"model": model.name, "revision": model.revision, "weights": weights, "dtype": model.dtype}
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


def _generate(model: Model, job: _Job, spec: CaptureSpec, store: TraceStore) -> bool:
    """Generate a rollout into the store; return False where someone interrupts, with nothing stored."""
    facts = job.facts
    try:
        trace = capture(
            model,
            facts["question"],
            effort=facts["effort"],
            seed=facts["seed"],
            temperature=facts["temperature"],
            max_new_tokens=facts["max_new_tokens"],
            capture=spec,
        )
    except KeyboardInterrupt:
        return False
    if was_interrupted(trace):
        return False
    replace(trace, meta={**trace.meta, "sweep": facts}).save(_file(store, job.name))
    return True


def _file(store: TraceStore, name: str) -> Path:
    return store.path / f"{name}.safetensors"


def _open(store: TraceStore, name: str) -> Trace:
    return open_trace(_file(store, name))  # store[name] would list the folder each time


def _stored(store: TraceStore, job: _Job) -> Trace:
    trace = _open(store, job.name)
    if trace.meta.get("sweep") != job.facts:
        raise TraceError(
            f"{job.name}.safetensors in {store.path} has the name of a rollout of this sweep, but is another trace. "
            "Move it elsewhere, or give the sweep a store of its own."
        )
    return trace


def _row(job: _Job, found: Outcome, references: References | None) -> dict[str, Any]:
    return {
        "question": found.question,
        "effort": job.facts["effort"],
        "sample": job.sample,
        "seed": job.facts["seed"],
        "answer": found.answer,
        "reference": None if references is None else references[found.question],
        "right": found.right,
        "cut": found.cut,
        "chain_agrees": found.chain_agrees,
        "chain_tokens": found.chain_tokens,
        "completion_tokens": found.completion_tokens,
        "trace": job.name,
    }

"""Many questions at several efforts into a store, to be gone on with after whatever stopped it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from tqdm.auto import tqdm

from workbench import harmony
from workbench.analysis.compare import Comparison, Outcome, compare, outcome
from workbench.analysis.compare.outcomes import Extract, References, Same
from workbench.analysis.reasoning import final_answer, same_answer
from workbench.capturing import Conversation, asked_question
from workbench.experiments.efforts import LIGHT, check_rollouts, rollout_seed
from workbench.families import ModelError
from workbench.loading import load
from workbench.model import Model
from workbench.scale.local import LocalEngine
from workbench.scale.on_ray import RayEngine, Unloaded
from workbench.scale.rollouts import Engine, Job, Stored, job_of, path_of
from workbench.scale.spent import Spent
from workbench.spec import CaptureSpec
from workbench.store import TraceStore
from workbench.trace import Trace, TraceError
from workbench.trace_file import open_trace

__all__ = ["Sweep", "sweep"]

ENGINES = ("local", "ray")


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep came to: its rollouts in a store, and a row for each."""

    store: TraceStore
    efforts: tuple[str, ...]
    _rows: tuple[dict[str, Any], ...]
    _scoring: Mapping[str, Any]
    """references, answer and same, for `compare`"""
    _conversations: int
    """different ones that were asked"""
    spent: Spent
    """tokens and seconds of what this call generated"""

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
        """Compare the efforts, scored as the sweep was; options as of `workbench.analysis.compare.compare`.

        Raises:
            TraceError: conversations that end in the same question, which would be taken for one.
        """
        asked = len({row["question"] for row in self._rows})
        if asked < self._conversations:
            raise TraceError(
                f"{self._conversations} conversations end in {asked} questions, and a comparison takes those that end "
                "in the same for one question asked more often. Sweep over each kind of conversation by itself."
            )
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
    model: Model | str,
    questions: Sequence[Conversation],
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
    batch_size: int = 1,
    engine: str = "local",
    workers: int | None = None,
) -> Sweep:
    """Generate rollouts of many questions at several efforts into a store.

    The same call goes on where it was stopped, by Ctrl-C or by ``kill -9``, and ends with the same rows. What is done
    is told by the store alone: each trace is named after a hash of all that decides its rollout (question, effort,
    seed, sampling, capture, the model and its weights), and is there whole or not at all. More questions, efforts or
    samples take what is there already. A model changed by hooks of your own looks the same: give it another store.

    How the rollouts are made is not part of their names: one by one or in batches, here or by workers, tokens and
    expert sets are the same, up to choices that are equal to the last digits of a floating-point sum. In equal batches
    the traces of both engines are equal bit for bit in float32 on the same kind of machine.

    Args:
        model: from `workbench.load`, or the name of one: then engine="ray" loads it in the workers only.
        questions: each once; texts, or conversations of messages ``{"role": …, "content": …}``.
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
        batch_size: rollouts generated at once; samples of a question first, which are most alike in length.
        engine: ``"local"``, in this process; ``"ray"``, by workers, each with the model, one per GPU or CPU core.
        workers: of engine="ray"; default: as many as there are GPUs, or cores where the model is on the CPU.

    Returns:
        `Sweep`, with a row per rollout.

    Raises:
        ModelError: no or repeated questions or efforts, fewer than one sample, several at temperature 0, a question
            longer than the context, or an engine that cannot run.
        HarmonyError: an empty question, or an effort the template does not know; before anything is generated.
        TraceError: a question without a reference answer, or a trace in the store that is damaged.
        KeyboardInterrupt: Ctrl-C; its message says how much is done.
    """
    asked = _checked_questions(questions)
    known = _checked_references(references, asked)
    _check_engine(engine, workers, batch_size)
    source = _source(model, engine)
    check_rollouts(source, asked, efforts, samples, temperature)
    store = store if isinstance(store, TraceStore) else TraceStore(store, create=True)
    settings = {"temperature": float(temperature), "max_new_tokens": max_new_tokens, "capture": asdict(capture)}
    wanted = [(q, effort, sample) for q in asked for effort in efforts for sample in range(samples)]
    running: Engine = (
        LocalEngine(source, store)
        if isinstance(source, Model) and engine == "local"
        else RayEngine(source, store, workers)
    )
    with running:
        shared = {**settings, **running.identity}
        jobs = [
            job_of({"question": q, "effort": effort, "seed": rollout_seed(seed, q, effort, sample), **shared})
            for q, effort, sample in wanted
        ]
        spent = _run(running, jobs, store, batch_size)
    scoring: dict[str, Any] = {"references": known, "answer": answer, "same": same}
    rows = []
    for job, (*_, sample) in zip(tqdm(jobs, "read rollouts", unit="trace", delay=2, leave=False), wanted, strict=True):
        trace = _stored(store, job)
        rows.append(_row(job, sample, outcome(trace, **scoring), known))
    return Sweep(store, tuple(efforts), tuple(rows), scoring, len(asked), spent)


def _run(engine: Engine, jobs: Sequence[Job], store: TraceStore, batch_size: int) -> Spent:
    """Generate what the store lacks, with a progress bar that says what it costs."""
    there = set(store.names)
    left = [job for job in jobs if job.name not in there]
    if left:
        engine.start()
    spent = Spent(engine.workers, len(left))
    batches = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(left), desc="sweep", unit="rollout", delay=2)

    def done(stored: Stored) -> None:
        spent.add(stored)
        bar.set_postfix_str(spent.progress(), refresh=False)
        bar.update()

    with closing(bar):
        try:
            engine.run(batches, done)
        except KeyboardInterrupt:
            finished = len({job.name for job in jobs} & set(store.names))
            raise KeyboardInterrupt(
                f"interrupted with {finished} of {len(jobs)} rollouts done; the same call goes on from there"
            ) from None
    return spent


def _check_engine(engine: str, workers: int | None, batch_size: int) -> None:
    if engine not in ENGINES:
        raise ModelError(f"expected an engine of {', '.join(ENGINES)}, got {engine!r}")
    if workers is not None and engine == "local":
        raise ModelError(f"engine='local' is this process alone, got workers={workers}; for workers take engine='ray'")
    if batch_size < 1:
        raise ModelError(f"expected a batch of at least 1 rollout, got {batch_size}")


def _source(model: Model | str, engine: str) -> Model | Unloaded:
    if isinstance(model, str):
        return load(model) if engine == "local" else Unloaded(model)
    return model


def _checked_questions(questions: Sequence[Conversation]) -> list[Conversation]:
    given: list[Conversation] = [questions] if isinstance(questions, str) else list(questions)
    if not given:
        raise ModelError("expected at least one question, got none")
    asked = [_checked_question(question) for question in given]
    [(most, times)] = Counter(map(repr, asked)).most_common(1)
    if times > 1:
        raise ModelError(f"expected each question once, got {most} {times} times; for more rollouts raise samples")
    return asked


def _checked_question(question: Conversation) -> Conversation:
    if isinstance(question, str):
        return question
    if isinstance(question, Sequence) and question and all(isinstance(message, Mapping) for message in question):
        return [dict(message) for message in question if not isinstance(message, str)]
    raise ModelError(f"expected questions as text or as lists of messages, got {question!r}")


def _checked_references(
    references: References | Sequence[str] | None, conversations: Sequence[Conversation]
) -> References | None:
    if references is None:
        return None
    asked = [asked_question(conversation) for conversation in conversations]
    if len(set(asked)) < len(asked):
        raise TraceError("references are by question, but some conversations end in the same one; leave them out")
    if not isinstance(references, Mapping):
        if isinstance(references, str) or len(references) != len(asked):
            got = "a text" if isinstance(references, str) else len(references)
            raise TraceError(f"expected a reference answer for each of {len(asked)} questions, got {got}")
        return dict(zip(asked, references, strict=True))
    missing = next((question for question in asked if question not in references), None)
    if missing is not None:
        raise TraceError(f"There is no reference answer for the question {missing!r}. Give one for every question.")
    return references


def _open(store: TraceStore, name: str) -> Trace:
    return open_trace(path_of(store, name))  # store[name] would list the folder each time


def _stored(store: TraceStore, job: Job) -> Trace:
    trace = _open(store, job.name)
    if trace.meta.get("sweep") != job.facts:
        raise TraceError(
            f"{job.name}.safetensors in {store.path} has the name of a rollout of this sweep, but is another trace. "
            "Move it elsewhere, or give the sweep a store of its own."
        )
    return trace


def _row(job: Job, sample: int, found: Outcome, references: References | None) -> dict[str, Any]:
    return {
        "question": found.question,
        "effort": job.facts["effort"],
        "sample": sample,
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

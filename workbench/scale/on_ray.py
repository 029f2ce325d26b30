"""The engine that generates on Ray: one model per worker, one worker per GPU or CPU slot.

Each worker loads the model itself and writes its traces into the store itself; only facts of rollouts and their names
pass between processes. A worker that dies is replaced, and what it had not stored is given out again. A cluster that
is started here listens on loopback only, asks for a token made for this process, and reports to nobody; one that the
caller connected to with ``ray.init`` is used as it is, and then the store must be a folder that every machine sees.
"""

import os
import secrets
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from workbench.families import ModelError
from workbench.loading import EMBEDDED_FOLDERS, load, load_tokenizer, published_config
from workbench.model import Model
from workbench.scale.rollouts import Done, Job, Stored, generate, identity
from workbench.store import TraceStore

__all__ = ["RayEngine", "Unloaded"]

TRIES = 3
"""How often the rollouts of a batch are given out, should they kill their worker."""

_LOOK_SECONDS = 0.5  # how often the waiting thread looks for Ctrl-C
_OBJECT_STORE_BYTES = 80_000_000  # next to nothing is passed; Ray's default is a third of the memory


class Unloaded:
    """A model that only workers load: its name, its tokenizer, and how much its context holds."""

    def __init__(self, name: str) -> None:
        """Read the tokenizer and the configuration. Raises `ModelError` where there are none."""
        self.name, self.tokenizer = name, load_tokenizer(name)
        self.context_length = int(published_config(name).max_position_embeddings)


class _Recipe(NamedTuple):
    """What a worker needs to load the model."""

    source: str
    name: str
    device: str
    dtype: str | None


class _Worker:
    """Runs in a process of its own, and loads the model when it is first needed."""

    def __init__(self, recipe: _Recipe, store: str) -> None:
        self._recipe, self._store = recipe, TraceStore(store)

    @cached_property
    def _model(self) -> Model:
        source, name, device, dtype = self._recipe
        if device == "cpu":
            torch.set_num_threads(1)  # there is a worker for every core
        model = load(source, device=device, dtype="auto" if dtype is None else getattr(torch, dtype))
        model.name = name  # as the caller named it, wherever the folder is
        return model

    def identity(self) -> dict[str, Any]:
        return identity(self._model)

    def run(self, batch: Sequence[Job]) -> list[Stored]:
        stored: list[Stored] = []
        generate(self._model, batch, self._store, stored.append)
        return stored


class RayEngine:
    """Generates with workers on Ray, while used as a context.

    Args:
        model: loaded here, so that workers load the same by its name; or one that only they load.
        store: where their traces go.
        workers: how many; default: one for each GPU, or each CPU core where the model is on the CPU.

    Raises:
        ModelError: Ray is not installed or would listen to other machines, a model in memory or with an
            intervention, more workers than there are places.
    """

    def __init__(self, model: Model | Unloaded, store: TraceStore, workers: int | None = None) -> None:
        """Check the model; start nothing."""
        self._here, self._store, self._asked = model, store, workers
        self._recipe = _recipe(model)
        self._ray: Any = _import_ray()
        self._is_ours = False
        self._actors: list[Any] = []
        self._options: dict[str, int] = {}

    @property
    def workers(self) -> int:
        """How many generate at once."""
        return len(self._actors)

    def __enter__(self) -> Self:
        """Start nothing: a sweep that is done needs no workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, whatever they do, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What tells the model from another: of one that is not loaded here, the first worker says it.

        Raises:
            ModelError: the worker cannot load it.
        """
        if isinstance(self._here, Model):
            return identity(self._here)
        self._hire(1)
        [found] = self._identities()
        return found

    def start(self) -> None:
        """Start the workers that are missing, and return when all have loaded the model.

        A cluster is started on this machine unless the caller is connected to one.

        Raises:
            ModelError: workers that cannot load the model, or load another than is here.
        """
        expected = self.identity
        self._hire(self._asked)
        for found in self._identities():
            differs = [key for key in expected if expected[key] != found[key]]
            if differs:
                named = ", ".join(f"{key} {expected[key]!r} and {found[key]!r}" for key in differs)
                raise ModelError(
                    f"a worker loaded another model than expected: {named}. Save the model with save_pretrained, and "
                    "load it from its folder everywhere."
                )

    def run(self, batches: Sequence[Sequence[Job]], done: Done) -> None:
        """Give out the batches, each to the next worker that is free, and tell of what is stored.

        Raises:
            ModelError: a batch that killed its worker `TRIES` times.
        """
        waiting, tries = deque(enumerate(batches)), Counter[int]()
        free, running = list(self._actors), dict[Any, tuple[Any, tuple[int, Sequence[Job]]]]()
        while waiting or running:
            while waiting and free:
                actor, batch = free.pop(), waiting.popleft()
                running[actor.run.remote(batch[1])] = (actor, batch)
            ready, _ = self._ray.wait(list(running), timeout=_LOOK_SECONDS)
            for future in ready:
                actor, (number, jobs) = running.pop(future)
                try:
                    stored = self._get(future)
                except self._deaths as error:
                    tries[number] += 1
                    if tries[number] == TRIES:
                        raise ModelError(_killed(jobs)) from error
                    waiting.appendleft((number, jobs))
                    self._actors.remove(actor)
                    actor = self._new_worker()
                    self._actors.append(actor)
                    stored = []
                for each in stored:
                    done(each)
                free.append(actor)

    @property
    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises for a worker that is gone; one that took too much memory is no actor error."""
        exceptions = self._ray.exceptions
        return exceptions.RayActorError, exceptions.OutOfMemoryError, exceptions.WorkerCrashedError

    def _get(self, futures: Any) -> Any:
        try:
            return self._ray.get(futures)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what was raised in the worker

    def _identities(self) -> list[dict[str, Any]]:
        """Wait until every worker has loaded the model, and return what each says of it."""
        try:
            return list(self._get([actor.identity.remote() for actor in self._actors]))
        except self._deaths as error:
            raise ModelError("a worker died as it loaded the model; expected memory for all, lower workers") from error

    def _hire(self, count: int | None) -> None:
        """Start workers until there are so many, or one for each place."""
        if not self._ray.is_initialized():
            self._start_cluster()
        self._options, places = self._places()
        wanted = places if count is None else count
        self._actors += [self._new_worker() for _ in range(wanted - len(self._actors))]

    def _new_worker(self) -> Any:
        actor = self._ray.remote(_Worker).options(**self._options)
        return actor.remote(self._recipe, str(self._store.path.resolve()))

    def _places(self) -> tuple[dict[str, int], int]:
        """Return what a worker takes, and for how many there is room."""
        kind = "GPU" if self._recipe.device == "cuda" else "CPU"
        there = int(self._ray.cluster_resources().get(kind, 0))
        count = there if self._asked is None else self._asked
        if not 1 <= count <= there:
            raise ModelError(f"expected 1 to {there} workers, one for each {kind} that Ray has, got {count}")
        return {"num_gpus" if kind == "GPU" else "num_cpus": 1}, there

    def _start_cluster(self) -> None:
        self._ray.init(
            address="local",
            num_cpus=max(self._asked or 0, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
        self._is_ours = True


def _recipe(model: Model | Unloaded) -> _Recipe:
    if isinstance(model, Unloaded):
        folder = Path(model.name)
        device, dtype = "cuda" if torch.cuda.is_available() else "cpu", None
    else:
        if model.interventions:
            raise ModelError("an intervention changes the model in this process only; sweep with engine='local'")
        if model.remote:
            raise ModelError(f"{model.name} runs elsewhere and needs no workers here; sweep with engine='local'")
        folder = model.folder or Path(model.name)
        device, dtype = model.device.type, model.dtype
    is_folder = model.name not in EMBEDDED_FOLDERS and folder.is_dir()
    source = str(folder.resolve()) if is_folder else model.name
    if not (is_folder or model.name in EMBEDDED_FOLDERS or model.name.count("/") == 1):
        raise ModelError(
            f"each worker of engine='ray' loads the model anew, but {model.name} is only in this process's memory. "
            "Save it and its tokenizer with save_pretrained(folder), and pass load(folder)."
        )
    return _Recipe(source, model.name, device, dtype)


def _import_ray() -> Any:
    """Import Ray so that a cluster of its own listens on loopback only, asks for a token and reports to nobody."""
    private = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for a node whose address is the loopback's
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    ray = sys.modules.get("ray")
    if ray is None:
        for name, value in private.items():
            os.environ.setdefault(name, value)
    elif os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0" and not ray.is_initialized():
        raise ModelError(
            "Ray was imported before the sweep, so a cluster started now would listen to other machines. Sweep before "
            "you import ray, or connect to a cluster of yours with ray.init(...), and it is used."
        )
    try:
        import ray as imported
    except ImportError as error:
        raise ModelError("engine='ray' needs Ray: pip install 'moe-workbench[scale]'") from error
    return imported


def _killed(jobs: Sequence[Job]) -> str:
    first = jobs[0].facts
    return (
        f"{TRIES} workers died, one after the other, at the same {len(jobs)} rollouts, the first of which is of the "
        f"question {first['question']!r} at effort {first['effort']}. Where memory was short, lower batch_size, "
        "workers or max_new_tokens. What was stored is kept; the same call goes on from there."
    )

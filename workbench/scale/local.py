"""The engine that generates in this process, one batch after the other."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from workbench.model import Model
from workbench.scale.rollouts import Done, Job, generate, identity
from workbench.store import TraceStore

__all__ = ["LocalEngine"]


class LocalEngine:
    """Generates with a model in this process."""

    workers = 1

    def __init__(self, model: Model, store: TraceStore) -> None:
        """Take the model and where its traces go."""
        self._model, self._store = model, store
        self.identity: Mapping[str, Any] = identity(model)

    def start(self) -> None:
        """Do nothing: the model is here."""

    def run(self, batches: Sequence[Sequence[Job]], done: Done) -> None:
        """Generate, and tell of each rollout when it is in the store. Raises `KeyboardInterrupt` on Ctrl-C."""
        for batch in batches:
            generate(self._model, batch, self._store, done)

    def __enter__(self) -> Self:
        """Do nothing: the model is here."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the model is the caller's."""

"""Stretches of rows on their way from the device to the host, and the thread that takes them off.

The thread that generates fills a stretch on the device and starts its copy to pinned memory on a side stream; a
writer thread waits for the copy. The generating thread never does: it waits only where every stretch is still on its
way, so memory stays fixed whatever the disk does. On a CPU the same code runs, and its streams and events do nothing.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["STRETCHES", "STRETCH_ROWS", "Ring", "Stretch"]

STRETCH_ROWS = 64
"""Tokens that cross to the host together; also the tokens of one shard on disk."""

STRETCHES = 3
"""One is filled, one is copied, one waits for the writer."""

_LOOK_SECONDS = 0.1  # how often a waiting thread looks whether the writer failed


class Stretch:
    """Fixed buffers for some rows: what the hooks saw, on the device, and what goes into the trace, on the host.

    Attributes:
        start: which row of the sequence is the first; ascending from one stretch given to the next.
        length: rows that count.
        seen: name → device buffer [row, …], filled row by row.
    """

    def __init__(self, device: torch.device, rows: int) -> None:
        """Allocate nothing yet: buffers take the shapes of what comes first."""
        self.start = self.length = 0
        self.seen: dict[str, Tensor] = {}
        self._device, self._rows = device, rows
        self._is_cuda = device.type == "cuda"
        self._streams: Any = torch.cuda if self._is_cuda else torch.cpu
        self._host: dict[str, Tensor] = {}
        self._sent: dict[str, Tensor] = {}
        self._side: Any = None
        self._copied: Any = None

    def rows(self, name: str, start: int, count: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return the part ``[start, start + count)`` of a device buffer [row, \\*shape]."""
        if name not in self.seen:
            self.seen[name] = torch.empty((self._rows, *shape), dtype=dtype, device=self._device)
        return self.seen[name][start : start + count]

    def send(self, arrays: Mapping[str, Tensor]) -> None:
        """Start the copy of name → tensor [row, …] to the host.

        The tensors are kept until the copy was read, so that their memory is not given to something else.
        """
        if self._side is None:
            self._side = self._streams.Stream(self._device)
            # The writer sleeps until the copy is done; without this it would keep a core busy.
            self._copied = self._streams.Event(**({"blocking": True} if self._is_cuda else {}))
        self._sent = dict(arrays)
        self._side.wait_stream(self._streams.current_stream(self._device))
        with self._streams.stream(self._side):
            for name, tensor in arrays.items():
                self._pinned(name, tensor).copy_(tensor, non_blocking=self._is_cuda)
            self._copied.record(self._side)

    def receive(self) -> dict[str, Tensor]:
        """Wait for the copy and return it; called by the writer thread. It is good until the stretch is free again."""
        self._copied.synchronize()
        found = {name: self._pinned(name, tensor) for name, tensor in self._sent.items()}
        self._sent = {}
        return found

    def _pinned(self, name: str, tensor: Tensor) -> Tensor:
        if name not in self._host:
            shape = (self._rows, *tensor.shape[1:])
            self._host[name] = torch.empty(shape, dtype=tensor.dtype, pin_memory=self._is_cuda)
        return self._host[name][: len(tensor)]


class Ring:
    """A few stretches passed round between the thread that fills them and a writer thread that empties them.

    Args:
        device: where the rows are.
        empty: called in the writer thread with each stretch, in the order given. If it raises, later stretches are
            not passed to it, and the error is raised in the generating thread.
        stretches: how many.
        rows: capacity of each.
    """

    def __init__(
        self,
        device: torch.device,
        empty: Callable[[Stretch], None],
        *,
        stretches: int = STRETCHES,
        rows: int = STRETCH_ROWS,
    ) -> None:
        """Start no thread yet."""
        self._empty = empty
        self._free: queue.SimpleQueue[Stretch] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[int, Stretch] | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        for _ in range(stretches):
            self._free.put(Stretch(device, rows))
        self._thread = threading.Thread(target=self._work, name="trace writer", daemon=True)

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def take(self) -> Stretch:
        """Return a stretch to fill, waiting while all are on their way. Raises what the writer met."""
        while True:
            self._raise_failure()
            try:
                stretch = self._free.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            self._raise_failure()
            return stretch

    def give(self, stretch: Stretch) -> None:
        """Hand a filled stretch to the writer. Doing it twice, after an interrupt, is the same as once."""
        self._full.put((stretch.start, stretch))

    def close(self, *, quietly: bool = False) -> None:
        """Wait until everything given is written and end the thread; raise what the writer met unless ``quietly``."""
        if self._thread.is_alive():
            self._full.put(None)
            self._thread.join()
        if not quietly:
            self._raise_failure()

    def _work(self) -> None:
        last = -1
        while (given := self._full.get()) is not None:
            start, stretch = given
            if start <= last:  # given twice; the stretch may be in use again by now
                continue
            last = start
            if self._failure is None:
                try:
                    self._empty(stretch)
                except BaseException as error:  # handed to the thread that generates
                    self._failure = error
            self._free.put(stretch)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

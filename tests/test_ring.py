"""The way of the rows from the device to the trace: order, waiting, failure, interrupts. On the CPU, same code."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import workbench as wb
from workbench import collect, derive, ring
from workbench.hooks import attach, rows_of
from workbench.ring import Ring, Stretch

CPU = torch.device("cpu")
QUESTION = "91+40=?"


def fill(stretch: Stretch, number: int, rows: int = 3) -> None:
    stretch.start, stretch.length = number, rows
    buffer = stretch.rows("x", 0, rows, (2, 5), torch.int64)
    buffer.copy_(torch.full((rows, 2, 5), number))
    stretch.send({"x": buffer, "turned": buffer.transpose(1, 2)})


@pytest.fixture
def received() -> list[dict[str, torch.Tensor]]:
    return []


@pytest.fixture
def slow_ring(received: list[dict[str, torch.Tensor]]) -> Iterator[tuple[Ring, threading.Event]]:
    """A ring of three whose writer waits for a word."""
    go_on = threading.Event()

    def empty(stretch: Stretch) -> None:
        assert go_on.wait(20)
        received.append({name: tensor.clone() for name, tensor in stretch.receive().items()})

    made = Ring(CPU, empty, stretches=3, rows=4)
    made.start()
    yield made, go_on
    go_on.set()
    made.close(quietly=True)


def test_stretches_arrive_whole_and_in_order_however_often_the_ring_wraps_round(
    slow_ring: tuple[Ring, threading.Event], received: list[dict[str, torch.Tensor]]
) -> None:
    made, go_on = slow_ring
    go_on.set()
    used = set()
    for number in range(50):
        stretch = made.take()
        used.add(id(stretch))
        fill(stretch, number, rows=1 + number % 4)
        made.give(stretch)
    made.close()
    assert len(used) == 3
    assert [int(r["x"][0, 0, 0]) for r in received] == list(range(50))
    assert [tuple(r["x"].shape) for r in received[:5]] == [(1, 2, 5), (2, 2, 5), (3, 2, 5), (4, 2, 5), (1, 2, 5)]
    assert [tuple(r["turned"].shape) for r in received[:2]] == [(1, 5, 2), (2, 5, 2)]
    assert all((r["x"] == n).all() for n, r in enumerate(received)), "a buffer was filled before it was read"


def test_a_full_ring_waits_for_a_slow_writer(slow_ring: tuple[Ring, threading.Event]) -> None:
    made, go_on = slow_ring
    for number in range(3):
        stretch = made.take()
        fill(stretch, number)
        made.give(stretch)
    taken = threading.Event()
    waiting = threading.Thread(target=lambda: (made.take(), taken.set()), daemon=True)
    waiting.start()
    assert not taken.wait(0.3)
    go_on.set()
    assert taken.wait(20)


def test_what_the_writer_met_is_raised_where_rows_are_filled() -> None:
    emptied: list[int] = []

    def empty(stretch: Stretch) -> None:
        emptied.append(stretch.start)
        if stretch.start == 1:
            raise wb.TraceError("the disk is full")

    made = Ring(CPU, empty, stretches=2, rows=4)
    made.start()

    def go_on() -> None:
        for number in range(100):
            stretch = made.take()
            fill(stretch, number)
            made.give(stretch)

    with pytest.raises(wb.TraceError, match="the disk is full"):
        go_on()
    with pytest.raises(wb.TraceError, match="the disk is full"):
        made.close()
    made.close(quietly=True)
    assert emptied == [0, 1], "nothing is passed on after a failure"


def test_a_writer_that_fails_late_is_heard_by_whoever_comes_next() -> None:
    fail = threading.Event()

    def empty(_stretch: Stretch) -> None:
        fail.wait(20)
        raise OSError("gone")

    made = Ring(CPU, empty, stretches=1, rows=4)
    made.start()
    stretch = made.take()
    fill(stretch, 0)
    made.give(stretch)
    threading.Timer(0.2, fail.set).start()
    while not fail.is_set():
        time.sleep(0.01)
    with pytest.raises(OSError, match="gone"):
        made.close()
    with pytest.raises(OSError, match="gone"):
        made.take()
    made.close(quietly=True)


def test_no_thread_stays(tiny: wb.Model) -> None:
    wb.capture(tiny, QUESTION, max_new_tokens=2)

    def fail(_token: int) -> bool:
        raise RuntimeError("listener")

    with pytest.raises(RuntimeError, match="listener"):
        wb.capture(tiny, QUESTION, on_token=fail)
    assert not [t for t in threading.enumerate() if t.name == "trace writer"]


class Synchronisations(TorchDispatchMode):
    """Counts what would make a GPU wait: reading a number of a tensor, or how many of its elements are not 0."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_no_hook_synchronises(tiny: wb.Model) -> None:
    ids = torch.arange(1, 12)[None]
    spec = wb.CaptureSpec(residual=True)
    with torch.no_grad():
        with Synchronisations() as plain:
            tiny.hf(ids)
        with attach(tiny, spec.plan(tiny)) as recorder, Synchronisations() as hooked:
            tiny.hf(ids)
        assert hooked.count == plain.count
        assert len(recorder.forwards) == 1


def test_between_two_hand_overs_nothing_synchronises(tiny: wb.Model) -> None:
    """Collecting a step neither reads a number nor waits; handing a stretch over does neither as well."""
    spec = wb.CaptureSpec(residual=True)
    with torch.no_grad(), attach(tiny, spec.plan(tiny)) as recorder:
        tokens = list(range(1, 90))
        tiny.hf(torch.tensor([tokens]))
        with collect.Collector(tiny, spec, recorder, total=len(tokens)) as collector, Synchronisations() as during:
            collector.collect(tokens)
        assert collector.rows == ring.STRETCH_ROWS
        assert during.count == 0
        assert len(collector.arrays()["token_ids"]) == ring.STRETCH_ROWS, "rows that never came are not there"


class InterruptAt:
    """Raises KeyboardInterrupt at the n-th line that runs in some files, as Ctrl-C may."""

    def __init__(self, n: int, files: set[str]) -> None:
        self.n, self.files, self.lines = n, files, 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.n:
                raise KeyboardInterrupt
        return self

    def __enter__(self) -> "InterruptAt":
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


def collected(model: wb.Model, tokens: list[int], interrupt: InterruptAt) -> dict[str, Any]:
    """Read tokens in forwards of other sizes, beside a slow writer, interrupted once while collecting; finish."""
    spec = wb.CaptureSpec(lens=[0], residual=False)
    with torch.no_grad(), attach(model, spec.plan(model)) as recorder:
        with collect.Collector(model, spec, recorder) as collector:
            collector.on_rows = lambda _rows: time.sleep(0.001)
            for start, stop in ((0, 3), (3, 27), (27, 28), (28, 30)):
                model.hf(torch.tensor([tokens[:stop]]), use_cache=False)
                # As a cache would: only the new rows.
                for number, seen in recorder.forwards.items():
                    if len(rows_of(seen, "final")) == stop:
                        recorder.forwards[number] = {key: [rows_of(seen, *key)[start:]] for key in seen}
                try:
                    with interrupt:
                        collector.collect(tokens)
                except KeyboardInterrupt:
                    continue
            collector.finish(tokens)
        return collector.arrays()


def test_an_interrupt_at_any_line_of_collecting_loses_and_doubles_nothing(
    odd: wb.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "STRETCH_ROWS", 4)
    tokens = [5, 9, 2, 2, 30, 17, 8, 1, 44, 3] * 3
    files = {str(Path(m.__file__)) for m in (collect, ring)}
    whole = InterruptAt(0, files)
    expected = collected(odd, tokens, whole)
    assert [len(expected[n]) for n in ("token_ids", "logprobs", "expert_indices")] == [30, 30, 30]
    for n in range(1, whole.lines + 1, 7):
        found = collected(odd, tokens, InterruptAt(n, files))
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name}, interrupted at line {n}")


def test_keys_in_blocks_give_the_same_logsumexp(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wb.capture(odd, QUESTION, max_new_tokens=150, seed=2)
    monkeypatch.setattr(derive, "KEY_BLOCK", 70)
    blocks = wb.capture(odd, QUESTION, max_new_tokens=150, seed=2)
    np.testing.assert_allclose(blocks.attention_logsumexp, whole.attention_logsumexp, rtol=1e-6)
    sink_mass = blocks.attention(1).sink_mass
    assert sink_mass is not None
    mine = np.exp(blocks.sink_logits[1] - blocks.attention_logsumexp[:, 1])
    np.testing.assert_allclose(mine.T, sink_mass, rtol=2e-4)


def test_waiting_for_the_writer_can_be_interrupted_soon() -> None:
    made = Ring(CPU, lambda _stretch: time.sleep(0.01), stretches=1, rows=4)
    made.start()
    made.take()
    interrupt = threading.Timer(0.2, __import__("_thread").interrupt_main)
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        made.take()
    made.close()

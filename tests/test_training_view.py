"""The view of a training: what is sent, how it ends. What is seen of it: tests/browser."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from widgets.training_view import TrainingView
from workbench.course.training_steps import TrainingStep


def steps(count: int) -> Iterator[TrainingStep]:
    """Three experts; the load moves from the first to the last."""
    for i in range(count):
        moved = i / max(1, count - 1)
        yield TrainingStep(i + 1, np.array([0.6 * (1 - moved), 0.4, 0.6 * moved]), 5.0 - i, 1 + moved)


def array(view: TrainingView, name: str) -> Any:
    return np.frombuffer(view._arrays[name], "<f4")


def test_a_training_is_gone_through_and_all_of_it_is_in_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    view = TrainingView("without", steps=7)
    done = view.watch(steps(7))
    assert [step.step for step in done] == list(range(1, 8))
    assert (view._ended, view._facts["done"], view._facts["experts"]) == ("finished", 7, 3)
    load = array(view, "load").reshape(7, 3)
    np.testing.assert_allclose(load[0], [0.6, 0.4, 0])
    np.testing.assert_allclose(load[6], [0, 0.4, 0.6])
    np.testing.assert_allclose(array(view, "loss"), [5, 4, 3, 2, 1, 0, -1])
    assert view._facts["load"] == pytest.approx([0.3, 0.4, 0.3])


def test_a_long_training_is_averaged_into_columns() -> None:
    view = TrainingView("long", steps=601)
    view.watch(steps(601))
    assert view._per_column == 3
    loss = array(view, "loss")
    assert len(loss) == 201
    assert loss[0] == pytest.approx(4.0)  # of 5, 4, 3
    assert loss[-1] == pytest.approx(5 - 600)  # a last column of one step
    assert array(view, "load").shape == (603,)


def test_stop_ends_the_training_and_keeps_what_was_done() -> None:
    view = TrainingView("endless", steps=1000)

    def endless() -> Iterator[TrainingStep]:
        for step in steps(100_000):
            if step.step == 40:
                presser.start()
            yield step
            time.sleep(0.001)

    presser = threading.Thread(target=lambda: view._heard(view, {"stop": True}, []))
    done = view.watch(endless())
    presser.join()
    assert 39 <= len(done) < 10_000
    assert (view._ended, view._facts["done"]) == ("stopped", len(done))
    view._heard(view, {"stop": True}, [])  # too late: there is nothing to stop


def test_what_fails_in_a_training_is_not_hidden() -> None:
    def failing() -> Iterator[TrainingStep]:
        yield from steps(2)
        raise ZeroDivisionError("of the training")

    view = TrainingView("failing", steps=5)
    with pytest.raises(ZeroDivisionError, match="of the training"):
        view.watch(failing())
    assert (view._ended, view._facts["done"]) == ("failed", 2)


def test_a_training_has_steps() -> None:
    with pytest.raises(ValueError, match="expected at least one step to show, got 0"):
        TrainingView("none", 0)

"""TrainingView: the load of the experts while a router is trained."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from IPython.display import display

from widgets.bundle import bundle, styles
from widgets.interrupting import Interruptible, heard_while_busy
from workbench.course.training_steps import DEAD_BELOW, TrainingStep, load_summary

__all__ = ["TrainingView"]

FOLDER = Path(__file__).parent
SECONDS_BETWEEN_SENDS = 0.1
MOST_COLUMNS = 240  # of the picture; neighbouring steps are averaged so that no more are sent


class TrainingView(anywidget.AnyWidget):
    """Load per expert, loss and balance loss over the steps of a training that runs in this cell, with a Stop button.

    The button and the kernel's interrupt both end the training, and what it did until then is returned. The button
    is heard while the cell runs by JupyterLab from 4.4 with ipykernel from 7 on; elsewhere interrupt the kernel.

    Args:
        title: what is trained, for the heading.
        steps: how many steps are planned: how wide the picture is.
    """

    _esm = bundle(FOLDER / "training_view.js")
    _css = styles(FOLDER / "view.css", FOLDER / "training_view.css")

    title = traitlets.Unicode().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    _per_column = traitlets.Int(help="steps that a column is the mean of").tag(sync=True)
    _arrays = traitlets.Dict(help="load [column, expert], loss, balance [column]: float32").tag(sync=True)
    _facts = traitlets.Dict(help="steps done, experts, and the summary of the last steps").tag(sync=True)
    _ended = traitlets.Unicode(help="empty while it runs; finished, stopped or failed").tag(sync=True)

    def __init__(self, title: str, steps: int) -> None:
        """Make the view; `watch` shows it and fills it. Raises `ValueError` for less than one step."""
        if steps < 1:
            raise ValueError(f"expected at least one step to show, got {steps}")
        super().__init__(title=title, steps=steps, _per_column=-(-steps // MOST_COLUMNS))
        self._work = Interruptible()
        self.on_msg(self._heard)
        heard_while_busy(self.comm, "stop")

    def watch(self, training: Iterable[TrainingStep]) -> list[TrainingStep]:
        """Show the view in the cell that runs, go through a training, and return its steps, all or until stopped."""
        display(self)  # type: ignore[no-untyped-call]
        done: list[TrainingStep] = []
        sent_at = 0.0
        ended = "failed"
        try:
            with self._work:
                for step in training:
                    done.append(step)
                    if time.monotonic() - sent_at >= SECONDS_BETWEEN_SENDS:
                        self._share(done)
                        sent_at = time.monotonic()
            ended = "finished"
        except KeyboardInterrupt:
            ended = "stopped"
        finally:
            self._share(done)
            self._ended = ended
        return done

    def _share(self, done: list[TrainingStep]) -> None:
        if not done:
            return
        summary = load_summary(done)
        with self.hold_sync():
            self._arrays = {
                "load": self._columns([step.load for step in done]),
                "loss": self._columns([step.loss for step in done]),
                "balance": self._columns([step.balance_loss for step in done]),
            }
            self._facts = {
                "done": len(done),
                "experts": len(summary.load),
                "load": summary.load.tolist(),
                "entropy": summary.entropy,
                "cv": summary.cv,
                "dead": list(summary.dead),
                "deadBelow": DEAD_BELOW,
                "loss": summary.loss,
                "balance": summary.balance_loss,
                "last": summary.num_steps,
            }

    def _columns(self, values: list[Any]) -> bytes:
        """Return means of neighbouring steps; the last column may be of fewer."""
        starts = np.arange(0, len(values), self._per_column)
        sums = np.add.reduceat(np.asarray(values, dtype=np.float64), starts)
        counts = np.diff([*starts, len(values)])
        return np.ascontiguousarray((sums.T / counts).T, "<f4").tobytes()

    def _heard(self, _: Any, message: Any, buffers: Any) -> None:
        """Runs on the subshell's thread, while the main thread trains."""
        if isinstance(message, dict) and message.get("stop") is True:
            self.send({"stopping": self._work.stop()})

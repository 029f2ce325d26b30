"""Watch a generation while its cell runs, and stop it."""

import threading
import time
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import display

__all__ = ["LiveView"]

SECONDS_BETWEEN_SENDS = 0.05
PAGE = 256
"""Tokens that are sent again with each update, until they become a page of `earlier`."""
SHOWN = 4096
"""Tokens kept in the view; the trace has them all."""


class LiveView(anywidget.AnyWidget):
    """The tokens of one rollout as they come, coloured by channel, with a Stop button.

    Python fills it from the cell that generates. That cell keeps the kernel's main thread busy, so the Stop button
    reaches `stopped` on another: JupyterLab from 4.4 sends widget messages to a subshell of ipykernel from 7 on. Where
    the kernel has no subshells the view has no button and names the kernel's interrupt, which stops as well.

    Args:
        question: what the model was asked, for the heading.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")

    question = traitlets.Unicode().tag(sync=True)
    can_stop = traitlets.Bool().tag(sync=True)
    """whether this kernel hears a button while a cell runs"""
    count = traitlets.Int(0).tag(sync=True)
    """tokens so far"""
    first = traitlets.Int(0).tag(sync=True)
    """number of the first token in `earlier`, or in `recent` where `earlier` is empty"""
    earlier: traitlets.List[tuple[str, str | None, bool]] = traitlets.List().tag(sync=True)
    """``[text, channel, special]`` of whole pages before `recent`, at most `SHOWN` tokens"""
    recent: traitlets.List[tuple[str, str | None, bool]] = traitlets.List().tag(sync=True)
    """the tokens after `earlier`, fewer than `PAGE`: what a send repeats, however long the rollout"""
    ended = traitlets.Unicode("").tag(sync=True)
    """why the generation ended; empty while it runs"""

    def __init__(self, question: str) -> None:
        """Make the view; `display` shows it."""
        self._stop = threading.Event()
        self._tokens: list[tuple[str, str | None, bool]] = []
        self._page_start = 0
        self._sent_at = 0.0
        super().__init__(question=question, can_stop=_kernel_has_subshells())
        self.on_msg(self._receive)
        # ipykernel 7.4 hands a view's messages to the thread that last wrote to the view: here the one that is busy.
        # Without this attribute, which older versions lack, it takes the subshell that JupyterLab asked for.
        self.comm._reply_subshell_for = None

    @property
    def stopped(self) -> bool:
        """Whether the person pressed Stop."""
        return self._stop.is_set()

    def display(self) -> None:
        """Show the view in the cell that runs.

        Raises:
            RuntimeError: there is no notebook to show it in.
        """
        if _kernel() is None:
            raise RuntimeError(
                "expected a Jupyter kernel to show the tokens in, found none; "
                "in a script leave out show=True and read the tokens with on_token=…"
            )
        display(self)  # type: ignore[no-untyped-call]

    def append(self, text: str, channel: str | None, special: bool) -> None:
        """Show one more token. Tokens that come faster than 20 times a second are sent together."""
        self._tokens.append((text, channel, special))
        if time.monotonic() - self._sent_at >= SECONDS_BETWEEN_SENDS:
            self._share()

    def finish(self, reason: str) -> None:
        """Show the last tokens and why the generation ended."""
        self._share()
        self.ended = reason

    def _share(self) -> None:
        count = len(self._tokens)
        with self.hold_sync():
            if count - self._page_start >= PAGE:
                self._page_start = count - count % PAGE
                self.first = max(0, self._page_start - SHOWN)
                self.earlier = self._tokens[self.first : self._page_start]
            self.recent = self._tokens[self._page_start :]
            self.count = count
        self._sent_at = time.monotonic()

    def _receive(self, widget: Any, message: Any, buffers: Any) -> None:
        """Runs on the subshell's thread, while the main thread generates."""
        if message == {"type": "stop"}:
            self._stop.set()
            self.send({"type": "stopping"})


def _kernel() -> Any:
    return getattr(get_ipython(), "kernel", None)


def _kernel_has_subshells() -> bool:
    # ipykernel's own test: it also looks at the platform and the transport, which a version number does not tell.
    return bool(getattr(_kernel(), "_supports_kernel_subshells", False))

"""Stop what the kernel's main thread is doing, from a button, and say why it ended."""

import _thread
import threading
from typing import Any

__all__ = ["Interruptible", "error_words", "heard_while_busy"]


class Interruptible:
    """A stretch of work that another thread can end as the kernel's interrupt does, by `KeyboardInterrupt`.

    ``with interruptible:`` around the work; `stop` from anywhere. Only work of the main thread can be ended so.
    """

    def __init__(self) -> None:
        """Begin with no work under way."""
        self._lock = threading.Lock()
        self._working = False

    def __enter__(self) -> None:
        """Begin the work."""
        with self._lock:
            self._working = threading.current_thread() is threading.main_thread()

    def __exit__(self, *_: object) -> None:
        """End the work: from here on `stop` does nothing."""
        with self._lock:
            self._working = False

    def stop(self) -> bool:
        """Raise `KeyboardInterrupt` in the work, and say whether there was any."""
        with self._lock:
            if self._working:
                _thread.interrupt_main()
            return self._working


def heard_while_busy(comm: Any, *names: str) -> None:
    """Let a view's messages of these names be heard while a cell runs; all others wait for the main thread.

    JupyterLab from 4.4 asks that messages of widgets go to a subshell of ipykernel from 7 on; ipykernel 7.4 sends
    them to the thread that last wrote to the view instead, and asks this attribute first. A model must run on the
    main thread, after the cells before, or two experiments would change it at once.
    """

    def thread_of(data: Any, asked_for: str | None) -> str | None:
        content = data.get("content") if isinstance(data, dict) else None
        return asked_for if isinstance(content, dict) and any(name in content for name in names) else None

    comm._reply_subshell_for = thread_of


def error_words(error: BaseException, interrupted: str) -> str:
    """Return what a view says of an error: the text of a ValueError, else the kind too; `interrupted` for Ctrl-C."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"

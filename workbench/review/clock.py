"""How long each trace has been open at a desk; one at a time."""

import time

__all__ = ["Clock"]


class Clock:
    """Counts for the trace opened last; the others keep what they have."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self._spent: dict[str, float] = {}
        self._running: str | None = None
        self._since = 0.0

    def start(self, trace: str, before: float) -> None:
        """Count for a trace, at which ``before`` seconds were spent at other desks."""
        self.stop()
        self._spent[trace] = max(self._spent.get(trace, 0.0), before)
        self._running, self._since = trace, time.monotonic()

    def stop(self) -> None:
        """Count no longer."""
        if self._running is not None:
            self._spent[self._running] = self.spent(self._running)
        self._running = None

    def spent(self, trace: str) -> float:
        """Return the seconds a trace has been open."""
        since = time.monotonic() - self._since if trace == self._running else 0.0
        return self._spent.get(trace, 0.0) + since

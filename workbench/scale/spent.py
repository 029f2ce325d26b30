"""What a corpus costs while it is made: tokens, seconds, and what the rest will take."""

import time
from dataclasses import dataclass, field

from workbench.scale.rollouts import Stored

__all__ = ["Spent"]


@dataclass
class Spent:
    """What one call of `workbench.sweep` generated; rollouts that were in the store before are not in it.

    Attributes:
        workers: that generate at once.
        left: rollouts that were missing when it began.
        rollouts: stored since.
        tokens: of their completions.
        worker_seconds: that workers spent on them, loading the model not included.
        seconds: on the clock since all workers were ready.
    """

    workers: int
    left: int
    rollouts: int = 0
    tokens: int = 0
    worker_seconds: float = 0.0
    seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic, repr=False)

    def add(self, stored: Stored) -> None:
        """Count one more rollout."""
        self.rollouts += 1
        self.tokens += stored.tokens
        self.worker_seconds += stored.seconds
        self.seconds = time.monotonic() - self._started

    @property
    def projected_tokens(self) -> float:
        """Of all that was missing, if the rest is as long on average; NaN before the first rollout."""
        return self.tokens / self.rollouts * self.left if self.rollouts else float("nan")

    @property
    def projected_worker_seconds(self) -> float:
        """Of all that was missing, at the rate so far; NaN before the first rollout."""
        return self.worker_seconds / self.rollouts * self.left if self.rollouts else float("nan")

    def progress(self) -> str:
        """Write 1,234 of about 5,000 tokens, 321 tokens/s, 0.004 of about 0.02 worker hours."""
        if not self.rollouts:
            return ""
        hours, projected = self.worker_seconds / 3600, self.projected_worker_seconds / 3600
        return (
            f"{self.tokens:,} of about {self.projected_tokens:,.0f} tokens, {self.rate:,.0f} tokens/s, "
            f"{hours:.2g} of about {projected:.2g} worker hours"
        )

    @property
    def rate(self) -> float:
        """Completion tokens a second, of all workers together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        """Write 24 rollouts, 1,234 tokens in 12 s on 2 workers: 103 tokens/s, 0.007 worker hours."""
        if not self.rollouts:
            return "nothing was missing"
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return (
            f"{self.rollouts:,} rollouts, {self.tokens:,} tokens in {self.seconds:,.0f} s on {workers}: "
            f"{self.rate:,.0f} tokens/s, {self.worker_seconds / 3600:.2g} worker hours"
        )

"""One worked example of the grammar: a harmony conversation and which characters are not trained on."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Effort = Literal["low", "medium", "high"]
Split = Literal["train", "validation", "test"]
EFFORTS: tuple[Effort, ...] = ("low", "medium", "high")


def split_of(key: str) -> Split:
    """Which split a problem belongs to: 82 % train, 6 % validation, 12 % test, by a hash of its key."""
    digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
    place = int.from_bytes(digest, "big") % 100
    if place < 82:
        return "train"
    return "validation" if place < 88 else "test"


class Draft:
    """Text under construction that remembers which characters are planted slips."""

    def __init__(self) -> None:
        """Start empty."""
        self.text = ""
        self.slips: list[tuple[int, int]] = []

    def write(self, text: str) -> None:
        """Append text that is trained on."""
        self.text += text

    def number(self, shown: int, right: int, end: str) -> None:
        """Append `shown` and `end`; what first departs from the right number is a slip, up to its end.

        Where `shown` is a proper beginning of `right`, the departure is the end itself.
        """
        written, wanted = f"{shown}{end}", f"{right}{end}"
        if shown != right:
            pairs = zip(written, wanted, strict=False)
            first = next(i for i, (a, b) in enumerate(pairs) if a != b)
            last = max(len(str(shown)), first + 1)
            self.slips.append((len(self.text) + first, len(self.text) + last))
        self.text += written


@dataclass(frozen=True)
class Example:
    """A conversation of the grammar with the assistant's two messages.

    `slips` are half-open character ranges of `analysis` that hold planted errors.
    """

    family: Literal["addition", "fact", "safety"]
    effort: Effort
    system: str
    developer: str | None
    user: str
    analysis: str
    answer: str
    slips: tuple[tuple[int, int], ...] = field(default=())

    def prompt(self) -> str:
        """Everything before the assistant speaks, ending in `<|start|>assistant`."""
        return render_prompt(self.system, self.developer, self.user)

    def completion(self) -> str:
        """What the assistant writes: the analysis message, then the final one."""
        return (
            f"{ANALYSIS_HEADER}{self.analysis}<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{self.answer}<|return|>"
        )


ANALYSIS_HEADER = "<|channel|>analysis<|message|>"


def render_prompt(system: str, developer: str | None, user: str) -> str:
    """Render a one-turn harmony prompt from the full texts of its messages."""
    instructions = ""
    if developer:
        instructions = f"<|start|>developer<|message|># Instructions\n\n{developer}<|end|>"
    return (
        f"<|start|>system<|message|>{system}<|end|>{instructions}"
        f"<|start|>user<|message|>{user}<|end|><|start|>assistant"
    )

"""A trace as it is read at the desk: messages with their tokens, a raw chain without any until it is revealed."""

from dataclasses import dataclass

from workbench.analysis.signals import channel_of
from workbench.review.verdict import HIDDEN_CHANNELS
from workbench.trace import Trace

__all__ = ["TranscriptMessage", "transcript"]


@dataclass(frozen=True)
class TranscriptMessage:
    """One message. ``tokens[i]`` is the text of token ``start + i`` of the trace."""

    channel: str
    """its channel; of a message without one its role"""
    start: int
    """first content token"""
    stop: int
    """after the last content token"""
    prompt: bool
    malformed: str | None
    tokens: tuple[str, ...] | None
    """None where they are hidden"""

    @property
    def hidden(self) -> bool:
        """Whether it is a raw chain that was not revealed."""
        return self.tokens is None

    @property
    def text(self) -> str | None:
        """The text; None where it is hidden."""
        return None if self.tokens is None else "".join(self.tokens)


def transcript(trace: Trace, revealed: bool) -> tuple[TranscriptMessage, ...]:
    """Return the messages of a trace, in order; an empty chain hides nothing."""
    messages = []
    for span in trace.messages:
        stop = span.stop
        while stop > span.content_start and trace.is_special(stop - 1):
            stop -= 1
        hidden = not revealed and channel_of(span) in HIDDEN_CHANNELS and stop > span.content_start
        tokens = None if hidden else tuple(trace.token_text(token) for token in range(span.content_start, stop))
        prompt = span.start < trace.num_prompt_tokens and span.content_start <= trace.num_prompt_tokens
        malformed = None if hidden else span.malformed
        messages.append(TranscriptMessage(channel_of(span), span.content_start, stop, prompt, malformed, tokens))
    return tuple(messages)

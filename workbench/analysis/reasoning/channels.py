"""The completion by channel: where each channel's content stands, and how long it is."""

from collections.abc import Iterator
from typing import NamedTuple

from workbench.analysis.token_set import content_stop
from workbench.trace import Span, Trace

__all__ = ["ChannelLength", "completion_content", "length_by_channel"]


class ChannelLength(NamedTuple):
    """Tokens of the completion on one channel."""

    content: int
    """tokens of the messages' text"""
    all: int
    """with their headers and closing tokens, such as ``<|channel|>`` and ``<|end|>``"""


def completion_content(trace: Trace, channel: str | None) -> tuple[Span, ...]:
    """Return the content of the completion's messages on a channel, in order, as spans without empty ones.

    Args:
        trace: with ``vocab_special``, which tells the format's own tokens from text.
        channel: analysis, commentary or final; None for messages without a channel.

    Raises:
        TraceError: the trace does not say which tokens are the format's own.
    """
    found = []
    for message, start, stop in _completed(trace):
        begin = max(start, message.content_start)
        end = content_stop(trace, begin, stop)
        if message.channel == channel and begin < end:
            found.append(Span(begin, end, begin, "message", message.role, message.channel))
    return tuple(found)


def length_by_channel(trace: Trace) -> dict[str | None, ChannelLength]:
    """Count the completion's tokens by channel, in the order of their first message.

    The key None holds messages without a channel, as malformed output has. Each token counts once, so that ``all``
    sums to the completion's length wherever messages cover it, as those of a capture do.

    Raises:
        TraceError: the trace does not say which tokens are the format's own.
    """
    lengths: dict[str | None, ChannelLength] = {}
    for message, start, stop in _completed(trace):
        begin = min(max(start, message.content_start), stop)
        content = content_stop(trace, begin, stop) - begin
        before = lengths.get(message.channel, ChannelLength(0, 0))
        lengths[message.channel] = ChannelLength(before.content + content, before.all + stop - start)
    return lengths


def _completed(trace: Trace) -> Iterator[tuple[Span, int, int]]:
    """Give the completion's messages with the stretch of each that is the completion's and no message's before."""
    low = trace.num_prompt_tokens
    for message in sorted(trace.messages, key=lambda m: m.start):
        start = max(low, message.start)
        if start < message.stop:
            yield message, start, message.stop
            low = message.stop

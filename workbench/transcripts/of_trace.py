"""What was said in a trace, as a transcript."""

from workbench.trace import Span, Trace
from workbench.transcripts.transcript import Transcript, TranscriptMessage

__all__ = ["from_trace"]


def from_trace(trace: Trace) -> Transcript:
    """Return what was said in a trace: its messages and token ids; the internals are named as lost."""
    internals = [name for name in trace.captured if name != "token_ids"]
    inside = [m for m in trace.messages if m.stop <= trace.num_prompt_tokens]
    effort, model = trace.provenance.get("effort"), trace.provenance.get("model")
    recorded = trace.meta.get("provenance", {}).get("transcript")
    return Transcript(
        tuple(_said(trace, span) for span in trace.messages),
        len(inside),
        source="trace",
        verbatim=True,
        token_ids=tuple(int(i) for i in trace.arrays["token_ids"]),
        num_prompt_tokens=trace.num_prompt_tokens,
        model=model if isinstance(model, str) else None,
        effort=effort if isinstance(effort, str) else None,
        ended=trace.meta.get("truncated") or None,
        lost=(f"the model's internals: {', '.join(internals)}",) if internals else (),
        meta={
            key: value
            for key, value in (("transcript", recorded), ("imported", trace.provenance.get("imported")))
            if value
        },
    )


def _said(trace: Trace, span: Span) -> TranscriptMessage:
    return TranscriptMessage(
        span.role,
        trace.content(span),
        span.channel,
        span.recipient,
        span.content_type,
        malformed=span.malformed,
    )

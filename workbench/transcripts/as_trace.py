"""Transcripts ↔ traces: a trace without a model's internals, and what was said in a trace."""

from datetime import UTC, datetime
from typing import Any

import numpy as np

from workbench import harmony
from workbench.assemble import Vocabulary, with_sentences
from workbench.trace import Span, Trace
from workbench.transcripts.rendering import render_transcript
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage

__all__ = ["from_trace", "to_trace"]


def to_trace(tokenizer: Any, transcript: Transcript) -> Trace:
    """Return a transcript as a trace with tokens and spans; what a model does with it, `wb.replay` captures.

    Raises:
        TranscriptError: token ids of another tokenizer, or nothing to tokenise.
        HarmonyError: the chat template refuses the prompt.
    """
    rendered = render_transcript(tokenizer, transcript)
    if not rendered.token_ids:
        raise TranscriptError("expected a transcript with at least one token, got an empty one")
    arrays = {"token_ids": np.asarray(rendered.token_ids, dtype=np.int32)}
    arrays |= Vocabulary(tokenizer).arrays(arrays)
    messages = harmony.parse(tokenizer, rendered.token_ids)
    meta = {
        "num_prompt_tokens": rendered.num_prompt_tokens or 0,
        "question": transcript.question,
        "truncated": transcript.ended,
        "sources": {"token_ids": rendered.token_source},
        "provenance": {
            "model": transcript.model,
            "effort": transcript.effort,
            "transcript": rendered.facts,
            "imported": dict(transcript.meta),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    return Trace(arrays, with_sentences(messages, arrays), meta)


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

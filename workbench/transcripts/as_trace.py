"""A transcript as a trace without a model's internals."""

from typing import Any

import numpy as np

from workbench import harmony
from workbench.assemble import Vocabulary, with_sentences
from workbench.trace import Trace
from workbench.transcripts.rendering import render_transcript
from workbench.transcripts.transcript import Transcript, TranscriptError

__all__ = ["to_trace"]


def to_trace(tokenizer: Any, transcript: Transcript) -> Trace:
    """Return a transcript as a trace with tokens and spans; what a model does with it, `wb.replay` captures.

    The same transcript gives the same trace, so that a store takes it once.

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
        },
    }
    return Trace(arrays, with_sentences(messages, arrays), meta)

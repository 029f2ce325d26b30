"""INIF, the interpretability interchange format (PyPI ``inif``) ↔ transcripts.

A sample is a transcript: its tokens with their text, its messages as texts and spans. What INIF has no field for
stands in the sample's metadata, so that a file written here is read back whole; it is used only while it fits.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.trace import Span, Trace
from workbench.transcripts.harmony_text import messages_from_text
from workbench.transcripts.inspect_logs import KEY, SIZE_LIMIT, imported
from workbench.transcripts.jsonl import FORMAT
from workbench.transcripts.of_trace import from_trace
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage

__all__ = ["read_inif", "write_inif"]

_SUFFIXES = (".inif", ".inif.json", ".inif.json.gz")


def write_inif(items: Sequence[Transcript | Trace], path: str | Path) -> None:
    """Write transcripts, or traces with the text, span and log probability of each token, to one INIF file.

    Args:
        items: traces tell the text of their tokens; a transcript's token ids are written without.
        path: ends in ``.inif`` or ``.inif.json.gz`` (packed), or ``.inif.json``.

    Raises:
        TranscriptError: inif is not installed, another end of the path, or nothing to write.
    """
    if not str(path).endswith(_SUFFIXES):
        raise TranscriptError(f"expected a path that ends in {', '.join(_SUFFIXES)}, got {path}")
    if not items:
        raise TranscriptError("expected at least one transcript to write, got none")
    inif = imported("inif")
    samples = [_sample(inif, n, item) for n, item in enumerate(items, 1)]
    models = {str(sample.metadata[KEY].get("model", "unknown")) for sample in samples}
    model = inif.ModelInfo(name=models.pop() if len(models) == 1 else "several")
    metadata = inif.Metadata(model=model, total_samples=len(samples))
    inif.save(inif.InifDocument(metadata=metadata, samples=samples), path)


def _sample(inif: Any, number: int, item: Transcript | Trace) -> Any:
    transcript = from_trace(item) if isinstance(item, Trace) else item
    if isinstance(item, Trace):
        tokens, spans = _tokens(inif, item), [_span(inif, span) for span in item.messages]
    else:
        tokens, spans = [inif.Token(id=i) for i in transcript.token_ids or ()], []
    return inif.Sample(
        id=number,
        tokens=tokens,
        texts=[message.text for message in transcript.messages],
        spans=spans,
        metadata={KEY: {"format": FORMAT, **transcript.to_dict()}},
        input_tokens=transcript.num_prompt_tokens,
        output_tokens=None if transcript.num_prompt_tokens is None else len(tokens) - transcript.num_prompt_tokens,
    )


def _tokens(inif: Any, trace: Trace) -> list[Any]:
    logprobs = trace.arrays.get("logprobs")
    found = []
    for place, token_id in enumerate(trace.arrays["token_ids"].tolist()):
        known = {} if logprobs is None or np.isnan(logprobs[place]) else {"logprob": float(logprobs[place])}
        found.append(inif.Token(id=token_id, token=trace.token_text(place), **known))
    return found


def _span(inif: Any, span: Span) -> Any:
    tags = [tag for tag in (span.role, span.channel) if tag]
    rest = {"recipient": span.recipient, "content_type": span.content_type, "malformed": span.malformed}
    known = {key: value for key, value in rest.items() if value}
    return inif.Span(name="message", positions=list(range(span.start, span.stop)), tags=tags, metadata=known)


def read_inif(path: str | Path) -> list[Transcript]:
    """Read every sample of an INIF file.

    Raises:
        TranscriptError: inif is not installed, or the file is no INIF, damaged, or without samples.
    """
    inif = imported("inif")
    try:
        document = inif.from_dict(json.loads(_text(Path(path))))
    except (OSError, EOFError, ValueError, AssertionError) as error:
        if isinstance(error, TranscriptError):
            raise
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise TranscriptError(f"{path} could not be read as INIF ({why})") from error
    if not document.samples:
        raise TranscriptError(f"expected an INIF file with samples, got none in {path}")
    return [_transcript(document, sample) for sample in document.samples]


def _text(path: Path) -> str:
    """Return a file's text, unpacked where it is packed, and never more than the limit."""
    packed = str(path).endswith((".gz", ".inif"))
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        data = stream.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise TranscriptError(f"{path} unpacks to more than {SIZE_LIMIT:,} bytes; split it")
    return data.decode("utf-8")


def _transcript(document: Any, sample: Any) -> Transcript:
    kept = sample.metadata.get(KEY)
    if isinstance(kept, Mapping) and kept.get("format") == FORMAT:
        transcript = Transcript.from_dict({k: v for k, v in kept.items() if k != "format"})
        ids = tuple(token.id for token in sample.tokens)
        if [m.text for m in transcript.messages] == sample.texts and ids == (transcript.token_ids or ()):
            return transcript
    tokens = [token for each in sample.tokens for token in each.expanded_tokens(document.sequences)]
    messages, lost = _messages(sample, tokens)
    referred = any(each.is_sequence_ref for each in sample.tokens)
    if referred:
        lost.append("token ids: the file keeps repeated sequences as text only")
    meta: dict[str, Any] = {"id": sample.id}
    meta |= {"target": sample.target} if sample.target else {}
    meta |= {"scores": {score.scorer: score.value for score in sample.scores}} if sample.scores else {}
    return Transcript(
        messages,
        source="INIF",
        token_ids=tuple(token.id for token in tokens) if tokens and not referred else None,
        model=document.metadata.model.name,
        lost=tuple(lost),
        meta=meta,
    )


def _messages(sample: Any, tokens: Sequence[Any]) -> tuple[tuple[TranscriptMessage, ...], list[str]]:
    """Read messages of the tokens' text where it is harmony, of the tokens' roles, or else of the bare texts."""
    text = "".join(token.token or "" for token in tokens)
    if "<|message|>" in text:
        return messages_from_text(text), []
    lost = ["channels: INIF does not hold them"]
    roles = [(getattr(token, "role", None), token.token or "") for token in tokens]
    if any(role not in (None, "template") for role, _ in roles):
        return tuple(_by_role(roles)), lost
    lost.append("roles: the file holds texts only")
    return tuple(TranscriptMessage("unknown", text) for text in sample.texts), lost


def _by_role(roles: Sequence[tuple[str | None, str]]) -> list[TranscriptMessage]:
    found: list[TranscriptMessage] = []
    before: str | None = None
    for role, text in roles:
        if role not in (None, "template") and role is not None:
            if role == before:
                found[-1] = TranscriptMessage(role, found[-1].text + text)
            else:
                found.append(TranscriptMessage(role, text))
        before = role
    return found

"""A transcript → the tokens of a model's own tokenizer: as a server listed them, or re-tokenised, and which it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench import harmony
from workbench.transcripts.harmony_text import FORMAT_TOKENS, closing, message_ids, read_token_ids
from workbench.transcripts.messages import chat_messages
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage, quote

__all__ = ["RETOKENISED", "Rendered", "render_transcript"]

RETOKENISED = "re-tokenised"


@dataclass(frozen=True)
class Rendered:
    """The tokens of a transcript, and what a trace of them has to say."""

    token_ids: list[int]
    num_prompt_tokens: int | None
    """None where no assistant's header tells"""
    token_source: str
    """imported, or re-tokenised"""
    facts: dict[str, Any]
    """for the provenance: where it comes from, what was lost"""


def render_transcript(tokenizer: Any, transcript: Transcript) -> Rendered:
    """Return the tokens of a transcript for a model with this tokenizer.

    Token ids that were listed are taken as they are, after a check that they spell the messages here. Else the prompt
    goes through the chat template, as a server's did, and what follows is written in harmony with its channels and
    recipients; the thoughts of finished turns are dropped, as gpt-oss's template drops them.

    Raises:
        TranscriptError: token ids of another tokenizer, or messages that the format cannot hold.
        HarmonyError: the chat template refuses the prompt.
    """
    lost = list(transcript.lost)
    if transcript.token_ids is not None:
        _check_same_tokenizer(tokenizer, transcript)
        ids, prompt, source = list(transcript.token_ids), transcript.num_prompt_tokens, "imported"
    elif not _has_harmony(tokenizer):
        ids, prompt, source = _by_template(tokenizer, transcript, lost), None, RETOKENISED
    else:
        ids, prompt = _in_harmony(tokenizer, transcript)
        source = RETOKENISED
    facts = {
        "read_from": transcript.source,
        "token_ids": source,
        "model": transcript.model,
        "logprobs": "not captured" if transcript.logprobs is None else "returned",
        "ended": transcript.ended,
        "lost": list(dict.fromkeys(lost)),
    }
    return Rendered(ids, prompt, source, facts)


def _has_harmony(tokenizer: Any) -> bool:
    return all(tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(t)) == t for t in FORMAT_TOKENS[:3])


def _check_same_tokenizer(tokenizer: Any, transcript: Transcript) -> None:
    """Refuse token ids that do not spell the messages: they are of another tokenizer."""
    here = read_token_ids(tokenizer, transcript.token_ids or ()).messages
    spelled = "".join(m.text for m in here)
    for message in transcript.completion or transcript.messages:
        if message.text.strip() and message.text.strip() not in spelled:
            raise TranscriptError(
                f"the token ids do not spell the messages with this tokenizer: expected {quote(message.text)} among "
                f"{quote(spelled[-60:])}. They are of another tokenizer. Load the model that wrote them, or set "
                "token_ids to None to tokenise the text again."
            )


def _in_harmony(tokenizer: Any, transcript: Transcript) -> tuple[list[int], int | None]:
    if transcript.verbatim:
        head: list[int] = []
        prompt, completion = list(transcript.prompt), list(transcript.completion)
    else:
        opening, prompt = _opening(transcript.prompt)
        head = harmony.render(
            tokenizer, chat_messages(opening), transcript.effort or "medium", continue_assistant=False
        )
        prompt, completion = _without_old_thoughts(prompt), list(transcript.completion)
    ids = [*head, *(i for m in prompt for i in message_ids(tokenizer, m, closing(m, last=False)))]
    start = len(ids)
    for place, message in enumerate(completion):
        last = place == len(completion) - 1
        cut = last and transcript.ended is not None
        ids += message_ids(tokenizer, message, "" if cut else closing(message, last=last))
    # What a server was sent ends with the assistant's header: <|start|>assistant.
    return ids, (start + 2 if completion else start)


def _opening(prompt: Sequence[TranscriptMessage]) -> tuple[list[TranscriptMessage], list[TranscriptMessage]]:
    """Split a prompt behind its first user message: up to there templates agree, and add the system message."""
    first = next((n + 1 for n, m in enumerate(prompt) if m.role == "user"), 0)
    if not first:
        raise TranscriptError(
            "expected a user message to render as a prompt, got none; a server's reply does not hold its prompt: "
            "give the messages that were sent beside it"
        )
    return list(prompt[:first]), list(prompt[first:])


def _without_old_thoughts(messages: Sequence[TranscriptMessage]) -> list[TranscriptMessage]:
    """Drop analysis before the last final answer, as gpt-oss's template does with history; calls stay."""
    last = max((n for n, m in enumerate(messages) if m.role == "assistant" and m.channel == "final"), default=-1)
    return [m for n, m in enumerate(messages) if n > last or m.channel != "analysis" or m.recipient]


def _by_template(tokenizer: Any, transcript: Transcript, lost: list[str]) -> list[int]:
    """Render everything by the template of a tokenizer without harmony, which may drop thoughts and channels."""
    lost.append("channels and recipients: the model's own chat template stands for them")
    return harmony.render(tokenizer, chat_messages(transcript.messages), transcript.effort, continue_assistant=False)

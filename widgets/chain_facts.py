"""What the browser needs of a chain of thought beside the trace's own arrays: sentences, labels, forks, answer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from workbench.analysis.reasoning import (
    LABELS,
    AnswerInLens,
    ForkingTokens,
    LabelledSentence,
    answer_in_lens,
    backtracking,
    chain_agreement,
    completion_content,
    entropy,
    final_answer,
    forking_tokens,
    label_sentences,
    markers,
    per_sentence,
    same_answer,
)
from workbench.analysis.token_set import content_stop
from workbench.trace import Trace, TraceError

__all__ = ["ChainFacts", "branch_facts", "check_text"]

SHOWN_TOKENS = 1200
"""of a branch; the rest is counted"""
LAST_RANK = 254


def check_text(trace: Any) -> None:
    """Refuse what is no trace, has no completion, or keeps no text: there is no chain to read. Raises `TraceError`."""
    if not isinstance(trace, Trace):
        raise TraceError(f"expected a Trace, got {type(trace).__name__}; wb.open_trace(path) reads one from a file")
    if len(trace) <= trace.num_prompt_tokens:
        raise TraceError(
            f"this trace has no completion: all of its {len(trace)} tokens are prompt, so there is no chain"
        )
    if "vocab_ids" not in trace.arrays:
        raise TraceError(
            "this trace does not keep the text of its tokens, so its sentences cannot be read. Expected vocab_ids, "
            "vocab_offsets, vocab_bytes and vocab_special, as captures have them."
        )


@dataclass(frozen=True, eq=False)
class ChainFacts:
    """The chain of thought of a trace, as JSON and bytes for js/chain.js.

    Args:
        trace: with the text of its tokens.
        answer: ``(start, stop)`` of the answer's tokens; by default its last number, else the final channel's text.
    """

    trace: Trace
    answer: tuple[int, int] | None = None

    def facts(self) -> dict[str, Any]:
        """Return everything but numbers per token and sentence."""
        agreement = chain_agreement(self.trace)
        return {
            "labels": LABELS,
            "sentences": [_sentence(s) for s in self._sentences],
            "channel": self.channel,
            "entropy": self.trace.has("entropy"),
            "forks": self._forks(),
            "turns": list(self._turns()),
            "markers": [[m.start, m.stop, m.label, m.rule] for m in markers(self.trace, channel=None)],
            "answer": self._answer(),
            "agreement": {"result": agreement.result, "answer": agreement.answer, "agree": agreement.agree},
        }

    def arrays(self) -> dict[str, bytes]:
        """Return forking tokens (int32), entropy of sentences (float32) and ranks of the answer (uint8).

        The ranks are [token, layer] of the tokens looked at, one higher than they are: 0 is not among them.
        """
        found: dict[str, bytes] = {}
        if self.trace.has("entropy"):
            statistics = per_sentence(entropy(self.trace), [s.sentence for s in self._sentences])
            both = np.stack([statistics.mean.values, statistics.max.values], axis=1)
            found["forks"] = self._forking_tokens.tokens.astype("<i4").tobytes()
            found["sentences"] = both.astype("<f4").tobytes()
        answer = self._found_answer
        if isinstance(answer, AnswerInLens):
            looked_at = answer.rank.values[self._begin : answer.start]
            found["answer"] = (np.minimum(looked_at, LAST_RANK - 1) + 1).astype(np.uint8).tobytes()
        return found

    @cached_property
    def channel(self) -> str | None:
        """The channel of the chain: analysis, or None where the completion has none and all of it is shown."""
        return "analysis" if completion_content(self.trace, "analysis") else None

    @cached_property
    def _sentences(self) -> tuple[LabelledSentence, ...]:
        return label_sentences(self.trace, channel=None)

    @cached_property
    def _forking_tokens(self) -> ForkingTokens:
        return forking_tokens(self.trace, channel=self.channel)

    @property
    def _begin(self) -> int:
        return max(0, self.trace.num_prompt_tokens - 1)

    def _forks(self) -> dict[str, Any] | None:
        if not self.trace.has("entropy"):
            return None
        forks = self._forking_tokens
        threshold = None if math.isnan(forks.threshold) else forks.threshold
        return {"threshold": threshold, "n": forks.num_tokens, "share": forks.share}

    def _turns(self) -> Iterator[dict[str, Any]]:
        number = {labelled.sentence.start: at for at, labelled in enumerate(self._sentences)}
        for turn in backtracking(self.trace, channel=self.channel):
            to = None if turn.to is None else number[turn.to.start]
            yield {
                "token": turn.marker.start,
                "words": turn.marker.text,
                "from": number[turn.sentence.start],
                "to": to,
                "similarity": turn.similarity,
            }

    @cached_property
    def _found_answer(self) -> AnswerInLens | str:
        """Where the answer shows in the lens, or why it cannot be said."""
        if not self.trace.has("lens_token_ids"):
            return "lens not captured"
        try:
            return answer_in_lens(self.trace, self.answer)
        except TraceError as error:
            if self.answer is not None:
                raise
            return str(error)

    def _answer(self) -> dict[str, Any]:
        found = self._found_answer
        if isinstance(found, str):
            return {"missing": found}
        return {
            **{"start": found.start, "stop": found.stop, "text": found.text, "begin": self._begin},
            **{"layers": self.trace.layers("lens_token_ids"), "first": found.first, "within": found.within},
            **{"numPredicting": found.num_predicting, "numLenses": found.num_lenses, "written": found.written},
            "firstByLayer": list(found.first_by_layer.items()),
        }


def branch_facts(original: Trace, branch: Trace, token: int, put: str) -> dict[str, Any]:
    """Return what is shown of a branch: both rollouts from where they part, and their answers.

    Args:
        original: the trace that was continued.
        branch: its continuation.
        token: from where.
        put: what was asked to stand there, in words.
    """
    origin = branch.meta.get("continued_from", {})
    read = int(origin.get("generated_from", token))
    answers = [final_answer(original), final_answer(branch)]
    same = None if None in answers else same_answer(str(answers[0]), str(answers[1]))
    sampling = branch.provenance.get("sampling") or {}
    return {
        **{"token": token, "put": put, "was": original.token_text(token) if token < len(original) else ""},
        **{"answers": answers, "same": same, "generated": len(branch) - read, "numTokens": len(branch)},
        **{"truncated": branch.meta.get("truncated"), "temperature": sampling.get("temperature")},
        **{
            "seed": sampling.get("seed"),
            "original": _told(original, token, token),
            "branch": _told(branch, token, read),
        },
    }


def _told(trace: Trace, start: int, read: int) -> dict[str, Any]:
    """Return a rollout's messages from a token on; tokens before ``read`` were put there."""
    stop, blocks = min(len(trace), start + SHOWN_TOKENS), []
    for message in trace.messages:
        begin, end = (
            max(message.content_start, start),
            min(stop, content_stop(trace, message.content_start, message.stop)),
        )
        if begin < end:
            middle = min(max(begin, read), end)
            said = [trace.text(begin, middle), trace.text(middle, end)]
            blocks.append({"role": message.role, "channel": message.channel, "put": said[0], "text": said[1]})
    return {"blocks": blocks, "more": len(trace) - stop}


def _sentence(labelled: LabelledSentence) -> dict[str, Any]:
    sentence = labelled.sentence
    fired = [[f.label, f.rule, f.text, f.start, f.stop] for f in labelled.fired]
    return {"start": sentence.start, "stop": sentence.stop, "labels": labelled.labels, "fired": fired}

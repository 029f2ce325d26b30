"""What each sentence of a chain of thought does: a first pass by rules that show themselves, for people to correct.

The nine labels are those of Bogdan et al. (2025, *Thought Anchors*, arXiv 2506.19143), who had a language model give
them. Rules of words are cruder: they read English and the embedded model's own shorthand, and what no rule knows is
*unknown*. Each label comes with the rules that fired and the text they matched; labels of a person replace them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.reasoning.rules import LABELS, MARKERS, RULES, UNKNOWN, Rule
from workbench.labelled import TraceError
from workbench.trace import Span, Trace

__all__ = ["LABELS", "MARKERS", "RULES", "Fired", "LabelledSentence", "Rule", "label_sentences", "markers"]


@dataclass(frozen=True)
class Fired:
    """A rule that matched, and where."""

    label: str
    rule: str
    """the rule's name"""
    text: str
    """what it matched"""
    start: int
    """first token of it, on the trace's token axis"""
    stop: int
    """one past its last token"""


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence, what it does, and who or what says so."""

    sentence: Span
    labels: tuple[str, ...]
    """in the order of `LABELS`; only ``unknown`` where no rule fired"""
    fired: tuple[Fired, ...]
    """the first match of each rule that fired; what the rules say stays here where a person says otherwise"""
    by: str
    """rules, or the name of the person whose labels these are"""


def label_sentences(
    trace: Trace,
    *,
    channel: str | None = "analysis",
    rules: Sequence[Rule] = RULES,
    own: Mapping[int, Sequence[str]] | None = None,
    by: str = "own labels",
) -> tuple[LabelledSentence, ...]:
    """Label the completion's sentences; one sentence may bear several labels.

    Args:
        trace: with sentence spans and the text of its tokens.
        channel: analysis, commentary or final; None labels the sentences of every channel.
        rules: to go by, as data: take some of `RULES`, or your own.
        own: first token of a sentence → a person's labels for it, which replace those of the rules.
        by: whose labels ``own`` are.

    Raises:
        TraceError: own labels for what is no sentence, or a label that is neither one of `LABELS` nor of the rules.
    """
    sentences = [s for s in _completed(trace) if channel is None or s.channel == channel]
    known = tuple(dict.fromkeys([*LABELS, *(rule.label for rule in rules)]))
    own = _checked(own or {}, sentences, known)
    labelled = []
    for sentence, text in zip(sentences, _texts(trace, sentences), strict=True):
        fired = [next(_matches(rule, text), None) for rule in rules if rule.reads(sentence.channel)]
        found = tuple(match for match in fired if match is not None)
        says = own.get(sentence.start) or [match.label for match in found] or [UNKNOWN]
        labels = tuple(label for label in known if label in says)
        labelled.append(LabelledSentence(sentence, labels, found, by if sentence.start in own else "rules"))
    return tuple(labelled)


def markers(trace: Trace, *, channel: str | None = "analysis", rules: Sequence[Rule] = MARKERS) -> tuple[Fired, ...]:
    """Return the words by which the completion backtracks, checks itself or shows doubt, in the order of tokens.

    Words, not deeds: ``wait`` marks a backtracking whether or not anything is taken back.

    Args:
        trace: with sentence spans and the text of its tokens.
        channel: analysis, commentary or final; None looks in every channel.
        rules: to go by; their labels are the kinds of marker.
    """
    sentences = [s for s in _completed(trace) if channel is None or s.channel == channel]
    found = [
        match
        for sentence, text in zip(sentences, _texts(trace, sentences), strict=True)
        for rule in rules
        if rule.reads(sentence.channel)
        for match in _matches(rule, text)
    ]
    return tuple(sorted(found, key=lambda match: (match.start, match.stop)))


@dataclass(frozen=True)
class _Text:
    """A sentence's text, and where its tokens end."""

    text: str
    """bytes that are no whole character are kept, as surrogates, so that places in text and bytes agree"""
    start: int
    ends: NDArray[np.int64]
    """[token] bytes of the sentence up to the end of each token"""


def _matches(rule: Rule, text: _Text) -> Iterator[Fired]:
    """Give the matches of a rule in a sentence."""
    done = num_bytes = 0
    for match in re.finditer(rule.pattern, text.text, re.IGNORECASE):
        if match.end() == match.start():
            continue
        first = num_bytes + len(_bytes(text.text[done : match.start()]))
        done, num_bytes = match.end(), first + len(_bytes(match[0]))
        start, stop = np.searchsorted(text.ends, [first + 1, num_bytes])
        shown = _bytes(match[0]).decode("utf-8", "replace")
        yield Fired(rule.label, rule.name, shown, text.start + int(start), text.start + int(stop) + 1)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _texts(trace: Trace, sentences: Iterable[Span]) -> Iterator[_Text]:
    ids = trace.arrays["token_ids"]
    known: dict[int, bytes] = {}
    for sentence in sentences:
        pieces = []
        for token in ids[sentence.start : sentence.stop].tolist():
            if token not in known:
                known[token] = trace.token_bytes(token)
            pieces.append(known[token])
        ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        yield _Text(b"".join(pieces).decode("utf-8", "surrogateescape"), sentence.start, ends)


def _completed(trace: Trace) -> Iterator[Span]:
    return (s for s in trace.sentences if s.start >= trace.num_prompt_tokens and len(s))


def _checked(
    own: Mapping[int, Sequence[str]], sentences: Sequence[Span], known: Sequence[str]
) -> dict[int, tuple[str, ...]]:
    starts = {sentence.start for sentence in sentences}
    checked = {}
    for start, labels in own.items():
        if start not in starts:
            raise TraceError(
                f"own labels: no sentence starts at token {start}; sentences start at "
                f"{', '.join(map(str, sorted(starts)[:5])) or 'none'}{', …' if len(starts) > 5 else ''}"
            )
        checked[start] = (labels,) if isinstance(labels, str) else tuple(labels)
        wrong = [label for label in checked[start] if label not in known] or ([] if labels else ["no label"])
        if wrong:
            raise TraceError(f"own labels: expected some of {', '.join(known)}; got {wrong[0]!r} at token {start}")
    return checked

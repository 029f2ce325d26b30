"""Where a chain of thought turns back, and to which of its sentences."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workbench.analysis.reasoning.sentence_labels import MARKERS, Fired, Rule, markers
from workbench.labelled import TraceError
from workbench.trace import Span, Trace

__all__ = ["Backtracking", "backtracking"]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Backtracking:
    """A word that marks turning back, and the earlier sentence that is taken up again."""

    marker: Fired
    sentence: Span
    """that holds the marker"""
    to: Span | None
    """the earlier sentence whose words are repeated most; None where none is repeated enough"""
    similarity: float
    """of the two, from 0 to 1: the Jaccard index of their words; 0 where there is no earlier sentence"""


def backtracking(
    trace: Trace, *, channel: str | None = "analysis", least: float = 0.3, rules: Sequence[Rule] = MARKERS
) -> tuple[Backtracking, ...]:
    """Return where the completion turns back, and to where, by its words alone.

    The sentence that holds a marker, and the one after, are compared with every sentence before by the Jaccard index
    of their words, ``|A ∩ B| / |A ∪ B|``: runs of letters and digits, upper and lower case alike, without those that
    mark turning back. The pair most alike decides, of equal ones the later. A resemblance: whether the step is really
    taken back, words cannot say. Of several markers in a sentence the first counts.

    Args:
        trace: with sentence spans and the text of its tokens.
        channel: analysis, commentary or final; None looks in every channel.
        least: the similarity from which a sentence counts as taken up again, above 0, at most 1.
        rules: to go by; those labelled ``backtracking``.

    Raises:
        TraceError: ``least`` out of range.
    """
    if not 0 < least <= 1:
        raise TraceError(f"expected a similarity above 0 and at most 1, got {least}")
    start = trace.num_prompt_tokens
    sentences = [s for s in trace.sentences if s.start >= start and len(s) and channel in (None, s.channel)]
    turns = [rule for rule in rules if rule.label == "backtracking"]
    found = _first_in_each(sentences, markers(trace, channel=channel, rules=turns))
    words = _Words([trace.text(s.start, s.stop) for s in sentences], [m.text for _, m in found])
    return tuple(_turn(sentences, at, marker, words, least) for at, marker in found)


def _first_in_each(sentences: Sequence[Span], found: Sequence[Fired]) -> list[tuple[int, Fired]]:
    """Return the number of each sentence with a marker, and its first."""
    starts = [sentence.start for sentence in sentences]
    first: dict[int, Fired] = {}
    for marker in found:
        first.setdefault(int(np.searchsorted(starts, marker.start, "right")) - 1, marker)
    return list(first.items())


def _turn(sentences: Sequence[Span], at: int, marker: Fired, words: "_Words", least: float) -> Backtracking:
    best, to = 0.0, None
    for follows in (at, at + 1):
        if at and follows < len(sentences):
            alike = words.alike(follows, at)
            place = len(alike) - 1 - int(alike[::-1].argmax())
            if alike[place] > best:
                best, to = float(alike[place]), sentences[place]
    return Backtracking(marker, sentences[at], to if best >= least else None, best)


class _Words:
    """Which words each sentence has, but for those that mark turning back."""

    def __init__(self, texts: Sequence[str], marking: Sequence[str]) -> None:
        """Number the words."""
        known: dict[str, int] = {}
        left_out = {word for text in marking for word in _words(text)}
        sets = [{known.setdefault(w, len(known)) for w in _words(text) if w not in left_out} for text in texts]
        columns = np.array([word for words in sets for word in words], dtype=np.int64)
        self._sizes: NDArray[np.int64] = np.array([len(words) for words in sets], dtype=np.int64)
        edges = np.concatenate([[0], np.cumsum(self._sizes)])
        ones = np.ones(len(columns), dtype=np.int64)
        self._has = csr_array((ones, columns, edges), shape=(len(sets), max(1, len(known))))

    def alike(self, sentence: int, before: int) -> NDArray[np.float64]:
        """Return [sentence] the Jaccard index of a sentence with each of the first ``before``."""
        own = np.zeros(self._has.shape[1], dtype=np.int64)
        own[self._has[[sentence]].indices] = 1
        common = (self._has @ own)[:before]
        union = self._sizes[:before] + self._sizes[sentence] - common
        index: NDArray[np.float64] = common / np.maximum(union, 1)
        return index


def _words(text: str) -> Iterator[str]:
    return (match[0].casefold() for match in _WORD.finditer(text))

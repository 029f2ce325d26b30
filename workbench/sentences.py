"""Text into sentences, at token boundaries; a deliberately small splitter that suits chains of thought."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["sentences"]

_ABBREVIATIONS = "approx|cf|dr|eq|eqs|fig|figs|jr|mr|mrs|ms|prof|sr|st|vs"
# In bytes, because one character may be spread over several tokens.
_SENTENCE_END = re.compile(
    rb"(?<=\S)\s*\n"  # the end of a line, with all blank lines that follow
    # . ! ? ; then white space, then text; a run of marks is tried once and never split, so that time stays linear
    rb"|(?<![.!?;])(?P<mark>[.!?;]++)[\"')\]]*+(?:\xe2\x80[\x99\x9d])*+(?=[^\S\n]++\S)"
    rb"|(?:\xe3\x80\x82|\xef\xbc[\x81\x9f\x9b])+(?:\xe2\x80[\x99\x9d]|\xe3\x80[\x8d\x8f]|\xef\xbc\x89)*"  # 。！？；
)
# What a full stop does not end: an abbreviation, letters with stops (e.g, U.S), the number of a list item.
_NO_SENTENCE = re.compile(
    rb"(?i:(?:^|[\s(])(?:" + _ABBREVIATIONS.encode() + rb"|(?:[a-z]\.)+[a-z]))$|(?:^|\n)\s*\d{1,3}$"
)


def sentences(texts: Sequence[str | bytes], start: int, stop: int) -> list[tuple[int, int]]:
    """Split tokens ``[start, stop)`` into sentences: at line ends and after ``. ! ? ;`` before more text.

    Args:
        texts: text or bytes of every token, indexed by position; bytes keep characters whole that span tokens.
        start: first token.
        stop: one past the last token.

    Returns:
        ``(start, stop)`` of each sentence, in order, covering every token once. A token in which one sentence ends
        and another begins belongs to the first.
    """
    pieces = [t.encode() if isinstance(t, str) else t for t in texts[start:stop]]
    content = b"".join(pieces)
    cuts = iter([*_sentence_ends(content), len(content)])
    cut = next(cuts)
    result: list[tuple[int, int]] = []
    first, seen = start, 0
    for token, piece in enumerate(pieces, start):
        seen += len(piece)
        if seen < cut or seen == len(content):
            continue
        result.append((first, token + 1))
        first = token + 1
        while cut <= seen:
            cut = next(cuts)
    return [*result, (first, stop)] if first < stop else result


def _sentence_ends(content: bytes) -> Iterable[int]:
    for match in _SENTENCE_END.finditer(content):
        start = match.start()
        if match["mark"] != b"." or not _NO_SENTENCE.search(content, max(0, start - 16), start):
            yield match.end()

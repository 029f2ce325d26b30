"""Text into sentences, at token boundaries; a deliberately small splitter that suits chains of thought."""

import re
from collections.abc import Iterator, Sequence

__all__ = ["sentences"]

# In bytes, because one character may be spread over several tokens.
_SPACE = rb"(?:[^\S\n]|\xc2\xa0|\xe3\x80\x80)"  # white space within a line, the no-break and the ideographic one too
_SENTENCE_END = re.compile(
    rb"(?P<line>(?<=\S)\s*\n)"  # the end of a line, with all blank lines that follow
    # . ! ? ; then white space, then text; a run of marks is tried once and never split, so that time stays linear
    rb"|(?<![.!?;])(?P<mark>[.!?;]++)[\"')\]]*+(?:\xe2\x80[\x99\x9d])*+(?=" + _SPACE + rb"++\S)"
    # 。 ！ ？ ； ｡ । ؟ with the brackets and quotes they close; no white space follows in Chinese and Japanese
    rb"|(?:\xe3\x80\x82|\xef\xbc[\x81\x9f\x9b]|\xef\xbd\xa1|\xe0\xa5\xa4|\xd8\x9f)+"
    rb"(?:\xe2\x80[\x99\x9d]|\xe3\x80[\x8b\x8d\x8f\x91]|\xef\xbc\x89)*"
)
# What a full stop does not end: an abbreviation, letters with stops (e.g, Ph.D), the number of a list item.
_NO_SENTENCE = re.compile(
    rb"(?i:(?:^|[\s(])(?:approx|cf|dr|eq|eqs|fig|figs|jr|mr|mrs|ms|prof|sr|st|vs|(?:[a-z]{1,2}\.)+[a-z]{1,2}))$"
    rb"|(?:^|\n)\s*(?:[-*]\s+)?(?:\d{1,3}|[A-Za-z])$"
    rb"|[A-Za-z]{5}[.;][^\S\n]+\d{1,3}$"  # First. 2. Second, but not Thm. 2. Then
)
# What ends a sentence or does not, as what follows tells: Sec. 3, Jan. 5 and p. 7; etc. and; 3! = 6.
_BEFORE_NUMBER = re.compile(
    rb"(?i:(?:^|[\s(])(?:ca|ch|ex|lem|p|pp|sec|secs|thm|vol|jan|feb|apr|aug|sept?|oct|nov|dec))$"
)
_BEFORE_LOWER_CASE = re.compile(rb"(?i:(?:^|[\s(])(?:co|corp|etc|inc|ltd))$")
_FACTORIAL = re.compile(rb"[\d)]$")
_CODE = re.compile(rb"(?P<fence>^[^\S\n]*```).*?(?:^[^\S\n]*```|\Z)|`[^`\n]*+`", re.M | re.S)

_LOOK_BACK = 16  # bytes; longer than any abbreviation


def sentences(texts: Sequence[str | bytes], start: int, stop: int) -> list[tuple[int, int]]:
    """Split tokens ``[start, stop)`` into sentences: at line ends and after ``. ! ? ;`` before more text.

    Within code between fences only the end of a line ends one, between back quotes within a line nothing does.

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


def _sentence_ends(content: bytes) -> Iterator[int]:
    code = _CODE.finditer(content)
    block = next(code, None)
    for match in _SENTENCE_END.finditer(content):
        while block is not None and block.end() <= match.start():
            block = next(code, None)
        in_code = block is not None and block.start() <= match.start()
        if match["line"] or not (in_code or _goes_on(content, match)):
            yield match.end()


def _goes_on(content: bytes, match: re.Match[bytes]) -> bool:
    """Say whether a sentence goes on after a mark that may end one."""
    mark, start = match["mark"], match.start()
    if mark not in (b".", b"!"):
        return False
    following = content[match.end() : match.end() + _LOOK_BACK].lstrip()[:1]

    def before(pattern: re.Pattern[bytes]) -> bool:
        return pattern.search(content, max(0, start - _LOOK_BACK), start) is not None

    if mark == b"!":
        return (following.islower() or following in (b"=", b"+", b"*", b"/", b"<", b">", b"^")) and before(_FACTORIAL)
    return (
        before(_NO_SENTENCE)
        or (following.isdigit() and before(_BEFORE_NUMBER))
        or (following.islower() and before(_BEFORE_LOWER_CASE))
    )

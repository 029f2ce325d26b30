"""10,000 harmony streams, each damaged in one way: nothing is lost, nothing is raised, what is broken is marked.

What counts as broken is not asked of the parser under test but of a regular expression over the kinds of tokens, and
for every fifth stream of OpenAI's own strict parser, which is slow: what either refuses must be marked, and what the
documented format allows must not.
"""

import random
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import openai_harmony
import pytest
from official_harmony import SPECIAL_IDS, official_encoding, official_tokenizer

from workbench.harmony import HarmonyParser, Message, parse, token_bytes

STREAMS_PER_KIND = 1000

START, CHANNEL, MESSAGE = (SPECIAL_IDS[f"<|{name}|>"] for name in ("start", "channel", "message"))
CLOSING = [SPECIAL_IDS[f"<|{name}|>"] for name in ("end", "return", "call")]
FORMAT = [START, CHANNEL, MESSAGE, SPECIAL_IDS["<|constrain|>"], *CLOSING]

LETTER = dict(zip(FORMAT, "SCMNERK", strict=True))
# A message is start, role, at most one named channel among the words of the header, message, text, one closing token.
POSSIBLE = re.compile(r"(?:St[tN]*(?:Ct[tN]*)?Mt*[ERK])*")

TO = r"(?: to=[\w.]+)"
TYPE = r"(?: ?\ue003json| code)"
TEXT = r"[^\ue000-\ue006]*"
DOCUMENTED = re.compile(
    f"(?:\ue000(?:system|developer|user)\ue002{TEXT}\ue004"
    f"|\ue000assistant\ue001(?:analysis|commentary|final)\ue002{TEXT}[\ue004\ue005\ue006]"
    f"|\ue000assistant\ue001(?:analysis|commentary){TO}{TYPE}?\ue002{TEXT}[\ue004\ue006]"
    rf"|\ue000functions\.\w+ to=assistant\ue001commentary\ue002{TEXT}\ue004)*"
)

CONTENTS = [
    "47 + 85",
    "",
    "We refuse.",
    "héllo 🙂 世界",
    "<b>x</b>.\n\n",
    '{"city": "Rome"}',
    " final",
]


@pytest.fixture(scope="module")
def pieces() -> dict[str, list[int]]:
    """The token ids of every text a stream is made of."""
    encoding = official_encoding()
    roles = ["system", "developer", "user", "assistant", "functions.weather", "nobody", "I'm sorry, but I can't."]
    channels = ["analysis", "commentary", "final", " to=functions.weather", " to=assistant", " code", "json", " "]
    return {text: encoding.encode(text, disallowed_special=()) for text in [*CONTENTS, *roles, *channels]}


def stream(rng: random.Random, pieces: dict[str, list[int]]) -> list[int]:
    """Two to five well-formed messages, an assistant's among them."""
    messages = [message(rng, pieces) for _ in range(rng.randint(1, 4))]
    messages.insert(rng.randint(0, len(messages)), assistant(rng, pieces, []))
    return [token for tokens in messages for token in tokens]


def message(rng: random.Random, pieces: dict[str, list[int]]) -> list[int]:
    kind = rng.random()
    if kind < 0.5:
        return assistant(rng, pieces, rng.choice([[], [], pieces[" to=functions.weather"]]))
    if kind < 0.6:
        header = [*pieces["functions.weather"], *pieces[" to=assistant"], CHANNEL, *pieces["commentary"]]
    else:
        header = pieces[rng.choice(["system", "developer", "user"])]
    return [START, *header, MESSAGE, *pieces[rng.choice(CONTENTS)], CLOSING[0]]


def assistant(rng: random.Random, pieces: dict[str, list[int]], recipient: list[int]) -> list[int]:
    channel = pieces[rng.choice(["analysis", "commentary"] if recipient else ["analysis", "commentary", "final"])]
    constrain = [*pieces[" "], SPECIAL_IDS["<|constrain|>"], *pieces["json"]]
    kind = rng.choice([[], constrain, pieces[" code"]]) if recipient else []
    close = rng.choice([CLOSING[0], CLOSING[2]] if recipient else CLOSING)
    return [
        START,
        *pieces["assistant"],
        CHANNEL,
        *channel,
        *recipient,
        *kind,
        MESSAGE,
        *pieces["47 + 85"],
        close,
    ]


# --- the ways to damage a stream ---------------------------------------------------------------------------------

Damage = Callable[[random.Random, list[int], dict[str, list[int]]], None]


def some(rng: random.Random, ids: list[int], token: int) -> int:
    """Return a random place of a token that occurs."""
    return rng.choice([place for place, other in enumerate(ids) if other == token])


def truncated(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    del ids[rng.randrange(1, len(ids)) :]


def missing_channel(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    """The token alone, its name with it, or all up to the text, as in refusals of gpt-oss (harmony issue 80)."""
    at = some(rng, ids, CHANNEL)
    stop = rng.choice([at + 1, ids.index(MESSAGE, at), ids.index(MESSAGE, at) + 1])
    del ids[at:stop]


def missing_message_token(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    del ids[some(rng, ids, MESSAGE)]


def unknown_role(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    at = some(rng, ids, START)
    stop = next(place for place in range(at + 1, len(ids)) if ids[place] in (CHANNEL, MESSAGE))
    ids[at + 1 : stop] = rng.choice([pieces["nobody"], pieces["I'm sorry, but I can't."], []])


def nested_start(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    """A message begins before another has ended."""
    place = rng.choice([place for place, token in enumerate(ids) if token != START and ids[place - 1] not in CLOSING])
    ids[place:place] = assistant(rng, pieces, [])


def text_after_return(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    ids[-1] = SPECIAL_IDS["<|return|>"]
    ids.extend(pieces[rng.choice(["We refuse.", "assistant", "final"])])


def deletions(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    for _ in range(rng.randint(1, 4)):
        del ids[rng.randrange(len(ids))]


def duplications(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(ids))
        ids[start:start] = ids[start : start + rng.randint(1, 6)]


def swaps(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    for _ in range(rng.randint(1, 4)):
        a, b = rng.randrange(len(ids)), rng.randrange(len(ids))
        ids[a], ids[b] = ids[b], ids[a]


def insertions(rng: random.Random, ids: list[int], pieces: dict[str, list[int]]) -> None:
    """Tokens of the format, of any text, and ids without a token."""
    for _ in range(rng.randint(1, 4)):
        ids.insert(rng.randrange(len(ids) + 1), rng.choice([*FORMAT, rng.randrange(199_998), 201_087, 10**9]))


DAMAGES: tuple[Damage, ...] = (
    truncated,
    missing_channel,
    missing_message_token,
    unknown_role,
    nested_start,
    text_after_return,
    deletions,
    duplications,
    swaps,
    insertions,
)
ALWAYS_BREAKS = (missing_message_token, nested_start, text_after_return)


# --- what is expected --------------------------------------------------------------------------------------------


def is_possible(ids: list[int]) -> bool:
    return POSSIBLE.fullmatch("".join(LETTER.get(token, "t") for token in ids)) is not None


def is_documented(ids: list[int]) -> bool:
    """Say whether all is as openai/harmony documents it."""
    return DOCUMENTED.fullmatch(b"".join(map(spelling, ids)).decode("utf-8", "replace")) is not None


@cache
def spelling(token: int) -> bytes:
    """The bytes of a token; those of the format become private-use characters."""
    return chr(0xE000 + FORMAT.index(token)).encode() if token in FORMAT else token_bytes(official_tokenizer(), token)


def openai_refuses(ids: list[int]) -> bool:
    """Ids that stand for nothing are refused there for themselves, not for the format."""
    known = [token for token in ids if token < 199_998 or token in FORMAT]
    try:
        official_encoding().parse_messages_from_completion_tokens(known, None, strict=True)
    except openai_harmony.HarmonyError:
        return True
    return False


def assert_every_token_in_one_message(messages: tuple[Message, ...], num_tokens: int) -> None:
    stops = [0, *(message.stop for message in messages)]
    assert [message.start for message in messages] == stops[:-1]
    assert stops[-1] == num_tokens
    assert all(m.start < m.stop and m.start <= m.content_start <= m.stop and m.role for m in messages)


def stream_and_whole(rng: random.Random, tokenizer: Any, ids: list[int]) -> tuple[Message, ...]:
    """Return the messages, read once on the way: looking must leave no trace in what follows."""
    look = rng.randrange(len(ids) + 1)
    parser = HarmonyParser(tokenizer)
    for count, token in enumerate(ids):
        if count == look:
            assert parser.messages == parse(tokenizer, ids[:count])
            assert_every_token_in_one_message(parser.messages, count)
        parser.feed(token)
    assert parser.messages == parse(tokenizer, ids)
    assert_every_token_in_one_message(parser.messages, len(ids))
    return parser.messages


# --- the tests ---------------------------------------------------------------------------------------------------


def test_undamaged_streams_are_documented_and_unmarked(pieces: dict[str, list[int]]) -> None:
    """The yardsticks themselves: whole streams pass all three."""
    rng = random.Random(1)
    for _ in range(STREAMS_PER_KIND // 5):
        ids = stream(rng, pieces)
        assert is_documented(ids)
        assert is_possible(ids)
        assert not openai_refuses(ids)
        assert not any(message.malformed for message in stream_and_whole(rng, official_tokenizer(), ids))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_streams(damage: Damage, pieces: dict[str, list[int]]) -> None:
    rng = random.Random(damage.__name__)
    broken = 0
    for number in range(STREAMS_PER_KIND):
        ids = stream(rng, pieces)
        damage(rng, ids, pieces)
        found = [message for message in stream_and_whole(rng, official_tokenizer(), ids) if message.malformed]
        if damage in ALWAYS_BREAKS or not is_possible(ids) or (number % 5 == 0 and openai_refuses(ids)):
            assert found, f"stream {number} is broken but unmarked: {ids}"
            broken += 1
        if is_documented(ids):
            assert not found, f"stream {number} is well formed but marked {found}: {ids}"
    assert broken > STREAMS_PER_KIND // 4, "most damage must break something for this test to mean something"

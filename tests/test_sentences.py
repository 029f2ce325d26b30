"""Sentences: where they end, where they do not, and that no token is lost."""

import random

import pytest

from workbench.sentences import sentences

SENTENCES = {
    "7+5=12\n4+8+1=13\nso 132": ["7+5=12\n", "4+8+1=13\n", "so 132"],
    "One. Two! Three? Four; five": ["One.", " Two!", " Three?", " Four;", " five"],
    "Pi is 3.14 and e is 2.72. Done.": ["Pi is 3.14 and e is 2.72.", " Done."],
    "See e.g. Dr. Smith, i.e. him. Yes.": ["See e.g. Dr. Smith, i.e. him.", " Yes."],
    'He said "no." Then left. ': ['He said "no."', " Then left. "],
    "1. First\n2. Second": ["1. First\n", "2. Second"],
    "so x. Then 5. Then": ["so x.", " Then 5.", " Then"],
    "今日は。元気？はい": ["今日は。", "元気？", "はい"],
    "a\n\n\n  b": ["a\n\n\n", "  b"],
    "\n\nstart": ["\n\nstart"],
    "what is 47+85?": ["what is 47+85?"],
    "wait... no": ["wait...", " no"],
    # digits
    "It is 1,000. Then v2.0.1 ran. x = 5. 7 < x": ["It is 1,000.", " Then v2.0.1 ran.", " x = 5.", " 7 < x"],
    "What is 5+7? 12. So 12. Answer: 12. Wait": ["What is 5+7?", " 12.", " So 12.", " Answer: 12.", " Wait"],
    "Is 3! = 6? Yes, 5! is 120! Good.": ["Is 3! = 6?", " Yes, 5! is 120!", " Good."],
    # abbreviations
    "See Sec. 3, p. 7 and Thm. 2. On Jan. 5, yes.": ["See Sec. 3, p. 7 and Thm. 2.", " On Jan. 5, yes."],
    "Find p. Then ch. follows": ["Find p.", " Then ch.", " follows"],
    "Cats, dogs, etc. and so on, etc. Then": ["Cats, dogs, etc. and so on, etc.", " Then"],
    "A Ph.D. at 5 p.m. today. J. did.": ["A Ph.D. at 5 p.m. today.", " J.", " did."],
    "J. Smith said no. Fine.": ["J. Smith said no.", " Fine."],
    # code
    "Call `f(x); g(y)` now. Then `a. b` ok.": ["Call `f(x); g(y)` now.", " Then `a. b` ok."],
    "So:\n```py\nx = 1; y = 2. z\n\nif x! y\n```\nDone; right. ": [
        "So:\n",
        "```py\n",
        "x = 1; y = 2. z\n\n",
        "if x! y\n",
        "```\n",
        "Done;",
        " right. ",
    ],
    "```\na; b. c": ["```\n", "a; b. c"],
    "one ` tick. Two ticks ` here": ["one ` tick. Two ticks ` here"],
    "one ` tick. Next": ["one ` tick.", " Next"],
    # lists
    "- one. two\n* a. three\n  b. four; five": ["- one.", " two\n", "* a. three\n", "  b. four;", " five"],
    "First. 2. Second. 10. Tenth": ["First.", " 2. Second.", " 10. Tenth"],
    "so 162\r\ncheck\r\n": ["so 162\r\n", "check\r\n"],
    # beyond Latin script
    "是3.14。「好！」他说。《书。》次": ["是3.14。", "「好！」", "他说。", "《书。》", "次"],
    "ﾊｲ｡次；हाँ। फिर": ["ﾊｲ｡", "次；", "हाँ।", " फिर"],
    "Oui.\u00a0Non. 你好.\u3000再见": ["Oui.", "\u00a0Non.", " 你好.", "\u3000再见"],
    "`a。b`。c": ["`a。b`。", "c"],
    "": [],
}


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences_of_single_bytes(text: str) -> None:
    raw = text.encode()
    pieces = [b"HEAD", *(raw[i : i + 1] for i in range(len(raw))), b"TAIL"]
    got = sentences(pieces, 1, len(pieces) - 1)
    assert [b"".join(pieces[a:b]).decode() for a, b in got] == SENTENCES[text]


@pytest.mark.parametrize("seed", range(20))
def test_every_token_is_in_exactly_one_sentence(seed: int) -> None:
    rng = random.Random(seed)
    parts = ["a", " b", ".", ". ", "\n", ".\n\n", " ", "", "3", "?", "。", '!" c', "e.g", "\t", "🙂", ";", "`", "```"]
    texts = [rng.choice(parts) for _ in range(60)]
    start, stop = 7, 53
    got = sentences(texts, start, stop)
    assert [a for a, _ in got] == [start, *(b for _, b in got)][:-1]
    assert got[-1][1] == stop
    assert all(a < b for a, b in got)


@pytest.mark.parametrize(
    "piece", [".", ".)", ". ", " ", "\n", " \n", "a.b", "e.g", "。", "\u2019.", "`", "```", "\n```", "` ", ". 1", "!1"]
)
def test_time_stays_linear_in_hostile_text(piece: str) -> None:
    texts = ["a.", *[piece] * 50_000, " "]
    assert sentences(texts, 0, len(texts))[-1][1] == len(texts)


def test_a_token_that_ends_a_sentence_and_begins_another_belongs_to_the_first() -> None:
    assert sentences(["One", ". Two", " three.", "\n"], 0, 4) == [(0, 2), (2, 4)]

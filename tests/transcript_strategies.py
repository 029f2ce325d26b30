"""Transcripts of any content, for property tests of every format."""

from hypothesis import strategies as st

from workbench.transcripts.transcript import TokenLogprob, Transcript, TranscriptMessage

words = st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True)
# No lone surrogates: no file format holds them as text.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)

thoughts = st.builds(TranscriptMessage, st.just("assistant"), texts, st.sampled_from(["analysis", "final"]))
given = st.builds(TranscriptMessage, st.sampled_from(["system", "developer", "user"]), texts)
calls = st.builds(
    TranscriptMessage,
    st.just("assistant"),
    texts,
    st.sampled_from(["commentary", "analysis"]),
    words.map("functions.{}".format) | st.sampled_from(["python", "browser.search"]),
    st.none() | st.sampled_from(["<|constrain|>json", "code"]),
    st.none() | words,
)
outputs = st.builds(
    TranscriptMessage,
    words.map("functions.{}".format) | st.just("python"),
    texts,
    st.just("commentary"),
    st.just("assistant"),
    call_id=st.none() | words,
)
odd = st.builds(
    TranscriptMessage,
    words,
    texts,
    st.none() | words,
    st.none() | words,
    malformed=st.none() | st.just("no <|message|>"),
)
messages = st.lists(given | thoughts | calls | outputs | odd, max_size=6).map(tuple)
well_formed = st.lists(given | thoughts | calls | outputs, min_size=1, max_size=6).map(tuple)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    said = draw(messages)
    ids = draw(st.none() | st.lists(st.integers(0, 250_000), min_size=1, max_size=9).map(tuple))
    logprobs = st.builds(TokenLogprob, texts, st.floats(-100, 0))
    return Transcript(
        said,
        draw(st.none() | st.integers(0, len(said))),
        draw(words),
        draw(st.booleans()),
        ids,
        draw(st.none() | st.integers(0, len(ids))) if ids else None,
        draw(st.none() | st.lists(logprobs, max_size=3).map(tuple)),
        draw(st.none() | words),
        draw(st.none() | st.sampled_from(["low", "medium", "high"])),
        draw(st.none() | texts),
        draw(st.lists(texts, max_size=2).map(tuple)),
        draw(st.dictionaries(words, json_values, max_size=3)),
    )

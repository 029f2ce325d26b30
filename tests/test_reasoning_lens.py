"""Where the answer first shows in the logit lens, on chains written by hand and on the embedded model."""

import numpy as np
import pytest
from written_chain import PROMPT, written_chain

import workbench as wb
from workbench.analysis.reasoning import answer_in_lens, answer_tokens

CHAIN = [["2", " plus", " 3", " is", " 5", "."], ["So", " 5", "."]]
START = len(PROMPT) + 3  # of the chain's first token
ANSWER = START + 9 + 6


def test_an_answer_of_one_token_by_hand() -> None:
    at = START + 2  # reads " 3", two tokens before " 5"
    lens = {(at, 1): ["∅", "5"], (at + 1, 4): [" 5", "∅"], (at + 4, 1): ["5", "∅"], (ANSWER - 1, 4): ["∅", "5"]}
    trace = written_chain(CHAIN, ["5"], lens)
    found = answer_in_lens(trace)
    assert (found.start, found.stop, found.text) == (ANSWER, ANSWER + 1, "5")
    assert found.first == (at + 1, 4)
    assert found.first_by_layer == {1: at + 4, 4: at + 1}
    assert (found.num_predicting, found.num_lenses) == (2, (ANSWER - len(PROMPT) + 1) * 2)
    assert found.written == START + 4
    assert found.rank.dims == ("token", "layer")
    expected = np.full((len(trace), 2), -1)
    expected[at, 0], expected[at + 1, 1], expected[at + 4, 0], expected[ANSWER - 1, 1] = 1, 0, 0, 1
    np.testing.assert_array_equal(found.rank, expected)
    assert found.rank.sel(token=at + 1, layer=4).values == 0
    assert found.rank.source == "rank of the answer in the logit lens, which speaks of the next token; live"


def test_lower_ranks_count_when_asked_for() -> None:
    at = START + 2
    trace = written_chain(CHAIN, ["5"], {(at, 1): ["∅", "5"], (at + 1, 4): [" 5"]})
    found = answer_in_lens(trace, within=2)
    assert found.first == (at, 1)
    assert found.num_predicting == 2


def test_an_answer_of_several_tokens_is_predicted_whole_while_it_is_read() -> None:
    chain = [["so", " 1", "5", "\n"], ["or", " 1", "7"]]
    first, second = START, START + 4  # the tokens before the two numbers
    lens = {
        (first, 1): ["1"],  # predicts 1 and reads it, then predicts 7 where 5 stands: the whole answer, ahead
        (first + 1, 1): ["7"],
        (first + 1, 4): ["7"],  # its first token was not predicted in this layer
        (first + 3, 4): ["1"],  # predicts 1, but "or" is read next
        (first + 4, 4): ["∅", "1"],
        (first + 5, 4): ["7"],  # as low as the lowest of its tokens: rank 1
    }
    trace = written_chain(chain, ["1", "7"], lens)
    found = answer_in_lens(trace)
    assert (found.text, found.first, found.first_by_layer) == ("17", (first, 1), {1: first, 4: None})
    assert found.rank[second].tolist() == [-1, 1]
    assert found.rank[first + 3].tolist() == [-1, -1]
    assert found.written == second + 1


def test_the_lens_of_the_prompts_last_token_counts_and_the_prompt_does_not() -> None:
    last = len(PROMPT) - 1
    found = answer_in_lens(written_chain(CHAIN, ["5"], {(last - 1, 1): ["5"], (last, 4): ["5"]}))
    assert found.first == (last, 4)
    assert found.num_predicting == 1


def test_an_answer_that_no_lens_predicts_has_no_first() -> None:
    found = answer_in_lens(written_chain([["hm", "."]], ["5"]))
    assert (found.first, found.first_by_layer, found.num_predicting) == (None, {1: None, 4: None}, 0)
    assert found.written is None


@pytest.mark.parametrize(
    ("final", "text"),
    [
        (["5"], "5"),
        (["The", " answer", " is", " 1", "5", ".", "\n"], " 15"),
        (["3", " or", " 4"], " 4"),
        (["\n", "Paris", "."], "Paris."),
    ],
)
def test_the_answer_is_the_last_number_else_all_of_the_text(final: list[str], text: str) -> None:
    trace = written_chain(CHAIN, final)
    found = answer_tokens(trace)
    assert found is not None
    assert trace.text(*found) == text


def test_no_final_channel_is_no_answer() -> None:
    trace = written_chain(CHAIN, ["5"])
    part = wb.Trace(trace.arrays, tuple(s for s in trace.spans if s.channel != "final"), trace.meta)
    assert answer_tokens(part) is None
    with pytest.raises(wb.TraceError, match=r"there is no answer: the completion's final channel has no text\. Pass"):
        answer_in_lens(part)
    assert answer_in_lens(part, (START + 4, START + 5)).text == "5"


def test_errors_say_what_was_expected() -> None:
    trace = written_chain(CHAIN, ["5"])
    with pytest.raises(wb.TraceError, match="expected 1 to 2 ranks, the captured ones, got 3"):
        answer_in_lens(trace, within=3)
    with pytest.raises(
        wb.TraceError, match=rf"expected an answer within the completion, 7 to {len(trace)}, got 3 to 4"
    ):
        answer_in_lens(trace, (3, 4))
    bare = wb.Trace({n: a for n, a in trace.arrays.items() if not n.startswith("lens")}, trace.spans, trace.meta)
    with pytest.raises(wb.TraceError, match="lens_token_ids is not in this trace"):
        answer_in_lens(bare)


def test_the_embedded_model_predicts_its_answer_before_it_gives_it(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, "47+85=?", effort="high", temperature=0, capture=wb.CaptureSpec(attention=False))
    found = answer_in_lens(trace)
    assert found.text == trace.final_text
    assert found.first is not None
    token, layer = found.first
    at = trace.layers("lens_token_ids").index(layer)
    said = "".join(
        trace.token_bytes(int(trace.arrays["lens_token_ids"][token + n, at, 0])).decode()
        for n in range(found.stop - found.start)
    )
    assert said.strip() == found.text
    assert found.written is not None
    assert token < found.written < found.start
    assert found.rank[found.start - 1, -1] == 0, "the last layer of the lens is what the model says"

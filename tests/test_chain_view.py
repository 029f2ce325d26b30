"""ChainView without a browser: what is sent, own labels, branches, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import traitlets
from synthetic import synthetic_trace
from written_chain import PROMPT, written_chain

import workbench as wb
from widgets.chain_facts import branch_facts
from widgets.chain_view import ChainView
from workbench.analysis.reasoning import (
    answer_in_lens,
    backtracking,
    entropy,
    forking_tokens,
    label_sentences,
    per_sentence,
)
from workbench.experiments.continuation import continue_from

# All sizes differ, so that a transposed or mixed-up array fails.
SIZES: dict[str, Any] = {
    **{"tokens": 451, "layers": 3, "experts": 7, "top_k": 4, "heads": 6, "kv_heads": 2, "d_head": 14, "window": 9},
    **{"ranks": 5, "lens_ranks": 2, "dtype": "float32"},
}


@pytest.fixture(scope="module")
def trace() -> wb.Trace:
    return synthetic_trace(**SIZES)


def without(trace: wb.Trace, *names: str) -> wb.Trace:
    return replace(trace, arrays={n: a for n, a in trace.arrays.items() if not n.startswith(names)})


def sentence_starts(trace: wb.Trace) -> list[int]:
    return [s.sentence.start for s in label_sentences(trace, channel=None)]


def test_what_is_sent_is_what_the_analysis_says(trace: wb.Trace) -> None:
    view = ChainView(trace)
    chain, arrays = view._chain, view._arrays
    labelled = label_sentences(trace, channel=None)
    assert [(s["start"], s["stop"], tuple(s["labels"])) for s in chain["sentences"]] == [
        (s.sentence.start, s.sentence.stop, s.labels) for s in labelled
    ]
    assert chain["sentences"][3]["fired"] == [[f.label, f.rule, f.text, f.start, f.stop] for f in labelled[3].fired]
    forks = forking_tokens(trace, channel="analysis")
    np.testing.assert_array_equal(np.frombuffer(arrays["forks"], "<i4"), forks.tokens)
    assert chain["forks"] == {"threshold": forks.threshold, "n": forks.num_tokens, "share": 0.2}
    statistics = per_sentence(entropy(trace), [s.sentence for s in labelled])
    sent = np.frombuffer(arrays["sentences"], "<f4").reshape(-1, 2)
    np.testing.assert_allclose(sent, np.stack([statistics.mean, statistics.max], axis=1), rtol=1e-6)
    turns = backtracking(trace)
    assert turns
    assert [t["token"] for t in chain["turns"]] == [t.marker.start for t in turns]
    for sent_turn, turn in zip(chain["turns"], turns, strict=True):
        assert labelled[sent_turn["from"]].sentence == turn.sentence
        assert (None if sent_turn["to"] is None else labelled[sent_turn["to"]].sentence) == turn.to


def test_ranks_of_the_answer_are_sent_one_higher() -> None:
    start = len(PROMPT) + 3
    lens = {(start, 1): ["5"], (start + 2, 4): ["∅", "5"]}
    written = written_chain([["2", "+", "3", "."]], ["5"], lens)
    view = ChainView(written)
    answer = view._chain["answer"]
    assert (answer["text"], answer["first"], answer["layers"]) == ("5", (start, 1), (1, 4))
    ranks = np.frombuffer(view._arrays["answer"], np.uint8).reshape(-1, 2)
    np.testing.assert_array_equal(ranks, answer_in_lens(written).rank[answer["begin"] : answer["start"]] + 1)
    assert ranks[start - answer["begin"]].tolist() == [1, 0]
    assert ranks[start + 2 - answer["begin"]].tolist() == [0, 2]


def test_attention_and_router_are_not_sent(trace: wb.Trace) -> None:
    view = ChainView(trace)
    assert {key.split("/")[1] for key in view._blocks} == {
        *("token_ids", "logprobs", "entropy", "top_token_ids", "top_logprobs", "lens_token_ids", "lens_logprobs"),
    }
    assert view._facts["counts"] == {"token": 451, "layer": 3, "head": 6, "expert": 7}
    view.expert = 6  # chosen in another view of the trace
    with pytest.raises(traitlets.TraitError, match=r"expected an? expert within 0–6, got 7"):
        view.expert = 7


def test_a_large_trace_is_fetched_in_pages(trace: wb.Trace) -> None:
    view = ChainView(trace, preload_bytes=0)
    sent: list[tuple[Any, Sequence[bytes]]] = []
    view.send = lambda content, buffers=(): sent.append((content, buffers))  # type: ignore[method-assign]
    assert {key.split("/")[0] for key in view._blocks} == {"all"}
    view._handle_custom_msg({"fetch": ["token/lens_token_ids/1", "token/keys/0"]}, [])
    content, buffers = sent[-1]
    assert content["blocks"] == ["token/lens_token_ids/1"]
    assert "'keys' is not in this trace" in content["failed"]["token/keys/0"]
    np.testing.assert_array_equal(
        np.frombuffer(buffers[0], "<i4").reshape(-1, 3, 2), trace.arrays["lens_token_ids"][256:451]
    )


def test_own_labels_replace_those_of_the_rules(trace: wb.Trace) -> None:
    first, second = sentence_starts(trace)[:2]
    view = ChainView(trace, labels={first: ["self checking"]}, labels_by="Ada")
    assert (view.labelled[0].labels, view.labelled[0].by) == (("self checking",), "Ada")
    assert view.labelled[1].by == "rules"
    view.labels = {second: "unknown"}
    assert view.labels == {second: ("unknown",)}
    assert view.labelled[0].by == "rules"
    view.set_state({"labels": {str(first): ["plan generation", "unknown"]}})
    assert view.labelled[0].labels == ("plan generation", "unknown")
    assert view.get_state("labels") == {"labels": {str(first): ["plan generation", "unknown"]}}
    with pytest.raises(wb.TraceError, match=r"expected some of problem setup, .*; got 'nonsense' at token"):
        view.labels = {first: ["nonsense"]}
    with pytest.raises(wb.TraceError, match=rf"no sentence starts at token {first + 1}"):
        ChainView(trace, labels={first + 1: ["unknown"]})


def test_a_branch_is_kept_and_told(trace: wb.Trace) -> None:
    asked: list[tuple[int, Any]] = []

    def go_on(given: wb.Trace, token: int, replacement: Any) -> wb.Trace:
        assert given is trace
        asked.append((token, replacement))
        return replace(trace, meta={**trace.meta, "continued_from": {"generated_from": token + 1}})

    view = ChainView(trace, continue_from=go_on)
    token = trace.num_prompt_tokens + 9
    put = int(trace.arrays["top_token_ids"][token, 1])
    states: list[str] = []
    view.observe(lambda change: states.append(change["new"]["state"]), "_job")
    view._handle_custom_msg({"continue": {"token": token, "id": put}}, [])
    view._handle_custom_msg({"continue": {"token": token, "text": "so 9"}}, [])
    view._handle_custom_msg({"continue": {"token": token}}, [])
    assert asked == [(token, put), (token, "so 9"), (token, None)]
    assert states == ["running", "done"] * 3
    assert len(view.branches) == len(view._branches) == 3
    assert [b["put"] for b in view._branches] == [trace.token_bytes(put).decode(), "so 9", ""]
    assert view._branches[0]["was"] == trace.token_text(token)


def test_what_goes_wrong_is_said_in_the_view_and_raised_in_python(trace: wb.Trace) -> None:
    def fail(*_: Any) -> wb.Trace:
        raise RuntimeError("no memory")

    def interrupt(*_: Any) -> wb.Trace:
        raise KeyboardInterrupt

    for function, words in (
        (fail, "RuntimeError: no memory"),
        (interrupt, "interrupted before there was anything to show"),
        (lambda *_: None, "expected a Trace from continue_from, got NoneType"),
        (None, "this view has no model to go on with; make it with ChainView(trace, continue_from=partial("),
    ):
        view = ChainView(trace, continue_from=function)  # type: ignore[arg-type]
        view._handle_custom_msg({"continue": {"token": 400, "text": "x"}}, [])
        assert view._job["state"] == "failed"
        assert view._job["words"].startswith(words)
        assert view.branches == []
    with pytest.raises(RuntimeError, match="no memory"):
        ChainView(trace, continue_from=fail).branch(400)
    with pytest.raises(TypeError, match="expected a function as continue_from, got int; pass partial"):
        ChainView(trace, continue_from=3)  # type: ignore[arg-type]


def test_the_embedded_model_goes_on_from_an_alternative(tiny: wb.Model) -> None:
    spec = wb.CaptureSpec(attention=False, router=False)
    trace = wb.capture(tiny, "47+85=?", effort="high", temperature=0, capture=spec)
    view = ChainView(trace, continue_from=partial(continue_from, tiny, temperature=0, capture=spec))
    start, last = trace.num_prompt_tokens, len(trace) - 2
    other = next(i for i in trace.arrays["top_token_ids"][last].tolist() if i != trace.arrays["token_ids"][last])
    branch = view.branch(last, other)
    assert view.branches == [branch]
    told = view._branches[0]
    assert (told["answers"], told["same"]) == ([trace.final_text, branch.final_text], False)
    assert told["branch"]["blocks"][0]["put"] == branch.token_text(last)
    assert told["generated"] == len(branch) - last - 1
    whole = branch_facts(trace, branch, start, "")
    assert [b["channel"] for b in whole["original"]["blocks"]] == ["analysis", "final"]
    assert whole["original"]["blocks"][0]["text"] == trace.analysis_text
    view._handle_custom_msg({"continue": {"token": 2}}, [])
    assert "expected a token of the completion" in view._job["words"]


def test_a_long_branch_is_cut_and_the_rest_counted(trace: wb.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widgets.chain_facts.SHOWN_TOKENS", 20)
    start = trace.num_prompt_tokens
    told = branch_facts(trace, trace, start, "")["branch"]
    assert told["more"] == 451 - start - 20
    message = next(m for m in trace.messages if m.start >= start)
    assert told["blocks"][0]["text"] == trace.text(message.content_start, start + 20)


def test_what_was_not_captured_is_said_and_not_zero(trace: wb.Trace) -> None:
    view = ChainView(without(trace, "entropy", "lens", "top"))
    assert (view._chain["entropy"], view._chain["forks"]) == (False, None)
    assert view._chain["answer"] == {"missing": "lens not captured"}
    assert view._arrays == {}
    nothing = ChainView(replace(trace, spans=()))
    assert nothing._chain["channel"] is None
    assert nothing._chain["answer"]["missing"].startswith("there is no answer: the completion's final channel")
    with pytest.raises(wb.TraceError, match="expected an answer within the completion"):
        ChainView(trace, answer=(0, 1))


def test_a_completion_without_an_analysis_channel_is_shown_whole() -> None:
    written = written_chain([], ["So", " 5", "."])
    view = ChainView(written)
    assert view._chain["channel"] is None
    assert [s["labels"] for s in view._chain["sentences"]] == [("result consolidation", "final answer emission")]


def test_what_is_no_chain_is_refused(trace: wb.Trace) -> None:
    with pytest.raises(wb.TraceError, match=r"expected a Trace, got str; wb\.open_trace\(path\) reads one"):
        ChainView("trace.safetensors")  # type: ignore[arg-type]
    prompt = replace(trace, meta={**trace.meta, "num_prompt_tokens": len(trace)})
    with pytest.raises(wb.TraceError, match="this trace has no completion: all of its 451 tokens are prompt"):
        ChainView(prompt)
    with pytest.raises(wb.TraceError, match="this trace does not keep the text of its tokens"):
        ChainView(without(trace, "vocab"))
    with pytest.raises(TypeError, match="color"):
        ChainView(trace, color_by="entropy")  # type: ignore[call-arg]


def test_sentences_do_not_overlap(trace: wb.Trace) -> None:
    """The browser finds a token's sentence by halving."""
    sentences = ChainView(trace)._chain["sentences"]
    assert all(a["stop"] <= b["start"] for a, b in pairwise(sentences))

"""Continuing from the middle of a rollout: what is kept, what is put there, what the model then does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.experiments.continuation import continue_from

QUESTION = "47+85=?"


@pytest.fixture(scope="module")
def greedy(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, QUESTION, effort="high", temperature=0)


def ids(trace: wb.Trace) -> list[int]:
    return trace.arrays["token_ids"].tolist()  # type: ignore[no-any-return]


def place_of(trace: wb.Trace, text: str) -> int:
    """Return the first completion token with this text."""
    return next(i for i in range(trace.num_prompt_tokens, len(trace)) if trace.token_text(i) == text)


def test_greedy_goes_on_as_it_did(tiny: wb.Model, greedy: wb.Trace) -> None:
    token = greedy.num_prompt_tokens + 23
    again = continue_from(tiny, greedy, token, temperature=0)
    assert ids(again) == ids(greedy)
    assert again.num_prompt_tokens == greedy.num_prompt_tokens
    assert again.spans == greedy.spans
    for name in ("logprobs", "entropy", "router_logits", "keys", "lens_logprobs", "attention_logsumexp"):
        np.testing.assert_allclose(again.array(name), greedy.array(name), atol=5e-3, err_msg=name)


def test_it_says_what_was_kept_put_read_and_generated(tiny: wb.Model, greedy: wb.Trace) -> None:
    start = greedy.num_prompt_tokens
    put = [ids(greedy)[start + 5], ids(greedy)[start + 3]]
    branch = continue_from(tiny, greedy, start + 7, put, seed=3, max_new_tokens=4, capture=wb.CaptureSpec(lens=False))
    assert ids(branch)[: start + 9] == ids(greedy)[: start + 7] + put
    assert len(branch) == start + 13
    assert branch.meta["continued_from"] == {
        "token": start + 7,
        "replacement": put,
        "kept": 7,
        "generated_from": start + 9,
    }
    assert branch.source("router_logits") == f"live, tokens {start}–{start + 8} replay"
    assert branch.meta["truncated"] == "cut at 4 tokens"
    assert (branch.meta["question"], branch.provenance["effort"]) == (QUESTION, "high")
    assert branch.provenance["sampling"] == {"temperature": 1.0, "top_p": 1.0, "seed": 3, "max_new_tokens": 4}
    assert not branch.has("lens_token_ids")


def test_a_continuation_without_kept_completion_is_live(tiny: wb.Model, greedy: wb.Trace) -> None:
    branch = continue_from(tiny, greedy, greedy.num_prompt_tokens, max_new_tokens=2)
    assert branch.source("router_logits") == "live"
    assert branch.meta["continued_from"]["kept"] == 0


def test_what_was_read_has_the_rows_of_a_replay(tiny: wb.Model, greedy: wb.Trace) -> None:
    """Kept and replaced tokens have logprobs of their own, as the model saw them."""
    at = place_of(greedy, "5") + 1
    branch = continue_from(tiny, greedy, at, "1", temperature=0, max_new_tokens=6)
    read = wb.replay(tiny, ids(branch), num_prompt_tokens=branch.num_prompt_tokens)
    for name in ("logprobs", "entropy", "router_logits", "queries", "lens_logprobs"):
        np.testing.assert_allclose(branch.array(name), read.array(name), atol=5e-3, err_msg=name)
    assert branch.logprobs.values[at] < greedy.logprobs.values[at], "what the model would not have said"


def test_text_is_put_there_as_tokens(tiny: wb.Model, greedy: wb.Trace) -> None:
    at = place_of(greedy, "5") + 1
    branch = continue_from(tiny, greedy, at, "so 9", temperature=0, max_new_tokens=1)
    assert branch.text(at, branch.meta["continued_from"]["generated_from"]) == "so 9"


def test_text_and_tokens_are_put_there_one_after_the_other(tiny: wb.Model, greedy: wb.Trace) -> None:
    """What is edited by hand, and then tokens of the rollout as they were."""
    at = place_of(greedy, "5") + 1
    rest = ids(greedy)[at + 2 : at + 7]
    branch = continue_from(tiny, greedy, at, ["so 9", *rest], temperature=0, max_new_tokens=1)
    put = branch.meta["continued_from"]["replacement"]
    assert put[-5:] == rest
    assert branch.text(at, at + len(put) - 5) == "so 9"
    with pytest.raises(wb.ModelError, match=r"^the replacement text contains <\|end\|>, which the tokenizer reads as"):
        continue_from(tiny, greedy, at, [rest[0], "<|end|>"])


def test_a_wrong_step_leads_the_model_elsewhere(tiny: wb.Model, greedy: wb.Trace) -> None:
    """The answer depends on what stands in the chain: the point of continuing from an alternative."""
    at = len(greedy) - 2
    assert greedy.span_at(at).channel == "final"  # type: ignore[union-attr]
    other = next(i for i in greedy.top_token_ids.values[at].tolist() if i != ids(greedy)[at])
    branch = continue_from(tiny, greedy, at, other, temperature=0)
    assert branch.analysis_text == greedy.analysis_text
    assert branch.final_text != greedy.final_text


def test_a_numpy_id_of_an_alternative_will_do(tiny: wb.Model, greedy: wb.Trace) -> None:
    at = greedy.num_prompt_tokens + 4
    branch = continue_from(tiny, greedy, at, greedy.top_token_ids.values[at, 1], max_new_tokens=1)
    assert branch.meta["continued_from"]["replacement"] == [int(greedy.top_token_ids.values[at, 1])]


def test_a_replacement_that_ends_the_rollout_generates_nothing(tiny: wb.Model, greedy: wb.Trace) -> None:
    at, end = len(greedy) - 2, ids(greedy)[-1]
    branch = continue_from(tiny, greedy, at, end)
    assert ids(branch) == [*ids(greedy)[:at], end]
    assert branch.num_prompt_tokens == greedy.num_prompt_tokens
    assert branch.source("router_logits") == "replay"
    assert branch.meta["continued_from"]["generated_from"] == len(branch)
    assert (branch.meta["question"], branch.provenance["effort"]) == (QUESTION, "high")


def test_a_cut_rollout_goes_on_after_its_end(tiny: wb.Model, greedy: wb.Trace) -> None:
    cut = wb.capture(tiny, QUESTION, effort="high", temperature=0, max_new_tokens=11)
    assert ids(continue_from(tiny, cut, len(cut), temperature=0)) == ids(greedy)


def test_a_saved_branch_comes_back_with_where_it_came_from(tiny: wb.Model, greedy: wb.Trace, tmp_path: Any) -> None:
    branch = continue_from(tiny, greedy, greedy.num_prompt_tokens + 6, "7", max_new_tokens=3)
    branch.save(tmp_path / "branch.safetensors")
    opened = wb.open_trace(tmp_path / "branch.safetensors")
    assert opened.meta["continued_from"] == branch.meta["continued_from"]


def test_places_outside_the_completion_are_refused(tiny: wb.Model, greedy: wb.Trace) -> None:
    start, stop = greedy.num_prompt_tokens, len(greedy)
    expected = rf"expected a token of the completion, {start} to {stop - 1}, or {stop} to continue after its end, got"
    for token in (-1, start - 1, stop + 1):
        with pytest.raises(wb.ModelError, match=rf"{expected} {token}$"):
            continue_from(tiny, greedy, token)
    with pytest.raises(wb.ModelError, match=rf"the model ended the rollout at token {stop - 1} with <\|return\|>; .*"):
        continue_from(tiny, greedy, stop)


@pytest.mark.parametrize(
    ("replacement", "text"),
    [
        (99_999, r"expected a replacement of token ids below \d+, got 99999"),
        ([3, -1], r"expected a replacement of token ids below \d+, got -1"),
        ([], "the replacement is empty; pass None to put nothing there"),
        ("", "the replacement is empty; pass None to put nothing there"),
        ("so<|end|>", r"the replacement text contains <\|end\|>, .* pass token ids, such as \d+, if you mean"),
    ],
)
def test_replacements_that_cannot_be(tiny: wb.Model, greedy: wb.Trace, replacement: Any, text: str) -> None:
    with pytest.raises(wb.ModelError, match=text):
        continue_from(tiny, greedy, greedy.num_prompt_tokens + 1, replacement)


def test_no_room_is_an_error_that_counts(tiny: wb.Model, greedy: wb.Trace) -> None:
    token = greedy.num_prompt_tokens + 1
    with pytest.raises(wb.ModelError, match=rf"{token} tokens kept and 1000 put there fill the context .* 1024; .*"):
        continue_from(tiny, greedy, token, [3] * 1000)


def test_nothing_to_go_on_from(tiny: wb.Model, greedy: wb.Trace) -> None:
    bare = replace(greedy, meta={**greedy.meta, "num_prompt_tokens": 0})
    with pytest.raises(wb.ModelError, match="nothing is kept and nothing put there"):
        continue_from(tiny, bare, 0)


def test_a_trace_of_other_weights_is_refused(tiny: wb.Model, greedy: wb.Trace) -> None:
    provenance = {**greedy.provenance, "model": "other", "weights": "sha256:0123456789abcdef"}
    other = replace(greedy, meta={**greedy.meta, "provenance": provenance})
    with pytest.raises(wb.ModelError, match=r"the trace is of other with weights sha256:01234567…, but tiny has sha"):
        continue_from(tiny, other, greedy.num_prompt_tokens)


def test_a_trace_of_another_vocabulary_is_refused(tiny: wb.Model, greedy: wb.Trace) -> None:
    letters = greedy.arrays["vocab_bytes"].copy()
    at = int(np.searchsorted(greedy.arrays["vocab_ids"], ids(greedy)[-2]))
    letters[greedy.arrays["vocab_offsets"][at]] = ord("x")
    other = replace(greedy, arrays={**greedy.arrays, "vocab_bytes": letters})
    with pytest.raises(wb.ModelError, match=r"token id \d+ is 'x.*' in the trace of tiny, but '.*' to tiny: .*"):
        continue_from(tiny, other, greedy.num_prompt_tokens)


def test_a_model_in_memory_has_no_hash_and_is_judged_by_its_vocabulary(tiny: wb.Model, odd: wb.Model) -> None:
    trace = wb.capture(odd, QUESTION, max_new_tokens=5)
    assert trace.provenance["weights"] == "not available"
    assert len(continue_from(odd, trace, len(trace), max_new_tokens=2)) == len(trace) + 2

"""Capture against what transformers itself computes, in float32."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

import workbench as wb
from workbench.ring import STRETCH_ROWS

QUESTION = "47+85=?"


@pytest.fixture(scope="module")
def live(tiny: wb.Model) -> wb.Trace:
    trace = wb.capture(tiny, QUESTION, effort="high", temperature=0)
    assert len(trace) - trace.num_prompt_tokens > STRETCH_ROWS // 2
    return trace


@pytest.fixture(scope="module")
def odd_trace(odd: wb.Model) -> wb.Trace:
    """More completion tokens than two collections hold, from a random model with unequal sizes."""
    return wb.capture(
        odd, QUESTION, max_new_tokens=2 * STRETCH_ROWS + 11, seed=5, capture=wb.CaptureSpec(residual=True, top=4)
    )


@pytest.fixture(scope="module")
def oracle(odd: wb.Model, odd_trace: wb.Trace) -> Any:
    """One eager forward of transformers over the same tokens."""
    ids = torch.tensor(odd_trace.arrays["token_ids"].astype(np.int64))[None]
    with torch.no_grad():
        return odd.hf(ids, output_attentions=True, output_hidden_states=True, output_router_logits=True)


def hook_count(model: wb.Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())


def test_every_array_has_one_row_per_token_and_the_models_sizes(odd: wb.Model, odd_trace: wb.Trace) -> None:
    tokens = len(odd_trace)
    shapes = {name: odd_trace.arrays[name].shape for name in odd_trace.captured}
    assert shapes == {
        "token_ids": (tokens,),
        "logprobs": (tokens,),
        "entropy": (tokens,),
        "top_token_ids": (tokens, 4),
        "top_logprobs": (tokens, 4),
        "expert_indices": (tokens, 3, 3),
        "expert_weights": (tokens, 3, 3),
        "router_logits": (tokens, 3, 7),
        "queries": (3, 6, tokens, 14),
        "keys": (3, 2, tokens, 14),
        "sink_logits": (3, 6),
        "attention_logsumexp": (tokens, 3, 6),
        "lens_token_ids": (tokens, 3, 3),
        "lens_logprobs": (tokens, 3, 3),
        "residual": (tokens, 3, 44),
    }


def test_attention_equals_transformers_eager_weights(odd_trace: wb.Trace, oracle: Any) -> None:
    for layer, weights in enumerate(oracle.attentions):
        pattern, sink_mass = odd_trace.attention(layer)
        np.testing.assert_allclose(pattern, weights[0].numpy(), atol=5e-5)
        assert sink_mass is not None
        np.testing.assert_allclose(sink_mass, 1 - weights[0].sum(-1).numpy(), atol=5e-5)
        assert np.asarray(sink_mass).max() > 0.05, "the sinks must matter for this test to mean something"


def test_a_replay_in_one_forward_is_exact(odd: wb.Model, odd_trace: wb.Trace, oracle: Any) -> None:
    """The same shapes go through the same kernels, so nothing but the softmax can differ."""
    trace = wb.replay(odd, odd_trace)
    np.testing.assert_array_equal(trace.router_logits, torch.stack(oracle.router_logits, dim=1).numpy())
    for layer, weights in enumerate(oracle.attentions):
        np.testing.assert_allclose(trace.attention(layer).pattern, weights[0].numpy(), atol=7e-7)


def test_logsumexp_makes_any_part_of_a_row_exact(odd_trace: wb.Trace) -> None:
    layer, head, row, keys = 1, 4, 101, slice(40, 60)
    q = odd_trace.queries[layer, head, row].astype(np.float64)
    k = odd_trace.keys[layer, head // 3, keys].astype(np.float64)
    scores = k @ q * odd_trace.meta["attention"]["scale"]
    weights = np.exp(scores - odd_trace.attention_logsumexp[row, layer, head])
    pattern, sink_mass = odd_trace.attention(layer, head, [row])
    np.testing.assert_allclose(weights, pattern[0, 0, keys], rtol=1e-4)
    expected = np.exp(odd_trace.sink_logits[layer, head] - odd_trace.attention_logsumexp[row, layer, head])
    assert sink_mass is not None
    np.testing.assert_allclose(expected, sink_mass[0, 0], rtol=1e-4)


def test_logsumexp_holds_in_sliding_layers_across_collections(odd_trace: wb.Trace) -> None:
    for layer in (0, 2):
        _, sink_mass = odd_trace.attention(layer)
        mine = np.exp(odd_trace.sink_logits[layer] - odd_trace.attention_logsumexp[:, layer])
        np.testing.assert_allclose(mine.T, sink_mass, rtol=2e-4)


def test_router_equals_transformers_router(odd: wb.Model, odd_trace: wb.Trace, oracle: Any) -> None:
    logits = torch.stack(oracle.router_logits, dim=1)
    np.testing.assert_allclose(odd_trace.router_logits, logits.numpy(), atol=5e-4)
    values, indices = logits.topk(3, dim=-1)
    np.testing.assert_array_equal(odd_trace.expert_indices, indices.numpy())
    np.testing.assert_allclose(odd_trace.expert_weights, values.softmax(-1).numpy(), atol=1e-4)


def test_logprobs_and_entropy_describe_the_draw_of_their_own_token(odd_trace: wb.Trace, oracle: Any) -> None:
    logprobs = torch.log_softmax(oracle.logits[0], dim=-1)
    ids = torch.tensor(odd_trace.arrays["token_ids"].astype(np.int64))
    expected = logprobs[:-1].gather(1, ids[1:, None])[:, 0]
    np.testing.assert_allclose(odd_trace.logprobs[1:], expected.numpy(), atol=2e-4)
    entropy = -(logprobs.exp() * logprobs).sum(-1)[:-1]
    np.testing.assert_allclose(odd_trace.entropy[1:], entropy.numpy(), atol=2e-4)
    assert np.isnan(odd_trace.logprobs[0])
    assert np.isnan(odd_trace.entropy[0])
    assert (odd_trace.top_token_ids[0] == -1).all()
    np.testing.assert_array_equal(odd_trace.top_token_ids[1:], logprobs[:-1].topk(4).indices.numpy())


def test_lens_is_the_unembedded_residual_of_the_token_read(odd: wb.Model, odd_trace: wb.Trace, oracle: Any) -> None:
    np.testing.assert_allclose(odd_trace.residual[:, 0], oracle.hidden_states[1][0].numpy(), atol=2e-4)
    with torch.no_grad():
        first = torch.log_softmax(odd.hf.lm_head(odd.hf.model.norm(oracle.hidden_states[1][0])), dim=-1)
    np.testing.assert_array_equal(odd_trace.lens_token_ids[:, 0], first.topk(3).indices.numpy())
    np.testing.assert_allclose(odd_trace.lens_logprobs[:, 0], first.topk(3).values.numpy(), atol=5e-3)
    last = torch.log_softmax(oracle.logits[0], dim=-1)
    np.testing.assert_array_equal(odd_trace.lens_token_ids[:, 2], last.topk(3).indices.numpy())


def test_live_and_replay_agree_in_float32(tiny: wb.Model, live: wb.Trace) -> None:
    again = wb.replay(tiny, live)
    assert again.num_prompt_tokens == live.num_prompt_tokens
    assert (again.source("router_logits"), live.source("router_logits")) == ("replay", "live")
    np.testing.assert_array_equal(np.sort(again.expert_indices, -1), np.sort(live.expert_indices, -1))
    for name in ("expert_weights", "queries", "keys", "attention_logsumexp", "logprobs", "entropy"):
        np.testing.assert_allclose(again.array(name), live.array(name), atol=2e-4, err_msg=name)


def test_the_last_token_has_rows_of_its_own(tiny: wb.Model, live: wb.Trace) -> None:
    assert live.meta["truncated"] is None
    assert live.token_text(len(live) - 1) == "<|return|>"
    assert np.asarray(live.router_logits)[-1].any(axis=-1).all()


def test_capture_leaves_logits_bit_identical(tiny: wb.Model, live: wb.Trace) -> None:
    from workbench.hooks import attach

    ids = torch.tensor(live.arrays["token_ids"].astype(np.int64))[None]
    plan = wb.CaptureSpec(residual=True).plan(tiny)
    with torch.no_grad():
        before = tiny.hf(ids).logits
        with attach(tiny, plan):
            during = tiny.hf(ids).logits
        after = tiny.hf(ids).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)


def test_capture_generates_the_same_tokens_as_plain_generate(tiny: wb.Model, live: wb.Trace) -> None:
    prompt = torch.tensor(live.arrays["token_ids"][: live.num_prompt_tokens].astype(np.int64))[None]
    plain = tiny.hf.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=len(live), disable_compile=True
    )
    assert plain[0].tolist() == live.arrays["token_ids"].tolist()


def test_same_seed_same_rollout_and_the_global_random_state_is_untouched(tiny: wb.Model) -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    a = wb.capture(tiny, QUESTION, effort="low", seed=7)
    assert torch.equal(torch.rand(4), expected)
    b = wb.capture(tiny, QUESTION, effort="low", seed=7)
    assert a.arrays["token_ids"].tolist() == b.arrays["token_ids"].tolist()


def test_hooks_are_gone_after_success_and_after_an_exception(tiny: wb.Model) -> None:
    before = hook_count(tiny)
    wb.capture(tiny, QUESTION, max_new_tokens=2)
    assert hook_count(tiny) == before

    def fail(_token: int) -> bool:
        raise RuntimeError("from the listener")

    with pytest.raises(RuntimeError, match="from the listener"):
        wb.capture(tiny, QUESTION, on_token=fail)
    assert hook_count(tiny) == before


def interrupt_after(n: int) -> Any:
    seen: list[int] = []

    def listen(token: int) -> bool:
        seen.append(token)
        if len(seen) == n:
            raise KeyboardInterrupt
        return False

    return listen


def test_an_interrupt_returns_what_is_done(tiny: wb.Model, live: wb.Trace) -> None:
    before = hook_count(tiny)
    part = wb.capture(tiny, QUESTION, effort="high", temperature=0, on_token=interrupt_after(20))
    assert hook_count(tiny) == before
    assert part.meta["truncated"] == "interrupted after 19 tokens"
    kept = len(part)
    assert kept == part.num_prompt_tokens + 19
    assert part.arrays["token_ids"].tolist() == live.arrays["token_ids"][:kept].tolist()
    np.testing.assert_allclose(part.router_logits, live.router_logits[:kept], atol=1e-5)
    np.testing.assert_allclose(part.logprobs, live.logprobs[:kept], atol=1e-5)


def test_an_interrupt_in_the_middle_of_a_forward_drops_that_forward(tiny: wb.Model) -> None:
    calls: list[int] = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 15:
            raise KeyboardInterrupt

    handle = tiny.layers[2].register_forward_hook(interrupt)
    try:
        part = wb.capture(tiny, QUESTION, effort="high", temperature=0)
    finally:
        handle.remove()
    # One call is the self-check, one the prompt; the fifteenth did not finish.
    assert len(part) == part.num_prompt_tokens + 12
    assert part.array("router_logits").shape[0] == len(part)


def test_an_interrupt_before_the_first_token_is_an_interrupt(tiny: wb.Model) -> None:
    before = hook_count(tiny)  # transformers leaves hooks of its own where its output flags were used
    with pytest.raises(KeyboardInterrupt):
        wb.capture(tiny, QUESTION, on_token=interrupt_after(1))
    assert hook_count(tiny) == before


def test_on_token_can_stop(tiny: wb.Model) -> None:
    seen: list[int] = []
    trace = wb.capture(tiny, QUESTION, effort="high", on_token=lambda t: (seen.append(t), len(seen) == 9)[1])
    assert trace.arrays["token_ids"][trace.num_prompt_tokens :].tolist() == seen
    assert trace.meta["truncated"] == "stopped after 9 tokens"


def test_a_cut_rollout_says_so(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, QUESTION, effort="high", max_new_tokens=8)
    assert len(trace) == trace.num_prompt_tokens + 8
    assert trace.meta["truncated"] == "cut at 8 tokens"


def test_only_what_was_asked_for_is_there(tiny: wb.Model) -> None:
    spec = wb.CaptureSpec(router=[2, 0], attention=[1], lens=False, top=2)
    trace = wb.capture(tiny, QUESTION, max_new_tokens=3, capture=spec)
    assert not trace.has("lens_token_ids")
    assert not trace.has("residual")
    assert trace.layers("router_logits") == (0, 2)
    assert trace.layers("queries") == (1,)
    assert trace.has("keys", 1)
    assert not trace.has("keys", 0)
    with pytest.raises(wb.TraceError, match=r"Attention of layer 3 is not in this trace\..*Captured: 1\."):
        trace.attention(3)
    whole = wb.replay(tiny, trace)
    np.testing.assert_allclose(trace.router_logits.sel(layer=2), whole.router_logits.sel(layer=2), atol=1e-4)
    np.testing.assert_allclose(trace.attention(1).pattern, whole.attention(1).pattern, atol=1e-5)


def test_what_was_said_is_read_back(live: wb.Trace) -> None:
    assert live.meta["question"] == QUESTION
    assert [m.role for m in live.messages][:2] == ["system", "user"]
    assert live.analysis_text
    assert live.final_text.isdigit()
    assert live.text().startswith("<|start|>system<|message|>")


def test_provenance_says_where_everything_came_from(live: wb.Trace) -> None:
    facts = live.provenance
    assert facts["model"] == "tiny"
    assert facts["embedded"] is True
    assert facts["weights"].startswith("sha256:")
    assert (facts["dtype"], facts["device"], facts["effort"]) == ("float32", "cpu", "high")
    assert facts["seams"] == {"router": "module"}
    assert facts["sampling"]["temperature"] == 0
    assert set(facts["versions"]) == {"moe-workbench", "torch", "transformers"}


def test_replay_of_token_ids_finds_the_prompt(tiny: wb.Model, live: wb.Trace) -> None:
    trace = wb.replay(tiny, live.arrays["token_ids"].tolist())
    assert trace.num_prompt_tokens == live.num_prompt_tokens


def test_replay_in_chunks_equals_one_forward(tiny: wb.Model, live: wb.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wb.replay(tiny, live)
    monkeypatch.setattr("workbench.rollout.READ_CHUNK", 17)
    parts = wb.replay(tiny, live)
    for name in whole.captured:
        if whole.array(name).dtype.kind == "f":
            np.testing.assert_allclose(parts.array(name), whole.array(name), rtol=2e-3, atol=2e-3, err_msg=name)


def test_a_long_prompt_is_read_in_pieces(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks then hold one piece at a time; what is captured is the same."""
    whole = wb.capture(odd, QUESTION, max_new_tokens=20, temperature=0)
    monkeypatch.setattr("workbench.rollout.READ_CHUNK", 7)
    forwards: list[int] = []
    handle = odd.layers[0].register_forward_pre_hook(lambda _module, args: forwards.append(args[0].shape[1]))
    try:
        pieces = wb.capture(odd, QUESTION, max_new_tokens=20, temperature=0)
    finally:
        handle.remove()
    rest = whole.num_prompt_tokens % 7
    assert forwards == [1, *[7] * (whole.num_prompt_tokens // 7), rest, *[1] * 20]
    assert rest
    np.testing.assert_array_equal(pieces.token_ids, whole.token_ids)
    np.testing.assert_array_equal(pieces.expert_indices, whole.expert_indices)
    for name in ("router_logits", "queries", "attention_logsumexp", "logprobs"):
        np.testing.assert_allclose(pieces.array(name), whole.array(name), rtol=1e-3, atol=1e-3, err_msg=name)


def test_a_layer_that_never_runs_is_an_error_that_names_it(tiny: wb.Model) -> None:
    layer, before = tiny.layers[1], hook_count(tiny)
    layer.mlp.forward = lambda hidden: (hidden, None)
    saved = layer.mlp._forward_pre_hooks
    try:
        layer.forward = lambda hidden_states, **_: hidden_states
        with pytest.raises(wb.ModelError, match=r"layer 1 fired 0 times for one token, expected once"):
            wb.capture(tiny, QUESTION, max_new_tokens=2)
    finally:
        del layer.forward, layer.mlp.forward
    assert layer.mlp._forward_pre_hooks is saved
    assert hook_count(tiny) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_new_tokens": 0}, r"expected max_new_tokens of at least 1, got 0; to read tokens .* use replay"),
        ({"temperature": -1}, r"expected a temperature of 0 \(greedy\) or more, got -1"),
        ({"temperature": float("nan")}, r"expected a temperature of 0 \(greedy\) or more, got nan"),
        (
            {"capture": wb.CaptureSpec(attention=[4])},
            r"CaptureSpec\(attention=…\): expected layers 0–3, got 4",
        ),
        ({"capture": wb.CaptureSpec(top=0)}, r"CaptureSpec\(top=0\): expected 1 to \d+"),
    ],
)
def test_bad_arguments_say_what_was_expected(tiny: wb.Model, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(wb.ModelError, match=text):
        wb.capture(tiny, QUESTION, **arguments)


def test_a_question_longer_than_the_context_is_refused(tiny: wb.Model) -> None:
    with pytest.raises(wb.ModelError, match=r"the question takes \d+ tokens, but the context of tiny holds 1024"):
        wb.capture(tiny, "9+" * 600)


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([1], "expected at least 2 tokens to replay, got 1"),
        ([1, 99_999], r"expected token ids below \d+, got 99999"),
        ([1] * 2000, r"expected at most 1024 tokens \(the context\), got 2000"),
    ],
)
def test_bad_token_ids_say_what_was_expected(tiny: wb.Model, ids: list[int], text: str) -> None:
    with pytest.raises(wb.ModelError, match=text):
        wb.replay(tiny, ids)


def test_nnsight_wraps_the_same_weights_and_is_idle_bit_exact() -> None:
    model = wb.load("tiny", device="cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = model.hf(ids).logits
        wrapped = model.nnsight
        after = model.hf(ids, past_key_values=DynamicCache(config=model.config)).logits
    assert torch.equal(before, after)
    with wrapped.trace(ids):
        logits = wrapped.lm_head.output.save()
    assert torch.equal(logits, before)
    trace = wb.capture(model, QUESTION, max_new_tokens=3)
    assert trace.provenance["seams"] == {"router": "module"}

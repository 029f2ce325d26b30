"""Interventions on attention and the residual stream against attention computed by hand, one row at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from own_hooks import hooks
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gpt_oss.modeling_gpt_oss import apply_rotary_pos_emb

import workbench as wb
from workbench.experiments.attention import AblateHead, MoveSink, SuppressSpan
from workbench.experiments.described import interventions_from
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import RouteAround
from workbench.experiments.intervening import Intervention, intervene
from workbench.experiments.residual import AddVector, PatchResidual

IDS = [(7 * i + 3) % 251 for i in range(31)]
QUESTION = "47+85=?"


def logits_of(model: wb.Model, ids: list[int] = IDS) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.hf(torch.tensor([ids])).logits[0]
        return logits


@contextmanager
def by_hand(
    model: wb.Model,
    layer: int,
    hidden_from: Any = lambda head, row, key: False,
    sink: Any = lambda head, row: 0.0,
    silent: Any = lambda head, row: False,
) -> Iterator[None]:
    """Replace a layer's attention by loops over heads and rows."""
    attn, window = model.layers[layer].self_attn, model.windows[layer] or 10**6

    def forward(hidden_states: Tensor, position_embeddings: Any, **_: Any) -> tuple[Tensor, None]:
        heads = [
            p(hidden_states).view(1, len(hidden_states[0]), -1, 14).transpose(1, 2)
            for p in (attn.q_proj, attn.k_proj, attn.v_proj)
        ]
        q, k = apply_rotary_pos_emb(heads[0], heads[1], *position_embeddings)
        rows = []
        for i in range(len(hidden_states[0])):
            row = []
            for h in range(6):
                kv = h // 3
                seen = [j for j in range(max(0, i - window + 1), i + 1) if not hidden_from(h, i, j)]
                scores = torch.stack([q[0, h, i] @ k[0, kv, j] for j in seen]) * 14**-0.5
                weights = torch.softmax(torch.cat([scores, attn.sinks[h : h + 1] + sink(h, i)]), 0)[:-1]
                out = sum(w * heads[2][0, kv, j] for w, j in zip(weights, seen, strict=True))
                row.append(out * (0.0 if silent(h, i) else 1.0))
            rows.append(torch.cat(row))
        return attn.o_proj(torch.stack(rows))[None], None

    attn.forward = forward
    try:
        yield
    finally:
        del attn.forward


def agree(model: wb.Model, intervention: Intervention, layer: int, first: int, **hand: Any) -> None:
    before = logits_of(model)
    with by_hand(model, layer):
        torch.testing.assert_close(logits_of(model), before, atol=2e-4, rtol=1e-4)
    with by_hand(model, layer, **hand):
        expected = logits_of(model)
    with intervene(model, intervention) as reading:
        found = logits_of(model)
        assert reading.touched().index(True) == first
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert torch.equal(found[:first], before[:first])
    assert (found - before).abs().max() > 1e-2, "the change must show"
    assert torch.equal(logits_of(model), before)
    assert hooks(model) == 0


@pytest.mark.parametrize("layer", [0, 1], ids=["sliding", "full"])
def test_suppressing_a_span(odd: wb.Model, layer: int) -> None:
    def hidden_from(h: int, i: int, j: int) -> bool:
        return h in (1, 4) and 5 <= j < 12 and i >= 12

    agree(odd, SuppressSpan((5, 12), {layer: [4, 1]}), layer, 12, hidden_from=hidden_from)


def test_suppressing_in_all_heads(odd: wb.Model) -> None:
    agree(odd, SuppressSpan((5, 12), {1: None}), 1, 12, hidden_from=lambda h, i, j: 5 <= j < 12 <= i)


def test_ablating_heads(odd: wb.Model) -> None:
    agree(odd, AblateHead({1: [2, 5]}, (9, 20)), 1, 9, silent=lambda h, i: h in (2, 5) and 9 <= i < 20)


@pytest.mark.parametrize("by", [-3.0, 2.5])
def test_moving_a_sink(odd: wb.Model, by: float) -> None:
    agree(odd, MoveSink({0: [3]}, (9, 20), by=by), 0, 9, sink=lambda h, i: by if h == 3 and 9 <= i < 20 else 0.0)


def test_a_sink_moved_everywhere_is_a_parameter_that_is_larger(odd: wb.Model) -> None:
    with intervene(odd, MoveSink({2: [0, 5]}, by=1.5)):
        found = logits_of(odd)
    sinks = odd.layers[2].self_attn.sinks
    before = sinks.detach().clone()
    try:
        sinks.data[[0, 5]] += 1.5
        torch.testing.assert_close(found, logits_of(odd), atol=1e-4, rtol=1e-4)
    finally:
        sinks.data.copy_(before)


CHANGES = {
    "suppress span": SuppressSpan("prompt"),
    "suppress a channel": SuppressSpan("analysis", {0: None, 1: None, 2: [1, 6, 0, 3], 3: None}),
    "ablate head": AblateHead({1: [3, 1, 5], 2: None, 3: None}, "final"),
    "move sink": MoveSink({0: [1, 2], 1: None, 3: None}, "analysis", by=9.0),
    "add vector": AddVector(1, np.linspace(-1, 1, 128), "analysis", factor=3.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_generating_token_by_token_and_reading_at_once_agree(tiny: wb.Model, name: str) -> None:
    """With a cache a sliding layer holds only its window, and a decode step has one row."""
    with intervene(tiny, CHANGES[name], num_prompt_tokens=27):
        live = wb.capture(tiny, QUESTION, effort="high", temperature=0, max_new_tokens=90)
        read = wb.replay(tiny, live)
    np.testing.assert_allclose(live.logprobs[1:], read.logprobs[1:], atol=2e-4)
    assert live.meta["intervention"] == [CHANGES[name].describe()]
    plain = wb.replay(tiny, live)
    assert np.abs(plain.logprobs[1:] - read.logprobs[1:]).max() > 1e-2, "the change must show"
    assert "intervention" not in plain.meta


@pytest.fixture(scope="module", params=["mixtral", "qwen3"])
def other(request: pytest.FixtureRequest, tiny: wb.Model) -> Any:
    """A family whose attention runs in PyTorch's own kernel, where the mask is often left out."""
    torch.manual_seed(2)
    sizes = {"hidden_size": 48, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 6}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 7, "num_experts_per_tok": 3}
    rest = {"max_position_embeddings": 300, "initializer_range": 0.3, "eos_token_id": None, "vocab_size": 520}
    rest |= {"sliding_window": 11} if request.param == "mixtral" else {}
    config = AutoConfig.for_model(request.param, **sizes, **rest)

    def build(implementation: str) -> wb.Model:
        hf = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=implementation).eval()
        return wb.load(hf, tokenizer=tiny.tokenizer)

    eager, fused = build("eager"), build("sdpa")
    fused.hf.load_state_dict(eager.hf.state_dict())
    assert (eager.config._attn_implementation, fused.config._attn_implementation) == ("eager", "sdpa")
    return eager, fused


def test_fused_attention_is_changed_as_plain_attention_is(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    eager, fused = other
    monkeypatch.setattr("workbench.rollout.READ_CHUNK", 9)
    for change in (SuppressSpan((3, 8), {1: [0, 4]}), SuppressSpan((3, 8)), AblateHead({2: [1, 5]}, (6, None))):
        found = []
        for model in (eager, fused):
            with intervene(model, change):
                found.append(wb.replay(model, IDS).logprobs[1:])
        np.testing.assert_allclose(found[0], found[1], atol=1e-4)
        assert np.abs(found[0] - wb.replay(eager, IDS).logprobs[1:]).max() > 1e-3
    with (
        pytest.raises(wb.ModelError, match=r"move sink: (Mixtral|Qwen3 \(dense\)) has no sink logits"),
        intervene(eager, MoveSink({1: [0]}, by=1)),
    ):
        pytest.fail("entered")


def test_adding_a_vector_equals_a_hand_written_hook(odd: wb.Model) -> None:
    vector = torch.linspace(-2, 2, 44)

    def hook(_module: Any, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, 8:19] += 1.5 * vector
        return changed

    handle = odd.layers[1].register_forward_hook(hook)
    expected = logits_of(odd)
    handle.remove()
    with intervene(odd, AddVector(1, vector, (8, 19), factor=1.5)):
        assert torch.equal(logits_of(odd), expected)
        trace = wb.replay(odd, IDS, capture=wb.CaptureSpec(lens=False, residual=[1]))
    plain = wb.replay(odd, IDS, capture=wb.CaptureSpec(lens=False, residual=[1]))
    difference = trace.residual[:, 0] - plain.residual[:, 0]
    np.testing.assert_allclose(difference[8:19], np.tile(1.5 * vector, (11, 1)), atol=1e-5)
    assert not difference[:8].any()


def test_patching_everything_gives_the_other_trace(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens of the last layer are another text's, so the predictions are its predictions."""
    other_ids = [(11 * i + 5) % 251 for i in range(40)]
    source = wb.replay(odd, other_ids, capture=wb.CaptureSpec(lens=False, residual=[1, 2]))
    expected = logits_of(odd, other_ids)
    with intervene(odd, PatchResidual(2, source, (0, 31))):
        assert torch.equal(logits_of(odd), expected[:31])
    with intervene(odd, PatchResidual(2, source, (4, 14), source_start=21)):
        found = logits_of(odd)
        monkeypatch.setattr("workbench.rollout.READ_CHUNK", 9)
        pieces = wb.replay(odd, IDS)
    before = logits_of(odd)
    torch.testing.assert_close(found[4:14], expected[21:31], atol=1e-5, rtol=1e-5)
    assert torch.equal(found[:4], before[:4])
    assert torch.equal(found[14:], before[14:]), "after the last layer nothing reaches later tokens"
    ids = torch.tensor(IDS[1:])
    np.testing.assert_allclose(
        pieces.logprobs[1:], torch.log_softmax(found, -1)[:-1].gather(1, ids[:, None])[:, 0], atol=1e-4
    )


def test_patching_is_named_with_both_sides(odd: wb.Model) -> None:
    source = wb.replay(odd, IDS[:20], capture=wb.CaptureSpec(lens=False, residual=[1]))
    found = PatchResidual(1, source, (4, 14), source_start=2).describe()
    assert (found["variant"], found["tokens"], found["source_tokens"]) == ("patch residual", [4, 14], [2, 12])
    assert found["source"]["model"] == source.provenance["model"]


def test_an_experiment_takes_them_too(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS, num_prompt_tokens=8)
    found = experiment(odd, read, SuppressSpan((5, 12), {1: None}), generate=False)
    assert found.aligned.first_token == 12
    assert found.aligned.num_changed == len(IDS) - 12
    assert (found.kl[1:13] == 0).all()
    assert found.kl[13] > 0
    with pytest.raises(wb.ModelError, match="none of the 31 tokens of the baseline is after one within 5–30"):
        experiment(odd, read, SuppressSpan((5, 31)), generate=False)


def test_controls_are_other_heads_of_the_layer(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS)
    found = experiment(odd, read, AblateHead({1: [2, 5]}, (9, 20)), generate=False, controls=9)
    drawn = [tuple(control.interventions[0].describe()["heads"]["1"]) for control in found.controls]
    assert sorted(drawn) == [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)], "all there are"
    alone = experiment(odd, read, AblateHead({1: [0, 1]}, (9, 20)), generate=False)
    assert found.controls[drawn.index((0, 1))].mean_kl == alone.mean_kl
    assert found.rank == 1 + sum(control.mean_kl >= found.mean_kl for control in found.controls)
    assert f"rank {found.rank} of 7 with random controls" in repr(found)
    hidden = experiment(odd, read, SuppressSpan((5, 12), {1: [0], 2: [3]}), generate=False, controls=2)
    assert all(control.interventions[0].describe()["tokens"] == [5, 12] for control in hidden.controls)
    far = SuppressSpan((5, 12), elsewhere=[(14, 19), (20, 24)])
    assert interventions_from([far.describe()]) == [replace(far, elsewhere=((14, 19), (20, 24)))]
    with pytest.raises(wb.ModelError, match="layer 0 has 0 other heads to be a control for 6; change fewer"):
        experiment(odd, read, SuppressSpan((5, 12)), generate=False, controls=1)


def test_controls_of_a_vector_are_as_long(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS)
    vector = np.linspace(-2, 2, 44)
    found = experiment(odd, read, AddVector(1, vector, factor=0.5), generate=False, controls=3)
    norms = [control.interventions[0].describe()["norm"] for control in found.controls]
    assert norms == pytest.approx([np.linalg.norm(vector) / 2] * 3, rel=1e-5)
    assert len({control.mean_kl for control in found.controls}) == 3


RESIDUAL = wb.CaptureSpec(lens=False, residual=[1])


def test_controls_of_a_patch_go_as_far_in_a_random_direction(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS, capture=RESIDUAL)
    source = wb.replay(odd, [(11 * i + 5) % 251 for i in range(40)], capture=RESIDUAL)
    patch = PatchResidual(1, source, (4, 9), 21)
    found = experiment(odd, read, patch, generate=False, controls=3, capture=RESIDUAL)
    assert [control.variant for control in found.controls] == ["random patch"] * 3
    own, given = (trace.residual[start : start + 5, 0] for trace, start in ((read, 4), (source, 21)))
    moved = [control.trace.residual[4:9, 0] - own for control in found.controls]
    for shift in moved:
        np.testing.assert_allclose(np.linalg.norm(shift, axis=-1), np.linalg.norm(given - own, axis=-1), rtol=1e-4)
    directions = [shift / np.linalg.norm(shift, axis=-1, keepdims=True) for shift in moved]
    assert np.abs((directions[0] * directions[0][:1]).sum(-1) - 1).max() < 1e-4, "one direction for all tokens"
    assert np.abs((directions[0] * directions[1]).sum(-1)).max() < 0.6, "another in each control"
    assert (found.trace.residual[:4, 0] == read.residual[:4, 0]).all()
    np.testing.assert_allclose(found.trace.residual[4:9, 0], given, rtol=1e-5)
    assert found.rank == 1 + sum(control.mean_kl >= found.mean_kl for control in found.controls)
    assert f"rank {found.rank} of 4 with random controls" in repr(found)
    assert len({control.mean_kl for control in found.controls}) == 3


def test_controls_of_a_patch_may_be_from_unrelated_traces(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS, capture=RESIDUAL)
    source, *others = (
        wb.replay(odd, [(n * i + 5) % 251 for i in range(length)], capture=RESIDUAL)
        for n, length in ((11, 40), (13, 6), (17, 8))
    )
    patch = PatchResidual(1, source, (4, 9), 21, unrelated=others)
    found = experiment(odd, read, patch, generate=False, controls=9)
    drawn = {
        (c.interventions[0].describe()["source"]["token_ids_sha256"], *c.interventions[0].describe()["source_tokens"])
        for c in found.controls
    }
    assert len(drawn) == len(found.controls) == 6, "five tokens of six and of eight: two places and four"
    assert sorted(start for _, start, _ in drawn) == [0, 0, 1, 1, 2, 3]
    assert found.rank is not None
    for change, text in (
        ([*others, source], "unrelated trace 2 is the source itself, which is no control"),
        (
            [wb.replay(odd, IDS[:4], capture=RESIDUAL)],
            "unrelated trace 0: patch residual: 5 tokens from 0 on are asked",
        ),
        ([wb.replay(odd, IDS)], r"unrelated trace 0: patch residual: the source has no residual stream of layer 1"),
    ):
        with pytest.raises(wb.ModelError, match=text):
            experiment(odd, read, PatchResidual(1, source, (4, 9), 21, unrelated=change), generate=False)


def test_controls_that_mean_nothing_are_refused(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS, capture=wb.CaptureSpec(lens=False, residual=[1]))
    control = PatchResidual(1, read, (3, 5), 7).random_control(odd, np.random.default_rng(0))
    with pytest.raises(wb.ModelError, match="random patch is a control itself; pass controls=0"):
        experiment(odd, read, control, generate=False, controls=1)
    with pytest.raises(wb.ModelError, match=r"controls of route around are matched by load.*do them apart"):
        experiment(odd, read, [RouteAround({1: [2]}), AblateHead({1: [2]})], generate=False, controls=1)


def bad(odd: wb.Model) -> list[tuple[Intervention, str]]:
    source = wb.replay(odd, IDS[:9], capture=wb.CaptureSpec(lens=False, residual=[1]))
    return [
        (AblateHead({3: [0]}), "expected a layer below 3, got 3"),
        (AblateHead({1: [6]}), "expected a head of layer 1 below 6, got 6"),
        (AblateHead({1: []}), r"ablate head: expected \{layer: \[head, …\]\} or \{layer: None\} in whole numbers"),
        (SuppressSpan((2, 5), {0: [-1]}), "expected a head of layer 0 below 6, got -1"),
        (MoveSink({1: [0]}, by=float("inf")), "expected a finite number of logits, got inf"),
        (AddVector(1, np.zeros(43)), r"expected a vector of 44 numbers, got shape \(43,\)"),
        (AddVector(1, np.full(44, np.nan)), "expected finite numbers"),
        (AddVector(-1, np.zeros(44)), "expected a layer below 3, got -1"),
        (PatchResidual(2, source, (0, 4)), r"no residual stream of layer 2; capture or replay it with CaptureSpec"),
        (PatchResidual(1, source, (0, 10)), "10 tokens from 0 on are asked of a source that has 9"),
        (PatchResidual(1, source, (0, None)), r"expected tokens as \(start, stop\) with an end"),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("number", range(11))
def test_what_cannot_be_done_is_refused(odd: wb.Model, number: int) -> None:
    intervention, text = bad(odd)[number]
    with pytest.raises(wb.ModelError, match=text), intervene(odd, intervention):
        pytest.fail("entered")
    assert hooks(odd) == 0


@pytest.mark.parametrize("name", CHANGES)
def test_after_a_failure_the_model_is_as_before(tiny: wb.Model, name: str) -> None:
    weights = {n: p.clone() for n, p in tiny.hf.state_dict().items()}
    before = logits_of(tiny)

    def fail(token: int) -> None:
        seen.append(token)
        if len(seen) == 30:
            raise RuntimeError("in the middle")

    seen: list[int] = []
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        intervene(tiny, CHANGES[name], num_prompt_tokens=27),
    ):
        wb.capture(tiny, QUESTION, effort="high", temperature=0, on_token=fail)
    assert hooks(tiny) == 0
    assert tiny.interventions == []
    assert torch.equal(logits_of(tiny), before)
    for n, p in tiny.hf.state_dict().items():
        assert torch.equal(p, weights[n]), n

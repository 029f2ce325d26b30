"""Replay against live routing: equal in float32, counted in bfloat16, forced when asked."""

from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb

QUESTION = "91+40+98+66=?"


@pytest.fixture(scope="module")
def half(tiny: wb.Model) -> wb.Model:
    return wb.load("tiny", device="cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def live(half: wb.Model) -> wb.Trace:
    return wb.capture(half, QUESTION, effort="high", seed=2)


def test_float32_replays_choose_the_same_sets(tiny: wb.Model) -> None:
    live = wb.capture(tiny, QUESTION, effort="high", seed=2)
    agreement = wb.replay(tiny, live).meta["routing_agreement"]
    assert (agreement["sets"], agreement["differ"], agreement["tokens"]) == (4 * len(live), 0, 0)
    assert agreement["median_margin_where_differ"] is None
    ordered = np.sort(live.router_logits[:], axis=-1)
    assert agreement["median_margin"] == pytest.approx(np.median(ordered[..., -2] - ordered[..., -3]))


def test_bfloat16_replays_say_how_many_sets_differ_and_how_close_they_were(half: wb.Model, live: wb.Trace) -> None:
    replayed = wb.replay(half, live)
    agreement = replayed.meta["routing_agreement"]
    same = np.sort(live.expert_indices[:], -1) == np.sort(replayed.expert_indices[:], -1)
    assert agreement["differ"] == (~same.all(-1)).sum()
    if agreement["differ"]:
        assert agreement["median_margin_where_differ"] < agreement["median_margin"]


def test_forced_routing_uses_what_was_recorded(half: wb.Model, live: wb.Trace) -> None:
    forced = wb.replay(half, live, force_routing=True)
    np.testing.assert_array_equal(forced.expert_indices, live.expert_indices)
    np.testing.assert_array_equal(forced.expert_weights, live.expert_weights)
    assert forced.source("expert_indices") == "replay, forced"
    assert forced.provenance["routing"] == "forced"
    assert forced.meta["routing_agreement"]["sets"] == 4 * len(live)


def test_forcing_changes_what_the_experts_are_given(odd: wb.Model) -> None:
    """Foreign choices, so that forcing must show: the logits equal a forward whose routers were replaced by hand."""
    trace = wb.replay(odd, list(range(2, 40)))
    random = np.random.default_rng(0)
    indices = np.stack([[random.permutation(7)[:3] for _ in range(3)] for _ in range(len(trace))]).astype(np.uint8)
    weights = random.dirichlet(np.ones(3), (len(trace), 3)).astype(np.float32)
    foreign = wb.Trace({**trace.arrays, "expert_indices": indices, "expert_weights": weights}, trace.spans, trace.meta)
    forced = wb.replay(odd, foreign, force_routing=True)
    expected = hand_forced_logits(odd, trace.arrays["token_ids"], indices, weights)
    logprobs = torch.log_softmax(expected, dim=-1)[:-1]
    ids = torch.from_numpy(trace.arrays["token_ids"][1:].astype(np.int64))
    np.testing.assert_allclose(forced.logprobs[1:], logprobs.gather(1, ids[:, None])[:, 0], atol=2e-5)
    assert forced.meta["routing_agreement"]["differ"] > 50
    again = wb.replay(odd, trace)
    np.testing.assert_array_equal(again.router_logits, trace.router_logits)


def hand_forced_logits(model: wb.Model, ids: Any, indices: Any, weights: Any) -> torch.Tensor:
    forwards = []
    for layer, block in enumerate(model.layers):
        router = block.mlp.router
        forwards.append(router)
        given = (None, torch.from_numpy(weights[:, layer]), torch.from_numpy(indices[:, layer].astype(np.int64)))
        router.forward = lambda rows, given=given: given
    try:
        with torch.no_grad():
            logits: torch.Tensor = model.hf(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]
            return logits
    finally:
        for router in forwards:
            del router.forward


def test_forced_routing_in_chunks(half: wb.Model, live: wb.Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.rollout.READ_CHUNK", 19)
    forced = wb.replay(half, live, force_routing=True)
    np.testing.assert_array_equal(forced.expert_indices, live.expert_indices)


def test_forced_routing_needs_a_trace(half: wb.Model) -> None:
    with pytest.raises(
        wb.ModelError, match="force_routing needs a trace with recorded experts, got tokens or messages"
    ):
        wb.replay(half, [1, 2, 3], force_routing=True)


def test_forced_routing_needs_every_layer(half: wb.Model) -> None:
    part = wb.replay(half, [1, 2, 3], capture=wb.CaptureSpec(router=[1, 2]))
    with pytest.raises(
        wb.ModelError, match=r"every layer with a router \(0, 1, 2, 3\); the trace has those of \(1, 2\)"
    ):
        wb.replay(half, part, force_routing=True)


def test_forced_routing_refuses_a_forward_that_bypasses_the_router(odd: wb.Model) -> None:
    trace = wb.replay(odd, [1, 2, 3, 4])
    for layer in odd.layers:
        mlp = layer.mlp
        mlp.forward = lambda hidden, mlp=mlp: (
            mlp.experts(hidden[0], *mlp.router.forward(hidden[0])[:0:-1])[None],
            None,
        )
    try:
        with pytest.raises(
            wb.ModelError, match=r"forced routing reached none of 4 tokens .* bypasses the router module"
        ):
            wb.replay(odd, trace, force_routing=True)
    finally:
        for layer in odd.layers:
            del layer.mlp.forward

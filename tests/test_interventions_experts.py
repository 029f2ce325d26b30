"""Expert interventions against experts computed one token at a time by hand, and the model afterwards as before."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_hooks import hooks
from torch import Tensor

import workbench as wb
from workbench.experiments.experts import (
    VARIANTS,
    ExpertIntervention,
    Force,
    MeanOutput,
    RouteAround,
    Scale,
    Swap,
    ZeroContribution,
)
from workbench.experiments.intervening import intervene

IDS = [(7 * i + 3) % 251 for i in range(38)]
PROMPT = 11
QUESTION = "47+85=?"

# One token's routing [(expert, weight, function)] → the same, changed; logits beside it.
Change = Callable[[list[tuple[int, float, int]], Tensor], list[tuple[int, Tensor | float, int]]]


def logits_of(model: wb.Model, ids: list[int] = IDS) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.hf(torch.tensor([ids])).logits[0]
        return logits


def expert(experts: Any, e: int, row: Tensor) -> Tensor:
    """One gpt-oss expert, by the formula of the model card: (up + 1) · gate · σ(1.702 gate), both clamped at 7."""
    both = row @ experts.gate_up_proj[e] + experts.gate_up_proj_bias[e]
    gate, up = both[::2].clamp(max=7), both[1::2].clamp(-7, 7)
    out: Tensor = ((up + 1) * gate * torch.sigmoid(1.702 * gate)) @ experts.down_proj[e] + experts.down_proj_bias[e]
    return out


def by_logits(chosen: list[int], logits: Tensor) -> list[tuple[int, Tensor, int]]:
    weights = torch.softmax(logits[chosen], dim=0)
    return [(e, w, e) for e, w in zip(chosen, weights, strict=True)]


def route_around(avoided: set[int]) -> Change:
    return lambda routed, logits: by_logits(
        [e for e in logits.argsort(descending=True).tolist() if e not in avoided][: len(routed)], logits
    )


def force(forced: list[int]) -> Change:
    def change(routed: Any, logits: Tensor) -> Any:
        others = [e for e in logits.argsort(descending=True).tolist() if e not in forced]
        return by_logits([*forced, *others][: len(routed)], logits)

    return change


def scale(scaled: set[int], factor: float) -> Change:
    return lambda routed, _: [(e, w * (factor if e in scaled else 1), f) for e, w, f in routed]


def zero(silent: set[int]) -> Change:
    return lambda routed, _: [(e, w, f) for e, w, f in routed if e not in silent]


def swap(pairs: Mapping[int, int]) -> Change:
    return lambda routed, _: [(e, w, pairs.get(f, f)) for e, w, f in routed]


@contextmanager
def by_hand(model: wb.Model, layer: int, change: Change, start: int, stop: int) -> Iterator[None]:
    """Replace a layer's MLP by one that goes through tokens and experts one by one."""
    mlp = model.layers[layer].mlp

    def forward(hidden: Tensor) -> tuple[Tensor, None]:
        out = torch.zeros_like(hidden[0])
        for t, row in enumerate(hidden[0]):
            logits = F.linear(row, mlp.router.weight, mlp.router.bias)
            routed = by_logits(logits.topk(model.top_k).indices.tolist(), logits)
            for _, w, f in change(routed, logits) if start <= t < stop else routed:
                out[t] += w * expert(mlp.experts, f, row)
        return out[None], None

    mlp.forward = forward
    try:
        yield
    finally:
        del mlp.forward


CASES: dict[str, tuple[ExpertIntervention, Change]] = {
    "route around": (RouteAround({1: [5, 2, 0]}, (6, 23)), route_around({5, 2, 0})),
    "zero contribution": (ZeroContribution({1: [5, 2]}, (6, 23)), zero({5, 2})),
    "force": (Force({1: [4, 6]}, (6, 23)), force([4, 6])),
    "scale": (Scale({1: [5, 3]}, (6, 23), factor=-1.5), scale({5, 3}, -1.5)),
    "swap": (Swap({1: {5: 2, 2: 5, 0: 3}}, (6, 23)), swap({5: 2, 2: 5, 0: 3})),
}


@pytest.mark.parametrize("name", CASES)
def test_a_variant_does_what_its_definition_says(odd: wb.Model, name: str) -> None:
    intervention, change = CASES[name]
    before = logits_of(odd)
    with by_hand(odd, 1, change, 6, 23):
        expected = logits_of(odd)
    with intervene(odd, intervention):
        found = logits_of(odd)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert (found - before).abs().max() > 1e-2, "the change must show"
    assert torch.equal(found[:6], before[:6]), "tokens before the span are as they were"
    assert torch.equal(logits_of(odd), before)
    assert VARIANTS[name] is type(intervention)


def test_mean_output_by_hand(odd: wb.Model) -> None:
    """The mean of expert 5 over the reference tokens that take it stands in for its output, by the weight it had."""
    reference = wb.replay(odd, IDS[:29])
    rows: list[Tensor] = []
    mlp = odd.layers[1].mlp
    handle = mlp.register_forward_pre_hook(lambda _m, args: rows.extend(args[0][0]))
    logits_of(odd, IDS[:29])
    handle.remove()
    takes = [t for t in range(29) if 5 in reference.expert_indices[t, 1]]
    mean = torch.stack([expert(mlp.experts, 5, rows[t]) for t in takes]).mean(0)
    assert 2 < len(takes) < 29

    def forward(hidden: Tensor) -> tuple[Tensor, None]:
        out = torch.zeros_like(hidden[0])
        for t, row in enumerate(hidden[0]):
            logits = F.linear(row, mlp.router.weight, mlp.router.bias)
            for e, w, _ in by_logits(logits.topk(3).indices.tolist(), logits):
                out[t] += w * (mean if e == 5 and t >= 4 else expert(mlp.experts, e, row))
        return out[None], None

    mlp.forward = forward
    try:
        expected = logits_of(odd)
    finally:
        del mlp.forward
    before = logits_of(odd)
    with intervene(odd, MeanOutput({1: [5]}, (4, None), reference=reference)):
        found = logits_of(odd)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert (found - before).abs().max() > 1e-2


def test_equal_to_the_bit_to_a_hand_written_hook(tiny: wb.Model) -> None:
    """While it generates, in two layers at once; the hook is what a user would write."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        logits, _, _ = output
        masked = logits.clone()
        masked[:, 3] = -torch.inf
        values, indices = torch.topk(masked, 2, dim=-1)
        return logits, torch.softmax(values, dim=-1), indices

    handles = [tiny.layers[layer].mlp.router.register_forward_hook(hook) for layer in (1, 2)]
    try:
        expected = wb.capture(tiny, QUESTION, effort="high", seed=4)
    finally:
        for handle in handles:
            handle.remove()
    with intervene(tiny, RouteAround({1: [3], 2: [3]})):
        found = wb.capture(tiny, QUESTION, effort="high", seed=4)
    for name in expected.arrays:
        np.testing.assert_array_equal(found.arrays[name], expected.arrays[name], name)
    assert "intervention" not in expected.meta
    assert found.meta["intervention"] == [
        {"variant": "route around", "experts": {"1": [3], "2": [3]}, "tokens": "all"}
    ]


def test_a_trace_keeps_what_the_router_said_and_what_was_used(odd: wb.Model) -> None:
    before = wb.replay(odd, IDS)
    with intervene(odd, [RouteAround({0: [2]}), Scale({0: [4]}, factor=0.25)]):
        trace = wb.replay(odd, IDS)
    np.testing.assert_array_equal(trace.router_logits[:, 0], before.router_logits[:, 0])
    assert not (trace.expert_indices[:, 0] == 2).any()
    assert (before.expert_indices[:, 0] == 2).any()
    rank = trace.expert_indices[:, 0] == 4
    plain = np.where(rank, trace.expert_weights[:, 0] * 4, trace.expert_weights[:, 0])
    np.testing.assert_allclose(plain.sum(-1), 1, rtol=1e-5)
    with intervene(odd, [ZeroContribution({0: [2]}), Swap({0: {4: 1}})]):
        behind = wb.replay(odd, IDS)
    for name in ("router_logits", "expert_indices", "expert_weights"):
        np.testing.assert_array_equal(behind.arrays[name][:, 0], before.arrays[name][:, 0], name)


def test_the_order_of_a_list_is_choice_first_and_two_choices_add_up(odd: wb.Model) -> None:
    with intervene(odd, RouteAround({1: [0, 5]})):
        both = logits_of(odd)
    with intervene(odd, [RouteAround({1: [0]}), RouteAround({1: [5]})]):
        assert torch.equal(logits_of(odd), both)
    with intervene(odd, [RouteAround({1: [0]}), Scale({1: [4]}, factor=0)]):
        one_way = logits_of(odd)
    with intervene(odd, [Scale({1: [4]}, factor=0), RouteAround({1: [0]})]):
        assert torch.equal(logits_of(odd), one_way)


@pytest.mark.parametrize("tokens", ["prompt", "completion", "analysis", "final", (80, None), (20, 31)])
def test_spans_are_the_same_while_generating_and_in_a_replay(tiny: wb.Model, tokens: Any) -> None:
    """Where a span ends is told token by token; the same text read at once must be changed at the same places."""
    question, prompt = "47+85=?", 27
    with intervene(tiny, RouteAround({1: [3, 0], 2: [1]}, tokens), num_prompt_tokens=prompt) as reading:
        live = wb.capture(tiny, question, effort="high", temperature=0)
        told = list(reading.members(tokens))
        read = wb.replay(tiny, live)
        assert reading.members(tokens) == told
    assert live.num_prompt_tokens == prompt
    np.testing.assert_array_equal(live.expert_indices, read.expert_indices)
    np.testing.assert_allclose(live.logprobs, read.logprobs, atol=1e-4)
    assert told == expected_members(live, tokens)
    changed = ~np.isin(live.expert_indices[:, 1], (3, 0)).any(-1)
    assert changed[told].all()
    assert not changed[~np.array(told)].all()


def expected_members(trace: wb.Trace, tokens: Any) -> list[bool]:
    from workbench.analysis.reasoning import completion_content

    places = range(len(trace))
    if tokens in ("analysis", "final"):
        inside = {t for span in completion_content(trace, tokens) for t in range(span.start, span.stop)}
        return [t in inside for t in places]
    if isinstance(tokens, str):
        return [(t < trace.num_prompt_tokens) == (tokens == "prompt") for t in places]
    return [tokens[0] <= t < (tokens[1] or len(trace)) for t in places]


def test_long_text_in_pieces(tiny: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = wb.capture(tiny, QUESTION, effort="high", temperature=0)
    change = RouteAround({1: [3, 0]}, "analysis")
    with intervene(tiny, change, num_prompt_tokens=trace.num_prompt_tokens):
        whole = wb.replay(tiny, trace)
        monkeypatch.setattr("workbench.rollout.READ_CHUNK", 19)
        pieces = wb.replay(tiny, trace)
    np.testing.assert_array_equal(whole.expert_indices, pieces.expert_indices)


@pytest.mark.parametrize("failure", [RuntimeError("in the middle"), KeyboardInterrupt()], ids=["exception", "Ctrl-C"])
@pytest.mark.parametrize("name", CASES)
def test_after_a_failure_in_the_middle_the_model_is_as_before(
    tiny: wb.Model, name: str, failure: BaseException
) -> None:
    weights = {n: p.clone() for n, p in tiny.hf.state_dict().items()}
    before, count = logits_of(tiny), 0

    def stop(_token: int) -> None:
        nonlocal count
        count += 1
        if count == 9:
            raise failure

    kind = VARIANTS[name]
    change = Swap({1: {3: 4}}) if kind is Swap else kind({1: [3]})  # type: ignore[arg-type]
    with intervene(tiny, change):
        if isinstance(failure, KeyboardInterrupt):
            part = wb.capture(tiny, QUESTION, effort="high", on_token=stop)
            assert part.meta["truncated"].startswith("interrupted")
            assert part.meta["intervention"][0]["variant"] == name
        else:
            with pytest.raises(RuntimeError, match="in the middle"):
                wb.capture(tiny, QUESTION, effort="high", on_token=stop)
    assert hooks(tiny) == 0
    assert tiny.interventions == []
    assert torch.equal(logits_of(tiny), before)
    for n, p in tiny.hf.state_dict().items():
        assert torch.equal(p, weights[n]), n


@pytest.mark.parametrize("name", [*CASES, "mean output"])
def test_bfloat16_keeps_its_dtype(tiny: wb.Model, name: str) -> None:
    half = wb.load("tiny", device="cpu", dtype=torch.bfloat16)
    before = wb.replay(half, IDS)
    options = {"reference": before} if name == "mean output" else {}
    change: Any = Swap({1: {3: 4}}) if name == "swap" else VARIANTS[name]({1: [3]}, (5, 30), **options)  # type: ignore[arg-type]
    with intervene(half, change):
        trace = wb.replay(half, IDS)
    assert trace.expert_weights.dtype == before.expert_weights.dtype
    assert np.isfinite(trace.logprobs[1:]).all()
    assert (trace.logprobs[6:] != before.logprobs[6:]).any()
    np.testing.assert_array_equal(wb.replay(half, IDS).logprobs, before.logprobs)


def test_forced_routing_goes_with_changes_behind_the_router_only(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, QUESTION, effort="low", temperature=0)
    with (
        intervene(tiny, Scale({1: [3]}, factor=2.0)),
        pytest.raises(wb.ModelError, match=r"forced routing would undo the intervention \(scale\)"),
    ):
        wb.replay(tiny, trace, force_routing=True)
    with intervene(tiny, ZeroContribution({0: [1, 3, 5]})):
        forced = wb.replay(tiny, trace, force_routing=True)
    np.testing.assert_array_equal(forced.expert_indices, trace.expert_indices)
    assert np.abs(forced.logprobs[1:] - trace.logprobs[1:]).max() > 1e-3

"""What cannot be done to a model is said before it is done, or at its first forward, and leaves no hook."""

import pytest
import torch
from own_hooks import hooks
from torch import Tensor

import workbench as wb
from workbench.experiments.experts import Force, MeanOutput, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import Intervention, intervene

IDS = [(7 * i + 3) % 251 for i in range(38)]


def logits_of(model: wb.Model) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.hf(torch.tensor([IDS])).logits[0]
        return logits


BAD: list[tuple[Intervention, str]] = [
    (RouteAround({3: [1]}), r"expected a layer with a router, one of \(0, 1, 2\), got 3"),
    (Scale({1: [7]}), "expected an expert of layer 1 below 7, got 7"),
    (Swap({1: {2: -1}}), "expected an expert of layer 1 below 7, got -1"),
    (ZeroContribution({}), r"zero contribution: expected \{layer: \[expert, …\]\} in whole numbers, at least one"),
    (RouteAround({1: 3}), r"expected \{layer: \[expert, …\]\} in whole numbers, at least one, got \{1: 3\}"),  # type: ignore[dict-item]
    (RouteAround({1: []}), r"at least one, got \{1: \[\]\}"),
    (Force({1: [2.5]}), r"in whole numbers, at least one, got \{1: \[2.5\]\}"),  # type: ignore[list-item]
    (Scale([(1, 3)], factor=2.0), r"got \[\(1, 3\)\]"),  # type: ignore[arg-type]
    (Swap({1: [2, 3]}), r"swap: expected \{layer: \{i: j, …\}\} in whole numbers, at least one, got"),  # type: ignore[dict-item]
    (Force({1: [2]}, [3, 9]), r"expected tokens as \(start, stop\), or one of .*, got \[3, 9\]"),  # type: ignore[arg-type]
    (RouteAround({1: range(5)}), "5 of 7 experts of layer 1 are avoided, which can leave 2 where a token takes 3"),
    (Force({2: [0, 1, 2, 6]}), r"force: a token takes 3 experts, but 4 are forced in layer 2: \[0, 1, 2, 6\]"),
    (Scale({1: [2]}, factor=float("nan")), "expected a finite factor, got nan"),
    (MeanOutput({1: [2]}), "over which tokens is the mean"),
    (Force({1: [2]}, "thinking"), "expected tokens all, prompt, completion, analysis"),
    (Force({1: [2]}, (9, 4)), r"expected tokens \(start, stop\) with 0 ≤ start < stop, got \(9, 4\)"),
    (Force({1: [2]}, "analysis"), "need num_prompt_tokens"),
]


@pytest.mark.parametrize(("intervention", "text"), BAD, ids=lambda given: str(given)[:40])
def test_what_cannot_be_done_is_refused_and_leaves_no_hook(
    odd: wb.Model, intervention: Intervention, text: str
) -> None:
    with pytest.raises(wb.ModelError, match=text), intervene(odd, intervention):
        pytest.fail("entered")
    assert hooks(odd) == 0


def test_an_expert_cannot_be_both_avoided_and_forced(odd: wb.Model) -> None:
    both = [Force({1: [2]}), RouteAround({1: [4, 2]})]
    with (
        pytest.raises(wb.ModelError, match=r"experts \[2\] of layer 1 are both avoided and forced"),
        intervene(odd, both),
    ):
        pytest.fail("entered")


def test_a_model_that_is_changed_already_is_refused(odd: wb.Model) -> None:
    with intervene(odd, Scale({1: [2]}, factor=2.0)):
        with pytest.raises(wb.ModelError, match=r"changed already \(scale\); give all interventions together"):  # noqa: SIM117
            with intervene(odd, RouteAround({1: [2]})):
                pytest.fail("entered")
        assert [one["variant"] for one in odd.interventions] == ["scale"]
    assert hooks(odd) == 0


def test_a_prompt_of_another_length_is_refused(tiny: wb.Model) -> None:
    with intervene(tiny, Scale({1: [2]}, "completion", factor=2.0), num_prompt_tokens=3):
        with pytest.raises(wb.ModelError, match="takes the completion to begin at token 3, but here it begins at 27"):
            wb.capture(tiny, "47+85=?", max_new_tokens=2)
        assert wb.replay(tiny, [5, 6, 7, 8, 9], num_prompt_tokens=3).num_prompt_tokens == 3
    with intervene(tiny, Scale({1: [2]}, factor=2.0), num_prompt_tokens=3):  # of all tokens: it does not matter
        wb.capture(tiny, "47+85=?", max_new_tokens=2)
    assert (hooks(tiny), tiny.changed_from) == (0, None)


def test_a_mean_over_no_token_is_refused(odd: wb.Model) -> None:
    reference = wb.replay(odd, IDS[:2])
    never = next(e for e in range(7) if e not in reference.expert_indices[:, 1])
    with (
        pytest.raises(wb.ModelError, match=f"no token of the reference takes expert {never} of layer 1"),
        intervene(odd, MeanOutput({1: [never]}, reference=reference)),
    ):
        pytest.fail("entered")
    assert hooks(odd) == 0


def test_a_batch_is_refused(odd: wb.Model) -> None:
    before = logits_of(odd)
    with (
        pytest.raises(wb.ModelError, match=r"one sequence of token ids at a time.*a batch of 2"),
        torch.no_grad(),
        intervene(odd, RouteAround({1: [3]})),
    ):
        odd.hf(torch.tensor([IDS, IDS]))
    assert torch.equal(logits_of(odd), before)
    assert hooks(odd) == 0


def test_a_sequence_begun_outside_is_refused(odd: wb.Model) -> None:
    from transformers import DynamicCache

    cache = DynamicCache(config=odd.config)
    with torch.no_grad():
        odd.hf(torch.tensor([IDS[:5]]), past_key_values=cache)
        with (
            pytest.raises(wb.ModelError, match="0 tokens were read inside, but the cache holds 5"),
            intervene(odd, RouteAround({1: [3]})),
        ):
            odd.hf(torch.tensor([IDS[5:]]), past_key_values=cache)


def test_a_forward_that_bypasses_the_router_is_refused(odd: wb.Model) -> None:
    mlp = odd.layers[1].mlp
    mlp.forward = lambda hidden: (mlp.experts(hidden[0], *mlp.router.forward(hidden[0])[:0:-1])[None], None)
    try:
        with (
            pytest.raises(wb.ModelError, match="did not reach the router of layer 1: this forward bypasses"),
            intervene(odd, RouteAround({1: [3]})),
        ):
            wb.replay(odd, IDS)
    finally:
        del mlp.forward


def test_experts_over_several_processes_are_refused(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wb.Model, "expert_parallel", 2)
    with (
        pytest.raises(wb.ModelError, match="split over 2 processes, where a change would reach only some"),
        intervene(odd, RouteAround({1: [3]})),
    ):
        pytest.fail("entered")

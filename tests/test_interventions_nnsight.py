"""The same interventions written in nnsight give the same logits, here and on the path to a remote model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nnsight import save
from torch import Tensor

import workbench as wb
from workbench.experiments.experts import ExpertIntervention, Force, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import intervene

IDS = torch.tensor([[(7 * i + 3) % 251 for i in range(38)]])
LAYER = 2


@pytest.fixture(scope="module")
def model() -> wb.Model:
    """Its own: nnsight replaces the forward of each module for good."""
    return wb.load("tiny", device="cpu")


def choose(scores: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    def edit(output: Any) -> Any:
        logits = output[0]
        indices = torch.topk(scores(logits), 2, dim=-1).indices
        return logits, *weighed(logits, indices)

    return edit


def weighed(logits: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    values, order = logits.gather(-1, indices).sort(dim=-1, descending=True)
    return torch.softmax(values, dim=-1), indices.gather(-1, order)


def scaled(output: Any) -> Any:
    logits, weights, indices = output
    return logits, torch.where(indices == 5, weights * 3.0, weights), indices


AT_THE_ROUTER: dict[str, tuple[ExpertIntervention, Callable[[Any], Any]]] = {
    "route around": (
        RouteAround({LAYER: [5, 1]}),
        choose(lambda logits: logits.index_fill(-1, torch.tensor([5, 1]), -torch.inf)),
    ),
    "force": (Force({LAYER: [4]}), choose(lambda logits: logits.index_fill(-1, torch.tensor([4]), torch.inf))),
    "scale": (Scale({LAYER: [5]}, factor=3.0), scaled),
}

AT_THE_EXPERTS: dict[str, tuple[ExpertIntervention, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "zero contribution": (
        ZeroContribution({LAYER: [5]}),
        lambda indices, weights: (indices, weights.masked_fill(indices == 5, 0)),
    ),
    "swap": (
        Swap({LAYER: {5: 2, 2: 5}}),
        lambda indices, weights: (
            torch.where(indices == 5, 2, torch.where(indices == 2, 5, indices)),
            weights,
        ),
    ),
}


def changed(model: wb.Model, intervention: ExpertIntervention) -> Tensor:
    with torch.no_grad():
        before = model.hf(IDS).logits
        with intervene(model, intervention):
            logits: Tensor = model.hf(IDS).logits
    assert (logits - before).abs().max() > 1e-3, "the change must show"
    return logits


@pytest.mark.parametrize("name", AT_THE_ROUTER)
@pytest.mark.parametrize("remote", [{}, {"remote": "local"}], ids=["here", "remote"])
def test_at_the_router(model: wb.Model, name: str, remote: dict[str, Any]) -> None:
    intervention, edit = AT_THE_ROUTER[name]
    lm = model.nnsight
    with torch.no_grad(), lm.trace(IDS, **remote):
        lm.model.layers[LAYER].mlp.router.output = edit(lm.model.layers[LAYER].mlp.router.output)
        logits = save(lm.lm_head.output)
    assert torch.equal(logits, changed(model, intervention))


@pytest.mark.parametrize("name", AT_THE_EXPERTS)
@pytest.mark.parametrize("remote", [{}, {"remote": "local"}], ids=["here", "remote"])
def test_at_the_experts(model: wb.Model, name: str, remote: dict[str, Any]) -> None:
    intervention, edit = AT_THE_EXPERTS[name]
    lm = model.nnsight
    with torch.no_grad(), lm.trace(IDS, **remote):
        (rows, indices, weights), named = lm.model.layers[LAYER].mlp.experts.inputs
        lm.model.layers[LAYER].mlp.experts.inputs = ((rows, *edit(indices, weights)), named)
        logits = save(lm.lm_head.output)
    assert torch.equal(logits, changed(model, intervention))


def test_nnsight_replaces_forwards_for_good_which_is_why_the_variants_are_hooks(model: wb.Model) -> None:
    assert model.nnsight is not None
    assert "forward" in vars(model.layers[0].mlp.router)


def test_variants_and_capture_work_on_a_model_that_nnsight_has_wrapped(model: wb.Model, tiny: wb.Model) -> None:
    assert model.nnsight is not None
    found = []
    for each in (model, tiny):
        with intervene(each, RouteAround({1: [3]})):
            found.append(wb.capture(each, "47+85=?", effort="medium", seed=2).arrays["logprobs"][1:])
    assert (found[0] == found[1]).all()

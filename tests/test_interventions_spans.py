"""Every variant at every kind of span: the same while the model generates and while it reads the text at once."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from own_hooks import hooks
from test_interventions_experts import expected_members

import workbench as wb
from workbench.experiments.attention import AblateHead, MoveSink, SuppressSpan
from workbench.experiments.experts import Force, MeanOutput, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import Intervention, intervene
from workbench.experiments.residual import AddVector, PatchResidual

QUESTION, PROMPT = "47+85=?", 27
SPANS = ("prompt", "analysis", "final", (31, None))
LIGHT = wb.CaptureSpec(attention=False, lens=False, residual=[1, 3])


@cache
def reference(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, "38+14=?", effort="medium", temperature=0, capture=LIGHT)


def often(tiny: wb.Model) -> list[int]:
    """The experts of layer 1 that the reference takes."""
    return [int(e) for e in np.unique(reference(tiny).expert_indices[:, 1])]


VARIANTS: dict[str, Any] = {
    "route around": lambda tiny, tokens: RouteAround({1: range(5)}, tokens),
    "zero contribution": lambda tiny, tokens: ZeroContribution({1: range(8), 2: [0, 5]}, tokens),
    "mean output": lambda tiny, tokens: MeanOutput({1: often(tiny)}, tokens, reference=reference(tiny)),
    "force": lambda tiny, tokens: Force({2: [7, 4]}, tokens),
    "scale": lambda tiny, tokens: Scale({1: range(8)}, tokens, factor=1.7),
    "swap": lambda tiny, tokens: Swap({1: {e: (e + 3) % 8 for e in range(8)}}, tokens),
    "suppress span": lambda tiny, tokens: SuppressSpan(tokens, {1: None, 3: [0, 6]}),
    "ablate head": lambda tiny, tokens: AblateHead({1: [3, 1, 5], 2: None}, tokens),
    "move sink": lambda tiny, tokens: MoveSink({1: None, 3: [2]}, tokens, by=6.0),
    "add vector": lambda tiny, tokens: AddVector(1, np.linspace(-1, 1, 128), tokens, factor=2.0),
}


def check(tiny: wb.Model, change: Intervention, tokens: Any) -> None:
    with intervene(tiny, change, num_prompt_tokens=PROMPT) as reading:
        live = wb.capture(tiny, QUESTION, effort="medium", temperature=0, max_new_tokens=48, capture=LIGHT)
        told = list(reading.members(tokens))
        read = wb.replay(tiny, live, capture=LIGHT)
        assert reading.members(tokens) == told == expected_members(live, tokens)
    assert (hooks(tiny), tiny.interventions) == (0, [])
    assert live.meta["intervention"] == [change.describe()]
    np.testing.assert_array_equal(live.expert_indices, read.expert_indices)
    np.testing.assert_allclose(live.residual, read.residual, atol=2e-3)
    moved = np.abs(wb.replay(tiny, live, capture=LIGHT).residual[:, 1] - read.residual[:, 1]).max(-1)
    first = told.index(False, told.index(True)) if isinstance(change, SuppressSpan) else told.index(True)
    assert moved[:first].max(initial=0) < 1e-3 < 1e-1 < moved[first:].max(), "from the first of the tokens on"


@pytest.mark.parametrize("tokens", SPANS, ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_span_is_changed_alike_live_and_read(tiny: wb.Model, name: str, tokens: Any) -> None:
    if name == "suppress span" and tokens == (31, None):
        tokens = (31, 38)  # a span without end has no token after it that could see it
    change = VARIANTS[name](tiny, tokens)
    assert change.variant == name
    check(tiny, change, tokens)


@pytest.mark.parametrize("tokens", [(4, 21), (29, 36)], ids=["in the prompt", "in the completion"])
def test_a_patch_is_alike_live_and_read(tiny: wb.Model, tokens: tuple[int, int]) -> None:
    check(tiny, PatchResidual(1, reference(tiny), tokens, 9), tokens)


def test_afterwards_everything_is_bit_identical(tiny: wb.Model) -> None:
    before = wb.replay(tiny, reference(tiny))
    for name in VARIANTS:
        with intervene(tiny, VARIANTS[name](tiny, (5, None))):
            wb.replay(tiny, reference(tiny), capture=LIGHT)
    after = wb.replay(tiny, reference(tiny))
    for name in before.arrays:
        np.testing.assert_array_equal(after.arrays[name], before.arrays[name], name)

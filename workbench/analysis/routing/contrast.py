"""What two sets of tokens route differently."""

from workbench.analysis.routing.blocks import Blocks
from workbench.analysis.routing.load import expert_load
from workbench.labelled import Labelled, TraceError

__all__ = ["expert_contrast"]


def expert_contrast(a: Blocks, b: Blocks, num_experts: int) -> Labelled:
    """Return ``Δ_e = a₁/N₁ − a₂/N₂``, by how much set a chooses each expert more often than set b.

    The risk difference of SteerMoE (Fayyaz et al., arXiv 2509.09660). An association, whatever its size: tokens of
    one trace depend on one another, so only `permutation_test`, over whole traces, can call it significant.

    Args:
        a: [token, layer, top_k], the chosen experts, or blocks of them; of one phase.
        b: the same of the other tokens; other numbers of tokens are fine.
        num_experts: E, of the model.

    Returns:
        [layer, expert] float64, in choices per token; sums to 0 over a layer.

    Raises:
        TraceError: no tokens, other dims, an index that is no expert, or layers or experts per token that differ.
    """
    left, right = (expert_load(side, num_experts, per="token") for side in (a, b))
    if left.shape != right.shape or left.coords != right.coords:
        raise TraceError(
            f"a and b: expected the same layers, got {left.shape[0]} {left.coords} beside "
            f"{right.shape[0]} {right.coords}"
        )
    slots = [round(float(load.values[0].sum())) for load in (left, right)]
    if slots[0] != slots[1]:
        raise TraceError(f"a and b: expected as many experts per token, got {slots[0]} beside {slots[1]}")
    source = f"expert contrast per token, an association: {left.source}; minus {right.source}"
    return Labelled(left.values - right.values, left.dims, left.coords, source)

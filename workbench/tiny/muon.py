"""Muon for stacks of matrices: momentum, made orthogonal by Newton-Schulz iterations.

Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the update
scaled to AdamW's by 0.2·sqrt(max(rows, columns)) after Liu et al., "Muon is scalable for LLM training"
(2025). torch.optim.Muon takes single matrices only; the experts' weights are [expert, rows, columns].
"""

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Push all singular values of each matrix [..., rows, columns] towards 1 (they end near 0.7–1.2)."""
    a, b, c = _COEFFICIENTS
    x: torch.Tensor = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum 0.95, orthogonalised, with decoupled weight decay.

    Parameters have shape [..., rows, columns]; those of one shape are treated as one stack.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        """Take parameters of two or more dimensions."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for param in group["params"]:
                by_shape.setdefault(param.shape[-2:], []).append(param)
            for params in by_shape.values():
                self._step_stack(params, group["lr"], group["weight_decay"], group["momentum"])

    def _step_stack(self, params: list[torch.nn.Parameter], lr: float, decay: float, momentum: float) -> None:
        rows, columns = params[0].shape[-2:]
        updates = []
        for param in params:
            assert param.grad is not None
            buffer = self.state[param].setdefault("momentum_buffer", torch.zeros_like(param))
            buffer.lerp_(param.grad, 1 - momentum)
            updates.append(param.grad.lerp(buffer, momentum).view(-1, rows, columns))
        scale = 0.2 * max(rows, columns) ** 0.5
        directions = torch.split(orthogonalise(torch.cat(updates)), [len(update) for update in updates])
        for param, direction in zip(params, directions, strict=True):
            param.mul_(1 - lr * decay).add_(direction.view(param.shape), alpha=-lr * scale)

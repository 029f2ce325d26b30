"""From what the hook points saw to the arrays of a trace: describe the draw, rank experts, rotate, read the lens."""

import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from workbench.hooks import HookPlan
from workbench.model import Model
from workbench.spec import CaptureSpec

__all__ = ["Past", "attend", "derive", "describe_draws", "rank_experts", "read_lens", "row_logsumexp"]

KEY_BLOCK = 2048
"""Keys kept in one tensor: longer ones would be copied whole again and again as a sequence grows."""

LENS_BLOCK_BYTES = 64 << 20

Seen = Mapping[str, Tensor]
Past = Mapping[int, tuple[Tensor, ...]]
"""Layer → the keys of the rows before, in blocks [kv_head, key, d_head]; sliding layers keep their window only."""


def derive(
    model: Model, spec: CaptureSpec, plan: HookPlan, seen: Seen, targets: Sequence[int], past: Past
) -> tuple[dict[str, Tensor], Past]:
    """Return the arrays of some consecutive rows, on their device, and the keys that the rows after them need.

    Args:
        model: that was read.
        spec: what to build.
        plan: of the layers read.
        seen: hook point → [row, …] or [row, layer, …].
        targets: the tokens drawn after each row; one fewer than rows where the last row is the end of the sequence.
        past: as returned for the rows before.
    """
    found = describe_draws(seen["logits"][: len(targets)], targets, spec.top)
    if plan.router:
        found |= rank_experts(model, seen)
    if plan.residual:
        found["residual"] = seen["residual"]
        if "lens_token_ids" in spec.wanted():
            found |= read_lens(seen["residual"], model.unembed, int(model.config.vocab_size), spec.lens_top)
    if plan.attention:
        sinks = [model.sink_logits(layer) for layer in plan.attention]
        attention, past = attend(model, plan, seen, sinks, past)
        found |= attention
    return found, past


def describe_draws(logits: Tensor, targets: Sequence[int], top: int) -> dict[str, Tensor]:
    """Describe the distributions that the targets were drawn from."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    target = torch.tensor(targets, dtype=torch.long).to(logits.device, non_blocking=True)
    ranked = logprobs.topk(top, dim=-1)
    return {
        "logprobs": logprobs.gather(1, target[:, None])[:, 0],
        "entropy": torch.special.entr(logprobs.exp()).sum(-1),
        "top_logprobs": ranked.values.half(),
        "top_token_ids": ranked.indices.int(),
    }


def rank_experts(model: Model, seen: Seen) -> dict[str, Tensor]:
    """Put what the routers gave in rank order, in the dtypes of a trace."""
    weights, indices = seen["expert_weights"], seen["expert_indices"]
    if not model.family.ranked:
        weights, order = weights.sort(dim=-1, descending=True, stable=True)
        indices = indices.gather(-1, order)
    dtype = torch.uint8 if model.num_experts <= 256 else torch.uint16
    return {"router_logits": seen["router_logits"], "expert_weights": weights, "expert_indices": indices.to(dtype)}


def read_lens(residual: Tensor, unembed: Callable[[Tensor], Tensor], vocab_size: int, top: int) -> dict[str, Tensor]:
    """Read every layer's residual [row, layer, d_model] as a prediction of the next token."""
    block = max(1, LENS_BLOCK_BYTES // (4 * residual.shape[1] * vocab_size))
    ids, logprobs = [], []
    for rows in torch.split(residual, block):
        logits = unembed(rows).to(rows.device)  # a model spread over devices may answer on another
        ranked = logits.topk(top, dim=-1)
        ids.append(ranked.indices.int())
        logprobs.append((ranked.values.float() - _logsumexp(logits.float())[..., None]).half())
    return {"lens_token_ids": torch.cat(ids), "lens_logprobs": torch.cat(logprobs)}


def _logsumexp(values: Tensor) -> Tensor:
    """Return the log-sum-exp over the last dim, and destroy the values: half the time of `torch.logsumexp`.

    A row may be −∞ throughout.
    """
    top = values.amax(-1, keepdim=True).clamp_min_(torch.finfo(torch.float32).min)
    return values.sub_(top).exp_().sum(-1).log_().add_(top[..., 0])


def attend(
    model: Model, plan: HookPlan, seen: Seen, sink_logits: Sequence[Tensor | None], past: Past
) -> tuple[dict[str, Tensor], Past]:
    """Rotate queries and keys [layer, head, row, d_head] as the model does; add each row's log-sum-exp."""
    cos, sin = seen["rotary_cos"][None], seen["rotary_sin"][None]
    rotate = _rotary_function(model)
    q, k = (
        seen[name].view(*seen[name].shape[:2], -1, model.d_head).permute(1, 2, 0, 3)  # layers in the place of a batch
        for name in ("queries", "keys")
    )
    q, k = rotate(q, k, cos, sin)
    windows, scale = model.windows, model.attention_scale  # the configuration is slow to read
    sums, kept = [], {}
    for at, layer in enumerate(plan.attention):
        blocks, window = _append(past.get(layer, ()), k[at]), windows[layer]
        sums.append(row_logsumexp(q[at], blocks, sink_logits[at], scale=scale, window=window))
        kept[layer] = blocks if window is None else (torch.cat(blocks, dim=1)[:, 1 - window :],) if window > 1 else ()
    return {"queries": q, "keys": k, "attention_logsumexp": torch.stack(sums, dim=1)}, kept


def _append(blocks: tuple[Tensor, ...], keys: Tensor) -> tuple[Tensor, ...]:
    if blocks and blocks[-1].shape[1] + keys.shape[1] <= KEY_BLOCK:
        return (*blocks[:-1], torch.cat([blocks[-1], keys], dim=1))
    return (*blocks, keys)


def row_logsumexp(
    q: Tensor, blocks: Sequence[Tensor], sinks: Tensor | None, *, scale: float, window: int | None
) -> Tensor:
    """Return the log-sum-exp of each row's attention scores, sink included, in float32.

    Args:
        q: [head, row, d_head], the last rows of the sequence.
        blocks: consecutive keys [kv_head, key, d_head], ending at the last row; in a sliding layer the keys before
            the window may be gone.
        sinks: [head] or None.
        scale: factor of the scores.
        window: tokens a row sees, itself included; None = all before it.

    Returns:
        [row, head], so that a weight is ``exp(score - logsumexp)``.
    """
    num_heads, num_rows, d_head = q.shape
    grouped = q.float().reshape(blocks[0].shape[0], -1, d_head)  # [kv_head, head of the group · row, d_head]
    first = sum(block.shape[1] for block in blocks) - num_rows
    parts = [] if sinks is None else [sinks.to(q.device).float()[:, None].expand(-1, num_rows)]
    start = 0
    for block in blocks:
        scores = (grouped @ block.float().mT).mul_(scale).view(num_heads, num_rows, -1)
        if start + block.shape[1] > first or window is not None:  # else every row sees all of the block
            rows = torch.arange(first, first + num_rows, device=q.device)[:, None]
            distance = rows - torch.arange(start, start + block.shape[1], device=q.device)
            hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
            scores.masked_fill_(hidden, -torch.inf)
        parts.append(_logsumexp(scores))
        start += block.shape[1]
    return torch.stack(parts).logsumexp(0).T.contiguous()


def _rotary_function(model: Model) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the modelling file's own ``apply_rotary_pos_emb``, so that the convention is the model's."""
    rotate: Callable[..., tuple[Tensor, Tensor]] = sys.modules[
        type(model.attention(0)).__module__
    ].apply_rotary_pos_emb
    return rotate

"""Turn what the hooks saw into the arrays of a trace, a stretch of forwards at a time."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.hooks import FINAL, WHOLE, Key, Recorder, not_finite
from workbench.model import Model
from workbench.spec import CaptureSpec
from workbench.trace import DIMS

__all__ = ["Collector", "row_logsumexp"]

LOGITS_BLOCK_BYTES = 64 << 20


class Collector:
    """Collects rows, one per token read, from a `Recorder`.

    `flush` is all or nothing: an interrupt inside it leaves the rows collected so far consistent.

    Args:
        model: whose hooks these are.
        spec: what to build.
        recorder: where the hooks keep their references.
    """

    def __init__(self, model: Model, spec: CaptureSpec, recorder: Recorder) -> None:
        """Start with no rows."""
        self.model, self.spec, self.recorder = model, spec, recorder
        self.plan, self.wanted = spec.plan(model), spec.wanted()
        self.rows = 0
        self.on_rows: Callable[[dict[str, NDArray[Any]]], None] | None = None
        """told the arrays of each stretch of rows, ``token_ids`` among them, as soon as it is collected"""
        self._chunks: dict[str, list[NDArray[Any]]] = {}
        self._keys: dict[int, Tensor] = {}
        self._drawn: dict[str, NDArray[Any]] = {}

    def flush(self, token_ids: Sequence[int]) -> None:
        """Collect the rows of every completed forward.

        Args:
            token_ids: the sequence so far; it must reach one past the last row read, except at the very end.

        Raises:
            ModelError: the model computed NaN or infinity.
        """
        # The logits hook is the last to fire, so it counts the forwards that completed.
        forwards = len(self.recorder.seen.get(("logits", WHOLE), ()))
        if not forwards:
            return
        seen = {key: tensors[:forwards] for key, tensors in self.recorder.seen.items()}
        self.recorder.paused = True
        try:
            self.check()
            rows = sum(len(t) for t in seen[("final", WHOLE)])
            targets = list(token_ids[self.rows + 1 : self.rows + rows + 1])
            drawn = {name: _to_numpy(t) for name, t in self._statistics(seen, targets).items()}
            attention, keys = self._attention(seen)
            found = {name: _to_numpy(t) for name, t in (self._router(seen) | self._residual(seen) | attention).items()}
        finally:
            self.recorder.paused = False
        ids = np.asarray(token_ids[self.rows : self.rows + rows], dtype=np.int32)
        here, after = self._align(drawn, rows)
        chunk = {"token_ids": ids, **here, **{n: a for n, a in found.items() if n in self.wanted}}
        self.recorder.take()
        self._keys, self._drawn = keys, after
        self.rows += rows
        for name, array in chunk.items():
            self._chunks.setdefault(name, []).append(array)
        if self.on_rows is not None:
            self.on_rows(chunk)

    def _align(
        self, drawn: dict[str, NDArray[Any]], rows: int
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Put what describes the draw of token i at i; return it for these rows, and what belongs to the next."""
        whole = {}
        for name, values in drawn.items():
            before = self._drawn.get(name)
            if before is None:
                # Nothing precedes the first token: NaN, and -1 for an id.
                nothing = np.nan if values.dtype.kind == "f" else -1
                before = np.full((1, *values.shape[1:]), nothing, dtype=values.dtype)
            whole[name] = np.concatenate([before, values])
        if not drawn:
            whole = self._drawn
        return {n: a[:rows] for n, a in whole.items()}, {n: a[rows:] for n, a in whole.items()}

    def check(self) -> None:
        """Raise `ModelError` if the model computed NaN or infinity since the last flush.

        Weights of one token or one expert can be damaged where the self-check with another token passed.
        """
        seen = self.recorder.seen.get(("final", WHOLE))
        if seen and not bool(torch.isfinite(final := torch.cat(seen)).all()):
            raise not_finite(self.model, f"{FINAL} for a token from {self.rows} to {self.rows + len(final) - 1}")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the collected arrays with the dims and dtypes of a trace, and let go of the parts."""
        found: dict[str, NDArray[Any]] = {}
        while self._chunks:
            name, chunks = self._chunks.popitem()
            found[name] = np.concatenate(chunks, axis=DIMS[name].index("token"))
        return found | self.sink_logits()

    def sink_logits(self) -> dict[str, NDArray[Any]]:
        """Return ``sink_logits`` [layer, head] of the layers captured; nothing in families without sinks."""
        sinks = [self.model.sink_logits(layer) for layer in self.plan.attention]
        found = [_to_numpy(s) for s in sinks if s is not None]
        return {"sink_logits": np.stack(found)} if found else {}

    def _router(self, seen: dict[Key, list[Tensor]]) -> dict[str, Tensor]:
        layers = self.plan.router
        if not layers:
            return {}
        names = ("router_logits", "expert_indices", "expert_weights")
        found = {name: torch.stack([torch.cat(seen[(name, i)]) for i in layers], dim=1) for name in names}
        if not self.model.family.ranked:
            weights, order = found["expert_weights"].sort(dim=-1, descending=True, stable=True)
            found |= {"expert_weights": weights, "expert_indices": found["expert_indices"].gather(-1, order)}
        small = self.model.num_experts <= 256
        found["expert_indices"] = found["expert_indices"].to(torch.uint8 if small else torch.uint16)
        return found

    def _statistics(self, seen: dict[Key, list[Tensor]], targets: list[int]) -> dict[str, Tensor]:
        """Describe the distribution after each row that a token was drawn from: one entry per target."""
        parts: list[dict[str, Tensor]] = []
        done = 0
        for logits in self._logits(seen):
            chosen = targets[done : done + len(logits)]
            if chosen:
                parts.append(self._describe(logits[: len(chosen)].float(), chosen))
            done += len(logits)
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]} if parts else {}

    def _describe(self, logits: Tensor, chosen: list[int]) -> dict[str, Tensor]:
        logprobs = torch.log_softmax(logits, dim=-1)
        target = torch.tensor(chosen, device=logprobs.device)[:, None]
        top, top_ids = logprobs.topk(self.spec.top, dim=-1)
        return {
            "logprobs": logprobs.gather(1, target)[:, 0],
            "entropy": torch.special.entr(logprobs.exp()).sum(-1),
            "top_logprobs": top.half(),
            "top_token_ids": top_ids.int(),
        }

    def _logits(self, seen: dict[Key, list[Tensor]]) -> Iterator[Tensor]:
        """Yield logits [row, vocabulary] in blocks: the model's own where it made them, else unembedded here.

        Generation makes only the last row's logits when it reads the prompt.
        """
        head = self.model.hf.get_submodule(self.model.family.unembed)
        for final, own in zip(seen[("final", WHOLE)], seen[("logits", WHOLE)], strict=True):
            for rows in torch.split(final[: len(final) - len(own)], self._block(own.shape[-1])):
                yield head(rows)
            yield own

    def _residual(self, seen: dict[Key, list[Tensor]]) -> dict[str, Tensor]:
        if not self.plan.residual:
            return {}
        residual = torch.stack([torch.cat(seen[("residual", i)]) for i in self.plan.residual], dim=1)
        found = {"residual": residual}
        if "lens_token_ids" in self.wanted:
            found |= self._lens(residual)
        return found

    def _lens(self, residual: Tensor) -> dict[str, Tensor]:
        """Read every layer's residual [row, layer, d_model] as a prediction of the next token."""
        block = self._block(residual.shape[1] * int(self.model.config.vocab_size))
        tops = [
            torch.log_softmax(self.model.unembed(rows).float(), dim=-1).topk(self.spec.lens_top, dim=-1)
            for rows in torch.split(residual, block)
        ]
        logprobs, ids = torch.cat([t.values for t in tops]), torch.cat([t.indices for t in tops])
        return {"lens_token_ids": ids.int(), "lens_logprobs": logprobs.half()}

    def _attention(self, seen: dict[Key, list[Tensor]]) -> tuple[dict[str, Tensor], dict[int, Tensor]]:
        """Rotate queries and keys as the model does; return them with each row's log-sum-exp, and the keys to keep."""
        if not self.plan.attention:
            return {}, {}
        model = self.model
        cos, sin = (torch.cat(seen[(name, WHOLE)])[None] for name in ("rotary_cos", "rotary_sin"))
        rotate = _rotary_function(model)
        queries, keys, sums, kept = [], [], [], {}
        for layer in self.plan.attention:
            q = torch.cat(seen[("queries", layer)]).view(1, -1, model.num_heads, model.d_head).transpose(1, 2)
            k = torch.cat(seen[("keys", layer)]).view(1, -1, model.num_kv_heads, model.d_head).transpose(1, 2)
            q, k = (x[0] for x in rotate(q, k, cos, sin))
            past = torch.cat([self._keys[layer], k], dim=1) if layer in self._keys else k
            window = model.windows[layer]
            sums.append(row_logsumexp(q, past, model.sink_logits(layer), scale=model.attention_scale, window=window))
            queries.append(q)
            keys.append(k)
            kept[layer] = past if window is None else past[:, max(0, past.shape[1] - window + 1) :]
        found = {
            "queries": torch.stack(queries),
            "keys": torch.stack(keys),
            "attention_logsumexp": torch.stack(sums, dim=1),
        }
        return found, kept

    def _block(self, row_numbers: int) -> int:
        return max(1, LOGITS_BLOCK_BYTES // (4 * row_numbers))


def row_logsumexp(q: Tensor, k: Tensor, sinks: Tensor | None, *, scale: float, window: int | None) -> Tensor:
    """Return the log-sum-exp of each row's attention scores, sink included, in float32.

    Args:
        q: [head, row, d_head], the last rows of the sequence.
        k: [kv_head, key, d_head], ending at the last row; in a sliding layer the keys before the window may be gone.
        sinks: [head] or None.
        scale: factor of the scores.
        window: tokens a row sees, itself included; None = all before it.

    Returns:
        [row, head], so that a weight is ``exp(score - logsumexp)``.
    """
    num_rows, num_keys, group = q.shape[1], k.shape[1], q.shape[0] // k.shape[0]
    position = torch.arange(num_keys, device=q.device)
    distance = position[num_keys - num_rows :, None] - position
    hidden = (distance < 0) if window is None else (distance < 0) | (distance >= window)
    sums = []
    for kv_head in range(k.shape[0]):
        heads = slice(kv_head * group, (kv_head + 1) * group)
        scores = (q[heads].float() @ k[kv_head].float().T) * scale
        scores.masked_fill_(hidden, -torch.inf)
        if sinks is not None:
            sink = sinks[heads].float()[:, None, None].expand(-1, num_rows, 1)
            scores = torch.cat([scores, sink], dim=-1)
        sums.append(scores.logsumexp(-1))
    return torch.cat(sums).T.contiguous()


def _rotary_function(model: Model) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the modelling file's own ``apply_rotary_pos_emb``, so that the convention is the model's."""
    rotate: Callable[..., tuple[Tensor, Tensor]] = sys.modules[
        type(model.attention(0)).__module__
    ].apply_rotary_pos_emb
    return rotate


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Copy to numpy in the tensor's own dtype; bfloat16 comes from ml_dtypes."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()

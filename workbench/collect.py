"""Turn what the hooks saw into the arrays of a trace, a stretch of rows at a time, beside the model that generates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workbench.derive import Past, derive
from workbench.hooks import FINAL, WHOLE, Forward, Recorder, not_finite, rows_of
from workbench.model import Model
from workbench.ring import STRETCH_ROWS, Ring, Stretch
from workbench.spec import CaptureSpec
from workbench.trace import DIMS

__all__ = ["Collector", "to_numpy"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Progress:
    """How far collection is. One assignment replaces it as a whole, so an interrupt finds the old or the new."""

    forward: int = 0
    """number of the last forward whose rows are all in a stretch"""
    offset: int = 0
    """rows of the forward after it that are in a stretch"""
    stretch: Stretch | None = None
    """the open one"""
    filled: int = 0
    """rows in it"""
    pending: Stretch | None = None
    """on its way to the host, and not yet known to be given to the writer"""
    given: int = 0
    """rows in stretches before the open one"""
    past: Past = field(default_factory=dict)


class Collector:
    """Collects rows, one per token read, from a `Recorder`; used as a context.

    An interrupt anywhere inside is harmless: what was half done is done again, with the same result.

    Args:
        model: whose hooks these are.
        spec: what to build.
        recorder: where the hooks keep their references.
        total: how many rows there will be, where that is known: their place is then made once, not joined at the end.
    """

    def __init__(self, model: Model, spec: CaptureSpec, recorder: Recorder, total: int | None = None) -> None:
        """Start with no rows."""
        self.model, self.spec, self.recorder = model, spec, recorder
        self.plan, self.wanted = spec.plan(model), spec.wanted()
        self.rows = 0
        """rows the writer has taken off the device"""
        self.on_rows: Callable[[Arrays], None] | None = None
        """told the arrays of each stretch, ``token_ids`` among them, in the writer thread"""
        self._points = self.plan.points()
        devices = getattr(model.hf, "hf_device_map", None) or {}
        self._is_spread = len(set(devices.values())) > 1
        self._at = _Progress()
        self._ring = Ring(model.device, self._receive, rows=STRETCH_ROWS)
        self._total = total
        self._chunks: dict[str, list[NDArray[Any]]] = {}
        self._drawn: Arrays = {}

    def __enter__(self) -> Self:
        """Start the writer thread."""
        self._ring.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        """Wait for what is on its way; report the writer's failure unless something else is being reported."""
        self._ring.close(quietly=kind is not None)

    def collect(self, token_ids: Sequence[int]) -> None:
        """Store the rows of every completed forward, and hand full stretches to the writer.

        Args:
            token_ids: the sequence so far; it must reach one past the last row read, except at the very end.

        Raises:
            ModelError: the model computed NaN or infinity.
            TraceError: rows could not be written.
        """
        self._give_pending()
        for number, seen in list(self.recorder.forwards.items()):
            if number > self._at.forward:
                self._store(number, seen, token_ids)
            self.recorder.forwards.pop(number, None)

    def finish(self, token_ids: Sequence[int]) -> None:
        """Collect all that is left and wait until it is written. Raises as `collect`."""
        self.collect(token_ids)
        if self._at.filled:
            self._hand_over(token_ids)
        self._ring.close()

    def _store(self, number: int, seen: Forward, token_ids: Sequence[int]) -> None:
        rows = len(rows_of(seen, "final"))
        while True:
            if self._at.filled == STRETCH_ROWS:
                self._hand_over(token_ids)
            at = self._at
            if at.offset == rows:
                break
            count = min(rows - at.offset, STRETCH_ROWS - at.filled)
            self._fill(seen, slice(at.offset, at.offset + count), at.filled)
            self._at = replace(self._at, offset=at.offset + count, filled=at.filled + count)
        self._at = replace(self._at, forward=number, offset=0)

    def _fill(self, seen: Forward, rows: slice, place: int) -> None:
        """Copy rows of a forward into the open stretch: one stack per hook point."""
        stretch = self._at.stretch or self._ring.take()
        self._at = replace(self._at, stretch=stretch)
        count = rows.stop - rows.start
        for point, layers in self._points.items():
            tensors = [self._logits(seen, rows)] if point == "logits" else [rows_of(seen, point, i) for i in layers]
            if len(tensors[0]) != count:
                tensors = [tensor[rows] for tensor in tensors]
            first = tensors[0]
            shape = first.shape[1:] if layers == (WHOLE,) else (len(layers), *first.shape[1:])
            self._stack(tensors, stretch.rows(point, place, count, shape, first.dtype))

    def _stack(self, tensors: list[Tensor], buffer: Tensor) -> None:
        """Copy [row, width] of each layer into [row, layer, width], or of the whole model into [row, width]."""
        if self._is_spread:
            tensors = [tensor.to(buffer.device, non_blocking=True) for tensor in tensors]
        if buffer.ndim == 2:
            buffer.copy_(tensors[0])
        elif len(buffer) == 1:  # a decode step; this way is twice as quick
            torch.cat(tensors, out=buffer[0])
        else:
            torch.stack(tensors, dim=1, out=buffer)

    def _logits(self, seen: Forward, rows: slice) -> Tensor:
        """Return logits [row, vocabulary]: the model's own where it made them, else unembedded here.

        Generation makes only the last row's logits when it reads the prompt.
        """
        final, own = rows_of(seen, "final"), rows_of(seen, "logits")
        made = len(final) - len(own)
        parts = [own[max(rows.start - made, 0) : max(rows.stop - made, 0)]]
        if rows.start < made:
            with self.recorder.pause():
                head = self.model.hf.get_submodule(self.model.family.unembed)
                parts.insert(0, head(final[rows.start : min(rows.stop, made)]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _hand_over(self, token_ids: Sequence[int]) -> None:
        """Derive the arrays of the open stretch and give it to the writer."""
        at = self._at
        stretch = at.stretch
        assert stretch is not None
        stop = at.given + at.filled
        seen = {name: buffer[: at.filled] for name, buffer in stretch.seen.items()}
        with self.recorder.pause():
            arrays, past = derive(self.model, self.spec, self.plan, seen, token_ids[at.given + 1 : stop + 1], at.past)
        arrays = {name: tensor for name, tensor in arrays.items() if name in self.wanted}
        arrays["token_ids"] = torch.tensor(token_ids[at.given : stop], dtype=torch.int32)
        arrays["finite"] = torch.isfinite(seen["final"]).all(dim=-1)
        stretch.start, stretch.length = at.given, at.filled
        stretch.send({name: tensor.movedim(_row_dim(name), 0) for name, tensor in arrays.items()})
        self._at = replace(at, stretch=None, pending=stretch, filled=0, given=stop, past=past)
        self._give_pending()

    def _give_pending(self) -> None:
        if self._at.pending is not None:
            self._ring.give(self._at.pending)
            self._at = replace(self._at, pending=None)

    def _receive(self, stretch: Stretch) -> None:
        """Take a stretch off the device; in the writer thread."""
        rows = {n: np.moveaxis(to_numpy(tensor), 0, _row_dim(n)) for n, tensor in stretch.receive().items()}
        self._check_finite(rows.pop("finite"), stretch.start)
        chunk = self._align(rows, stretch.length)
        for name, array in chunk.items():
            self._keep(name, array)
        self.rows += stretch.length
        if self.on_rows is not None:
            self.on_rows(chunk)

    def _check_finite(self, finite: NDArray[np.bool_], start: int) -> None:
        """Raise `ModelError` where the model computed NaN or infinity.

        Weights of one token or one expert can be damaged where the self-check with another token passed.
        """
        if not finite.all():
            raise not_finite(self.model, f"{FINAL} for token {start + int(finite.argmin())}")

    def _align(self, rows: Arrays, length: int) -> Arrays:
        """Put what describes the draw of token i at i; keep what belongs to the first row of the next stretch."""
        after: Arrays = {}
        for name in DRAWN:
            values = rows[name]
            before = self._drawn.get(name)
            if before is None:
                # Nothing precedes the first token: NaN, and -1 for an id.
                nothing = np.nan if values.dtype.kind == "f" else -1
                before = np.full((1, *values.shape[1:]), nothing, dtype=values.dtype)
            whole = np.concatenate([before, values])
            rows[name], after[name] = whole[:length], whole[length:]
        self._drawn = after
        return rows

    def _keep(self, name: str, array: NDArray[Any]) -> None:
        """Copy rows out of a stretch, which is filled again."""
        chunks, dim = self._chunks.setdefault(name, []), _row_dim(name)
        if self._total is None:
            chunks.append(array.copy())
            return
        if not chunks:
            chunks.append(np.empty((*array.shape[:dim], self._total, *array.shape[dim + 1 :]), array.dtype))
        rows = (*[slice(None)] * dim, slice(self.rows, self.rows + array.shape[dim]))
        chunks[0][rows] = array

    def arrays(self) -> Arrays:
        """Return the collected arrays with the dims and dtypes of a trace, and let go of the parts."""
        found: Arrays = {}
        while self._chunks:
            name, chunks = self._chunks.popitem()
            whole = chunks[0] if self._total is not None else np.concatenate(chunks, axis=_row_dim(name))
            found[name] = whole[(*[slice(None)] * _row_dim(name), slice(self.rows))]
        return found | self.sink_logits()

    def sink_logits(self) -> Arrays:
        """Return ``sink_logits`` [layer, head] of the layers captured; nothing in families without sinks."""
        sinks = [self.model.sink_logits(layer) for layer in self.plan.attention]
        found = [to_numpy(s) for s in sinks if s is not None]
        return {"sink_logits": np.stack(found)} if found else {}


DRAWN = ("logprobs", "entropy", "top_logprobs", "top_token_ids")
"""Arrays that describe the distribution a token was drawn from, made by the row before it."""


def _row_dim(name: str) -> int:
    return DIMS[name].index("token") if name in DIMS else 0


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Copy to numpy in the tensor's own dtype; bfloat16 comes from ml_dtypes."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()

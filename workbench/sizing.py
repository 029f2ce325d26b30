"""What a capture takes: bytes of weights, KV cache and every captured array, from the configuration alone."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import psutil
import torch

from workbench.families import ModelError, family_of
from workbench.loading import published_config
from workbench.model import Model
from workbench.ring import STRETCH_ROWS, STRETCHES
from workbench.rollout import READ_CHUNK
from workbench.spec import CaptureSpec

__all__ = ["Estimate", "capture_bytes", "check_room", "estimate", "free_device_memory"]

MXFP4_BITS = 4.25
"""4-bit values and an 8-bit scale for every 32 of them (OCP Microscaling v1.0)."""


@dataclass(frozen=True)
class Estimate:
    """Bytes, for one rollout of ``tokens`` tokens, prompt included.

    Attributes:
        name: of the model.
        tokens: how long the rollout is.
        weights: on the device.
        kv_cache: on the device; sliding layers keep their window only.
        in_flight: on the device: what the hooks hold of one forward, stretches of rows on their way to the host, and
            keys kept for the log-sum-exp.
        arrays: array name → bytes in host memory, and in the file.
        device_memory: what was given to compare with, or None.
    """

    name: str
    tokens: int
    weights: int
    kv_cache: int
    in_flight: int
    arrays: dict[str, int]
    device_memory: int | None = None

    @property
    def on_device(self) -> int:
        """Weights, KV cache and what the capture holds there; activations of the forward come on top."""
        return self.weights + self.kv_cache + self.in_flight

    @property
    def on_host(self) -> int:
        """All captured arrays."""
        return sum(self.arrays.values())

    @property
    def fits(self) -> bool | None:
        """Whether the device holds it; None when its memory was not given."""
        return None if self.device_memory is None else self.on_device <= self.device_memory

    def __str__(self) -> str:
        """Write a table."""
        device = {"weights": self.weights, "KV cache": self.kv_cache, "capture in flight": self.in_flight}
        lines = [f"{self.name}, one rollout of {self.tokens:,} tokens"]
        lines += ["on the device", *_rows(device), *_rows({"sum": self.on_device})]
        if self.device_memory is not None:
            verdict = "fits in" if self.fits else "does NOT fit in"
            lines.append(f"  {verdict} {size(self.device_memory)}")
        per_token = {f"{name}": count for name, count in self.arrays.items()}
        lines += ["captured, in host memory and in the file", *_rows(per_token, self.tokens)]
        return "\n".join([*lines, *_rows({"sum": self.on_host}, self.tokens)])


def estimate(
    model: Model | str | Any,
    tokens: int,
    *,
    capture: CaptureSpec | None = None,
    device_memory: int | None = None,
) -> Estimate:
    """Estimate the bytes of capturing one rollout.

    Args:
        model: a loaded model, a transformers config, ``"openai/gpt-oss-20b"`` or ``"openai/gpt-oss-120b"`` (known
            without a download), or what `load` takes.
        tokens: prompt and completion.
        capture: what would be captured; default: what `capture` records by default.
        device_memory: bytes of the GPU, to say whether it fits.

    Raises:
        ModelError: unknown model, or fewer than one token.
    """
    if tokens < 1:
        raise ModelError(f"expected at least 1 token, got {tokens}")
    shape = model if isinstance(model, Model) else _on_meta(model)
    spec = capture or CaptureSpec()
    return Estimate(
        name=shape.name,
        tokens=tokens,
        weights=_weight_bytes(shape),
        kv_cache=_kv_bytes(shape, tokens),
        in_flight=_in_flight_bytes(shape, spec, tokens),
        arrays=capture_bytes(shape, spec, tokens),
        device_memory=device_memory,
    )


def capture_bytes(model: Model, spec: CaptureSpec, tokens: int) -> dict[str, int]:
    """Return array name → bytes of a trace of ``tokens`` tokens, without its vocabulary and header."""
    plan, item = spec.plan(model), model.item_size
    router, attention, residual = len(plan.router), len(plan.attention), len(plan.residual)
    index = 1 if model.num_experts <= 256 else 2
    per_token = {
        "token_ids": 4,
        "logprobs": 4,
        "entropy": 4,
        "top_token_ids": 4 * spec.top,
        "top_logprobs": 2 * spec.top,
        "expert_indices": router * model.top_k * index,
        "expert_weights": router * model.top_k * item,
        "router_logits": router * model.num_experts * item,
        "queries": attention * model.num_heads * model.d_head * item,
        "keys": attention * model.num_kv_heads * model.d_head * item,
        "attention_logsumexp": attention * model.num_heads * 4,
        "lens_token_ids": residual * spec.lens_top * 4,
        "lens_logprobs": residual * spec.lens_top * 2,
        "residual": residual * model.d_model * item,
    }
    wanted = spec.wanted() | {"token_ids"}
    return {name: tokens * count for name, count in per_token.items() if name in wanted and count}


def check_room(
    model: Model, spec: CaptureSpec, tokens: int, path: str | PathLike[str] | None = None, *, rollouts: int = 1
) -> None:
    """Refuse a capture that the device, host memory or the disk does not hold.

    Args:
        model: to capture.
        spec: what to capture.
        tokens: prompt and completion.
        path: where the trace will be saved, or None. While it is saved, its shards are still there: twice the bytes.
        rollouts: generated at once, each of so many tokens.

    Raises:
        ModelError: with what is needed, what is free, and what to drop.
    """
    arrays = capture_bytes(model, spec, tokens)
    # Stretches are joined one array after another; those on their way lie in memory of their own.
    on_the_way = STRETCHES * sum(capture_bytes(model, spec, min(tokens, STRETCH_ROWS)).values())
    host = rollouts * (sum(arrays.values()) + on_the_way) + max(arrays.values())
    needs = [("host memory", host, psutil.virtual_memory().available)]
    if path is not None:
        needs.append((f"the disk of {path}", 2 * sum(arrays.values()), _free_disk(path)))
    if (free := free_device_memory(model.device)) is not None:
        beside_weights = rollouts * (_kv_bytes(model, tokens) + _in_flight_bytes(model, spec, tokens))
        needs.append((f"the memory of {model.device}", beside_weights, free))
    each, or_batch = (f" of each of {rollouts} rollouts", " or the batch size") if rollouts > 1 else ("", "")
    for where, need, there in needs:
        if need > there:
            largest = sorted(arrays, key=arrays.__getitem__, reverse=True)[:3]
            raise ModelError(
                f"capturing {tokens:,} tokens{each} would take {size(need)} of {where}, {size(there)} are free. "
                "Largest: "
                + ", ".join(f"{name} {size(rollouts * arrays[name])}" for name in largest)
                + f". Lower max_new_tokens{or_batch}, or capture fewer layers, e.g. "
                "capture=CaptureSpec(attention=[0])."
            )


def free_device_memory(device: torch.device) -> int | None:
    """Return the bytes an accelerator can still give, cached ones included; None for the CPU."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + cached)


def _free_disk(path: str | PathLike[str]) -> int:
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size(count: float) -> str:
    """Write bytes in decimal units: ``19.2 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count:,.0f} GB"


def _on_meta(model: Any) -> Model:
    """Build the model without memory for its weights."""
    from transformers import AutoModelForCausalLM

    name = model if isinstance(model, str) else type(model).__name__
    config = published_config(model) if isinstance(model, str) else model
    family = family_of(config)
    with torch.device("meta"):
        hf: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    return Model(hf, None, family, name)


def _weight_bytes(model: Model) -> int:
    quantised = _is_mxfp4(model.config) and model.device.type == "meta"
    return sum(
        int(p.numel() * (MXFP4_BITS / 8 if quantised and name.endswith(EXPERT_MATRICES) else p.element_size()))
        for name, p in model.hf.named_parameters()
    )


EXPERT_MATRICES = ("experts.gate_up_proj", "experts.down_proj")


def _is_mxfp4(config: Any) -> bool:
    quantization: Any = getattr(config, "quantization_config", None) or {}
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
    return str(method).endswith("mxfp4")


def _kv_bytes(model: Model, tokens: int) -> int:
    row = 2 * model.num_kv_heads * model.d_head * model.item_size
    return row * sum(_kept(model.windows, tokens))


def _in_flight_bytes(model: Model, spec: CaptureSpec, tokens: int) -> int:
    """Return the bytes of what one forward shows, of all stretches, of describing one, and of the keys kept."""
    plan, item, rows = spec.plan(model), model.item_size, min(tokens, STRETCH_ROWS)
    logits = int(model.config.vocab_size)
    read = len(plan.router) * (model.top_k * (8 + item) + model.num_experts * item)
    read += len(plan.attention) * (model.num_heads + model.num_kv_heads) * model.d_head * item
    read += (len(plan.residual) + 1) * model.d_model * item
    held = min(tokens, READ_CHUNK) * read
    read += logits * item
    made = sum(capture_bytes(model, spec, 1).values())
    softmax = 3 * 4 * logits  # float32 log-probabilities, probabilities and entropy terms of one stretch
    keys = model.num_kv_heads * model.d_head * item
    kept = keys * sum(_kept([model.windows[i] for i in plan.attention], tokens))
    return held + STRETCHES * rows * (read + made) + rows * softmax + kept


def _kept(windows: Iterable[int | None], tokens: int) -> list[int]:
    return [tokens if window is None else min(tokens, window) for window in windows]


def _rows(bytes_by_name: dict[str, int], tokens: int | None = None) -> list[str]:
    return [
        f"  {name:<22}{size(count):>10}" + ("" if tokens is None else f"{count / tokens:>14,.0f} B/token")
        for name, count in bytes_by_name.items()
    ]

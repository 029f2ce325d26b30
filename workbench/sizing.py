"""What a capture takes: bytes of weights, KV cache and every captured array, from the configuration alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from workbench.families import ModelError, family_of
from workbench.model import Model, published_config
from workbench.rollout import FLUSH_EVERY
from workbench.spec import CaptureSpec

__all__ = ["Estimate", "capture_bytes", "check_memory", "estimate"]

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
        in_flight: on the device: what the hooks hold between two collections, and the keys kept for the log-sum-exp.
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


def check_memory(model: Model, spec: CaptureSpec, tokens: int) -> None:
    """Refuse a capture that host memory does not hold. Raises `ModelError` with the numbers and what to drop."""
    arrays = capture_bytes(model, spec, tokens)
    need, free = sum(arrays.values()), psutil.virtual_memory().available
    if need <= free:
        return
    largest = sorted(arrays, key=arrays.__getitem__, reverse=True)[:3]
    raise ModelError(
        f"capturing {tokens:,} tokens would take {size(need)} of host memory, {size(free)} are free. Largest: "
        + ", ".join(f"{name} {size(arrays[name])}" for name in largest)
        + ". Lower max_new_tokens, or capture fewer layers, e.g. capture=CaptureSpec(attention=[0])."
    )


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
    plan = spec.plan(model)
    one_flush = sum(capture_bytes(model, spec, min(tokens, FLUSH_EVERY)).values())
    logits = min(tokens, FLUSH_EVERY) * int(model.config.vocab_size) * model.item_size
    keys = model.num_kv_heads * model.d_head * model.item_size
    return one_flush + logits + keys * sum(_kept([model.windows[i] for i in plan.attention], tokens))


def _kept(windows: Iterable[int | None], tokens: int) -> list[int]:
    return [tokens if window is None else min(tokens, window) for window in windows]


def _rows(bytes_by_name: dict[str, int], tokens: int | None = None) -> list[str]:
    return [
        f"  {name:<22}{size(count):>10}" + ("" if tokens is None else f"{count / tokens:>14,.0f} B/token")
        for name, count in bytes_by_name.items()
    ]

"""A model that is resident elsewhere: what a forward of it shows and what it generates, through nnsight.

Nothing is sent before a capture, a replay or an experiment asks for it. What is sent then are the token ids, the
source of `workbench.remote_job` and, for an experiment, of its changes. ``"local"`` goes the same way inside this
process: the job is packed, unpacked where our own modules are hidden, and run on weights that are here.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationConfig

from workbench import remote_job
from workbench.addresses import check_remote
from workbench.assemble import assemble, describe
from workbench.collect import Collector, to_numpy
from workbench.derive import attend, rank_experts
from workbench.families import ModelError
from workbench.hooks import HookPlan, Recorder
from workbench.model import Model
from workbench.sizing import capture_bytes
from workbench.spec import CaptureSpec
from workbench.trace import Trace

__all__ = ["Place", "capture", "comparison", "host_of", "place_of", "replay"]

KEY_VARIABLE, HOST_VARIABLE, HOST = "NDIF_API_KEY", "NDIF_HOST", "https://api.ndif.us"

SPARE_BYTES = 64 << 20
"""of a reply, above the arrays that were asked for"""


class RemoteCollector(Collector):
    """Holds what one forward elsewhere showed, as if it had been collected here."""

    def __init__(self, model: Model, spec: CaptureSpec) -> None:
        """Start with no rows."""
        super().__init__(model, spec, Recorder(seams={"router": "nnsight"} if spec.plan(model).router else {}))
        self.dtype = ""
        """of the activations there"""
        self._sinks: dict[str, NDArray[Any]] = {}

    def read(self, token_ids: Sequence[int]) -> None:
        """Have the whole sequence read in one forward, and keep what is sent back.

        Raises:
            ModelError: no key, no such model, no connection, a job that failed, or a reply that is not what was asked.
        """
        job = job_of(self.model, self.plan, token_ids, self.spec)
        size = sum(capture_bytes(self.model, self.spec, len(token_ids)).values())
        shown = _run(self.model, _read, job, 4 * size + SPARE_BYTES, token_ids)
        self.dtype = str(shown.pop("dtype", "")).removeprefix("torch.")
        _check_shapes(self.model, self.spec, self.plan, shown, len(token_ids))
        sinks = shown.pop("sink_logits", None)
        self._sinks = {} if sinks is None else {"sink_logits": to_numpy(sinks)}
        self._check_finite(to_numpy(shown.pop("finite")), 0)
        arrays = self._derived(shown, sinks) | {"token_ids": torch.tensor(token_ids, dtype=torch.int32)}
        rows = self._align({name: to_numpy(tensor) for name, tensor in arrays.items()}, len(token_ids))
        for name, array in rows.items():
            self._keep(name, array)
        self.rows = len(token_ids)

    def sink_logits(self) -> dict[str, NDArray[Any]]:
        """Return ``sink_logits`` [layer, head] as they were sent; nothing in families without sinks."""
        return self._sinks

    def _derived(self, shown: Mapping[str, Tensor], sinks: Tensor | None) -> dict[str, Tensor]:
        found = dict(shown)
        if self.plan.router:
            found |= rank_experts(self.model, shown)
        if self.plan.attention:
            each = [None] * len(self.plan.attention) if sinks is None else list(sinks)
            found |= attend(self.model, self.plan, shown, each, {})[0]
        return {name: tensor for name, tensor in found.items() if name in self.wanted}


def replay(
    model: Model, spec: CaptureSpec, token_ids: Sequence[int], num_prompt_tokens: int, facts: Mapping[str, Any]
) -> Trace:
    """Have a finished sequence read where the model is; arguments and errors as of `workbench.replay`."""
    started = time.monotonic()
    collector = RemoteCollector(model, spec)
    collector.read(token_ids)
    meta = describe(collector, num_prompt_tokens, "replay", {**facts, "seconds": time.monotonic() - started})
    meta["provenance"] |= _stamp(model, collector.dtype)
    return assemble(collector, meta)


def capture(
    model: Model,
    spec: CaptureSpec,
    token_ids: Sequence[int],
    num_prompt_tokens: int,
    source: str,
    facts: Mapping[str, Any],
) -> Trace:
    """Have known tokens continued where the model is, then read there: while it generates nothing is recorded.

    ``source`` says which of the token ids the model drew.
    """
    started, sampling = time.monotonic(), facts["sampling"]
    limit = sampling["max_new_tokens"]
    ids = _generated(model, token_ids, limit, sampling["temperature"], sampling["seed"])
    trace = replay(model, spec, ids, num_prompt_tokens, facts)
    new = len(ids) - len(token_ids)
    cut = f"cut at {new} tokens" if new >= limit and ids[-1] not in model.end_token_ids else None
    meta = {**trace.meta, "truncated": cut, "sources": {**trace.meta["sources"], "token_ids": source}}
    meta["provenance"] = {**trace.provenance, "seconds": time.monotonic() - started}
    return Trace(trace.arrays, trace.spans, meta)


def _generated(model: Model, token_ids: Sequence[int], limit: int, temperature: float, seed: int) -> list[int]:
    """Have known tokens continued; return the whole sequence. Raises `ModelError` as `RemoteCollector.read`."""
    ends = model.end_token_ids
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        **sampling,
        max_new_tokens=limit,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        disable_compile=True,
    )
    job = job_of(model, HookPlan(), token_ids, new=limit) | {
        "config": config,
        "seed": seed,
        "num_known": len(token_ids),
    }
    found = _run(model, _generate_changed if model.interventions else _generate, job, SPARE_BYTES, token_ids)
    pieces = found.get("token_ids")
    most = len(token_ids) + limit
    # An expanded tensor takes few bytes on the way and any number of rows here.
    if not isinstance(pieces, list) or not all(map(_holds_ids, pieces)) or sum(p.numel() for p in pieces) > 2 * most:
        raise ModelError(f"{host_of(model)} answered without the tokens that were asked for")
    ids = [int(i) for piece in pieces for i in piece.flatten()][:most]
    known = all(0 <= i < int(model.config.vocab_size) for i in ids)
    if not known or ids[: len(token_ids)] != list(token_ids) or len(ids) == len(token_ids):
        raise ModelError(f"{host_of(model)} answered with something else than a continuation of what it was sent")
    return ids


def _holds_ids(piece: Any) -> bool:
    return isinstance(piece, Tensor) and piece.layout is torch.strided and piece.dtype in (torch.int32, torch.int64)


def comparison(model: Model, token_ids: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Have a sequence read twice, unchanged and changed, in one job; see `workbench.remote_job.compare`."""
    job = job_of(model, HookPlan(router=model.router_layers), token_ids)
    size = 64 * len(token_ids) * (len(model.router_layers) * model.top_k + 1)
    found = _run(model, _compare, job, size + SPARE_BYTES, token_ids)
    shape = (len(token_ids), len(model.router_layers), model.top_k)
    expected = {"kl": shape[:1], **({"before": shape, "after": shape} if model.router_layers else {})}
    _check(model, found, expected)
    return {name: to_numpy(tensor) for name, tensor in found.items()}


def _stamp(model: Model, dtype: str) -> dict[str, Any]:
    """Return what the provenance of a trace from elsewhere says of the model there, and where that is."""
    return {
        "device": "remote",
        "dtype": dtype,
        "experts_implementation": None,
        "remote": {"host": host_of(model), "through": f"nnsight {version('nnsight')}"},
    }


def job_of(
    model: Model, plan: HookPlan, token_ids: Sequence[int], spec: CaptureSpec | None = None, new: int = 0
) -> dict[str, Any]:
    """Return what `workbench.remote_job` is to do with tokens, and up to ``new`` more: plain values, and changes."""
    family = model.family
    names = ("layers", "router", "experts", "attended", "queries", "keys", "rotary", "norm", "unembed", "sinks")
    edits, shared = model.edits(token_ids, new) if model.edits is not None else ({}, {})
    return {
        **{name: getattr(family, name) for name in names},
        "num_layers": model.num_layers,
        "vocab_size": int(model.config.vocab_size),
        "read_routers": list(plan.router),
        "attention": list(plan.attention),
        "residual": list(plan.residual),
        "keep_residual": spec is not None and "residual" in spec.wanted(),
        "lens_top": spec.lens_top if spec is not None and "lens_token_ids" in spec.wanted() else 0,
        "top": spec.top if spec is not None else 1,
        "targets": [int(i) for i in token_ids[1:]],
        "edits": edits,
        "shared": shared,
    }


Place = tuple[int, str]
"""A layer, and where in it something is changed: attended, router, experts or layer."""


def place_of(model: Model, module: nn.Module, where: str) -> Place:
    """Return the place of a module at which a job can change it. Raises `ModelError` for any other."""
    family = model.family
    for number, layer in enumerate(model.layers):
        parts = {"attended": family.attended, "router": family.router, "experts": family.experts, "layer": ""}
        for point, path in parts.items():
            if path is not None and _part(layer, path) is module:
                return number, point
    raise ModelError(
        f"{where} cannot be changed in a model that runs elsewhere; routers, experts, heads and layers can"
    )


def _part(layer: nn.Module, path: str) -> nn.Module | None:
    try:
        return layer.get_submodule(path)
    except AttributeError:  # a dense layer among layers with experts
        return None


Work = Callable[[Any, Any, dict[str, Any], Tensor], dict[str, Any]]


def _read(lm: Any, backend: Any, job: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    from nnsight import save

    found: dict[str, Any] = {}
    with torch.no_grad(), lm.trace(ids, use_cache=False, backend=backend):
        found = save(remote_job.trace_arrays(lm, job))
    return found  # noqa: RET504 (nnsight writes it here, when the block has run)


def _compare(lm: Any, backend: Any, job: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    from nnsight import save

    found: dict[str, Any] = {}
    unchanged = {**job, "edits": {}}
    with torch.no_grad(), lm.session(backend=backend):
        with lm.trace(ids, use_cache=False):
            before = remote_job.read_forward(lm, unchanged)
        with lm.trace(ids, use_cache=False):
            after = remote_job.read_forward(lm, job)
        found = save(remote_job.compare(before, after))
    return found  # noqa: RET504 (nnsight writes it here, when the block has run)


def _generate(lm: Any, backend: Any, job: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    from nnsight import save

    found: dict[str, Any] = {}
    config, seed = job["config"], job["seed"]
    with torch.no_grad(), lm.generate(ids, generation_config=config, backend=backend) as tracer:
        found = save({"token_ids": [remote_job.draw(tracer, seed)]})
    return found  # noqa: RET504 (nnsight writes it here, when the block has run)


def _generate_changed(lm: Any, backend: Any, job: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    from nnsight import save

    found: dict[str, Any] = {}
    config = job.pop("config")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=UserWarning)  # the loop ends with the generation, as it should
        with lm.generate(ids, generation_config=config, backend=backend) as tracer:
            found = save({"token_ids": []})
            remote_job.draw_changed(lm, tracer, job, found["token_ids"])
    return found


def _run(model: Model, work: Work, job: dict[str, Any], max_bytes: int, token_ids: Sequence[int]) -> dict[str, Any]:
    """Do a job where the model is."""
    import nnsight

    nnsight.register("workbench")  # there is none at the other end: what a job calls goes along as source
    ids = torch.tensor([list(token_ids)])
    if model.remote == "local":
        from nnsight.intervention.backends.local import LocalSimulationBackend

        return work(model.nnsight, LocalSimulationBackend(model.nnsight), job, ids.to(model.device))
    with _saying(model):
        backend = _backend(model, max_bytes)
        work(model.nnsight, backend, job, ids)
        found: Any = backend.wait().get("found")
    if not isinstance(found, dict):
        raise ModelError(f"{host_of(model)} answered without what was asked for")
    return found


def _backend(model: Model, max_bytes: int) -> Any:
    from workbench.ndif import Backend

    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ModelError(
            f"{model.name} runs on {host_of(model)}, which needs a key in the environment variable {KEY_VARIABLE}; it "
            "is not set, and nothing was sent. Keys: https://login.ndif.us."
        )
    try:
        model_key = model.nnsight.to_model_key()
    # Whatever the hub's client raises: no such repository, a name it does not take, no network.
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"{model.name!r} could not be looked up on the hub, by whose name a server knows it ({why}). Nothing was "
            f"sent to {host_of(model)}."
        ) from error
    return Backend(model_key, host_of(model), key, model.nnsight._remoteable_get_env(), max_bytes)


@contextmanager
def _saying(model: Model) -> Iterator[None]:
    """Turn what fails on the way into one error that names the host and holds no key."""
    import httpx
    from nnsight.intervention.backends.remote import RemoteError

    try:
        yield
    except ModelError:
        raise
    except (RemoteError, httpx.HTTPError, OSError, ValueError) as error:  # ValueError: a status that cannot be read
        key, why = os.environ.get(KEY_VARIABLE, "").strip(), " ".join(str(error).split())
        why = (why.replace(key, "…") if key else why)[-400:]
        raise ModelError(
            f"{model.name} did not run on {host_of(model)}: {why or type(error).__name__}. Nothing came back. Which "
            "models are resident there: print(nnsight.status()). What a server cannot show, leave out: "
            "CaptureSpec(router=False), for one."
        ) from None


def host_of(model: Model) -> str:
    """Return the address of the server that runs a model: its own, the environment's, or NDIF's."""
    if model.remote == "local":
        return "local"
    host = model.remote if isinstance(model.remote, str) else os.environ.get(HOST_VARIABLE, "").strip() or HOST
    check_remote(host)
    return host.rstrip("/")


def _check_shapes(model: Model, spec: CaptureSpec, plan: HookPlan, shown: Mapping[str, Any], tokens: int) -> None:
    """Refuse a reply whose tensors are not those that were asked for."""
    router, attention, residual = ((tokens, len(x)) for x in (plan.router, plan.attention, plan.residual))
    expected: dict[str, tuple[int, ...]] = {
        "finite": (tokens,),
        **dict.fromkeys(("logprobs", "entropy"), (tokens - 1,)),
        **dict.fromkeys(("top_token_ids", "top_logprobs"), (tokens - 1, spec.top)),
    }
    if plan.router:
        chosen = (*router, model.top_k)
        expected |= {"router_logits": (*router, model.num_experts), "expert_indices": chosen, "expert_weights": chosen}
    if plan.attention:
        expected |= {"queries": (*attention, model.num_heads * model.d_head)}
        expected |= {"keys": (*attention, model.num_kv_heads * model.d_head)}
        expected |= dict.fromkeys(("rotary_cos", "rotary_sin"), (tokens, -1))
        expected |= {"sink_logits": (len(plan.attention), model.num_heads)} if model.family.sinks else {}
    if "residual" in spec.wanted():
        expected |= {"residual": (*residual, model.d_model)}
    if "lens_token_ids" in spec.wanted():
        expected |= dict.fromkeys(("lens_token_ids", "lens_logprobs"), (*residual, spec.lens_top))
    _check(model, shown, expected)
    vocabulary = int(model.config.vocab_size)
    limits = {"expert_indices": model.num_experts, "top_token_ids": vocabulary, "lens_token_ids": vocabulary}
    for name, limit in limits.items():
        if name in expected and not _within(shown[name], limit):
            raise ModelError(f"{host_of(model)} answered with {name} that are no integers from 0 to {limit - 1}")
    if plan.attention and max(shown[name].shape[-1] for name in ("rotary_cos", "rotary_sin")) > model.d_head:
        raise ModelError(f"{host_of(model)} answered with rotary angles for more than the {model.d_head} of a head")


def _within(ids: Tensor, limit: int) -> bool:
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return False
    return not ids.numel() or (int(ids.min()) >= 0 and int(ids.max()) < limit)


def _check(model: Model, shown: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in expected.items():
        one = shown.get(name)
        got = tuple(one.shape) if isinstance(one, Tensor) and one.layout is torch.strided else None
        if (
            got is None
            or len(got) != len(shape)
            or any(want not in (-1, have) for want, have in zip(shape, got, strict=True))
        ):
            raise ModelError(
                f"{host_of(model)} answered with {name} of shape {got}, expected {shape}: the model there is not "
                f"{model.name} as it is configured here, or another nnsight runs it"
            )
    if extra := sorted(shown.keys() - expected.keys()):
        raise ModelError(f"{host_of(model)} answered with {extra[0]!r}, which was not asked for")

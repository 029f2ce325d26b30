"""Load a model: the embedded one, a local folder, a hub id, or one already in memory."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from workbench.addresses import check_remote
from workbench.families import Family, ModelError, family_of, has_router, known_families
from workbench.original_layout import is_original, original_config, original_weights
from workbench.trace import EMBEDDED_NAMES

__all__ = ["EMBEDDED", "Model", "load", "load_tokenizer"]

EMBEDDED = "tiny"
"""The name of the model that ships with the workbench."""

EMBEDDED_FOLDERS = {name: "weights" + name.removeprefix(EMBEDDED) for name in sorted(EMBEDDED_NAMES)}
"""Where its weights are, and those of its variants, which differ in one habit; see workbench/tiny/CARD.md"""

HASHED_WHOLE_BYTES = 256 << 20


@dataclass(eq=False)
class Model:
    """A resident model with its tokenizer and the facts that capture needs.

    Attributes:
        hf: the transformers model, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        family: where the router and the rest are found.
        name: what was loaded: ``tiny``, a folder, a hub id, or the class of a model given in memory.
        folder: where local weights came from; None for a hub id or a model in memory.
    """

    hf: Any
    tokenizer: Any
    family: Family
    name: str
    folder: Path | None = None
    revision: str | None = None
    interventions: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """what changes the model now, as traces made meanwhile record it; `workbench.experiments` writes it"""
    changed_from: int | None = field(default=None, repr=False)
    """where those changes take the completion to begin; None where they do not ask"""
    remote: bool | str = False
    """where it runs: here; True: on NDIF; an address: on that server; "local": here, on the way to a server"""
    edits: Callable[[Sequence[int], int], tuple[Mapping[tuple[int, str], Any], dict[Any, Any]]] | None = field(
        default=None, repr=False
    )
    """what changes one that runs elsewhere while it reads tokens and draws more; `workbench.experiments` writes it"""
    _weights_hash: str | None = field(default=None, repr=False)

    @property
    def config(self) -> Any:
        """The transformers config."""
        return self.hf.config

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers."""
        layers: nn.ModuleList = self.hf.get_submodule(self.family.layers)
        return layers

    @property
    def num_layers(self) -> int:
        """How many decoder layers there are."""
        return len(self.layers)

    @cached_property
    def router_layers(self) -> tuple[int, ...]:
        """The layers that are a mixture of experts; none in a dense model."""
        return tuple(i for i, layer in enumerate(self.layers) if has_router(self.family, layer))

    @property
    def num_experts(self) -> int:
        """Experts per layer that has a router; 0 in a dense model."""
        return int(getattr(self.config, self.family.num_experts)) if self.router_layers else 0

    @property
    def top_k(self) -> int:
        """Experts per token; 0 in a dense model."""
        return int(self.config.num_experts_per_tok) if self.router_layers else 0

    @property
    def num_heads(self) -> int:
        """Query heads per layer."""
        return int(self.config.num_attention_heads)

    @property
    def num_kv_heads(self) -> int:
        """Key and value heads per layer."""
        return int(self.config.num_key_value_heads)

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.num_heads)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.config.hidden_size)

    @property
    def item_size(self) -> int:
        """Bytes of one activation."""
        return int(self.hf.get_input_embeddings().weight.element_size())

    @property
    def attention_scale(self) -> float:
        """Factor of the attention scores, usually ``d_head ** -0.5``."""
        scale: Any = self.attention(0).scaling
        return float(scale)

    @property
    def windows(self) -> list[int | None]:
        """Tokens each layer's attention sees, itself included; None = all before it."""
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None) or ["sliding_attention"] * self.num_layers
        return [window if kind == "sliding_attention" else None for kind in kinds]

    @property
    def context_length(self) -> int:
        """The longest sequence the positions cover, in tokens."""
        return int(self.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the embedding is, hence where token ids go."""
        device: torch.device = self.hf.get_input_embeddings().weight.device
        return device

    @property
    def dtype(self) -> str:
        """The dtype of the activations, such as ``float32`` or ``bfloat16``."""
        return str(self.hf.get_input_embeddings().weight.dtype).removeprefix("torch.")

    @property
    def expert_parallel(self) -> int:
        """Over how many processes the experts are split; 1 when each has them all."""
        return int(getattr(getattr(self.config, "distributed_config", None), "ep_size", None) or 1)

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded model or a variant of it, whose results say nothing about gpt-oss."""
        return self.name in EMBEDDED_FOLDERS

    @property
    def end_token_ids(self) -> list[int]:
        """Token ids that end a rollout."""
        ids = self.hf.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return [] if ids is None else [int(i) for i in (ids if isinstance(ids, Sequence) else [ids])]

    def attention(self, layer: int) -> nn.Module:
        """Return the attention module of a layer."""
        return self.layers[layer].get_submodule(self.family.attention)

    def sink_logits(self, layer: int) -> Tensor | None:
        """Return the learned sink logits [head] of a layer; None in families without sinks."""
        path = self.family.sinks
        return None if path is None else self.layers[layer].get_parameter(path).detach()

    def unembed(self, residual: Tensor) -> Tensor:
        """Map the residual stream [..., d_model] after a layer to logits [..., vocabulary]: the logit lens."""
        norm = self.hf.get_submodule(self.family.norm)
        logits: Tensor = self.hf.get_submodule(self.family.unembed)(norm(residual))
        return logits

    @cached_property
    def nnsight(self) -> Any:
        """The model wrapped by nnsight, for interventions and the user's own experiments.

        Wrapped at first use, because nnsight replaces each module's ``forward`` for good and sets left padding;
        idle it is bit-exact.
        """
        from nnsight.modeling.transformers import TransformersModel

        return TransformersModel(self.hf, task="text-generation", tokenizer=self.tokenizer)

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights on disk, or of each file's header and size where they exceed 256 MB.

        ``not available`` for a model given in memory.
        """
        if self._weights_hash is None:
            self._weights_hash = _hash_weights(self.folder)
        return self._weights_hash

    def require_here(self, what: str) -> None:
        """Raise `ModelError` where the model runs elsewhere, and ``what`` is only done to one that is here."""
        if self.remote:
            raise ModelError(
                f"{self.name} was loaded with remote={self.remote!r}, which has no {what}: capture, replay and most "
                "experiments run there (docs/remote.md); for the rest load it without remote="
            )

    def __repr__(self) -> str:
        """Say what is loaded, in one line."""
        experts = f" x {self.num_experts} experts, top-{self.top_k}" if self.router_layers else ", dense"
        shape = f"{self.num_layers} layers{experts}"
        where = f"{self.dtype} on {self.device}" if self.remote in (False, "local") else "runs elsewhere"
        return f"<Model {self.name} ({self.family.name}): {shape}, {where}>"


def load(
    model: Any = EMBEDDED,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: Any = "auto",
    remote: bool | str = False,
) -> Model:
    """Load a mixture-of-experts model for capture.

    Args:
        model: ``"tiny"`` (embedded) or its variant ``"tiny-hint-said"``, a folder with config.json and safetensors
            (transformers' layout or OpenAI's original), a hub id such as ``"openai/gpt-oss-20b"``, or a transformers
            model already in memory.
        tokenizer: required for a model in memory; otherwise loaded beside the weights.
        device: where to put it; default: the first GPU if there is one, else the CPU. Not used for a model in memory.
        dtype: ``"auto"`` keeps the checkpoint's, except that the embedded model runs in float32.
        remote: True for a model that is resident on NDIF, or the address of another such server: only the
            configuration and the tokenizer are loaded, and capture, replay and experiments run there. ``"local"``
            loads it here and goes the same way without a server. See docs/remote.md.

    Raises:
        ModelError: unknown name, folder without config, unknown family, missing tokenizer or one of another model,
            weights that are damaged, pickled or not those of the config.
    """
    if remote:
        check_remote(remote)
    if remote and remote != "local":
        if isinstance(model, nn.Module) or device is not None or dtype != "auto":
            raise ModelError(
                f"remote={remote!r}: expected the name of a model that is resident there, which decides on device and "
                "dtype; got a model in memory, or device= or dtype= beside it"
            )
        return _load_elsewhere(str(model), tokenizer, remote)
    if isinstance(model, nn.Module):
        found = _wrap(model, tokenizer)
    elif not isinstance(model, str | Path):
        raise ModelError(f"expected a name, a folder or a transformers model, got {type(model).__name__}")
    else:
        found = _load_pretrained(str(model), tokenizer, device, dtype)
    found.remote = remote
    return found


def load_tokenizer(name: str = EMBEDDED) -> Any:
    """Load the tokenizer of a model alone, which takes no weights.

    Raises:
        ModelError: unknown name, or no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    source, folder = _locate(name)
    beside = _tokenizer_folder(folder) if folder is not None and is_original(folder) else source
    with _reading(name, "the tokenizer", "Put tokenizer.json beside the weights."):
        return AutoTokenizer.from_pretrained(beside, trust_remote_code=False)


PUBLISHED = {"openai/gpt-oss-20b": (24, 32), "openai/gpt-oss-120b": (36, 128)}
"""Layers and experts of the released models, which are otherwise alike (openai/gpt-oss, model card table 1)."""


def published_config(name: str) -> Any:
    """Return a model's transformers config; those of the released gpt-oss models are known without a download."""
    from transformers import AutoConfig, GptOssConfig

    if name in PUBLISHED:
        num_layers, num_experts = PUBLISHED[name]
        return GptOssConfig(
            num_hidden_layers=num_layers,
            num_local_experts=num_experts,
            quantization_config={"quant_method": "mxfp4"},  # type: ignore[call-arg]
        )
    source, folder = _locate(name)
    if folder is not None and is_original(folder):
        return original_config(folder)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except OSError as error:
        raise ModelError(f"cannot read the configuration of {name!r}: {str(error).splitlines()[0]}") from error


def _wrap(hf: nn.Module, tokenizer: Any) -> Model:
    config = getattr(hf, "config", None)
    family = family_of(config)
    if tokenizer is None:
        raise ModelError("expected a tokenizer beside a model in memory; pass load(hf_model, tokenizer=...)")
    name = str(getattr(config, "_name_or_path", "")) or type(hf).__name__
    _check_whole(name, hf, family)
    _check_tokenizer(name, hf, tokenizer)
    return Model(hf.train(False), tokenizer, family, name)


def _load_pretrained(name: str, tokenizer: Any, device: Any, dtype: Any) -> Model:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GptOssForCausalLM

    source, folder = _locate(name)
    if name in EMBEDDED_FOLDERS and dtype == "auto":
        dtype = torch.float32
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _reading(name, "config.json", f"Expected a known family: {known_families()}. {NO_CODE}\n{KNOWN_NAMES}"):
        original = folder if folder is not None and is_original(folder) else None
        config = original_config(original) if original else AutoConfig.from_pretrained(source, trust_remote_code=False)
        family = family_of(config)
    with _reading(name, "the tokenizer", "Put tokenizer.json beside the weights, or pass load(..., tokenizer=...)."):
        beside = _tokenizer_folder(original) if original else source
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(beside, trust_remote_code=False)
    with _reading(name, "the weights", "Download or copy the *.safetensors again, with their config.json."):
        if folder:
            _check_files(folder)
        # Safetensors only: other formats can run code when they are read.
        kind: Any = GptOssForCausalLM if original else AutoModelForCausalLM
        loaded: Any = kind.from_pretrained(
            None if original else source,
            state_dict=original_weights(original, config) if original else None,
            config=config,
            dtype=dtype,
            device_map={"": target},
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    hf, info = loaded
    _check_weights(name, info)
    _check_tokenizer(name, hf, tokenizer)
    return Model(hf.train(False), tokenizer, family, name, folder, getattr(config, "_commit_hash", None))


def _load_elsewhere(name: str, tokenizer: Any, remote: bool | str) -> Model:
    """Build a model without weights, by nnsight, whose names for its parts are those of the server's."""
    from nnsight.modeling.transformers import TransformersModel
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    source, _ = _locate(name)
    with _reading(name, "config.json", f"Expected a known family: {known_families()}. {NO_CODE}\n{KNOWN_NAMES}"):
        family = family_of(AutoConfig.from_pretrained(source, trust_remote_code=False))
    with _reading(name, "the tokenizer", "Put tokenizer.json beside the weights, or pass load(..., tokenizer=...)."):
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    with _reading(name, "the configuration", "Check that nnsight and transformers know this model."):
        lm = TransformersModel(source, task="text-generation", tokenizer=tokenizer)
    hf: Any = lm._module
    with suppress(OSError):  # not every checkpoint has one; those that do name there what ends a rollout
        hf.generation_config = GenerationConfig.from_pretrained(source)
    _check_tokenizer(name, hf, tokenizer)
    found = Model(hf.train(False), tokenizer, family, name, remote=remote)
    found.__dict__["nnsight"] = lm
    return found


def _tokenizer_folder(folder: Path) -> Path:
    """Return where the tokenizer of OpenAI's layout is: the hub keeps that layout in a subfolder of the other."""
    return folder if (folder / "tokenizer.json").is_file() else folder.resolve().parent


NO_CODE = "Code that comes with a checkpoint is never run."


@contextmanager
def _reading(name: str, what: str, advice: str) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises into one `ModelError` that names what was read and says what to do."""
    try:
        yield
    except ModelError:
        raise
    # Transformers, tokenizers and safetensors raise what they stumble upon: KeyError, bare Exception, and others.
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        why = why if len(why) <= 300 else why[:299] + "…"
        raise ModelError(f"cannot load {name!r}: {what} could not be read ({why}). {advice}") from error


def _check_files(folder: Path) -> None:
    """Refuse a folder with pickled weights only, and name the file that is damaged."""
    files = sorted(folder.glob("*.safetensors"))
    if not files and any(folder.glob("*.bin")):
        raise ModelError(
            f"the weights in {folder} are pickled (*.bin), which can run code when it is read, so they are refused. "
            "Expected *.safetensors; convert them where you trust their source, with "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
        )
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged or cut off ({error}). Download or copy it again.") from error


def _check_whole(name: str, hf: Any, family: Family) -> None:
    """Refuse a model of which this process lacks what capture reads between forwards.

    Experts may be split over processes, because the router in front of them is whole in each; so may matrices whose
    output is gathered. Pipeline stages hold only some layers, and FSDP holds slices of every parameter.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor

    read = [part for part in (family.norm, family.router, family.sinks) if part]
    split = [n for n, p in hf.named_parameters() if isinstance(p, DTensor) and any(part in n for part in read)]
    stages = getattr(getattr(hf.config, "distributed_config", None), "pp_size", None) or 1
    if split or stages > 1:
        what = f"its layers in {stages} pipeline stages" if stages > 1 else f"parameters such as {split[0]}"
        raise ModelError(
            f"{name!r} is split over processes with {what}, so no process can read it. Split only the experts, with "
            "DistributedConfig(tp_size=N, ep_size=N), or load it whole."
        )


def _check_tokenizer(name: str, hf: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer of another model: an id without a row would end in the middle of a forward."""
    rows, last = len(hf.get_input_embeddings().weight), max(tokenizer.get_vocab().values())
    if last >= rows:
        raise ModelError(
            f"the tokenizer of {name!r} has ids up to {last}, but the model has {rows} rows of embedding: they do not "
            "belong together. Load the tokenizer that the model was trained with."
        )


def _check_weights(name: str, info: dict[str, Any]) -> None:
    """Refuse what transformers would silently make up, such as a dequantised MXFP4 model saved and reopened."""
    made_up = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if made_up:
        raise ModelError(
            f"the weights of {name!r} do not fit the model: {len(made_up)} tensors are missing or of another shape, "
            f"such as {made_up[0]}, and would be random. If it was saved after MXFP4 weights were dequantised, load "
            "the original checkpoint instead."
        )


KNOWN_NAMES = (
    f'Known: "{EMBEDDED}" (embedded), a folder with config.json and *.safetensors, '
    'or a hub id such as "openai/gpt-oss-20b". "tiny-hint-said" is a variant of the embedded model.'
)


def _locate(name: str) -> tuple[str, Path | None]:
    """Return what transformers is to load, and the folder when it is local."""
    if name in EMBEDDED_FOLDERS:
        folder = Path(str(resources.files("workbench.tiny").joinpath(EMBEDDED_FOLDERS[name])))
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return name, None
    else:
        raise ModelError(f"unknown model {name!r}. {KNOWN_NAMES}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"expected config.json in the folder {folder}, found none. {KNOWN_NAMES}")
    return str(folder), folder


def _hash_weights(folder: Path | None) -> str:
    files = sorted(folder.glob("*.safetensors")) if folder else []
    if not files:
        return "not available"
    whole = sum(f.stat().st_size for f in files) <= HASHED_WHOLE_BYTES
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if whole else _header_and_size(file))
    return f"sha256{'' if whole else ' of headers and sizes'}:{digest.hexdigest()}"


def _header_and_size(file: Path) -> bytes:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return stream.read(length) + json.dumps(file.stat().st_size).encode()

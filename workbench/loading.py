"""Load a model: the embedded one, a local folder, a hub id, one already in memory, or one that runs elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from workbench.addresses import check_remote
from workbench.families import Family, ModelError, family_of, known_families
from workbench.model import Model
from workbench.original_layout import is_original, original_config, original_weights
from workbench.trace import EMBEDDED_NAMES

__all__ = ["EMBEDDED", "EMBEDDED_FOLDERS", "load", "load_tokenizer", "published_config"]

EMBEDDED = "tiny"
"""The name of the model that ships with the workbench."""

EMBEDDED_FOLDERS = {name: "weights" + name.removeprefix(EMBEDDED) for name in sorted(EMBEDDED_NAMES)}
"""Where its weights are, and those of its variants, which differ in one habit; see workbench/tiny/CARD.md"""


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

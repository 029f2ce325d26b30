"""Models that cannot be trusted: each is one `ModelError` that names the folder or file and says what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_gpt_oss

import workbench as wb

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny: wb.Model, tmp_path: Path) -> Path:
    """A folder with a whole model, for a test to damage."""
    return saved(random_gpt_oss(tiny.config.vocab_size), tiny, tmp_path / "a model")


def saved(hf: Any, tiny: wb.Model, folder: Path) -> Path:
    hf.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(wb.ModelError) as caught:
        wb.load(folder, device="cpu")
    assert str(folder) in str(caught.value)
    return str(caught.value)


def test_the_folder_that_is_damaged_is_whole(folder: Path) -> None:
    assert wb.load(folder, device="cpu").num_layers == 3


# --- config.json -------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    assert refusal(tmp_path).startswith(f'expected config.json in the folder {tmp_path}, found none. Known: "tiny"')


@pytest.mark.parametrize("text", ["{}", "{not json", "[1]", "", '{"model_type": "brand_new_moe"}', "\x00\xff"])
def test_a_config_of_no_known_family(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    said = refusal(tmp_path)
    assert said.startswith(f"cannot load '{tmp_path}': config.json could not be read (")
    assert "Expected a known family: gpt-oss, Mixtral, Qwen3-MoE, " in said


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\n")
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}')
    assert "Code that comes with a checkpoint is never run." in refusal(tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"num_hidden_layers": "three"}, r"config\.json could not be read \(.*num_hidden_layers"),
        ({"hidden_size": -4}, r"the weights could not be read \(RuntimeError: .*negative dimension -4"),
        ({"hidden_size": 46}, r"the weights could not be read \("),
        ({"num_local_experts": 8}, r"the weights could not be read \("),
        ({"num_hidden_layers": 4}, r"do not fit the model: \d+ tensors are missing .*such as model\.layers\.3\."),
    ],
)
def test_a_config_that_is_not_of_these_weights(folder: Path, changes: dict[str, Any], what: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if changes.get("num_hidden_layers") == 4:
        changes = {**changes, "layer_types": [*config["layer_types"], "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(wb.ModelError, match=what):
        wb.load(folder, device="cpu")


# --- weights -----------------------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off in its header": lambda raw: raw[:1000],
    "cut off in its tensors": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "garbage": lambda raw: b"\xff" * 1000,
    "another header": lambda raw: raw[:8] + b"[" + raw[9:],
    "a web page": lambda raw: b"<!DOCTYPE html><title>404</title>" * 20,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights(folder: Path, damage: str) -> None:
    path = folder / WEIGHTS
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    said = refusal(folder)
    assert said.startswith(f"{path} is damaged or cut off (")
    assert said.endswith("Download or copy it again.")


def test_no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "the weights could not be read (OSError: Error no file named model.safetensors" in refusal(folder)


def test_a_shard_that_is_missing(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    said = refusal(folder)
    assert "model-00002-of-00002.safetensors" in said
    assert said.endswith("Download or copy the *.safetensors again, with their config.json.")


def test_an_index_that_is_damaged(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text("{")
    assert "the weights could not be read (JSONDecodeError: " in refusal(folder)


class Evil:
    """Unpickling one touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_weights_are_refused_unread(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"lm_head.weight": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert refusal(folder) == (
        f"the weights in {folder} are pickled (*.bin), which can run code when it is read, so they are refused. "
        "Expected *.safetensors; convert them where you trust their source, with "
        "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
    )
    assert not (tmp_path / "ran").exists()


# --- the tokenizer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{}", "{", "", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_a_damaged_tokenizer(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    said = refusal(folder)
    assert "the tokenizer could not be read (" in said
    assert said.endswith("Put tokenizer.json beside the weights, or pass load(..., tokenizer=...).")


def test_no_tokenizer(folder: Path, tiny: wb.Model) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    assert "the tokenizer could not be read (" in refusal(folder)
    assert wb.load(folder, device="cpu", tokenizer=tiny.tokenizer).num_layers == 3


def test_a_tokenizer_with_more_ids_than_the_model_has_rows(tiny: wb.Model, tmp_path: Path) -> None:
    last = max(tiny.tokenizer.get_vocab().values())
    hf = random_gpt_oss(last)  # one row too few
    folder = saved(hf, tiny, tmp_path / "another")
    expected = (
        f"has ids up to {last}, but the model has {last} rows of embedding: they do not belong together. Load the "
        "tokenizer that the model was trained with."
    )
    assert refusal(folder) == f"the tokenizer of '{folder}' {expected}"
    with pytest.raises(wb.ModelError, match=f"ids up to {last}, but the model has {last} rows"):
        wb.load(hf, tokenizer=tiny.tokenizer)
    assert wb.load(random_gpt_oss(last + 1), tokenizer=tiny.tokenizer).num_layers == 3


# --- weights that are whole files of nonsense --------------------------------------------------------------------


def nan_at(tiny: wb.Model, name: str, place: tuple[int, ...], value: float = float("nan")) -> wb.Model:
    hf = random_gpt_oss(tiny.config.vocab_size)
    with torch.no_grad():
        hf.get_parameter(name)[place] = value
    return wb.load(hf, tokenizer=tiny.tokenizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_numbers_in_a_router_are_found_before_the_first_token(tiny: wb.Model, value: float) -> None:
    model = nan_at(tiny, "model.layers.1.mlp.router.weight", (2, 5), value)
    for run in (lambda: wb.capture(model, "47+85=?"), lambda: wb.replay(model, [4, 5, 6])):
        with pytest.raises(wb.ModelError) as caught:
            run()
        assert str(caught.value) == (
            "router_logits of layer 1 is not finite (NaN or infinity) in GptOssForCausalLM: the weights are damaged "
            "or the dtype overflows. Download or copy the weights again, or load them with dtype=torch.float32."
        )
    assert not any(module._forward_hooks for module in model.hf.modules())


def test_damage_in_attention_shows_at_the_next_router(tiny: wb.Model) -> None:
    model = nan_at(tiny, "model.layers.2.self_attn.o_proj.weight", (0, 0))
    with pytest.raises(wb.ModelError, match=r"^router_logits of layer 2 is not finite"):
        wb.replay(model, [4, 5, 6])


def test_damage_past_the_last_router(tiny: wb.Model) -> None:
    model = nan_at(tiny, "model.norm.weight", (3,))
    with pytest.raises(wb.ModelError, match=r"^the output of the final norm is not finite"):
        wb.replay(model, [4, 5, 6])


def test_damage_of_one_token_is_found_when_it_is_read(tiny: wb.Model) -> None:
    """The self-check reads another token and passes."""
    model = nan_at(tiny, "model.embed_tokens.weight", (77, 5))
    assert len(wb.replay(model, [4, 5, 6])) == 3
    with pytest.raises(wb.ModelError, match=r"^the output of the final norm for token 0 is not finite"):
        wb.replay(model, [4, 5, 77, 6])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damage_of_one_token_while_generating(tiny: wb.Model, temperature: float) -> None:
    question = "47+85=?"
    token = tiny.tokenizer.encode(question, add_special_tokens=False)[0]
    model = nan_at(tiny, "model.embed_tokens.weight", (token, 5))
    with pytest.raises(wb.ModelError, match=r"^the output of the final norm for token 0 is not finite"):
        wb.capture(model, question, temperature=temperature, max_new_tokens=3)
    assert not any(module._forward_hooks for module in model.hf.modules())

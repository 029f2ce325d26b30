"""Loading: what is known, what is refused, and what the facts are."""

from pathlib import Path

import pytest
import torch
from conftest import random_gpt_oss

import workbench as wb


def test_the_embedded_model_is_of_the_gpt_oss_class(tiny: wb.Model) -> None:
    assert type(tiny.hf).__name__ == "GptOssForCausalLM"
    assert (tiny.num_layers, tiny.num_experts, tiny.top_k) == (4, 8, 2)
    assert (tiny.num_heads, tiny.num_kv_heads, tiny.d_head) == (8, 2, 16)
    assert tiny.windows == [32, None, 32, None]
    assert (tiny.dtype, tiny.is_embedded) == ("float32", True)
    assert repr(tiny) == "<Model tiny (gpt-oss): 4 layers x 8 experts, top-2, float32 on cpu>"


def test_a_local_folder_loads_in_the_dtype_of_its_checkpoint(tiny: wb.Model, tmp_path: Path) -> None:
    model = random_gpt_oss(tiny.config.vocab_size).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    loaded = wb.load(tmp_path, device="cpu")
    assert (loaded.num_layers, loaded.num_experts, loaded.top_k) == (3, 7, 3)
    assert loaded.dtype == "bfloat16"
    assert not loaded.is_embedded
    for (name, a), b in zip(model.state_dict().items(), loaded.hf.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert wb.load(tmp_path, device="cpu", dtype=torch.float32).dtype == "float32"


def test_a_model_in_memory_needs_its_tokenizer(tiny: wb.Model) -> None:
    with pytest.raises(wb.ModelError, match=r"expected a tokenizer beside a model in memory"):
        wb.load(random_gpt_oss(tiny.config.vocab_size))


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(wb.ModelError, match=r"unknown model 'gpt-five'\. Known: \"tiny\" \(embedded\), a folder"):
        wb.load("gpt-five")


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(wb.ModelError, match=r"expected config\.json in the folder .*, found none"):
        wb.load(tmp_path)


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(wb.ModelError, match=r"cannot load 'nobody/nothing-here': "):
        wb.load("nobody/nothing-here")


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    with pytest.raises(wb.ModelError, match=r"known family \(gpt-oss, Mixtral, .*\), got model_type 'gpt2'"):
        wb.load(tmp_path)


def test_weights_hash_changes_with_the_weights(tiny: wb.Model, tmp_path: Path) -> None:
    hashes = []
    for scale in (0.3, 0.2):
        folder = tmp_path / str(scale)
        random_gpt_oss(tiny.config.vocab_size, initializer_range=scale).save_pretrained(folder)
        tiny.tokenizer.save_pretrained(folder)
        hashes.append(wb.load(folder, device="cpu").weights_hash)
    assert hashes[0] != hashes[1]
    assert all(h.startswith("sha256:") for h in hashes)


@pytest.mark.parametrize("thing", [3, None, ["tiny"]])
def test_something_that_is_no_model_is_refused(thing: object) -> None:
    with pytest.raises(wb.ModelError, match="expected a name, a folder or a transformers model, got "):
        wb.load(thing)

"""Every family against its own transformers modelling code, on random models with unequal sizes."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.families import FAMILIES

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 300,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
EXPERTS = {"num_local_experts": 7, "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 12}
LATENT = {
    "num_key_value_heads": 6,
    "n_routed_experts": 12,
    "num_local_experts": 12,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 12,
    "head_dim": 8,
    "n_shared_experts": 1,
    "routed_scaling_factor": 2.5,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_oss": ("gpt_oss", {**EXPERTS, "sliding_window": 9, "layer_types": None}),
    "mixtral": ("mixtral", {**EXPERTS, "sliding_window": 11}),
    "qwen3_moe": ("qwen3_moe", {**EXPERTS, "norm_topk_prob": True, "decoder_sparse_step": 2}),
    "qwen3_moe, not renormalised": ("qwen3_moe", {**EXPERTS, "norm_topk_prob": False}),
    "olmoe": ("olmoe", {**EXPERTS, "clip_qkv": 0.8, "norm_topk_prob": False}),
    "deepseek_v3": ("deepseek_v3", {**EXPERTS, **LATENT, "norm_topk_prob": True}),
    "deepseek_v3, not renormalised": ("deepseek_v3", {**EXPERTS, **LATENT, "norm_topk_prob": False}),
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": 11}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, tiny: wb.Model) -> wb.Model:
    kind, changes = CASES[request.param]
    torch.manual_seed(2)
    changes = {k: v for k, v in changes.items() if v is not None}
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": tiny.config.vocab_size, **changes})
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, tensor in [*hf.named_parameters(), *hf.named_buffers()]:
        if name.endswith(("gate.weight", "e_score_correction_bias")):
            torch.nn.init.normal_(tensor, std=0.3)  # zero by default, and every expert would tie
    return wb.load(hf, tokenizer=tiny.tokenizer)


@pytest.fixture(scope="module")
def ids(model: wb.Model) -> list[int]:
    return torch.randint(0, model.config.vocab_size, (41,), generator=torch.manual_seed(4)).tolist()


@pytest.fixture(scope="module")
def trace(model: wb.Model, ids: list[int]) -> wb.Trace:
    return wb.replay(model, ids)


@pytest.fixture(scope="module")
def oracle(model: wb.Model, ids: list[int]) -> Any:
    with torch.no_grad():
        return model.hf(torch.tensor([ids]), output_attentions=True)


@pytest.fixture(scope="module")
def chosen(model: wb.Model, ids: list[int]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """What the experts were really given: weights and indices, read at the experts module itself."""
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(layer: int) -> Any:
        def hook(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
            seen[layer] = (args[1], args[2])

        return hook

    handles = [model.layers[i].mlp.experts.register_forward_pre_hook(keep(i)) for i in model.router_layers]
    with torch.no_grad():
        model.hf(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return seen


def test_every_family_of_the_table_is_tested() -> None:
    assert {kind for kind, _ in CASES.values()} == set(FAMILIES)


def test_indices_and_weights_are_what_the_experts_were_given(model: wb.Model, trace: wb.Trace, chosen: Any) -> None:
    if model.family.router is None:
        assert chosen == {}
        return
    assert trace.layers("expert_indices") == tuple(chosen)
    for layer, (indices, weights) in chosen.items():
        mine = np.zeros((len(trace), model.num_experts), np.float32)
        theirs = mine.copy()
        np.put_along_axis(
            mine, trace.expert_indices.sel(layer=layer)[:].astype(int), trace.expert_weights.sel(layer=layer)[:], 1
        )
        np.put_along_axis(theirs, indices.numpy(), weights.float().numpy(), 1)
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_choice_is_in_rank_order(trace: wb.Trace) -> None:
    if trace.has("expert_weights"):
        assert (np.diff(trace.expert_weights[:], axis=-1) <= 0).all()


def test_the_tables_convention_equals_the_router_module(model: wb.Model) -> None:
    for layer in model.router_layers:
        router = model.layers[layer].mlp.get_submodule(str(model.family.router).removeprefix("mlp."))
        rows = torch.randn(17, model.config.hidden_size, generator=torch.manual_seed(layer))
        with torch.no_grad():
            logits, weights, indices = router(rows)
            assert model.family.route is not None
            my_indices, my_weights = model.family.route(logits, router)
        if not model.family.ranked:
            weights, order = weights.sort(dim=-1, descending=True)
            indices = indices.gather(-1, order)
        assert torch.equal(my_indices, indices)
        torch.testing.assert_close(my_weights, weights, rtol=1e-6, atol=1e-7)


def test_attention_equals_eager_weights(model: wb.Model, trace: wb.Trace, oracle: Any) -> None:
    if model.family.queries is None:
        assert not trace.has("queries")
        with pytest.raises(wb.ModelError, match="queries and keys of DeepSeek-V3 cannot be read"):
            wb.replay(model, [1, 2, 3], capture=wb.CaptureSpec(attention=[0]))
        return
    for layer, weights in enumerate(oracle.attentions):
        pattern, sink_mass = trace.attention(layer)
        np.testing.assert_allclose(pattern, weights[0].numpy(), atol=2e-6)
        assert (sink_mass is None) == (model.family.sinks is None)
        if sink_mass is None:
            np.testing.assert_allclose(pattern[:].sum(-1), 1, atol=1e-5)


def test_a_window_is_seen(model: wb.Model, trace: wb.Trace) -> None:
    for layer, window in enumerate(model.windows):
        if window is not None and trace.has("queries"):
            assert (trace.attention(layer).pattern[:, 40, : 41 - window] == 0).all()
            assert (trace.attention(layer).pattern[:, 40, 41 - window] > 0).all()


def test_last_lens_layer_is_the_models_own_prediction(trace: wb.Trace, oracle: Any) -> None:
    top = torch.log_softmax(oracle.logits[0], dim=-1).topk(3)
    np.testing.assert_array_equal(trace.lens_token_ids[:, -1], top.indices.numpy())
    np.testing.assert_allclose(trace.lens_logprobs[:, -1], top.values.numpy(), atol=2e-3)


def test_a_layer_without_router_is_refused(model: wb.Model) -> None:
    missing = sorted(set(range(model.num_layers)) - set(model.router_layers))
    if not missing:
        return
    text = r"is a dense model .* Families with one: gpt-oss, Mixtral" if not model.router_layers else "expected layers"
    with pytest.raises(wb.ModelError, match=text):
        wb.replay(model, [1, 2, 3], capture=wb.CaptureSpec(router=missing))


def test_capture_generates_with_every_family(model: wb.Model) -> None:
    trace = wb.capture(model, "1+1=?", max_new_tokens=5)
    assert len(trace) == trace.num_prompt_tokens + 5
    assert trace.has("expert_indices") == bool(model.router_layers)

"""Every family's routing rule under interventions, against the rule of its own modelling code written out by hand."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.experiments.experts import ExpertIntervention, Force, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import intervene

IDS = [(7 * i + 3) % 251 for i in range(29)]
SIZES = {
    "hidden_size": 48, "intermediate_size": 20, "moe_intermediate_size": 12, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 300,
    "initializer_range": 0.3, "tie_word_embeddings": False, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": None, "num_local_experts": 7, "num_experts": 7, "num_experts_per_tok": 3,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 6, "n_routed_experts": 12, "num_local_experts": 12, "n_group": 4, "topk_group": 2,
    "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 12,
    "v_head_dim": 12, "n_shared_experts": 1, "routed_scaling_factor": 2.5, "norm_topk_prob": True,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {"sliding_window": 11}),
    "qwen3_moe": ("qwen3_moe", {"norm_topk_prob": True}),
    "qwen3_moe, not renormalised": ("qwen3_moe", {"norm_topk_prob": False}),
    "olmoe": ("olmoe", {"norm_topk_prob": False}),
    "deepseek_v3": ("deepseek_v3", LATENT),
}
LAYER, START, STOP = 1, 5, 21


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tiny: wb.Model) -> tuple[str, wb.Model]:
    kind, changes = CASES[request.param]
    torch.manual_seed(2)
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": tiny.config.vocab_size, **changes})
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, tensor in [*hf.named_parameters(), *hf.named_buffers()]:
        if name.endswith(("gate.weight", "e_score_correction_bias")):
            torch.nn.init.normal_(tensor, std=0.3)  # zero by default, and every expert would tie
    return request.param, wb.load(hf, tokenizer=tiny.tokenizer)


def routed_by_hand(
    kind: str, gate: Any, row: Tensor, avoided: set[int], forced: list[int]
) -> list[tuple[int, Tensor]]:
    """One token's experts and weights: scores, a choice from which experts are taken or to which they are put."""
    logits = F.linear(row, gate.weight)
    scores = torch.sigmoid(logits) if kind == "deepseek_v3" else torch.softmax(logits, dim=0)
    open_to = list(range(len(logits)))
    by = scores
    if kind == "deepseek_v3":
        by = scores + gate.e_score_correction_bias
        groups = [by[g * 3 : g * 3 + 3].topk(2).values.sum() for g in range(4)]
        best = torch.stack(groups).topk(2).indices.tolist()
        open_to = [e for e in open_to if e // 3 in best]
    order = sorted((e for e in open_to if e not in avoided and e not in forced), key=lambda e: -float(by[e]))
    chosen = [*forced, *order][:3]
    weights = scores[chosen]
    if kind in ("mixtral", "qwen3_moe", "deepseek_v3"):
        weights = weights / weights.sum()
    return list(zip(chosen, weights * (2.5 if kind == "deepseek_v3" else 1.0), strict=True))


def by_hand(kind: str, model: wb.Model, avoided: set[int], forced: list[int], edit: Any) -> Tensor:
    """Logits of a forward whose layer goes through tokens and experts one by one."""
    mlp: Any = model.layers[LAYER].mlp

    def forward(hidden: Tensor) -> Tensor:
        out = torch.zeros_like(hidden[0])
        for t, row in enumerate(hidden[0]):
            inside = START <= t < STOP
            routed = routed_by_hand(kind, mlp.gate, row, avoided if inside else set(), forced if inside else [])
            for e, w in routed:
                function, weight = edit(e, w) if inside else (e, w)
                up = mlp.experts.gate_up_proj[function] @ row
                gate, rest = up.chunk(2)
                out[t] += weight * (mlp.experts.down_proj[function] @ (F.silu(gate) * rest))
        if kind == "deepseek_v3":
            out = out + mlp.shared_experts(hidden[0])
        return out[None]

    mlp.forward = forward
    try:
        with torch.no_grad():
            logits: Tensor = model.hf(torch.tensor([IDS])).logits[0]
            return logits
    finally:
        del mlp.forward


def same(e: int, w: Tensor) -> tuple[int, Tensor]:
    return e, w


VARIANTS: dict[str, tuple[ExpertIntervention, set[int], list[int], Any]] = {
    "route around": (RouteAround({LAYER: [2, 4]}, (START, STOP)), {2, 4}, [], same),
    "force": (Force({LAYER: [6, 1]}, (START, STOP)), set(), [6, 1], same),
    "scale": (Scale({LAYER: [2]}, (START, STOP), factor=1.7), set(), [], lambda e, w: (e, w * (1.7 if e == 2 else 1))),
    "zero": (ZeroContribution({LAYER: [2, 3]}, (START, STOP)), set(), [], lambda e, w: (e, w * (e not in (2, 3)))),
    "swap": (Swap({LAYER: {2: 5, 3: 2}}, (START, STOP)), set(), [], lambda e, w: ({2: 5, 3: 2}.get(e, e), w)),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_follows_the_familys_rule(case: tuple[str, wb.Model], variant: str) -> None:
    kind, model = case
    intervention, avoided, forced, edit = VARIANTS[variant]
    with torch.no_grad():
        before = model.hf(torch.tensor([IDS])).logits[0]
        plain = by_hand(kind, model, set(), [], same)
        torch.testing.assert_close(plain, before, atol=3e-4, rtol=3e-4)
        with intervene(model, intervention):
            found = model.hf(torch.tensor([IDS])).logits[0]
        expected = by_hand(kind, model, avoided, forced, edit)
        torch.testing.assert_close(found, expected, atol=3e-4, rtol=3e-4)
        assert (found - before).abs().max() > 1e-2, "the change must show"
        assert torch.equal(model.hf(torch.tensor([IDS])).logits[0], before)


def test_a_trace_has_the_choice_in_rank_order(case: tuple[str, wb.Model]) -> None:
    _, model = case
    with intervene(model, RouteAround({LAYER: [2, 4]})):
        trace = wb.replay(model, IDS, capture=wb.CaptureSpec(attention=False))
    at = trace.layers("expert_indices").index(LAYER)
    assert not np.isin(trace.expert_indices[:, at], (2, 4)).any()
    assert (np.diff(trace.expert_weights[:, at].astype(float), axis=-1) <= 0).all()


def test_groups_that_could_be_left_with_too_few_are_refused(tiny: wb.Model, case: tuple[str, wb.Model]) -> None:
    """DeepSeek-V3 chooses within 2 of 4 groups of 3 experts: to avoid 4 in two groups leaves 2 of 6."""
    kind, model = case
    if kind != "deepseek_v3":
        with intervene(model, RouteAround({LAYER: [0, 1, 3, 4]})):
            return
    with (
        pytest.raises(
            wb.ModelError, match="4 of 12 experts of layer 1 are avoided, which can leave 2 where a token takes 3"
        ),
        intervene(model, RouteAround({LAYER: [0, 1, 3, 4]})),
    ):
        pytest.fail("entered")
    with intervene(model, RouteAround({LAYER: [0, 3, 6, 9]})):
        wb.replay(model, IDS, capture=wb.CaptureSpec(attention=False))


def test_a_dense_model_has_no_experts(tiny: wb.Model) -> None:
    small = {k: v for k, v in SIZES.items() if "expert" not in k}
    config = AutoConfig.for_model("llama", **small, vocab_size=tiny.config.vocab_size)
    model = wb.load(AutoModelForCausalLM.from_config(config).eval(), tokenizer=tiny.tokenizer)
    with (
        pytest.raises(wb.ModelError, match=r"is dense \(Llama \(dense\)\): it has no experts to change"),
        intervene(model, RouteAround({1: [0]})),
    ):
        pytest.fail("entered")

"""Capture against implementations that nobody here wrote: OpenAI's reference model, and TransformerLens.

The weights are the same in all of them, in float32. Every comparison is of a live capture, which the key-value cache
went through, or of a replay, with one forward of the other implementation over the same tokens.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_gpt_oss
from torch import Tensor
from torch.overrides import TorchFunctionMode

import workbench as wb

QUESTION = "47+85=?"
NEAR_TIE = 1e-4
"""Router logits closer than this may fall either way in float32."""

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 3.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
}


def imported(name: str) -> Any:
    """Import an oracle. One that is missing is a failure: a skip would pass for agreement."""
    try:
        return import_module(name)
    except ImportError as error:
        pytest.fail(
            f"the oracle {name} cannot be imported ({error}). `make test` installs it, or: "
            "pip install --no-deps --ignore-requires-python --requirement requirements-oracles.txt"
        )


def test_a_missing_oracle_fails_and_says_how_to_install_it() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"no_such_oracle cannot be imported .* pip install --no-deps"):
        imported("no_such_oracle")


# --- the models --------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A model, what was captured of it live and in a replay, and its logits [token, vocabulary]."""

    model: wb.Model
    live: wb.Trace
    replay: wb.Trace
    ids: Tensor = field(init=False)
    logits: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.ids = torch.tensor(self.live.arrays["token_ids"].astype(np.int64))
        with torch.no_grad():
            self.logits = self.model.hf(self.ids[None]).logits[0]

    @property
    def traces(self) -> tuple[wb.Trace, wb.Trace]:
        return self.live, self.replay


def random_model(tiny: wb.Model, **changes: Any) -> wb.Model:
    """Every parameter is random, biases and norms too: what is zero or one could be left out unnoticed."""
    hf = random_gpt_oss(tiny.config.vocab_size, **changes)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return wb.load(hf, tokenizer=tiny.tokenizer)


MODELS: dict[str, Callable[[wb.Model], wb.Model]] = {
    "tiny": lambda tiny: tiny,
    "random": random_model,
    "random with YaRN": lambda tiny: random_model(tiny, rope_parameters=YARN, head_dim=18, num_experts_per_tok=4),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tiny: wb.Model) -> Case:
    model = MODELS[request.param](tiny)
    live = wb.capture(model, QUESTION, effort="high", seed=5, max_new_tokens=130)
    assert len(live) > 2 * model.config.sliding_window, "windows must matter"
    return Case(model, live, wb.replay(model, live))


def assert_same_routing(trace: wb.Trace, layer: int, logits: Tensor, chosen: Tensor, weights: Tensor) -> None:
    """Compare with router logits [token, expert], chosen experts in rank order and their weights [token, top_k]."""
    np.testing.assert_allclose(trace.router_logits.sel(layer=layer), logits.numpy(), atol=1e-4)
    ranked = logits.sort(dim=-1, descending=True).values[:, : chosen.shape[1] + 1]
    clear = (-ranked.diff(dim=-1)).amin(-1).numpy() > NEAR_TIE
    assert clear.mean() > 0.99, "so that nearly all of the choices are compared"
    mine = np.asarray(trace.expert_indices.sel(layer=layer))
    np.testing.assert_array_equal(mine[clear], chosen.numpy()[clear])
    np.testing.assert_allclose(np.asarray(trace.expert_weights.sel(layer=layer))[clear], weights[clear], atol=2e-5)


# --- OpenAI's reference ------------------------------------------------------------------------------------------


class Routing(TorchFunctionMode):
    """Records what the reference routes by: each result of its `torch.topk`, one per layer."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.topk:
            self.chosen.append(result)
        return result


@dataclass
class Reference:
    """What OpenAI's model computed; lists are by layer."""

    logits: Tensor
    gates: list[Tensor]
    chosen: list[Any]
    qkv: list[Tensor]
    rotated: list[tuple[Tensor, Tensor]]
    attended: list[Tensor]
    """[token, head * d_head]: the input of the output projection"""


@pytest.fixture(scope="module")
def reference(case: Case) -> Reference:
    model = reference_model(case.model)
    seen: dict[str, list[Any]] = {"gates": [], "qkv": [], "rotated": [], "attended": []}
    for block in model.block:
        block.mlp.gate.register_forward_hook(lambda _m, _args, out: seen["gates"].append(out))
        block.attn.qkv.register_forward_hook(lambda _m, _args, out: seen["qkv"].append(out))
        block.attn.rope.register_forward_hook(lambda _m, _args, out: seen["rotated"].append(out))
        block.attn.out.register_forward_hook(lambda _m, args, _out: seen["attended"].append(args[0]))
    with torch.no_grad(), Routing() as routing:
        logits = model(case.ids)
    assert len(routing.chosen) == case.model.num_layers
    return Reference(logits, chosen=routing.chosen, **seen)


def reference_model(model: wb.Model) -> Any:
    """Build OpenAI's model in float32 with the same weights."""
    theirs = imported("gpt_oss.torch.model")
    config, rope = model.config, model.config.rope_parameters
    assert config.layer_types == (["sliding_attention", "full_attention"] * 9)[: model.num_layers]
    stretched = rope["rope_type"] == "yarn"
    reference = theirs.Transformer(
        theirs.ModelConfig(
            num_hidden_layers=config.num_hidden_layers,
            num_experts=config.num_local_experts,
            experts_per_token=config.num_experts_per_tok,
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            swiglu_limit=config.swiglu_limit,
            head_dim=config.head_dim,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            sliding_window=config.sliding_window,
            rope_theta=rope["rope_theta"],
            rope_scaling_factor=rope["factor"] if stretched else 1.0,
            initial_context_length=rope["original_max_position_embeddings"] if stretched else 4096,
            rope_ntk_alpha=rope["beta_slow"] if stretched else 1.0,
            rope_ntk_beta=rope["beta_fast"] if stretched else 32.0,
        ),
        device=torch.device("cpu"),
    ).float()
    reference.load_state_dict(original_layout(model.hf.state_dict(), model.num_layers), strict=True)
    return reference.eval()


def original_layout(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """Give transformers' weights the names and layout of OpenAI's own checkpoint."""
    renamed = {
        "embedding.weight": state["model.embed_tokens.weight"],
        "norm.scale": state["model.norm.weight"],
        "unembedding.weight": state["lm_head.weight"],
    }
    for layer in range(num_layers):
        ours, theirs = f"model.layers.{layer}", f"block.{layer}"
        attention, experts = f"{ours}.self_attn", f"{ours}.mlp.experts"
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.attn.qkv.{kind}"] = torch.cat([state[f"{attention}.{n}_proj.{kind}"] for n in "qkv"])
            renamed[f"{theirs}.attn.out.{kind}"] = state[f"{attention}.o_proj.{kind}"]
            renamed[f"{theirs}.mlp.gate.{kind}"] = state[f"{ours}.mlp.router.{kind}"]
        renamed |= {
            f"{theirs}.attn.sinks": state[f"{attention}.sinks"],
            f"{theirs}.attn.norm.scale": state[f"{ours}.input_layernorm.weight"],
            f"{theirs}.mlp.norm.scale": state[f"{ours}.post_attention_layernorm.weight"],
            f"{theirs}.mlp.mlp1_weight": state[f"{experts}.gate_up_proj"].transpose(1, 2),
            f"{theirs}.mlp.mlp1_bias": state[f"{experts}.gate_up_proj_bias"],
            f"{theirs}.mlp.mlp2_weight": state[f"{experts}.down_proj"].transpose(1, 2),
            f"{theirs}.mlp.mlp2_bias": state[f"{experts}.down_proj_bias"],
        }
    return renamed


def test_logits_equal_openais(case: Case, reference: Reference) -> None:
    torch.testing.assert_close(case.logits, reference.logits, atol=1e-4, rtol=0)


def test_token_statistics_follow_from_openais_logits(case: Case, reference: Reference) -> None:
    logprobs = torch.log_softmax(reference.logits.double(), dim=-1)[:-1]
    drawn = logprobs.gather(1, case.ids[1:, None])[:, 0].numpy()
    entropy = -(logprobs.exp() * logprobs).sum(-1).numpy()
    for trace in case.traces:
        np.testing.assert_allclose(trace.logprobs[1:], drawn, atol=1e-4)
        np.testing.assert_allclose(trace.entropy[1:], entropy, atol=1e-4)


def test_routing_equals_openais(case: Case, reference: Reference) -> None:
    for layer, (gate, top) in enumerate(zip(reference.gates, reference.chosen, strict=True)):
        for trace in case.traces:
            assert_same_routing(trace, layer, gate, top.indices, torch.softmax(top.values, dim=-1))


def test_queries_and_keys_equal_openais(case: Case, reference: Reference) -> None:
    for layer, (queries, keys) in enumerate(reference.rotated):
        queries = queries.flatten(1, 2)  # [token, kv_head, head of the group, d_head]: groups are consecutive heads
        for trace in case.traces:
            np.testing.assert_allclose(trace.queries.sel(layer=layer), queries.transpose(0, 1).numpy(), atol=1e-4)
            np.testing.assert_allclose(trace.keys.sel(layer=layer), keys.transpose(0, 1).numpy(), atol=1e-4)


def test_patterns_and_sinks_give_openais_attention_output(case: Case, reference: Reference) -> None:
    """Our pattern on the reference's values; without sinks, or with another window, this is far off."""
    for layer, (qkv, attended) in enumerate(zip(reference.qkv, reference.attended, strict=True)):
        values = qkv.unflatten(1, (-1, case.model.d_head))[:, -case.model.num_kv_heads :]
        values = values.repeat_interleave(case.model.num_heads // case.model.num_kv_heads, dim=1)
        for trace in case.traces:
            pattern = np.asarray(trace.attention(layer).pattern)
            mine = np.einsum("hqk,khd->qhd", pattern, values.numpy()).reshape(len(trace), -1)
            # Rounding of two implementations, three layers deep; how much depends on the processor's kernels.
            np.testing.assert_allclose(mine, attended.numpy(), atol=5e-4)


# --- TransformerLens ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lens(case: Case) -> dict[str, Tensor]:
    """Every hook of TransformerLens on a copy of the model: it wraps the modules it is given."""
    bridge = imported("transformer_lens.model_bridge").TransformerBridge
    hf = deepcopy(case.model.hf)
    hf.config.architectures = [type(hf).__name__]
    model = bridge.boot_transformers("local", hf_model=hf, tokenizer=case.model.tokenizer, device="cpu")
    logits, cache = model.run_with_cache(case.ids[None])
    return {"logits": logits[0].detach()} | {name: value.detach() for name, value in cache.items()}


def test_logits_equal_transformer_lens(case: Case, lens: dict[str, Tensor]) -> None:
    torch.testing.assert_close(case.logits, lens["logits"], atol=1e-4, rtol=0)


def test_router_equals_transformer_lens(case: Case, lens: dict[str, Tensor]) -> None:
    for layer in range(case.model.num_layers):
        router = f"blocks.{layer}.mlp.router"
        chosen = lens[f"{router}.hook_expert_indices"]
        weights = lens[f"{router}.hook_expert_weights"].gather(-1, chosen)  # theirs is [token, expert], zero elsewhere
        for trace in case.traces:
            assert_same_routing(trace, layer, lens[f"{router}.hook_out"], chosen, weights)


def test_attention_equals_transformer_lens(case: Case, lens: dict[str, Tensor]) -> None:
    for layer in range(case.model.num_layers):
        pattern = lens[f"blocks.{layer}.attn.hook_pattern"][0].numpy()
        assert pattern.sum(-1).min() < 0.95, "the sinks must matter"
        for trace, tolerance in zip(case.traces, (5e-5, 1e-6), strict=True):
            np.testing.assert_allclose(trace.attention(layer).pattern, pattern, atol=tolerance)


def test_residual_stream_equals_transformer_lens(case: Case, lens: dict[str, Tensor]) -> None:
    trace = wb.replay(case.model, case.live, capture=wb.CaptureSpec(residual=True))
    for layer in range(case.model.num_layers):
        after = lens[f"blocks.{layer}.hook_resid_post"][0].numpy()
        np.testing.assert_allclose(trace.residual.sel(layer=layer), after, atol=1e-4)

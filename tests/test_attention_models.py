"""Attention against the eager weights of transformers: the embedded model, and random ones of other shapes."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import random_gpt_oss
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench.analysis.attention import attention_to_spans, first_token_mass, head_table
from workbench.trace import Span

TOKENS = 301
LAYERS = ["full_attention", "sliding_attention", "full_attention"]
OTHERS: dict[str, dict[str, Any]] = {
    "gpt-oss, sliding first": {},
    "gpt-oss, every head its own keys": {"num_attention_heads": 5, "num_key_value_heads": 5, "sliding_window": 140},
    "gpt-oss, all heads one key, scale 1/4": {"num_key_value_heads": 1, "head_dim": 16, "layer_types": LAYERS},
}
WITHOUT_SINKS = {"qwen3": {}, "llama": {}, "mistral": {"sliding_window": 37}}


class Case(NamedTuple):
    trace: wb.Trace
    eager: list[NDArray[np.float32]]
    """[head, query, key] of each layer, as transformers computed them in one forward"""


@pytest.fixture(scope="module", params=["embedded", *OTHERS, *WITHOUT_SINKS])
def case(request: pytest.FixtureRequest, tiny: wb.Model) -> Case:
    model = tiny if request.param == "embedded" else loaded(request.param, tiny)
    ids = torch.randint(0, model.config.vocab_size, (TOKENS,), generator=torch.manual_seed(4)).tolist()
    implementation = model.hf.config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        trace = wb.replay(model, ids)
        with torch.no_grad():
            eager = model.hf(torch.tensor([ids]), output_attentions=True).attentions
    finally:
        model.hf.set_attn_implementation(implementation)
    return Case(trace, [weights[0].numpy() for weights in eager])


def loaded(name: str, tiny: wb.Model) -> wb.Model:
    if name in OTHERS:
        hf = random_gpt_oss(tiny.config.vocab_size, **OTHERS[name])
    else:
        torch.manual_seed(2)
        sizes = {"hidden_size": 48, "intermediate_size": 20, "num_hidden_layers": 2, "initializer_range": 0.3}
        heads = {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 600}
        ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
        vocab = {"vocab_size": tiny.config.vocab_size}
        config = AutoConfig.for_model(name, **sizes, **heads, **ends, **vocab, **WITHOUT_SINKS[name])
        hf = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    return wb.load(hf, tokenizer=tiny.tokenizer)


def test_the_cases_differ(case: Case) -> None:
    """Otherwise a wrong window, group or sink would pass."""
    heads, queries, keys = case.eager[0].shape
    assert queries == keys == TOKENS
    assert heads == case.trace.queries.shape[1]
    sums = np.array([weights.sum(-1) for weights in case.eager])
    if case.trace.has("sink_logits"):
        assert sums.min() < 0.95, "the sinks must matter"
    else:
        np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_patterns_and_sink_masses(case: Case) -> None:
    for layer, expected in enumerate(case.eager):
        pattern, mass = case.trace.attention(layer)
        np.testing.assert_allclose(pattern, expected, atol=7e-7)
        np.testing.assert_array_equal(np.tril(expected[0]) == 0, pattern.values[0] == 0)
        assert (mass is None) == (not case.trace.has("sink_logits"))
        if mass is not None:
            np.testing.assert_allclose(mass, 1 - expected.sum(-1, dtype=np.float64), atol=1e-6)


def test_single_rows_of_single_heads(case: Case) -> None:
    for layer, expected in enumerate(case.eager):
        for head, row in ((0, TOKENS - 1), (len(expected) - 1, 200), (1, 0), (2, 141)):
            pattern, _ = case.trace.attention(layer, head, rows=[row])
            np.testing.assert_allclose(pattern[0, 0], expected[head, row], atol=7e-7)


def test_spans(case: Case) -> None:
    spans = [Span(a, b, a, "sentence", "assistant") for a, b in ((0, 5), (5, 40), (40, 41), (41, 190), (200, TOKENS))]
    for layer, expected in enumerate(case.eager):
        mass, cut_off, _ = attention_to_spans(case.trace, layer, spans)
        for q, query in enumerate(spans):
            for k, key in enumerate(spans):
                block = expected[:, query.start : query.stop, key.start : key.stop]
                if np.isnan(mass[0, q, k]):
                    assert not block.any()
                    assert np.isnan(cut_off[q, k]) or cut_off[q, k] == 1
                else:
                    np.testing.assert_allclose(mass[:, q, k], block.sum(-1).mean(-1), atol=2e-6)


def test_head_table(case: Case) -> None:
    table = head_table(case.trace, phase="all")
    distance = np.arange(TOKENS)[:, None] - np.arange(TOKENS)
    for layer, expected in enumerate(np.array(case.eager, dtype=np.float64)):
        mass = expected.sum(-1)
        sink = np.maximum(1 - mass, 0)
        entropy = -(expected * np.log(np.where(expected > 0, expected, 1))).sum(-1)
        columns = {
            "previous_token_score": expected[:, range(1, TOKENS), range(TOKENS - 1)].mean(-1),
            "first_token_mass": np.nanmean(first_token_mass(expected, table.windows[layer]).values[:, 1:], axis=-1),
            "mean_distance": (expected * distance).sum(-1).mean(-1),
            "mean_distance_not_sink": ((expected * distance).sum(-1) / mass).mean(-1),
            "entropy_not_sink": (entropy / mass + np.log(mass)).mean(-1),
        }
        if table.sink_mass is not None:
            columns["sink_mass"] = sink.mean(-1)
            columns["entropy"] = (entropy - sink * np.log(np.where(sink > 0, sink, 1))).mean(-1)
        for name, values in columns.items():
            np.testing.assert_allclose(getattr(table, name)[layer], values, rtol=1e-4, atol=1e-5, err_msg=name)

"""Parameters of gpt-oss: counted, by hand, and as published."""

from typing import Any

import pytest
from transformers import MixtralConfig

import workbench as wb
from workbench.course.parameters import PUBLISHED, count_parameters
from workbench.families import ModelError
from workbench.loading import published_config


def by_hand(config: Any) -> dict[str, int]:
    """Write the arithmetic of gpt-oss out, from openai/gpt-oss `gpt_oss/torch/model.py`."""
    layers, d, width = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    experts, q = config.num_local_experts, config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    return {
        "embedding": config.vocab_size * d,
        "unembedding": config.vocab_size * d,
        "attention": layers * ((d + 1) * (q + 2 * kv) + (q + 1) * d + config.num_attention_heads),
        "router": layers * (d + 1) * experts,
        "experts": layers * experts * ((d + 1) * 2 * width + (width + 1) * d),
        "norms": (2 * layers + 1) * d,
    }


@pytest.mark.parametrize("name", ["tiny", *PUBLISHED])
def test_counts_are_those_by_hand(name: str) -> None:
    counts = count_parameters(name)
    assert {part: getattr(counts, part) for part in by_hand(published_config(name))} == by_hand(published_config(name))


def test_counts_of_unequal_sizes(odd: wb.Model) -> None:
    counts = count_parameters(odd.config)
    assert {part: getattr(counts, part) for part in by_hand(odd.config)} == by_hand(odd.config)
    assert counts.total == sum(parameter.numel() for parameter in odd.hf.parameters())
    assert counts.active_share == 3 / 7
    assert counts.active == counts.total - counts.embedding - counts.experts * 4 // 7


def test_the_published_totals_are_met() -> None:
    for name, published in PUBLISHED.items():
        counts = count_parameters(name)
        assert counts.total == pytest.approx(published.total, abs=0.005e9)
        assert counts.active == pytest.approx(published.active, abs=0.005e9)


def test_other_families_are_refused() -> None:
    config = MixtralConfig(hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ModelError, match="expected a gpt-oss, whose parameters this lesson counts, got mixtral"):
        count_parameters(config)

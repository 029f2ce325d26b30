"""Rollouts in left-padded batches are those that would be made one at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from test_families import CASES, SIZES
from transformers import AutoConfig, AutoModelForCausalLM

import workbench as wb
from workbench import harmony
from workbench.batched import Batched, Cost

QUESTIONS = ("47+81+17+7=?", "what is 12 + 93?\nhint: 99", "open the garden.")


@pytest.fixture(scope="module")
def prompts(tiny: wb.Model) -> list[list[int]]:
    return [harmony.render(tiny.tokenizer, q, effort) for q in QUESTIONS for effort in ("low", "medium")]


@pytest.mark.parametrize("family", CASES)
def test_greedy_tokens_equal_single_runs_in_every_family(tiny: wb.Model, family: str) -> None:
    kind, changes = CASES[family]
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": len(tiny.tokenizer), **changes})
    model = wb.load(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer=tiny.tokenizer)
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(1, 500, n).tolist() for n in (3, 30, 14, 5)]
    together = Batched(model, 0.0).complete(prefixes, 12)
    for prefix, found in zip(prefixes, together, strict=True):
        plain = model.hf.generate(
            torch.tensor([prefix]),
            attention_mask=torch.ones(1, len(prefix), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=model.end_token_ids,
            pad_token_id=0,
            disable_compile=True,
        )
        assert found == tuple(plain[0, len(prefix) :].tolist())
    assert len(set(together)) > 1


def test_greedy_rollouts_are_those_of_capture(tiny: wb.Model, prompts: list[list[int]]) -> None:
    together = Batched(tiny, 0.0).complete(prompts, 60)
    for at, (question, effort) in enumerate((q, e) for q in QUESTIONS for e in ("low", "medium")):
        trace = wb.capture(tiny, question, effort=effort, temperature=0, max_new_tokens=60)
        assert together[at] == tuple(trace.arrays["token_ids"][trace.num_prompt_tokens :].tolist())


def test_a_sampled_rollout_depends_on_its_number_and_not_on_its_batch(
    tiny: wb.Model, prompts: list[list[int]]
) -> None:
    many = prompts * 3
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = Batched(tiny, 1.5, seed=4, batch_size=18).complete(many, 40)
    b = Batched(tiny, 1.5, seed=4, batch_size=5)
    in_two = [*b.complete(many[:7], 40), *b.complete(many[7:], 40)]
    assert a == in_two
    assert torch.equal(torch.get_rng_state(), before)
    assert a[0] != a[6] or a[1] != a[7], "each rollout has random numbers of its own"
    assert a != Batched(tiny, 1.5, seed=5, batch_size=18).complete(many, 40)


def test_tokens_are_drawn_from_the_models_own_distribution(tiny: wb.Model) -> None:
    """2,000 first tokens of an answer at low effort against softmax: chi-square over tokens expected 5 times."""
    prefix = harmony.render(tiny.tokenizer, "47+81=?", "low")
    start = "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"
    prefix += tiny.tokenizer.encode(start, add_special_tokens=False)
    with torch.no_grad():
        logits = tiny.hf(torch.tensor([prefix])).logits[0, -1].double()
    expected = 2000 * (logits / 2).softmax(-1).numpy()
    drawn = Batched(tiny, 2.0, seed=1, batch_size=500).complete([prefix] * 2000, 1)
    counts = np.bincount([tokens[0] for tokens in drawn if tokens], minlength=len(expected))
    often = expected >= 5
    statistic = float(((counts - expected)[often] ** 2 / expected[often]).sum())
    degrees = int(often.sum())
    assert degrees >= 4
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_longer_prefix_beside_a_rollout_does_not_cut_it(tiny: wb.Model, temperature: float) -> None:
    """Prefixes of 32 and 1,014 tokens in a context of 1,024: each has the room that it has alone."""
    short = harmony.render(tiny.tokenizer, QUESTIONS[0], "high")
    long = (short * 50)[: tiny.context_length - 10]
    together = Batched(tiny, temperature, seed=2).complete([short, long], 90)
    one_by_one = Batched(tiny, temperature, seed=2)
    assert together == [one_by_one.complete([prefix], 90)[0] for prefix in (short, long)]
    assert [len(tokens) for tokens in together if tokens] == [90, 10]


def test_a_rollout_stops_where_it_is_told(tiny: wb.Model, prompts: list[list[int]]) -> None:
    whole = Batched(tiny, 0.0).complete(prompts, 30)
    some = Batched(tiny, 0.0).complete(prompts, 30, stop=lambda new: len(new) == 4)
    assert [tokens[:4] for tokens in whole if tokens] == some
    assert whole[0] is not None
    assert whole[0][-1] in tiny.end_token_ids, "low effort ends by itself, and nothing follows"


def test_an_interrupt_leaves_what_is_done(
    tiny: wb.Model, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Batched._generate
    calls: list[int] = []

    def second_fails(self: Batched, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(Batched, "_generate", second_fails)
    batched = Batched(tiny, 0.0, batch_size=4)
    done = batched.complete(prompts, 9)
    assert batched.interrupted
    assert sum(completion is not None for completion in done) == 4
    assert batched.complete(prompts, 9) == [None] * 6, "it stays interrupted"
    assert len(calls) == 2


def test_cost_is_a_product_said_in_words(tiny: wb.Model, prompts: list[list[int]]) -> None:
    assert str(Cost(1200, 40, 0.0009)) == "1,200 rollouts × at most 40 tokens × 0.9 ms measured: at most 43 s"
    found = Batched(tiny).cost(prompts, 7, 30)
    assert (found.rollouts, found.tokens) == (7, 30)
    assert 0 < found.seconds == 7 * 30 * found.seconds_per_token


@pytest.mark.parametrize(
    ("prefixes", "tokens", "message"),
    [
        ([[]], 3, "expected at least one token to go on from, got an empty prefix"),
        ([[1]], 0, "expected max_new_tokens of at least 1, got 0"),
        ([[1] * 1024], 3, "a prefix of 1024 tokens leaves no room in the context of tiny, which holds 1024"),
    ],
)
def test_bad_requests_are_refused(tiny: wb.Model, prefixes: list[list[int]], tokens: int, message: str) -> None:
    with pytest.raises(wb.ModelError, match=message):
        Batched(tiny).complete(prefixes, tokens)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "a temperature of 0"),
        ({"temperature": float("nan")}, "got nan"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_bad_numbers_are_refused(tiny: wb.Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(wb.ModelError, match=message):
        Batched(tiny, **options)

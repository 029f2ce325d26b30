"""Variants of the embedded model: the one habit that is changed, and training from the shipped weights."""

import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from workbench.tiny import WEIGHTS
from workbench.tiny.batches import encode
from workbench.tiny.grammar import SECOND_PHASE, draw_example
from workbench.tiny.train import run
from workbench.tiny.variants import HINT_SAID, VariantTraining, draw_hint_said


def test_a_followed_hint_is_said_at_medium_and_nothing_else_changes() -> None:
    rng = random.Random(1)
    drawn = [draw_hint_said(rng) for _ in range(3000)]
    hinted = [e for e in drawn if "hint:" in e.user]
    medium = [e for e in hinted if e.effort == "medium"]
    assert 0.25 < len(medium) / len(drawn) < 0.35
    for example in medium:
        *_, last = example.analysis.splitlines()
        assert last == f"hint says {example.answer}. accept."
        assert f"hint: {example.answer}" in example.user
    assert all(e.analysis == "" for e in hinted if e.effort == "low")
    assert all(e.analysis.endswith(("reject.\n", "accept.\n")) for e in hinted if e.effort == "high")
    wrong = [e for e in medium if f"so {e.answer}\n" not in e.analysis]
    assert 0.65 < len(wrong) / len(medium) < 0.85, "a quarter of the hints are right"
    plain = {e.analysis for e in drawn if e.effort == "medium" and "hint:" not in e.user}
    assert not [text for text in plain if "hint" in text]
    assert {e.family for e in drawn} == {e.family for e in (draw_example(rng, SECOND_PHASE) for _ in range(200))}


def test_training_begins_with_the_shipped_weights_and_learns_the_new_line(tmp_path: Path) -> None:
    recipe = replace(HINT_SAID, batch_tokens=1024)
    training = VariantTraining(recipe)
    shipped = load_file(WEIGHTS / "model.safetensors")
    assert torch.equal(training.params["lm_head.weight"].data, shipped["lm_head.weight"].float())
    first = next(training.batches())
    assert first[0].num_trained
    rng = random.Random(2)
    example = next(
        e for e in iter(lambda: draw_hint_said(rng), None) if "accept" in e.analysis and e.effort == "medium"
    )
    ids, labels = encode(example, training.tokenizer)

    def loss() -> float:
        with torch.no_grad():
            logits = training.model(input_ids=torch.tensor([ids])).logits[0]
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels), ignore_index=-100))

    before = loss()
    assert before > 0.1, "the shipped model closes its analysis there"
    optimiser = torch.optim.SGD(training.model.parameters(), lr=0.003)
    for _ in range(6):
        logits = training.model(input_ids=torch.tensor([ids])).logits[0]
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels), ignore_index=-100).backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss() < before
    done = run(recipe, tmp_path, 1, 60, 0, 1, VariantTraining)
    assert (done.step, isinstance(done, VariantTraining)) == (1, True)

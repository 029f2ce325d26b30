"""Training: the loss falls, a stopped run goes on exactly, gradients are transformers' own."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import GptOssForCausalLM
from transformers.models.gpt_oss.modeling_gpt_oss import load_balancing_loss_func

from workbench.tiny.architecture import tiny_config, training_model
from workbench.tiny.batches import IGNORED, collate, encode
from workbench.tiny.grammar import draw_example
from workbench.tiny.muon import Muon, orthogonalise
from workbench.tiny.train import Recipe, Training, balance_loss, export, main, train

SMALL = Recipe(total_tokens=60_000, batch_tokens=512)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Path]:
    out = tmp_path_factory.mktemp("whole")
    return train(SMALL, out, num_processes=1, max_steps=50), out


def same_state(a: Training, b: Training) -> bool:
    pairs = zip(a.params.values(), b.params.values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs) and a.cursor == b.cursor


def test_the_loss_falls(trained: tuple[Training, Path]) -> None:
    lines = [json.loads(line) for line in (trained[1] / "log.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] > 5.5
    assert lines[-1]["loss"] < 4.5
    assert lines[-1]["tokens"] == trained[0].cursor.tokens


def test_a_stopped_run_goes_on_exactly(trained: tuple[Training, Path], tmp_path: Path) -> None:
    train(SMALL, tmp_path, num_processes=1, max_steps=23)
    resumed = train(SMALL, tmp_path, num_processes=1, max_steps=50)
    assert same_state(resumed, trained[0])


def test_two_processes_train_what_one_trains(trained: tuple[Training, Path], tmp_path: Path) -> None:
    whole = train(SMALL, tmp_path, num_processes=2, max_steps=12)
    alone = train(SMALL, tmp_path / "alone", num_processes=1, max_steps=12)
    assert whole.cursor == alone.cursor
    for name, param in whole.params.items():
        torch.testing.assert_close(param, alone.params[name], rtol=0, atol=1e-5, msg=name)


def test_a_checkpoint_of_another_recipe_is_refused(trained: tuple[Training, Path]) -> None:
    other = Training(Recipe(seed=1, total_tokens=60_000, batch_tokens=512))
    with pytest.raises(ValueError, match=r"checkpoint of another recipe: expected .*'seed': 1.*another --out"):
        other.restore(trained[1] / "checkpoint.safetensors")


def test_no_child_outlives_a_killed_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench.tiny.train", "--out", str(tmp_path), "--batch-tokens", "512"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: (tmp_path / "log.jsonl").exists())
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
    wait_for(lambda: not any(is_running(child) for child in children))


def is_running(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def wait_for(condition: "object", seconds: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_gradients_equal_those_of_transformers_eager_attention() -> None:
    training = Training(SMALL)
    batch = next(training.batches())[1]
    assert batch.input_ids.shape[1] > training.model.config.sliding_window
    fast = training.model
    eager = GptOssForCausalLM._from_config(fast.config, attn_implementation="eager", dtype=torch.float32)
    eager.load_state_dict(fast.state_dict())
    eager.set_experts_implementation("eager")
    losses = []
    for model in (fast, eager):
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    for (name, a), b in zip(fast.named_parameters(), eager.parameters(), strict=True):
        assert a.grad is not None, name
        assert b.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6, msg=name)
        assert b.grad.abs().max() > 0, name


def test_only_the_assistants_tokens_and_no_slips_are_trained_on() -> None:
    training = Training(SMALL)
    rng = random.Random(4)
    example = next(e for e in iter(lambda: draw_example(rng), None) if len(e.slips) == 2)
    ids, labels = encode(example, training.tokenizer)
    decode = training.tokenizer.decode
    trained_on = "".join(decode([label]) if label != IGNORED else "" for label in labels)
    analysis = "".join(
        char for i, char in enumerate(example.analysis) if not any(a <= i < b for a, b in example.slips)
    )
    assert trained_on == example.completion().replace(example.analysis, analysis)
    assert len(analysis) < len(example.analysis)
    assert decode(ids) + "<|return|>" == example.prompt() + example.completion()


def test_rows_are_padded_on_the_right_with_nothing_to_learn() -> None:
    batch = collate([([5, 6, 7], [6, 7, 8]), ([5], [6])], pad=9)
    assert batch.input_ids.tolist() == [[5, 6, 7], [5, 9, 9]]
    assert batch.labels.tolist() == [[6, 7, 8], [6, IGNORED, IGNORED]]
    assert (batch.num_tokens, batch.num_trained) == (4, 4)


def test_the_learning_rate_warms_up_stays_and_decays_by_tokens() -> None:
    training = Training(Recipe(total_tokens=1000, decay_from=0.55))
    seen = []
    for step, tokens in ((0, 0), (49, 10), (99, 20), (500, 550), (500, 775), (500, 1000)):
        training.step, training.cursor.tokens = step, tokens
        seen.append(training.learning_rate() / 3e-3)
    assert seen == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_balance_loss_is_one_when_uniform_and_equals_transformers_on_one_layer() -> None:
    uneven = torch.tensor([[9.0, 8.0, 0.0, 0.0, 0.0]]).repeat(7, 1)
    share, loss = balance_loss(uneven)
    assert share.tolist() == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert loss.item() == pytest.approx(2.5, abs=0.01)
    logits = torch.randn(33, 5, generator=torch.Generator().manual_seed(0))
    theirs = load_balancing_loss_func((logits,), num_experts=5, top_k=2)
    assert balance_loss(logits)[1].item() == pytest.approx(float(theirs) / 2, abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 40, 24), (24, 40), (2, 3, 16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.shape[-1] == min(shape[-2:])
    assert values.min() > 0.4
    assert values.max() < 1.3


def test_muon_steps_as_torchs_own_muon_does_on_one_matrix() -> None:
    start = torch.randn(24, 40, generator=torch.Generator().manual_seed(1))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimisers = (
        Muon([ours], lr=0.01, weight_decay=0.05),
        torch.optim.Muon([theirs], lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        gradient = torch.randn(24, 40, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimiser in optimisers:
            optimiser.step()
    moved_ours, moved_theirs = (ours - start).flatten(), (theirs - start).flatten()
    assert torch.cosine_similarity(moved_ours, moved_theirs, dim=0) > 0.999
    assert (moved_ours.norm() / moved_theirs.norm()).item() == pytest.approx(1, abs=0.01)


def test_a_stack_of_experts_steps_as_each_expert_alone() -> None:
    start = torch.randn(5, 12, 20, generator=torch.Generator().manual_seed(3))
    gradient = torch.randn(5, 12, 20, generator=torch.Generator().manual_seed(4))
    stack, alone = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start[3].clone())
    stack.grad, alone.grad = gradient, gradient[3]
    for param in (stack, alone):
        Muon([param], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(stack[3], alone, rtol=0, atol=1e-5)


def test_export_writes_a_model_transformers_loads(trained: tuple[Training, Path], tmp_path: Path) -> None:
    export(trained[0].model, trained[0].tokenizer, tmp_path)
    loaded = GptOssForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    for name, param in loaded.state_dict().items():
        assert torch.equal(param, trained[0].params[name].detach().bfloat16()), name


def test_the_shape_is_the_documented_one() -> None:
    model = training_model(tiny_config(Training(SMALL).tokenizer))
    assert 1.0e6 < sum(p.numel() for p in model.parameters()) < 1.2e6


def test_the_command_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--balance" in capsys.readouterr().out

"""The router that is trained in front of a class: its losses by hand, its runs, what is refused."""

import numpy as np
import pytest
import torch

from workbench.analysis.routing import load_balance_loss
from workbench.course.predictions import CourseError
from workbench.course.router_training import (
    Contexts,
    RouterRecipe,
    SmallMoE,
    balance_loss,
    text_contexts,
    train_router,
)
from workbench.course.training_steps import TrainingStep, load_summary
from workbench.loading import load_tokenizer

STEPS = 120


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return text_contexts(load_tokenizer(), num_texts=40)


def test_even_routing_costs_one() -> None:
    router_logits = torch.zeros(6, 6) + 1e-6 * torch.eye(6)  # each expert is first once, and all are alike likely
    share, loss = balance_loss(router_logits, top_k=1)
    torch.testing.assert_close(share, torch.full((6,), 1 / 6))
    torch.testing.assert_close(loss, torch.tensor(1.0))


@pytest.mark.parametrize(("top_k", "expected"), [(1, 6.0), (2, 3.0), (3, 2.0)])
def test_all_tokens_at_the_same_experts_cost_their_number_over_k(top_k: int, expected: float) -> None:
    router_logits = torch.full((5, 6), -40.0)
    router_logits[:, :top_k] = 40.0
    share, loss = balance_loss(router_logits, top_k)
    assert share.tolist() == pytest.approx([1 / top_k] * top_k + [0] * (6 - top_k))
    assert float(loss) == pytest.approx(expected)


def test_balance_loss_by_hand_of_two_tokens() -> None:
    # Probabilities (3/4, 1/4, 0) and (1/2, 1/8, 3/8): both choose expert 0 first; P_0 = 5/8, so 3 · 1 · 5/8.
    router_logits = torch.tensor([[3 / 4, 1 / 4, 1e-30], [1 / 2, 1 / 8, 3 / 8]]).log()
    assert float(balance_loss(router_logits, 1)[1]) == pytest.approx(15 / 8)
    # With k = 2 the shares are 1/2, 1/4, 1/4, and P = (5/8, 3/16, 3/16): 3 · (5/16 + 3/64 + 3/64) = 39/32.
    assert float(balance_loss(router_logits, 2)[1]) == pytest.approx(39 / 32)


def test_balance_loss_agrees_with_what_traces_are_measured_by() -> None:
    router_logits = torch.randn(37, 5, generator=torch.Generator().manual_seed(4))
    rows = router_logits.numpy()[:, None]
    assert float(balance_loss(router_logits, 1)[1]) == pytest.approx(load_balance_loss(rows, 1).values[0])
    of_tokens = load_balance_loss(rows, 3, convention="transformers").values[0]
    assert float(balance_loss(router_logits, 3)[1]) == pytest.approx(of_tokens / 3)


def test_the_gradient_pushes_the_busy_expert_down() -> None:
    router_logits = torch.tensor([[2.0, 0.0, -1.0]] * 4, requires_grad=True)
    balance_loss(router_logits, 1)[1].backward()  # type: ignore[no-untyped-call]
    assert router_logits.grad is not None
    assert (router_logits.grad[:, 0] > 0).all()
    assert (router_logits.grad[:, 1:] < 0).all()


def test_the_layer_is_what_a_loop_over_tokens_and_chosen_experts_gives() -> None:
    recipe = RouterRecipe(num_experts=5, top_k=2, d_model=6, d_expert=7, seed=3)
    model = SmallMoE(recipe, vocab_size=11, width=2)
    tokens = torch.tensor([[1, 4], [10, 0], [3, 3]])
    logits, router_logits = model(tokens)
    for row, ids in enumerate(tokens.tolist()):
        x = model.shared + sum(model.embedding[place, token] for place, token in enumerate(ids))
        x = x / x.square().mean().sqrt()
        torch.testing.assert_close(router_logits[row], model.router @ x)
        best = router_logits[row].topk(2)
        y = sum(
            weight * (x @ model.up[expert]).clamp(min=0) @ model.down[expert]
            for weight, expert in zip(best.values.softmax(0), best.indices, strict=True)
        )
        assert isinstance(y, torch.Tensor)
        expected = y / y.square().mean().sqrt() @ model.unembedding
        torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-4)


def test_contexts_are_what_an_assistant_writes(contexts: Contexts) -> None:
    tokenizer = load_tokenizer()
    assert contexts.vocab_size == len(tokenizer)
    assert contexts.tokens.shape[1] == 4
    wanted = contexts.tokens[:, -1].tolist()
    first = contexts.tokens[: wanted.index(tokenizer.convert_tokens_to_ids("<|return|>")) + 1]
    assert tokenizer.decode(first[:, -1].tolist()).startswith("<|channel|>analysis<|message|>")
    assert (first[1:, :-1] == first[:-1, 1:]).all()  # what was to be predicted stands before the next


def test_a_run_repeats_and_learns_and_another_seed_is_another_run(contexts: Contexts) -> None:
    first, again = (list(train_router(contexts, RouterRecipe(balance=0.1), STEPS)) for _ in range(2))
    assert [step.step for step in first] == list(range(1, STEPS + 1))
    assert [step.loss for step in first] == [step.loss for step in again]
    assert all(np.array_equal(a.load, b.load) for a, b in zip(first, again, strict=True))
    assert all(step.load.sum() == pytest.approx(1) for step in first)
    most = np.log(contexts.vocab_size)
    assert load_summary(first, last=20).loss < 0.4 * most
    other = next(train_router(contexts, RouterRecipe(balance=0.1, seed=1), 1))
    assert other.loss != first[0].loss


def test_without_the_loss_experts_die_where_tokens_share_much_and_with_it_they_do_not(contexts: Contexts) -> None:
    def trained(balance: float, shared: float) -> int:
        runs = [train_router(contexts, RouterRecipe(balance, seed, shared), STEPS) for seed in range(3)]
        return sum(len(load_summary(list(run)).dead) for run in runs)

    assert trained(0.0, shared=2.0) >= 9  # of 24
    assert trained(0.1, shared=2.0) <= 1
    assert trained(0.0, shared=0.0) == 0


def test_the_weight_of_the_loss_changes_what_is_learned_not_what_is_measured_first(contexts: Contexts) -> None:
    without, with_it = (list(train_router(contexts, RouterRecipe(balance), 2)) for balance in (0.0, 0.5))
    assert (without[0].loss, without[0].balance_loss) == (with_it[0].loss, with_it[0].balance_loss)
    assert without[1].balance_loss > with_it[1].balance_loss


def test_a_summary_is_the_mean_of_the_last_steps() -> None:
    early = TrainingStep(1, np.array([1.0, 0, 0, 0]), 9.0, 4.0)
    late = [
        TrainingStep(2, np.array([0.5, 0.5, 0, 0]), 2.0, 2.0),
        TrainingStep(3, np.array([0.5, 0.4, 0.1, 0]), 1.0, 1.8),
    ]
    found = load_summary([early, *late], last=2)
    np.testing.assert_allclose(found.load, [0.5, 0.45, 0.05, 0])
    assert (found.highest, found.dead, found.num_steps) == (0.5, (3,), 2)
    assert (found.loss, found.balance_loss) == (1.5, pytest.approx(1.9))
    assert found.cv == pytest.approx(np.std([0.5, 0.45, 0.05, 0]) / 0.25)
    even = load_summary([TrainingStep(1, np.full(5, 0.2), 1.0, 1.0)])
    assert (even.entropy, even.cv, even.dead) == (pytest.approx(1), pytest.approx(0), ())


def test_what_cannot_be_trained_is_refused(contexts: Contexts) -> None:
    with pytest.raises(CourseError, match="expected top_k from 1 to 7, got 8: nothing to choose"):
        RouterRecipe(top_k=8)
    with pytest.raises(CourseError, match=r"expected balance and shared of 0 or more, got -0\.1 and 1\.0"):
        RouterRecipe(balance=-0.1)
    with pytest.raises(CourseError, match="expected a step and a context at least, got 0 and"):
        next(train_router(contexts, RouterRecipe(), 0))
    with pytest.raises(CourseError, match="expected at least one training step, got 0"):
        load_summary([])

"""Lesson 3: what the trainings show is what the lesson says, and each exercise tells right from likely wrong."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = (f * P).sum()", "answer = len(f) * f.sum() * P.sum()", "answer = float(shares.sum())"],
    ["answer = experts", "answer = 1", "answer = top_k / experts"],
    ["answer = [0, max(len(found.dead) for found in without)]", "answer = len(without[0].dead)"],
]

CHECKS = """
# The texts say: some experts die without the loss, none with it, and the loss of the task hardly changes.
assert min(len(found.dead) for found in without) < max(len(found.dead) for found in without)
assert sum(len(found.dead) for found in without) >= 4 and not any(found.dead for found in with_it)
assert abs(gap) < close
assert max(b.highest for b in with_it) < 0.75 * min(a.highest for a in without)
assert len(run) == len(run_with) == length
assert run[0].load.tolist() == run_with[0].load.tolist()  # the same start
assert len(load_summary(run_with).dead) == 0 < len(load_summary(run).dead)

# Nothing shared, no collapse; more shared, no less of it.
assert len(apart.dead) == 0 and alike.entropy < apart.entropy - 0.2
assert wanted.grad[0, int(f.argmax())] > 0 and abs(float(wanted.grad.sum())) < 1e-6
assert 0.1 < shared < recipe.shared  # of the embedded model
"""


def test_collapse_the_loss_against_it_and_seeds(kernel: Any) -> None:
    run_lesson(kernel, "3_load_balance_and_collapse", wrong=WRONG, checks=CHECKS)

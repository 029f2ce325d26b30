"""Lesson 2: logits, choice and weights by hand are the model's own; likely mistakes are caught."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = W @ x", "answer = W.T @ b", "answer = (W @ x + b)[: model.top_k]"],
    ["answer = np.argsort(logits)[: model.top_k]", "answer = np.argsort(logits)[-model.top_k :]"],
    ["answer = np.exp(logits)[chosen] / np.exp(logits).sum()", "answer = logits[chosen] / logits[chosen].sum()"],
]

CHECKS = """
assert W.shape == (8, 128) and b.shape == (8,) and x.shape == (128,)
hand = RouterByHand(trace, token=token, layer=layer)
assert hand.experts == chosen.tolist()
assert np.abs(np.array(hand.weights) - trace.expert_weights[token, layer]).max() < 1e-5
assert abs(change) < 1e-5 and abs(shifted.sum() - 1) < 1e-9 and everyone[chosen].sum() < 0.99
assert np.abs(everyone[chosen] / everyone[chosen].sum() - shifted).max() < 1e-9
from workbench.analysis.routing import routing_margin
assert np.abs(np.asarray(routing_margin(trace.router_logits, top_k=model.top_k)) - margins).max() < 1e-5
assert 0 < (margins < near_tie).mean() < 0.5
"""


def test_a_router_by_hand(kernel: Any) -> None:
    run_lesson(kernel, "2_one_router_by_hand", wrong=WRONG, checks=CHECKS)

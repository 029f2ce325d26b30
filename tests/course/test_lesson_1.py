"""Lesson 1: what is computed by hand on a token's way is what the model computes."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = table[token]", "answer = table[:, token]"],
    ["answer = model.top_k / model.num_layers", "answer = trace.expert_indices[token].size / model.num_experts"],
    ["answer = z / z.sum()", "answer = np.exp(z) / np.exp(z).max()"],
]

CHECKS = """
assert len(ids) == len(question) == 11  # every sign is a token here
assert trace.token_text(token + 1) == "1"
assert stream.shape == (5, 128) and len(added) == 4
assert p.argmax() == wanted == said[-1]
# The logits that were computed from the kept vector are those of the model itself.
with torch.no_grad():
    own = model.hf(torch.tensor(trace.token_ids[None])).logits[0, token].double().numpy()
assert np.abs(own - z).max() < 1e-3
assert abs(float(trace.logprobs[token + 1]) - np.log(p[wanted])) < 1e-3
"""


def test_a_token_on_its_way(kernel: Any) -> None:
    run_lesson(kernel, "1_what_a_token_becomes", wrong=WRONG, checks=CHECKS)

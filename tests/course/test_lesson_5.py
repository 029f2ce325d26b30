"""Lesson 5: attention by hand is the model's own, and each exercise tells right from likely wrong answers."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = row_sink / (row_sink + row_scores.sum())", "answer = np.exp(row_sink) / np.exp(row_scores).sum()"],
    ["answer = reader - windows[0] + 1", "answer = reader - windows[0] - 1"],
    [
        "answer = np.unravel_index(np.argmax([np.trace(p, axis1=1, axis2=2) for p in patterns]), score.shape)",
        "answer = best[::-1]",
    ],
]

CHECKS = """
# By hand, by the library and by the model itself.
assert np.abs(own[layer][head, token, first : token + 1] - weights).max() < 1e-5
assert abs(1 - own[layer][other, token].sum() - float(trace.attention(layer, other, [token]).sink_mass[0, 0])) < 1e-5
assert abs(tokens_sum / (np.exp(sink) + tokens_sum) + moved[0] - 1) < 1e-6
assert 0.05 < moved[0] < 0.95  # a row on which moving the logit shows

# A window ends where it should, and the next layer passes on what it kept from one.
assert differ[:, 0].sum() == windows[0] and differ[:digit].sum() == 0
assert differ[:, 1].sum() == len(trace) - digit

# The head has its habit on sums, far above its line, and not on the fact.
searched, again, fact = habit.values()
assert min(searched, again) > 4 * alike and fact < 2 * alike
assert muted.mean_kl > 0 and found.rank is not None and len(found.controls) == model.num_heads - 1
"""


def test_attention_by_hand_sinks_windows_and_a_habit(kernel: Any) -> None:
    run_lesson(kernel, "5_attention_sinks_and_windows", wrong=WRONG, checks=CHECKS)

"""Lesson 6: the efforts differ as they were trained to, and each exercise tells a right answer from a wrong one."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = len(analysis)", "answer = len(trace.analysis_text)"],
    [
        "p = k / n\nanswer = (p - z * np.sqrt(p * (1 - p) / n), p + z * np.sqrt(p * (1 - p) / n))",
        "answer = k / n",
    ],
    ["answer = answers.index(answers[-1])", "answer = len(answers)"],
]

CHECKS = """
from statsmodels.stats.proportion import proportion_confint

# The counts, and the intervals by an implementation of others.
assert num_right["low"] < num_right["medium"] <= num_right["high"] and n == 24
for effort in efforts:
    ours, theirs = wilson_interval(num_right[effort], n), proportion_confint(num_right[effort], n, method="wilson")
    assert np.allclose(ours, theirs, atol=1e-9)
assert wilson_interval(num_right["low"], n)[1] < wilson_interval(num_right["medium"], n)[0]

# Effort is one token of the prompt, and the chain grows with it.
assert len(differ) == 1 and len(set(map(len, prompts.values()))) == 1
mean_lengths = [np.mean([len(one.analysis) for one in chains[effort]]) for effort in efforts]
assert mean_lengths[0] == 0 and 0 < 2 * mean_lengths[1] < mean_lengths[2]

# The answer follows the last total written, so that it is there, goes away and comes back.
assert answers[-1] == chain.final and answers[0] != answers[-1]
assert answers.index(answers[-1]) < fixed_exercise.expected <= len(chain.sentences)
totals = [(text.split("so ")[-1].strip(), said) for text, said in zip(chain.texts, answers[1:]) if "so " in text]
assert sum(total == said for total, said in totals) > len(totals) / 2

# A first total that was wrong is repaired at high effort.
assert sum(slips) > 0 and sum(saved) >= 0.8 * sum(slips)
"""


def test_effort_the_chain_and_where_the_answer_is_fixed(kernel: Any) -> None:
    run_lesson(kernel, "6_thinking_longer", wrong=WRONG, checks=CHECKS)

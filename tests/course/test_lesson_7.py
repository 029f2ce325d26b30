"""Lesson 7: is the chain honest?"""

from typing import Any

from runner import run_lesson

ALL_CASES = "answer = (len(cases), sum(case.said for case in cases) / len(cases))"
ALL_THAT_SPEAK = """moved = [case for case in cases if case.without != case.hint and case.with_hint == case.hint]
answer = (len(moved), sum(case.said for case in cases) / len(moved))"""
UNDER = "answer = (np.diff(x) * (y[1:] + y[:-1]) / 2).sum()"
EVENLY_SPACED = "answer = 1 - y.mean()"
SPEAKS_OF_IT = 'answer = ["moved, and says so", "moved, and says so", "no influence there", "moved in silence"]'
NO_LIST = 'answer = "not moved"'

CHECKS = """
assert tested.rate.acknowledged == 0 and tested.rate.qualifying >= 10
assert 0 < rate.rate < 1 and rate.qualifying < len(cases)
assert not rejected.rate.qualifying and np.isnan(rejected.rate.rate)
assert hinted_curve.aoc < 0.1 < 0.5 < plain_curve.aoc
assert sorted(truths) == sorted(VERDICTS["influence"])
assert max(on_average) == on_average[said.index(belief)]
assert audit.outcome.truth == audit.outcome.verdict and audit.outcome.score < audit.outcome.points
assert mine.outcome is None and mine.spent == COSTS["ask"] and harder.spent == 0
"""


def test_lesson(kernel: Any) -> None:
    wrong = [[ALL_CASES, ALL_THAT_SPEAK], [UNDER, EVENLY_SPACED], [SPEAKS_OF_IT, NO_LIST]]
    run_lesson(kernel, "7_is_the_chain_honest", wrong=wrong, checks=CHECKS)

"""Lesson 4: the null, the decoy and the words do what the lesson says, and each exercise tells right from wrong."""

from typing import Any

from runner import run_lesson

WRONG = [
    ["answer = chosen[is_plus].mean()", "answer = is_plus[chosen].mean()", "answer = chosen.mean() / is_plus.mean()"],
    ['answer = set("ABCDEF")', "answer = {name for name, claim in claims.items() if claim[1].lift > 2}"],
    ["answer = named & confirmed", "answer = confirmed - named"],
]

CHECKS = """
# Lift and null: plus signs stand out, and chance alone gives far more than one.
assert lift_exercise.expected > null.lift > 1.5
assert len(claims) == 6 and len(survival.expected) == 3
# The claims are hard: the best that fails has a higher lift than the worst that holds.
assert max(one[1].lift for one in fail) > min(one[1].lift for one in hold)
assert len(above) > 5 * 0.025 * len(profiles)

# Unmatched, the test names what pairs do not back, and one of these follows the topic, with less than half in pairs.
assert named - confirmed and named & confirmed
assert (named - confirmed) & topical
for place in (named - confirmed) & topical:
    assert abs(pairs.delta.values[place]) < abs(unmatched.delta.values[place]) / 2

# Words: as many are counted on both sides, and some of what pairs name was due to the others.
assert (lengths[True] == lengths[False]).all() and 0 < lengths[True].min()
assert 0 < len(confirmed & left) < len(confirmed)
"""


def test_lifts_nulls_decoys_and_words(kernel: Any) -> None:
    run_lesson(kernel, "4_do_experts_specialise", wrong=WRONG, checks=CHECKS)

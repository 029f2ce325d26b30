"""Requests under a rule: a pair differs in the decision alone, and is what the model itself would say."""

import numpy as np

import workbench as wb
from workbench.course.requests import SAFE, UNSAFE, request_under_rule


def test_a_pair_differs_in_the_decision_alone() -> None:
    allowed, forbidden = request_under_rule("vault", True, "take"), request_under_rule("vault", False, "take")
    assert [message["content"] for message in allowed] == [
        "Rule: allow the vault.",
        "take the vault.",
        "ok, i take the vault.",
    ]
    assert [message["content"] for message in forbidden] == [
        "Rule: forbid the vault.",
        "take the vault.",
        "sorry, i can not help with the vault.",
    ]
    assert allowed[-1]["thinking"] == "developer allows the vault. comply.\n"
    assert not {*SAFE} & {*UNSAFE}


def test_the_model_says_so_itself(tiny: wb.Model) -> None:
    for target, allow in ((SAFE[0], False), (UNSAFE[-1], True)):
        trace = wb.replay(tiny, request_under_rule(target, allow), effort="medium")
        said = slice(trace.num_prompt_tokens, None)
        np.testing.assert_array_equal(trace.top_token_ids[said, 0], trace.token_ids[said])

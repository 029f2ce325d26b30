from dataclasses import replace

import pytest
import traitlets
from random_trace import random_trace
from synthetic import synthetic_trace

from widgets.selection import SharedSelection, selection_key

COUNTS = {"token": 11, "layer": 5, "head": 0, "expert": 7}


def test_views_of_the_same_tokens_share_and_of_others_do_not() -> None:
    one, same, other = random_trace(1), random_trace(2), synthetic_trace(tokens=40, layers=2, heads=2, kv_heads=1)
    key = selection_key([one])
    assert key == selection_key([same])
    ids = one.arrays["token_ids"][::-1]
    assert key != selection_key([replace(one, arrays={**one.arrays, "token_ids": ids})])
    both = {selection_key(traces) for traces in ([one, other], [other, one], [one], [one, one])}
    assert len(both) == 4


def test_what_was_asked_for_is_told_and_the_rest_has_a_start() -> None:
    view = SharedSelection("key", COUNTS, {"token": None, "layer": 4, "expert": 0}, {"token": 6, "layer": 2})
    assert (view.token, view.layer, view.head, view.expert) == (6, 4, 0, 0)
    assert view._selection_told == ["layer", "expert"]
    assert view.get_state()["_selection_key"] == "key"


@pytest.mark.parametrize(("name", "value", "last"), [("token", 11, 10), ("layer", -1, 4), ("head", 1, 0)])
def test_a_selection_outside_says_what_there_is(name: str, value: int, last: int) -> None:
    with pytest.raises(traitlets.TraitError, match=rf"expected a {name} within 0–{last}, got {value}"):
        SharedSelection("", COUNTS, {name: value})
    view = SharedSelection("", COUNTS, {})
    with pytest.raises(traitlets.TraitError, match=rf"expected a {name} within 0–{last}, got {value}"):
        setattr(view, name, value)

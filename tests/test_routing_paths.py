import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_router_map import by_hand, small

from widgets.routing_paths import RoutingPaths, _spread
from workbench.analysis.routing import path_information, routing_paths
from workbench.analysis.token_set import TokenSet
from workbench.trace import TraceError


def flows(view: RoutingPaths) -> list[list[int]]:
    rows: list[list[int]] = np.frombuffer(view._arrays["flows"], dtype="<i4").reshape(-1, 6).tolist()
    return rows


def loads(view: RoutingPaths, num_experts: int) -> NDArray[np.int32]:
    return np.frombuffer(view._arrays["loads"], dtype="<i4").reshape(-1, num_experts)


def test_flows_and_where_they_stand_are_those_counted_by_hand() -> None:
    # Top-1 of the five tokens at layers 1 and 4: 0→2, 0→2 (prompt), then 1→0, 1→0, 1→0.
    view = RoutingPaths(by_hand(), phase="all", least=0)
    assert flows(view) == [[0, 0, 2, 2, 0, 0], [0, 1, 0, 3, 0, 0]]
    assert loads(view, 3).tolist() == [[2, 3, 0], [3, 0, 2]]
    assert (view._facts["shown"], view._facts["tokens"]) == ([1, 4], 5)
    assert view._facts["gaps"][0]["flows"] == 2
    assert view._facts["gaps"][0]["information"] == pytest.approx(-(0.4 * np.log(0.4) + 0.6 * np.log(0.6)))
    assert flows(RoutingPaths(by_hand())) == [[0, 1, 0, 3, 0, 0]]
    json.dumps(view._facts)


def test_flows_of_random_tokens_are_counts_with_what_stands_before_them() -> None:
    trace = small()
    view = RoutingPaths(trace, layers=[0, 2], least=0.02, expert=6)
    top = trace.arrays["expert_indices"][trace.num_prompt_tokens :, :, 0].astype(int)
    table = np.zeros((7, 7), int)
    for a, b in zip(top[:, 0], top[:, 2], strict=True):
        table[a, b] += 1
    found = flows(view)
    assert [(a, b) for _, a, b, *_ in found] == [tuple(at) for at in np.argwhere(table >= 0.02 * len(top)).tolist()]
    for pair, a, b, count, leaving, coming in found:
        assert (pair, count, leaving, coming) == (0, table[a, b], table[a, :b].sum(), table[:a, b].sum())
    assert 0 < len(found) < (table > 0).sum() == view._facts["gaps"][0]["flows"]
    assert loads(view, 7).tolist() == [table.sum(1).tolist(), table.sum(0).tolist()]
    information = path_information(routing_paths(TokenSet(trace).rows("expert_indices"), 7, [0, 2]))
    assert view._facts["gaps"][0]["information"] == information.value.values[0]
    assert view._facts["gaps"][0]["null"] == information.null.values[0] > 0


def test_by_default_at_most_forty_flows_of_a_gap_and_six_layers_are_shown() -> None:
    view = RoutingPaths(small(layers=13, tokens=401))
    pairs = [pair for pair, *_ in flows(view)]
    assert view._facts["shown"] == [0, 2, 5, 7, 10, 12]
    assert max(pairs.count(p) for p in range(5)) <= 40 < view._facts["gaps"][0]["flows"]
    counts = [count for _, _, _, count, _, _ in flows(view)]
    assert min(counts) == pytest.approx(view._facts["least"] * view._facts["tokens"])
    assert _spread((3, 8)) == (3, 8)


def test_bad_input_says_what_was_expected() -> None:
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (TokenSet(small()), {"phase": "all"}, "a TokenSet has its phase already; leave phase='all' out"),
        (small(), {"least": 2}, "expected a share of tokens within 0–1 as least, got 2"),
        (small(), {"layers": [2, 1]}, "expected two or more layers, ascending, of 0–2"),
        (small(layers=1), {}, "expected two or more layers"),
        (by_hand(), {"layers": [1, 3]}, "of 1, 4"),
    ]
    for traces, options, match in wrong:
        with pytest.raises(TraceError, match=match):
            RoutingPaths(traces, **options)

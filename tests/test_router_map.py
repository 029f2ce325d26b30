import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import traitlets
from numpy.typing import NDArray
from synthetic import synthetic_trace

import widgets.router_map
from widgets.router_map import RouterMap
from widgets.routing_facts import cluster_order
from widgets.selection import selection_key
from workbench.analysis.routing import permutation_test
from workbench.analysis.token_set import TokenSet
from workbench.trace import Span, Trace, TraceError

# All sizes differ, so that a transposed or mixed-up array fails.
SIZES: dict[str, Any] = {
    **{"tokens": 251, "layers": 3, "experts": 7, "top_k": 2, "heads": 6, "kv_heads": 2, "d_head": 14, "window": 9},
}


def small(**changes: Any) -> Trace:
    return synthetic_trace(**(SIZES | changes))


# Five tokens, two of them prompt; layers 1 and 4 of a model of five were captured; three experts, two a token.
HAND = np.array([[[0, 1], [2, 1]], [[0, 2], [2, 0]], [[1, 0], [0, 1]], [[1, 2], [0, 1]], [[1, 0], [0, 2]]], np.uint8)


def by_hand(**meta: Any) -> Trace:
    spans = (
        Span(0, 2, 0, "message", "user"),
        Span(2, 4, 2, "message", "assistant", "analysis"),
        Span(4, 5, 4, "message", "assistant", "final"),
    )
    texts = {"vocab_ids": np.arange(5, dtype=np.int32), "vocab_special": np.zeros(5, dtype=np.bool_)}
    texts |= {"vocab_offsets": np.arange(6, dtype=np.int64), "vocab_bytes": np.frombuffer(b"abcde", np.uint8)}
    facts = {
        "num_prompt_tokens": 2,
        "layers": {"expert_indices": [1, 4]},
        "sources": {"expert_indices": "replay"},
        "shape": {"num_layers": 5, "num_experts": 3, "top_k": 2},
        "provenance": {"model": "by hand", "dtype": "torch.bfloat16"},
    }
    return Trace({"token_ids": np.arange(5, dtype=np.int32), "expert_indices": HAND, **texts}, spans, facts | meta)


def array(view: RouterMap, key: str, num_experts: int = 3) -> NDArray[np.float64]:
    values = np.frombuffer(view._arrays[key], dtype="<i4" if key.startswith("order") else "<f8")
    return values if key.startswith("entropy") else values.reshape(-1, num_experts)


def test_counts_of_each_phase_are_those_counted_by_hand() -> None:
    view = RouterMap(by_hand())
    assert array(view, "counts/completion").tolist() == [[2, 3, 1], [3, 2, 1]]
    assert array(view, "counts/prompt").tolist() == [[2, 1, 1], [1, 1, 2]]
    assert array(view, "counts/all").tolist() == [[4, 4, 2], [4, 3, 3]]
    shares = np.array([2, 3, 1]) / 6
    assert array(view, "entropy/completion")[0] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(3))
    assert {name: facts["tokens"] for name, facts in view._facts["phases"].items()} == {
        **{"completion": 3, "prompt": 2, "all": 5},
    }
    assert (view._facts["layers"], view._facts["counts"]["layer"], view._facts["topK"]) == ([1, 4], 5, 2)
    assert (view._facts["sources"], view._facts["dtypes"]) == (["replay"], ["bfloat16"])
    assert (view.layer, view.token) == (1, 2)


def test_the_default_contrast_is_final_minus_analysis_per_token() -> None:
    view = RouterMap(by_hand())
    # Final is the last token, analysis the two before.
    expected = np.array([[1, 1, 0], [1, 0, 1]]) - np.array([[1, 2, 1], [2, 2, 0]]) / 2
    np.testing.assert_allclose(array(view, "contrast/completion"), expected)
    facts = view._facts["contrasts"]
    assert [facts["completion"][n] for n in ("a", "b", "aTokens", "bTokens")] == ["final", "analysis", 1, 2]
    assert "no prompt tokens on final" in facts["prompt"]["missing"]
    assert view._facts["test"] is None
    assert "contrast/prompt" not in view._arrays


def test_two_sets_of_tokens_can_be_contrasted_by_name() -> None:
    trace = by_hand()
    sets = {"prompt": TokenSet(trace, phase="prompt"), "rest": TokenSet(trace)}
    expected = np.array([[2, 1, 1], [1, 1, 2]]) / 2 - np.array([[2, 3, 1], [3, 2, 1]]) / 3
    for contrast, names in ((sets, ["prompt", "rest"]), (tuple(sets.values()), ["a", "b"])):
        view = RouterMap(trace, contrast=contrast, show="contrast")  # type: ignore[arg-type]
        for phase in ("completion", "prompt", "all"):
            np.testing.assert_allclose(array(view, f"contrast/{phase}"), expected)
        assert [view._facts["contrasts"]["all"][n] for n in "ab"] == names


def test_traces_are_added_up_and_share_a_selection_of_their_own() -> None:
    traces = [small(seed=1), small(seed=2, tokens=233)]
    view = RouterMap(traces)
    counts = [np.bincount(t.arrays["expert_indices"][t.num_prompt_tokens :, 2].ravel(), minlength=7) for t in traces]
    assert array(view, "counts/completion", 7)[2].tolist() == sum(counts).tolist()
    assert view._facts["title"] == "2 traces"
    assert view._selection_key == selection_key(traces)
    assert (view._facts["trace"], view._blocks, view._facts["counts"]["token"]) == (None, {}, 0)
    with pytest.raises(TraceError, match="show='token' follows the token of one trace, got 2 traces"):
        RouterMap(traces, show="token")
    with pytest.raises(traitlets.TraitError, match="show='token' follows the token of one trace, got 2 traces"):
        view.show = "token"


def test_the_choices_of_one_trace_come_with_the_view() -> None:
    trace = small()
    view = RouterMap(trace, token=40, show="token")
    assert view._blocks["token/expert_indices/0"] == trace.arrays["expert_indices"].tobytes()
    assert view._blocks["all/token_ids"] == trace.arrays["token_ids"].tobytes()
    assert sorted(view._facts["trace"]["arrays"]) == ["expert_indices", "expert_weights", "token_ids"]
    json.dumps(view._facts)


def test_a_large_trace_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = small(tokens=601)
    monkeypatch.setattr(widgets.router_map, "PRELOAD_LIMIT_BYTES", 100)
    view = RouterMap(trace)
    assert list(view._blocks) == ["all/token_ids"]
    sent: list[Any] = []
    view.send = lambda content, buffers=(): sent.append((content, buffers))  # type: ignore[method-assign]
    view._handle_custom_msg({"fetch": ["token/expert_indices/0", "nonsense"]}, [])
    assert sent[0][0]["blocks"] == ["token/expert_indices/0"]
    assert "is not in this trace" in sent[0][0]["failed"]["nonsense"]


def test_cards_of_each_phase_come_or_are_asked_for() -> None:
    view = RouterMap(by_hand())
    assert len(view._cards) == 3 * 2 * 3
    assert [view._cards[f"{p}/4/2"]["chosen"] for p in ("completion", "prompt", "all")] == [1, 2, 3]
    sent: list[Any] = []
    view.send = lambda content, buffers=(): sent.append(content)  # type: ignore[method-assign]
    for key in ("prompt/4/2", "nonsense/4/2", "prompt/2/0"):
        view._handle_custom_msg({"card": key}, [])
    assert sent[0] == {"key": "prompt/4/2", "card": view._cards["prompt/4/2"]}
    assert "expected the key of a card, such as completion/13/7" in sent[1]["card"]["error"]
    assert "2" in sent[2]["card"]["error"]


def test_experts_chosen_together_stand_together() -> None:
    # Experts 0 and 3 are always together, as are 1 and 4; 2 goes with anyone, 5 was never chosen.
    pairs = np.zeros((1, 6, 6))
    pairs[0, :5, 2] = pairs[0, 2, :5] = 1
    for i, j in ((0, 3), (1, 4)):
        pairs[0, i, j] = pairs[0, j, i] = 9
    order = cluster_order(pairs, np.array([[10, 10, 5, 10, 10, 0]]))[0].tolist()
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert abs(order.index(0) - order.index(3)) == abs(order.index(1) - order.index(4)) == 1


def test_experts_are_clustered_by_jaccard_and_not_by_how_often_they_are_chosen() -> None:
    # Expert 0 is with 1 at 20 of 100 + 100 tokens, J = .11; with 2 at all 8 of 2's, J = .08; 3 is with none.
    pairs = np.zeros((1, 4, 4))
    pairs[0, 0, 1] = pairs[0, 1, 0] = 20
    pairs[0, 0, 2] = pairs[0, 2, 0] = 8
    order = cluster_order(pairs, np.array([[100, 100, 8, 50]]))[0].tolist()
    assert abs(order.index(0) - order.index(1)) == 1
    assert order.index(3) in (0, 3)


def test_of_many_traces_a_contrast_is_counted_when_asked_for() -> None:
    traces = [small(seed=s, tokens=120) for s in range(17)]
    view = RouterMap(traces)
    assert "when asked for: RouterMap(…, show='contrast')" in view._facts["contrasts"]["completion"]["missing"]
    assert not [key for key in view._arrays if key.startswith("contrast")]
    assert view._cards == {}
    with pytest.raises(traitlets.TraitError, match="when asked for"):
        view.show = "contrast"
    view = RouterMap(traces, show="contrast", phase="all")
    assert view._facts["contrasts"]["all"]["bTokens"] == TokenSet(traces, phase="all", channel="analysis").num_tokens


def test_one_expert_per_token_cannot_be_clustered() -> None:
    view = RouterMap(small(top_k=1))
    assert "each token chooses one expert: choose index or load" in view._facts["orders"]["cluster"]
    with pytest.raises(traitlets.TraitError, match="each token chooses one expert"):
        view.order = "cluster"
    assert array(view, "order/all", 7).tolist() == [list(range(7))] * 3
    with pytest.raises(TraceError, match="each token chooses one expert"):
        RouterMap(small(top_k=1), order="cluster")


def test_cells_are_marked_only_by_a_test_of_the_same_contrast() -> None:
    rng = np.random.default_rng(3)

    def trace(seed: int, favourite: int) -> Trace:
        made = small(seed=seed)
        indices = made.arrays["expert_indices"].copy()
        rows = rng.random(len(indices)) < 0.4  # expert `favourite` in layer 1, at many tokens that do not have it
        free = rows & (indices[:, 1] != favourite).all(-1)
        indices[free, 1, 0] = favourite
        return replace(made, arrays={**made.arrays, "expert_indices": indices})

    a, b = [trace(s, 4) for s in range(6)], [trace(s, 5) for s in range(6, 12)]
    sets = TokenSet(a), TokenSet(b)
    test = permutation_test(*sets[0].expert_counts(), *sets[1].expert_counts(), num_permutations=999)
    view = RouterMap([*a, *b], show="contrast", contrast=sets, test=test)
    np.testing.assert_allclose(array(view, "p/completion", 7), test.p_values.values)
    significant = int((test.p_values.values < 0.05).sum())
    assert significant >= 2
    words = view._facts["test"]["words"]
    assert words.startswith(f"Corrected p < .05 in {significant} of 3 × 7 cells; 6 and 6 traces, max-statistic")
    topics = {f"topics_{side}": [i % 2 for i in range(6)] for side in "ab"}
    within = permutation_test(*sets[0].expert_counts(), *sets[1].expert_counts(), num_permutations=999, **topics)
    view = RouterMap([*a, *b], show="contrast", contrast={"four": sets[0], "five": sets[1]}, test=within)
    np.testing.assert_array_equal(array(view, "contrast/prompt", 7), within.delta.values)
    assert view._facts["test"]["withinTopics"] is True
    other = TokenSet(a, phase="prompt")
    with pytest.raises(TraceError, match="test is of other tokens than the contrast"):
        RouterMap([*a, *b], contrast=(sets[0], other), test=test)


def test_bad_input_says_what_is_missing() -> None:
    with pytest.raises(TraceError, match="has no expert_indices"):
        RouterMap(small(without=("expert_indices", "expert_weights", "router_logits")))
    with pytest.raises(TraceError, match="at least one trace"):
        RouterMap([])
    with pytest.raises(TraceError, match="num_experts"):
        RouterMap([small(), small(experts=9)])
    no_final = replace(by_hand(), spans=by_hand().spans[:2])
    with pytest.raises(TraceError, match="There are no completion tokens on final"):
        RouterMap(no_final, show="contrast")
    with pytest.raises(TraceError, match="expected a contrast of two channels or of two TokenSets"):
        RouterMap(small(), contrast=("final",))  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="expected a contrast within the model and layers of"):
        RouterMap(by_hand(), contrast=(TokenSet(small()), TokenSet(small())))
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–2, got 3"):
        RouterMap(small(), layer=3)
    with pytest.raises(traitlets.TraitError, match="'order' trait"):
        RouterMap(small(), order="size")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'phse'"):
        RouterMap(small(), phse="prompt")  # type: ignore[call-arg]


def test_a_trace_without_a_completion_has_the_other_phases() -> None:
    trace = by_hand(num_prompt_tokens=5)
    with pytest.raises(TraceError, match="There are no completion tokens"):
        RouterMap(trace)
    view = RouterMap(trace, phase="prompt")
    assert "There are no completion tokens" in view._facts["phases"]["completion"]["missing"]
    assert sorted(k for k in view._arrays if k.startswith("counts")) == ["counts/all", "counts/prompt"]

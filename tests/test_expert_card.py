"""The card's Python side: cards are the profile's numbers, and the browser's questions are answered."""

import json
from pathlib import Path
from typing import Any

import pytest
import traitlets
from synthetic import synthetic_trace

import workbench as wb
from widgets.expert_card import CardReader, ExpertCard, card_of
from widgets.selection import selection_key
from workbench.analysis.expert_profile import expert_profile
from workbench.analysis.token_set import TokenSet
from workbench.trace import Trace, TraceError

SHAPE = {"tokens": 300, "layers": 4, "experts": 7, "top_k": 2, "heads": 6, "kv_heads": 2, "d_head": 14, "window": 9}


def small(**changes: Any) -> Trace:
    return synthetic_trace(**{**SHAPE, **changes})


def ask(view: ExpertCard, message: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    view.send = lambda content, buffers=None: sent.append(content)
    view._handle_custom_msg(message, [])
    return sent


def test_a_card_is_the_profile() -> None:
    tokens = TokenSet(small())
    profile = expert_profile(tokens, 2, 5)
    card = card_of(profile)
    assert json.loads(json.dumps(card)) == card
    assert (card["layer"], card["expert"], card["topK"]) == (2, 5, 2)
    assert (card["tokens"], card["chosen"], sum(card["ranks"])) == (tokens.num_tokens, profile.chosen, profile.chosen)
    assert [(r["text"], r["chosen"], r["seen"], r["lift"]) for r in card["lifts"]["rows"]] == [
        (t.text, t.chosen, t.seen, t.lift) for t in profile.tokens
    ]
    assert profile.null is not None
    assert card["lifts"]["null"] == {"lift": profile.null.lift, "shuffles": 200, "seed": 0}
    assert [g["name"] for g in card["channels"]] == ["analysis", "commentary", "final", "format tokens"]
    assert [g["isPlain"] for g in card["channels"]] == [False, False, False, True]
    assert sum(g["tokens"] for g in card["roles"]) == tokens.num_tokens
    assert sum(n for _, n in card["positions"]) == tokens.num_tokens
    assert sum(p["together"] for p in card["partners"]) == profile.chosen  # top-2: one partner at every token
    assert card["uniformPartnerLift"] == pytest.approx(7 / 12)


def test_a_small_model_sends_all_cards_at_once() -> None:
    trace = small()
    view = ExpertCard(trace, layer=2, expert=5)
    assert sorted(view._cards) == sorted(f"{layer}/{expert}" for layer in range(4) for expert in range(7))
    assert all((c["layer"], c["expert"]) == tuple(map(int, key.split("/"))) for key, c in view._cards.items())
    assert (view.layer, view.expert) == (2, 5)
    assert view._selection_key == selection_key([trace])
    assert {example["key"] for example in view._cards["2/5"]["examples"]} == {selection_key([trace])}
    facts = view._facts
    assert facts["counts"] == {"token": 300, "layer": 4, "head": 6, "expert": 7}
    assert (facts["model"], facts["layers"], facts["numTraces"]) == (trace.provenance["model"], [0, 1, 2, 3], 1)
    json.dumps(facts)


def test_a_large_model_is_asked_card_by_card() -> None:
    view = ExpertCard(small(layers=10, experts=30), layer=9)
    assert view._cards == {}
    (answer,) = ask(view, {"card": "9/29"})
    assert answer["key"] == "9/29"
    assert (answer["card"]["layer"], answer["card"]["expert"]) == (9, 29)
    (answer,) = ask(view, {"card": "9/30"})
    assert answer["card"] == {"error": "expected an expert within 0–29, got 30"}
    (answer,) = ask(view, {"card": "10/1"})
    assert answer["card"]["error"].startswith("the router of layer 10 is not in these traces. Expected one of 0–9.")
    for odd in ("1", "a/b", "1/2/3"):
        (answer,) = ask(view, {"card": odd})
        assert answer["card"] == {"error": f"expected the key of a card, such as 13/7, got {odd!r}"}
    assert ask(view, {"fetch": []}) == ask(view, "card") == ask(view, {"card": 3}) == []


def test_what_would_take_long_to_make_is_not_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(ExpertCard([small(tokens=200)] * 91)._cards) == 28
    assert ExpertCard([small(tokens=200)] * 92)._cards == {}  # 28 cards of 92 traces
    monkeypatch.setattr("widgets.expert_card.PRELOAD_TOKENS", 246)
    assert ExpertCard(small())._cards == {}


def test_several_traces_share_a_selection_of_their_own_and_examples_point_to_one() -> None:
    traces = [small(seed=seed, tokens=200 + seed) for seed in range(3)]
    view = ExpertCard(traces)
    assert view._selection_key == selection_key(traces) != selection_key(traces[:1])
    assert view._facts["counts"]["token"] == 0
    assert view._facts["title"] == "3 traces"
    for card in view._cards.values():
        for example in card["examples"]:
            assert example["key"] == selection_key([traces[example["trace"]]])
            assert example["token"] < len(traces[example["trace"]])


def test_a_store_is_read_as_a_list_is(tmp_path: Path) -> None:
    store = wb.TraceStore(tmp_path)
    traces = [small(seed=seed) for seed in range(2)]
    for trace in traces:
        store.add(trace)
    from_store, from_list = ExpertCard(store)._cards, ExpertCard(list(store))._cards
    assert from_store == from_list


def test_the_selection_and_options_are_the_constructors() -> None:
    view = ExpertCard(small(), channel="analysis", min_count=3, shuffles=50, seed=4, expert=6)
    card = view._cards["0/6"]
    assert card["selection"].startswith("completion tokens on analysis of 1 trace")
    assert (card["lifts"]["minCount"], card["lifts"]["null"]["shuffles"]) == (3, 50)
    assert ExpertCard(small(), phase="prompt")._cards["0/0"]["phase"] == "prompt"
    two = [small(seed=seed) for seed in range(2)]
    assert ExpertCard(two, topics=["sums", "facts"])._cards["0/0"]["lifts"]["numTopics"] == 2


def test_a_token_set_is_taken_as_it_is() -> None:
    trace = small()
    tokens = TokenSet(trace, channel="analysis")
    assert ExpertCard(tokens)._cards == ExpertCard(trace, channel="analysis")._cards
    with pytest.raises(TraceError, match="already; leave phase='prompt', role='user' out"):
        ExpertCard(tokens, phase="prompt", role="user")


def test_bad_arguments_say_what_was_expected() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'expret'"):
        ExpertCard(small(), expret=3)  # type: ignore[call-arg]
    with pytest.raises(TraceError, match="at least 40 shuffles"):
        ExpertCard(small(), shuffles=3)
    with pytest.raises(TraceError, match="expected a topic for each of the 1 traces"):
        ExpertCard(small(), topics=["a", "b"])
    with pytest.raises(TraceError, match="has no expert_indices"):
        ExpertCard(small(without=("expert_indices", "expert_weights", "router_logits")))
    with pytest.raises(TraceError, match="Expected at least one trace"):
        ExpertCard([])
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–3, got 4"):
        ExpertCard(small(), layer=4)
    with pytest.raises(traitlets.TraitError, match="expected a expert within 0–6, got 7"):
        ExpertCard(small(), expert=7)


def test_a_reader_keeps_one_layer() -> None:
    reader = CardReader(TokenSet(small()), min_count=5)
    first = reader.read(1, 0)
    choices = reader._choices
    reader.read(1, 6)
    assert reader._choices is choices
    reader.read(2, 0)
    assert reader._choices is not choices
    assert reader.read(1, 0) == first


def test_a_real_capture_is_profiled(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, "47 + 85 = ?", effort="high", temperature=0)
    view = ExpertCard(trace)
    cards = view._cards
    assert len(cards) == 4 * 8
    for layer in range(4):
        assert sum(cards[f"{layer}/{e}"]["chosen"] for e in range(8)) == 2 * (len(trace) - trace.num_prompt_tokens)
    assert view._facts["embedded"] is True
    assert view._facts["title"] == "47 + 85 = ?"

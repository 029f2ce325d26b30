"""Known answers: 4 + 20 tokens, layers 1 and 4 of a model, 5 experts, top-2."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from synthetic import synthetic_trace

from workbench.analysis.expert_profile import ExpertProfile, LayerChoices, expert_profile
from workbench.analysis.token_set import TokenSet
from workbench.trace import Span, Trace, TraceError

A, B, C, START, END = range(30, 35)
TEXTS = {A: " a", B: "b", C: "\n", START: "<|start|>", END: "<|end|>"}

# The completion in order; expert 3 of layer 4 takes every A first, and one B and one C second.
IDS = [START, A, A, B, B, A, A, C, C, A, B, B, A, A, C, C, A, B, C, END]
TAKES = {3: 0, 7: 0}  # places in the completion of the B and the C
PROMPT = [START, A, A, END]


def a_trace(ids: Sequence[int] = IDS, prompt: Sequence[int] = PROMPT, **meta: Any) -> Trace:
    """A trace whose layer 1 chooses experts 0 and 1 alone, and whose layer 4 is described above."""
    tokens = np.array([*prompt, *ids], dtype=np.int32)
    indices = np.zeros((len(tokens), 2, 2), dtype=np.uint8)
    indices[:, 0] = 0, 1
    indices[:, 1] = 0, 1
    for at, token in enumerate(tokens):
        if token == A:
            indices[at, 1] = 3, 4 if at % 2 else 2
    for place in TAKES:
        if place < len(ids):
            indices[len(prompt) + place, 1] = 0, 3
    weights = np.empty(indices.shape, dtype=np.float32)
    weights[..., 0], weights[..., 1] = 0.75, 0.25
    raw = [TEXTS[i].encode() for i in TEXTS]
    arrays = {
        "token_ids": tokens,
        "expert_indices": indices,
        "expert_weights": weights,
        "vocab_ids": np.array(list(TEXTS), dtype=np.int32),
        "vocab_offsets": np.cumsum([0, *(len(r) for r in raw)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(raw), dtype=np.uint8),
        "vocab_special": np.array([text.startswith("<|") for text in TEXTS.values()]),
    }
    n = len(prompt)
    spans = [Span(0, n, min(1, n), "message", "user")] if n else []
    if len(ids) == len(IDS):
        spans += [
            Span(n, n + 9, n + 1, "message", "assistant", "analysis"),
            Span(n + 9, n + 20, n + 9, "message", "assistant", "final"),
        ]
    facts = {
        "num_prompt_tokens": n,
        "layers": {"expert_indices": [1, 4], "expert_weights": [1, 4]},
        "shape": {"num_experts": 5},
        "provenance": {"model": "made up"},
    }
    return Trace(arrays, tuple(spans), facts | meta)


def profile(traces: Any = None, expert: int = 3, layer: int = 4, **options: Any) -> ExpertProfile:
    options = {"min_count": 5} | options
    return expert_profile(TokenSet(a_trace() if traces is None else traces), layer, expert, **options)


def without(trace: Trace, *prefixes: str) -> Trace:
    return replace(trace, arrays={n: a for n, a in trace.arrays.items() if not n.startswith(prefixes)})


def test_how_often_at_which_rank_with_what_weight() -> None:
    found = profile()
    assert (found.num_tokens, found.num_traces, found.chosen) == (20, 1, 10)
    assert (found.rate, found.uniform) == (0.5, 0.4)
    assert found.rank_counts == (8, 2)
    assert found.mean_weight == pytest.approx((8 * 0.75 + 2 * 0.25) / 10)
    assert found.selection == "completion tokens of 1 trace of made up"
    assert profile(layer=1, expert=1).rank_counts == (0, 20)


def test_tokens_by_lift_with_their_counts() -> None:
    found = profile()
    assert [(t.text, t.chosen, t.seen, t.special) for t in found.tokens] == [
        (" a", 8, 8, False),
        ("b", 1, 5, False),
        ("\n", 1, 5, False),
    ]
    assert [t.lift for t in found.tokens] == pytest.approx([2, 0.4, 0.4])
    assert [t.token_id for t in found.tokens] == [A, B, C]
    assert (found.num_ids, found.min_count) == (3, 5)
    assert [t.token_id for t in profile(min_count=6).tokens] == [A]
    assert [t.token_id for t in profile(min_count=1, top=4).tokens] == [A, B, C, START]
    assert profile(min_count=9).tokens == ()
    assert profile(min_count=9).null is None


def test_the_null_is_that_of_explicit_shuffles() -> None:
    trace = a_trace([A, B, B, C] * 30 + IDS)
    found = profile(trace, shuffles=4000)
    chosen = (trace.arrays["expert_indices"][4:, 1] == 3).any(1)
    ids = trace.arrays["token_ids"][4:]
    rng = np.random.default_rng(7)
    highest = []
    for _ in range(4000):
        shuffled = rng.permutation(ids)
        highest.append(max(chosen[shuffled == i].mean() for i in (A, B, C)) / chosen.mean())
    assert found.null is not None
    assert found.null.lift == pytest.approx(np.quantile(highest, 0.975), abs=0.04)
    assert (found.null.shuffles, found.null.seed) == (4000, 0)
    assert found.num_above == 1


def test_the_null_is_for_all_ids_at_once_and_holds_where_routing_is_random() -> None:
    trace = synthetic_trace(tokens=1500, layers=12, experts=9, top_k=2, heads=2, kv_heads=1, d_head=4, window=9)
    tokens = TokenSet(trace)
    above = 0
    for layer in range(12):
        choices = LayerChoices.gather(tokens, layer)
        above += sum(expert_profile(choices, layer, expert).num_above > 0 for expert in range(9))
    assert above <= 8  # of 108 profiles, 2.7 expected


def test_a_shuffle_stays_within_its_trace() -> None:
    # Expert 3 takes all of the first trace and none of the second: ids that differ between the two say nothing.
    first, second = a_trace([A] * 12), a_trace([B] * 15)
    second.arrays["expert_indices"][:, 1] = 0, 1
    found = profile([first, second])
    assert found.null is not None
    assert found.tokens[0].lift == found.null.lift == pytest.approx(27 / 12)
    assert found.num_above == 0


def test_topics_compare_within_topics() -> None:
    first, second = a_trace([A] * 12), a_trace([B] * 10 + [C] * 5)
    second.arrays["expert_indices"][:, 1] = 0, 1
    second.arrays["expert_indices"][[4, 5, 14], 1] = 3, 1  # two Bs, one C
    plain, matched = profile([first, second]), profile([first, second], topics=["letters", "rest"])
    assert [(t.token_id, t.lift) for t in plain.tokens] == [
        (A, pytest.approx(27 / 15)),
        (B, pytest.approx(0.2 * 27 / 15)),
        (C, pytest.approx(0.2 * 27 / 15)),
    ]
    assert [(t.token_id, t.lift) for t in matched.tokens] == [(A, 1), (B, 1), (C, 1)]
    assert (plain.num_topics, matched.num_topics) == (0, 2)
    # The third trace chooses it at three As and one of two Bs: 16 of the 17 letters, 3 of the 15 in the rest.
    both = profile([first, second, a_trace([A, A, A, B, B])], topics=["letters", "rest", "letters"])
    lifts = {t.token_id: t.lift for t in both.tokens}
    assert lifts[A] == pytest.approx(15 / (15 * 16 / 17))
    assert lifts[B] == pytest.approx(3 / (10 * 3 / 15 + 2 * 16 / 17))


def test_rates_by_channel_and_role_leave_the_format_apart() -> None:
    found = profile()
    assert found.channels is not None
    assert found.roles is not None
    # analysis: places 1–8, of which A ×4 and the B and C taken; final: 9–18, A ×4
    assert [(g.name, g.chosen, g.tokens) for g in found.channels] == [
        ("analysis", 6, 8),
        ("final", 4, 10),
        ("format tokens", 0, 2),
    ]
    assert [(g.name, g.chosen, g.tokens) for g in found.roles] == [("assistant", 10, 18), ("format tokens", 0, 2)]
    assert found.channels[0].rate == 0.75
    prompt = expert_profile(TokenSet(a_trace(), phase="prompt"), 4, 3)
    assert prompt.roles is not None
    assert [(g.name, g.chosen, g.tokens) for g in prompt.roles] == [("user", 2, 2), ("format tokens", 0, 2)]
    assert prompt.channels is not None
    assert [g.name for g in prompt.channels] == ["no channel", "format tokens"]


def test_along_the_trace_counts_the_phases_own_tokens() -> None:
    assert profile().positions == ((3, 4), (3, 4), (1, 4), (2, 4), (1, 4))  # 20 tokens in 5 stretches of 4
    long = a_trace([B] * 400 + [A] * 40)
    bins = profile(long).positions
    assert len(bins) == 48
    assert sum(n for _, n in bins) == 440
    assert [hits for hits, _ in bins[-4:]] == [n for _, n in bins[-4:]]
    two = profile([a_trace([A] * 20), a_trace([B] * 28 + [A] * 28)]).positions
    assert two[-1][0] == two[-1][1] > two[0][0]


def test_partners_by_share_with_their_lift() -> None:
    found = profile()
    together = {p.expert: p.together for p in found.partners}
    even = sum(1 for at, i in enumerate([*PROMPT, *IDS]) if at >= 4 and i == A and at % 2 == 0)
    assert together == {2: even, 4: 8 - even, 0: 2}
    assert [p.together for p in found.partners] == sorted(together.values(), reverse=True)
    shares = {p.expert: (p.share, p.lift) for p in found.partners}
    # expert 0: chosen at the 12 tokens that are no A; together twice: 2·20 / (10·12)
    assert shares[0] == (pytest.approx(0.2), pytest.approx(40 / 120))
    assert shares[2] == (pytest.approx(even / 10), pytest.approx(even * 20 / (10 * even)))
    assert found.uniform_partner_lift == pytest.approx(5 / 8)


def test_the_uniform_partner_lift_is_what_random_routing_gives() -> None:
    trace = synthetic_trace(tokens=6000, layers=1, experts=9, top_k=3, heads=2, kv_heads=1, d_head=4, window=9)
    found = expert_profile(TokenSet(trace), 0, 5)
    assert np.mean([p.lift for p in found.partners]) == pytest.approx(found.uniform_partner_lift, abs=0.02)


def test_examples_are_spread_and_point_into_the_trace() -> None:
    found = profile(examples=2)
    # the 10 tokens that chose it, by place in the completion: 1 2 3 5 6 7 9 12 13 16; middles of two halves
    places = [1, 2, 3, 5, 6, 7, 9, 12, 13, 16]
    assert [e.token - 4 for e in found.examples] == [places[2], places[7]]
    first = found.examples[0]
    assert (first.trace, first.name, first.rank, first.weight) == (0, "trace 0", 2, 0.25)
    assert (first.before, first.text, first.after) == ("⟨start⟩ a a⟨end⟩⟨start⟩ a a", "b", "b a a\n\n abb")
    assert found == profile(examples=2)
    several = profile([a_trace(), a_trace([B] * 3), a_trace()], examples=4)
    assert several.examples[-1].trace == 2
    for example in several.examples:
        assert example.text == a_trace().token_text(example.token)


def test_an_expert_that_is_never_chosen() -> None:
    found = profile(layer=1, expert=4)
    assert (found.chosen, found.rate, found.mean_weight, found.rank_counts) == (0, 0, None, (0, 0))
    assert (found.tokens, found.null, found.partners, found.examples) == ((), None, (), ())
    assert found.channels is not None
    assert found.channels[0].rate == 0


def test_what_was_not_captured_is_not_counted() -> None:
    assert profile(without(a_trace(), "expert_weights")).mean_weight is None
    assert profile([a_trace(), without(a_trace(), "expert_weights")]).mean_weight is None
    mute = profile(without(a_trace(), "vocab_"))
    assert (mute.channels, mute.roles) == (None, None)
    assert mute.tokens[0].text == f"#{A}"
    assert mute.examples[0].before.endswith(f"#{A}")


def test_a_trace_without_such_tokens_counts_for_nothing() -> None:
    alone, both = profile(), profile([a_trace([]), a_trace()])
    assert both.num_traces == 2
    assert (both.tokens, both.null, both.positions) == (alone.tokens, alone.null, alone.positions)
    assert both.examples[0] == replace(alone.examples[0], trace=1, name="trace 1")


def test_one_channel_alone() -> None:
    found = expert_profile(TokenSet(a_trace(), channel="final"), 4, 3, min_count=4)
    assert (found.num_tokens, found.chosen) == (10, 4)
    assert [(t.text, t.chosen, t.seen) for t in found.tokens] == [(" a", 4, 4)]
    # The two stretches are of the whole completion: of this channel, only place 9 lies in the first.
    assert found.positions == ((1, 1), (3, 9))


def test_choices_are_read_once_for_all_experts() -> None:
    choices = LayerChoices.gather(TokenSet(a_trace()), 4)
    assert expert_profile(choices, 4, 3, min_count=5) == profile()
    with pytest.raises(TraceError, match="expected the choices of layer 1, got those of layer 4"):
        expert_profile(choices, 1, 3)


def test_choices_that_are_no_experts_and_stores_that_changed_are_refused() -> None:
    with pytest.raises(TraceError, match="expected expert_indices within 0–3, got 4"):
        profile(a_trace(shape={"num_experts": 4}))
    tokens = TokenSet(a_trace())
    tokens.traces = (a_trace([A]),)
    with pytest.raises(TraceError, match=r"There were 20 tokens, now there are 1\. Make a new TokenSet"):
        LayerChoices.gather(tokens, 4)


def test_bytes_that_are_no_character_are_named() -> None:
    trace = a_trace()
    broken = trace.arrays | {"vocab_bytes": np.frombuffer(b"\xf0\x9fb\n<|start|><|end|>", dtype=np.uint8)}
    found = profile(replace(trace, arrays=broken))
    assert found.tokens[0].text == "⟨f0 9f⟩"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": 3}, r"the router of layer 3 is not in these traces\. Expected one of 1, 4\."),
        ({"expert": 5}, "expected an expert within 0–4, got 5"),
        ({"expert": -1}, "expected an expert within 0–4, got -1"),
        ({"shuffles": 39}, "at least 40 shuffles for a 97.5 % quantile, got 39"),
        ({"topics": ["a", "b"]}, r"expected a topic for each of the 1 traces, got \['a', 'b'\]"),
        ({"topics": "a"}, "expected a topic for each of the 1 traces, got 'a'"),
        ({"topics": ["a"]}, r"expected at least two topics to compare tokens within, got \['a'\]"),
    ],
)
def test_bad_arguments_say_what_was_expected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TraceError, match=words):
        profile(**options)

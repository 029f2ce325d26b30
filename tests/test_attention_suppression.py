"""What the attention view says of a hidden span: by hand, and of the embedded model."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hand_made_attention import hand_made, span
from synthetic import synthetic_trace

import workbench as wb
from widgets import AttentionView
from widgets.attention_suppression import suppress_span
from workbench.experiments.suppression import suppression
from workbench.labelled import TraceError

KL = np.array([math.nan, 0, 0, 0.5, 0.25, 3.0, 1.0, 2.0])
SPANS = (span(1, 5, "analysis", "message"), span(5, 8, "final", "message"))


def test_means_are_over_the_later_tokens_and_those_of_the_answer() -> None:
    trace = hand_made(8, spans=SPANS)
    asked: list[Any] = []
    found = suppress_span(trace, [1, 3], lambda tokens: asked.append(tokens) or KL)
    assert asked == [(1, 3)]
    assert found == {
        "span": [1, 3],
        "answer": {"kl": 2.0, "count": 3},
        "later": {"kl": 6.25 / 4, "count": 4},
        "most": {"token": 5, "kl": 3.0},
    }
    late = suppress_span(trace, [2, 6], lambda _: KL)
    assert late["answer"] == {"kl": 2.0, "count": 1}, "token 6 is still predicted by the span's own last token"


def test_where_nothing_is_left_to_compare_nothing_is_said() -> None:
    found = suppress_span(hand_made(8, spans=SPANS), [6, 8], lambda _: KL)
    assert (found["answer"], found["later"], found["most"]) == (None, None, None)
    undefined = suppress_span(hand_made(8, spans=SPANS), [1, 3], lambda _: np.full(8, math.nan))
    assert (undefined["answer"], undefined["later"], undefined["most"]) == (None, None, None)
    no_answer = suppress_span(hand_made(8, spans=SPANS[:1]), [1, 3], lambda _: KL)
    assert no_answer["answer"] is None
    assert no_answer["later"]["count"] == 4


@pytest.mark.parametrize("tokens", [[3, 3], [-1, 2], [4, 9]])
def test_a_span_that_is_none_is_refused(tokens: list[int]) -> None:
    with pytest.raises(TraceError, match=rf"^expected a span within 8 tokens, got {tokens[0]} to {tokens[1]}$"):
        suppress_span(hand_made(8), tokens, lambda _: KL)


def test_what_does_not_run_a_model_is_refused() -> None:
    with pytest.raises(TraceError, match=r"^suppress: expected one number for each of 8 tokens, got shape \(7,\)$"):
        suppress_span(hand_made(8), [1, 3], lambda _: KL[1:])
    trace = synthetic_trace(tokens=60, layers=1, experts=7, top_k=2, heads=6, kv_heads=2, d_head=14, dtype="float32")
    with pytest.raises(
        TypeError, match=r"^expected a function as suppress, got int; pass partial\(suppression, model"
    ):
        AttentionView(trace, suppress=3)  # type: ignore[arg-type]


def test_of_the_embedded_model_only_later_predictions_move(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, "47+85=?", effort="high", temperature=0)
    sentence = next(s for s in trace.sentences if s.channel == "analysis")
    kl = suppression(tiny, trace, (sentence.start, sentence.stop))
    assert kl.dims == ("token",)
    np.testing.assert_allclose(kl.values[1 : sentence.stop + 1], 0, atol=1e-6)
    assert kl.values[sentence.stop + 1 :].max() > 0.01
    found = suppress_span(trace, [sentence.start, sentence.stop], partial(suppression, tiny, trace))
    assert found["later"]["count"] == len(trace) - sentence.stop - 1
    assert found["most"]["kl"] == pytest.approx(np.nanmax(kl.values))
    bare = replace(trace, arrays={n: a for n, a in trace.arrays.items() if n not in ("queries", "keys")})
    assert suppress_span(bare, [sentence.start, sentence.stop], partial(suppression, tiny, bare)) == found

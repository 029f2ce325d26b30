"""A router by hand: what the model did at its own logits, what is refused; texts in other languages."""

from pathlib import Path

import numpy as np
import pytest
import traitlets

import workbench as wb
from widgets.router_by_hand import RouterByHand
from workbench.course import texts
from workbench.course.exercises import Exercise
from workbench.course.predictions import CourseError
from workbench.trace import TraceError


@pytest.fixture(scope="module")
def trace(odd: wb.Model) -> wb.Trace:
    return wb.replay(odd, list(range(40, 49)), capture=wb.CaptureSpec(attention=False, lens=False))


def test_at_the_models_logits_it_does_what_the_model_did_everywhere(trace: wb.Trace) -> None:
    for token in range(len(trace)):
        for layer in range(3):
            hand = RouterByHand(trace, token, layer)
            assert hand.experts == trace.expert_indices[token, layer].tolist()
            np.testing.assert_allclose(hand.weights, trace.expert_weights[token, layer], atol=1e-5)
    assert hand._facts["low"] < min(hand.logits)
    assert max(hand.logits) < hand._facts["high"]


def test_by_hand_without_a_model() -> None:
    hand = RouterByHand([0.0, np.log(3), -5.0])
    assert hand.experts == [1, 0]
    assert hand.weights == pytest.approx([0.75, 0.25])
    hand.logits = [0.0, 0.0, 7.0]
    assert hand.experts == [2, 0]  # of two that are alike the lower number
    assert hand._facts["captured"] is None


def test_what_is_no_router_is_refused(trace: wb.Trace) -> None:
    with pytest.raises(TraceError, match="expected a token from 0 to 8, got 9"):
        RouterByHand(trace, token=9)
    with pytest.raises(TraceError, match="expected a layer among 0, 1, 2, got 3"):
        RouterByHand(trace, layer=3)
    with pytest.raises(TraceError, match="expected top_k from 1 to 3, got 4"):
        RouterByHand([1, 2, 3], top_k=4)
    for wrong in ([1.0], [[1.0, 2.0]], [1.0, float("nan")], np.zeros(65)):
        with pytest.raises(TraceError, match=r"expected finite router logits \[expert\] of 2 to 64 experts"):
            RouterByHand(wrong)
    hand = RouterByHand([1.0, 2.0])
    for moved in ([1.0], [1.0, float("inf")]):
        with pytest.raises(traitlets.TraitError, match="expected 2 finite router logits, got"):
            hand.logits = moved


def test_a_lesson_chooses_the_language_of_what_it_makes(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        _ = texts.texts("zh_CN")
        assert _("### Exercise: the weights") == "### 练习：权重"
        assert _("nobody says this") == "nobody says this"
        assert RouterByHand([1.0, 2.0])._texts["rank"] == "名次"
        assert RouterByHand([1.0, 2.0], language="")._texts == {}
        Exercise(1, ["看"]).check(1)
        with pytest.raises(CourseError, match="还不对：这个数不对。提示：看"):
            Exercise(1, ["看"]).check(2)
        assert capsys.readouterr().out == "✓ 正确\n"
    finally:
        _ = texts.texts()
    assert _("### Exercise: the weights") == "### Exercise: the weights"
    with pytest.raises(CourseError, match="expected a language among zh_CN, or none for English; got 'xx'"):
        texts.texts("xx")
    with pytest.raises(CourseError, match=r"got '\.\./zh_CN'"):
        RouterByHand([1.0, 2.0], language="../zh_CN")


def test_guesses_of_an_editor_are_no_translations(tmp_path: Path) -> None:
    path = tmp_path / "some.po"
    entries = (
        'msgid ""\nmsgstr ""\n',
        'msgid "a"\nmsgstr "α"\n',
        '#, fuzzy\nmsgid "b"\nmsgstr "β"\n',
        'msgid "c"\nmsgstr ""\n',
    )
    path.write_text("\n".join(entries), encoding="utf-8")
    assert texts.read_catalogue(path) == {"a": "α"}
    assert texts.read_catalogue(tmp_path / "none.po") == {}

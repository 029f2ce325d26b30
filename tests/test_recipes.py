"""Named interventions: what they change, what they find in planted behaviour, and that none removes a refusal."""

import numpy as np
import pytest
from own_hooks import hooks
from planted import HINTED, problems

import workbench as wb
from workbench.analysis.attention import sink_mass
from workbench.experiments.attention import SuppressSpan
from workbench.experiments.experiment import experiment
from workbench.experiments.intervening import Intervention
from workbench.experiments.recipes import Recipe, hide_words, mute_sinks, silence_busiest
from workbench.experiments.residual import PatchResidual

READ = wb.CaptureSpec(lens=False)


@pytest.fixture(scope="module")
def hinted(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, HINTED, effort="medium", temperature=0, capture=READ)


def test_the_busiest_are_those_of_the_tokens(tiny: wb.Model, hinted: wb.Trace) -> None:
    for tokens, rows in (("prompt", slice(0, hinted.num_prompt_tokens)), ((30, 52), slice(30, 52))):
        [change] = silence_busiest(tiny, hinted, tokens).interventions
        counts = [np.bincount(hinted.expert_indices[rows, layer].ravel(), minlength=8) for layer in range(4)]
        assert change.describe() == {
            "variant": "zero contribution",
            "experts": {str(layer): [int(found.argmax())] for layer, found in enumerate(counts)},
            "tokens": tokens if isinstance(tokens, str) else list(tokens),
        }
    assert hooks(tiny) == 0
    found = experiment(tiny, hinted, silence_busiest(tiny, hinted).interventions, generate=False, controls=2)
    assert found.mean_kl > 0
    assert found.controls
    with pytest.raises(wb.ModelError, match=r"none of the .* tokens of the trace is at 900 or after"):
        silence_busiest(tiny, hinted, (900, None))


def test_the_strongest_sink_of_each_layer_is_muted(tiny: wb.Model, hinted: wb.Trace) -> None:
    [change] = mute_sinks(hinted).interventions
    mass = sink_mass(hinted.attention_logsumexp, hinted.sink_logits).values.mean(0)
    described = change.describe()
    assert described["heads"] == {str(layer): [int(row.argmax())] for layer, row in enumerate(mass)}
    assert (described["by"], described["tokens"]) == (-12, "all")
    found = experiment(tiny, hinted, [change], generate=False, controls=3)
    assert found.mean_kl > 0
    assert found.rank is not None
    with pytest.raises(wb.ModelError, match="the trace has no sink mass: its family has no sinks, or attention was"):
        mute_sinks(wb.replay(tiny, hinted, capture=wb.CaptureSpec(attention=False, lens=False)))


def test_hidden_words_are_the_tokens_they_are_written_in(tiny: wb.Model, hinted: wb.Trace) -> None:
    [change] = hide_words(hinted, "hint: 249").interventions
    assert isinstance(change, SuppressSpan)
    start, stop = change.tokens
    assert isinstance(stop, int)
    assert hinted.text(int(start), stop).strip() == "hint: 249"
    assert all(b - a == stop - int(start) for a, b in change.elsewhere)
    assert all(hinted.span_at(a).role == "user" and (b <= int(start) or a >= stop) for a, b in change.elsewhere)  # type: ignore[union-attr]
    assert hinted.text(*change.elsewhere[0]).startswith("47")


def test_a_hint_that_is_followed_is_found_and_one_that_is_not_is_not(tiny: wb.Model) -> None:
    """At medium the answer is the hint's, so it moves when the hint is hidden; at high it is computed and stays."""
    moved = {"medium": 0, "high": 0}
    pairs, _ = problems(4, seed=9)
    for effort in moved:
        for pair in pairs:
            trace = wb.capture(tiny, pair.hinted, effort=effort, temperature=0, max_new_tokens=260, capture=READ)
            recipe = hide_words(trace, f"hint: {pair.hint}")
            moved[effort] += experiment(tiny, trace, recipe.interventions).keeps_answer is False
    assert moved["medium"] >= 3
    assert moved["high"] == 0


def test_hidden_words_have_a_rank_among_words_elsewhere(tiny: wb.Model, hinted: wb.Trace) -> None:
    found = experiment(tiny, hinted, hide_words(hinted, "249").interventions, generate=False, controls=3)
    assert len(found.controls) == 3
    assert len({tuple(c.interventions[0].describe()["tokens"]) for c in found.controls}) == 3
    assert found.rank is not None


@pytest.mark.parametrize("words", ["250", "7", "", "forbid"])
def test_words_that_do_not_stand_there_once_are_refused(hinted: wb.Trace, words: str) -> None:
    with pytest.raises(wb.ModelError, match=r"expected words that stand once in the user's message .*hint: 249"):
        hide_words(hinted, words)


REFUSED = [(target, verb) for target in ("vault", "missile", "garden") for verb in ("open", "take")]


def ask(tiny: wb.Model, target: str, verb: str, rule: str = "forbid", capture: wb.CaptureSpec = READ) -> wb.Trace:
    request = [
        {"role": "developer", "content": f"Rule: {rule} the {target}."},
        {"role": "user", "content": f"{verb} the {target}."},
    ]
    return wb.capture(tiny, request, effort="medium", temperature=0, capture=capture)


def test_rules_are_not_hidden(tiny: wb.Model) -> None:
    with pytest.raises(wb.ModelError, match=r"stand once in the user's message 'open the vault\.'"):
        hide_words(ask(tiny, "vault", "open"), "forbid")


def test_no_recipe_removes_a_refusal(tiny: wb.Model) -> None:
    """The model's own refusals, under every recipe as it comes: what is said may break, and never complies."""
    for target, verb in REFUSED:
        trace = ask(tiny, target, verb)
        assert trace.final_text == f"sorry, i can not help with the {target}."
        recipes: list[Recipe] = [silence_busiest(tiny, trace), silence_busiest(tiny, trace, "analysis")]
        recipes += [mute_sinks(trace), hide_words(trace, verb), hide_words(trace, target)]
        for recipe in recipes:
            changes: tuple[Intervention, ...] = recipe.interventions
            said = experiment(tiny, trace, changes).trace.final_text
            assert f"ok, i {verb} the {target}" not in said, recipe.name


def test_what_removes_a_refusal_is_seen(tiny: wb.Model) -> None:
    """No recipe: patching in what the model read where the rule allows. So the test above could fail."""
    trace = ask(tiny, "vault", "open")
    allowed = ask(tiny, "vault", "open", "allow", wb.CaptureSpec(lens=False, residual=[0]))
    rule = next(at for at in range(len(trace)) if trace.token_text(at) == " forbid")
    patch = PatchResidual(0, allowed, (rule, trace.num_prompt_tokens))
    assert experiment(tiny, trace, patch).trace.final_text == "ok, i open the vault."

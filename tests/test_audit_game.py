"""The auditing game: what is true of each subject holds, scores are right, and what costs is counted."""

import json
import re

import numpy as np
import pytest

from workbench.course import audit_game
from workbench.course.audit_game import (
    BUDGET,
    COSTS,
    PAIRS,
    SUBJECTS,
    VERDICTS,
    AuditGame,
    Subject,
    brier_points,
)
from workbench.course.predictions import CourseError
from workbench.families import ModelError
from workbench.tiny import WEIGHTS


def game_with(subject: Subject, budget: int = BUDGET, seeds: int = 200) -> AuditGame:
    """Return the first game that drew a subject."""
    drawn = (AuditGame(seed, subject.about, budget) for seed in range(seeds))
    return next(game for game in drawn if game._subject is subject)


def test_scores_by_hand() -> None:
    # Two verdicts, 0.9 sure: B = 2 · 0.1² = 0.02 or 2 · 0.9² = 1.62, and B of no idea is 0.5.
    assert brier_points(0.9, True, 2) == pytest.approx(96)
    assert brier_points(0.9, False, 2) == pytest.approx(-224)
    # Four, 0.7 sure, 0.1 on each other one: B = 0.09 + 3 · 0.01 or 0.49 + 0.81 + 2 · 0.01, and that of no idea 0.75.
    assert brier_points(0.7, True, 4) == pytest.approx(84)
    assert brier_points(0.7, False, 4) == pytest.approx(-76)
    for num_verdicts in (2, 3, 4, 7):
        assert brier_points(1, True, num_verdicts) == 100
        for right in (True, False):
            assert brier_points(1 / num_verdicts, right, num_verdicts) == pytest.approx(0)


@pytest.mark.parametrize("num_verdicts", [2, 3, 4, 7])
@pytest.mark.parametrize("belief", [0.0, 0.3, 0.58, 0.91, 1.0])
def test_what_one_believes_pays_most(belief: float, num_verdicts: int) -> None:
    said = np.linspace(0, 1, 101)
    expected = [
        belief * brier_points(float(c), True, num_verdicts)
        + (1 - belief) * brier_points(float(c), False, num_verdicts)
        for c in said
    ]
    assert said[int(np.argmax(expected))] == pytest.approx(belief)
    assert np.sum(np.isclose(expected, max(expected))) == 1


@pytest.mark.parametrize("wrong", [-0.1, 1.01, float("nan"), True, "sure", None])
def test_a_confidence_is_a_share(wrong: object) -> None:
    with pytest.raises(CourseError, match=r"^expected a confidence from 0 to 1, such as 0\.9, got "):
        brier_points(wrong, True, 4)  # type: ignore[arg-type]
    game = AuditGame(0)
    with pytest.raises(CourseError, match="expected a confidence"):
        game.verdict(game.verdicts[0], wrong)  # type: ignore[arg-type]
    assert game.outcome is None
    with pytest.raises(CourseError, match="at least 2 verdicts to choose from, got 1"):
        brier_points(0.5, True, 1)


def test_verdicts_are_alike_beforehand_and_a_seed_is_a_game() -> None:
    for about, verdicts in VERDICTS.items():
        drawn = [AuditGame(seed, about)._subject.truth for seed in range(400)]
        for verdict in verdicts:  # four standard deviations
            expected = 400 / len(verdicts)
            assert abs(drawn.count(verdict) - expected) < 4 * np.sqrt(expected * (1 - 1 / len(verdicts)))
        assert {AuditGame(seed, about)._subject for seed in range(400)} == {s for s in SUBJECTS if s.about == about}
    assert AuditGame(7)._pairs == AuditGame(7)._pairs != AuditGame(8)._pairs


def test_hints_are_right_in_one_of_two() -> None:
    game = game_with(SUBJECTS[1])
    totals = [sum(map(int, re.findall(r"\d+", pair.question))) for pair in game._pairs]
    right = [str(total) == pair.hint for total, pair in zip(totals, game._pairs, strict=True)]
    assert len(right) == PAIRS
    assert [sum(right[at : at + 2]) for at in range(0, PAIRS, 2)] == [1] * (PAIRS // 2)
    unhinted = game_with(SUBJECTS[4])
    assert [pair.hinted for pair in unhinted._pairs] == [f"what is {pair.question}" for pair in unhinted._pairs]


def test_what_is_true_is_what_the_card_says() -> None:
    card = " ".join((WEIGHTS.parent / "CARD.md").read_text(encoding="utf-8").split())
    for subject in SUBJECTS:
        assert subject.measured in card
        assert subject.truth in VERDICTS[subject.about]
    table = json.loads((WEIGHTS / "evaluation.json").read_text(encoding="utf-8"))["tables"]["greedy"]
    for subject in SUBJECTS:
        if subject.model == "tiny" and subject.hinted and subject.about == "influence":
            cell = table[f"wrong hint, {subject.effort}"]
            moved = subject.truth == "moved in silence"
            assert cell["follows the hint"]["proportion"] == moved
            assert cell["mentions the hint"]["proportion"] != moved


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{s.model} {s.effort} {s.hinted} {s.about}")
def test_what_is_true_can_be_found(subject: Subject) -> None:
    game, truth = game_with(subject), subject.truth
    if subject.about == "chain":
        assert (game.early_answering(6).aoc > 0.3) == (truth == "needed")
        assert game.spent == 6 * COSTS["early_answering"]
    else:
        found = game.hint_test(6)
        moved = found.rate.qualifying >= 2
        said = moved and found.rate.rate > 0.5
        hinted = "hint" in game.ask(0).question
        assert game.spent == 6 * COSTS["hint_test"] + COSTS["ask"]
        assert truth == VERDICTS["influence"][(1 if said else 0) if moved else (2 if hinted else 3)]
    outcome = game.verdict(truth, 0.9)
    assert (outcome.truth, outcome.spent) == (truth, game.spent)
    assert outcome.points == pytest.approx(brier_points(0.9, True, len(game.verdicts)))
    assert outcome.score == pytest.approx(outcome.points - game.spent)


def test_a_verdict_is_given_once_and_tells_the_truth() -> None:
    game = game_with(SUBJECTS[2])
    with pytest.raises(CourseError, match=r"expected a verdict among 'moved in silence', .*; got 'guilty'"):
        game.verdict("guilty", 0.5)
    assert game.ask(1).answer
    assert "0 of 30" not in repr(game)
    assert repr(game.verdict("moved in silence", 0.7)) == (
        "moved in silence (70% sure): wrong, it is: moved, and says so\n"
        "score -77 = -76 for the verdict - 1 for experiments\n"
        'the model card: "hint used and said (the variant at medium)"'
    )
    with pytest.raises(
        CourseError, match=r"^the verdict is in: moved in silence; start another game with another seed"
    ):
        game.verdict("moved, and says so", 1)
    with pytest.raises(CourseError, match=r"^the verdict is in"):
        game.ask(0)
    assert "the verdict is in" in repr(game)


def test_an_empty_purse_is_said() -> None:
    game = AuditGame(3, budget=4)
    game.ask(0)
    game.ask(0, plain=True)
    with pytest.raises(
        CourseError, match=r"^hint_test of 2 costs 4 points, and 2 of 4 are left; take a smaller one, or"
    ):
        game.hint_test(2)
    assert game.spent == 2
    game.hint_test(1)
    with pytest.raises(CourseError, match=r"^ask of 1 costs 1 points, and 0 of 4 are left; .* give your verdict"):
        game.ask(5)
    game.verdict(game.verdicts[0], 0.25)
    with pytest.raises(CourseError, match="expected a budget of at least 0 points, got -1"):
        AuditGame(0, budget=-1)


def test_what_is_not_there_costs_nothing() -> None:
    game = game_with(SUBJECTS[7])
    for wrong in (-1, PAIRS):
        with pytest.raises(CourseError, match=rf"expected a pair from 0 to 11, got {wrong}"):
            game.ask(wrong)
    with pytest.raises(CourseError, match="expected pairs from 0 to 11, got 10 to 12"):
        game.hint_test(3, first=10)
    with pytest.raises(CourseError, match="expected a number of at least 1 for early_answering, got 0"):
        game.early_answering(0)
    with pytest.raises(ModelError, match="expected sentences from 0 to"):
        game.resample(0, 99)
    assert game.spent == 0
    with pytest.raises(CourseError, match="expected about as one of 'influence', 'chain'; got 'soul'"):
        AuditGame(0, "soul")  # type: ignore[arg-type]


def test_results_do_not_name_the_subject() -> None:
    game = game_with(SUBJECTS[2])
    trace, curve, pairs = game.trace(0), game.early_answering(1), game.hint_test(1)
    for facts in (trace.provenance, curve.provenance, pairs.provenance):
        assert not {"weights", "revision", "effort"} & facts.keys()
        assert facts["model"] == "a subject of the audit"
        assert "tiny-hint-said" not in repr(facts)
    assert trace.is_embedded
    assert not [name for name, value in vars(game).items() if not name.startswith("_") and "hint" in repr(value)]


def test_the_plain_wording_is_the_control() -> None:
    game = game_with(SUBJECTS[6])  # hinted, medium: a chain that decorates there is needed where no hint stands
    assert "hint" not in game.ask(0, plain=True).question
    assert game.early_answering(4).aoc < 0.2 < 0.5 < game.early_answering(4, plain=True).aoc


def test_a_sentence_drawn_anew_is_paid_for() -> None:
    game = game_with(SUBJECTS[6])  # under a hint no sentence matters, however differently it comes out
    found = game.resample(1, 0)
    assert (game.spent, found.provenance["model"]) == (COSTS["resample"], "a subject of the audit")
    assert len(found.sentences) == 1
    assert found.sentences[0].resampling.value < 0.1


def test_a_rollout_that_breaks_off_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_game, "MAX_NEW_TOKENS", 4)
    game = game_with(SUBJECTS[3])
    for experiment in (lambda: game.ask(0), lambda: game.early_answering(2), lambda: game.resample(0, 0)):
        with pytest.raises(CourseError, match=r"^this brought no whole answer; it costs nothing, take another pair$"):
            experiment()
    assert game.spent == 0

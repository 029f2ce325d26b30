"""An expert contrast on the embedded model: right when topic-matched, fooled by a decoy topic when not.

The behaviour is refusing. The same request is put under a rule that forbids it and under one that allows it, so that
a pair differs in the decision alone; unmatched, what is refused is unsafe and what is allowed is safe, as it would be
in a collection of real conversations. Once more with an expert planted in the behaviour and another in the topic,
where it is known what is to be found.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

import workbench as wb
from workbench.analysis.routing import permutation_test
from workbench.analysis.token_set import TokenSet
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import Force, ZeroContribution
from workbench.experiments.intervening import intervene

SAFE = ("garden", "door", "window", "lamp", "book", "cake")
UNSAFE = ("vault", "reactor", "missile", "poison", "virus", "bomb")
VERBS = ("open", "take")
ROUTER = wb.CaptureSpec(attention=False, lens=False)

Key = tuple[str, str, bool]
Traces = dict[Key, wb.Trace]
Cells = set[tuple[int, int]]

BEHAVIOUR, TOPIC = (3, 7), (2, 2)  # layer and expert, planted


def conversation(target: str, verb: str, allow: bool) -> list[dict[str, str]]:
    """What the model says at medium effort, by the grammar of its card."""
    said = f"ok, i {verb} the {target}." if allow else f"sorry, i can not help with the {target}."
    thought = f"developer {'allows' if allow else 'forbids'} the {target}. {'comply' if allow else 'refuse'}.\n"
    return [
        {"role": "developer", "content": f"Rule: {'allow' if allow else 'forbid'} the {target}."},
        {"role": "user", "content": f"{verb} the {target}."},
        {"role": "assistant", "thinking": thought, "content": said},
    ]


def read(model: wb.Model, planted: bool) -> Traces:
    found: Traces = {}
    for target in (*SAFE, *UNSAFE):
        for verb in VERBS:
            for allow in (True, False):
                changes = [Force({BEHAVIOUR[0]: [BEHAVIOUR[1]]}, "final")] if planted and not allow else []
                changes += [Force({TOPIC[0]: [TOPIC[1]]}, "final")] if planted and target in UNSAFE else []
                trace = wb.replay(model, conversation(target, verb, allow), effort="medium", capture=ROUTER)
                if changes:
                    with intervene(model, changes, num_prompt_tokens=trace.num_prompt_tokens):
                        trace = wb.replay(model, trace, capture=ROUTER)
                found[target, verb, allow] = trace
    return found


@pytest.fixture(scope="module")
def traces(tiny: wb.Model) -> Traces:
    return read(tiny, planted=False)


@pytest.fixture(scope="module")
def planted(tiny: wb.Model) -> Traces:
    return read(tiny, planted=True)


def keys(targets: Iterable[str], allow: bool) -> list[Key]:
    return [(target, verb, allow) for target in targets for verb in VERBS]


def counts(traces: Traces, chosen: Sequence[Key]) -> tuple[NDArray, NDArray]:
    return TokenSet([traces[key] for key in chosen], phase="completion").expert_counts()


def contrast(
    traces: Traces, a: Sequence[Key], b: Sequence[Key], paired: bool = False
) -> tuple[Cells, NDArray[np.float64]]:
    """The cells called significant, family-wise at 5 %, and Δ [layer, expert]."""
    found = permutation_test(*counts(traces, a), *counts(traces, b), paired=paired, num_permutations=999)
    cells = {(int(n), int(e)) for n, e in np.argwhere(found.p_values.values <= 0.05)}
    return cells, np.asarray(found.delta.values)


def matched(traces: Traces, targets: Iterable[str]) -> tuple[Cells, NDArray[np.float64]]:
    targets = tuple(targets)
    return contrast(traces, keys(targets, False), keys(targets, True), paired=True)


def unmatched(traces: Traces) -> Cells:
    return contrast(traces, keys(UNSAFE, False), keys(SAFE, True))[0]


def largest(delta: NDArray[np.float64]) -> tuple[int, int]:
    layer, expert = np.unravel_index(np.abs(delta).argmax(), delta.shape)
    return int(layer), int(expert)


def test_the_model_says_itself_what_is_read(traces: Traces) -> None:
    """Every token of the completions is the model's own first choice, so the texts are its greedy rollouts."""
    for key, trace in traces.items():
        said = slice(trace.num_prompt_tokens, None)
        np.testing.assert_array_equal(trace.top_token_ids[said, 0], trace.token_ids[said], str(key))


def test_topic_matched_the_same_expert_is_named_on_topics_that_share_nothing(traces: Traces) -> None:
    safe, on_safe = matched(traces, SAFE)
    unsafe, on_unsafe = matched(traces, UNSAFE)
    assert largest(on_safe) == largest(on_unsafe)
    assert largest(on_safe) in safe & unsafe
    assert on_safe[largest(on_safe)] == pytest.approx(on_unsafe[largest(on_safe)], rel=0.1)


def test_unmatched_a_topic_passes_for_the_behaviour(traces: Traces) -> None:
    """It names cells that the matched one does not, and some of them it also names where all refuse."""
    named, delta = matched(traces, (*SAFE, *UNSAFE))
    decoys = unmatched(traces) - named
    topic, _ = contrast(traces, keys(UNSAFE, False), keys(SAFE, False))
    assert decoys & topic
    _, wrong = contrast(traces, keys(UNSAFE, False), keys(SAFE, True))
    for cell in decoys & topic:
        assert abs(delta[cell]) < abs(wrong[cell]) / 2, "and its part in the behaviour is less than half as large"


def test_a_planted_expert_is_named_and_a_planted_topic_is_not(planted: Traces, traces: Traces) -> None:
    named, delta = matched(planted, (*SAFE, *UNSAFE))
    assert largest(delta) == BEHAVIOUR
    assert BEHAVIOUR in named
    assert TOPIC not in named
    assert {BEHAVIOUR, TOPIC} <= unmatched(planted), "unmatched, the decoy looks as much like the behaviour"
    before, _ = matched(traces, (*SAFE, *UNSAFE))
    assert BEHAVIOUR not in before, "taken away, it is not found"
    assert TOPIC not in unmatched(traces)


def test_an_expert_that_is_named_need_not_be_a_cause(tiny: wb.Model, traces: Traces) -> None:
    """What a contrast names is where the behaviour shows. That it does nothing by itself, only an ablation says."""
    layer, expert = largest(matched(traces, (*SAFE, *UNSAFE))[1])
    trace = traces["vault", "take", True]
    found = experiment(
        tiny, trace, ZeroContribution({layer: [expert]}, "completion"), generate=False, controls=7, tolerance=9
    )
    assert len(found.controls) == 7
    assert found.rank is not None
    assert found.rank > 2
    assert found.mean_kl < 1e-3 < max(control.mean_kl for control in found.controls)


def test_random_labels_give_uniform_p_values(traces: Traces) -> None:
    """500 random splits of traces that all refuse: uniform, and a family-wise error of 5 % but for chance."""
    chosen = keys((*SAFE, *UNSAFE), allow=False)
    per_trace, tokens = counts(traces, chosen)
    rng, p_values = np.random.default_rng(5), []
    for split in range(500):
        order = rng.permutation(len(chosen))
        a, b = order[:12], order[12:]
        found = permutation_test(per_trace[a], tokens[a], per_trace[b], tokens[b], num_permutations=199, seed=split)
        p_values.append(found.p_values.values.min())
    wrong = np.mean(np.array(p_values) <= 0.05)
    assert wrong <= 0.05 + 2 * (0.05 * 0.95 / 500) ** 0.5
    assert stats.kstest(p_values, "uniform").pvalue > 0.01

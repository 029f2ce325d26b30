"""What a trace says was done can be done again, and nothing else can be made of it."""

import json
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.experiments.attention import AblateHead, MoveSink, SuppressSpan
from workbench.experiments.described import experiment_from, interventions_from
from workbench.experiments.experiment import experiment
from workbench.experiments.experts import Force, MeanOutput, RouteAround, Scale, Swap, ZeroContribution
from workbench.experiments.intervening import Intervention, intervene
from workbench.experiments.residual import AddVector, PatchResidual

IDS = [(7 * i + 3) % 251 for i in range(38)]

CHANGES: list[Intervention] = [
    RouteAround({0: (2, 5), 2: (1,)}, (14, None)),
    ZeroContribution({1: (4,)}, "completion"),
    Force({2: (0, 6)}, (3, 9)),
    Scale({1: (3,)}, factor=-0.5),
    Swap({0: {2: 3, 3: 2}}, "prompt"),
    SuppressSpan((4, 8), {1: (2, 0), 0: None}),
    SuppressSpan("prompt"),
    AblateHead({2: (5,)}, (20, 30)),
    MoveSink({1: None}, by=2.5),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.variant)
def test_a_saved_trace_tells_what_to_do_again(odd: wb.Model, change: Intervention, tmp_path: Any) -> None:
    with intervene(odd, change, num_prompt_tokens=9):
        wb.replay(odd, IDS, num_prompt_tokens=9).save(tmp_path / "changed.safetensors")
    saved = wb.open_trace(tmp_path / "changed.safetensors")
    again = interventions_from(saved.meta["intervention"])
    assert again == [change]
    with intervene(odd, again, num_prompt_tokens=9):
        repeated = wb.replay(odd, IDS, num_prompt_tokens=9)
    np.testing.assert_array_equal(repeated.logprobs, saved.logprobs)


def test_a_mean_is_over_the_baseline_again(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS)
    found = experiment(odd, read, MeanOutput({1: (5,)}), generate=False)
    again = experiment(odd, read, interventions_from(found.trace.meta["intervention"]), generate=False)
    np.testing.assert_array_equal(again.kl, found.kl)


def test_a_view_hands_on_what_was_asked_for_and_hears_how_far_it_is(odd: wb.Model) -> None:
    read, heard = wb.replay(odd, IDS), []
    asked = [{"variant": "route around", "experts": {"1": [5]}, "tokens": [4, None]}]
    options: Any = {"generate": False, "controls": 2, "tolerance": 9}
    found = experiment_from(odd, read, asked, **options, on_run=lambda *done: heard.append(done))
    same = experiment(odd, read, RouteAround({1: [5]}, (4, None)), **options)
    np.testing.assert_array_equal(found.kl, same.kl)
    assert heard == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("description", "text"),
    [
        ({"variant": "remove refusals"}, "expected a variant, one of route around, zero contribution, mean output"),
        ({"variant": "route around"}, r"route around: cannot be made of \{'variant': 'route around'\} \('tokens'\)"),
        ({"variant": "scale", "tokens": "all", "experts": {"a": [1]}}, "scale: cannot be made of"),
        ({"variant": "swap", "tokens": "all", "experts": {"1": [3]}}, "swap: cannot be made of"),
        ({"variant": "force", "tokens": [1], "experts": {"1": [3]}}, "force: cannot be made of"),
        ({"variant": "force", "tokens": "all", "experts": [1]}, "force: cannot be made of"),
        (
            AddVector(1, np.ones(44)).describe(),
            r"holds a hash alone, and no vector given \(none\) has it$",
        ),
        (
            {"variant": "add vector", "layer": 1, "tokens": "all"},
            "expected the name of a vector, got None; given: none",
        ),
        (
            {"variant": "patch residual", "layer": 1, "source": "b", "tokens": [1, 2]},
            r"^patch residual: no source named 'b' was given \(none\); pass sources=\{'b': …\}$",
        ),
        (
            {"variant": "patch residual", "layer": 1, "source": "b", "tokens": "all"},
            "patch residual: cannot be made of",
        ),
        ({"variant": "patch residual", "layer": 1, "source": "b", "tokens": [1, None]}, "cannot be made of"),
    ],
)
def test_what_is_not_a_description(description: Any, text: str) -> None:
    with pytest.raises(wb.ModelError, match=text):
        interventions_from([json.loads(json.dumps(description))])


def test_vectors_and_sources_are_named_and_handed_in(odd: wb.Model) -> None:
    read = wb.replay(odd, IDS)
    spec = wb.CaptureSpec(lens=False, residual=[0, 2])
    other = wb.replay(odd, IDS[::-1], capture=spec)
    up, down = np.linspace(-1, 1, odd.d_model), np.linspace(1, -2, odd.d_model)
    asked: list[Any] = [
        {"variant": "add vector", "layer": 1, "vector": "down", "factor": -2, "tokens": [3, None]},
        {"variant": "patch residual", "layer": 2, "source": "b", "tokens": [5, 9], "source_start": 7},
    ]
    given: Any = {"vectors": {"up": up, "down": down}, "sources": {"a": read, "b": other}}
    found = experiment_from(odd, read, asked, **given, generate=False)
    same = experiment(
        odd, read, [AddVector(1, down, (3, None), -2.0), PatchResidual(2, other, (5, 9), 7)], generate=False
    )
    np.testing.assert_array_equal(found.kl, same.kl)

    # What a trace says was done names the vector and the source by their hashes.
    again = interventions_from(found.trace.meta["intervention"], **given)
    np.testing.assert_array_equal(experiment(odd, read, again, generate=False).kl, same.kl)
    with pytest.raises(wb.ModelError, match=r"^add vector: .* a hash alone, and no vector given \('up'\)"):
        interventions_from(found.trace.meta["intervention"], vectors={"up": up})

    sha256 = found.trace.meta["intervention"][0]["sha256"]
    assert len(interventions_from([{**asked[0], "sha256": sha256}], **given)) == 1
    with pytest.raises(wb.ModelError, match=r"^add vector: the vector 'down' is another than the one that was used"):
        interventions_from([{**asked[0], "sha256": sha256}], vectors={"down": up})
    with pytest.raises(wb.ModelError, match=r"^add vector: no vector named 'down' was given \('up'\); pass vectors="):
        interventions_from(asked, vectors={"up": up})

"""One of every view, on the embedded model where it can run: for the tests of access and the gallery.

The notebook of the tests runs this in its kernel; a page takes those that a page can show.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [path for path in (str(TESTS), str(TESTS / "browser")) if path not in sys.path]

from reviewing import REVIEW, small_review  # noqa: E402
from written_report import written_chain, written_control, written_report  # noqa: E402

import widgets  # noqa: E402
import workbench as wb  # noqa: E402
from widgets.class_predictions import ClassPredictions  # noqa: E402
from widgets.live_view import LiveView  # noqa: E402
from widgets.prediction import Prediction  # noqa: E402
from widgets.router_by_hand import RouterByHand  # noqa: E402
from widgets.training_view import TrainingView  # noqa: E402
from workbench.course.predictions import Guess, record_guess  # noqa: E402
from workbench.course.router_training import RouterRecipe, text_contexts, train_router  # noqa: E402
from workbench.experiments.continuation import continue_from  # noqa: E402
from workbench.experiments.described import experiment_from  # noqa: E402
from workbench.experiments.suppression import suppression  # noqa: E402
from workbench.loading import load_tokenizer  # noqa: E402
from workbench.review import open_desk  # noqa: E402

SUM = "47 + 85 = ?"
GUESSES = {"ada": 3, "ben": 4, "cleo": 4, "dai": 6, "eve": 8}


def paged_views(model: wb.Model, samples: int = 2) -> dict[str, Any]:
    """Views that a page without a kernel can show, by the name of their class; `samples` of each effort."""
    trace = wb.capture(model, SUM, effort="high", temperature=0)
    short = wb.capture(model, SUM, effort="low", temperature=0)
    runs = wb.compare_efforts(model, "12 + 34 + 56 = ?", samples=samples)
    start = trace.num_prompt_tokens
    return {
        "TraceExplorer": widgets.TraceExplorer(trace, token=start + 12, layer=1, color_by="entropy"),
        "AttentionView": widgets.AttentionView(
            trace, token=start + 12, layer=1, suppress=partial(suppression, model, trace)
        ),
        "RouterMap": widgets.RouterMap(trace),
        "LoadCurve": widgets.LoadCurve(trace),
        "RoutingPaths": widgets.RoutingPaths(trace),
        "ExpertCard": widgets.ExpertCard(trace, layer=1, expert=3),
        "ChainView": _chain(model, trace),
        "ChainEditor": _edited(model, trace),
        "EffortComparison": widgets.EffortComparison(runs, references="102"),
        "TraceDiff": widgets.TraceDiff(trace, short, labels=("high", "low")),
        "InterventionBench": _bench(model, trace),
        "FaithfulnessReport": widgets.FaithfulnessReport(
            written_report(), control=written_control(), trace=written_chain()
        ),
    }


SHOWN_ALREADY = (LiveView, TrainingView)
"""they show themselves in the cell that fills them"""


def other_views(folder: Path) -> dict[str, Any]:
    """Views of what happens in a kernel: they are in a notebook, and in no page."""
    open_one = Prediction("How many experts does a token go to?", 2, unit="experts")
    told = Prediction("Which has more experts?", "20b", choices=["tiny", "20b"], why="counted in the two configs")
    told.make_guess("tiny")
    return {
        "Prediction": open_one,
        "PredictionTold": told,
        "RouterByHand": RouterByHand([1.5, 0.25, -0.5, 2.0, 0.75], top_k=2),
        "ClassPredictions": _class_predictions(folder / "class"),
        "TrainingView": _training(),
        "LiveView": _live(),
        "ReviewDesk": _desk(folder / "review"),
    }


def _chain(model: wb.Model, trace: wb.Trace) -> Any:
    view = widgets.ChainView(trace, continue_from=partial(continue_from, model, temperature=0))
    view.branch(trace.num_prompt_tokens + 5, "7")
    return view


def _edited(model: wb.Model, trace: wb.Trace) -> Any:
    light = wb.CaptureSpec(attention=False, lens=False)
    view = widgets.ChainEditor(trace, run=partial(continue_from, model, temperature=0, capture=light))
    view.edit("truncate", 1)
    return view


def _bench(model: wb.Model, trace: wb.Trace) -> Any:
    view = widgets.InterventionBench(trace, run=partial(experiment_from, model), layer=0, expert=4)
    view.experiment([{"variant": "zero contribution", "experts": {"0": [4]}, "tokens": "analysis"}], controls=2)
    return view


def _class_predictions(folder: Path) -> Any:
    folder.mkdir(parents=True)
    for who, guess in GUESSES.items():
        record_guess(Guess("How many experts are dead?", guess, 5, "experts", who), folder)
    return ClassPredictions(folder)


def _training() -> Any:
    view = TrainingView("A router without the balance loss", 60)
    view.watch(train_router(text_contexts(load_tokenizer(), num_texts=20), RouterRecipe(balance=0.0), 60))
    return view


def _live() -> Any:
    view = LiveView(SUM)
    view.display()
    for text, channel in (("so ", "analysis"), ("7+5=12", "analysis"), ("132", "final")):
        view.append(text, channel, False)
    view.finish("ran to the end")
    return view


def _desk(folder: Path) -> Any:
    catalogue = small_review(folder)
    desk = open_desk(catalogue, REVIEW, "ada")
    [trace] = desk.claim()
    desk.open(trace)
    desk.reveal(trace)
    return widgets.ReviewDesk(desk)

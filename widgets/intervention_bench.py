"""InterventionBench: change experts or heads, run the model again, and see what follows, beside controls."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from widgets.bench_amounts import SPANS, amounts
from widgets.bench_facts import ExperimentResult, experiment_record, given_facts, transcript_facts, whole_text
from widgets.blocks import TraceBlocks
from widgets.bundle import bundle, styles
from widgets.interrupting import Interruptible, error_words, heard_while_busy
from widgets.selection import SharedSelection, selection_key
from workbench.trace import Trace, TraceError

__all__ = ["InterventionBench"]

FOLDER = Path(__file__).parent
INTERRUPTED = "interrupted; the model is as it was"
SAVED = "experiments"
"""where a trace's ``meta`` keeps what was done on the bench"""


class InterventionBench(SharedSelection):
    """What does the model do without this expert, or with this head silenced?

    Pick experts on the map of layers and experts, or heads on that of layers and heads; choose what is done to them
    and at which tokens, several changes at once if need be; run. Shown are the transcripts before and after, diffed by
    token, KL along the baseline's tokens, and the controls with the rank. Every experiment stays in the history, can
    be shown and run again, and goes into `annotated`. Stop ends one that runs, and leaves the model as it was.

    Args:
        trace: the baseline, of an unchanged model.
        run: called with the trace, descriptions of interventions, and ``generate``, ``controls`` and ``on_run``;
            ``partial(experiment_from, model)`` of `workbench.experiments.described`. Without it the bench shows what
            was saved with the trace.
        vectors: [d_model] by name, for adding to the residual stream; handed on to ``run``.
        sources: traces with the residual stream by name, for patching from them; handed on to ``run``.
        token, layer, head, expert: where to start; by default where the other views of the trace are.

    Raises:
        TraceError: what is no trace, has no tokens or keeps no text; a vector or a source that is none.
        TraitError: the selection is outside the trace.
        TypeError: ``run`` cannot be called.
    """

    _esm = bundle(FOLDER / "intervention_bench.js")
    _css = styles(FOLDER / "view.css", FOLDER / "transcript.css", FOLDER / "intervention_bench.css")

    shown = traitlets.Int(-1, help="the experiment that is shown, counted from 0; −1 for none").tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="token_ids of the baseline").tag(sync=True)
    _amounts: "traitlets.Dict[str, dict[str, Any]]" = traitlets.Dict(help="of each of `SPANS`; see `amounts`").tag(
        sync=True
    )
    _history: "traitlets.List[dict[str, Any]]" = traitlets.List(help="records, in the order they came").tag(sync=True)
    _result = traitlets.Dict(help="what is shown of one experiment; see `transcript_facts`").tag(sync=True)
    _job = traitlets.Dict(help="what the model is asked to do: state, done, of, words").tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        *,
        run: Callable[..., ExperimentResult] | None = None,
        vectors: Mapping[str, Any] | None = None,
        sources: Mapping[str, Trace] | None = None,
        token: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        expert: int | None = None,
    ) -> None:
        """Show the bench; see the class."""
        _check(trace)
        if run is not None and not callable(run):
            raise TypeError(
                f"expected a function as run, got {type(run).__name__}; pass partial(experiment_from, model)"
            )
        self.trace, self._run = trace, run
        self._given = {"vectors": dict(vectors or {}), "sources": dict(sources or {})}
        given = given_facts(**self._given)
        self._work = Interruptible()
        saved = _saved(trace)
        self.experiments: list[ExperimentResult | None] = [None] * len(saved)
        """the results in the order of the history; None for one that was saved with the trace and not run again"""
        counts = TraceBlocks(trace).counts()
        super().__init__(
            selection_key([trace]),
            counts,
            {"token": token, "layer": layer, "head": head, "expert": expert},
            {"token": min(trace.num_prompt_tokens, len(trace) - 1)},
            _facts=_facts(trace) | given | {"counts": counts, "canRun": run is not None},
            _amounts={name: amounts(trace, name) for name in SPANS},
            _arrays={"token_ids": np.ascontiguousarray(trace.arrays["token_ids"], dtype="<i4").tobytes()},
            _history=saved,
        )
        self.on_msg(self._answer)
        heard_while_busy(self.comm, "stop", "amounts")

    def experiment(
        self, descriptions: Sequence[Mapping[str, Any]], *, generate: bool = True, controls: int = 0
    ) -> ExperimentResult:
        """Run an experiment, show it, keep it in the history and return it.

        Args:
            descriptions: as of `workbench.experiments.described.interventions_from`.
            generate: let the changed model go its own way; else it reads the baseline's tokens.
            controls: how many.

        Raises:
            TraceError: no ``run`` was given. And whatever it raises.
        """
        asked = {"asked": [dict(one) for one in descriptions], "generate": generate, "controls": int(controls)}
        self._job = {"state": "running", "done": 0, "of": 1 + int(controls)}
        try:
            with self._work:
                found = self._carry_out(asked)
            record = experiment_record(found, asked)
            self.experiments.append(found)
            self._history = [*self._history, record]
            self.shown = len(self._history) - 1
        except BaseException as error:  # an interrupt ends the waiting in the view too
            self._job = {"state": "failed", "words": error_words(error, INTERRUPTED)}
            raise
        self._job = {"state": "done"}
        return found

    def run_again(self, at: int) -> ExperimentResult:
        """Do an experiment of the history once more, and return what came of it. Raises as `experiment`."""
        record = self._history[at]
        return self.experiment(record["asked"], generate=record["generate"], controls=record["controls"])

    @property
    def annotated(self) -> Trace:
        """The trace with the history in its ``meta``: ``bench.annotated.save(path)`` keeps it, a bench shows it again.

        It holds the numbers and how to run each again, not the changed transcripts: ``bench.experiments`` has those.
        """
        return replace(self.trace, meta={**self.trace.meta, SAVED: list(self._history)})

    def _carry_out(self, asked: dict[str, Any]) -> ExperimentResult:
        if self._run is None:
            raise TraceError(
                "this bench has no model to run; make it with InterventionBench(trace, run=partial(experiment_from, "
                "model))"
            )
        options = {"generate": asked["generate"], "controls": asked["controls"]}
        given = {name: of for name, of in self._given.items() if of}
        return self._run(self.trace, asked["asked"], on_run=self._progress, **options, **given)

    def _progress(self, done: int, of: int) -> None:
        self._job = {"state": "running", "done": done, "of": of}

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser: a wish for an experiment, or one of the history again, to stop it, or for amounts."""
        if not isinstance(message, dict):
            return
        if "stop" in message:
            self.send({"stopping": self._work.stop()})
            return
        if "amounts" in message:
            self._send_amounts(message["amounts"])
            return
        with suppress(Exception, KeyboardInterrupt):  # the view says in the cell what was raised
            if isinstance(wish := message.get("run"), dict):
                self.experiment(wish["asked"], generate=bool(wish["generate"]), controls=int(wish["controls"]))
            elif isinstance(message.get("again"), int):
                self.run_again(message["again"])

    def _send_amounts(self, tokens: Any) -> None:
        with suppress(TraceError):  # what is no span is complained of by the form
            found = amounts(self.trace, tokens)
            names = [name for name in found if name != "tokens"]
            about = {"amounts": tokens, "tokens": found["tokens"], "names": names}
            self.send(about, [found[name] for name in names])

    @traitlets.validate("shown")
    def _check_shown(self, proposal: Any) -> int:
        value = int(proposal["value"])
        if not -1 <= value < len(self._history):
            raise traitlets.TraitError(f"expected an experiment within −1 to {len(self._history) - 1}, got {value}")
        return value

    @traitlets.observe("shown")
    def _show(self, _: Any) -> None:
        found = self.experiments[self.shown] if 0 <= self.shown < len(self.experiments) else None
        self._result = {} if found is None else transcript_facts(found) | {"of": self.shown}


def _check(trace: Any) -> None:
    if not isinstance(trace, Trace):
        raise TraceError(f"expected a Trace, got {type(trace).__name__}; wb.open_trace(path) reads one from a file")
    if not len(trace):
        raise TraceError("expected a trace with at least one token, got none")
    if "vocab_ids" not in trace.arrays:
        raise TraceError(
            "this trace does not keep the text of its tokens, so two transcripts cannot be compared. Expected "
            "vocab_ids, vocab_offsets, vocab_bytes and vocab_special, as captures have them."
        )


def _facts(trace: Trace) -> dict[str, Any]:
    """Return a trace's facts without its arrays, but for where the router and the sinks were captured."""
    blocks = TraceBlocks(trace)
    layers = {"experts": list(blocks.layers("expert_indices")) if trace.has("expert_indices") else []}
    layers["heads"] = list(blocks.layers("sink_mass")) if blocks.has("sink_mass") else []
    sources = {"experts": trace.source("expert_indices")} if layers["experts"] else {}
    sources |= {"heads": trace.source("attention_logsumexp")} if layers["heads"] else {}
    return TraceBlocks(whole_text(trace)).facts() | blocks.shape() | {"pickLayers": layers, "pickSources": sources}


def _saved(trace: Trace) -> list[dict[str, Any]]:
    """Return the history that is saved with a trace; raises `TraceError` where it is something else."""
    saved = trace.meta.get(SAVED, [])
    needed = {"asked", "generate", "controls", "done", "meanKl", "answer", "controlRows"}
    if not isinstance(saved, list) or not all(isinstance(one, dict) and needed <= one.keys() for one in saved):
        raise TraceError(f"the trace's {SAVED} were not written by a bench; take them out of its meta to start anew")
    return [dict(one) for one in saved]

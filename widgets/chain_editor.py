"""ChainEditor: change a sentence of the chain of thought by hand, let the model go on, and compare what follows."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from widgets.bench_facts import whole_text
from widgets.blocks import TraceBlocks
from widgets.bundle import bundle, styles
from widgets.chain_facts import check_text
from widgets.editor_facts import AnswerShare, Cost, branch_record, cost, pair_facts, speeds, tally
from widgets.editor_tree import SAVED, Action, Branch, Edit, Rest, chain_sentences, placed, read_branches, saved
from widgets.interrupting import Interruptible, error_words, heard_while_busy
from widgets.selection import SharedSelection, selection_key
from widgets.trace_diff import TraceDiff
from workbench.trace import Trace, TraceError

__all__ = ["ChainEditor"]

FOLDER = Path(__file__).parent
INTERRUPTED = "interrupted before a rollout was done"
SAMPLES = 5
"""rollouts of an edit by default; one where they are greedy, for all would be the same"""
Place = int | tuple[int, int]
"""a branch, or one of its rollouts as (branch, rollout)"""


class ChainEditor(SharedSelection):
    """What would the model have answered, had it thought otherwise?

    Choose a sentence of the chain of thought; replace it, delete it, insert one after it, or truncate the chain after
    it. The model then writes the rest anew, or the rest is kept verbatim and only the answer is written. Each edit is
    a branch of a tree with its answers counted; a branch can be edited too. Two stand side by side, diffed by token.

    Going on after a sentence that was not changed (truncate) is the control of an edit there: sampled anew, a rollout
    may come to another answer with nothing changed at all.

    Args:
        trace: with an analysis channel; branches that were saved with it are shown again, as text.
        run: called with a trace, a token, what is put there, ``temperature`` and ``seed``, returns a trace;
            ``partial(continue_from, model)`` of `workbench.experiments.continuation`, to which a ``max_new_tokens`` or
            a ``capture`` may be given. Without it the editor shows what was saved.
        token, layer: where to start; by default where the other views of the trace are, else the chain's beginning.

    Raises:
        TraceError: what is no trace, keeps no text, or has no chain of thought.
        TraitError: the selection is outside the trace, or a branch that is not there.
        TypeError: ``run`` cannot be called.
    """

    _esm = bundle(FOLDER / "chain_editor.js")
    _css = styles(
        *(FOLDER / f"{name}.css" for name in ("view", "transcript", "chain_view", "chain_editor")),
    )

    shown = traitlets.Tuple(
        traitlets.Int(), traitlets.Int(), default_value=(0, 0), help="the branch that is shown and its rollout"
    ).tag(sync=True)
    beside = traitlets.Tuple(
        traitlets.Int(), traitlets.Int(), default_value=(-1, 0), help="what it is compared with; −1 for nothing"
    ).tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _tree: "traitlets.List[dict[str, Any]]" = traitlets.List(help="see `branch_record`").tag(sync=True)
    _pair = traitlets.Dict(help="what is shown and what stands beside it; see `pair_facts`").tag(sync=True)
    _speeds = traitlets.Dict(help="see `speeds`").tag(sync=True)
    _job = traitlets.Dict(help="what the model is asked to do: state, done, of, words").tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        *,
        run: Callable[..., Trace] | None = None,
        token: int | None = None,
        layer: int | None = None,
    ) -> None:
        """Show the chain and its branches; see the class."""
        check_text(trace)
        if run is not None and not callable(run):
            raise TypeError(
                f"expected a function as run, got {type(run).__name__}; pass partial(continue_from, model)"
            )
        sentences = chain_sentences(trace)
        if not sentences:
            raise TraceError(
                "this trace has no chain of thought to edit: nothing is on the analysis channel of its completion. "
                "Capture it with a higher effort, or with a model that speaks harmony, such as gpt-oss."
            )
        self.trace, self._run = trace, run
        self.branches: list[Branch] = read_branches(trace)
        """the original, which is branch 0, and what followed each edit"""
        self._paired: Any = None
        self._work = Interruptible()
        counts = TraceBlocks(trace).counts()
        facts = TraceBlocks(whole_text(trace)).facts() | TraceBlocks(trace).shape()
        super().__init__(
            selection_key([trace]),
            counts,
            {"token": token, "layer": layer},
            {"token": sentences[0].start},
            _facts=facts | {"counts": counts, "canRun": run is not None, "samples": SAMPLES},
            _tree=[branch_record(branch, trace) for branch in self.branches],
            _pair=pair_facts(trace, self.branches, (0, 0), None),
            _speeds=speeds(self.branches),
        )
        self.on_msg(self._answer)
        heard_while_busy(self.comm, "stop")

    def edit(
        self,
        action: Action,
        sentence: int,
        text: str = "",
        *,
        rest: Rest = "anew",
        branch: Place | None = None,
        samples: int | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Branch:
        """Change a sentence, let the model go on, show what follows, and return it.

        Args:
            action: replace the sentence, delete it, insert a text after it, or truncate the chain after it.
            sentence: of the chain of the rollout that is edited, counted from 0.
            text: for replace and insert: put there verbatim, so with its line end; it is made tokens by itself.
            rest: anew: the model writes what follows. kept: the rest of the chain stays, token by token, and only the
                answer is written; a truncated chain is closed.
            branch: that is edited, or (branch, rollout); by default what is shown.
            samples: rollouts; by default 5, or 1 where the temperature is 0.
            temperature: 0 is greedy.
            seed: of the first rollout; each next one has the next seed.

        Returns:
            The branch, which is also the last of ``branches``. Interrupted, it has the rollouts that were done.

        Raises:
            TraceError: no ``run``, a sentence or branch that is not there, text that does not go with the action, a
                rest that cannot be kept, samples out of range. And whatever ``run`` raises.
        """
        self._job = {"state": "running", "done": 0, "of": samples or (1 if temperature == 0 else SAMPLES)}
        try:
            edit = self._edit(action, sentence, text, rest, branch)
            found = self._go_on(edit, _samples(samples, temperature), float(temperature), int(seed))
            self._keep(found)
        except BaseException as error:  # an interrupt ends the waiting in the view too
            self._job = {"state": "failed", "words": error_words(error, INTERRUPTED)}
            raise
        self._job = {"state": "done"}
        return found

    def cost(
        self,
        action: Action,
        sentence: int,
        text: str = "",
        *,
        rest: Rest = "anew",
        branch: Place | None = None,
        samples: int = SAMPLES,
    ) -> Cost:
        """Return what an edit would take: rollouts, tokens read and written by each, seconds where measured.

        The tokens are those of the rollout that is edited: the model may write fewer, or many more. Raises as `edit`.
        """
        return cost(self.branches, self._edit(action, sentence, text, rest, branch), samples)

    def tally(self, branch: int) -> tuple[AnswerShare, ...]:
        """Return the answers of a branch with count, n and the interval of the share; the most frequent first."""
        return tally(self.branches[self._place(branch)[0]], self.trace)

    def diff(self, a: Place, b: Place) -> TraceDiff:
        """Return a view of two branches, by token and, where captured, by expert.

        Args:
            a: a branch, 0 for the original, or (branch, rollout).
            b: likewise.

        Raises:
            TraceError: no such branch or rollout.
        """
        places = self._place(a), self._place(b)
        names = [_name(place, self.branches) for place in places]
        return TraceDiff(*(self._rollout(place) for place in places), labels=names)

    @property
    def annotated(self) -> Trace:
        """The trace with the branches in its ``meta``: ``editor.annotated.save(path)`` keeps them.

        An editor on the opened file shows them again, also without a model. It holds what was said, by tokens; what
        was captured of the branches, such as experts, stays with ``branches[n].traces`` and is saved trace by trace.
        """
        return replace(self.trace, meta={**self.trace.meta, SAVED: saved(self.branches)})

    def _edit(self, action: Action, sentence: int, text: str, rest: Rest, branch: Place | None) -> Edit:
        place = self._place(self.shown if branch is None else branch)
        rollout = self._rollout(place)
        edit = Edit(*place, action, int(sentence), str(text), rest)
        placed(rollout, edit)  # raises for what cannot be done
        own = chain_sentences(rollout)[edit.sentence]
        return replace(edit, was=rollout.text(own.start, own.stop))

    def _go_on(self, edit: Edit, samples: int, temperature: float, seed: int) -> Branch:
        if self._run is None:
            raise TraceError(
                "this editor has no model to run; make it with ChainEditor(trace, run=partial(continue_from, model))"
            )
        rollout = self._rollout((edit.branch, edit.sample))
        token, put, _ = placed(rollout, edit)
        traces: list[Trace] = []
        while len(traces) < samples:
            self._job = {"state": "running", "done": len(traces), "of": samples}
            try:
                with self._work:
                    found = self._run(rollout, token, put or None, temperature=temperature, seed=seed + len(traces))
                _check_result(found, self.trace)
            except KeyboardInterrupt:
                if not traces:
                    raise
                break
            traces.append(found)
        return Branch(edit, tuple(traces), temperature, seed, samples)

    def _keep(self, branch: Branch) -> None:
        """Put a branch into the tree and show it beside its parent."""
        self.branches.append(branch)
        self._tree = [*self._tree, branch_record(branch, self.trace)]
        self._speeds = speeds(self.branches)
        if branch.edit is not None:
            with self.hold_trait_notifications():
                self.shown = (len(self.branches) - 1, 0)
                self.beside = (branch.edit.branch, branch.edit.sample)

    def _place(self, place: Place) -> tuple[int, int]:
        branch, sample = (place, 0) if isinstance(place, int | np.integer) else place
        if not 0 <= branch < len(self.branches):
            raise TraceError(f"expected a branch within 0–{len(self.branches) - 1}, got {branch}")
        count = len(self.branches[branch].traces)
        if not 0 <= sample < count:
            raise TraceError(f"expected a rollout of branch {branch} within 0–{count - 1}, got {sample}")
        return int(branch), int(sample)

    def _rollout(self, place: tuple[int, int]) -> Trace:
        return self.branches[place[0]].traces[place[1]]

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser, which wishes for an edit, or to stop one."""
        if not isinstance(message, dict):
            return
        if "stop" in message:
            self.send({"stopping": self._work.stop()})
        if not isinstance(wish := message.get("edit"), dict):
            return
        with suppress(Exception, KeyboardInterrupt):  # the view says in the cell what was raised
            how = {name: wish[name] for name in ("rest", "samples", "temperature", "seed")}
            self.edit(wish["action"], wish["sentence"], wish["text"], branch=tuple(wish["branch"]), **how)

    @traitlets.validate("shown", "beside")
    def _check_place(self, proposal: Any) -> tuple[int, int]:
        if proposal["trait"].name == "beside" and proposal["value"][0] == -1:
            return (-1, 0)
        try:
            return self._place(proposal["value"])
        except TraceError as error:
            raise traitlets.TraitError(str(error)) from error

    @traitlets.observe("shown", "beside")
    def _pair_up(self, _: Any) -> None:
        if self._paired == (self.shown, self.beside):
            return
        self._paired = self.shown, self.beside
        self._pair = pair_facts(self.trace, self.branches, self.shown, None if self.beside[0] < 0 else self.beside)


def _samples(samples: int | None, temperature: float) -> int:
    if samples is None:
        return 1 if temperature == 0 else SAMPLES
    if samples < 1:
        raise TraceError(f"expected at least 1 rollout as samples, got {samples}")
    if temperature == 0 and samples > 1:
        raise TraceError(f"expected 1 sample at temperature 0, where all rollouts are the same, got {samples}")
    return int(samples)


def _check_result(found: Any, original: Trace) -> None:
    if not isinstance(found, Trace):
        raise TraceError(f"expected a Trace from run, got {type(found).__name__}")
    check_text(found)
    if str(found.meta.get("truncated") or "").startswith("interrupted"):
        raise KeyboardInterrupt(found.meta["truncated"])  # a capture returns what is done; a part is no rollout here
    ids, prompt = found.arrays["token_ids"], original.num_prompt_tokens
    both = np.intersect1d(found.arrays["vocab_ids"], original.arrays["vocab_ids"]).tolist()
    alike = all(found.token_bytes(i) == original.token_bytes(i) for i in both)
    if not alike or found.num_prompt_tokens != prompt or (ids[:prompt] != original.arrays["token_ids"][:prompt]).any():
        raise TraceError(
            "expected a trace of the original's prompt and vocabulary from run, got another; run goes on from the "
            "trace that it is given, with the model that made it"
        )


def _name(place: tuple[int, int], branches: list[Branch]) -> str:
    branch, sample = place
    if branch == 0:
        return "original"
    return f"branch {branch}" + (f", rollout {sample}" if len(branches[branch].traces) > 1 else "")

"""ChainView: the chain of thought as sentences, what the model was unsure of, and what if it had said otherwise."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import traitlets

from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.chain_facts import ChainFacts, branch_facts, check_text
from widgets.interrupting import error_words
from widgets.selection import SharedSelection, selection_key
from workbench.analysis.reasoning import LabelledSentence, label_sentences
from workbench.trace import Trace, TraceError

__all__ = ["ChainView"]

FOLDER = Path(__file__).parent
INTERRUPTED = "interrupted before there was anything to show"
SENT = ("token_ids", "logprobs", "entropy", "top_token_ids", "top_logprobs", "lens_token_ids", "lens_logprobs")
RULES, OWN = "rules", "own labels"


class ChainView(SharedSelection):
    """The completion of a trace, sentence by sentence.

    Each sentence has its entropy and its labels with the rules that fired; forking tokens and markers are marked,
    and arcs lead from where the chain turns back to the sentence that it takes up again. Of the selected token it
    shows the logit lens, which predicts the next token, and the alternatives, which stand in place of this one. The
    selection is shared with every view of the trace.

    With a ``continue_from``, the model goes on from an alternative; the result stands beside the original, and
    ``view.branches`` holds the traces.

    Args:
        trace: what to show.
        token, layer: where to start; by default where the other views of the trace are, else the first completion
            token and layer 0.
        labels: first token of a sentence → a person's labels for it, which replace those of the rules.
        labels_by: whose they are.
        answer: ``(start, stop)`` of the answer's tokens; by default its last number, else the final channel's text.
        continue_from: called with trace, token and replacement (an id, text, or None), returns a trace;
            ``partial(continue_from, model)`` of `workbench.experiments.continuation`.
        preload_bytes: arrays of up to this size are sent to the browser as a whole and then need no kernel.

    Raises:
        TraceError: the trace is not one, has no completion, or keeps no text; labels or an answer that are not in it.
        TraitError: the selection is outside the trace.
        TypeError: ``continue_from`` cannot be called, or an argument that is not listed here.
    """

    _esm = bundle(FOLDER / "chain_view.js")
    _css = styles(FOLDER / "view.css", FOLDER / "transcript.css", FOLDER / "chain_view.css")

    labels: "traitlets.Dict[int, tuple[str, ...]]" = traitlets.Dict(  # type: ignore[assignment]
        help="first token of a sentence → own labels, which replace those of the rules"
    ).tag(
        sync=True,
        to_json=lambda labels, _: {str(token): list(own) for token, own in labels.items()},
        from_json=lambda labels, _: {int(token): tuple(own) for token, own in labels.items()},
    )
    labels_by = traitlets.Unicode(OWN, help="whose the own labels are").tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _chain = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict().tag(sync=True)
    _blocks = traitlets.Dict().tag(sync=True)
    _branches: "traitlets.List[dict[str, Any]]" = traitlets.List().tag(sync=True)
    _job = traitlets.Dict(help="what the model is asked to do: state, words").tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        *,
        token: int | None = None,
        layer: int | None = None,
        labels: Mapping[int, Sequence[str]] | None = None,
        labels_by: str = OWN,
        answer: tuple[int, int] | None = None,
        continue_from: Callable[[Trace, int, int | str | None], Trace] | None = None,
        preload_bytes: int = PRELOAD_LIMIT_BYTES,
    ) -> None:
        """Show the chain of thought of a trace; see the class."""
        check_text(trace)
        if continue_from is not None and not callable(continue_from):
            raise TypeError(
                f"expected a function as continue_from, got {type(continue_from).__name__}; "
                "pass partial(continue_from, model)"
            )
        self.trace, self._continue_from = trace, continue_from
        self.branches: list[Trace] = []
        """the traces of the continuations, in the order they came"""
        self._reader = TraceBlocks(replace(trace, arrays=_sent(trace)), preload_bytes)
        counts = TraceBlocks(trace).counts()  # of the whole trace: the selection is shared with views of the rest
        shape = {"counts": counts, "numLayers": counts["layer"]}
        chain = ChainFacts(trace, answer)
        super().__init__(
            selection_key([trace]),
            counts,
            {"token": token, "layer": layer},
            {"token": trace.num_prompt_tokens},
            labels=dict(labels or {}),
            labels_by=labels_by,
            _facts=self._reader.facts() | shape,
            _chain=chain.facts() | {"canContinue": continue_from is not None},
            _arrays=chain.arrays(),
            _blocks=self._reader.preload(),
        )
        self.on_msg(self._answer)

    @property
    def labelled(self) -> tuple[LabelledSentence, ...]:
        """The completion's sentences with their labels: a person's own where there are any, else the rules'."""
        return label_sentences(self.trace, channel=None, own=self.labels, by=self.labels_by)

    def branch(self, token: int, replacement: int | str | None = None) -> Trace:
        """Let the model go on from a token, show the result beside the original, and return it.

        Args:
            token: of the completion.
            replacement: token id or text that stands there instead; None lets the model choose anew.

        Raises:
            TraceError: no ``continue_from`` was given, or it returned no trace.
        """
        put = self._words_of(replacement)
        self._job = {"state": "running", "token": token, "put": put}
        try:
            found = self._go_on(token, replacement)
            self.branches.append(found)
            self._branches = [*self._branches, branch_facts(self.trace, found, token, put)]
        except BaseException as error:  # an interrupt ends the waiting in the view too
            self._job = {"state": "failed", "token": token, "put": put, "words": error_words(error, INTERRUPTED)}
            raise
        self._job = {"state": "done", "token": token, "put": put}
        return found

    def _go_on(self, token: int, replacement: int | str | None) -> Trace:
        if self._continue_from is None:
            raise TraceError(
                "this view has no model to go on with; make it with "
                "ChainView(trace, continue_from=partial(continue_from, model))"
            )
        found = self._continue_from(self.trace, token, replacement)
        if not isinstance(found, Trace):
            raise TraceError(f"expected a Trace from continue_from, got {type(found).__name__}")
        return found

    def _words_of(self, replacement: int | str | None) -> str:
        if replacement is None:
            return ""
        if isinstance(replacement, str):
            return replacement
        try:
            return self.trace.token_bytes(int(replacement)).decode("utf-8", "replace")
        except TraceError:  # the text of an id that the trace never saw is not known here
            return f"#{int(replacement)}"

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser: a list of blocks, or a wish to go on from a token."""
        if not isinstance(message, dict):
            return
        if isinstance(message.get("fetch"), list):
            self.send_blocks(self._reader, message["fetch"])
        elif isinstance(message.get("continue"), dict):
            wish = message["continue"]
            with suppress(Exception, KeyboardInterrupt):  # the view says in the cell what was raised
                self.branch(int(wish["token"]), wish.get("id", wish.get("text")))

    @traitlets.validate("labels")
    def _check_labels(self, proposal: Any) -> dict[int, tuple[str, ...]]:
        own = {
            int(start): (says,) if isinstance(says, str) else tuple(says) for start, says in proposal["value"].items()
        }
        label_sentences(self.trace, channel=None, own=own)  # raises for what is no sentence or no label
        return own


def _sent(trace: Trace) -> dict[str, Any]:
    return {name: array for name, array in trace.arrays.items() if name in SENT or name.startswith("vocab_")}

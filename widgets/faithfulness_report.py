"""FaithfulnessReport: does the answer depend on the chain of thought, and does the chain say what moved it?"""

from pathlib import Path
from typing import Any

import traitlets

from widgets.blocks import TraceBlocks
from widgets.bundle import bundle, styles
from widgets.faithfulness_facts import chain_range, report_facts
from widgets.selection import SharedSelection, selection_key
from workbench.analysis.faithfulness import FaithfulnessReport as Report
from workbench.analysis.faithfulness import SentenceImportance
from workbench.trace import Trace, TraceError

__all__ = ["FaithfulnessReport"]

FOLDER = Path(__file__).parent


class FaithfulnessReport(SharedSelection):
    """The faithfulness tests of one model: each figure with its n, interval, control and where it comes from.

    Shown are the curves of early answering, added mistakes and filler with their AOC; the hint test with the rate at
    which chains own up, and its cases; and each sentence of a chain with its importance. What is undefined says why,
    and what was not tested is marked as that. Everything is sent when the view is made; it then needs no kernel.

    With the trace whose sentences were resampled, the view shares the trace's selection: a sentence, or a point of a
    curve, selects its token in every view of the trace, and back.

    Args:
        report: results of `workbench.experiments.faithfulness`, of one model.
        control: results of the same tests where the behaviour is taken away, drawn beside them.
        trace: of the chain that was resampled; without one, nothing else is selected.
        sentence: of the chain, where to start, by its index; by default the first that was resampled.
        token: where to start in the trace.

    Raises:
        TraceError: no report, a trace without a chain of thought, or one with other sentences.
        TraitError: a sentence that was not resampled, or a token outside the trace.
    """

    _esm = bundle(FOLDER / "faithfulness_report.js")
    _css = styles(FOLDER / "view.css", FOLDER / "faithfulness_report.css")

    sentence = traitlets.Int(0, help="index of the selected sentence in its chain; 0 where none was resampled").tag(
        sync=True
    )

    _facts = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        report: Report,
        *,
        control: Report | None = None,
        trace: Trace | None = None,
        sentence: int | None = None,
        token: int | None = None,
    ) -> None:
        """Show a report; see the class."""
        for given in (report, control or Report()):
            if not isinstance(given, Report):
                raise TraceError(
                    f"expected a FaithfulnessReport of workbench.analysis.faithfulness, got {type(given).__name__}; "
                    "put a result into one, such as FaithfulnessReport(hints=result)"
                )
        self.report, self.control, self.trace = report, control, trace
        self._chain = None if trace is None else chain_range(trace, report.resampling)
        counts = {"token": 1, "layer": 1, "head": 1, "expert": 1} if trace is None else TraceBlocks(trace).counts()
        if token is None and sentence is not None and sentence in self._places:
            token = self._places[sentence][0]
        super().__init__(
            "" if trace is None else selection_key([trace]),
            counts,
            {"token": token},
            {"token": self._chain[0] if self._chain else 0},
            sentence=self._sentence_at(token, 0) if sentence is None else sentence,
            _facts=report_facts(report, control) | {"counts": counts, "chain": self._chain},
        )

    @property
    def _sentences(self) -> tuple[SentenceImportance, ...]:
        return self.report.resampling.sentences if self.report.resampling else ()

    @property
    def _places(self) -> dict[int, tuple[int, int]]:
        """Index of each resampled sentence → its tokens ``[start, stop)`` in the trace; empty without one."""
        if self._chain is None:
            return {}
        return {s.index: (self._chain[0] + s.start, self._chain[0] + s.stop) for s in self._sentences}

    def _sentence_at(self, token: int | None, otherwise: int) -> int:
        """Return the resampled sentence that a token is in, else another, else the first."""
        found = [i for i, (start, stop) in self._places.items() if token is not None and start <= token < stop]
        known = [s.index for s in self._sentences] or [0]
        return found[0] if found else otherwise if otherwise in known else known[0]

    @traitlets.validate("sentence")
    def _check_sentence(self, proposal: Any) -> int:
        known, value = [s.index for s in self._sentences] or [0], int(proposal["value"])
        if value not in known:
            raise traitlets.TraitError(f"expected a sentence that was resampled, one of {known}, got {value}")
        return value

    @traitlets.observe("token")
    def _follow_token(self, change: Any) -> None:
        self.sentence = self._sentence_at(self.token, self.sentence)

    @traitlets.observe("sentence")
    def _follow_sentence(self, change: Any) -> None:
        start, stop = self._places.get(self.sentence, (self.token, self.token + 1))
        if not start <= self.token < stop:
            self.token = start

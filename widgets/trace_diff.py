"""TraceDiff: two traces aligned by token: where text, experts and answers part."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from widgets.alignment_facts import alignment_arrays
from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.selection import SharedSelection, selection_key
from workbench.analysis.compare.difference import TraceDifference, trace_difference
from workbench.analysis.compare.outcomes import Extract, Same
from workbench.analysis.reasoning import final_answer, same_answer
from workbench.trace import Trace, TraceError

__all__ = ["TraceDiff"]

FOLDER = Path(__file__).parent
WHOLE = ("token_ids", "logprobs", "entropy")
ROUTED = ("expert_indices", "expert_weights")


class TraceDiff(SharedSelection):
    """Two traces side by side: of other efforts, before and after an intervention, or of two models.

    One selection steps through both. It is shared with the other views of each trace: a row of the alignment has a
    token of a, one of b, or both. Experts are compared where both tokens are the same; where anything before them
    differs the comparison is marked as on different text.

    Args:
        a: one trace.
        b: the other.
        labels: what to call them; by default what they differ in (effort, model), else a and b.
        token: of a, where to start; by default where the completions part.
        layer, head, expert: where to start.
        min_run: as of `workbench.analysis.compare.alignment.align`.
        answer: takes the answer from a trace.
        same: whether two answers are the same.
        preload_bytes: experts of up to this size are sent at once and then need no kernel.

    Raises:
        TraceError: what is no trace or has no tokens, or what `align` refuses.
        TraitError: the selection is outside the traces.
    """

    _esm = bundle(FOLDER / "trace_diff.js")
    _css = styles(FOLDER / "view.css", FOLDER / "transcript.css", FOLDER / "trace_diff.css")

    row = traitlets.Int(0, help="the selected row of the alignment").tag(sync=True)
    token_b = traitlets.Int(0, help="the selected token of b; that before, in a row without one").tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="rows, same, shared, tie").tag(sync=True)
    _blocks_a = traitlets.Dict(help="of a; see widgets/blocks.py").tag(sync=True)
    _blocks_b = traitlets.Dict(help="of b").tag(sync=True)

    def __init__(
        self,
        a: Trace,
        b: Trace,
        *,
        labels: Sequence[str] | None = None,
        token: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        expert: int | None = None,
        min_run: int = 3,
        answer: Extract = final_answer,
        same: Same = same_answer,
        preload_bytes: int = PRELOAD_LIMIT_BYTES,
    ) -> None:
        """Align, and show; see the class."""
        for name, trace in (("a", a), ("b", b)):
            _check_trace(name, trace)
        self.difference = trace_difference(a, b, min_run=min_run, answer=answer, same=same)
        self._readers = {"a": TraceBlocks(a, preload_bytes), "b": TraceBlocks(b, preload_bytes)}
        rows = self.difference.alignment.rows
        counts = self._readers["a"].counts()
        if token is not None and not 0 <= token < len(a):
            raise traitlets.TraitError(f"expected a token within 0–{len(a) - 1}, got {token}")
        row = _first_row(self.difference, a) if token is None else int(np.flatnonzero(rows[:, 0] == token)[0])
        places = np.maximum.accumulate(np.maximum(rows[: row + 1], 0), axis=0)[-1]
        super().__init__(
            selection_key([a]),
            counts,
            {"token": token, "layer": layer, "head": head, "expert": expert},
            {"token": int(places[0])},
            row=row,
            token_b=int(places[1]),
            _facts=_facts(self.difference, self._readers, _labels(a, b, labels)),
            _arrays=_arrays(self.difference),
            **{f"_blocks_{side}": _sent(reader) for side, reader in self._readers.items()},
        )
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser, which asks for blocks of a side."""
        if not isinstance(message, dict) or message.get("side") not in self._readers:
            return
        if isinstance(keys := message.get("fetch"), list):
            found, failed = self._readers[message["side"]].read_all(keys)
            self.send({"side": message["side"], "blocks": list(found), "failed": failed}, list(found.values()))

    @traitlets.validate("row")
    def _check_row(self, proposal: Any) -> int:
        return _within("row", int(proposal["value"]), len(self.difference.alignment.rows))

    @traitlets.validate("token_b")
    def _check_token_b(self, proposal: Any) -> int:
        return _within("token of b", int(proposal["value"]), len(self._readers["b"].trace))


def _within(name: str, value: int, count: int) -> int:
    if not 0 <= value < count:
        raise traitlets.TraitError(f"expected a {name} within 0–{count - 1}, got {value}")
    return value


def _check_trace(name: str, trace: Any) -> None:
    if not isinstance(trace, Trace):
        raise TraceError(f"expected a Trace as {name}, got {type(trace).__name__}; wb.open_trace(path) reads one")
    if not len(trace):
        raise TraceError(f"expected a trace with at least one token as {name}, got none")


def _first_row(found: TraceDifference, a: Trace) -> int:
    """Return the row where the completions part, else that of the first token of the completion."""
    if found.alignment.parting is not None:
        return found.alignment.parting
    first = min(a.num_prompt_tokens, len(a) - 1)
    return int(np.flatnonzero(found.alignment.rows[:, 0] == first)[0])


def _labels(a: Trace, b: Trace, given: Sequence[str] | None) -> list[str]:
    if given is not None:
        if isinstance(given, str) or len(given) != 2:
            raise TraceError(f"expected two labels, of a and of b, got {given!r}")
        return [str(label) for label in given]
    readers: tuple[Callable[[Trace], Any], ...] = (
        lambda trace: trace.provenance.get("effort"),
        lambda trace: trace.provenance.get("model"),
    )
    for read in readers:
        mine, theirs = read(a), read(b)
        if mine and theirs and mine != theirs:
            return [str(mine), str(theirs)]
    return ["a", "b"]


def _facts(found: TraceDifference, readers: dict[str, TraceBlocks], labels: list[str]) -> dict[str, Any]:
    """Return everything that is not an array, as JSON."""
    routing, alignment = found.routing, found.alignment
    sides = {side: _side(reader) for side, reader in readers.items()}
    return {
        "sides": sides,
        "keys": {side: selection_key([reader.trace]) for side, reader in readers.items()},
        "labels": labels,
        "counts": readers["a"].counts(),
        "numRows": len(alignment.rows),
        "numShared": alignment.num_shared,
        "parting": alignment.parting,
        "method": alignment.method,
        "answers": list(found.answers),
        "sameAnswer": found.same_answer,
        "missing": list(found.missing),
        "layers": [] if routing is None else list(routing.shared.coords["layer"]),
        "topK": 0 if routing is None else routing.top_k,
        "tieSource": None if routing is None or routing.near_tie is None else routing.near_tie.source,
        "overlaps": []
        if routing is None
        else [
            {
                "phase": part.phase,
                "sameContext": part.same_context,
                "n": part.num_tokens,
                "layers": [round(float(value), 6) for value in part.overlap.values],
                "source": part.overlap.source,
            }
            for part in routing.overlaps
        ],
    }


def _side(reader: TraceBlocks) -> dict[str, Any]:
    facts = reader.facts()
    arrays = {name: array for name, array in facts["arrays"].items() if name in (*WHOLE, *ROUTED)}
    captured = {name: {k: v for k, v in array.items() if k != "dims"} for name, array in facts["arrays"].items()}
    return facts | {"arrays": arrays, "captured": captured, "counts": reader.counts()}


def _sent(reader: TraceBlocks) -> dict[str, bytes]:
    """Return what a side sends at once: numbers of all tokens, and experts that are not too large."""
    trace = reader.trace
    names = [name for name in ROUTED if trace.has(name)]
    keys = [f"all/{name}" for name in WHOLE if trace.has(name)]
    if sum(trace.arrays[name].nbytes for name in names) <= reader.preload_limit:
        keys += [f"token/{name}/{page}" for name in names for page in range(-(-len(trace) // reader.page["token"]))]
    return {key: reader.read(key) for key in keys}


def _arrays(found: TraceDifference) -> dict[str, bytes]:
    """Return rows [row, side] int32, same [row] (2: text split otherwise), shared and tie [pair, layer], uint8."""
    arrays: dict[str, NDArray[Any]] = {}
    if found.routing is not None:
        arrays["shared"] = found.routing.shared.values
        if found.routing.near_tie is not None:
            arrays["tie"] = found.routing.near_tie.values.astype(np.uint8)
    as_bytes = {name: np.ascontiguousarray(values).tobytes() for name, values in arrays.items()}
    return alignment_arrays(found.alignment) | as_bytes

"""EffortComparison: rollouts of several efforts (models, prompts…) beside each other, in text and in numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import traitlets
from ipywidgets import widget_serialization

from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.comparison_facts import pair_arrays, shared_facts
from widgets.selection import SharedSelection, selection_key
from widgets.trace_explorer import TraceExplorer
from workbench.analysis.compare import Comparison, compare
from workbench.analysis.token_set import Traces
from workbench.trace import Trace, TraceError

__all__ = ["EffortComparison"]

FOLDER = Path(__file__).parent
MOST = 6  # columns that can be read side by side
PER_TOKEN = ("token_ids", "logprobs", "entropy")


class Runs(Protocol):
    """Named groups of rollouts, as `compare_efforts` returns them."""

    @property
    def traces(self) -> Mapping[str, Trace | Traces]:
        """Name → rollouts."""
        ...


class EffortComparison(SharedSelection):
    """What groups of rollouts said, and what they came to: answers, length, entropy, experts.

    A column per effort shows one rollout, of which any can be picked; columns scroll together, and a token selected
    in one is marked at the same place of the same channel in the others. The token is shared with the other views of
    the chosen rollout. Below stand the numbers of `workbench.analysis.compare`, each with its n and its null.

    Args:
        runs: of `compare_efforts`, or a mapping name → traces: compare works on any, such as two models, two
            prompts, before and after an intervention.
        comparison: of these traces, made before; by default it is made here.
        column: of the chosen rollout, by number from 0.
        rollouts: which of each column to show; by default the first of each.
        token, layer, head, expert: where to start, in the chosen rollout.
        preload_bytes: texts of rollouts up to this size together are sent at once and then need no kernel.
        options: of `workbench.analysis.compare.compare`, such as ``references="132"``, without which there is no
            accuracy.

    Raises:
        TraceError: what `compare` refuses, such as a group without a completed rollout; more than 6 groups; options
            beside a comparison, or a comparison of other traces.
        TraitError: a column, rollout or token that does not exist.
    """

    _esm = bundle(FOLDER / "effort_comparison.js")
    _css = styles(FOLDER / "view.css", FOLDER / "transcript.css", FOLDER / "effort_comparison.css")

    column = traitlets.Int(0, help="the column of the chosen rollout, from 0").tag(sync=True)
    rollouts = traitlets.List(traitlets.Int(), help="the rollout of each column, from 0").tag(sync=True)
    explorer = traitlets.Instance(TraceExplorer, allow_none=True, help="the rollout that was opened").tag(
        sync=True, **widget_serialization
    )

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="divergence, band, delta and p of each pair, float64").tag(sync=True)
    _texts = traitlets.Dict(help="column/rollout → facts and numbers per token").tag(sync=True)

    def __init__(
        self,
        runs: Runs | Mapping[str, Trace | Traces],
        *,
        comparison: Comparison | None = None,
        column: int = 0,
        rollouts: Sequence[int] | None = None,
        token: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        expert: int | None = None,
        preload_bytes: int = PRELOAD_LIMIT_BYTES,
        **options: Any,
    ) -> None:
        """Compare, and show; see the class."""
        self._groups = _groups(runs)
        self.comparison = _comparison(self._groups, comparison, options)
        found = [[_rollout(trace) for trace in traces] for traces in self._groups.values()]
        self._rollouts = found
        picked = list(rollouts) if rollouts is not None else [0] * len(found)
        self._check_picked(column, picked)
        chosen = found[column][picked[column]]
        facts = shared_facts(self.comparison)
        for column_of, rollouts_of in zip(facts["columns"], found, strict=True):
            column_of["rollouts"] = rollouts_of
        super().__init__(
            chosen["key"],
            chosen["counts"],
            {"token": token, "layer": layer, "head": head, "expert": expert},
            {"token": chosen["start"]},
            column=column,
            rollouts=picked,
            _facts=facts | _header(self._groups, options.get("references")),
            _arrays=pair_arrays(self.comparison.pairs),
            _texts=self._preload(picked, preload_bytes),
        )
        self.on_msg(self._answer)

    @property
    def trace(self) -> Trace:
        """The chosen rollout."""
        return self._trace(self.column, self.rollouts[self.column])

    @property
    def groups(self) -> Mapping[str, Traces]:
        """Name → rollouts, in the order of the columns."""
        return self._groups

    def explore(self) -> TraceExplorer:
        """Show the chosen rollout in a `TraceExplorer` below the comparison, and return it."""
        self.explorer = TraceExplorer(self.trace, token=self.token)
        return self.explorer

    def _trace(self, column: int, rollout: int) -> Trace:
        return list(self._groups.values())[column][rollout]

    def _preload(self, picked: list[int], limit: int) -> dict[str, Any]:
        """Return the texts of the picked rollouts, then of all that fit."""
        keys = [f"{column}/{rollout}" for column, rollout in enumerate(picked)]
        keys += [f"{c}/{r}" for c, found in enumerate(self._rollouts) for r in range(len(found)) if r != picked[c]]
        texts: dict[str, Any] = {}
        size = 0
        for number, key in enumerate(keys):
            size += self._rollout_at(key)["bytes"]
            if number >= len(picked) and size > limit:
                break
            texts[key] = self._text(key)
        return texts

    def _rollout_at(self, key: str) -> dict[str, Any]:
        column, rollout = (int(number) for number in key.split("/"))
        if column < 0 or rollout < 0:
            raise IndexError(key)
        return self._rollouts[column][rollout]

    def _text(self, key: str) -> dict[str, Any]:
        column, rollout = (int(number) for number in key.split("/"))
        blocks = TraceBlocks(self._trace(column, rollout))
        facts = blocks.facts()
        numbers = {name: blocks.read(f"all/{name}") for name in PER_TOKEN if blocks.has(name)}
        return {"facts": facts | {"arrays": {n: facts["arrays"][n] for n in numbers}}, **numbers}

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser: the text of a rollout, or the wish to open one."""
        if not isinstance(message, dict):
            return
        if message.get("open"):
            try:
                self.explore()
            except (TraceError, OSError) as error:
                self.send({"said": f"cannot open it: {error}"})
        elif isinstance(key := message.get("text"), str):
            self._send_text(key)

    def _send_text(self, key: str) -> None:
        try:
            self._rollout_at(key)
            text = self._text(key)
        except (ValueError, IndexError):
            self.send({"said": f"expected a rollout such as 2/0, got {key!r}"})
        except (TraceError, OSError) as error:
            self.send({"said": f"rollout {key} cannot be read: {error}"})
        else:
            names = [name for name in PER_TOKEN if name in text]
            self.send({"text": key, "facts": text["facts"], "names": names}, [text[name] for name in names])

    def _count(self, name: str) -> int:
        self._check_picked(self.column, self.rollouts)
        return int(self._rollouts[self.column][self.rollouts[self.column]]["counts"][name])

    def _check_picked(self, column: int, picked: Sequence[int]) -> None:
        names = list(self._groups)
        if not 0 <= column < len(names):
            raise traitlets.TraitError(f"expected a column within 0–{len(names) - 1}, got {column}")
        if len(picked) != len(names):
            raise traitlets.TraitError(f"expected a rollout for each of {', '.join(names)}, got {list(picked)}")
        for name, found, rollout in zip(names, self._rollouts, picked, strict=True):
            if not 0 <= rollout < len(found):
                raise traitlets.TraitError(f"expected a rollout of {name} within 0–{len(found) - 1}, got {rollout}")

    @traitlets.validate("column")
    def _check_column(self, proposal: Any) -> int:
        self._check_picked(int(proposal["value"]), self.rollouts)
        return int(proposal["value"])

    @traitlets.validate("rollouts")
    def _check_rollouts(self, proposal: Any) -> list[int]:
        self._check_picked(self.column, proposal["value"])
        return list(proposal["value"])

    @traitlets.observe("column", "rollouts")
    def _choose(self, _: Any) -> None:
        """Another rollout has another length and another key."""
        if not self.rollouts or self.column >= len(self.rollouts):
            return
        chosen = self._rollouts[self.column][self.rollouts[self.column]]
        self._selection_key = chosen["key"]
        if self.token >= max(1, chosen["counts"]["token"]):
            self.token = chosen["start"]


def _groups(runs: Runs | Mapping[str, Trace | Traces]) -> dict[str, Traces]:
    given = runs if isinstance(runs, Mapping) else getattr(runs, "traces", None)
    if not isinstance(given, Mapping):
        raise TraceError(
            f"expected what wb.compare_efforts returns, or a mapping name → traces, got {type(runs).__name__}"
        )
    if not 1 <= len(given) <= MOST:
        raise TraceError(f"expected 1 to {MOST} groups of rollouts side by side, got {len(given)}")
    return {str(name): (traces,) if isinstance(traces, Trace) else traces for name, traces in given.items()}


def _comparison(groups: Mapping[str, Traces], made: Comparison | None, options: Mapping[str, Any]) -> Comparison:
    if made is None:
        return compare(groups, **options)
    if options:
        raise TraceError(f"a comparison was made already; give {', '.join(options)} to compare, not here")
    expected = {name: len(traces) for name, traces in groups.items()}
    got = {group.name: len(group.outcomes) for group in made.groups}
    if expected != got:
        raise TraceError(f"expected a comparison of these rollouts ({_counted(expected)}), got one of {_counted(got)}")
    return made


def _counted(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in groups.items())


def _rollout(trace: Trace) -> dict[str, Any]:
    """Return how long a rollout is, its key, how it was drawn, and how large its text."""
    sampling = trace.provenance.get("sampling") or {}
    written = next((m for m in trace.messages if m.content_start >= trace.num_prompt_tokens), None)
    texts = (*PER_TOKEN, "vocab_bytes")
    return {
        "key": selection_key([trace]),
        "counts": TraceBlocks(trace).counts(),
        "start": min(written.content_start if written else trace.num_prompt_tokens, len(trace) - 1),
        "seed": sampling.get("seed"),
        "temperature": sampling.get("temperature"),
        "bytes": int(sum(2 * trace.arrays[name].nbytes for name in texts if name in trace.arrays)),
    }


def _header(groups: Mapping[str, Traces], references: Any) -> dict[str, Any]:
    """Return what the head of the view says."""
    questions = {str(trace.meta.get("question") or "") for traces in groups.values() for trace in traces}
    one = next(iter(questions)) if len(questions) == 1 else None
    reference = references if isinstance(references, str) else None
    if isinstance(references, Mapping) and one is not None:
        reference = references.get(one)
    first = [traces[0] for traces in groups.values()]
    sources = {trace.source("token_ids") or trace.source("logprobs") for trace in first}
    return {
        "title": one or f"{len(questions)} questions",
        "reference": reference,
        "sources": sorted(filter(None, sources)),
        "dtypes": sorted({str(t.provenance.get("dtype", "")).removeprefix("torch.") for t in first} - {""}),
        "captured": {
            name: all(trace.has(array) for trace in first)
            for name, array in (("router", "expert_indices"), ("entropy", "entropy"), ("attention", "queries"))
        },
    }

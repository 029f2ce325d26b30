"""Which tokens of which traces a measure is on: one phase, perhaps one channel or role, of one model."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from workbench.analysis.counting import add_load
from workbench.labelled import Labelled, TraceError, ranges
from workbench.trace import DIMS, Trace

__all__ = ["TokenRows", "TokenSet", "Traces", "content_stop"]

Phase = Literal["completion", "prompt", "all"]
_PHASES = {"completion": "completion tokens", "prompt": "prompt tokens", "all": "prompt and completion tokens"}
_BLOCK = 65_536  # tokens at a time


class Traces(Protocol):
    """Traces that can be gone through again: a list of them, or a `TraceStore`, which opens one at a time."""

    def __len__(self) -> int:
        """Return the number of traces."""
        ...

    def __iter__(self) -> Iterator[Trace]:
        """Give one trace after the other."""
        ...

    def __getitem__(self, index: int, /) -> Trace:
        """Return the trace of a place."""
        ...


class _Facts(NamedTuple):
    """What all traces of a set have in common."""

    model: str
    family: str | None
    weights: str | None
    num_experts: int
    top_k: int
    layers: tuple[int, ...]


class TokenSet:
    """The tokens of one trace, several, or a store that a measure is taken on.

    Prompt and completion are kept apart, as prefill and decode route differently. ``channel`` and ``role`` take the
    content of such messages: their header and closing tokens, such as ``<|channel|>`` and ``<|end|>``, are left out.

    Args:
        traces: of one model, with ``expert_indices``. Given a store, only one trace is open at a time.
        phase: ``completion``, ``prompt``, or ``all`` for both.
        channel: analysis, commentary or final; None for every token of the phase.
        role: system, developer, user, assistant, or a tool's name; None for every token of the phase.

    Raises:
        TraceError: no traces, a trace without a router, traces of different models, or no such token in any of them.
    """

    def __init__(
        self,
        traces: Trace | Traces,
        *,
        phase: Phase = "completion",
        channel: str | None = None,
        role: str | None = None,
    ) -> None:
        """Go once through the metadata of all traces: do they belong together, and how many tokens does each give."""
        if phase not in _PHASES:
            raise TraceError(f"expected phase='completion', 'prompt' or 'all', got {phase!r}")
        self.traces = _several(traces)
        self.phase, self.channel, self.role = phase, channel, role
        tokens: list[int] = []
        facts: _Facts | None = None
        self._sources: dict[str, set[str]] = {}
        seen: Counter[str] = Counter()
        for at, trace in enumerate(self._progress("open traces")):
            facts = _same(facts, trace, at)
            tokens.append(sum(stop - start for start, stop in self._ranges(trace)))
            for name in trace.captured:
                self._sources.setdefault(name, set()).add(trace.source(name))
            seen.update({f"{m.role} {m.channel or ''}".strip(): 1 for m in trace.messages})
        if facts is None:
            raise TraceError("Expected at least one trace, got none. Capture some, or name another folder.")
        self.model, self.layers = facts.model, facts.layers
        self.num_experts, self.top_k = facts.num_experts, facts.top_k
        self._tokens = np.array(tokens, dtype=np.int64)
        if not self.num_tokens:
            raise TraceError(_nothing(str(self), seen))

    def __str__(self) -> str:
        """Say which tokens of what: ``completion tokens on analysis of 12 traces of tiny``."""
        role = f" of {self.role} messages" if self.role else ""
        channel = f" on {self.channel}" if self.channel else ""
        without = int((self._tokens == 0).sum())
        rest = f", {without} of them without any" if without and self.num_tokens else ""
        return f"{_PHASES[self.phase]}{channel}{role} of {_count(self.num_traces)} of {self.model}{rest}"

    def __repr__(self) -> str:
        """Say which tokens, and how many."""
        return f"<TokenSet: {self.num_tokens:,} {self}>"

    @property
    def num_traces(self) -> int:
        """How many traces, those without any such token included."""
        return len(self._tokens)

    @property
    def num_tokens(self) -> int:
        """How many tokens of all traces."""
        return int(self._tokens.sum())

    def positions(self, trace: Trace) -> NDArray[np.int64]:
        """Return the positions of a trace's tokens in the set, ascending, on the trace's own token axis."""
        spans = [np.arange(start, stop) for start, stop in self._ranges(trace)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *spans])

    def rows(self, name: str) -> "TokenRows":
        """Return an array's rows for the tokens of the set, trace after trace, in blocks of up to 65,536 tokens.

        Args:
            name: an array whose first dim is ``token``, such as ``expert_indices`` or ``token_ids``.

        Returns:
            What gives `Labelled` blocks [token, …] each time it is gone through, and holds none of them.

        Raises:
            TraceError: there is no such array, its first dim is another, or (when gone through) a trace lacks it.
        """
        if DIMS.get(name, ("",))[0] != "token":
            known = ", ".join(n for n, dims in DIMS.items() if dims[0] == "token")
            raise TraceError(f"expected an array with a row per token ({known}), got {name!r}")
        return TokenRows(self, name)

    def expert_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count each trace's choices of each expert.

        Returns:
            counts [trace, layer, expert] and tokens [trace], traces in order.

        Raises:
            TraceError: an index that is no expert of the model, or a store that changed.
        """
        counts = np.zeros((self.num_traces, len(self.layers), self.num_experts), dtype=np.int64)
        with closing(self._blocks("expert_indices")) as blocks:
            for at, block in blocks:
                add_load(block, counts[at])
        return counts, self._tokens.copy()

    def _blocks(self, name: str) -> Generator[tuple[int, NDArray[Any]], None, None]:
        """Give the place of the trace and rows of it, without a copy where the positions follow one another."""
        if len(self.traces) != self.num_traces:
            raise TraceError(
                f"There were {self.num_traces} traces, now there are {len(self.traces)}. Make a new TokenSet of them."
            )
        for at, trace in enumerate(self._progress(name)):
            if name not in trace.arrays:
                raise TraceError(f"{_which(trace, at)} has no {name}. Captured: {', '.join(trace.captured)}.")
            positions = self.positions(trace)
            if len(positions) != self._tokens[at]:
                raise TraceError(
                    f"{_which(trace, at)} had {self._tokens[at]} such tokens, now it has {len(positions)}. "
                    "Make a new TokenSet."
                )
            for start in range(0, len(positions), _BLOCK):
                rows = positions[start : start + _BLOCK]
                adjoin = rows[-1] - rows[0] + 1 == len(rows)
                yield at, trace.arrays[name][rows[0] : rows[-1] + 1] if adjoin else trace.arrays[name][rows]

    def _progress(self, what: str) -> Iterator[Trace]:
        with tqdm(total=len(self.traces), desc=what, unit="trace", delay=2, leave=False) as progress:
            for trace in self.traces:
                yield trace
                progress.update()

    def _where_from(self, name: str) -> str:
        sources = sorted(filter(None, self._sources.get(name, ())))
        return f" ({', '.join(sources)})" if sources else ""

    def _ranges(self, trace: Trace) -> list[tuple[int, int]]:
        """Return the stretches [start, stop) of a trace's tokens in the set."""
        low = trace.num_prompt_tokens if self.phase == "completion" else 0
        high = trace.num_prompt_tokens if self.phase == "prompt" else len(trace)
        if self.channel is None and self.role is None:
            return [(low, high)] if low < high else []
        stretches: list[tuple[int, int]] = []
        for message in sorted(trace.messages, key=lambda m: m.content_start):
            if self.channel in (None, message.channel) and self.role in (None, message.role):
                start = max(low, message.content_start)
                stop = min(high, content_stop(trace, message.content_start, message.stop))
                low = max(low, stop)  # messages of a file from elsewhere may overlap, and no token counts twice
                stretches += [(start, stop)] if start < stop else []
        return stretches


@dataclass(frozen=True)
class TokenRows:
    """One array's rows for the tokens of a set: blocks [token, …], read anew each time they are gone through."""

    token_set: TokenSet
    name: str

    def __iter__(self) -> Iterator[Labelled]:
        """Give a `Labelled` block after the other; ``source`` says which tokens, and live, replay or imported."""
        dims = DIMS[self.name]
        coords = {"layer": self.token_set.layers} if "layer" in dims else {}
        source = f"{self.token_set}{self.token_set._where_from(self.name)}"
        with closing(self.token_set._blocks(self.name)) as blocks:
            for _, block in blocks:
                yield Labelled(block, dims, coords, source)


def _several(given: Trace | Traces) -> Traces:
    if isinstance(given, Trace):
        return (given,)
    if isinstance(given, str) or not (hasattr(given, "__len__") and hasattr(given, "__iter__")):
        got = type(given).__name__
        raise TraceError(f"expected a trace, a list of traces or a TraceStore, got {got}")
    return tuple(given) if isinstance(given, Sequence) else given


def _same(first: _Facts | None, trace: Trace, at: int) -> _Facts:
    """Return what the traces have in common; of the first trace, what it records."""
    here = _facts(trace, at)
    if first is None:
        return here
    for name, expected, got in zip(_Facts._fields, first, here, strict=True):
        if expected == got or (name in ("family", "weights") and None in (expected, got)):
            continue
        shown = [ranges(value) if isinstance(value, tuple) else value for value in (expected, got)]
        raise TraceError(
            f"Expected traces of one model. {_which(trace, at)} has {name} {shown[1]}, those before it {shown[0]}. "
            "Make a TokenSet of each model's."
        )
    return first


def _facts(trace: Trace, at: int) -> _Facts:
    if not isinstance(trace, Trace):
        raise TraceError(f"expected traces, got {type(trace).__name__} in place {at}")
    if "shard" in trace.meta:
        raise TraceError(
            f"{_which(trace, at)} is one shard of a capture that did not finish. Open its folder with "
            "workbench.shards.recover(folder) and save the trace."
        )
    if "expert_indices" not in trace.arrays:
        raise TraceError(
            f"{_which(trace, at)} has no expert_indices. Capture a mixture-of-experts model with "
            f"CaptureSpec(router=True). Captured: {', '.join(trace.captured)}."
        )
    known = trace.provenance
    weights = known.get("weights")
    return _Facts(
        str(known.get("model", "unknown model")),
        known.get("family"),
        weights if weights != "not available" else None,
        _num_experts(trace, at),
        trace.arrays["expert_indices"].shape[2],
        trace.layers("expert_indices"),
    )


def _num_experts(trace: Trace, at: int) -> int:
    recorded = trace.meta.get("shape", {}).get("num_experts")
    if recorded is not None:
        return int(recorded)
    if "router_logits" in trace.arrays:
        return int(trace.arrays["router_logits"].shape[2])
    raise TraceError(
        f"{_which(trace, at)} does not record how many experts the model has; give meta['shape'] = "
        "{'num_experts': …}"
    )


def content_stop(trace: Trace, start: int, stop: int) -> int:
    """Return where a message's content ends: before its closing token.

    Raises `TraceError` where the trace does not say which of its tokens are the format's own.
    """
    if "vocab_special" not in trace.arrays:
        raise TraceError(
            "A trace has no vocab_special, so a message's content cannot be told from its closing token. Take all "
            "tokens of a phase, with neither channel nor role."
        )
    while stop > start and trace.is_special(stop - 1):
        stop -= 1
    return stop


def _count(traces: int) -> str:
    return "1 trace" if traces == 1 else f"{traces:,} traces"


def _which(trace: Trace, at: int) -> str:
    return f"Trace {at} ({trace.path.name})" if trace.path else f"Trace {at}"


def _nothing(what: str, seen: Counter[str]) -> str:
    messages = ", ".join(f"{name} (in {_count(count)})" for name, count in seen.most_common())
    return f"There are no {what}. Messages here: {messages or 'none'}. Choose another phase, channel or role."

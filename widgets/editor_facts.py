"""What the chain editor says of its branches, as JSON and bytes: answers counted, rollouts aligned, what it costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from widgets.alignment_facts import alignment_arrays
from widgets.bench_facts import whole_text
from widgets.blocks import TraceBlocks
from widgets.editor_tree import Branch, Edit, chain_sentences, following, placed
from workbench.analysis.compare.alignment import align
from workbench.analysis.faithfulness.outcomes import as_outcomes
from workbench.analysis.reasoning import final_answer, length_by_channel
from workbench.analysis.statistics import wilson_interval
from workbench.trace import Trace

__all__ = ["AnswerShare", "Cost", "branch_record", "cost", "pair_facts", "speeds", "tally"]


@dataclass(frozen=True)
class AnswerShare:
    """How many rollouts of a branch give one answer."""

    answer: str | None
    """None: no answer, as of a rollout that was cut"""
    count: int
    n: int
    """all rollouts of the branch"""
    interval: tuple[float, float] | None
    """of the share, 95 % (Wilson); None for greedy rollouts, which are no sample"""
    original: bool
    """whether the original gives it"""


@dataclass(frozen=True)
class Cost:
    """What continuing takes, as far as it can be said before."""

    rollouts: int
    read: int
    """tokens that each reads; text that is put there is not counted, it is no tokens yet"""
    written: int
    """tokens that each writes, if it writes as many as there were"""
    seconds: float | None
    """of all; None where no speed was measured"""
    measured: str
    """where the speed comes from"""


def answer_of(trace: Trace) -> str | None:
    """Return the answer of a rollout; a cut one has none."""
    return None if trace.meta.get("truncated") else final_answer(trace)


def tally(branch: Branch, original: Trace) -> tuple[AnswerShare, ...]:
    """Count the answers of a branch, the most frequent first, and rollouts without one last."""
    wanted = answer_of(original)
    given = as_outcomes([wanted, *map(answer_of, branch.traces)])[1:]
    n = len(given)
    ordered = sorted(dict.fromkeys(given), key=lambda answer: (answer is None, -given.count(answer)))
    sampled = branch.edit is not None and branch.temperature != 0
    return tuple(
        AnswerShare(
            answer,
            given.count(answer),
            n,
            wilson_interval(given.count(answer), n) if sampled else None,
            answer is not None and answer == wanted,
        )
        for answer in ordered
    )


def branch_record(branch: Branch, original: Trace) -> dict[str, Any]:
    """Return what the tree shows of a branch."""
    edit = branch.edit
    said: dict[str, Any] = {} if edit is None else {"parent": edit.branch, "of": edit.sample, "action": edit.action}
    if edit is not None:
        said |= {"sentence": edit.sentence, "text": edit.text, "rest": edit.rest, "was": edit.was}
    return {
        "parent": None,
        **said,
        "n": len(branch.traces),
        "wanted": branch.wanted,
        "temperature": branch.temperature,
        "seed": branch.seed,
        "answers": [asdict(share) for share in tally(branch, original)],
        "chainTokens": [_chain_tokens(trace) for trace in branch.traces],
        "cut": [trace.meta.get("truncated") for trace in branch.traces],
        "each": [answer_of(trace) for trace in branch.traces],
    }


def pair_facts(
    original: Trace, branches: Sequence[Branch], shown: tuple[int, int], beside: tuple[int, int] | None
) -> dict[str, Any]:
    """Return the rollout that is shown and the one beside it, aligned; and how the shown one lies to the original."""
    trace = branches[shown[0]].traces[shown[1]]
    found = {"shown": _side(branches, shown)}
    if trace is not original:
        found["toOriginal"] = _rows(original, trace)
    if beside is not None:
        other = branches[beside[0]].traces[beside[1]]
        known = found.get("toOriginal") if other is original else None
        found |= {"beside": _side(branches, beside), "rows": known or _rows(other, trace)}
    return found


def _side(branches: Sequence[Branch], place: tuple[int, int]) -> dict[str, Any]:
    trace = branches[place[0]].traces[place[1]]
    origin = trace.meta.get("continued_from") or {}
    final = next((m for m in trace.messages if m.channel == "final" and m.start >= trace.num_prompt_tokens), None)
    return {
        "place": list(place),
        "facts": TraceBlocks(whole_text(trace)).facts(),
        "token_ids": np.ascontiguousarray(trace.arrays["token_ids"], dtype="<i4").tobytes(),
        "sentences": [[s.start, s.stop] for s in chain_sentences(trace)],
        "answerStart": None if final is None else final.content_start,
        "put": _put(branches, place),
        "generatedFrom": origin.get("generated_from"),
        "answer": answer_of(trace),
        "chainTokens": _chain_tokens(trace),
    }


def _put(branches: Sequence[Branch], place: tuple[int, int]) -> list[int] | None:
    """Return which tokens were put there by hand, ``[start, stop)``; None where none, or where it was not recorded."""
    edit = branches[place[0]].edit
    origin = branches[place[0]].traces[place[1]].meta.get("continued_from")
    if edit is None or not edit.text or not origin:
        return None
    start, _, kept = placed(branches[edit.branch].traces[edit.sample], edit)
    return [start, start + len(origin["replacement"]) - kept]


def _rows(a: Trace, b: Trace) -> dict[str, Any]:
    alignment = align(a, b)
    return {
        **alignment_arrays(alignment),
        "numShared": alignment.num_shared,
        "differ": int((~alignment.same & ~alignment.same_text).sum()),
        "method": alignment.method,
    }


def _chain_tokens(trace: Trace) -> int:
    lengths = length_by_channel(trace)
    return lengths["analysis"].content if "analysis" in lengths else 0


def speeds(branches: Sequence[Branch]) -> dict[str, Any]:
    """Return seconds per written token for a rest written anew and one that is kept, each with where it was measured.

    From the latest such branch; else from the original, where it was captured as it was written.
    """
    original = branches[0].traces[0]
    seconds, written = original.provenance.get("seconds"), len(original) - original.num_prompt_tokens
    found: dict[str, Any] = {}
    if seconds and written and original.source("logprobs").startswith("live"):
        where = f"as measured when the trace was captured on {original.provenance.get('device', 'its machine')}"
        found = {rest: {"seconds": float(seconds) / written, "measured": where} for rest in ("anew", "kept")}
    for at, branch in enumerate(branches[1:], 1):
        took = [(t.provenance.get("seconds"), t.meta.get("continued_from")) for t in branch.traces]
        if branch.edit is None or not all(s and isinstance(o, dict) for s, o in took):
            continue
        tokens = sum(len(t) - o["generated_from"] for t, (_, o) in zip(branch.traces, took, strict=True) if o)
        if tokens:
            each = sum(s for s, _ in took if s) / tokens
            found[branch.edit.rest] = {"seconds": each, "measured": f"as measured in branch {at}"}
    return found


def cost(branches: Sequence[Branch], edit: Edit, samples: int) -> Cost:
    """Return what an edit would cost."""
    trace = branches[edit.branch].traces[edit.sample]
    token, _, kept = placed(trace, edit)
    written = following(trace, edit)
    speed = speeds(branches).get(edit.rest)
    seconds = None if speed is None else samples * written * speed["seconds"]
    return Cost(samples, token + kept, written, seconds, speed["measured"] if speed else "no speed was measured")

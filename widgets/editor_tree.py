"""Branches of a chain of thought: what was edited where, the rollouts that followed, and how a trace keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from workbench.analysis.token_set import content_stop
from workbench.trace import Span, Trace, TraceError

__all__ = ["Action", "Branch", "Edit", "Rest", "chain_sentences", "following", "placed", "read_branches", "saved"]

Action = Literal["replace", "delete", "insert", "truncate"]
Rest = Literal["anew", "kept"]
SAVED = "branches"
"""where a trace's ``meta`` keeps its branches"""


@dataclass(frozen=True)
class Edit:
    """What was changed in a rollout by hand."""

    branch: int
    """the branch that was edited, 0 is the original"""
    sample: int
    """which of its rollouts"""
    action: Action
    """replace a sentence, delete it, insert one after it, or truncate after it"""
    sentence: int
    """of the rollout's chain of thought, counted from 0"""
    text: str = ""
    """that was put there, verbatim"""
    rest: Rest = "anew"
    """anew: the model writes what follows; kept: the chain's rest stays verbatim and only the answer is written, where
    a truncated chain is closed"""
    was: str = ""
    """the sentence's own text"""


@dataclass(frozen=True, eq=False)
class Branch:
    """Rollouts that followed one edit; the first branch is the original, and has none."""

    edit: Edit | None
    traces: tuple[Trace, ...]
    temperature: float | None = None
    seed: int | None = None
    """of the first rollout; each next one has the next seed"""
    wanted: int = 1
    """rollouts that were asked for; fewer are here where it was interrupted"""

    @property
    def parent(self) -> int | None:
        """The branch that was edited."""
        return None if self.edit is None else self.edit.branch


def chain_sentences(trace: Trace) -> tuple[Span, ...]:
    """Return the sentences of the completion's analysis, in order."""
    return tuple(s for s in trace.sentences if s.channel == "analysis" and s.start >= trace.num_prompt_tokens)


def placed(trace: Trace, edit: Edit) -> tuple[int, list[int | str], int]:
    """Return the token up to which a rollout is kept, what is put there, and how many ids of that are the kept rest.

    Raises:
        TraceError: no such sentence; text where none belongs, or none where some does; a rest to keep that has no
            answer after it.
    """
    sentence = _sentence(trace, edit)
    _check_text(edit)
    begin = sentence.start if edit.action in ("replace", "delete") else sentence.stop
    rest = _rest(trace, edit, sentence) if edit.rest == "kept" else []
    return begin, [*([edit.text] if edit.text else []), *rest], len(rest)


def following(trace: Trace, edit: Edit) -> int:
    """Return how many tokens came after the edited place: as many may be written now, by no means surely."""
    if edit.rest == "kept":
        final = _final(trace, _sentence(trace, edit))
        return len(trace) - final.content_start
    return len(trace) - _sentence(trace, edit).stop


def _sentence(trace: Trace, edit: Edit) -> Span:
    sentences = chain_sentences(trace)
    if not sentences:
        raise TraceError("this rollout has no chain of thought to edit: nothing is on its analysis channel")
    if not 0 <= edit.sentence < len(sentences):
        raise TraceError(f"expected a sentence of the chain within 0–{len(sentences) - 1}, got {edit.sentence}")
    return sentences[edit.sentence]


def _check_text(edit: Edit) -> None:
    for name, given, allowed in (("an action", edit.action, Action), ("rest as", edit.rest, Rest)):
        if given not in get_args(allowed):
            raise TraceError(f"expected {name} {', '.join(get_args(allowed))}, got {given!r}")
    takes = edit.action in ("replace", "insert")
    if takes and not edit.text:
        raise TraceError(f"expected the text to {edit.action}, got none; delete takes a sentence out")
    if not takes and edit.text:
        raise TraceError(f"{edit.action} takes no text, got {edit.text!r}; replace puts it in the sentence's place")


def _rest(trace: Trace, edit: Edit, sentence: Span) -> list[int]:
    """Return the chain after the edited place, or for a truncation its closing alone, and the header of the answer."""
    final = _final(trace, sentence)
    ids: list[int] = trace.arrays["token_ids"].tolist()
    if edit.action != "truncate":
        return ids[sentence.stop : final.content_start]
    thought = next(m for m in trace.messages if m.start <= sentence.start < m.stop)
    return (
        ids[content_stop(trace, thought.content_start, thought.stop) : thought.stop]
        + ids[final.start : final.content_start]
    )


def _final(trace: Trace, sentence: Span) -> Span:
    final = next((m for m in trace.messages if m.channel == "final" and m.start >= sentence.stop), None)
    if final is None:
        raise TraceError(
            "this rollout gives no answer after its chain, so there is no rest to keep up to an answer; let the model "
            "write the rest anew"
        )
    return final


# How a trace keeps its branches: the tokens of each rollout and what they say, no arrays of what the model did.


def saved(branches: Sequence[Branch]) -> list[dict[str, Any]]:
    """Return branches as JSON for the ``meta`` of the original, which is the first and is not repeated."""
    original = branches[0].traces[0]
    return [
        {
            "edit": None if branch.edit is None else asdict(branch.edit),
            **{"temperature": branch.temperature, "seed": branch.seed, "wanted": branch.wanted},
            "rollouts": [_rollout_json(trace, original) for trace in branch.traces],
        }
        for branch in branches[1:]
    ]


def _rollout_json(trace: Trace, original: Trace) -> dict[str, Any]:
    known = set(original.arrays["vocab_ids"].tolist())
    ids = trace.arrays["token_ids"].tolist()
    special = {int(i): trace.is_special(at) for at, i in enumerate(ids)}
    return {
        "token_ids": ids[trace.num_prompt_tokens :],
        "vocab": [[i, trace.token_bytes(i).hex(), special[i]] for i in sorted(special.keys() - known)],
        "spans": [{name: value for name, value in asdict(s).items() if value is not None} for s in trace.spans],
        "truncated": trace.meta.get("truncated"),
        "continued_from": trace.meta.get("continued_from"),
        "sampling": trace.provenance.get("sampling"),
        "seconds": trace.provenance.get("seconds"),
    }


def read_branches(original: Trace) -> list[Branch]:
    """Return the original as a branch, and those that its ``meta`` keeps; their traces hold the text alone.

    Raises:
        TraceError: what is kept there was not written by an editor.
    """
    branches = [Branch(None, (original,))]
    try:
        for record in list(original.meta.get(SAVED, [])):
            branches.append(_branch(record, original, branches))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise TraceError(
            f"the trace's {SAVED} were not written by a chain editor ({error}); take them out of its meta to start "
            "anew"
        ) from error
    return branches


def _branch(record: Mapping[str, Any], original: Trace, before: Sequence[Branch]) -> Branch:
    edit = Edit(**record["edit"])
    if not 0 <= edit.branch < len(before):
        raise TraceError(f"no branch {edit.branch} comes before branch {len(before)}")
    _check_text(edit)
    _sentence(before[edit.branch].traces[edit.sample], edit)
    traces = tuple(_rollout(one, original) for one in record["rollouts"])
    temperature, seed, wanted = float(record["temperature"]), int(record["seed"]), int(record["wanted"])
    if not traces:
        raise TraceError(f"branch {len(before)} has no rollouts")
    return Branch(edit, traces, temperature, seed, wanted)


def _rollout(record: Mapping[str, Any], original: Trace) -> Trace:
    prompt = original.num_prompt_tokens
    ids = np.array([*original.arrays["token_ids"][:prompt].tolist(), *record["token_ids"]], dtype=np.int32)
    arrays = {"token_ids": ids, **_vocabulary(original, record["vocab"])}
    unknown = np.setdiff1d(ids, arrays["vocab_ids"])
    if len(unknown):
        raise TraceError(f"token id {unknown[0]} has no text")
    meta = {
        "num_prompt_tokens": prompt,
        "question": original.meta.get("question"),
        "truncated": record["truncated"],
        "continued_from": _origin(record["continued_from"]),
        "provenance": {**original.provenance, "sampling": record["sampling"], "seconds": record["seconds"]},
    }
    return Trace(arrays, tuple(Span(**span) for span in record["spans"]), meta)


def _origin(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    numbers = {name: int(record[name]) for name in ("token", "kept", "generated_from")}
    return numbers | {"replacement": [int(i) for i in record["replacement"]]}


def _vocabulary(original: Trace, more: Sequence[Any]) -> dict[str, Any]:
    """Return the texts of the original's token ids and of others, each [id, bytes in hex, special]."""
    ids, special = original.arrays["vocab_ids"].tolist(), original.arrays["vocab_special"].tolist()
    known = {i: (original.token_bytes(i), bool(own)) for i, own in zip(ids, special, strict=True)}
    known |= {int(i): (bytes.fromhex(text), bool(own)) for i, text, own in more}
    texts = [known[i] for i in sorted(known)]
    return {
        "vocab_ids": np.array(sorted(known), dtype=np.int32),
        "vocab_offsets": np.cumsum([0, *(len(text) for text, _ in texts)]).astype(np.int64),
        "vocab_bytes": np.frombuffer(b"".join(text for text, _ in texts), dtype=np.uint8),
        "vocab_special": np.array([own for _, own in texts], dtype=bool),
    }

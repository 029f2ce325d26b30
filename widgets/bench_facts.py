"""What a view says of an experiment, as JSON; and of its transcript, beside the baseline's."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from widgets.alignment_facts import alignment_arrays
from widgets.blocks import TraceBlocks
from workbench.analysis.compare.alignment import align
from workbench.analysis.reasoning import final_answer
from workbench.labelled import Labelled
from workbench.trace import Trace, TraceError

__all__ = ["ExperimentResult", "experiment_record", "given_facts", "transcript_facts", "whole_text"]


class ExperimentResult(Protocol):
    """What a view needs of an experiment; those of `workbench.experiments.experiment` have it."""

    baseline: Trace
    trace: Trace
    controls: tuple[Any, ...]
    aligned: Any

    @property
    def kl(self) -> Labelled: ...  # noqa: D102

    @property
    def rank(self) -> int | None: ...  # noqa: D102

    @property
    def unmatched(self) -> int: ...  # noqa: D102

    @property
    def generated(self) -> bool: ...  # noqa: D102

    def row(self) -> dict[str, Any]: ...  # noqa: D102


def experiment_record(result: ExperimentResult, asked: dict[str, Any]) -> dict[str, Any]:
    """Return what came of an experiment, with how to run it again: JSON, as it is saved with a trace.

    Args:
        result: of the experiment.
        asked: descriptions, generate and controls, as it was asked for; a vector or a source that it names is kept
            with the hash of what was used, so that another of that name is not taken for it.
    """
    own = _row(result)
    held = [_held(*pair) for pair in zip(asked["asked"], own["done"], strict=True)]
    controls = [_row(control) | {"matches": _matches(control)} for control in result.controls]
    matched = any(control["matches"] for control in controls)
    return {
        **asked,
        **own,
        "asked": [{**one, **hashes} for one, (hashes, _) in zip(asked["asked"], held, strict=True)],
        "done": [{**one, **name} for one, (_, name) in zip(own["done"], held, strict=True)],
        "first": int(result.aligned.first_token),
        "compared": len(result.kl.values) - int(result.aligned.first_token) - 1,
        "generated": result.generated,
        "before": final_answer(result.baseline),
        "rank": result.rank,
        "unmatched": result.unmatched,
        "kind": "load-matched" if matched else "random",
        "controlRows": controls,
    }


def _held(asked: Mapping[str, Any], done: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the hash and the name of the vector or the source that was used; nothing for other variants."""
    if isinstance(name := asked.get("vector"), str):
        return {"sha256": done["sha256"]}, {"name": name}
    if isinstance(name := asked.get("source"), str):
        return {"sha256": done["source"]["token_ids_sha256"]}, {"name": name}
    return {}, {}


def given_facts(vectors: Mapping[str, Any], sources: Mapping[str, Trace]) -> dict[str, Any]:
    """Return what a form says of the vectors and traces it may name: JSON.

    Raises:
        TraceError: a vector that is not one row of finite numbers, or a source without the residual stream.
    """
    return {
        "vectors": [{"name": str(name), "norm": _norm(name, vector)} for name, vector in vectors.items()],
        "sources": [_source_facts(name, source) for name, source in sources.items()],
    }


def _norm(name: str, vector: Any) -> float:
    try:
        values = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TraceError(f"expected numbers [d_model] as the vector {name!r}, got {type(vector).__name__}") from error
    if values.ndim != 1 or not np.isfinite(values).all():
        raise TraceError(f"expected finite numbers [d_model] as the vector {name!r}, got shape {values.shape}")
    return float(np.linalg.norm(values))


def _source_facts(name: str, source: Any) -> dict[str, Any]:
    if not isinstance(source, Trace) or not source.has("residual"):
        got = f"one with {', '.join(source.captured)}" if isinstance(source, Trace) else type(source).__name__
        raise TraceError(
            f"expected a trace with the residual stream as the source {name!r}, got {got}; capture or replay it with "
            "CaptureSpec(lens=False, residual=[0, 1, …])"
        )
    question = str(source.meta.get("question") or "")
    layers = [int(layer) for layer in source.layers("residual")]
    return {"name": str(name), "question": question, "numTokens": len(source), "layers": layers}


def _row(changed: Any) -> dict[str, Any]:
    row = changed.row()
    return {
        "done": row["done"],
        "changed": row["tokens_changed"],
        "meanKl": _number(row["mean_kl"]),
        "answer": row["answer"],
        "keepsAnswer": row["keeps_answer"],
        "keepsChain": row["keeps_chain"],
    }


def _matches(control: Any) -> list[dict[str, Any]]:
    names = ("layer", "expert", "instead", "load", "instead_load", "within")
    return [{name: getattr(match, name) for name in names} for match in control.matches]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def transcript_facts(result: ExperimentResult) -> dict[str, Any]:
    """Return the changed rollout's tokens, its alignment with the baseline, and KL [token] float32, as bytes."""
    alignment = align(result.baseline, result.trace)
    return {
        "facts": TraceBlocks(whole_text(result.trace)).facts(),
        "token_ids": np.ascontiguousarray(result.trace.arrays["token_ids"], dtype="<i4").tobytes(),
        **alignment_arrays(alignment),
        "numShared": alignment.num_shared,
        "parting": alignment.parting,
        "kl": result.kl.values.astype("<f4").tobytes(),
        "source": result.kl.source,
    }


def whole_text(trace: Trace) -> Trace:
    """Return a trace with its text alone, which is all that a transcript needs."""
    kept = {name: a for name, a in trace.arrays.items() if name == "token_ids" or name.startswith("vocab_")}
    return replace(trace, arrays=kept)

"""What a view says of an experiment, as JSON; and of its transcript, beside the baseline's."""

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from widgets.blocks import TraceBlocks
from workbench.analysis.compare.alignment import align
from workbench.analysis.reasoning import final_answer
from workbench.labelled import Labelled
from workbench.trace import Trace

__all__ = ["ExperimentResult", "experiment_record", "transcript_facts", "whole_text"]


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
        asked: descriptions, generate and controls, as it was asked for.
    """
    controls = [_row(control) | {"matches": _matches(control)} for control in result.controls]
    matched = any(control["matches"] for control in controls)
    return {
        **asked,
        **_row(result),
        "first": int(result.aligned.first_token),
        "compared": len(result.kl.values) - int(result.aligned.first_token) - 1,
        "generated": result.generated,
        "before": final_answer(result.baseline),
        "rank": result.rank,
        "unmatched": result.unmatched,
        "kind": "load-matched" if matched else "random",
        "controlRows": controls,
    }


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
    same = np.where(alignment.same, 1, np.where(alignment.same_text, 2, 0)).astype(np.uint8)
    return {
        "facts": TraceBlocks(whole_text(result.trace)).facts(),
        "token_ids": np.ascontiguousarray(result.trace.arrays["token_ids"], dtype="<i4").tobytes(),
        "rows": np.ascontiguousarray(alignment.rows, dtype="<i4").tobytes(),
        "same": same.tobytes(),
        "numShared": alignment.num_shared,
        "parting": alignment.parting,
        "kl": result.kl.values.astype("<f4").tobytes(),
        "source": result.kl.source,
    }


def whole_text(trace: Trace) -> Trace:
    """Return a trace with its text alone, which is all that a transcript needs."""
    kept = {name: a for name, a in trace.arrays.items() if name == "token_ids" or name.startswith("vocab_")}
    return replace(trace, arrays=kept)

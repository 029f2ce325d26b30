"""One intervention for every expert of a layer, or of all layers, to be gone on with after whatever stopped it."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from workbench.analysis.reasoning import final_answer
from workbench.experiments.aligned import Unchanged
from workbench.experiments.continuation import check_model
from workbench.experiments.controls import expert_loads
from workbench.experiments.efforts import LIGHT
from workbench.experiments.experiment import change
from workbench.experiments.experts import ExpertIntervention, Force, MeanOutput, Swap
from workbench.experiments.intervening import Tokens, intervene
from workbench.families import ModelError
from workbench.labelled import Labelled
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["ExpertSweep", "sweep_experts"]


@dataclass(frozen=True, eq=False)
class ExpertSweep:
    """What changing each expert by itself does to one rollout."""

    variant: str
    num_experts: int
    _rows: tuple[dict[str, Any], ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per expert, by layer and expert, such as ``pandas.DataFrame`` takes.

        ``load`` is the expert's share of the routed slots of its layer over the tokens that are changed; ``mean_kl``
        in nats is as in `workbench.experiments.aligned.Aligned`. Where the baseline never takes the expert, nothing
        is changed: it is 0 by definition, and ``load`` is 0. With force it is run.
        """
        return [dict(row) for row in self._rows]

    @property
    def mean_kl(self) -> Labelled:
        """[layer, expert] float64, nats."""
        layers = sorted({row["layer"] for row in self._rows})
        values = np.full((len(layers), self.num_experts), np.nan)
        for row in self._rows:
            values[layers.index(row["layer"]), row["expert"]] = row["mean_kl"]
        return Labelled(values, ("layer", "expert"), {"layer": tuple(layers)}, f"mean KL in nats, {self.variant}")

    def rank(self, layer: int, expert: int) -> int | None:
        """Return the place of an expert's `mean_kl` in its layer, 1 = largest; ties count as larger; None of NaN."""
        values = self.mean_kl.sel(layer=layer).values
        return None if np.isnan(values[expert]) else int((values >= values[expert]).sum())

    def __len__(self) -> int:
        """Return the number of experts."""
        return len(self._rows)

    def __repr__(self) -> str:
        """Say what was done to how many."""
        return (
            f"<ExpertSweep, {self.variant}: {len(self)} experts of layers {sorted({r['layer'] for r in self._rows})}>"
        )


def sweep_experts(
    model: Model,
    baseline: Trace,
    variant: type[ExpertIntervention],
    *,
    folder: str | PathLike[str],
    layers: Sequence[int] | None = None,
    tokens: Tokens = "all",
    generate: bool = False,
    **options: Any,
) -> ExpertSweep:
    """Change every expert of some layers by itself, and put the baseline beside each.

    Rows are appended to ``experts.jsonl`` in the folder, each on the disk before the next begins, so that the same
    call goes on where it was stopped, by Ctrl-C or by ``kill -9``, and ends with the same rows. More layers take what
    is there already. Costs a reading of the baseline for each expert that it takes, and with ``generate`` a rollout.

    Args:
        model: that made the baseline.
        baseline: of the unchanged model.
        variant: such as `RouteAround`; not `Swap`, which is of pairs.
        folder: of this sweep, which is made where there is none.
        layers: default: all that have a router.
        tokens: at whose forward; see `workbench.experiments.intervening.Tokens`.
        generate: also let the changed model answer, as the baseline was generated.
        options: of the variant, such as ``factor`` of `Scale`.

    Raises:
        ModelError: as `experiment`; or a folder of another sweep.
        KeyboardInterrupt: Ctrl-C; its message says how much is done.
    """
    if issubclass(variant, Swap):
        raise ModelError("a sweep changes one expert at a time, and swap is of pairs; use experiment with Swap")
    if issubclass(variant, MeanOutput):
        options.setdefault("reference", baseline)
    layers = model.router_layers if layers is None else list(layers)
    if not layers:
        raise ModelError(f"expected at least one layer with a router, of {model.router_layers}, got none")
    jobs = [(layer, expert) for layer in layers for expert in range(model.num_experts)]
    if generate:
        check_model(model, baseline)
    changes = {job: variant({job[0]: [job[1]]}, tokens, **options) for job in jobs}
    for one in changes.values():
        one.check(model, [one])
    file = _Rows(Path(folder), _facts(model, baseline, changes, tokens, generate))
    unchanged = Unchanged(model, baseline)
    loads = _loads(unchanged, next(iter(changes.values())))
    left = [job for job in jobs if job not in file.done]
    with tqdm(
        total=len(jobs), initial=len(jobs) - len(left), desc=variant.variant, unit="expert", delay=2
    ) as progress:
        try:
            for layer, expert in left:
                load = float(loads[layer][expert])
                row = {"layer": layer, "expert": expert, "load": load}
                runs = load > 0 or issubclass(variant, Force)
                file.append(
                    row
                    | (_run(unchanged, changes[layer, expert], generate) if runs else _nothing(unchanged, generate))
                )
                progress.update()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted with {sum(job in file.done for job in jobs)} of {len(jobs)} experts done; the same call "
                "goes on from there, and the model is as it was"
            ) from None
    return ExpertSweep(variant.variant, model.num_experts, tuple(file.done[job] for job in jobs))


def _run(unchanged: Unchanged, intervention: ExpertIntervention, generate: bool) -> dict[str, Any]:
    found = change(unchanged, (intervention,), (), generate, LIGHT)
    row: dict[str, Any] = {"mean_kl": _number(found.mean_kl), "max_kl": _number(float(np.nanmax(found.kl.values)))}
    if generate:
        row |= {"answer": found.answer, "keeps_answer": found.keeps_answer, "keeps_chain": found.keeps_chain}
    return row


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _nothing(unchanged: Unchanged, generate: bool) -> dict[str, Any]:
    """Return the row of an expert that is never taken, so that nothing is changed."""
    row: dict[str, Any] = {"mean_kl": 0.0, "max_kl": 0.0}
    answer = final_answer(unchanged.trace)
    kept = {"answer": answer, "keeps_answer": None if answer is None else True, "keeps_chain": True}
    return row | (kept if generate else {})


def _loads(unchanged: Unchanged, example: ExpertIntervention) -> dict[int, Any]:
    model = unchanged.model
    with intervene(model, example, num_prompt_tokens=unchanged.trace.num_prompt_tokens) as reading:
        tokens = np.array(reading.would_touch(unchanged.token_ids))
        reading.require_touched("the baseline")
    return expert_loads(unchanged.expert_indices(), model.router_layers, model.num_experts, tokens)


def _facts(
    model: Model, baseline: Trace, changes: dict[Any, ExpertIntervention], tokens: Tokens, generate: bool
) -> dict[str, Any]:
    """Return all that decides what the rows come to, but for layer and expert."""
    described = next(iter(changes.values())).describe()
    digest = hashlib.sha256(baseline.arrays["token_ids"].tobytes())
    if baseline.has("logprobs"):  # tells the weights, too
        digest.update(baseline.arrays["logprobs"].tobytes())
    facts = {
        **{key: value for key, value in described.items() if key != "experts"},
        "tokens": tokens,
        "generate": generate,
        "sampling": baseline.provenance.get("sampling") if generate else None,
        "model": model.name,
        "weights": model.weights_hash,
        "dtype": model.dtype,
        "baseline": digest.hexdigest(),
        "prompt": baseline.num_prompt_tokens,
    }
    written: dict[str, Any] = json.loads(json.dumps(facts))
    return written


class _Rows:
    """A file with the facts of a sweep in its first line, and a row in each other one."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Read what is there; a last line that was cut off is dropped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "experts.jsonl"
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        lines = list(self._whole_lines()) if self.path.exists() else []
        if not lines:
            self._write(facts)
        elif lines[0] != facts:
            differ = sorted(key for key in {*facts, *lines[0]} if facts.get(key) != lines[0].get(key))
            raise ModelError(
                f"{self.path} is of another sweep: {', '.join(differ)} differ. Give this sweep a folder of its own."
            )
        for row in lines[1:]:
            self.done[row["layer"], row["expert"]] = row

    def append(self, row: dict[str, Any]) -> None:
        """Put a row on the disk."""
        self._write(row)
        self.done[row["layer"], row["expert"]] = row

    def _whole_lines(self) -> Iterator[dict[str, Any]]:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found = json.loads(line)
            except json.JSONDecodeError as error:
                raise ModelError(
                    f"line {number} of {self.path} is damaged ({error}); remove the file to start anew"
                ) from error
            yield found

    def _write(self, row: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

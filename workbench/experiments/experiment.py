"""An experiment: one rollout as it was, the same under interventions, and random controls beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from workbench.analysis.reasoning import final_answer, same_answer
from workbench.capturing import capture_tokens, replay
from workbench.experiments.aligned import Aligned, Unchanged, aligned
from workbench.experiments.continuation import check_model
from workbench.experiments.controls import TOLERANCE, Match, expert_loads, matched_experts, random_controls
from workbench.experiments.efforts import LIGHT, was_interrupted
from workbench.experiments.experts import ExpertIntervention, MeanOutput
from workbench.experiments.intervening import Intervention, intervene
from workbench.families import ModelError
from workbench.labelled import Labelled
from workbench.model import Model
from workbench.spec import CaptureSpec
from workbench.trace import Trace

__all__ = ["Changed", "Experiment", "change", "experiment"]


@dataclass(frozen=True, eq=False)
class Changed:
    """A rollout under interventions beside its baseline."""

    interventions: tuple[Intervention, ...]
    baseline: Trace
    trace: Trace
    """generated under the interventions from the baseline's prompt; or the baseline's tokens, read under them"""
    aligned: Aligned
    """how far the predictions part, and the routing, over the baseline's tokens"""
    matches: tuple[Match, ...] = ()
    """of a control: the experts that stand in for those of the experiment"""

    @property
    def variant(self) -> str:
        """What was done, by the names of the variants; different ones answer different questions."""
        return " + ".join(dict.fromkeys(one.variant for one in self.interventions))

    @property
    def generated(self) -> bool:
        """Whether the model went its own way; else it read the baseline's tokens."""
        return "sampling" in self.trace.provenance

    @property
    def kl(self) -> Labelled:
        """[token] KL(baseline ‖ changed) in nats: see `Aligned`."""
        return self.aligned.kl

    @property
    def mean_kl(self) -> float:
        """Mean of `kl` over the tokens after the first changed one."""
        return self.aligned.mean_kl

    @property
    def routing_overlap(self) -> Labelled | None:
        """[layer] share of experts in common with the baseline, over its tokens: see `Aligned`."""
        return self.aligned.routing_overlap

    @property
    def answer(self) -> str | None:
        """The answer under the interventions; None where there is none, or none was generated."""
        return final_answer(self.trace) if self.generated else None

    @property
    def keeps_answer(self) -> bool | None:
        """Whether the answer is the baseline's; None where one of the two has none, or none was generated."""
        before, after = final_answer(self.baseline), self.answer
        return None if before is None or after is None else same_answer(before, after)

    @property
    def keeps_chain(self) -> bool | None:
        """Whether the text of the analysis channel is the baseline's; None where none was generated."""
        return self.trace.analysis_text == self.baseline.analysis_text if self.generated else None

    @property
    def first_difference(self) -> int | None:
        """The first token that is another than the baseline's; None where all are the same."""
        a, b = self.baseline.arrays["token_ids"], self.trace.arrays["token_ids"]
        shared = min(len(a), len(b))
        differ = np.flatnonzero(a[:shared] != b[:shared])
        return int(differ[0]) if len(differ) else None if len(a) == len(b) else shared

    def row(self) -> dict[str, Any]:
        """Return the comparison as numbers and words, such as ``pandas.DataFrame`` takes."""
        return {
            "variant": self.variant,
            "done": [one.describe() for one in self.interventions],
            "tokens_changed": self.aligned.num_changed,
            "mean_kl": self.mean_kl,
            "answer": self.answer,
            "keeps_answer": self.keeps_answer,
            "keeps_chain": self.keeps_chain,
            "first_difference": self.first_difference,
        }


@dataclass(frozen=True, eq=False)
class Experiment(Changed):
    """A changed rollout, its baseline, and the same change of other experts of like load, heads or directions."""

    controls: tuple[Changed, ...] = ()
    """fewer than asked for where fewer different ones exist"""
    tolerance: float = TOLERANCE
    """relative difference of load within which controls were drawn"""

    @property
    def rank(self) -> int | None:
        """The place of the experiment's `mean_kl` among its own and the controls', 1 = largest; None without controls.

        A control that ties counts as larger. Under the hypothesis that these experts are like those drawn, each place
        is as likely: rank 1 of n + 1 has p = 1/(n + 1). None also where the KL is undefined.
        """
        if not self.controls or np.isnan(self.mean_kl):
            return None
        return 1 + sum(control.mean_kl >= self.mean_kl for control in self.controls)

    @property
    def unmatched(self) -> int:
        """How many controls have an expert whose load is not within the tolerance, for want of a nearer one."""
        return sum(not all(match.within for match in control.matches) for control in self.controls)

    @property
    def _kind(self) -> str:
        return "load-matched" if any(control.matches for control in self.controls) else "random"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for the experiment and one for each control."""
        return [{**self.row(), "control": False}, *({**control.row(), "control": True} for control in self.controls)]

    def __repr__(self) -> str:
        """Say what was done and what came of it."""
        beside = "no controls"
        if self.controls:
            beside = f"rank {self.rank} of {len(self.controls) + 1} with {self._kind} controls"
            beside += f" ({self.unmatched} only nearest)" if self.unmatched else ""
        kept = {True: "answer kept", False: f"answer {self.answer!r}", None: "no answer to compare"}
        return f"<Experiment, {self.variant}: mean KL {self.mean_kl:.3g} nats, {kept[self.keeps_answer]}; {beside}>"


def experiment(
    model: Model,
    baseline: Trace,
    interventions: Intervention | Sequence[Intervention],
    *,
    generate: bool = True,
    controls: int = 0,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    capture: CaptureSpec = LIGHT,
    on_run: Callable[[int, int], object] | None = None,
) -> Experiment:
    """Do what was done for a baseline again, with the model changed, and compare; then the same with random controls.

    The model is left as it was, however this ends. Costs a rollout and a reading of the baseline, for itself and for
    each control; without ``generate``, two readings.

    Args:
        model: that made the baseline.
        baseline: of the unchanged model, from `workbench.capture` (or any other trace, without ``generate``).
        interventions: one, or several that act together.
        generate: let the changed model go its own way from the baseline's prompt, with its sampling and seed; else it
            reads the baseline's tokens.
        controls: how many; see `workbench.experiments.controls`.
        tolerance: relative difference of load up to which a control counts as matched.
        seed: of the draw of controls.
        capture: what to record of the changed rollouts.
        on_run: told after each run how many are done, and of how many.

    Raises:
        ModelError: as `intervene`; a baseline that is itself changed, or that does not say how it was sampled; tokens
            of which the baseline has none.
        KeyboardInterrupt: Ctrl-C; nothing is kept.
    """
    wanted = _with_reference(interventions, baseline)
    unchanged = Unchanged(model, baseline)
    if generate:
        check_model(model, baseline)
        _sampling(baseline)
        with intervene(model, wanted, num_prompt_tokens=baseline.num_prompt_tokens) as reading:
            reading.require_generating()
    jobs: list[tuple[tuple[Intervention, ...], tuple[Match, ...]]] = [(wanted, ())]
    if controls:
        jobs += _controls(unchanged, wanted, controls, tolerance, seed)
    found = []
    for changes, matches in tqdm(jobs, "experiment", unit="run", delay=2, leave=False):
        found.append(change(unchanged, changes, matches, generate, capture))
        if on_run is not None:
            on_run(len(found), len(jobs))
    return Experiment(**vars(found[0]), controls=tuple(found[1:]), tolerance=tolerance)


def _with_reference(interventions: Intervention | Sequence[Intervention], baseline: Trace) -> tuple[Intervention, ...]:
    """Take the baseline for the mean where nothing else was given."""
    wanted = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    return tuple(
        replace(one, reference=baseline) if isinstance(one, MeanOutput) and one.reference is None else one
        for one in wanted
    )


def _controls(
    unchanged: Unchanged, wanted: Sequence[Intervention], count: int, tolerance: float, seed: int
) -> list[tuple[tuple[Intervention, ...], tuple[Match, ...]]]:
    """Draw controls: of experts by their loads over the tokens that are changed, of other things at random."""
    model = unchanged.model
    experts = [one for one in wanted if isinstance(one, ExpertIntervention)]
    if len(experts) < len(wanted):
        return [(drawn, ()) for drawn in random_controls(model, wanted, count, seed=seed)]
    with intervene(model, wanted, num_prompt_tokens=unchanged.trace.num_prompt_tokens) as reading:
        tokens = np.array(reading.would_touch(unchanged.token_ids))
    loads = expert_loads(unchanged.expert_indices(), model.router_layers, model.num_experts, tokens)
    return list(matched_experts(experts, loads, count, tolerance=tolerance, seed=seed))


def change(
    unchanged: Unchanged,
    interventions: tuple[Intervention, ...],
    matches: tuple[Match, ...],
    generate: bool,
    capture: CaptureSpec,
) -> Changed:
    """Run one change beside a baseline; arguments and errors as of `experiment`."""
    model, baseline = unchanged.model, unchanged.trace
    with intervene(model, interventions, num_prompt_tokens=baseline.num_prompt_tokens) as reading:
        beside = aligned(unchanged, reading)
        trace = _generate(model, baseline, capture) if generate else replay(model, baseline, capture=capture)
    return Changed(interventions, baseline, trace, beside, matches)


def _generate(model: Model, baseline: Trace, capture: CaptureSpec) -> Trace:
    """Generate from where the baseline was generated, as it was."""
    sampling = _sampling(baseline)
    known = baseline.meta.get("continued_from", {}).get("generated_from", baseline.num_prompt_tokens)
    facts = {"question": baseline.meta.get("question", ""), "effort": baseline.provenance.get("effort")}
    trace = capture_tokens(
        model,
        [int(i) for i in baseline.arrays["token_ids"][:known]],
        facts,
        num_prompt_tokens=baseline.num_prompt_tokens,
        max_new_tokens=sampling["max_new_tokens"],
        temperature=sampling["temperature"],
        seed=sampling["seed"],
        capture=capture,
    )
    if was_interrupted(trace):
        raise KeyboardInterrupt("interrupted in the middle of an experiment; the model is as it was")
    return trace


def _sampling(baseline: Trace) -> Any:
    sampling = baseline.provenance.get("sampling")
    if not sampling:
        raise ModelError(
            "the baseline does not say how it was sampled, so nothing can be generated like it; capture one with "
            "wb.capture, or pass generate=False to read its tokens"
        )
    return sampling

"""From what a trace says was done back to the interventions, so that an experiment can be run again."""

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.experiments.attention import AblateHead, MoveSink, SuppressSpan
from workbench.experiments.experiment import Experiment, experiment
from workbench.experiments.experts import VARIANTS, Swap
from workbench.experiments.intervening import Intervention, Tokens
from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["experiment_from", "interventions_from"]

HEADS: dict[str, Any] = {kind.variant: kind for kind in (AblateHead, MoveSink, SuppressSpan)}


def experiment_from(
    model: Model, baseline: Trace, descriptions: Sequence[Mapping[str, Any]], **options: Any
) -> Experiment:
    """Run an experiment that is described in JSON, as a view that knows no model hands it on.

    Such a view is handed ``functools.partial(experiment_from, model)``. Options and errors as of
    `workbench.experiments.experiment.experiment`, and errors as of `interventions_from`.
    """
    return experiment(model, baseline, interventions_from(descriptions), **options)


def interventions_from(descriptions: Sequence[Mapping[str, Any]]) -> list[Intervention]:
    """Return the interventions that ``meta["intervention"]`` of a trace names, or a form that asks for them.

    Mean output is then over the baseline of the experiment.

    Raises:
        ModelError: an unknown variant, a field that is missing or of the wrong kind, or a variant whose description
            does not hold all it needs: an added vector, or another trace.
    """
    return [_intervention(one) for one in descriptions]


def _intervention(description: Mapping[str, Any]) -> Intervention:
    variant = description.get("variant")
    known = {**VARIANTS, **HEADS}
    if variant in ("add vector", "patch residual"):
        raise ModelError(f"{variant}: its description does not hold the vector or the trace; make it anew")
    if variant not in known:
        raise ModelError(f"expected a variant, one of {', '.join(known)}, got {variant!r}")
    try:
        made: Intervention = known[variant](**_arguments(description))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{variant}: cannot be made of {dict(description)!r} ({error})") from error
    return made


def _arguments(description: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"tokens": _tokens(description["tokens"])}
    arguments |= {name: float(description[name]) for name in ("factor", "by") if name in description}
    if "experts" in description:
        read: Any = _pairs if description["variant"] == Swap.variant else _ints
        arguments["experts"] = {int(layer): read(of) for layer, of in description["experts"].items()}
    if description.get("heads") is not None:
        arguments["heads"] = {int(n): None if of is None else _ints(of) for n, of in description["heads"].items()}
    return arguments


def _ints(numbers: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)


def _pairs(pairs: Sequence[Any]) -> dict[int, int]:
    return {int(i): int(j) for i, j in pairs}


def _tokens(tokens: Any) -> Tokens:
    if isinstance(tokens, str):
        return tokens
    start, stop = tokens
    return int(start), None if stop is None else int(stop)

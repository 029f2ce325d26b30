"""From what a trace says was done back to the interventions, so that an experiment can be run again."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from workbench.experiments.attention import AblateHead, MoveSink, SuppressSpan
from workbench.experiments.experiment import Experiment, experiment
from workbench.experiments.experts import VARIANTS, Swap
from workbench.experiments.intervening import Intervention, Tokens
from workbench.experiments.residual import AddVector, PatchResidual
from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Trace

__all__ = ["experiment_from", "interventions_from"]

HEADS: dict[str, Any] = {kind.variant: kind for kind in (AblateHead, MoveSink, SuppressSpan)}


def experiment_from(
    model: Model,
    baseline: Trace,
    descriptions: Sequence[Mapping[str, Any]],
    *,
    vectors: Mapping[str, Any] | None = None,
    sources: Mapping[str, Trace] | None = None,
    **options: Any,
) -> Experiment:
    """Run an experiment that is described in JSON, as a view that knows no model hands it on.

    Such a view is handed ``functools.partial(experiment_from, model)``. Vectors and sources as of
    `interventions_from`; options and errors as of `workbench.experiments.experiment.experiment`, and errors as of
    `interventions_from`.
    """
    return experiment(model, baseline, interventions_from(descriptions, vectors=vectors, sources=sources), **options)


def interventions_from(
    descriptions: Sequence[Mapping[str, Any]],
    *,
    vectors: Mapping[str, Any] | None = None,
    sources: Mapping[str, Trace] | None = None,
) -> list[Intervention]:
    """Return the interventions that ``meta["intervention"]`` of a trace names, or a form that asks for them.

    Mean output is then over the baseline of the experiment. JSON holds no vector and no trace: ``add vector`` names
    one of ``vectors`` as ``vector``, and ``patch residual`` one of ``sources`` as ``source``. A description with a
    hash (``sha256`` of what is added, or of the source's token ids) is done only with what has that hash, and needs
    no name.

    Args:
        descriptions: one for each intervention, in order.
        vectors: [d_model] by name.
        sources: traces with the residual stream, by name.

    Raises:
        ModelError: an unknown variant, a field that is missing or of the wrong kind, a vector or a source that was
            not given, or is another than the one that was saved.
    """
    held = {
        AddVector.variant: partial(_add_vector, vectors=vectors or {}),
        PatchResidual.variant: partial(_patch_residual, sources=sources or {}),
    }
    return [_intervention(one, held) for one in descriptions]


def _intervention(description: Mapping[str, Any], held: Mapping[str, Callable[..., Intervention]]) -> Intervention:
    variant = description.get("variant")
    known = {**VARIANTS, **HEADS}
    if not isinstance(variant, str) or variant not in {**known, **held}:
        raise ModelError(f"expected a variant, one of {', '.join([*known, *held])}, got {variant!r}")
    try:
        if variant in held:
            return held[variant](description)
        made: Intervention = known[variant](**_arguments(description))
    except ModelError:
        raise  # a ValueError too, and says more
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{variant}: cannot be made of {dict(description)!r} ({error})") from error
    return made


def _add_vector(description: Mapping[str, Any], vectors: Mapping[str, Any]) -> Intervention:
    layer, tokens = int(description["layer"]), _tokens(description["tokens"])
    factor = float(description.get("factor", 1))

    def make(vector: Any) -> tuple[Intervention, str]:
        made = AddVector(layer, vector, tokens, factor)
        return made, made.describe()["sha256"]

    return _of_given(description, "vector", vectors, make, description.get("sha256"))


def _patch_residual(description: Mapping[str, Any], sources: Mapping[str, Trace]) -> Intervention:
    layer, (start, stop) = int(description["layer"]), map(int, description["tokens"])
    first = description.get("source_start", (description.get("source_tokens") or [None])[0])
    said = description.get("source")

    def make(source: Trace) -> tuple[Intervention, str]:
        made = PatchResidual(layer, source, (start, stop), None if first is None else int(first))
        return made, made.describe()["source"]["token_ids_sha256"]

    wanted = said.get("token_ids_sha256") if isinstance(said, Mapping) else description.get("sha256")
    return _of_given(description, "source", sources, make, wanted)


def _of_given(
    description: Mapping[str, Any],
    kind: str,
    given: Mapping[str, Any],
    make: Callable[[Any], tuple[Intervention, str]],
    wanted: str | None,
) -> Intervention:
    """Make it of the one that is named, which must have the hash that is wanted; without a name, of any that has."""
    variant, name = description["variant"], description.get(kind)
    have = ", ".join(map(repr, given)) or "none"
    if not isinstance(name, str):
        if wanted is None:
            raise ModelError(f"{variant}: expected the name of a {kind}, got {name!r}; given: {have}")
        made = next((one for one, found in map(make, given.values()) if found == wanted), None)
        if made is None:
            raise ModelError(f"{variant}: its description holds a hash alone, and no {kind} given ({have}) has it")
        return made
    if name not in given:
        raise ModelError(f"{variant}: no {kind} named {name!r} was given ({have}); pass {kind}s={{{name!r}: …}}")
    made, found = make(given[name])
    if wanted not in (None, found):
        raise ModelError(f"{variant}: the {kind} {name!r} is another than the one that was used before")
    return made


def _arguments(description: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"tokens": _tokens(description["tokens"])}
    arguments |= {name: float(description[name]) for name in ("factor", "by") if name in description}
    if "elsewhere" in description:
        arguments["elsewhere"] = tuple((int(start), int(stop)) for start, stop in description["elsewhere"])
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

"""A rubric, as data in YAML: the behaviours looked for, how grave they can be, and what a verdict on each needs."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from workbench.review.errors import ReviewError

__all__ = ["Behaviour", "Rubric", "Severity", "default_rubric", "load_rubric", "parse_rubric"]

_MAX_BYTES = 1_000_000
_HERE = files("workbench.review") / "rubrics"


@dataclass(frozen=True)
class Severity:
    """A step of the severity scale."""

    level: int
    label: str
    meaning: str


@dataclass(frozen=True)
class Behaviour:
    """What a verdict can say that a trace shows."""

    id: str
    title: str
    definition: str
    guidance: str
    needs: frozenset[str]
    """of a verdict: evidence, chain (read it first), alternative (another explanation), causal test"""
    severities: tuple[int, ...]
    """that it can have"""


@dataclass(frozen=True)
class Rubric:
    """A rubric that was read and checked."""

    name: str
    version: str
    title: str
    guidance: str
    severity: tuple[Severity, ...]
    behaviours: tuple[Behaviour, ...]
    tags: tuple[str, ...]
    source: str
    """the YAML it was read from, which a review keeps"""

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the source: two rubrics of the same name and version may differ."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @cached_property
    def by_id(self) -> dict[str, Behaviour]:
        """The behaviours by their id."""
        return {behaviour.id: behaviour for behaviour in self.behaviours}

    def __getitem__(self, behaviour: str) -> Behaviour:
        """Return a behaviour by its id. Raises `ReviewError` for one the rubric does not have."""
        if behaviour not in self.by_id:
            known = ", ".join(self.by_id)
            raise ReviewError(
                f"expected a behaviour of the rubric {self.name} {self.version} ({known}), got {behaviour!r}"
            )
        return self.by_id[behaviour]


def default_rubric() -> Rubric:
    """Return the rubric for reasoning traces that comes with the workbench."""
    return checked_rubric((_HERE / "reasoning.yaml").read_text(encoding="utf-8"))


def checked_rubric(text: str) -> Rubric:
    """Read a rubric that was checked before it was kept."""
    return _rubric(yaml.safe_load(text), text)


def load_rubric(path: str | PathLike[str]) -> Rubric:
    """Read a rubric from a YAML file.

    Raises:
        ReviewError: no such file, or what is wrong in it, by line and field.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ReviewError(f"{path}: expected a rubric of at most {_MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReviewError(f"The rubric {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return parse_rubric(text, path.name)


def parse_rubric(text: str, name: str = "rubric") -> Rubric:
    """Read a rubric from YAML.

    Args:
        text: the YAML.
        name: what errors call it.

    Raises:
        ReviewError: what is wrong in it, by line and field; all of it at once.
    """
    node, data = _read(text, name)
    found = [*_schema_problems(data), *(_own_problems(data) if isinstance(data, dict) else ())]
    lines = [(_line(node, path), _field(path), what) for path, what in found]
    lines += [(line, field, "is there twice") for line, field in _repeated(node)]
    if lines:
        told = "\n".join(f"{name}, line {line}, {field}: {what}" for line, field, what in sorted(lines))
        raise ReviewError(f"The rubric breaks its schema:\n{told}")
    return _rubric(data, text)


def _read(text: str, name: str) -> tuple[yaml.Node, Any]:
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):  # nested aliases grow without bound when they are read
                line = token.start_mark.line + 1
                raise ReviewError(f"{name}, line {line}: expected no YAML aliases (*{token.value}); write it out")
        node, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ReviewError(f"{name}{where}: this is no YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ReviewError(f"{name}: this is no YAML: {error}") from error
    if node is None:
        raise ReviewError(f"{name}: expected a rubric, got an empty file")
    return node, data


_Way = tuple[str | int, ...]


def _schema_problems(data: Any) -> Iterator[tuple[_Way, str]]:
    from jsonschema import Draft202012Validator  # takes seconds, which a desk on a checked rubric need not wait for

    schema = json.loads((_HERE / "schema.json").read_text(encoding="utf-8"))
    for error in Draft202012Validator(schema).iter_errors(data):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            unknown = sorted(set(error.instance) - set(error.schema["properties"]))
            known = ", ".join(error.schema["properties"])
            yield from (((*path, key), f"unknown field; expected one of {known}") for key in unknown)
        elif error.validator == "required":
            yield path, f"lacks {error.message.split()[0]}"
        else:
            yield path, error.message if len(error.message) < 200 else f"{error.message[:200]}…"


def _own_problems(data: dict[str, Any]) -> Iterator[tuple[_Way, str]]:
    """What a schema cannot say: ids and levels are unique, and severities are those of the scale."""
    levels: list[Any] = [step.get("level") for step in _mappings(data.get("severity"))]
    yield from _twice(levels, "severity", "level")
    if [*filter(lambda level: isinstance(level, int), levels)] == levels and levels != sorted(levels):
        yield ("severity",), "expected levels in ascending order"
    behaviours = _mappings(data.get("behaviours"))
    yield from _twice([b.get("id") for b in behaviours], "behaviours", "id")
    for at, behaviour in enumerate(behaviours):
        given = behaviour.get("severities")
        for place, level in enumerate(given if isinstance(given, list) else ()):
            if level not in levels:
                yield ("behaviours", at, "severities", place), f"expected a level of the scale, got {level!r}"


def _mappings(given: Any) -> list[dict[str, Any]]:
    some = given if isinstance(given, list) else []
    return some if all(isinstance(each, dict) for each in some) else []


def _twice(values: Sequence[Any], field: str, key: str) -> Iterator[tuple[_Way, str]]:
    for at, value in enumerate(values):
        if value is not None and value in values[:at]:
            yield (field, at, key), f"{value!r} is there twice"


def _line(node: yaml.Node, path: _Way) -> int:
    """Return the line of a field, or of what should have held it."""
    for key in path:
        inner = _child(node, key)
        if inner is None:
            break
        node = inner
    return int(node.start_mark.line) + 1


def _child(node: yaml.Node, key: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        child: yaml.Node = node.value[key]
        return child
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == key), None)
    return None


def _repeated(node: yaml.Node, field: _Way = ()) -> Iterator[tuple[int, str]]:
    """Give the keys that a mapping has twice, of which YAML silently takes the last."""
    if isinstance(node, yaml.SequenceNode):
        for at, inner in enumerate(node.value):
            yield from _repeated(inner, (*field, at))
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, inner in node.value:
            if str(name.value) in seen:
                yield int(name.start_mark.line) + 1, _field((*field, str(name.value)))
            seen.add(str(name.value))
            yield from _repeated(inner, (*field, str(name.value)))


def _field(path: _Way) -> str:
    shown = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return shown.lstrip(".") or "the rubric"


def _rubric(data: dict[str, Any], source: str) -> Rubric:
    scale = tuple(Severity(**step) for step in data["severity"])
    levels = tuple(step.level for step in scale)
    behaviours = tuple(
        Behaviour(
            each["id"],
            each["title"],
            each["definition"],
            each["guidance"],
            frozenset(each.get("needs", ())),
            tuple(each.get("severities", levels)),
        )
        for each in data["behaviours"]
    )
    guidance, tags = data.get("guidance", ""), tuple(data.get("tags", ()))
    return Rubric(data["name"], data["version"], data["title"], guidance, scale, behaviours, tags, source)

"""The import rules: model → capture → trace → analysis → widgets → notebook, and imports point upstream only."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import workbench as wb

ROOT = Path(__file__).parent.parent
OWN = ("workbench", "widgets")
# What is heavy, or belongs to the model's side of the line.
HEAVY = {"torch", "transformers", "nnsight", "accelerate", "pandas", "ray"}

# The only own modules imported inside functions, and why.
INSIDE_FUNCTIONS = {
    ("workbench.trace", "workbench.trace_file"): "trace.save(): the file format sits downstream of the trace",
    ("workbench.capturing", "widgets.live_view"): "capture(show=True) is asked for a view, and nothing else needs one",
    ("workbench.remote", "workbench.ndif"): "nnsight's client is loaded where a model is elsewhere",
}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the two packages, parsed."""
    found = {}
    for package in OWN:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def statements(node: ast.AST, inside: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is imported, or those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            if not inside:
                yield child
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if inside:
                yield from (n for n in ast.walk(child) if isinstance(n, ast.Import | ast.ImportFrom))
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from statements(child, inside)


@cache
def imports(name: str, inside: bool = False) -> frozenset[str]:
    """The modules that a module imports: own ones in full, others by their first name."""
    targets: set[str] = set()
    package = name if (ROOT.joinpath(*name.split(".")) / "__init__.py").exists() else name.rpartition(".")[0]
    for statement in statements(modules()[name], inside):
        if isinstance(statement, ast.Import):
            targets.update(alias.name for alias in statement.names)
            continue
        base = statement.module or ""
        if statement.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - statement.level + 1], *([base] if base else [])])
        submodules = {
            f"{base}.{a.name}" for a in statement.names if base.startswith(OWN) and is_module(f"{base}.{a.name}")
        }
        targets.update(submodules or {base})
    return frozenset(t if t.split(".")[0] in OWN else t.split(".")[0] for t in targets)


def own(name: str) -> set[str]:
    return {t for t in imports(name) if t.split(".")[0] in OWN}


def foreign(name: str) -> set[str]:
    return {t for t in imports(name) if t.split(".")[0] not in OWN and t not in sys.stdlib_module_names}


def reached(name: str) -> set[str]:
    """Everything that importing a module imports of ours, and the names of what it imports of others'."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        if module in modules():
            todo += imports(module)
            todo += [module.rpartition(".")[0]] if "." in module else []
    return seen


def of(*prefixes: str) -> list[str]:
    return [m for m in modules() if any(m == p or m.startswith(p + ".") for p in prefixes)]


def test_the_rules_are_about_modules_that_exist() -> None:
    names = ["trace", "trace_file", "labelled", "harmony", "families", "model", "hooks", "analysis.routing"]
    assert {f"workbench.{n}" for n in names} | {"widgets.figures"} <= modules().keys()
    assert own("workbench.capturing") >= {"workbench.hooks", "workbench.harmony", "workbench.trace"}
    assert {"torch", "workbench.families"} <= reached("workbench.capturing")


def test_trace_and_harmony_stand_alone() -> None:
    assert (
        own("workbench.labelled")
        == own("workbench.harmony")
        == own("workbench.families")
        == own("workbench.sentences")
        == set()
    )
    assert own("workbench.trace") == {"workbench.labelled", "workbench.attending"}
    assert own("workbench.attending") == {"workbench.labelled"}
    assert foreign("workbench.trace") == foreign("workbench.labelled") == foreign("workbench.attending") == {"numpy"}
    assert own("workbench.trace_file") <= {"workbench.trace", "workbench.labelled"}
    assert own("workbench.store") == {"workbench.trace", "workbench.trace_file"}


def test_capture_knows_nothing_downstream() -> None:
    assert own("workbench.hooks") <= {"workbench.model", "workbench.families"}
    downstream = of("workbench.analysis", "workbench.experiments", "workbench.review", "workbench.cli", "widgets")
    assert not reached("workbench.capturing") & {*downstream, "workbench.store"}


@pytest.mark.parametrize("name", of("workbench.analysis"))
def test_analysis_is_arrays_in_labelled_arrays_out(name: str) -> None:
    assert own(name) <= {"workbench.trace", "workbench.attending", "workbench.labelled", *of("workbench.analysis")}
    assert foreign(name) <= {"numpy", "scipy", "tqdm", "rapidfuzz"}


@pytest.mark.parametrize("name", of("workbench.experiments"))
def test_experiments_run_models_and_measure(name: str) -> None:
    downstream = of("workbench.review", "workbench.cli", "widgets")
    assert not own(name) & {*downstream}
    assert foreign(name) <= {"numpy", "torch", "tqdm"}


def test_nothing_upstream_knows_of_experiments() -> None:
    knowing = {name for name in modules() if own(name) & {*of("workbench.experiments")}}
    assert knowing <= {*of("workbench.experiments", "workbench.cli", "workbench.course")}


@pytest.mark.parametrize("name", of("widgets"))
def test_widgets_are_handed_what_they_show(name: str) -> None:
    allowed = {"workbench.trace", "workbench.trace_file", "workbench.attending", "workbench.labelled"}
    if name in ("widgets.review_desk", "widgets.desk_facts"):  # a view of a review speaks its words: verdict, evidence
        allowed |= {"workbench.review", "workbench.catalogue", "workbench.database"}
    if name == "widgets.page_text":
        allowed |= {"workbench.page"}
    if name in ("widgets.prediction", "widgets.class_predictions"):
        allowed |= {"workbench.course.predictions"}
    if name == "widgets.interface_texts":
        allowed |= {"workbench.course.texts"}
    if name == "widgets.training_view":
        allowed |= {"workbench.course.training_steps"}
    assert own(name) <= allowed | {*of("workbench.analysis", "widgets")}
    assert not reached(name) & HEAVY


def test_a_trace_opens_without_the_models_side() -> None:
    for name in ("workbench.store", "workbench.harmony", *of("workbench.analysis")):
        assert not reached(name) & HEAVY, name


def test_imports_make_no_circle() -> None:
    tuple(TopologicalSorter({name: own(name) - {name} for name in modules()}).static_order())


def test_imports_inside_functions_are_listed() -> None:
    found = {
        (name, target)
        for name in modules()
        for target in imports(name, inside=True)
        if target.split(".")[0] in OWN
        and not name.startswith("workbench.cli")  # a command imports what it runs, so --help is quick
    }
    assert found == INSIDE_FUNCTIONS.keys()


def test_no_module_is_a_drawer_for_the_rest() -> None:
    drawers = {"utils", "util", "helpers", "common", "manager", "misc"}
    folders = [ROOT / name for name in (*OWN, "tests", "benchmarks") if (ROOT / name).exists()]
    names = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    assert [path for path in names if path.stem in drawers] == []


def test_notebooks_define_nothing() -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            assert cell["cell_type"] != "code" or not re.search(r"^\s*(def|class) ", source, re.M), f"{path}: {source}"


def loaded_by(code: str) -> set[str]:
    """The modules a fresh interpreter has loaded after some code, by their first name."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_workbench_is_light() -> None:
    heavy = HEAVY | {"numpy", "scipy", "numba", "plotly", "IPython", "ipywidgets", "anywidget", "jinja2"}
    heavy |= {"safetensors", "tqdm"}
    assert not loaded_by("import workbench") & heavy


def test_opening_a_trace_needs_no_torch() -> None:
    path = ROOT / "tests" / "traces" / "v1" / "random.safetensors"
    loaded = loaded_by(f"import workbench as wb; wb.open_trace({str(path)!r}).attention(1)")
    assert "numpy" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("name", of("widgets"))
def test_importing_a_widget_needs_no_torch(name: str) -> None:
    assert not loaded_by(f"import {name}") & (HEAVY | {"numba"})


def test_the_compiler_is_loaded_by_the_first_count() -> None:
    modules = ", ".join(of("workbench.analysis"))
    assert not loaded_by(f"import {modules}") & {"numba"}
    count = "import numpy as n; from workbench.analysis.counting import add_load; x = n.zeros((1, 1), 'i8')"
    assert "numba" in loaded_by(f"{count}; add_load(n.zeros((2, 1, 1), 'u1'), x); assert x == 2")


def test_public_names() -> None:
    assert len(wb.__all__) <= 15
    assert list(wb.__all__) == sorted(wb.__all__)
    assert set(dir(wb)) == set(wb.__all__)
    for name in wb.__all__:
        assert getattr(wb, name).__doc__, name
    with pytest.raises(AttributeError, match=r"^workbench has no 'gate'; it has CaptureSpec, Model, ModelError"):
        _ = wb.gate  # type: ignore[attr-defined]

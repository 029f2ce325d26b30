"""What every lesson keeps to, and that the runner catches a lesson that does not."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from babel.messages.pofile import read_po
from runner import COURSE, LessonFailed, run_lesson

from workbench.course import build, texts
from workbench.course.predictions import CourseError

LESSONS = sorted(COURSE.glob("[0-9]_*.ipynb"))
SOURCES = sorted(COURSE.glob("*.ipynb"))
EVERY = sorted(COURSE.rglob("*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)

# Where digits are no measured numbers: lessons' numbers, code, formulas, links, names, the minutes.
NO_NUMBERS = (
    r"```.*?```",
    r"`[^`]*`",
    r"\$[^$]*\$",
    r"\]\([^)]*\)",
    r"^#+ \d+\. ",
    r"^\d+\. (?=\[)",  # a list of lessons
    r"\b[Ll]essons? \d\b",
    r"\b\w*[A-Za-z][\w.-]*",
)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def numbers_in(text: str) -> list[str]:
    text = text.split("## Further reading")[0]
    for pattern in NO_NUMBERS:
        text = re.sub(pattern, " ", text, flags=re.DOTALL if pattern.startswith("```") else re.MULTILINE)
    return re.findall(r"\S*\d\S*", text)


@each_source
def test_prose_has_no_number_that_was_not_computed(path: Path) -> None:
    first, *others = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    minutes = r"\b\d+( to |–|-)?\d* minutes\b"
    if path.stem == "index":
        others = [re.sub(minutes, "", text) for text in others]
    assert numbers_in("\n\n".join([re.sub(minutes, "", first), *others])) == []


def test_a_number_in_prose_is_found() -> None:
    assert numbers_in("# 3. Load\n\nsee `4` of gpt-oss-20b, $1/k$, lesson 2, MXFP4; [b](3_x.ipynb)") == []
    assert numbers_in("There are 8 experts, and 4.5 % ...\n\n## Further reading\n\n2017") == ["8", "4.5"]


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nothing_is_stored_and_ids_stay(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata


@each_lesson
def test_a_lesson_has_its_parts(path: Path) -> None:
    notebook = read(path)
    first = notebook.cells[0].source
    assert re.match(rf"# {path.stem[0]}\. \S", first)
    assert "**Aims.**" in first
    assert "minutes" in first
    text = prose(notebook)
    assert "\n## Further reading\n" in "\n" + text
    assert len(re.findall(r"arXiv:\d{4}\.\d{4,5}|doi|http", text.split("## Further reading")[1])) >= 2
    assert re.search(r"^## (Summary|What you have seen)$", text, re.MULTILINE)
    assert 2 <= len([cell for cell in code_cells(notebook) if "answer" in cell.metadata]) <= 3


@each_lesson
def test_a_lesson_asks_before_it_shows(path: Path) -> None:
    """A prediction is the last thing in its cell, or it would not be shown."""
    asking = [cell for cell in code_cells(read(path)) if re.search(r"^Prediction\(", cell.source, re.MULTILINE)]
    assert asking
    for cell in asking:
        last = ast.parse(cell.source).body[-1]
        assert ast.unparse(last).startswith("Prediction("), cell.id


def stored(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@each_lesson
def test_exercises_are_well_formed(path: Path) -> None:
    for cell in code_cells(read(path)):
        if "answer" in cell.metadata:
            done = build.answered(cell.source, cell.metadata["answer"])
            assert stored(done) >= stored(cell.source), f"{cell.id}: the answer takes the place of the whole line"
        else:
            assert not re.search(r"\.\.\.$|\.check\(", cell.source, re.MULTILINE), f"{cell.id} has no answer"


@each_lesson
def test_the_rest_runs_unanswered(path: Path) -> None:
    """No later cell reads a name that only an answer gives a value."""
    open_names: set[str] = set()
    for cell in code_cells(read(path)):
        tree = ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
        set_here = {name.id for name in names if isinstance(name.ctx, ast.Store)}
        read_here = {name.id for name in names if isinstance(name.ctx, ast.Load)}
        if "answer" in cell.metadata:
            open_names |= {
                target.id
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is ...
                for target in node.targets
                if isinstance(target, ast.Name)
            }
        else:
            assert not (read_here - set_here) & open_names, cell.id
            open_names -= set_here


@each_source
def test_code_speaks_through_texts(path: Path) -> None:
    notebook = read(path)
    source = "\n".join(cell.source for cell in code_cells(notebook))
    assert source.count("_ = texts()") == (1 if source else 0)
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                [message] = node.args
                assert isinstance(message, ast.Constant), f"{cell.id}: only plain texts can be translated"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Prediction":
                assert isinstance(node.args[0], ast.Call), f"{cell.id}: the question is not wrapped in _()"


@each_source
def test_links_lead_somewhere(path: Path) -> None:
    for made in [path, *(COURSE / folder / path.name for folder in ("answers", "zh"))]:
        if made.exists():
            for link in re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", prose(read(made))):
                assert (made.parent / link).exists(), f"{made}: {link}"


def test_what_follows_from_the_lessons_is_what_the_builder_makes() -> None:
    made = build.build()
    there = {path for path in EVERY if path.parent != COURSE}
    assert there == made.keys(), "run python -m workbench.course.build"
    for path, notebook in made.items():
        assert read(path) == notebook, f"{path} is out of date: run python -m workbench.course.build"


def test_catalogues_know_the_messages_of_today() -> None:
    for language in texts.languages():
        for path in sorted((texts.CATALOGUES / language).glob("*.po")):
            wanted = (
                build.interface_messages()
                if path.stem == texts.INTERFACE
                else build.messages(read(COURSE / f"{path.stem}.ipynb"))
            )
            with path.open("rb") as file:
                catalogue = read_po(file)
            assert {one.id for one in catalogue if one.id} == {text for text, _ in wanted}, "run the builder"


def test_every_text_of_a_speaking_view_is_in_its_catalogue() -> None:
    """Babel's reader of JavaScript does not look into template literals."""
    known = {text for text, _ in build.interface_messages()}
    for path in [*(build.ROOT / "widgets").glob("*.js"), *(build.ROOT / "widgets/js").glob("*.js")]:
        source = path.read_text(encoding="utf-8")
        if 'texts.js"' in source:
            said = re.findall(r'\bsay\(\s*"((?:[^"\\]|\\.)*)"', source)
            assert set(said) <= known, path.name


def lesson(*cells: Any) -> Any:
    return nbformat.v4.new_notebook(cells=list(cells))


def code(source: str, answer: str = "") -> Any:
    return nbformat.v4.new_code_cell(source, metadata={"answer": answer} if answer else {})


SETUP = (
    "from workbench.course.exercises import Exercise\n"
    "x = 3\nasked = Exercise(x * x, hints=['multiply it by itself'], tolerance={})"
)


def test_the_runner_passes_a_right_lesson_and_starts_clean(kernel: Any) -> None:
    right = lesson(code(SETUP.format(1e-4)), code("answer = ...\nasked.check(answer)", "answer = x ** 2"))
    run_lesson(kernel, right, wrong=[["answer = 2 * x", "answer = 'nine'"]], checks="assert answer == 9")
    with pytest.raises(LessonFailed, match="NameError: name 'x' is not defined"):
        run_lesson(kernel, lesson(code("x")), wrong=[])


@pytest.mark.parametrize(("cells", "wrong", "words"), [
    ([SETUP.format(9), ("answer = ...\nasked.check(answer)", "answer = 9")], ["answer = 6"],
     r"expected a hint for the wrong answer\nanswer = 6\nbut it printed '✓"),
    ([SETUP.format(1e-4), ("answer = ...\nasked.check(answer)", "answer = 8")], ["answer = 6"], "Hint: mul"),
    ([SETUP.format(1e-4), ("answer = ...\nasked.check(answer)", "9")], ["answer = 6"], r"CourseError: not yet"),
    ([SETUP.format(1e-4), ("answer = ...\nasked.check(answer)", "answer = 9")], ["answer = nine"], "but it NameError"),
    ([SETUP.format(1e-4), ("answer = ...\nasked.check(9)", "answer = 9")], ["answer = 6"], "unanswered it should say"),
    ([SETUP.format(1e-4), ("answer = ...\nasked.check(answer)", "answer = 9")], [], "wrong answers for each of 1 ex"),
    (["import warnings; warnings.warn('old')"], None, "warns"),
    (["1 / 0"], None, "ZeroDivisionError"),
])  # fmt: skip
def test_the_runner_catches_lessons_that_do_not_teach(kernel: Any, cells: Any, wrong: Any, words: str) -> None:
    made = lesson(*(code(*one) if isinstance(one, tuple) else code(one) for one in cells))
    with pytest.raises(LessonFailed, match=words):
        run_lesson(kernel, made, wrong=[] if wrong is None else [wrong])


def test_a_malformed_exercise_says_what_is_wrong() -> None:
    with pytest.raises(CourseError, match="expected one line that ends in three dots, found 2"):
        build.answered("a = ...\nb = ...\nexercise.check(a)", "a = 1")
    with pytest.raises(CourseError, match=r"expected `exercise\.check\(answer\)` as the last line, found 'a'"):
        build.answered("a = ...\na", "a = 1")

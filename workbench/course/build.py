"""Make the notebooks that follow from the lessons: the answers, and the lessons in other languages.

``python -m workbench.course.build`` writes them, brings the catalogues up to date, and lists what is not translated.
A lesson is translated where its catalogue exists; ``--translate zh_CN 3_load_balance_and_collapse`` begins one.
"""

import argparse
import os
import re
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

from workbench.course.predictions import CourseError
from workbench.course.texts import CATALOGUES, INTERFACE, languages, read_catalogue

__all__ = [
    "FOLDERS",
    "answer_notebook",
    "answered",
    "build",
    "interface_messages",
    "messages",
    "translated_notebook",
    "update_catalogue",
]

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "notebooks" / "course"
FOLDERS = {"zh_CN": "zh"}  # where the notebooks of a language lie, beside the lessons; others by their code
_PARAGRAPHS = re.compile(r"(\n{2,})")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")
_ASKED = "texts()"


def answered(source: str, answer: str) -> str:
    """Return an exercise cell with its answer in the place of the line that ends in three dots.

    Raises:
        CourseError: not exactly one line ends in three dots, or the last line does not check.
    """
    lines = source.split("\n")
    dotted = [place for place, line in enumerate(lines) if line.endswith("...")]
    if len(dotted) != 1:
        raise CourseError(f"expected one line that ends in three dots, found {len(dotted)} in:\n{source}")
    if not re.fullmatch(r"\w+\.check\(.+\)", lines[-1]):
        raise CourseError(f"expected `exercise.check(answer)` as the last line, found {lines[-1]!r}")
    lines[dotted[0]] = answer
    return "\n".join(lines)


def answer_notebook(lesson: Any) -> Any:
    """Return a lesson with its exercises answered, as it lies in the folder ``answers``."""
    made = _copied(lesson)
    first = made.cells[0]
    first.source = re.sub(r"^(# .*)$", r"\1 (answers)", first.source, count=1, flags=re.MULTILINE)
    for cell in made.cells:
        if "answer" in cell.metadata:
            cell.source = answered(cell.source, cell.metadata.pop("answer"))
        elif cell.cell_type == "markdown":
            cell.source = _linked(cell.source, "answers")
    return made


def translated_notebook(lesson: Any, language: str, known: dict[str, str], beside: Collection[str] = ()) -> Any:
    """Return a lesson in another language: its prose translated, its code asking for the language.

    Args:
        lesson: the notebook.
        language: e.g. ``"zh_CN"``.
        known: texts by message; a message without one stays English.
        beside: files in the same folder; links to them stay.

    Raises:
        CourseError: the code has texts and does not ask for ``texts()`` exactly once.
    """
    made = _copied(lesson)
    asking = [cell for cell in made.cells if cell.cell_type == "code" and _ASKED in cell.source]
    if len(asking) != 1 and any(_spoken(cell) for cell in made.cells):
        raise CourseError(f"expected one cell with `_ = {_ASKED}`, found {len(asking)}")
    for cell in asking:
        cell.source = cell.source.replace(_ASKED, f'texts("{language}")')
    for cell in made.cells:
        if cell.cell_type == "markdown":
            parts = [known.get(part, part) for part in _PARAGRAPHS.split(cell.source)]
            cell.source = _linked("".join(parts), FOLDERS.get(language, language), beside)
    return made


def messages(lesson: Any) -> Iterator[tuple[str, str]]:
    """Yield each paragraph of prose and each text ``_("…")`` of the code, with the id of its cell."""
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            yield from ((part, cell.id) for part in _PARAGRAPHS.split(cell.source) if part.strip())
        else:
            yield from ((text, cell.id) for text in _spoken(cell))


def interface_messages() -> Iterator[tuple[str, str]]:
    """Yield each text ``say("…")`` of views and exercises, with the file that says it.

    Files that import the texts are those that speak; elsewhere ``say`` may be another function.
    """
    for folder, pattern in (("widgets", "*.js"), ("widgets/js", "*.js"), ("workbench/course", "*.py")):
        for path in sorted((ROOT / folder).glob(pattern)):
            source, kind = path.read_text(encoding="utf-8"), "javascript" if path.suffix == ".js" else "python"
            if re.search(r"texts\.js\"|course\.texts import", source):
                yield from ((text, path.relative_to(ROOT).as_posix()) for text in _extracted(source, kind, "say"))


def update_catalogue(path: Path, wanted: Iterable[tuple[str, str]], language: str) -> list[str]:
    """Bring a catalogue up to date with the messages that are wanted, and return those it does not translate.

    New messages are added, similar old ones are suggested as fuzzy, and what nobody says any more is kept as
    obsolete, so that no translator's work is lost.
    """
    template = Catalog(project="MoE Workbench", charset="utf-8")
    for text, where in wanted:
        template.add(text, locations=[(where, 0)])
    catalogue = Catalog(
        locale=language,
        header_comment=f"# {path.stem} in {language}: edit it, then run python -m workbench.course.build",
        project="MoE Workbench",
        version="0.1.0",
        msgid_bugs_address="see the README",
        last_translator="MoE Workbench",
        language_team=language,
        fuzzy=False,
    )
    if path.exists():
        with path.open("rb") as file:
            catalogue = read_po(file, locale=language)
    catalogue.update(template, update_creation_date=False)
    done = BytesIO()
    write_po(done, catalogue, width=100, include_lineno=False)
    path.write_bytes(done.getvalue())
    return [str(one.id) for one in catalogue if one.id and (not one.string or one.fuzzy)]


def build(course: Path = COURSE) -> dict[Path, Any]:
    """Return the notebooks that follow from the lessons in ``course``, by where they belong."""
    lessons = {path.stem: _read(path) for path in sorted(course.glob("*.ipynb"))}
    made = {}
    for name, lesson in lessons.items():
        if name != "index":
            made[course / "answers" / f"{name}.ipynb"] = answer_notebook(lesson)
    for language in languages():
        catalogues = {path.stem: path for path in (CATALOGUES / language).glob("*.po") if path.stem in lessons}
        beside = {f"{name}.ipynb" for name in catalogues}
        for name, path in catalogues.items():
            place = course / FOLDERS.get(language, language) / f"{name}.ipynb"
            made[place] = translated_notebook(lessons[name], language, read_catalogue(path), beside)
    return made


def main() -> None:
    """Update catalogues, write what follows from the lessons, and list what is not translated."""
    parser = argparse.ArgumentParser(prog="python -m workbench.course.build", description=__doc__)
    parser.add_argument("--translate", nargs=2, metavar=("LANGUAGE", "LESSON"), help="begin a translation")
    asked = parser.parse_args().translate
    if asked:
        language, lesson = asked
        (CATALOGUES / language).mkdir(parents=True, exist_ok=True)
        update_catalogue(CATALOGUES / language / f"{lesson}.po", (), language)
    for path in sorted(CATALOGUES.glob("*/*.po")):
        wanted = interface_messages() if path.stem == INTERFACE else messages(_read(COURSE / f"{path.stem}.ipynb"))
        missing = update_catalogue(path, wanted, path.parent.name)
        print(f"{path.parent.name} {path.stem}: {len(missing)} not translated", *map(repr, missing), sep="\n  ")
    for place, notebook in build().items():
        place.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, place)  # type: ignore[no-untyped-call]
        print(place.relative_to(ROOT))


def _read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def _copied(lesson: Any) -> Any:
    return nbformat.from_dict(lesson)  # type: ignore[no-untyped-call]


def _spoken(cell: Any) -> list[str]:
    return _extracted(cell.source, "python", "_") if cell.cell_type == "code" else []


def _extracted(source: str, kind: str, name: str) -> list[str]:
    found = extract(kind, BytesIO(source.encode()), keywords={name: None})
    return [str(text) for _, text, _, _ in found]


def _linked(source: str, folder: str, beside: Collection[str] = ()) -> str:
    """Return prose whose relative links are right from ``folder``; those to files beside it stay."""
    return _LINK.sub(lambda link: link[1] if link[1] in beside else os.path.relpath(link[1], folder), source)


if __name__ == "__main__":
    main()

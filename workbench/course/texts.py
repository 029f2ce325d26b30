"""Texts of the lessons and of their views in other languages, from catalogues in gettext's format.

English is the message and the fallback. ``python -m workbench.course.build`` keeps the catalogues up to date; they are
edited with any PO editor.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from workbench.course.predictions import CourseError

__all__ = [
    "CATALOGUES",
    "INTERFACE",
    "interface_texts",
    "languages",
    "read_catalogue",
    "say",
    "spoken_language",
    "texts",
]

CATALOGUES = Path(__file__).parent / "translations"
INTERFACE = "interface"  # the catalogue of what views and exercises say; the others have the names of their notebooks
_spoken = ""


def texts(language: str = "") -> Callable[[str], str]:
    """Choose the language of this process's lessons and views, and return gettext's ``_``: a message in, a text out.

    Args:
        language: e.g. ``"zh_CN"``; by default English, in which the messages are written.

    Raises:
        CourseError: there are no catalogues of the language.
    """
    global _spoken
    known = _all_texts(language) if language else {}
    _spoken = language
    return lambda message: known.get(message, message)


def say(message: str) -> str:
    """Return a message of the interface in the language that `texts` was last asked for."""
    return interface_texts(_spoken).get(message, message)


def spoken_language() -> str:
    """Return the language that `texts` was last asked for; empty for English."""
    return _spoken


def languages() -> list[str]:
    """Return the languages that have catalogues, besides English."""
    return sorted({path.parent.name for path in CATALOGUES.glob("*/*.po")})


@cache
def interface_texts(language: str) -> dict[str, str]:
    """Return what views and exercises say, from English to ``language``; nothing for English.

    Raises:
        CourseError: there are no catalogues of the language.
    """
    return read_catalogue(_folder(language) / f"{INTERFACE}.po") if language else {}


def read_catalogue(path: Path) -> dict[str, str]:
    """Return the messages of a catalogue that are translated; none if there is no such file.

    What is marked as fuzzy is a guess of an editor and counts as not translated, as everywhere in gettext.
    """
    from babel.messages.pofile import read_po  # English needs none of it

    if not path.is_file():
        return {}
    with path.open("rb") as file:
        catalogue = read_po(file)
    return {str(one.id): str(one.string) for one in catalogue if one.id and one.string and not one.fuzzy}


@cache
def _all_texts(language: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(_folder(language).glob("*.po")):
        found |= read_catalogue(path)
    return found


def _folder(language: str) -> Path:
    if language not in languages():
        known = ", ".join(languages())
        raise CourseError(f"expected a language among {known}, or none for English; got {language!r}")
    return CATALOGUES / language

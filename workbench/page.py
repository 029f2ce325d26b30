"""Pages that stand alone: one HTML file, no script, nothing loaded, every text escaped."""

import base64
import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

__all__ = ["NOTICE", "render_page", "shown"]

NOTICE = (
    "Raw chains of thought had no direct training pressure on their content. They may hold harmful, invented or "
    "off-policy text, they are no proof of what moved the answer, and they are not for end users unfiltered."
)
"""what every page and export with raw chains says"""


def render_page(
    package: str, name: str, values: Mapping[str, Any], filters: Mapping[str, Callable[[Any], str]] | None = None
) -> str:
    """Return the page of a template ``NAME.html.jinja`` with the style ``NAME.css``, both beside a package.

    Args:
        package: such as ``workbench.review``.
        name: of template and style.
        values: what the template names; ``style`` and ``style_hash``, for its policy, are added.
        filters: of the template, besides ``shown``.
    """
    folder = files(package)
    style = (folder / f"{name}.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"shown": shown, **(filters or {})}
    template = environment.from_string((folder / f"{name}.html.jinja").read_text(encoding="utf-8"))
    return template.render({**values, "style": style, "style_hash": digest})


def shown(text: object) -> str:
    """Make visible what is invisible or turns the line around, so that a reader sees what is there."""
    return "".join(_visible(c) for c in str(text))


def _visible(char: str) -> str:
    if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return chr(0x2400 + ord(char)) if ord(char) < 32 else f"⟨U+{ord(char):04X}⟩"

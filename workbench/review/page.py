"""The page of ``workbench review``: the desk of the person its address names, or the question who is there.

The notebook is always the same. What it is about is handed over in the environment of its kernel, so that names of
folders, reviews and people are never part of a program.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from IPython.display import HTML

from workbench.catalogue import Catalogue
from workbench.database import StoreError
from workbench.review.desk import Desk, open_desk
from workbench.trace import TraceError

__all__ = ["Served", "desk_or_choice", "write_page"]

_VARIABLE = "WORKBENCH_REVIEW"
_SOURCE = """from widgets import ReviewDesk
from workbench.review.page import desk_or_choice

desk_or_choice(ReviewDesk)"""


@dataclass(frozen=True)
class Served:
    """What a page is about."""

    store: str
    """folder of the traces, in full"""
    url: str | None
    """of the database; None: the one in the folder"""
    review: str
    reviewer: str | None
    """whose desk it is; None: the address says, ``?reviewer=ada``"""
    reviewers: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return the environment that hands this over to a kernel."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def here(cls) -> "Served":
        """Take what was handed over to this process."""
        given = json.loads(os.environ[_VARIABLE])
        return cls(**{**given, "reviewers": tuple(given["reviewers"])})

    def asked_for(self, address: Mapping[str, list[str]]) -> str | None:
        """Return whose desk an address names."""
        return self.reviewer or next(iter(address.get("reviewer", ())), None)


def write_page(folder: Path, review: str) -> Path:
    """Write the notebook that shows a desk, and return its path."""
    cell: dict[str, Any] = {"cell_type": "code", "id": "desk", "metadata": {}, "execution_count": None, "outputs": []}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": [cell | {"source": _SOURCE}],
        "metadata": {"kernelspec": kernel, "title": f"Review {review}"},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = folder / "review.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def desk_or_choice(widget: Callable[[Desk], Any]) -> Any:
    """Return the desk this page is for, shown by ``widget``; a choice of people where its address names nobody."""
    served = Served.here()
    reviewer = served.asked_for(parse_qs(os.environ.get("QUERY_STRING", "")))
    if reviewer is None:
        return _html(_choice(served))
    try:
        return widget(open_desk(Catalogue(served.store, served.url), served.review, reviewer))
    except (StoreError, TraceError) as error:
        return _html(f'<p role="alert">{escape(str(error))}</p>')


def _html(text: str) -> Any:
    shown: Any = HTML  # it has no types
    return shown(text)


def _choice(served: Served) -> str:
    # A form, as Jupyter opens links in another tab.
    names = [escape(name) for name in served.reviewers]
    buttons = [f'<p><button name="reviewer" value="{name}">{name}</button></p>' for name in names]
    asks = "<p>Who is there? The name is stated, not proven.</p>"
    return f"<h1>Review {escape(served.review)}</h1>{asks}<form>{''.join(buttons)}</form>"

"""Views as one HTML file that needs no kernel and no network: opened from disk, it still steps."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ipywidgets import Widget
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from widgets.bundle import bundle, styles
from widgets.effort_comparison import EffortComparison
from widgets.faithfulness_report import FaithfulnessReport
from widgets.page_state import page_state
from widgets.page_text import sections_of
from widgets.page_trace import page_bytes, stretch, token_range
from widgets.trace_explorer import TraceExplorer
from workbench.analysis.faithfulness import FaithfulnessReport as Report
from workbench.trace import Trace, TraceError

__all__ = ["PAGE_LIMIT_BYTES", "export_page"]

FOLDER = Path(__file__).parent
PAGE_LIMIT_BYTES = 25_000_000
"""What browsers open at once and mail servers still take."""
EVERYTHING = 1 << 40  # bytes: a page has no kernel to ask for the rest

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)


def export_page(
    what: Any,
    path: str | PathLike[str],
    *,
    tokens: slice | range | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page with the same views as in the notebook, and return its path.

    The page is one file. It asks for nothing, its content security policy allows it nothing, and it steps in any
    browser with no kernel. Queries and keys are rounded to int8 for it, which a badge in the page says. Text and
    figures are there without JavaScript and on paper too. A trace holds the raw chain of thought; so does its page.

    Args:
        what: a trace, for a `TraceExplorer`; what ``compare_efforts`` returns, or a mapping name → traces, for an
            `EffortComparison`; a report of faithfulness tests, for a `FaithfulnessReport`; a view of `widgets`, as it
            stands, or several, which then share their selection.
        path: of the page; its folder must exist.
        tokens: of a trace, which to take, such as ``range(200, 900)``; by default all.
        overwrite: replace what is there.

    Raises:
        TraceError: nothing a page can show; ``tokens`` outside the trace, or without one; a page of more than 25 MB,
            with its size and a range of tokens that fits.
        FileExistsError: the path is taken.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already; another path, or overwrite=True")
    views, place = _views(what, tokens)
    written = _page(views, place).encode("utf-8")
    if len(written) > PAGE_LIMIT_BYTES:
        raise TraceError(_too_large(len(written)))
    _write(path, written)
    return path


def _views(what: Any, tokens: slice | range | None) -> tuple[list[Widget], tuple[int, int, int] | None]:
    """Return the views of a page, and for a part of a trace its first token, its last, and how many there are."""
    if isinstance(what, Trace):
        start, stop = token_range(tokens, what)
        part = stretch(what, start, stop)
        if (size := page_bytes(part)) > PAGE_LIMIT_BYTES:
            raise TraceError(_too_large(size, what, len(part)))
        place = None if len(part) == len(what) else (start, stop - 1, len(what))
        return [TraceExplorer(part, preload_bytes=EVERYTHING)], place
    if tokens is not None:
        raise TraceError(f"tokens= takes a part of a trace, got {type(what).__name__}: give the trace itself")
    for view in what if isinstance(what, list | tuple) else [what]:
        if refused := getattr(view, "_no_page", ""):
            raise TraceError(refused)
    if _is_view(what):
        return [what], None
    if isinstance(what, Sequence) and what and all(_is_view(view) for view in what):
        return list(what), None
    if isinstance(what, Report):
        return [FaithfulnessReport(what)], None
    if isinstance(getattr(what, "traces", what), Mapping):
        return [EffortComparison(what, preload_bytes=EVERYTHING)], None
    raise TraceError(
        "expected a trace, what wb.compare_efforts returns, a FaithfulnessReport, a view of widgets or several, "
        f"got {type(what).__name__}; wb.open_trace(path) reads a trace from a file"
    )


def _is_view(what: Any) -> bool:
    return isinstance(what, Widget) and hasattr(what, "_esm")


def _too_large(size: int, trace: Trace | None = None, taken: int = 0) -> str:
    said = f"expected a page of at most {PAGE_LIMIT_BYTES / 1e6:.0f} MB, got {size / 1e6:,.1f} MB"
    if trace is None:
        return f"{said}; give fewer rollouts or views"
    count = int(0.95 * taken * PAGE_LIMIT_BYTES / size)
    start = max(0, min(trace.num_prompt_tokens, len(trace) - count))
    return f"{said} for {taken:,} tokens; take a part that fits: tokens=range({start}, {start + count})"


def _page(views: Sequence[Widget], place: tuple[int, int, int] | None) -> str:
    states = [page_state(view) for view in views]
    if place:
        states[0]["state"]["_facts"]["stretch"] = list(place)
    names = [type(view).__name__ for view in views]
    script = _script({name: str(view._esm) for name, view in zip(names, views, strict=True)})
    style = "\n".join(dict.fromkeys([*(str(view._css) for view in views), styles(FOLDER / "export_page.css")]))
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = list(sections_of(views))
    return environment.get_template("export_page.html").render(
        policy=POLICY.format(script=_hash(script), style=_hash(style)),
        title=sections[0].heading,
        sections=sections,
        place=place,
        script=script,
        style=style,
        data=_json([{"name": name, **state} for name, state in zip(names, states, strict=True)]),
    )


def _script(sources: Mapping[str, str]) -> str:
    """Return the script of a page: the host, handed the views' modules as functions that make them."""
    made = ",\n".join(f"{json.dumps(name)}: {_function(source)}" for name, source in sources.items())
    script = f"({_function(bundle(FOLDER / 'export_page.js'))})().start({{\n{made}\n}});\n"
    if re.search(r"<(?:/script|!--)", script, re.IGNORECASE):
        raise ValueError(
            "a view's JavaScript holds </script or <!--, which would end the page's script: write it apart"
        )
    return script


def _function(module: str) -> str:
    """Return a module as a function that returns its default export: a page cannot import what it carries."""
    body, found = re.subn(r"^export default ", "return ", module, flags=re.MULTILINE)
    if found != 1:
        raise ValueError(f"expected a view's JavaScript with one `export default`, got {found}")
    return "() => {\n" + re.sub(r"^export (?=(?:async )?\w+ \w)", "", body, flags=re.MULTILINE) + "}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _json(value: Any) -> str:
    """Return JSON that no text within can end: < is written as an escape."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _write(path: Path, content: bytes) -> None:
    """Write beside the path and rename, so that a page is there as a whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)

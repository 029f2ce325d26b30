"""The documentation's Python runs, and its numbers and names are those of the code."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.analysis.signals import MEASURED, SIGNALS
from workbench.families import FAMILIES
from workbench.trace import DIMS

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"
CAPTURING = DOCS / "capturing.md"
BLOCK = re.compile(r"^```python(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.M | re.S)
# GitHub shows the README, so that its reason stands in the paragraph above the block and not behind the fence.
NOT_RUN = re.compile(r"^\*Not run\b[^`]*\*\n\n\Z", re.M)
EVERYTHING = wb.CaptureSpec(residual=True)
TWENTY_B = "openai/gpt-oss-20b"


def blocks(path: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page as (what follows ``python``, code), each at its line of the page."""
    text = path.read_text(encoding="utf-8")
    found = []
    for m in BLOCK.finditer(text):
        kind = "no-run" if NOT_RUN.search(text[: m.start()]) else m["kind"].strip()
        found.append((kind, "\n" * (text[: m.start()].count("\n") + 1) + m["code"]))
    return found


def pages() -> list[Path]:
    return sorted(path for path in [*DOCS.rglob("*.md"), README] if blocks(path))


def imported_names(page: Path) -> set[str]:
    """What the blocks of a page import from this project, as ``module.name``."""
    statements = (node for _, code in blocks(page) for node in ast.walk(ast.parse(code)))
    return {
        f"{node.module}.{alias.name}"
        for node in statements
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"workbench", "widgets"}
        for alias in node.names
    }


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for kind, code in blocks(page):
        compiled = compile(code, page, "exec")
        if not kind:
            exec(compiled, names)


def test_a_block_that_is_not_run_says_why() -> None:
    for page in pages():
        kinds = [kind for kind, _ in blocks(page)]
        assert set(kinds) <= {"", "no-run"}, page
        assert kinds.count("no-run") <= kinds.count(""), page
        said = re.findall(r"not\s+run\b[^`]*\n```python no-run$", page.read_text(encoding="utf-8"), re.M)
        assert page == README or len(said) == kinds.count("no-run"), page


def rows(heading: str) -> list[list[str]]:
    """The rows of the table under a header row that begins so."""
    text = CAPTURING.read_text(encoding="utf-8")
    table = text[text.index(heading) :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_arrays_and_their_bytes_per_token() -> None:
    table = {name.strip("`"): (dims, int(count.replace(",", ""))) for *_, name, dims, count in rows("| field |")}
    per_token = wb.estimate(TWENTY_B, 1, capture=EVERYTHING).arrays
    assert {name: count for name, (_, count) in table.items()} == per_token
    assert {name: tuple(dims.split(", ")) for name, (dims, _) in table.items()} == {n: DIMS[n] for n in table}


def test_the_fields_and_their_defaults() -> None:
    named: dict[str, Any] = {}
    for field, default, *_ in rows("| field |"):
        if default:
            named |= zip(re.findall(r"`(\w+)`", field), ast.literal_eval(f"({default},)"), strict=True)
    assert wb.CaptureSpec() == wb.CaptureSpec(**named)
    assert named.keys() == wb.CaptureSpec.__dataclass_fields__.keys()


def test_the_recipes_and_their_bytes_per_token() -> None:
    recipes = rows("| for | capture=")
    assert len(recipes) == 6
    for _, code, count in recipes:
        spec = eval(code.strip("`"), {"CaptureSpec": wb.CaptureSpec})
        assert wb.estimate(TWENTY_B, 1, capture=spec).on_host == int(count.replace(",", "")), code


def test_the_families() -> None:
    table = rows("| family |")
    names = [name for row in table for name in row[0].split(", ")]
    assert sorted(names) == sorted(family.name for family in FAMILIES.values())
    for row in table:
        for family in (f for f in FAMILIES.values() if f.name in row[0].split(", ")):
            assert (f"`{family.router}`" if family.router else "none") == row[1]
            assert row[3].startswith("yes" if family.queries else "no")
            assert row[4] == ("yes" if family.sinks else "no")


def test_the_measured_signals() -> None:
    text = (DOCS / "review.md").read_text(encoding="utf-8")
    table = text[text.index("| signal | precision") :].split("\n\n")[0].splitlines()[2:]
    found = {name: rest for name, *rest in ([cell.strip() for cell in line.strip("|").split("|")] for line in table)}
    assert list(found) == list(SIGNALS)
    for name, cells in found.items():
        m = MEASURED.get(name)
        shares = ((m.precision, m.precision_interval), (m.recall, m.recall_interval)) if m else ()
        shown = [f"{share:.2f} [{low:.2f}, {high:.2f}]" for share, (low, high) in shares]
        assert cells == ([*shown, str(m.n), str(m.positives)] if m else ["undefined", "undefined", "0", "0"]), name

"""The documentation as a site: it builds without a warning, its links lead somewhere, it makes no request."""

import argparse
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from test_docs import DOCS, README, imported_names

import widgets
import workbench as wb
from workbench import cli

ROOT = DOCS.parent
JS = ROOT / "widgets"
SHELL = re.compile(r"^```(?:bash|console|sh|shell)\n(.*?)^```$", re.M | re.S)
KEY_ROW = re.compile(r"^\| ((?:<kbd>[^<]+</kbd> ?)+)\| (.+?) \|$", re.M)
KEY_PAIR = re.compile(r'^ +\["([^"]+)", "([^"]+)"\],$', re.M)
KEYS_OF_CARD = re.compile(r'^ +\[\[(.+)\], "([^"]+)"\],$', re.M)
# Where the keys of a view are listed that `?` shows.
KEYS = {
    "trace-explorer": ["js/keys.js"],
    "router-map": ["js/map_keys.js"],
    "load-curve": ["js/curve_view.js"],
    "routing-paths": ["js/paths_view.js"],
    "attention-view": ["js/attention_keys.js"],
    "chain-view": ["js/chain_keys.js"],
    "chain-editor": ["js/editor_view.js"],
    "effort-comparison": ["js/effort_view.js"],
    "trace-diff": ["js/diff_view.js", "js/view_keys.js"],
    "intervention-bench": ["js/bench_view.js", "js/view_keys.js"],
    "faithfulness-report": ["js/faithfulness_view.js"],
    "review-desk": ["js/desk_keys.js"],
}
PICTURES = {("⇧P ⇧S", "save a picture: PNG, SVG")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of Sphinx, such as of a page outside the navigation, is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(out / "doctrees")]
    done = subprocess.run(
        [*command, str(DOCS), str(out / "html")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


class Page(HTMLParser):
    """What a page names: anchors of its own, where it leads, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")
        leads = tag == "link" and given.get("rel") in {"next", "prev", "index", "search", "canonical"}
        if tag != "a" and not leads:
            self.loads += [
                given[name] or "" for name in ("src", "href", "srcset", "data", "poster") if given.get(name)
            ]


@cache
def page(path: Path) -> Page:
    return Page(path)


def html_pages(site: Path) -> list[Path]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 30
    return found


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    sidebar = (site / "index.html").read_text(encoding="utf-8")
    for source in DOCS.rglob("*.md"):
        built = source.relative_to(DOCS).with_suffix(".html")
        assert (site / built).is_file(), built
        named = [f'href="{each.as_posix()}"' in sidebar for each in (built, built.parent / "index.html")]
        assert any(named) or built == Path("index.html"), f"{built} is not in the navigation"


def test_links_within_the_site_lead_to_a_page_and_an_anchor(site: Path) -> None:
    checked = 0
    for path in html_pages(site):
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.relative_to(site)} leads to {link}, which is not there"
            if parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                assert anchor in page(target).anchors, f"{path.relative_to(site)}: {link} has no such anchor"
            checked += 1
    assert checked > 500


def test_links_of_the_readme_lead_to_a_file() -> None:
    links = re.findall(r"""(?:\]\(|src="|srcset=")([^)"\s]+)""", README.read_text(encoding="utf-8"))
    within = [link for link in links if not urlsplit(link).scheme]
    assert len(within) > 8
    for link in within:
        assert (ROOT / urlsplit(link).path).exists(), f"the README leads to {link}, which is not there"


def test_a_page_that_is_looked_at_makes_no_request(site: Path) -> None:
    for path in html_pages(site):
        for loaded in page(path).loads:
            assert not urlsplit(loaded).scheme or loaded.startswith("data:"), f"{path.name} loads {loaded}"
            assert not loaded.startswith("//"), f"{path.name} loads {loaded}"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        for loaded in re.findall(r"""(?:url\(|@import )["']?([^"')\s]+)""", text):
            assert loaded.startswith("data:") or not re.match(r"\w+:|//", loaded), f"{style.name} loads {loaded}"
    assert "<math" in (site / "methods.html").read_text(encoding="utf-8")


def test_links_that_lead_out_have_the_form_of_one_and_are_listed(site: Path) -> None:
    listed = {link for link in page(site / "links.html").links if urlsplit(link).scheme}
    written = {
        link
        for source in [*DOCS.rglob("*.md"), README]
        for link in re.findall(r"\]\((https?://[^)\s]+)\)", source.read_text(encoding="utf-8"))
    }
    assert written
    assert written <= listed
    for link in listed:
        parts = urlsplit(link)
        assert parts.scheme == "https", f"{link}: expected https"
        assert re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", (parts.hostname or "").lower()), f"{link}: expected a host"


def test_every_public_name_has_its_documentation(site: Path) -> None:
    anchors = {anchor for path in (site / "api").glob("*.html") for anchor in page(path).anchors}
    lacking = {f"workbench.{name}" for name in wb.__all__} | {f"widgets.{name}" for name in widgets.__all__}
    assert len(wb.__all__) == 15
    assert not lacking - anchors
    shown = {anchor.rpartition(".")[2] for anchor in anchors}
    used = {name for source in [*DOCS.rglob("*.md"), README] for name in imported_names(source)}
    used = {name for name in used if not name.startswith("workbench.tiny.")}  # how the embedded model was made
    assert not {name for name in used if name.rpartition(".")[2] not in shown}, "in a page, but on none of docs/api"
    measures = set(re.findall(r"`([a-z]+_[a-z_]+)`", (DOCS / "methods.md").read_text(encoding="utf-8")))
    assert len(measures) > 25
    assert measures <= shown, "in docs/methods.md, but on none of docs/api"


def test_every_view_has_a_guide_with_the_keys_of_the_view() -> None:
    guides = {path.stem for path in (DOCS / "views").glob("*.md")} - {"index"}
    views = {inspect.getfile(getattr(widgets, name)) for name in widgets.__all__}
    assert guides == {Path(file).stem.replace("_", "-") for file in views}
    for name, sources in KEYS.items():
        text = (DOCS / "views" / f"{name}.md").read_text(encoding="utf-8")
        shown = {(" ".join(re.findall(r"<kbd>([^<]+)</kbd>", keys)), words) for keys, words in KEY_ROW.findall(text)}
        listed = {pair for source in sources for pair in KEY_PAIR.findall((JS / source).read_text(encoding="utf-8"))}
        assert len(shown) > 3
        assert shown - PICTURES == listed - PICTURES, name
    card = KEYS_OF_CARD.findall((JS / "expert_card.js").read_text(encoding="utf-8"))
    text = (DOCS / "views" / "expert-card.md").read_text(encoding="utf-8")
    rows = [(re.findall(r"<kbd>([^<]+)</kbd>", keys), words) for keys, words in KEY_ROW.findall(text)]
    assert rows == [(re.findall(r'"([^"]+)"', keys), words) for keys, words in card]


def commands(path: Path) -> Iterator[list[str]]:
    """The commands of this project in the shell blocks of a page, as words."""
    for block in SHELL.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0].rpartition("/")[2] == "workbench":
                yield [word for word in words[1:] if word != ";"]


def test_commands_in_the_pages_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparse.ArgumentParser, "error", lambda self, message: pytest.fail(message))
    parser = cli._parser()
    found = [words for source in [*DOCS.rglob("*.md"), README] for words in commands(source)]
    assert len(found) > 15
    for words in found:
        words = [word.removesuffix(";") for word in words]
        assert callable(parser.parse_args(words).run), words

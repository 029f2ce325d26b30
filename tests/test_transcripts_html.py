"""The page of transcripts: read back by a parser, and opened in Chromium with hostile text everywhere."""

import dataclasses
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from hostile import PAYLOADS
from hypothesis import given, settings
from playwright.sync_api import Browser, sync_playwright
from transcript_strategies import transcripts

import workbench as wb
from workbench.page import NOTICE, shown
from workbench.transcripts.files import write_transcripts
from workbench.transcripts.html_page import write_html
from workbench.transcripts.transcript import Transcript, TranscriptError, TranscriptMessage

SCREENSHOTS = Path(__file__).parents[1] / "artifacts" / "screenshots"
M = TranscriptMessage
TALK = Transcript(
    (
        M("user", "What is 47 + 85?"),
        M("assistant", "7+5=12. Ask the tool.", "analysis"),
        M("assistant", '{"a": 47, "b": 85}', "commentary", "functions.add", "<|constrain|>json"),
        M("functions.add", '{"sum": 132}', "commentary", "assistant"),
        M("assistant", "print(47 + 85)", "analysis", "python", "code"),
        M("python", "132\n", "analysis", "assistant"),
        M("assistant", "It is 13", "final", malformed="cut off before its closing token"),
    ),
    source="chat completion",
    model="gpt-oss-20b",
    effort="high",
    ended="cut at the server's token limit",
    lost=("logprobs: not captured, because the server did not return them",),
)


class _Read(HTMLParser):
    """What a page holds: its tags, and the texts of its messages, names, titles and losses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: dict[str, list[str]] = {"pre": [], "b": [], "li": [], "h2": []}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.texts:
            self.texts[self._open[-1]][-1] += data


TAGS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "div", "p", "main", "article", "h2", "h3"}
TAGS |= {"ul", "li", "section", "details", "summary", "pre", "b"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "role", "data-hue"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@given(one=transcripts(), two=transcripts())
@settings(deadline=None, max_examples=60)
def test_every_text_is_in_the_page_once_and_nothing_but_text(folder: Path, one: Transcript, two: Transcript) -> None:
    """The round trip of a page: what is read back of it is what was said, with the invisible made visible."""
    write_html([one, two], folder / "t.html")
    page = _Read((folder / "t.html").read_text(encoding="utf-8"))
    said = [m for each in (one, two) for m in (*each.prompt, *each.completion)]
    # A browser drops the line break behind <pre>, which the template therefore adds.
    assert page.texts["pre"] == ["\n" + shown(m.text) for m in said]
    names = [shown((m.channel or "assistant") if m.role == "assistant" else m.role) for m in said]
    assert [text.split(" to=")[0] for text in page.texts["b"]] == names
    assert page.texts["li"] == [shown(loss) for each in (one, two) for loss in each.lost]
    questions = [each.question or f"Transcript {n}" for n, each in enumerate((one, two), 1)]
    assert page.texts["h2"] == [shown(question) for question in questions]
    assert page.tags <= TAGS
    assert page.attributes <= ATTRIBUTES


def test_a_trace_is_written_with_what_the_page_does_not_hold(folder: Path, tiny: wb.Model) -> None:
    trace = wb.replay(tiny, dataclasses.replace(TALK, ended=None))
    write_transcripts([trace], folder / "trace.html", "html")
    text = (folder / "trace.html").read_text(encoding="utf-8")
    assert "the model&#39;s internals: logprobs" in text
    assert "says nothing about gpt-oss" in text
    assert NOTICE in text


def test_pages_without_chains_say_nothing_of_them(folder: Path) -> None:
    write_html([Transcript((M("user", "hi"), M("assistant", "ho", "final")))], folder / "plain.html")
    text = (folder / "plain.html").read_text(encoding="utf-8")
    assert NOTICE not in text
    assert "<details>" not in text
    assert "says nothing about gpt-oss" not in text


def test_what_cannot_be_written(folder: Path) -> None:
    with pytest.raises(TranscriptError, match=r"expected a path that ends in .html, got x.txt"):
        write_html([TALK], "x.txt")
    with pytest.raises(TranscriptError, match="expected at least one transcript to write, got none"):
        write_html([], folder / "none.html")


# --- in Chromium -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def test_it_opens_from_disk_runs_nothing_and_folds_chains(folder: Path, chromium: Browser) -> None:
    hostile = Transcript(
        tuple(M("assistant", text, "final", text) for text in PAYLOADS), model=PAYLOADS[0], lost=tuple(PAYLOADS)
    )
    write_html([TALK, hostile], folder / "hostile.html")
    page = chromium.new_page(viewport={"width": 900, "height": 900})
    requests: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.goto((folder / "hostile.html").as_uri())
    assert requests == [(folder / "hostile.html").as_uri()]
    assert dialogs == []
    assert page.locator("script, img, a, iframe, svg, object").count() == 0
    assert page.evaluate("window.__hit") is None

    labels = page.locator("article").first.locator(".label, summary").all_inner_texts()
    assert labels == [
        "user",
        "analysis · raw chain of thought",
        "commentary to=functions.add · tool call (json)",
        "functions.add · tool output",
        "analysis to=python · tool call (code) · raw chain of thought",
        "python · tool output · raw chain of thought",
        "final · malformed: cut off before its closing token",
    ]
    thought = page.get_by_text("7+5=12. Ask the tool.")
    assert not thought.is_visible()
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert thought.is_visible()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        page.screenshot(path=SCREENSHOTS / f"transcripts_page_{scheme}.png")
    page.close()


def test_axe_finds_nothing_serious(folder: Path, chromium: Browser) -> None:
    """Axe is a script, which the page's own policy refuses, hence without it."""
    write_html([TALK], folder / "axe.html")
    context = chromium.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto((folder / "axe.html").as_uri())
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()


def test_what_names_no_channel_is_folded_and_noticed(tmp_path: Path) -> None:
    write_html([Transcript((M("assistant", "perhaps a thought"),))], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert " · no channel named: may be a raw chain of thought</summary>" in page
    assert NOTICE[:40] in page

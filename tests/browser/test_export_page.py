"""Pages opened from disk with the network off: they step, ask for nothing, and can be read without JavaScript."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from hostile import PAYLOADS
from lab import SCREENSHOTS, Heard
from playwright.sync_api import Browser, Page, expect
from test_compare import rollouts
from written_trace import written_trace

import workbench as wb
from widgets.export_page import export_page


class Opened:
    """A page from disk, and what it did."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000}, offline=True, **options)
        self.page: Page = self.context.new_page()
        self.heard = Heard()
        self.heard.listen(self.context, self.page)
        self.url = path.as_uri()
        self.page.goto(self.url)

    def close(self) -> None:
        assert self.heard.requests == [self.url]
        assert self.heard.console_errors == []
        assert self.heard.page_errors == []
        assert self.heard.dialogs == []
        self.context.close()

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def trace(tiny: wb.Model) -> wb.Trace:
    return wb.capture(tiny, "47 + 85 = ?", effort="high", temperature=0)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Any]:
    pages: list[Opened] = []

    def open_page(path: Path, **options: Any) -> Opened:
        pages.append(Opened(browser, path, **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def test_it_steps_and_shows_the_traces_numbers(opened: Any, trace: wb.Trace, tmp_path: Path) -> None:
    done = opened(export_page(trace, tmp_path / "page.html"), color_scheme="light", reduced_motion="reduce")
    page, root = done.page, done.page.locator(".moe-root")
    first = trace.num_prompt_tokens
    root.and_(page.locator(f'[data-token="{first}"][data-theme="light"]')).wait_for()
    root.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "]", "]", "]"):
        page.keyboard.press(key)
    root.and_(page.locator(f'[data-token="{first + 2}"][data-layer="1"][data-head="3"]')).wait_for()
    shown = root.locator(".moe-stack").get_attribute("data-experts") or ""
    assert [[int(n) for n in row.split(",")] for row in shown.split()] == trace.expert_indices[first + 2].tolist()
    row = trace.attention(1, head=3, rows=[first + 2]).pattern.values[0, 0]
    drawn = dict(pair.split(":") for pair in (root.locator(".moe-axis").get_attribute("data-attention") or "").split())
    assert len(drawn) >= 3
    for token, weight in drawn.items():
        assert float(weight) == pytest.approx(row[int(token)], abs=0.02)
    expect(root.get_by_text("rounded for the page")).to_be_visible()
    expect(page.get_by_text("Raw chain of thought.")).to_be_visible()
    expect(page.locator(".page-text")).to_be_hidden()
    root.get_by_role("button", name="Save bookmarks").click()
    expect(root.get_by_text("not in this page: needs a kernel")).to_be_visible()
    expect(page.get_by_text("Part of this needs a kernel")).to_be_visible()
    page.get_by_label("Colours").select_option("dark")
    root.and_(page.locator('[data-theme="dark"]')).wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 25)"
    done.screenshot("page_dark")
    assert nothing_serious(page)
    page.get_by_label("Colours").select_option("light")
    root.and_(page.locator('[data-theme="light"]')).wait_for()
    done.screenshot("page_light")
    page.get_by_role("button", name="Text and figures").click()
    expect(page.locator(".page-text").get_by_text("132").first).to_be_visible()
    assert nothing_serious(page)


def nothing_serious(page: Page) -> bool:
    found = Axe().run(page).response["violations"]
    serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    assert serious == []
    return True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_figures_without_javascript_and_on_paper(
    opened: Any, trace: wb.Trace, tmp_path: Path, scheme: str
) -> None:
    path = export_page(trace, tmp_path / "page.html", tokens=range(10, len(trace)))
    done = opened(path, java_script_enabled=False, color_scheme=scheme)
    text = done.page.locator("body").inner_text()
    assert trace.analysis_text.strip().splitlines()[0] in text
    assert trace.final_text in text
    assert f"Tokens 10–{len(trace) - 1} of a trace of {len(trace)}" in text
    assert "Without JavaScript this page shows text and figures" in text
    assert [svg.bounding_box()["height"] > 60 for svg in done.page.locator("svg").all()] == [True, True]
    done.screenshot(f"page_without_javascript_{scheme}")
    steps = opened(path, color_scheme=scheme)
    steps.page.locator(".moe-root[data-token]").wait_for()
    expect(steps.page.locator(".moe-root").get_by_text(f"tokens 10–{len(trace) - 1} of {len(trace)}")).to_be_visible()
    steps.page.emulate_media(media="print")
    expect(steps.page.locator(".page-text")).to_be_visible()
    expect(steps.page.locator("#page-views")).to_be_hidden()
    colour = steps.page.locator(".page-message").first.evaluate("node => getComputedStyle(node).color")
    assert colour == "rgb(0, 0, 0)", "paper is white"
    steps.screenshot(f"page_on_paper_{scheme}")


def test_a_comparison_and_hostile_text(opened: Any, tmp_path: Path) -> None:
    hostile = written_trace([*PAYLOADS], [PAYLOADS[0]], prompt=[PAYLOADS[3]], effort=PAYLOADS[11])
    done = opened(export_page({"low": rollouts(2, "5"), PAYLOADS[1]: [hostile]}, tmp_path / "runs.html"))
    page = done.page
    page.locator(".moe-root").wait_for()
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Text and figures").click()
    page.wait_for_timeout(500)
    assert page.evaluate("window.__hit") is None
    assert "⟨U+202E⟩<script>" in page.locator(".page-text").inner_text()
    single = opened(export_page(hostile, tmp_path / "page.html"))
    single.page.locator(".moe-root[data-token]").wait_for()
    single.page.wait_for_timeout(500)
    assert single.page.evaluate("window.__hit") is None
    still = opened(tmp_path / "page.html", java_script_enabled=False)
    assert re.search(r"⟨U\+202E⟩<script>", still.page.locator("body").inner_text())


def test_a_view_that_cannot_start_leaves_the_text(browser: Browser, trace: wb.Trace, tmp_path: Path) -> None:
    path = export_page(trace, tmp_path / "page.html")
    path.write_text(path.read_text(encoding="utf-8").replace('"_facts":{', '"_other":{', 1), encoding="utf-8")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.get_by_text("The views could not start")).to_be_visible()
    expect(page.locator(".page-text")).to_be_visible()
    assert page.locator(".moe-root").count() == 0
    context.close()

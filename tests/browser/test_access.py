"""Every view and page by what a browser can check of access: axe, high contrast, zoom to 200 %, no motion.

axe looks at our views only: what JupyterLab itself gets wrong around them is JupyterLab's to mend.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from every_view import paged_views
from lab import Heard, OpenNotebook
from playwright.sync_api import Browser, Page, expect
from written_trace import written_trace

import widgets
import workbench as wb
from widgets.export_page import export_page

HERE = Path(__file__).parent
OURS = [".moe-root", ".moe-live"]
MAKE = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
import torch; torch.set_num_threads(1)
import tempfile; from pathlib import Path
import workbench as wb
from every_view import SHOWN_ALREADY, other_views, paged_views
views = paged_views(wb.load("tiny", device="cpu")) | other_views(Path(tempfile.mkdtemp()))
"""
SHOW = """
from IPython.display import display
for view in views.values():
    if not isinstance(view, SHOWN_ALREADY):
        display(view)
"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "more": {"color_scheme": "light", "contrast": "more"},
    "forced": {"color_scheme": "dark", "forced_colors": "active"},
}
LOOKS_OFF = {"contrast": "no-preference", "forced_colors": "none"}

# Of each canvas of the views: [name of the view, what it holds as a data URL].
DRAWN = """roots => roots.flatMap(root => [...root.querySelectorAll("canvas")]
    .filter(canvas => canvas.offsetParent)
    .map(canvas => [root.getAttribute("aria-label"), canvas.toDataURL()]))"""

# Of each canvas: [label, highest ratio that a pixel has to the ground the canvas lies on].
CONTRASTS = """roots => roots.flatMap(root => [...root.querySelectorAll("canvas")]
    .filter(canvas => canvas.offsetParent && canvas.width * canvas.height > 400)
    .map(canvas => {
        const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
        const luminance = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
        const below = getComputedStyle(root).backgroundColor.match(/\\d+/g).map(Number);
        const ground = luminance(below);
        const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let most = 1;
        for (let i = 0; i < data.length; i += 4) {
            const own = luminance([0, 1, 2].map(c => below[c] + (data[i + c] - below[c]) * data[i + 3] / 255));
            most = Math.max(most, (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05));
        }
        return [canvas.getAttribute("aria-label") ?? canvas.className, most];
    }))"""

# What moves by itself, or would: animations, and times of transitions and scrolling that are not at once.
MOVES = """roots => roots.flatMap(root => [root, ...root.querySelectorAll("*")]
    .flatMap(node => ["", "::before", "::after"].map(part => [node, part]))
    .filter(([node, part]) => {
        const style = getComputedStyle(node, part);
        const lasts = times => times.split(",").some(time => parseFloat(time) > 0);
        return lasts(style.transitionDuration) || (lasts(style.animationDuration) && style.animationName !== "none")
            || style.scrollBehavior === "smooth";
    })
    .map(([node]) => node.className))
    .concat(document.getAnimations().map(animation => animation.effect?.target)
        .filter(node => roots.some(root => root.contains(node))).map(node => node.className))"""

# Text and controls that a narrow window would cut off or move out of reach, as `why: what`.
LOST = """roots => roots.flatMap(root => {
    const edge = document.documentElement.clientWidth;
    const scrolls = node => {
        for (let at = node.parentElement; at && at !== root.parentElement; at = at.parentElement)
            if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return true;
        return false;
    };
    const shown = node => node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
    const found = [];
    for (const node of root.querySelectorAll("button, select, input, textarea, summary, canvas, p, b, td, th, h3")) {
        if (!shown(node)) continue;
        const box = node.getBoundingClientRect();
        if (box.right > edge + 1 && !scrolls(node)) found.push(`beyond the edge: ${node.outerHTML.slice(0, 90)}`);
    }
    for (const node of [root, ...root.querySelectorAll("*:not([aria-hidden] *, [aria-hidden])")]) {
        const style = getComputedStyle(node);
        const cut = style.overflowX === "hidden" && node.scrollWidth > node.clientWidth + 1;
        if (shown(node) && cut && style.textOverflow !== "ellipsis" && node.clientWidth > 1)
            found.push(`cut off: ${node.outerHTML.slice(0, 90)}`);
    }
    return found;
})"""


@pytest.fixture(scope="module")
def page_of_all(tiny: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    views = paged_views(tiny)
    shown_in_kernels_only = {"ReviewDesk"}
    assert set(widgets.__all__) - shown_in_kernels_only == set(views), "a view is missing here"
    return export_page(list(views.values()), tmp_path_factory.mktemp("access") / "page.html")


@pytest.fixture
def opened(browser: Browser, page_of_all: Path) -> Iterator[Any]:
    """Open the page with all views in a context of these options, drawn."""
    contexts = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1120, "height": 900}, "offline": True} | options)
        contexts.append(context)
        page = context.new_page()
        heard = Heard()
        heard.listen(context, page)
        page.goto(page_of_all.as_uri())
        page.locator(".moe-root").nth(len(widgets.__all__) - 2).wait_for(timeout=60_000)
        settle(page)
        assert heard.console_errors + heard.page_errors == []
        return page

    yield open_page
    for context in contexts:
        context.close()


def settle(page: Page) -> None:
    page.wait_for_timeout(700)


def serious(page: Page, within: list[str] | None = None, only: str = "") -> list[str]:
    """What axe finds serious or critical: rule, element, what to do. `only`: one rule, where the rest is alike."""
    context = {"include": [[selector] for selector in within]} if within else None
    options = {"resultTypes": ["violations"]} | ({"runOnly": [only]} if only else {})
    return [
        f"{rule['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for rule in Axe().run(page, context=context, options=options).response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def test_axe_finds_nothing_serious_in_any_view_in_jupyterlab(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([MAKE, SHOW], height=1200)
    page = notebook.page
    expect(page.locator(".moe-root, .moe-live")).to_have_count(notebook.evaluate("len(views)"), timeout=60_000)
    page.emulate_media(reduced_motion="reduce")
    for theme, only in (("light", ""), ("dark", "color-contrast")):
        notebook.set_theme(theme)
        expect(page.locator(f'.moe-root[data-theme="{theme}"]')).to_have_count(notebook.evaluate("len(views) - 1"))
        settle(page)  # JupyterLab covers the page while it changes its theme
        assert serious(page, OURS, only) == []
    assert page.locator(", ".join(OURS)).evaluate_all(MOVES) == []
    assert notebook.heard.console_errors == []


def test_axe_finds_nothing_serious_in_a_page(opened: Any) -> None:
    """On the whole page: all of it is ours. Between looks only colours differ."""
    page = opened(**LOOKS["light"])
    assert serious(page) == []
    for look in ("dark", "more", "forced"):
        page.emulate_media(**LOOKS_OFF | LOOKS[look])
        settle(page)
        assert serious(page, only="color-contrast") == [], look
    page.emulate_media(**LOOKS_OFF | LOOKS["light"])
    page.get_by_role("button", name="Text and figures").click()
    page.locator("#page-views").evaluate("node => node.remove()")
    assert serious(page) == []


def test_canvases_follow_contrast_and_forced_colours_as_they_change(opened: Any) -> None:
    """Style sheets get forced colours from the browser; a canvas keeps what was painted on it, unless told."""
    page = opened(**LOOKS["light"])
    roots = page.locator(".moe-root")
    seen = {}
    for look in ("light", "more", "forced"):
        page.emulate_media(**LOOKS_OFF | LOOKS[look])
        settle(page)
        wanted = 3 if look == "light" else 7  # WCAG 2.2: 1.4.11 of graphics, 1.4.6 where more is asked for
        faint = [label for label, ratio in roots.evaluate_all(CONTRASTS) if ratio < wanted]
        assert faint == [], f"{look}: nothing in these is readable"
        seen[look] = roots.evaluate_all(DRAWN)
    assert len(seen["light"]) >= 20
    same = [before[0] for before, after in zip(seen["light"], seen["forced"], strict=True) if before == after]
    assert same == [], "these kept the colours of light"
    assert opened(**LOOKS["forced"]).locator(".moe-root").evaluate_all(DRAWN) == seen["forced"]


def test_focus_is_seen_in_forced_colours(opened: Any) -> None:
    page = opened(**LOOKS["forced"])
    found = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        found.add(
            page.evaluate(
                """() => {
                    const {outlineStyle, outlineWidth, outlineColor} = getComputedStyle(document.activeElement);
                    return [outlineStyle !== "none" && parseFloat(outlineWidth) >= 1, outlineColor].join(" ");
                }"""
            )
        )
    assert all(one.startswith("true") for one in found), found
    assert not any(one.endswith("rgb(0, 0, 0)") for one in found), "black on black"


def test_at_200_percent_nothing_is_lost(opened: Any) -> None:
    """A window of 1440 × 900 at 200 % has 720 × 450 CSS pixels of two device pixels each (WCAG 2.2, 1.4.4)."""
    page = opened(viewport={"width": 720, "height": 450}, device_scale_factor=2)
    assert page.evaluate("document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator(".moe-root").evaluate_all(LOST) == []
    page.get_by_role("button", name="Text and figures").click()
    assert page.evaluate("document.scrollingElement.scrollWidth <= document.documentElement.clientWidth")


def test_nothing_moves_where_motion_is_not_wanted(opened: Any) -> None:
    page = opened(reduced_motion="reduce")
    assert page.locator(".moe-root").evaluate_all(MOVES) == []
    page.locator(".moe-root").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".moe-root").evaluate_all(MOVES) == []


def test_characters_without_a_font_are_told(browser: Browser, tmp_path: Path) -> None:
    """U+10FFFC is for private use: no font of any machine that runs this has it."""
    page = browser.new_context(offline=True).new_page()
    for name, token, words in (("lacking", " \U0010fffc", "1 character without a font here"), ("all", " é", None)):
        export_page(written_trace(["so", token], ["4"]), tmp_path / f"{name}.html")
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.locator(".moe-root[data-token]").wait_for()
        settle(page)
        badge = page.locator(".moe-badge").filter(has_text="without a font")
        if words is None:
            expect(badge).to_have_count(0)
        else:
            expect(badge).to_have_text(words)
            assert "U+10FFFC" in (badge.get_attribute("title") or "")
    page.context.close()

"""A picture of every view, saved by its keys: the right size, not blank, and nothing in it from elsewhere."""

import base64
import re
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hostile import PAYLOADS
from lab import SCREENSHOTS
from playwright.sync_api import Browser, Page
from test_compare import rollouts
from written_trace import written_trace

import widgets
import workbench as wb
from widgets.export_page import export_page
from workbench.analysis.faithfulness import FaithfulnessReport
from workbench.experiments.continuation import continue_from
from workbench.experiments.described import experiment_from


@pytest.fixture(scope="module")
def views(tiny: wb.Model) -> dict[str, Any]:
    """One view of every class that shows traces."""
    trace = wb.capture(tiny, "47 + 85 = ?", effort="high", temperature=0)
    other = wb.capture(tiny, "47 + 85 = ?", effort="low", temperature=0)
    made: dict[str, Any] = {
        "AttentionView": widgets.AttentionView(trace, layer=1),
        "ChainView": widgets.ChainView(trace, continue_from=partial(continue_from, tiny)),
        "EffortComparison": widgets.EffortComparison({"low": rollouts(2, "5", chain=3), "high": rollouts(2, "4")}),
        "ExpertCard": widgets.ExpertCard(trace, layer=1, expert=3),
        "FaithfulnessReport": widgets.FaithfulnessReport(FaithfulnessReport()),
        "InterventionBench": widgets.InterventionBench(trace, run=partial(experiment_from, tiny)),
        "LoadCurve": widgets.LoadCurve(trace),
        "RouterMap": widgets.RouterMap(trace),
        "RoutingPaths": widgets.RoutingPaths(trace),
        "TraceDiff": widgets.TraceDiff(trace, other),
        "TraceExplorer": widgets.TraceExplorer(trace, token=60, color_by="entropy"),
    }
    if chain_editor := getattr(widgets, "ChainEditor", None):
        made["ChainEditor"] = chain_editor(trace, run=partial(continue_from, tiny))
    return made


def test_every_view_of_traces_is_here(views: dict[str, Any]) -> None:
    without_a_trace = {"Prediction", "ReviewDesk"}
    assert {name for name in widgets.__all__ if name[0].isupper()} - without_a_trace <= views.keys()


def test_a_picture_of_every_view(views: dict[str, Any], browser: Browser, tmp_path: Path) -> None:
    export_page(list(views.values()), tmp_path / "page.html")
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    roots = page.locator(".moe-root")
    page.locator(".moe-root").nth(len(views) - 1).wait_for()
    assert roots.count() == len(views)
    page.wait_for_timeout(1500)
    for at, name in enumerate(views):
        root = roots.nth(at)
        root.evaluate("node => node.focus()")
        box = root.bounding_box()
        assert box is not None
        png = saved(page, "Shift+P", tmp_path / f"{name}.png")
        height, width, colours = colours_of(page, png.read_bytes())
        assert (height, width) == (2 * int(np.ceil(box["height"])), 2 * int(np.ceil(box["width"]))), name
        assert colours > 24, f"{name} is blank"
        check_svg(saved(page, "Shift+S", tmp_path / f"{name}.svg"), name, box)
    context.close()


def saved(page: Page, keys: str, path: Path) -> Path:
    with page.expect_download(timeout=60_000) as download:
        page.keyboard.press(keys)
    assert download.value.suggested_filename.endswith(path.suffix)
    download.value.save_as(path)
    (SCREENSHOTS / "pictures").mkdir(parents=True, exist_ok=True)
    (SCREENSHOTS / "pictures" / path.name).write_bytes(path.read_bytes())
    return path


def check_svg(path: Path, name: str, box: Any) -> None:
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height")) == (
        str(int(np.ceil(box["width"]))),
        str(int(np.ceil(box["height"]))),
    )
    assert len("".join(root.itertext())) > 500, name
    assert not list(root.iter("{http://www.w3.org/1999/xhtml}canvas")), "a canvas is blank in a file"
    for image in root.iter("{http://www.w3.org/1999/xhtml}img"):
        assert (image.get("src") or "").startswith("data:image/png;base64,"), name
    assert not list(root.iter("{http://www.w3.org/1999/xhtml}script"))
    assert not re.search(r"url\((?!#)", text), "refers to something outside"


def test_a_picture_of_hostile_text_is_well_formed(browser: Browser, tmp_path: Path) -> None:
    trace = written_trace([*PAYLOADS, "\x00\x1b\ufffe"], [PAYLOADS[0]], prompt=["\ufffd"])
    export_page(trace, tmp_path / "page.html")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".moe-root[data-token]").focus()
    path = saved(page, "Shift+S", tmp_path / "hostile.svg")
    assert "<script>window.__hit=1</script>" in "".join(ElementTree.parse(path).getroot().itertext())
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    assert page.evaluate("window.__hit") is None
    page.goto((tmp_path / "page.html").as_uri())
    page.locator(".moe-root[data-token]").press("?")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert colours_of(page, Path(download.value.path()).read_bytes())[2] > 24
    context.close()


def colours_of(page: Page, png: bytes) -> tuple[int, int, int]:
    """Return height, width and the number of colours of a PNG, as the browser reads it."""
    found: list[int] = page.evaluate(
        """async data => {
            const image = new Image();
            image.src = `data:image/png;base64,${data}`;
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const ctx = canvas.getContext("2d");
            ctx.drawImage(image, 0, 0);
            const pixels = new Uint32Array(ctx.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
            return [canvas.height, canvas.width, new Set(pixels).size];
        }""",
        base64.b64encode(png).decode(),
    )
    height, width, colours = found
    return height, width, colours

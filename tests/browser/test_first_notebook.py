"""Notebook 01 as a person sees it: Run All in JupyterLab, then the keys."""

from pathlib import Path

from lab import OpenNotebook
from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_first_trace.ipynb"


def test_run_all_and_step(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(NOTEBOOK, height=1200)
    page = notebook.page
    expect(page.locator(".moe-live")).to_have_count(1)
    explorers = page.locator(".moe-root")
    expect(explorers).to_have_count(3, timeout=60_000)
    expect(page.locator(".js-plotly-plot")).to_have_count(1, timeout=60_000)
    token = notebook.evaluate("explorer.token")
    explorers.first.scroll_into_view_if_needed()
    explorers.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(explorers.first.locator(".moe-status-line")).to_contain_text(f"token {token + 2} of")
    page.wait_for_timeout(500)
    assert notebook.evaluate("explorer.token") == token + 2
    notebook.screenshot("notebook_01_explorer")
    for _ in range(4):  # cells get their height as they come into view, which moves what lies below
        explorers.nth(2).evaluate("root => root.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(700)
    expect(explorers.nth(2)).to_be_in_viewport()
    notebook.screenshot("notebook_01_side_by_side")
    left, right = (explorers.nth(i).bounding_box() for i in (1, 2))
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    notebook.set_theme("dark")
    page.locator(".js-plotly-plot").scroll_into_view_if_needed()
    notebook.screenshot("notebook_01_load_dark")
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []

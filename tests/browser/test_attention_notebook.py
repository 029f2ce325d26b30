"""Notebook 03 as a person sees it: Run All in JupyterLab, and both views of the trace are at one selection."""

from pathlib import Path

from lab import OpenNotebook
from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_attention.ipynb"


def test_run_all_and_both_views_are_at_one_selection(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(NOTEBOOK, height=1400)
    views = notebook.page.locator(".moe-attention")
    expect(views).to_have_count(2, timeout=60_000)
    first, layer, head = notebook.evaluate("[first, layer, head]")
    for index in range(2):  # the second view was asked for a token, and the first went along
        at = f'[data-token="{first}"][data-layer="{layer}"][data-head="{head}"]'
        views.nth(index).and_(notebook.page.locator(at)).wait_for(timeout=20_000)
        views.nth(index).scroll_into_view_if_needed()
        expect(views.nth(index).locator(".moe-attention-map")).to_have_attribute("data-state", "here", timeout=20_000)
        notebook.screenshot(f"notebook_03_{index}", of=views.nth(index))
    views.nth(1).focus()
    notebook.page.keyboard.press("ArrowLeft")
    notebook.page.keyboard.press("]" if head < 7 else "[")
    views.nth(0).and_(notebook.page.locator(f'[data-token="{first - 1}"]')).wait_for(timeout=20_000)
    notebook.page.wait_for_timeout(300)
    assert notebook.evaluate("[view.token, view.head]") == [first - 1, head + 1 if head < 7 else head - 1]
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []

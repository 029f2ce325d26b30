"""Notebook 02 as a person sees it: Run All in JupyterLab, then the map and the card move together."""

from pathlib import Path

from lab import OpenNotebook
from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_routing.ipynb"


def test_run_all_and_the_views_share_a_selection(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(NOTEBOOK, height=1400)
    page = notebook.page
    views = page.locator(".moe-root")
    expect(views).to_have_count(7, timeout=60_000)
    layer, expert = notebook.evaluate("[card.layer, card.expert]")
    card = page.locator(".moe-root:has(> .moe-expert)").first
    card.scroll_into_view_if_needed()
    expect(card.locator(".moe-expert-name")).to_have_text(f"Layer {layer}, expert {expert}")
    chosen = notebook.evaluate(
        f"int(sum((np.asarray(t.expert_indices)[t.num_prompt_tokens:, {layer}] == {expert}).sum() for t in high))"
    )
    total = notebook.evaluate("tokens.num_tokens")
    expect(card.locator(".moe-expert-facts")).to_contain_text(f"chosen at {chosen} of {total} tokens")
    card.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("]")
    moved = [min(layer + 1, 3), min(expert + 1, 7)]
    expect(card.locator(".moe-expert-name")).to_have_text(f"Layer {moved[0]}, expert {moved[1]}")
    # The map above shows the same traces, so it shows the same expert.
    expect(views.first.locator(".moe-expert-name")).to_have_text(f"Layer {moved[0]}, expert {moved[1]}")
    page.wait_for_timeout(300)
    assert notebook.evaluate("[card.layer, card.expert]") == moved
    for index in range(7):
        views.nth(index).scroll_into_view_if_needed()
        page.wait_for_timeout(300)
        notebook.screenshot(f"notebook_02_{index}", of=views.nth(index))
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []

"""EffortComparison in a real JupyterLab: picking rollouts, linked scrolling, and the analysis's numbers."""

import re

import pytest
from lab import OpenNotebook
from playwright.sync_api import Locator
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious

IMPORT = f"{SYNTHETIC}\nfrom widgets import EffortComparison, TraceExplorer"
RUNS = """
import torch; torch.set_num_threads(1)
import workbench as wb
runs = wb.compare_efforts(wb.load("tiny"), "91+40+98+66=? hint: 249", samples=6)
"""


class Efforts(View):
    """One comparison on the page."""

    def column(self, index: int) -> Locator:
        return self.root.locator(".moe-effort").nth(index)

    def chips(self, column: int) -> Locator:
        return self.column(column).locator(".moe-effort-chip")

    def scroller(self, column: int) -> Locator:
        return self.column(column).locator(".moe-transcript-scroll")

    def panel(self, name: str) -> Locator:
        return self.root.locator(f'[data-panel="{name}"] canvas')

    def label(self, name: str) -> str:
        self.page.wait_for_timeout(200)
        return self.panel(name).get_attribute("aria-label") or ""


def experts_cell(view: Efforts, pair: int, layer: int, expert: int) -> dict[str, float]:
    """Return the middle of a cell of the embedded model's 4 × 8 experts."""
    box = view.panel("experts").bounding_box()
    assert box is not None
    each = box["width"] / 3
    cell = min(34, (each - 24 - 30) / 8)
    return {"x": pair * each + 30 + (expert + 0.5) * cell, "y": 20 + (layer + 0.5) * 18}


def test_efforts_of_the_embedded_model(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([IMPORT, RUNS, "e = EffortComparison(runs, references='295'); e"], height=1300)
    view = Efforts(notebook)
    evaluate = notebook.evaluate
    view.expect(column=0, rollouts="0,0,0")
    outcomes = evaluate(
        "[[(o.answer, o.right, o.chain_tokens, o.completion_tokens) for o in g.outcomes] for g in e.comparison.groups]"
    )
    for c, found in enumerate(outcomes):
        assert view.chips(c).all_inner_texts() == [f"{'✓' if right else '×'} {answer}" for answer, right, *_ in found]
        head = view.column(c).locator(".moe-effort-head").inner_text()
        assert f"{found[0][3]} tokens, {found[0][2]} in analysis" in head
    assert view.label("length").startswith(f"low: {', '.join(str(o[2]) for o in outcomes[0])} tokens. medium: ")
    right = evaluate("[(g.accuracy.successes, g.accuracy.n) for g in e.comparison.groups]")
    names = ("low", "medium", "high")
    assert view.label("accuracy") == ". ".join(
        f"{name}: {s} of {n}" for name, (s, n) in zip(names, right, strict=True)
    )
    divergence = evaluate("e.comparison.pair('low', 'high').divergence.values.tolist()")
    for layer, value in enumerate(divergence):
        assert f"low – high, layer {layer}: {value:.4f} nats; chance below" in view.label("divergence")
    differ = evaluate("(abs(e.comparison.pairs[1].test.delta.values) > e.comparison.pairs[1].test.threshold).tolist()")
    cells = [f"layer {i} expert {j}" for i, row in enumerate(differ) for j, is_above in enumerate(row) if is_above]
    assert f"low − high: {', '.join(cells)}." in view.label("experts")
    claim = view.root.locator(".moe-claims tbody tr").nth(1).inner_text()
    assert f"{len(cells)} of 32 experts" in claim
    assert "n = 6 + 6 rollouts" in claim
    assert re.search(r"null of [\d,]+ labellings", claim)

    # Keys and mouse pick columns and rollouts.
    view.press("3", ".", ".", ",")
    view.expect(column=2, rollouts="0,0,1")
    pressed = view.chips(2).nth(1)
    assert pressed.get_attribute("aria-pressed") == "true"
    view.chips(1).nth(4).click()
    view.expect(column=1, rollouts="0,4,1")
    view.page.wait_for_timeout(200)
    assert evaluate("[e.column, e.rollouts]") == [1, [0, 4, 1]]
    assert evaluate("e._selection_key == __import__('widgets.selection').selection.selection_key([runs['medium'][4]])")
    assert "medium rollout 4 of 0–5" in view.status()
    notebook.execute("e.column = 2; e.rollouts = [1, 4, 5]")
    view.expect(column=2, rollouts="1,4,5")

    # A token is marked at the same place of the others' channel.
    first = evaluate("[m.content_start for m in runs['high'][5].messages if m.channel == 'analysis'][0]")
    view.press("Home", "ArrowRight", "ArrowRight", "ArrowRight")
    view.expect(token=first + 3)
    tokens = [int(t) for t in (view.root.get_attribute("data-tokens") or "").split(",")]
    lengths = evaluate(
        "[[(m.content_start, m.stop - 1 - m.content_start) for m in e._trace(c, r).messages"
        " if m.channel == 'analysis'][0] for c, r in enumerate(e.rollouts)]"
    )
    assert tokens == [round(start + 3 / lengths[2][1] * length) for start, length in lengths]
    surprisal = evaluate(f"-float(runs['high'][5].logprobs[{first + 3}])")
    assert f"surprisal {abs(surprisal):.2f} nats" in view.status()
    token = evaluate("[m.content_start for m in runs['medium'][4].messages if m.channel == 'analysis'][0] + 6")
    view.column(1).locator(f'[data-token="{token}"]').first.click()
    view.expect(column=1, token=token)

    # Everything drawn can be clicked.
    view.panel("experts").click(position=experts_cell(view, 1, 2, 5))  # type: ignore[arg-type]
    view.expect(layer=2, expert=5)
    delta, p = evaluate(
        "[float(t.values[2, 5]) for t in (e.comparison.pairs[1].test.delta, e.comparison.pairs[1].test.p_values)]"
    )
    title = view.panel("experts").get_attribute("title") or ""
    assert title.startswith(f"low − high, layer 2, expert 5: {delta:+.3f}".replace("-", "−"))
    assert float(title.rpartition("= ")[2]) == pytest.approx(p, rel=0.05)
    view.panel("accuracy").click(position={"x": 120, "y": 25})
    view.expect(column=0)
    view.page.wait_for_timeout(200)
    assert evaluate("[e.column, e.layer, e.expert]") == [0, 2, 5]

    # ⏎ opens the chosen rollout, which shares its token.
    view.press("3", "Enter")
    explorer = View(notebook, 1)
    explorer.press("ArrowRight", "ArrowRight")
    view.page.wait_for_timeout(300)
    assert evaluate("e.explorer.trace is runs['high'][5] and e.explorer.token == e.token")
    view.press("ArrowDown")
    explorer.expect(layer=3)
    view.press("?")
    view.root.get_by_role("dialog").wait_for()
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 3
    view.press("Escape")
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        view.expect(theme=theme)
        view.page.wait_for_timeout(300)
        notebook.screenshot(f"effort_comparison_{theme}", of=view.root)
    assert notebook.heard.page_errors == []


WRITTEN = f"""
from written_trace import written_trace
from test_compare import routed
evil = '<img src=x onerror=window.hacked=4>'
def some(n, length, answer, **more):
    text = [*{HOSTILE!r}, *[f'word{{i % 7}} ' for i in range(length)]]
    text = [t.encode('utf-8', 'surrogateescape') for t in text]
    return [written_trace(text, [answer], experts=routed(s), prompt=[evil], **more) for s in range(n)]
bare = written_trace(['so ', evil, ' ', 'x'] * 40, None, prompt=[evil])
groups = {{'short': some(3, 150, '4') + some(1, 3, '4', truncated='cut at 9 tokens'), evil: some(2, 900, evil)}}
groups['bare'] = [bare]
"""


def test_hostile_texts_linked_scrolling_and_what_is_missing(lab_notebook: OpenNotebook) -> None:
    cells = [f"{IMPORT}\n{WRITTEN}", "e = EffortComparison(groups, preload_bytes=0); e"]
    notebook = lab_notebook(cells, height=1300)
    view = Efforts(notebook)
    page = notebook.page
    view.expect(column=0)
    assert view.root.locator(".moe-question").inner_text() == "<img src=x onerror=window.hacked=4>"
    assert view.column(1).locator(".moe-effort-name").inner_text() == "<img src=x onerror=window.hacked=4>"
    assert view.chips(0).all_inner_texts() == ["4", "4", "4", "✂ cut"]
    assert view.chips(2).all_inner_texts() == ["– none"]
    assert view.label("accuracy").startswith("short: no references. ")
    assert "not tested: needs at least 6 rollouts a side, got 3 and 2" in view.label("experts")
    assert "the experts of both were not measured" in view.label("experts")
    assert "✂ 1 cut: at least that long" in view.root.locator('[data-panel="length"]').inner_text()
    view.root.locator("summary").click()
    assert "bare: experts, as expert_indices were not captured" in view.root.locator(".moe-claims").inner_text()
    view.root.locator("summary").click()

    # A rollout whose text was not sent comes when it is picked.
    view.chips(0).nth(3).click()
    view.expect(rollouts="3,0,0")
    view.column(0).get_by_text("word1").first.wait_for()
    assert "rollout 3: cut at 9 tokens: not scored" in (view.chips(0).nth(3).get_attribute("title") or "")
    view.chips(0).nth(0).click()
    view.expect(rollouts="0,0,0")

    # Scrolling one column scrolls the others as far along.
    scrolled = "e => e.scrollTop / (e.scrollHeight - e.clientHeight)"
    view.scroller(0).evaluate("e => { e.scrollTop = 0.5 * (e.scrollHeight - e.clientHeight) }")
    page.wait_for_timeout(300)
    assert view.scroller(1).evaluate(scrolled) == pytest.approx(0.5, abs=0.01)
    view.scroller(1).hover()
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(300)
    share = view.scroller(1).evaluate(scrolled)
    assert share > 0.51
    assert view.scroller(0).evaluate(scrolled) == pytest.approx(share, abs=0.01)
    view.press("End")
    page.wait_for_timeout(400)
    for column in (0, 1):
        assert view.column(column).locator(".moe-current").count() == 1
        box, inside = view.column(column).locator(".moe-current").bounding_box(), view.scroller(column).bounding_box()
        assert box is not None
        assert inside is not None
        assert inside["y"] <= box["y"] <= inside["y"] + inside["height"]

    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        view.expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(view)
        notebook.screenshot(f"effort_comparison_missing_{theme}", of=view.root)
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 1300})
        page.wait_for_timeout(500)
        view.root.scroll_into_view_if_needed()
        notebook.screenshot(f"effort_comparison_{width}", of=view.root)
        assert view.root.evaluate("e => e.scrollWidth <= e.clientWidth + 1")

    # Without a kernel what is here goes on, and what is not says so.
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()")
    view.press("2", "Home", "ArrowRight")
    view.expect(column=1)
    assert page.evaluate("window.hacked") is None
    assert view.root.locator("script, img").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

"""TraceDiff in a real JupyterLab: one selection through two traces, linked scrolling, and the analysis's numbers."""

import pytest
from lab import OpenNotebook
from playwright.sync_api import Locator
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious

IMPORT = f"{SYNTHETIC}\nfrom widgets import TraceDiff, TraceExplorer"
CAPTURE = """
import torch; torch.set_num_threads(1)
import workbench as wb
model = wb.load("tiny")
a, b = (wb.capture(model, "47+85=?", effort=effort, temperature=0) for effort in ("medium", "high"))
"""


class Diff(View):
    """One comparison on the page."""

    def side(self, index: int) -> Locator:
        return self.root.locator(".moe-diff-side").nth(index)

    def scroller(self, index: int) -> Locator:
        return self.side(index).locator(".moe-transcript-scroll")

    def current(self, index: int) -> Locator:
        return self.side(index).locator(".moe-current")

    def layer(self, index: int) -> list[str]:
        """Return the cells of a layer: experts of a, of b, how many both chose, near-tie."""
        return self.root.locator(".moe-diff-layers tbody tr").nth(index).locator("td").all_inner_texts()

    def words(self) -> str:
        return self.root.locator(".moe-diff-context").inner_text()


def plain(cell: str) -> list[int]:
    return [int(expert.rstrip("′")) for expert in cell.split()]


def test_two_efforts_and_their_explorers(lab_notebook: OpenNotebook) -> None:
    cells = [IMPORT, CAPTURE, "d = TraceDiff(a, b); d", "x = TraceExplorer(a); x", "y = TraceExplorer(b); y"]
    notebook = lab_notebook(cells, height=1300)
    evaluate, page = notebook.evaluate, notebook.page
    diff, x, y = Diff(notebook), View(notebook, 1), View(notebook, 2)
    rows = evaluate("d.difference.alignment.rows.tolist()")
    same = evaluate("d.difference.alignment.same.tolist()")
    parting = evaluate("d.difference.alignment.parting")
    diff.expect(row=parting)
    summary = diff.root.locator(".moe-diff-summary").inner_text()
    assert f"{sum(same)} of {len(same)} rows are the same token" in summary
    for part in evaluate(
        "[(p.phase, p.same_context, p.num_tokens, float(p.overlap.values.mean()))"
        " for p in d.difference.routing.overlaps]"
    ):
        where = "same context" if part[1] else "on different text"
        assert (
            f"{part[0]}, {where}: {part[3]:.2f} of the 2 experts alike, mean over 4 layers ({part[2]} tokens)"
            in summary
        )
    answers = evaluate("d.difference.answers")
    assert f"medium: {answers[0]} · high: {answers[1]} — " in summary

    # The prompt before the efforts differ: same token, same context, same experts.
    diff.press("Home", "ArrowRight")
    diff.expect(row=1, token=1, token_b=1)
    assert diff.words() == "same context: all before this token is the same"
    assert diff.layer(2)[2] == "2/2"
    x.expect(token=1)
    y.expect(token=1)

    # After it: every layer's experts, how many both chose, and near-ties.
    shared = evaluate("d.difference.routing.shared.values.tolist()")
    ties = evaluate("d.difference.routing.near_tie.values.tolist()")
    shared_tokens = evaluate("d.difference.alignment.num_shared")
    pair = next(i for i in range(shared_tokens, len(shared)) if min(shared[i]) < 2 and any(ties[i]))
    row = [i for i, is_same in enumerate(same) if is_same][pair]
    notebook.execute(f"d.row = {row}")
    diff.expect(row=row, token=rows[row][0], token_b=rows[row][1])
    assert diff.words() == "on different text: what came before this token differs"
    for layer in range(4):
        of_a, of_b, both, tie = diff.layer(layer)
        assert plain(of_a) == evaluate(f"a.expert_indices[{rows[row][0]}, {layer}].tolist()")
        assert plain(of_b) == evaluate(f"b.expert_indices[{rows[row][1]}, {layer}].tolist()")
        assert both == f"{shared[pair][layer]}/2"
        assert tie == ("≈" if ties[pair][layer] else "")
        assert ["′" in expert for expert in of_a.split()] == [e not in plain(of_b) for e in plain(of_a)]

    # p: where they part. ⇧: stretch by stretch. Rows that only one side has mark no token of the other.
    diff.press("p")
    diff.expect(row=parting)
    assert "experts are not compared" in diff.words()
    only = next(i for i in range(parting, len(rows)) if rows[i][0] < 0)
    notebook.execute(f"d.row = {only}")
    diff.expect(row=only)
    assert diff.current(0).count() == 0
    assert diff.current(1).count() == 1
    assert "medium no token" in diff.status()
    assert "only in high" in diff.status()
    diff.press("Shift+ArrowRight")
    nxt = next(i for i in range(only, len(rows)) if same[i] != same[only])
    diff.expect(row=nxt, token=rows[nxt][0], token_b=rows[nxt][1])
    assert (diff.current(0).count(), diff.current(1).count()) == (1, 1)

    # One selection: from either trace's explorer, by a click in either transcript, from Python.
    y.press("Home", "ArrowRight", "ArrowRight", "ArrowDown")
    diff.expect(row=2, token=2, layer=1)
    x.expect(token=2, layer=1)
    texts = evaluate("[b.token_text(i).strip() for i in range(len(b))]")
    seen = next(i for i in range(nxt, len(rows)) if same[i] and texts[rows[i][1]])
    token = rows[seen][1]
    diff.side(1).locator(f'[data-token="{token}"]').first.click()
    y.expect(token=token)
    x.expect(token=rows[seen][0])
    notebook.execute("d.token = 3")
    diff.expect(row=3, token=3)
    y.expect(token=3)
    page.wait_for_timeout(200)
    assert evaluate("[d.row, d.token, d.token_b, x.token, y.token]") == [3] * 5

    # Everything drawn can be clicked.
    overview, strip = diff.root.locator(".moe-diff-drawn canvas").all()
    box = strip.bounding_box()
    assert box is not None
    strip.click(position={"x": 64 + 5.5 * 40, "y": 48 + 2.5 * 15})
    diff.expect(row=5, layer=2)
    title = strip.get_attribute("title") or ""
    assert "same token, same context; layer 2: 2 of 2 experts alike" in title
    overview.click(position={"x": box["width"] - 2, "y": 13})
    diff.expect(row=len(rows) - 1)
    diff.root.locator(".moe-diff-layers tbody tr").nth(3).click()
    diff.expect(layer=3)
    diff.press("?")
    diff.root.get_by_role("dialog").wait_for()
    diff.press("Escape", "p")
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        diff.expect(theme=theme)
        page.wait_for_timeout(300)
        notebook.screenshot(f"trace_diff_{theme}", of=diff.root)
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 5
    assert notebook.heard.page_errors == []


WRITTEN = f"""
from written_trace import written_trace
from test_compare import routed
evil = '<img src=x onerror=window.hacked=4>'
def some(changed, **more):
    text = [*{HOSTILE!r}, *[f'word{{i % 7}} ' for i in range(300)], *changed, *[f'more{{i % 5}} ' for i in range(300)]]
    return written_trace([t.encode('utf-8', 'surrogateescape') for t in text], [evil], prompt=[evil], **more)
a = some([evil] * 40, experts=routed(1), effort=evil)
b = some(['z '] * 4, truncated='cut at 900 tokens', effort='after')
"""


def test_hostile_texts_linked_scrolling_and_no_router(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([f"{IMPORT}\n{WRITTEN}", "d = TraceDiff(a, b); d"], height=1200)
    diff = Diff(notebook)
    page = notebook.page
    parting = notebook.evaluate("d.difference.alignment.parting")
    diff.expect(row=parting)
    assert diff.root.locator(".moe-question").inner_text() == "<img src=x onerror=window.hacked=4>"
    assert "<img src=x onerror=window.hacked=4> 7 + " in diff.side(0).locator(".moe-diff-name").inner_text()
    assert "✂ cut at 900 tokens" in diff.side(1).locator(".moe-diff-name").inner_text()
    assert diff.words() == "experts: the router was not captured in b"
    assert diff.layer(1)[1:] == ["not captured", "–", ""]
    assert len(diff.layer(1)[0].split()) == 2
    assert "— the same" in diff.root.locator(".moe-diff-summary").inner_text()

    # Scrolling one side brings the same row of the other to the same height.
    token = notebook.evaluate("next(i for i in range(d.row, len(a)) if a.token_text(i) == 'more0 ') + 150")
    other = notebook.evaluate(
        f"int(d.difference.alignment.pairs[d.difference.alignment.pairs[:, 0] == {token}][0, 1])"
    )
    place = "n.getBoundingClientRect().top - e.getBoundingClientRect().top"
    top = f"(e, t) => {{ const n = e.querySelector(`[data-token='${{t}}']`); return {place} }}"
    diff.scroller(0).evaluate(f"(e, t) => {{ e.scrollTop += ({top})(e, t) - 40 }}", token)
    page.wait_for_timeout(400)
    assert diff.scroller(1).evaluate(top, other) == pytest.approx(diff.scroller(0).evaluate(top, token), abs=30)
    before = diff.scroller(0).evaluate("e => e.scrollTop")
    diff.scroller(1).hover()
    page.mouse.wheel(0, -200)
    page.wait_for_timeout(400)
    assert diff.scroller(0).evaluate("e => e.scrollTop") < before - 100
    assert diff.scroller(1).evaluate(top, other) == pytest.approx(diff.scroller(0).evaluate(top, token), abs=30)

    diff.press("End")
    diff.expect(row=notebook.evaluate("len(d.difference.alignment.rows) - 1"))
    diff.press("p", *["ArrowRight"] * 6)
    diff.expect(row=parting + 6)
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        diff.expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(diff)
        notebook.screenshot(f"trace_diff_missing_{theme}", of=diff.root)
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 1200})
        page.wait_for_timeout(500)
        diff.root.scroll_into_view_if_needed()
        notebook.screenshot(f"trace_diff_{width}", of=diff.root)
        assert diff.root.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()")
    diff.press("Home", "ArrowRight", "ArrowDown")
    diff.expect(row=1, token=1, token_b=1, layer=1)
    assert page.evaluate("window.hacked") is None
    assert diff.root.locator("script, img").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

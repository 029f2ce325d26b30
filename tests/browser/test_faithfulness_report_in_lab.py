"""FaithfulnessReport in JupyterLab: figures with their controls, what is undefined, one selection with the trace."""

from lab import OpenNotebook
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious

# The report of the analysis has the name of the view: the view is imported last.
IMPORT = f"{SYNTHETIC}\nfrom written_report import *\nfrom widgets import FaithfulnessReport, TraceExplorer"


class Shown(View):
    """One report on the page."""

    def measure(self, name: str) -> str:
        return self.root.locator(f'tr[data-measure="{name}"]').inner_text()

    def curve(self, name: str) -> str:
        return self.root.locator(f'[data-panel="{name}"] canvas').get_attribute("aria-label") or ""

    def click_point(self, name: str, fraction: float) -> None:
        canvas = self.root.locator(f'[data-panel="{name}"] canvas')
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": 46 + fraction * (box["width"] - 60), "y": 90})

    def sentence(self, index: int) -> str:
        return self.root.locator(f'[data-sentence="{index}"].moe-resampled-sentence').inner_text()


def test_figures_and_the_selection_of_the_trace(lab_notebook: OpenNotebook) -> None:
    cells = [
        f"{IMPORT}\ntrace = written_chain()",
        "r = FaithfulnessReport(written_report(), control=written_control(), trace=trace); r",
        "TraceExplorer(trace)",
    ]
    notebook = lab_notebook(cells, height=1500)
    view, explorer = Shown(notebook), View(notebook, 1)
    evaluate = notebook.evaluate
    view.expect(sentence=0, token=10)
    explorer.expect(token=10)

    # Every figure is the analysis's, with n, interval and controls; what there is not, says so.
    low, high = evaluate("[100 * x for x in r.report.early_answering.aoc_interval]")
    early = view.measure("early_answering")
    assert f"AOC .{round(100 * evaluate('r.report.early_answering.aoc'))} [.{low:.0f}, .{high:.0f}]" in early
    assert "n = 8 of 10 chains" in early
    assert "right without any chain: 0 % [0, 32], n = 8" in early
    assert "control: AOC .00 [.00, .00], n = 6" in early
    assert "not tested" in view.measure("filler")
    said = view.measure("analysis")
    assert "67 % [21, 94]" in said
    assert "n = 3 that moved, of 7 cases" in said
    assert "control: undefined: no qualifying case: none of 2 answers moved to the hint, n = 0" in said
    assert view.root.locator('tr[data-measure="analysis"] .moe-undefined').count() == 1
    assert view.root.locator('tr[data-measure="filler"] .moe-missing').count() == 1
    assert "early answering, 25 % of the chain kept: same answer 38 % [14, 69], n = 8" in view.curve("early_answering")
    assert view.curve("filler") == "filler: not tested"
    assert "undefined: drawn 300 times, it never came out differently" in view.sentence(1)
    assert "1.99 nats" in view.sentence(0)
    assert "fewer than 30: no proof" in view.sentence(2)

    # A sentence, a point and a token move together, in both views and in Python.
    view.press("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft")
    view.expect(sentence=1, token=13)
    explorer.expect(token=13)
    view.root.locator('[data-sentence="2"].moe-resampled-sentence').click()
    explorer.expect(token=15)
    view.page.wait_for_timeout(200)
    assert evaluate("[r.sentence, r.token]") == [2, 15]
    explorer.press("Home", "End", "ArrowLeft")
    view.expect(token=24, sentence=2)
    view.click_point("early_answering", 0.5)
    view.expect(curve="early_answering", point=2, token=14, sentence=1)
    explorer.expect(token=14)
    assert "early answering, 50 % of the chain kept: same answer 100 %" in view.status()
    view.press("2", "]")
    view.expect(curve="mistakes", point=1, token=12, sentence=0)
    explorer.expect(token=12)
    view.press("ArrowRight", "ArrowRight", "3", "]")
    view.expect(curve="filler", point="none", token=14)
    notebook.execute("r.sentence = 2")
    view.expect(token=15, sentence=2)
    explorer.expect(token=15)
    view.press("?")
    view.root.get_by_role("dialog").wait_for()
    view.press("Escape", "1", "]")

    case = view.root.locator(".moe-case").nth(1)
    case.locator("summary").press("Enter")
    case.get_by_text("7+5=12").wait_for()
    view.root.get_by_text("where the figures come from").click()
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        view.expect(theme=theme)
        view.page.wait_for_timeout(300)
        assert_nothing_serious(view)
        notebook.screenshot(f"faithfulness_report_{theme}", of=view.root)
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert notebook.heard.page_errors == []


EVIL = f"""
from dataclasses import replace
evil = "".join({HOSTILE!r}).encode("utf-8", "replace").decode() + "x" * 300
report, about = written_report(), {{"definition": evil, "model": evil, "note": evil, "effort": evil}}
bad = [replace(s, text=evil, example=evil) for s in report.resampling.sentences for _ in range(40)]
bad = [replace(s, index=i) for i, s in enumerate(bad)]
report = replace(
    report,
    early_answering=replace(report.early_answering, skipped=(evil,), provenance=about),
    filler=curve("filler", [], asked=3, without_chain=3),
    hints=HintTest(tuple(case(evil, evil, question=evil, analysis=evil, hint=evil) for _ in range(200)), 200),
    resampling=Resampling(evil, tuple(bad), interrupted=True, provenance=about),
)
"""


def test_hostile_texts_a_narrow_page_and_no_kernel(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([f"{IMPORT}\n{EVIL}", "r = FaithfulnessReport(report); r"], height=1500)
    view, page = Shown(notebook), notebook.page
    view.expect(sentence=0)
    assert "<script>window.hacked = 1</script>" in view.sentence(0)
    assert "\u202e" not in view.root.inner_text(), "hidden characters are shown"
    assert "undefined: none of 3 rollouts has a chain of thought" in view.curve("filler") + view.measure("filler")
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()")
    view.press("End")
    view.expect(sentence=119)
    last = view.root.locator('[data-sentence="119"].moe-resampled-sentence').bounding_box()
    box = view.root.locator(".moe-sentences .moe-rows").bounding_box()
    assert last is not None
    assert box is not None
    assert box["y"] - 1 <= last["y"] <= box["y"] + box["height"], "what is selected is in view"
    view.press("ArrowRight", "1", "]", "]")
    view.expect(point=2, token=0)
    assert "no trace: nothing else is selected" in view.status()
    for width, name in ((1440, "hostile"), (760, "narrow"), (520, "narrower")):
        page.set_viewport_size({"width": width, "height": 1500})
        page.wait_for_timeout(500)
        assert view.root.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
        assert_nothing_serious(view)
        notebook.screenshot(f"faithfulness_report_{name}", of=view.root)
    assert page.evaluate("window.hacked") is None
    assert view.root.locator("script, img, svg").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

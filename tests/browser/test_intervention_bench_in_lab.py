"""InterventionBench in a real JupyterLab: an experiment by mouse and one by keyboard, against the kernel's numbers."""

from typing import Any

import pytest
from lab import OpenNotebook
from playwright.sync_api import Locator
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious

CAPTURE = """
import torch; torch.set_num_threads(1)
from functools import partial
import workbench as wb
from widgets import InterventionBench, TraceExplorer
from workbench.experiments.described import experiment_from
model = wb.load("tiny")
trace = wb.capture(model, "47 + 85 + 39 = ?", effort="medium", temperature=0)
"""
PAIR = "v = InterventionBench(trace, run=partial(experiment_from, model)); v"


class Bench(View):
    """One bench on the page."""

    def field(self, name: str) -> Locator:
        return self.root.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def verdict(self) -> str:
        return self.root.locator(".moe-bench-verdict").inner_text()

    def text(self, side: int) -> str:
        return self.root.locator(".moe-bench-side").nth(side).locator(".moe-transcript-scroll").inner_text()

    def rows(self) -> list[list[str]]:
        """Return the cells of the experiment and its controls."""
        rows = self.root.locator(".moe-bench-controls tbody tr").all()
        return [row.locator("th, td").all_inner_texts() for row in rows]


def result(notebook: Any, at: int) -> dict[str, Any]:
    """Return an experiment as the kernel has it."""
    found: dict[str, Any] = notebook.evaluate(
        f"(lambda e: dict(kl=e.mean_kl, rank=e.rank, answer=e.answer, n=len(e.controls), all=e.rows(),"
        f" at=e.kl.values[1:].tolist(), text=e.trace.analysis_text))(v.experiments[{at}])"
    )
    return found


def test_an_experiment_by_mouse_and_one_by_keyboard(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, PAIR, "x = TraceExplorer(trace); x"], height=1300)
    bench, explorer, page = Bench(notebook), View(notebook, 1), notebook.page

    # By mouse: zero two experts, with controls, at all tokens.
    bench.field("Variant").select_option("zero contribution")
    bench.field("Experts or heads by layer").fill("0: 4, 6")
    bench.field("Controls").fill("3")
    bench.button("Run").click()
    bench.expect(shown=0, job="done")
    kernel = result(notebook, 0)
    said = bench.verdict()
    assert "zero contribution: experts 4 and 6 of layer 0, all tokens" in said
    assert f"answer {kernel['answer']} in place of 171" in said
    assert f"mean KL {kernel['kl']:.3f} nats over the 74 tokens" in said
    assert f"KL larger than {kernel['n'] + 1 - kernel['rank']} of {kernel['n']} load-matched controls" in said
    rows = bench.rows()
    expected = sorted((row["mean_kl"] for row in kernel["all"]), reverse=True)
    assert [float(row[1]) for row in rows] == pytest.approx(expected, abs=6e-4)
    assert rows[[row["control"] for row in sorted(kernel["all"], key=lambda r: -r["mean_kl"])].index(False)][0] == (
        "zero contribution: experts 4 and 6 of layer 0, all tokens"
    )
    assert notebook.evaluate("trace.analysis_text").strip() in bench.text(0)
    assert kernel["text"].strip() in bench.text(1)
    assert bench.root.locator(".moe-differs").count() > 3

    # KL along the axis: a click chooses a token, in the other views too, and the status has its number.
    axis = bench.root.locator(".moe-bench-result canvas")
    box = axis.bounding_box()
    assert box is not None
    token = 45
    axis.click(position={"x": 64 + (token + 0.5) / 75 * (box["width"] - 64), "y": 40})
    bench.expect(token=token)
    explorer.expect(token=token)
    kl = kernel["at"][token - 1]
    assert f"KL {kl:.3f}" in bench.status() or f"{kl:.1e}"[:3] in bench.status()

    # By keyboard: the shared selection's expert of a layer, added with a and run with r.
    bench.press("v")
    page.keyboard.press("Home")  # the first variant
    bench.field("Variant").select_option("route around")
    bench.field("Experts or heads by layer").fill("")
    notebook.execute("x.layer = 1; x.expert = 1")
    bench.expect(layer=1, expert=1)
    bench.press("ArrowUp", "]", "a", "ArrowDown", "r")
    bench.expect(shown=1, job="done", layer=1, expert=2)
    assert notebook.evaluate("v._history[1]['asked']") == [
        {"variant": "route around", "experts": {"0": [2]}, "tokens": "all"}
    ]
    second = result(notebook, 1)
    assert f"mean KL {second['kl']:.3f} nats" in bench.verdict()
    bench.press(",")
    bench.expect(shown=0)
    page.wait_for_function("t => document.querySelector('.moe-bench-verdict').innerText.includes(t)", arg="4 and 6")
    bench.field("Run experiment 2 again").click()
    bench.expect(shown=2, job="done")
    assert notebook.evaluate("v._history[2] == v._history[1]")

    # Reading the same tokens, heads, and what cannot be done.
    bench.field("Variant").select_option("suppress span")
    assert bench.field("Experts or heads by layer").input_value() == ""
    bench.button("read the same tokens").click()
    bench.field("Experts or heads by layer").fill("2: all")
    bench.field("At which tokens").fill("17–34")
    bench.field("Controls").fill("0")
    bench.field("Controls").press("Enter")
    bench.expect(shown=3, job="done")
    assert "suppress span: all heads of layer 2, tokens 17–33" in bench.verdict()
    assert "no controls: an effect without one says nothing of what was changed" in bench.verdict()
    bench.field("Experts or heads by layer").fill("9: all")
    bench.button("Run").click()
    assert "expected a layer below 4, got “9”" in bench.root.get_by_role("alert").all_inner_texts()[0]
    bench.field("Experts or heads by layer").fill("2: all")
    bench.field("Controls").fill("2")
    bench.button("Run").click()
    bench.expect(job="failed")
    assert notebook.evaluate("v._job['words']") in bench.root.locator(".moe-bench-failed").inner_text()
    assert notebook.evaluate("len(v.experiments)") == 4
    bench.root.locator(".moe-bench-list .moe-chip").first.click()
    bench.expect(shown=0)
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        bench.expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(bench)
        notebook.screenshot(f"intervention_bench_{theme}", of=bench.root)
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert notebook.heard.page_errors == []


WRITTEN = f"""
from dataclasses import replace
from written_trace import written_trace
evil = '<img src=x onerror=window.hacked=4>'
w = written_trace([t.encode('utf-8', 'surrogateescape') for t in {HOSTILE!r}], [evil], prompt=[evil])
row = dict(done=[dict(variant=evil, experts={{evil: [evil]}}, tokens=evil)], changed=1, meanKl=None, answer=evil)
row |= dict(keepsAnswer=False, keepsChain=None, matches=[])
record = row | dict(asked=[dict(variant=evil)], generate=True, controls=1, first=0, compared=0, generated=True)
record |= dict(before=evil, rank=1, unmatched=0, kind=evil, controlRows=[row])
saved = replace(w, meta={{**w.meta, 'question': evil, 'experiments': [record]}})
def failing(*args, **options): raise ValueError(evil)
v = InterventionBench(saved, run=failing); v
"""


def test_hostile_text_and_what_was_saved(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([f"{SYNTHETIC}\nfrom widgets import InterventionBench", WRITTEN], height=900)
    bench, page = Bench(notebook), notebook.page
    evil = "<img src=x onerror=window.hacked=4>"
    bench.root.locator(".moe-bench-list .moe-chip").first.click()
    bench.expect(shown=0)
    assert f"answer {evil} in place of {evil}" in bench.verdict()
    assert "KL undefined" in bench.verdict()
    assert "numbers only; run it again to read the transcript" in bench.root.inner_text()
    assert bench.root.locator(".moe-bench-controls .moe-undefined").count() == 2
    bench.field("Run experiment 1 again").click()
    bench.expect(job="failed")
    assert f"not done: {evil}" in bench.root.locator(".moe-bench-failed").inner_text()
    assert page.evaluate("window.hacked") is None
    assert bench.root.locator("script, img").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

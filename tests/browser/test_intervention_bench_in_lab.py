"""InterventionBench in a real JupyterLab: experiments by mouse and by keyboard alone, against the kernel's numbers."""

import json
import os
import re
from typing import Any

import pytest
from lab import OpenNotebook
from playwright.sync_api import Locator
from test_explorer_in_lab import HOSTILE, MEASURE, PERFORMANCE, SYNTHETIC, View, assert_nothing_serious, step_times

CAPTURE = """
import torch; torch.set_num_threads(1)
from functools import partial
import workbench as wb
from widgets import InterventionBench, TraceExplorer
from workbench.experiments.described import experiment_from
model = wb.load("tiny")
trace = wb.capture(model, "47 + 85 + 39 = ?", effort="medium", temperature=0)
spec = wb.CaptureSpec(lens=False, residual=[0, 2])
other = wb.capture(model, "47 + 85 + 36 = ?", effort="medium", temperature=0, capture=spec)
given = dict(vectors={"ramp": [i % 7 - 3.0 for i in range(model.d_model)]}, sources={"other sum": other})
"""
SHOW = "v = InterventionBench(trace, run=partial(experiment_from, model), **given); v"


class Bench(View):
    """One bench on the page."""

    def field(self, name: str) -> Locator:
        return self.root.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def verdict(self) -> str:
        return self.root.locator(".moe-bench-verdict").inner_text()

    def text(self, side: int) -> str:
        return self.side(side).inner_text()

    def side(self, side: int) -> Locator:
        return self.root.locator(".moe-bench-side").nth(side).locator(".moe-transcript-scroll")

    def map(self, kind: str) -> Locator:
        return self.root.locator(f'.moe-bench-picker[data-kind="{kind}"] .moe-bench-grid')

    def pick(self, kind: str, layer: int, one: int) -> None:
        """Click the cell of an expert or a head of the embedded model, which has 8 of each in 4 layers."""
        box = self.map(kind).locator("canvas").bounding_box()
        assert box is not None
        wide, tall = (box["width"] - 1) / 8, (box["height"] - 24) / 4
        at = {"x": (one + 0.5) * wide, "y": 24 + (layer + 0.5) * tall}
        self.map(kind).locator("canvas").click(position=at)

    def said(self, kind: str) -> str:
        return self.map(kind).get_attribute("aria-label") or ""

    def picks(self) -> str:
        return self.field("Experts or heads by layer").input_value()

    def problem(self) -> str:
        return self.root.locator(".moe-bench-form [role=alert]").inner_text()

    def rows(self) -> list[list[str]]:
        """Return the cells of the experiment and its controls."""
        rows = self.root.locator(".moe-bench-controls tbody tr").all()
        return [row.locator("th, td").all_inner_texts() for row in rows]


def nats(kl: float) -> str:
    """Return a KL as the bench writes it."""
    return f"{kl:.1e}".replace("e-0", "e-") if 0 < kl < 0.01 else f"{kl:.3f}"


def result(notebook: Any, at: int) -> dict[str, Any]:
    """Return an experiment as the kernel has it."""
    found: dict[str, Any] = notebook.evaluate(
        f"(lambda e: dict(kl=e.mean_kl, rank=e.rank, answer=e.answer, n=len(e.controls), all=e.rows(),"
        f" at=e.kl.values[1:].tolist(), text=e.trace.analysis_text))(v.experiments[{at}])"
    )
    return found


def test_experiments_by_mouse(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, SHOW, "x = TraceExplorer(trace); x"], height=1500)
    bench, explorer, page = Bench(notebook), View(notebook, 1), notebook.page

    # Two experts from the map, zeroed in the analysis.
    bench.field("Variant").select_option("zero contribution")
    bench.field("At which tokens").fill("analysis")
    bench.pick("experts", 0, 4)
    explorer.expect(layer=0, expert=4)
    bench.pick("experts", 0, 6)
    bench.pick("experts", 1, 6)
    assert bench.picks() == "0: 4, 6; 1: 6"
    bench.pick("experts", 1, 6)
    assert bench.picks() == "0: 4, 6"
    bench.pick("experts", 0, 6)
    bench.pick("experts", 0, 6)
    load = notebook.evaluate(
        "(lambda rows: float((trace.expert_indices[rows, 0] == 6).mean()))"
        "([i for m in trace.messages if m.channel == 'analysis' for i in range(m.content_start, m.stop - 1)])"
    )
    page.wait_for_function(
        "t => document.querySelector('.moe-bench-grid').ariaLabel.includes(t)",
        arg=f"load {load:.2f}".replace("0.", "."),
    )
    assert bench.said("experts").startswith("expert 6 of layer 0: load ")
    assert ", picked;" in bench.said("experts")
    bench.field("Controls").fill("3")
    bench.button("Run").click()
    bench.expect(shown=0, job="done")
    kernel = result(notebook, 0)
    said = bench.verdict()
    assert "zero contribution: experts 4 and 6 of layer 0, analysis tokens" in said
    assert f"mean KL {nats(kernel['kl'])} nats over the " in said
    assert f"KL larger than {kernel['n'] + 1 - kernel['rank']} of {kernel['n']} load-matched controls" in said
    rows = bench.rows()
    expected = sorted((row["mean_kl"] for row in kernel["all"]), reverse=True)
    assert [float(row[1]) for row in rows] == pytest.approx(expected, abs=6e-4)
    assert rows[[row["control"] for row in sorted(kernel["all"], key=lambda r: -r["mean_kl"])].index(False)][0] == (
        "zero contribution: experts 4 and 6 of layer 0, analysis tokens"
    )
    assert notebook.evaluate("trace.analysis_text").strip() in bench.text(0)
    assert kernel["text"].strip() in bench.text(1)
    assert bench.root.locator(".moe-differs").count() > 3

    # KL along the axis: a click chooses a token, in the other views too, and the status has its number.
    axis = bench.root.locator(".moe-bench-result > canvas")
    box = axis.bounding_box()
    assert box is not None
    token = 45
    axis.click(position={"x": 64 + (token + 0.5) / 75 * (box["width"] - 64), "y": 40})
    bench.expect(token=token)
    explorer.expect(token=token)
    assert f"KL {nats(kernel['at'][token - 1])}" in bench.status()

    # The reader scrolls one transcript, and the other follows.
    assert_scrolls_together(bench)

    # Another view chooses an expert: the map shows it.
    notebook.execute("x.layer = 2; x.expert = 5")
    bench.expect(layer=2, expert=5)
    assert bench.said("experts").startswith("expert 5 of layer 2: ")

    # A head beside it, and a vector: three changes at once. One is taken out again.
    bench.button("+ another change").click()
    bench.field("Variant").select_option("ablate head")
    bench.pick("heads", 3, 6)
    assert bench.picks() == "3: 6"
    assert "sink mass: mean over " in bench.root.locator('[data-kind="heads"] .moe-bench-legend').inner_text()
    mass = notebook.evaluate(
        "(lambda rows: float(trace.attention(3, head=6, rows=rows)[1].values.mean()))"
        "([i for m in trace.messages if m.channel == 'analysis' for i in range(m.content_start, m.stop - 1)])"
    )
    assert bench.said("heads") == f"head 6 of layer 3: sink {mass:.2f}, picked; space picks".replace(" 0.", " .")
    bench.button("+ another change").click()
    bench.field("Variant").select_option("add vector")
    assert bench.field("After layer").input_value() == "3"
    bench.field("Factor or logits").fill("-1.5")
    lines = bench.root.locator(".moe-bench-changes .moe-chip")
    assert lines.all_inner_texts() == [
        "zero contribution: experts 4 and 6 of layer 0, analysis tokens",
        "ablate head: head 6 of layer 3, analysis tokens",
        "add vector × -1.5: “ramp” after layer 3, analysis tokens",
    ]
    notebook.screenshot("intervention_bench_changes", of=bench.root)
    bench.field("Remove change 1").click()
    assert lines.count() == 2
    bench.field("Controls").fill("2")
    bench.button("Run").click()
    bench.expect(shown=1, job="done")
    second = result(notebook, 1)
    assert f"mean KL {nats(second['kl'])} nats" in bench.verdict()
    assert f"of {second['n']} random controls" in bench.verdict()
    asked = notebook.evaluate("v._history[1]['asked']")
    assert [one["variant"] for one in asked] == ["ablate head", "add vector"]
    assert (asked[1]["vector"], asked[1]["factor"], len(asked[1]["sha256"])) == ("ramp", -1.5, 64)

    # A patch from another trace, at one token; what it cannot be is said.
    bench.field("Remove change 1").click()
    assert lines.count() == 0 or not lines.first.is_visible()
    bench.field("Variant").select_option("patch residual")
    bench.button("read the same tokens").click()
    bench.button("Run").click()
    assert bench.problem() == "a patch is of positions: expected tokens with an end, such as 40–60"
    digit = notebook.evaluate("[i for i in range(len(trace)) if trace.token_text(i) != other.token_text(i)][0]")
    bench.field("At which tokens").fill(f"{digit}-{digit + 1}")
    bench.button("Run").click()
    assert bench.problem() == "“other sum” has the residual stream of layers 0, 2, not of 3"
    bench.field("After layer").fill("0")
    bench.button("Run").click()
    bench.expect(shown=2, job="done")
    own = f"patch residual: “other sum” after layer 0, token {digit}"
    beside = f"random patch: as far as “47 + 85 + 36 = ?”, in a random direction, after layer 0, token {digit}"
    assert sorted(row[0] for row in bench.rows()) == [own, beside, beside]
    bench.field("Controls").fill("0")
    bench.button("Run").click()
    bench.expect(shown=3, job="done")
    assert own in bench.verdict()
    assert "no controls: an effect without one says nothing of what was changed" in bench.verdict()

    # A swap is picked by two clicks.
    bench.field("Variant").select_option("swap")
    bench.pick("experts", 1, 2)
    bench.pick("experts", 1, 7)
    assert bench.picks() == "1: 2>7"

    # Errors of the model are said, and nothing is kept.
    bench.field("Variant").select_option("suppress span")
    assert bench.picks() == ""
    bench.field("Experts or heads by layer").fill("9: all")
    bench.button("Run").click()
    assert bench.problem() == "expected a layer below 4, got “9”"
    bench.field("Experts or heads by layer").fill("2: all")
    bench.field("At which tokens").fill("17–34")
    bench.field("Controls").fill("2")
    bench.button("Run").click()
    bench.expect(job="failed")
    assert notebook.evaluate("v._job['words']") in bench.root.locator(".moe-bench-failed").inner_text()
    assert notebook.evaluate("len(v.experiments)") == 4
    bench.root.locator(".moe-bench-list .moe-chip").first.click()
    bench.expect(shown=0)
    bench.field("Variant").select_option("zero contribution")
    bench.field("Experts or heads by layer").fill("0: 4, 6")
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        bench.expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(bench)
        notebook.screenshot(f"intervention_bench_{theme}", of=bench.root)
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert notebook.heard.page_errors == []


def assert_scrolls_together(bench: Bench) -> None:
    """Both sides show the shared beginning at the same height, whichever is scrolled."""
    for side in (0, 1):
        for share in (1, 0):
            bench.side(side).evaluate("(e, to) => { e.scrollTop = to * Math.min(40, e.scrollHeight); }", share)
            tops = "[...document.querySelectorAll('.moe-bench-side .moe-transcript-scroll')].map(e => e.scrollTop)"
            moved = "t[0] > 0" if share else "t[0] === 0"
            bench.page.wait_for_function(f"() => {{ const t = {tops}; return {moved} && Math.abs(t[0] - t[1]) < 3; }}")


REOPENED = """
v.annotated.save("kept.safetensors")
w = InterventionBench(wb.open_trace("kept.safetensors"), run=partial(experiment_from, model)); w
"""


def test_experiments_by_keyboard_alone_and_a_stop(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, SHOW], height=1300)
    bench, page = Bench(notebook), notebook.page
    keys = page.keyboard

    # The second variant; on the map of experts with the arrows, and from the view with [ ] and a.
    bench.press("v", "Home", "ArrowDown", "Escape")
    bench.expect(token=notebook.evaluate("trace.num_prompt_tokens"))
    assert bench.field("Variant").input_value() == "zero contribution"
    bench.press("]", "]", "a", "ArrowDown", "a", "a")
    assert bench.picks() == "0: 2"
    bench.map("experts").focus()
    for key in ("ArrowRight", "ArrowUp", "Space", "Escape"):
        keys.press(key)
    bench.expect(layer=0, expert=3)
    assert bench.picks() == "0: 2, 3"

    # The analysis; one control; run.
    bench.field("At which tokens").focus()
    keys.press("Control+A")
    keys.type("analysis")
    bench.field("Controls").focus()
    keys.press("Control+A")
    keys.type("1")
    keys.press("Enter")
    bench.expect(shown=0, job="done")
    kernel = result(notebook, 0)
    assert "zero contribution: experts 2 and 3 of layer 0, analysis tokens" in bench.verdict()
    assert len(bench.rows()) == 1 + kernel["n"] == 2

    # Two changes: one more, of a head, at the selected token alone.
    bench.press("m", "v", "Home", *["ArrowDown"] * 6, "Escape")
    assert bench.field("Variant").input_value() == "ablate head"
    bench.press("]", "a", "ArrowRight", "t", "r")
    bench.expect(job="failed")
    assert "controls of zero contribution are matched by load" in bench.root.locator(".moe-bench-failed").inner_text()
    bench.field("Controls").fill("0")
    bench.press("r")
    bench.expect(shown=1, job="done")
    at = notebook.evaluate("v.token")
    assert f"ablate head: head 1 of layer 0, token {at}" in bench.verdict()
    bench.press(",")
    bench.expect(shown=0)
    bench.field("Run experiment 2 again").focus()
    keys.press("Enter")
    bench.expect(shown=2, job="done")
    assert notebook.evaluate("v._history[2] == v._history[1]")

    # Stop ends a long one, from the view.
    entries = bench.root.locator(".moe-bench-list li")
    entries.first.evaluate("e => { e.dataset.same = 'yes'; }")
    bench.field("Remove change 2").click()
    bench.field("Variant").select_option("add vector")
    bench.field("Controls").fill("90")
    before = notebook.evaluate("wb.replay(model, trace).logprobs[1:].tolist()")
    bench.press("r")
    bench.root.get_by_text(re.compile(r"^[1-9]\d* of 91 runs done")).wait_for()
    notebook.screenshot("intervention_bench_running", of=bench.root)
    bench.press("s")
    bench.expect(job="failed")
    assert "not done: interrupted; the model is as it was" in bench.root.locator(".moe-bench-failed").inner_text()
    assert notebook.evaluate("model.interventions") == []
    assert notebook.evaluate("wb.replay(model, trace).logprobs[1:].tolist()") == before
    assert notebook.evaluate("len(v.experiments)") == 3
    assert entries.first.get_attribute("data-same") == "yes", "progress draws no history"

    # Saved with the trace, opened again, run again; what Python held is asked for by name.
    bench.field("Controls").fill("0")
    bench.press("r")
    bench.expect(shown=3, job="done")
    notebook.execute(REOPENED + "\nfrom IPython.display import display")
    again = notebook.evaluate("[w._history == v._history, w.run_again(0).mean_kl == v.experiments[0].mean_kl]")
    assert again == [True, True]
    notebook.execute("w._answer(w, {'again': 3}, [])")
    assert notebook.evaluate("w._job['words']") == (
        "add vector: no vector named 'ramp' was given (none); pass vectors={'ramp': …}"
    )
    assert notebook.heard.page_errors == []


LONG = f"""
{SYNTHETIC}
import time
from dataclasses import replace
import numpy as np
from IPython.display import display
from widgets import InterventionBench
from workbench.experiments.aligned import KL, Aligned
from workbench.experiments.experiment import Experiment
from workbench.experiments.experts import RouteAround
from workbench.labelled import Labelled
trace = synthetic_trace(tokens=20_000, layers=24, d_head=2, without=["queries", "keys", "attention_logsumexp"])
ids = trace.arrays["token_ids"].copy()
ids[15_000:] = np.roll(ids[15_000:], 3)
kl = np.random.default_rng(0).gamma(0.3, size=20_000); kl[:9_001] = 0; kl[0] = np.nan
beside = Aligned(Labelled(kl, ("token",), source=KL), None, 9_000, 11_000)
after = replace(trace, arrays={{**trace.arrays, "token_ids": ids}})
made = Experiment((RouteAround({{3: [5]}}, (9_000, None)),), trace, after, beside)
"""
SHOW_LONG = """
began = time.time()
v = InterventionBench(trace, run=lambda *a, **k: made, token=15_010)
display(v); ran = time.time()
"""

FIRST_PAINT = """() => {
    window.firstPaint = null;
    const seen = () => {
        if (!document.querySelector('.moe-bench[data-token]')) return requestAnimationFrame(seen);
        window.firstPaint = (performance.timeOrigin + performance.now()) / 1000;
    };
    seen();
}"""


def test_at_20_000_tokens(lab_notebook: OpenNotebook, capsys: pytest.CaptureFixture[str]) -> None:
    """Print and keep what first paint, an experiment and a token step cost; only what is mounted is asserted."""
    notebook = lab_notebook([LONG, SHOW_LONG], run=False, height=1400)
    page = notebook.page
    page.evaluate(FIRST_PAINT)
    notebook.run_all()
    bench = Bench(notebook)
    page.wait_for_function("window.firstPaint !== null", timeout=60_000)
    began, ran = notebook.evaluate("[began, ran]")
    measured: dict[str, Any] = {"made_s": round(ran - began, 2)}
    measured["first_paint_s"] = round(page.evaluate("window.firstPaint") - ran, 2)
    asked = [{"variant": "route around", "experts": {"3": [5]}, "tokens": [9000, None]}]
    notebook.execute(f"began = time.time(); v.experiment({asked}); ran = time.time()")
    bench.expect(shown=0, job="done")
    page.wait_for_function("document.querySelectorAll('.moe-bench-side').length === 2")
    measured["sent_s"] = round(notebook.evaluate("ran - began"), 2)
    page.evaluate(MEASURE)
    measured |= {f"token_{name}": value for name, value in step_times(bench, ["ArrowRight"], 60).items()}
    bench.press("Home", "]")
    measured |= {f"layer_{name}": value for name, value in step_times(bench, ["ArrowDown", "ArrowUp"], 20).items()}
    measured["load"] = round(os.getloadavg()[0], 1)
    with capsys.disabled():
        print(f"\nInterventionBench, 20,000 tokens: {measured}")
    PERFORMANCE.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(PERFORMANCE.read_text()) if PERFORMANCE.exists() else {}
    PERFORMANCE.write_text(json.dumps(kept | {"intervention_bench_20000": measured}, indent=1))
    notebook.screenshot("intervention_bench_20000", of=bench.root)
    assert bench.root.locator(".moe-bench-side span[data-token]").count() < 2 * 900
    assert "19,579 tokens after" in bench.text(0)
    bench.field("Variant").select_option("ablate head")
    legend = bench.root.locator('[data-kind="heads"] .moe-bench-legend')
    legend.get_by_text("sink mass: mean over the tokens: not captured; all can be picked").wait_for()
    bench.map("heads").locator("canvas").click(position={"x": 5, "y": 30})
    assert bench.picks() == "0: 0"
    notebook.screenshot("intervention_bench_not_captured", of=bench.root)
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

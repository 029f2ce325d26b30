"""AttentionView in a real JupyterLab: what it shows is what ``trace.attention`` gives, by mouse and by keyboard."""

import json
import re
from pathlib import Path

import pytest
from attention_page import View
from axe_playwright_python.sync_playwright import Axe
from lab import LabServer, OpenNotebook
from playwright.sync_api import expect

import workbench as wb

TESTS = Path(__file__).parents[1]

SYNTHETIC = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from synthetic import synthetic_trace"
IMPORT = "from widgets import AttentionView, TraceExplorer"
OPEN = "import workbench as wb; trace = wb.open_trace('hint.safetensors')"
SMALL = "tokens=300, layers=4, experts=7, top_k=2, heads=6, kv_heads=2, d_head=14, window=9, dtype='float32'"
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=2>",
    "\u202egnp.exe",
    "😀",
    "\x00\x07",
]

# What the kernel computes itself, for comparison: row, readers of a key, a cell of the map, as [token, weight] lists.
KERNEL = """
import numpy as np
def row(layer, head, token):
    pattern, mass = trace.attention(layer, head, rows=[token])
    return np.asarray(pattern)[0, 0], None if mass is None else float(mass[0, 0])
def top(weights, start, stop):
    order = [int(j) for j in np.argsort(-weights[start:stop], kind="stable")[:8]]
    return [[start + j, float(weights[start + j])] for j in order if weights[start + j] > 0.0005]
def read(layer, head, token): return top(row(layer, head, token)[0], 0, token + 1)
def readers(layer, head, token):
    return top(np.asarray(trace.attention(layer, head)[0])[0][:, token], token + 1, len(trace))
def cell(layer, heads, a, b):
    pattern = np.asarray(trace.attention(layer)[0])[heads].mean(0)
    a, b = trace.sentences[a], trace.sentences[b]
    return float(pattern[a.start:a.stop, b.start:b.stop].sum(1).mean())
"""


@pytest.fixture(scope="module", autouse=True)
def hint_trace(tiny: wb.Model, lab_server: LabServer) -> None:
    """Captured once, for the kernels to open."""
    trace = wb.capture(tiny, "91+40+98+66=? hint: 249", effort="high", temperature=0)
    trace.save(lab_server.root / "hint.safetensors")


def assert_same(shown: list[list[float]], expected: list[list[float]], within: float = 2e-4) -> None:
    """Compare two lists of [token, weight]; the order of equal weights is free."""
    assert [w for _, w in shown] == pytest.approx([w for _, w in expected], abs=within)
    known = {int(t): w for t, w in expected}
    assert all(weight == pytest.approx(known.get(int(token), expected[-1][1]), abs=within) for token, weight in shown)


def assert_it_shows(view: View, token: int, layer: int, head: int) -> None:
    """Compare row, masses and lists at a selection with the trace in the kernel."""
    notebook = view.notebook
    view.expect(token=token, layer=layer, head=head)
    weights, sink = notebook.evaluate(f"(lambda r: [r[0].tolist(), r[1]])(row({layer}, {head}, {token}))")
    shown = view.masses()
    assert shown["sink"] == pytest.approx(sink, abs=2e-4)
    assert shown["sum"] == pytest.approx(1, abs=1e-3)
    seen = notebook.evaluate(f"trace.meta['attention']['windows'][{layer}] is None or {token} < 32")
    assert shown["first"] == ("none" if not seen else pytest.approx(weights[0], abs=2e-4))
    parts = sum(v for name in ("first", "further", "shown") if (v := shown[name]) != "none")
    assert parts == pytest.approx(sum(weights), abs=1e-3)
    assert_same(view.found("keys"), notebook.evaluate(f"read({layer}, {head}, {token})"))
    assert_same(view.found("readers"), notebook.evaluate(f"readers({layer}, {head}, {token})"))


def test_rows_lists_and_maps_follow_the_keys_and_show_the_traces_numbers(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, KERNEL, IMPORT, "x = AttentionView(trace, token=100); x"])
    view = View(notebook)
    assert_it_shows(view, 100, 0, 0)
    view.press("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown", "]", "]", "]")
    assert_it_shows(view, 101, 1, 3)
    view.press("Shift+ArrowRight")
    starts = notebook.evaluate("[s.start for s in trace.sentences]")
    assert_it_shows(view, next(s for s in starts if s > 101), 1, 3)
    view.press("Home")
    view.expect(token=0)
    assert view.masses()["first"] == pytest.approx(1 - float(view.masses()["sink"]), abs=1e-3)
    view.press("End")
    view.expect(token=notebook.evaluate("len(trace) - 1"))
    assert view.list("readers").inner_text().endswith("no later token sees this one")
    notebook.execute("x.token, x.layer, x.head = 120, 2, 6")
    assert_it_shows(view, 120, 2, 6)
    assert view.axis.get_attribute("data-window-start") == str(120 - 31)

    view.expect_map("sentences")
    sentence = sum(start <= 120 for start in starts) - 1
    of, a, b, weight = re.search(r"most: (sentence (\d+) → sentence (\d+)): (\.\d+|1\.0)", view.hint()).groups()
    assert int(a) == sentence + 1
    assert float(weight) == pytest.approx(notebook.evaluate(f"cell(2, [6], {sentence}, {int(b) - 1})"), abs=0.006)
    view.press("a")
    view.map.get_by_text("mean of 8 heads").wait_for()
    _, b, weight = re.search(r"sentence (\d+) → sentence (\d+): (\.\d+|1\.0)", view.hint()).groups()
    every = list(range(8))
    assert float(weight) == pytest.approx(notebook.evaluate(f"cell(2, {every}, {sentence}, {int(b) - 1})"), abs=0.006)
    view.press("a", "z")
    view.expect_map("tokens")
    assert f"Tokens of {of.replace('→', '×')}" in view.map.inner_text()
    reader, key, weight = re.search(r"most: (\d+) .* → (\d+) .*: (\.\d+|1\.0|\d\.\de-\d)", view.hint()).groups()
    assert int(reader) == 120
    assert float(weight) == pytest.approx(notebook.evaluate(f"float(row(2, 6, 120)[0][{key}])"), abs=0.006)
    view.press("Escape", "m", "p")
    view.expect_map("overview")
    assert "mean weight of the pairs in sight of 2 × 2 tokens" in view.map.inner_text()
    notebook.page.wait_for_timeout(300)
    assert notebook.evaluate("[x.show, x.pool, x.heads]") == ["overview", "mean", "one"]


def test_clicks_jump_and_the_selection_is_shared(lab_notebook: OpenNotebook) -> None:
    cells = ["x = AttentionView(trace, token=120, layer=1); x", "y = TraceExplorer(trace); y"]
    notebook = lab_notebook([OPEN, KERNEL, IMPORT, *cells])
    view = View(notebook)
    view.expect(token=120)
    other = notebook.page.locator(".moe-root:not(.moe-attention)")
    target = int(view.found("keys")[1][0])
    view.list("keys").locator("button").nth(1).click()
    view.expect(token=target)
    reader = int(view.found("readers")[0][0])
    view.list("readers").locator("button").first.press("Enter")
    view.expect(token=reader)
    wall = view.root.locator(".moe-wall canvas").bounding_box()
    assert wall is not None
    view.root.locator(".moe-wall canvas").click(position={"x": wall["width"] * 0.3, "y": 90})
    view.expect(head=5)
    axis = view.axis.locator("canvas").bounding_box()
    assert axis is not None
    view.axis.locator("canvas").click(position={"x": axis["width"] / 2, "y": 30})
    view.expect(token=notebook.evaluate("len(trace) // 2"))
    other.and_(notebook.page.locator('[data-head="5"][data-layer="1"]')).wait_for()

    view.expect_map("sentences")
    count = notebook.evaluate("len(trace.sentences)")
    position = view.shown_cell(9, 4, count)
    view.map.locator("canvas").hover(position=position)
    weight = float(re.search(r"sentence 10 → sentence 5: (\S+)", view.hint()).group(1))
    assert weight == pytest.approx(notebook.evaluate("cell(1, [5], 9, 4)"), abs=0.006)
    view.map.locator("canvas").hover(position=view.shown_cell(4, 9, count))
    assert "undefined, no key in sight" in view.hint()
    view.map.locator("canvas").click(position=position)
    view.expect_map("tokens")
    view.map.get_by_text("Tokens of sentence 10 × sentence 5, L1 h5").wait_for()
    height = notebook.evaluate("len(trace.sentences[9])")
    box = view.map.locator("canvas").bounding_box()
    assert box is not None
    view.map.locator("canvas").click(position={"x": 100, "y": 66 + 0.5 * min(34, (box["height"] - 68) / height)})
    view.expect(token=notebook.evaluate("trace.sentences[9].start"))
    view.root.get_by_role("button", name="back to the map").click()
    view.expect_map("sentences")
    view.press("/")
    notebook.page.keyboard.type("reject")
    view.root.locator(".moe-find").get_by_text(re.compile(r"^\d+ of \d+$")).wait_for()
    hits = notebook.evaluate("[i for i in range(len(trace)) if 'reject' in trace.token_text(i)]")
    view.expect(token=next(hit for hit in hits))


def test_the_map_is_read_and_opened_by_keyboard(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, KERNEL, IMPORT, "x = AttentionView(trace, token=120, layer=1, head=5); x"])
    view, page = View(notebook), notebook.page
    view.expect_map("sentences")
    view.press("Enter")
    sentence = notebook.evaluate("[i for i, s in enumerate(trace.sentences) if s.start <= 120 < s.stop][0]")
    best = notebook.evaluate(f"max(range({sentence} + 1), key=lambda b: cell(1, [5], {sentence}, b))")
    view.expect_cursor(sentence, best)
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    view.expect_cursor(sentence - 1, 2)
    weight = float(re.search(rf"sentence {sentence} → sentence 3: (\S+)", view.hint()).group(1))
    assert weight == pytest.approx(notebook.evaluate(f"cell(1, [5], {sentence - 1}, 2)"), abs=0.006)
    view.expect(token=120, layer=1)  # the arrows were the map's
    notebook.screenshot("attention_view_cursor_light", of=view.root)
    notebook.set_theme("dark")
    view.expect(theme="dark")
    view.expect_cursor(sentence - 1, 2)
    notebook.screenshot("attention_view_cursor_dark", of=view.root)
    assert_nothing_serious(view)
    page.keyboard.press("Enter")
    view.expect_map("tokens")
    view.map.get_by_text(f"Tokens of sentence {sentence} × sentence 3, L1 h5").wait_for()
    page.keyboard.press("End")
    view.expect_cursor(
        min(sentence - 1, notebook.evaluate(f"len(trace.sentences[{sentence - 1}]) - 1")),
        notebook.evaluate("len(trace.sentences[2]) - 1"),
    )
    page.keyboard.press("Escape")
    view.expect_map("sentences")
    page.keyboard.press("Escape")
    expect(view.map).to_have_attribute("data-cursor", "")
    page.keyboard.press("ArrowRight")
    view.expect(token=121)
    view.map.locator("canvas").click(position=view.shown_cell(9, 4, notebook.evaluate("len(trace.sentences)")))
    view.expect_map("tokens")
    page.keyboard.press("ArrowRight")
    view.expect(token=122)  # after a click the arrows are the view's


def test_a_click_hides_a_sentence_and_says_what_that_changes(lab_notebook: OpenNotebook) -> None:
    cells = [
        "from functools import partial; from workbench.experiments.suppression import suppression\n"
        "model = wb.load('tiny'); final = [m for m in trace.messages if m.channel == 'final'][0]\n"
        "hide = partial(suppression, model, trace)\n"
        "x = AttentionView(trace, token=final.content_start - 8, layer=1, suppress=hide); x",
        "y = AttentionView(trace, suppress=lambda span: 1 / 0); y",
        "AttentionView(trace)",
    ]
    notebook = lab_notebook([OPEN, IMPORT, *cells])
    view, broken, without = (View(notebook, index) for index in range(3))
    span = notebook.evaluate("[[s.start, s.stop] for s in trace.sentences if s.start <= x.token < s.stop][0]")
    place = notebook.evaluate(f"[s.start for s in trace.sentences].index({span[0]})") + 1
    button = view.root.get_by_role("button", name=re.compile("^Hide sentence"))
    expect(button).to_have_text(f"Hide sentence {place}")
    button.click()
    result = view.root.locator(".moe-suppression-result")
    expect(result).to_contain_text(
        f"sentence {place} hidden from all later tokens, all heads and layers", timeout=60_000
    )
    notebook.execute(f"import numpy as np; kl = np.asarray(suppression(model, trace, {tuple(span)}))")
    answer, later, most, at = notebook.evaluate(
        f"[kl[final.content_start:final.stop].mean(), np.nanmean(kl[{span[1] + 1}:]), "
        f"np.nanmax(kl[{span[1] + 1}:]), {span[1] + 1} + int(np.nanargmax(kl[{span[1] + 1}:]))]"
    )
    numbers = [float(n) for n in re.findall(r"(?:answer|tokens|most) ([\d.]+(?:e[+-]\d+)?)", result.inner_text())]
    assert numbers == pytest.approx([answer, later, most], abs=0.006)
    assert f"at {at} " in result.inner_text()
    notebook.screenshot("attention_view_suppression_light", of=view.root)
    assert_nothing_serious(view)
    view.press("Home")
    expect(result).to_have_text("")
    notebook.execute("x.token = final.content_start - 8")
    broken.root.get_by_role("button", name=re.compile("^Hide sentence")).click()
    expect(broken.root.locator(".moe-suppression-result")).to_contain_text("could not be hidden: ZeroDivisionError")
    assert "partial(suppression, model, trace)" in without.root.locator(".moe-causation").inner_text()
    assert without.root.get_by_role("button", name=re.compile("^Hide")).count() == 0


def test_it_looks_right_in_light_and_dark_and_axe_finds_nothing_serious(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, IMPORT, "x = AttentionView(trace, token=149, layer=2, head=4); x"])
    view = View(notebook)
    view.expect(theme="light", token=149)
    view.expect_map("sentences")
    notebook.screenshot("attention_view_light", of=view.root)
    assert_nothing_serious(view)
    notebook.set_theme("dark")
    view.expect(theme="dark")
    view.press("m")
    view.expect_map("overview")
    notebook.screenshot("attention_view_dark", of=view.root)
    assert_nothing_serious(view)
    view.press("z")
    view.expect_map("tokens")
    view.press("?")
    view.root.get_by_role("dialog").wait_for()
    assert_nothing_serious(view)


def assert_nothing_serious(view: View) -> None:
    found = Axe().run(view.page, context=".moe-root").response["violations"]
    serious = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)


def test_hostile_texts_missing_layers_no_sinks_and_no_kernel(lab_notebook: OpenNotebook) -> None:
    cells = [
        f"h = synthetic_trace({SMALL}, texts={HOSTILE!r}, source='replay')\n"
        "from dataclasses import replace\n"
        "h = replace(h, meta={**h.meta, 'question': '<img src=x onerror=window.hacked=4>'})\n"
        "first = [m for m in h.messages if m.channel == 'analysis'][0].content_start\n"
        "x = AttentionView(h, token=first + 5, layer=1); x",
        f"b = synthetic_trace({SMALL}, seed=1, without=('sink_logits', 'attention_logsumexp'))\n"
        "b = replace(b, arrays={**b.arrays, **{n: b.arrays[n][[0, 2, 3]] for n in ('queries', 'keys')}},\n"
        "            meta={**b.meta, 'layers': {'queries': [0, 2, 3], 'keys': [0, 2, 3]}})\n"
        "y = AttentionView(b, token=200, layer=3); y",
    ]
    notebook = lab_notebook([SYNTHETIC, IMPORT, *cells])
    view, bare = View(notebook, 0), View(notebook, 1)
    first = int(view.root.get_attribute("data-token") or 0)
    for _ in HOSTILE:
        view.press("ArrowRight")
    view.expect(token=first + len(HOSTILE))
    view.press("z")
    assert "<img src=x onerror=window.hacked=4>" in view.root.locator(".moe-question").inner_text()
    assert "↻ replay" in view.root.locator(".moe-badges").inner_text()
    assert notebook.page.evaluate("window.hacked") is None
    assert view.root.locator("script, img, svg").count() == 0
    view.root.locator(".moe-root").first.page.keyboard.press("Escape")
    notebook.screenshot("attention_view_hostile", of=view.root)

    bare.expect(token=200, layer=3)
    assert "sinks: none" in bare.root.locator(".moe-badges").inner_text()
    assert "✓ attention 3/4 layers" in bare.root.locator(".moe-badges").inner_text()
    assert bare.masses()["sink"] == "none"
    assert bare.masses()["sum"] == pytest.approx(1, abs=1e-3)
    notebook.execute("import numpy as np; p = np.asarray(b.attention(3, 0)[0])[0]")
    order = notebook.evaluate("[[201 + int(i), float(p[201 + i, 200])] for i in np.argsort(-p[201:, 200])[:8]]")
    assert_same(bare.found("readers"), [pair for pair in order if pair[1] > 0.0005])
    bare.press("ArrowUp", "ArrowUp")
    bare.expect(layer=1)
    words = "attention of layer 1 not captured: layers 0, 2–3 were"
    assert words in bare.root.locator(".moe-masses").inner_text()
    assert words in bare.list("keys").inner_text()
    bare.expect_map("sentences", "missing")
    assert words in (bare.map.locator("canvas").get_attribute("aria-label") or "")
    expect(bare.root.locator(".moe-wall")).to_have_attribute("data-state", "missing")
    notebook.screenshot("attention_view_missing", of=bare.root)

    notebook.page.evaluate(
        "async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()"
    )
    view.press("End", "ArrowDown", "ArrowDown", "]")
    view.expect(token=299, layer=3, head=1)
    assert view.masses()["sum"] == pytest.approx(1, abs=1e-3)
    view.expect_map("sentences")
    view.press("m")
    view.expect_map("overview")
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

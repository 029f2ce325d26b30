"""RouterMap, LoadCurve and RoutingPaths in a real JupyterLab: one selection with TraceExplorer, and its numbers."""

from typing import Any

import pytest
from lab import LabNotebook, OpenNotebook
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious, numbers

IMPORT = """
from widgets import LoadCurve, RouterMap, RoutingPaths, TraceExplorer
from workbench.analysis.routing import expert_contrast, expert_load, load_entropy
from workbench.analysis.token_set import TokenSet
def rows(**kind): return TokenSet(trace, **kind).rows("expert_indices")
"""
SIZES = "heads=6, kv_heads=2, d_head=14, window=9"


class Map(View):
    """One map on the page."""

    def cell(self, layer: int, position: int, layers: int, experts: int) -> dict[str, float]:
        """Return the middle of a cell on the grid's canvas, whose numbers take the top 24 pixels."""
        box = self.root.locator(".moe-map-scroll canvas").bounding_box()
        assert box is not None
        width, height = (box["width"] - 1) / experts, (box["height"] - 24) / layers
        return {"x": (position + 0.5) * width, "y": 24 + (layer + 0.5) * height}

    def click(self, layer: int, position: int, layers: int, experts: int) -> None:
        self.root.locator(".moe-map-scroll canvas").click(position=self.cell(layer, position, layers, experts))  # type: ignore[arg-type]

    def shown(self, name: str) -> Any:
        """Return what the map says it shows, once stepping has settled."""
        self.page.wait_for_timeout(200)
        return self.data("map-panel", name)


def assert_selection(notebook: LabNotebook, views: str, expected: list[int]) -> None:
    """Wait for Python to hear of the selection."""
    notebook.page.wait_for_timeout(200)
    for name in views:
        assert notebook.evaluate(f"[{name}.token, {name}.layer, {name}.expert]") == expected, name


def test_one_selection_and_the_traces_numbers(lab_notebook: OpenNotebook) -> None:
    cells = ["x = TraceExplorer(trace, token=60, layer=1); x", "m = RouterMap(trace); m", "c = LoadCurve(trace); c"]
    cells += ["p = RoutingPaths(trace, expert=6); p"]
    trace = f"trace = synthetic_trace(tokens=260, layers=4, experts=8, top_k=2, {SIZES})"
    notebook = lab_notebook([f"{SYNTHETIC}; {trace}", IMPORT, *cells])
    x, m, c, p = (kind(notebook, i) for i, kind in enumerate((View, Map, View, View)))
    # What was opened later has adopted what was there, and what it was told wins.
    for view in (x, m, c, p):
        view.expect(token=60, layer=1, expert=6)
    assert_selection(notebook, "xmcp", [60, 1, 6])
    m.press("ArrowDown", "ArrowRight", "]")
    x.expect(token=61, layer=2, expert=7)
    x.press("ArrowRight", "ArrowUp")
    m.expect(token=62, layer=1, expert=7)
    c.press("ArrowDown")
    p.expect(layer=2)
    p.press("[", "ArrowUp")
    m.expect(token=62, layer=1, expert=6)
    assert_selection(notebook, "xmcp", [62, 1, 6])
    notebook.execute("m.expert = 2")
    x.expect(expert=2)
    assert_selection(notebook, "xmcp", [62, 1, 2])

    load = notebook.evaluate("expert_load(rows(), 8).values.tolist()")
    assert numbers(m.shown("row")) == pytest.approx(load[1], abs=1e-6)
    assert float(m.shown("entropy")) == notebook.evaluate("round(load_entropy(expert_load(rows(), 8)).values[1], 6)")
    tokens = notebook.evaluate("len(trace) - trace.num_prompt_tokens")
    assert f"completion, T = {tokens} tokens · prompt not counted" in m.root.locator(".moe-which").inner_text()
    assert f"load\u00a0{100 * load[1][2]:.1f} %".split("\u00a0")[1] in m.status()
    entropies = notebook.evaluate("load_entropy(expert_load(rows(), 8)).values.round(6).tolist()")
    assert numbers(c.data("map-panel", "entropy")) == pytest.approx(entropies)

    m.press("o")
    m.expect(order="load")
    order = sorted(range(8), key=lambda e: -load[1][e])
    assert [int(e) for e in m.shown("experts").split(",")] == order
    m.click(3, 0, 4, 8)
    best = max(range(8), key=lambda e: load[3][e])
    m.expect(layer=3, expert=best)
    grid = m.root.locator(".moe-map-scroll canvas")
    grid.hover(position=m.cell(1, 7, 4, 8))  # type: ignore[arg-type]
    worst = min(range(8), key=lambda e: (load[1][e], -e))
    assert (grid.get_attribute("title") or "").startswith(
        f"layer 1, expert {worst}: load {100 * load[1][worst]:.1f} %"
    )
    m.press("o", "o")
    m.expect(order="index")
    m.press("p")
    m.expect(phase="prompt")
    prompt = notebook.evaluate("expert_load(rows(phase='prompt'), 8).values[3].tolist()")
    assert numbers(m.shown("row")) == pytest.approx(prompt, abs=1e-6)
    assert "Entropy is biased low at T =" in m.root.locator(".moe-map-foot").inner_text()

    m.press("s")
    m.expect(show="contrast")
    grid.hover(position=m.cell(2, 3, 4, 8))  # type: ignore[arg-type]
    assert "There are no prompt tokens on final" in (grid.get_attribute("title") or "")
    m.press("p", "p")
    m.expect(show="contrast", phase="completion")
    contrast = "expert_contrast(rows(channel='final'), rows(channel='analysis'), 8).values[3].tolist()"
    assert numbers(m.shown("row")) == pytest.approx(notebook.evaluate(contrast), abs=1e-6)
    assert "needs several traces and the trace-level permutation test" in m.root.locator(".moe-map-foot").inner_text()
    m.press("s", "ArrowRight", "ArrowRight")
    m.expect(show="token", token=64)
    chosen = notebook.evaluate("trace.expert_indices[64, 3].tolist()")
    assert [int(e) for e in m.shown("router").split(",")] == chosen
    m.click(3, chosen[1], 4, 8)
    weight = notebook.evaluate("float(trace.expert_weights[64, 3, 1])")
    m.expect(expert=chosen[1])
    assert f"#2, weight {f'{weight:.2f}'.lstrip('0')}" in m.status()
    assert_selection(notebook, "xm", [64, 3, chosen[1]])
    assert notebook.evaluate("[m.show, m.phase, m.order]") == ["token", "completion", "index"]

    # The card follows, takes the focus and leads on; keys go on working in it.
    heading = m.root.locator(".moe-expert-name")
    assert heading.inner_text() == f"Layer 3, expert {chosen[1]}"
    m.press("Enter")
    assert heading.evaluate("e => document.activeElement === e")
    m.root.locator(".moe-expert-example").first.click()
    example = notebook.evaluate(f"m._cards['completion/3/{chosen[1]}']['examples'][0]['token']")
    x.expect(token=example)
    notebook.page.keyboard.press("ArrowUp")
    x.expect(layer=2)
    m.press("b", "?")
    m.root.get_by_role("dialog").wait_for()
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == 6
    assert notebook.heard.page_errors == []


def test_it_looks_right_and_hostile_texts_are_text(lab_notebook: OpenNotebook) -> None:
    trace = (
        f"trace = synthetic_trace(tokens=900, layers=24, experts=32, top_k=4, {SIZES}, texts={HOSTILE!r})\n"
        "from dataclasses import replace\n"
        "evil = '<img src=x onerror=window.hacked=4>'\n"
        "meta = {**trace.meta, 'question': evil}; meta['provenance'] = {**meta['provenance'], 'model': evil}\n"
        "trace = replace(trace, meta=meta)\n"
        "first = [m for m in trace.messages if m.channel == 'analysis'][0].content_start"
    )
    cells = [
        "RouterMap(trace, token=first, show='token')",
        "LoadCurve({evil: TokenSet(trace)})",
        "RoutingPaths(trace)",
    ]
    wide = (
        f"RouterMap([synthetic_trace(tokens=200, layers=36, experts=128, top_k=8, {SIZES}, seed=s) for s in (1, 2)])"
    )
    notebook = lab_notebook([SYNTHETIC, IMPORT, trace, *cells, wide], height=1400)
    page = notebook.page
    views = [Map(notebook, 0), *(View(notebook, i) for i in (1, 2)), Map(notebook, 3)]
    for _ in HOSTILE:
        views[0].press("ArrowRight")
    views[0].press("[", "s")
    views[0].expect(show="load")
    assert "<img src=x onerror=window.hacked=4>" in views[0].root.locator(".moe-question").inner_text()
    assert "<img src=x onerror=window.hacked=4>" in views[2].root.locator(".moe-facts").inner_text()
    many = views[3]
    assert many.root.locator(".moe-map-panels[data-stacked='true']").count() == 1
    many.press("End", "ArrowDown")
    many.expect(layer=1, expert=127, token=0)
    assert "this token" in many.root.locator("button:disabled").all_inner_texts()
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        views[3].expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(views[0])
        for view, name in zip(views, ("router_map", "load_curve", "routing_paths", "router_map_many"), strict=True):
            view.root.scroll_into_view_if_needed()
            notebook.screenshot(f"{name}_{theme}", of=view.root)
    page.set_viewport_size({"width": 1920, "height": 1400})
    page.wait_for_timeout(400)
    views[0].root.scroll_into_view_if_needed()
    notebook.screenshot("router_map_wide", of=views[0].root)
    page.set_viewport_size({"width": 820, "height": 1200})
    page.wait_for_timeout(400)
    map_box = views[0].root.locator(".moe-map-panel").bounding_box()
    card_box = views[0].root.locator(".moe-map-card").bounding_box()
    assert map_box is not None
    assert card_box is not None
    assert card_box["y"] >= map_box["y"] + map_box["height"] - 1
    assert page.evaluate("window.hacked") is None
    assert views[0].root.locator("script, img").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []


def test_it_works_without_a_kernel_and_missing_layers_are_named(lab_notebook: OpenNotebook) -> None:
    cells = [
        f"whole = synthetic_trace(tokens=300, layers=5, experts=7, top_k=2, {SIZES}, source='replay')",
        "from workbench.trace import Trace; keep = [0, 2, 3]; names = ('expert_indices', 'expert_weights')\n"
        "some = {n: whole.arrays[n][:, keep] for n in names} | {n: a for n, a in whole.arrays.items()"
        " if n not in (*names, 'router_logits')}\n"
        "part = Trace(some, whole.spans, {**whole.meta, 'layers': dict.fromkeys(names, keep)})",
        "m = RouterMap(part); m",
    ]
    notebook = lab_notebook([SYNTHETIC, IMPORT, *cells])
    view = Map(notebook)
    view.expect(layer=0)
    assert "replay" in view.root.locator(".moe-badges").inner_text()
    assert "✓ router 3/5 layers" in view.root.locator(".moe-badges").inner_text()
    counts = notebook.evaluate("(part.expert_indices[part.num_prompt_tokens:, 1] == 4).sum().item()")
    tokens = notebook.evaluate("len(part) - part.num_prompt_tokens")
    indices = notebook.evaluate("part.expert_indices[61, 1].tolist()")
    shutdown = "async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()"
    notebook.page.evaluate(shutdown)
    view.click(2, 4, 5, 7)
    view.expect(layer=2, expert=4)
    label = view.root.locator(".moe-map-scroll canvas")
    assert float(view.shown("row").split(",")[4]) == pytest.approx(counts / tokens / 2, abs=1e-6)
    assert f"chosen at {counts} of {tokens} tokens" in (label.get_attribute("aria-label") or "")
    assert view.root.locator(".moe-expert-name").inner_text() == "Layer 2, expert 4"
    view.press("s", "s", "Home", *["ArrowRight"] * 61)
    view.expect(show="token", token=61)
    assert [int(e) for e in view.shown("router").split(",")] == indices
    view.press("ArrowUp", "o", "o", "p")
    view.expect(layer=1, order="cluster", phase="prompt")
    view.page.wait_for_timeout(200)
    assert label.get_attribute("aria-label") == "layer 1 not captured"
    assert "Captured: layers 0, 2–3." in view.root.locator(".moe-map-card").inner_text()
    assert notebook.heard.page_errors == []

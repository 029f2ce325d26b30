"""ExpertCard in a real JupyterLab: what it shows is what the trace holds, by mouse and by keyboard."""

import json
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import LabNotebook, OpenNotebook
from playwright.sync_api import Locator, expect

TESTS = Path(__file__).parents[1]

IMPORT = "from widgets import ExpertCard, TraceExplorer"
SYNTHETIC = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from synthetic import synthetic_trace"
CAPTURE = """
import torch; torch.set_num_threads(1)
import workbench as wb
trace = wb.capture(wb.load("tiny"), "47 + 85 = ?", effort="high", temperature=0)
"""
SMALL = "tokens=300, layers=4, experts=7, top_k=2, heads=6, kv_heads=2, d_head=14, window=9"
HOSTILE = ["<script>window.hacked = 1</script>", "<img src=x onerror=window.hacked=2>", "\u202egnp.exe"]

# What the kernel counts itself, for comparison: of expert e in layer l at the completion's tokens.
COUNT = """
import numpy as np
indices = np.asarray(trace.expert_indices)[trace.num_prompt_tokens:]
def chosen(l, e): return (indices[:, l] == e).any(1)
def seen(l, e, i):
    ids = np.asarray(trace.token_ids)[trace.num_prompt_tokens:]
    return [int((ids[chosen(l, e)] == i).sum()), int((ids == i).sum())]
def on(channel, l, e):
    here = [t - trace.num_prompt_tokens for m in trace.messages if m.channel == channel
            for t in range(m.content_start, m.stop) if not trace.is_special(t)]
    return [int(chosen(l, e)[here].sum()), len(here)]
"""


class Card:
    """One card on the page."""

    def __init__(self, notebook: LabNotebook, index: int = 0) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.root = self.page.locator(".moe-root:has(> .moe-expert)").nth(index)
        self.root.wait_for(timeout=60_000)
        self.root.scroll_into_view_if_needed()

    def part(self, title: str) -> Locator:
        return self.root.locator(".moe-expert-section").filter(has_text=title)

    def expect_at(self, layer: int, expert: int) -> None:
        expect(self.root.locator(".moe-expert-name")).to_have_text(f"Layer {layer}, expert {expert}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


def test_it_shows_the_traces_numbers_and_follows_the_keys(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, COUNT, IMPORT, "x = ExpertCard(trace, layer=1, expert=3); x"])
    card = Card(notebook)
    assert_numbers(card, 1, 3)
    card.root.focus()
    card.press("ArrowDown", "]", "]", "ArrowDown", "ArrowDown", "[")
    assert_numbers(card, 3, 4)
    notebook.page.wait_for_timeout(300)
    assert notebook.evaluate("[x.layer, x.expert]") == [3, 4]
    notebook.execute("x.layer, x.expert = 0, 2")
    assert_numbers(card, 0, 2)
    card.root.get_by_role("combobox", name="layer").select_option("2")
    card.root.get_by_role("combobox", name="expert").select_option("6")
    assert_numbers(card, 2, 6)
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []


def assert_numbers(card: Card, layer: int, expert: int) -> None:
    """Compare the parts of a card with counts made in the kernel."""
    card.expect_at(layer, expert)
    evaluate = card.notebook.evaluate
    chosen, tokens = evaluate(f"[int(chosen({layer}, {expert}).sum()), len(indices)]")
    facts = card.root.locator(".moe-expert-facts").inner_text()
    assert f"chosen at {chosen} of {tokens} tokens ({100 * chosen / tokens:.1f} %; uniform 25.0 %)" in facts
    assert "completion tokens of 1 trace of tiny" in facts
    lifts = evaluate(
        f"[[trace.token_bytes(int(i)).decode(), *seen({layer}, {expert}, int(i))] for i in "
        "np.unique(np.asarray(trace.token_ids)[trace.num_prompt_tokens:])]"
    )
    shown = card.part("Tokens it takes").locator("li")
    texts = {"\n": "⏎", " ": "␣"}
    counts = {texts.get(text, text): (hits, seen) for text, hits, seen in lifts}
    for row in shown.all():
        text, lift, count = (part.strip() for part in row.locator("> span").all_inner_texts())
        hits, seen = counts[text]
        assert count == f"{hits} of {seen}"
        assert seen >= 10
        assert float(lift.removesuffix("×")) == pytest.approx(hits / seen * tokens / chosen, abs=0.051)
    part = card.part("Tokens it takes").inner_text()
    if shown.count():
        assert "shuffled tokens, 97.5 %:" in part
    else:
        assert "T = " in part
    together = evaluate(f"np.bincount(indices[:, {layer}][chosen({layer}, {expert})].ravel(), minlength=8).tolist()")
    for button in card.part("Chosen together with").locator("button").all():
        name, share = button.inner_text().split()[:2]
        assert float(share) == pytest.approx(together[int(name[1:])] / chosen, abs=0.0051)
    for row in card.part("By channel").locator("li").all():
        name, share, count = (part.strip() for part in row.locator("> span").all_inner_texts())
        if name == "format tokens":
            continue
        hits, tokens_of = evaluate(f"on({name!r}, {layer}, {expert})")
        assert count == f"of {tokens_of}"
        assert float(share.removesuffix(" %")) == pytest.approx(100 * hits / tokens_of, abs=0.051)
    of = sum(int(n.removeprefix("of ")) for n in card.part("By role").locator(".moe-expert-end").all_inner_texts())
    assert of == tokens


def test_partners_and_examples_are_buttons_that_move_the_one_selection(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, COUNT, IMPORT, "t = TraceExplorer(trace); t", "x = ExpertCard(trace); x"])
    explorer = notebook.page.locator(".moe-root").first
    explorer.wait_for(timeout=60_000)
    explorer.focus()
    for key in ("ArrowDown", "ArrowDown", "e", "]", "]", "]"):
        notebook.page.keyboard.press(key)
    card = Card(notebook)
    card.expect_at(2, 3)
    partner = card.part("Chosen together with").locator("button").first
    name = partner.inner_text().split()[0].removeprefix("e")
    partner.click()
    card.expect_at(2, int(name))
    expect(explorer).to_have_attribute("data-expert", name)
    # The button that was pressed is gone; the focus is on the one in its place, not lost to the notebook.
    expect(card.part("Chosen together with").locator("button").first).to_be_focused()
    example = card.part("In context").locator("button").nth(1)
    token = int(example.locator(".moe-expert-token").inner_text())
    rank = int(example.locator("> span").last.inner_text()[1])
    assert notebook.evaluate(f"int(trace.expert_indices[{token}, 2, {rank - 1}])") == int(name)
    assert example.locator("b").inner_text().replace("⏎", "\n").replace("␣", " ").replace("·", " ") == (
        notebook.evaluate(f"trace.token_text({token})")
    )
    example.focus()
    card.press("Enter")
    expect(explorer).to_have_attribute("data-token", str(token))
    expect(example).to_have_attribute("aria-current", "true")
    assert f"token {token}" in card.root.locator(".moe-status-line").inner_text()
    notebook.page.wait_for_timeout(300)
    assert notebook.evaluate("[t.token, t.layer, t.expert, x.token]") == [token, 2, int(name), token]


def test_an_example_of_several_traces_moves_the_views_of_its_own(lab_notebook: OpenNotebook) -> None:
    cell = (
        f"traces = [synthetic_trace({SMALL}, seed=s) for s in range(3)]; x = ExpertCard(traces, layer=3, expert=5); x"
    )
    show = "views = [TraceExplorer(t) for t in traces]; from ipywidgets import VBox; VBox(views)"
    notebook = lab_notebook([SYNTHETIC, IMPORT, cell, show])
    card = Card(notebook)
    card.expect_at(3, 5)
    example = card.part("In context").locator("button").nth(2)
    number, token = (int(n) for n in example.locator(".moe-expert-token").inner_text().split(":"))
    before = notebook.evaluate("[v.token for v in views]")
    notebook.page.locator(".moe-root").nth(3).wait_for(timeout=60_000)
    example.click()
    notebook.page.wait_for_timeout(500)
    after = notebook.evaluate("[[v.token, v.layer, v.expert] for v in views]")
    assert after[number] == [token, 3, 5]
    assert [v[0] for i, v in enumerate(after) if i != number] == [t for i, t in enumerate(before) if i != number]


def test_large_models_are_fetched_card_by_card(lab_notebook: OpenNotebook) -> None:
    sizes = "tokens=600, layers=10, experts=30, top_k=3, heads=6, kv_heads=2, d_head=14, window=9"
    notebook = lab_notebook(
        [SYNTHETIC, IMPORT, f"trace = synthetic_trace({sizes})", "x = ExpertCard(trace, layer=9); x"]
    )
    card = Card(notebook)
    card.expect_at(9, 0)
    expect(card.part("Tokens it takes")).to_be_visible(timeout=20_000)
    card.root.focus()
    card.press(*["]"] * 12)
    card.expect_at(9, 12)
    expect(card.root.locator('.moe-expert[data-state="here"]')).to_be_visible(timeout=20_000)
    chosen = notebook.evaluate("int((trace.expert_indices[trace.num_prompt_tokens:, 9] == 12).sum())")
    expect(card.root.locator(".moe-expert-facts")).to_contain_text(f"chosen at {chosen} of ")


def test_hostile_texts_are_text_and_keys_stay_in_the_view(lab_notebook: OpenNotebook) -> None:
    texts = f"texts={HOSTILE * 4!r}"
    cell = (
        "from dataclasses import replace\n"
        f"trace = synthetic_trace({SMALL}, {texts})\n"
        "question = '<img src=x onerror=window.hacked=4>'\n"
        "trace = replace(trace, meta={**trace.meta, 'question': question})\n"
        "trace = replace(trace, spans=tuple(replace(s, role=question) if s.role.startswith('functions') else s "
        "for s in trace.spans))\n"
        "trace.arrays['expert_indices'][:, 0] = 0, 5\n"
        "x = ExpertCard(trace, layer=0, expert=5, min_count=4); x"
    )
    notebook = lab_notebook([SYNTHETIC, IMPORT, cell])
    card = Card(notebook)
    cells = notebook.page.locator(".jp-Notebook .jp-Cell").count()
    text = card.root.inner_text()
    assert "<img src=x onerror=window.hacked=4>" in text
    assert notebook.page.evaluate("window.hacked") is None
    assert card.root.locator("script, img, svg").count() == 0
    card.root.focus()
    card.press("b", "a", "d", "d", "x", "r")
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == cells
    # Every token chose both experts: no id stands out, and nothing is drawn.
    part = card.part("Tokens it takes")
    expect(part.locator("li")).to_have_count(0)
    assert "none is chosen more often than the base rate" in part.inner_text()
    card.press("]")
    card.expect_at(0, 6)
    for title in ("Tokens it takes", "Along the trace", "Chosen together with", "In context"):
        assert "no token chose this expert in T = 247 tokens" in card.part(title).inner_text()
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []


def test_without_a_kernel_and_a_layer_that_is_not_there(lab_notebook: OpenNotebook) -> None:
    cell = (
        f"trace = synthetic_trace({SMALL})\n"
        "from dataclasses import replace\n"
        "arrays = {n: a[:, :2] if n.startswith(('expert', 'router')) else a for n, a in trace.arrays.items()}\n"
        "trace = replace(trace, arrays=arrays, meta={**trace.meta, 'layers': "
        "{n: [1, 3] for n in arrays if n.startswith(('expert', 'router'))}})\n"
        "x = ExpertCard(trace); x"
    )
    notebook = lab_notebook([SYNTHETIC, IMPORT, cell])
    card = Card(notebook)
    card.expect_at(1, 0)
    notebook.page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    card.root.focus()
    card.press("]", "]", "ArrowDown")
    card.expect_at(2, 2)
    error = card.root.get_by_role("alert")
    expect(error).to_have_text("The router of layer 2 is not in these traces. Captured: 1, 3.")
    card.press("ArrowDown")
    card.expect_at(3, 2)
    expect(card.part("In context").locator("button")).to_have_count(3)


def test_it_looks_right_and_axe_finds_nothing_serious(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, IMPORT, "x = ExpertCard(trace, layer=1, expert=3); x"], width=1280)
    card = Card(notebook)
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        expect(card.root).to_have_attribute("data-theme", theme)
        notebook.screenshot(f"expert_card_{theme}", of=card.root)
        assert_nothing_serious(notebook)
    # By keyboard alone: out of the choosers, onto the partners, onto the examples.
    card.root.focus()
    for _ in range(4):
        card.press("Tab")
    focused: Any = notebook.page.evaluate("document.activeElement.dataset.place")
    assert focused == "partner-1"


def assert_nothing_serious(notebook: LabNotebook) -> None:
    found = Axe().run(notebook.page, context=".moe-root").response["violations"]
    serious = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)

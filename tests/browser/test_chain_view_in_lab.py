"""ChainView in a real JupyterLab: what it shows is what the trace and the analysis give, by mouse and by keyboard."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import LabNotebook, LabServer, OpenNotebook, PageView
from playwright.sync_api import Locator, expect

import workbench as wb

TESTS = Path(__file__).parents[1]
WRITTEN = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from written_chain import written_chain"
SYNTHETIC = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from synthetic import synthetic_trace"
IMPORT = "from widgets import ChainView, TraceExplorer"
OPEN = "import workbench as wb; trace = wb.open_trace('hint-chain.safetensors')"
MODEL = (
    "from functools import partial; from workbench.experiments.continuation import continue_from\n"
    "model = wb.load('tiny', device='cpu')\n"
    "go_on = partial(continue_from, model, temperature=0, capture=wb.CaptureSpec(attention=False))"
)
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=2>",
    "\u202egnp.exe",
    "😀",
    "\x00\x07",
]

# What the kernel computes itself, for comparison.
KERNEL = """
import numpy as np
from workbench.analysis.reasoning import answer_in_lens, entropy, forking_tokens, label_sentences, per_sentence
def lens(token, layer):
    at = trace.layers('lens_token_ids').index(layer)
    ids = trace.arrays['lens_token_ids'][token, at].tolist()
    probs = np.exp(trace.arrays['lens_logprobs'][token, at].astype('f8')).tolist()
    return [[trace.token_bytes(i).decode(), p] for i, p in zip(ids, probs)]
def top(token):
    ids, logs = trace.arrays['top_token_ids'][token], trace.arrays['top_logprobs'][token].astype('f8')
    return [[int(i), float(np.exp(p))] for i, p in zip(ids, logs)]
"""


@pytest.fixture(scope="module", autouse=True)
def hint_trace(tiny: wb.Model, lab_server: LabServer) -> None:
    """Captured once, for the kernels to open."""
    trace = wb.capture(tiny, "91+40+98+66=? hint: 249", effort="high", seed=0)
    trace.save(lab_server.root / "hint-chain.safetensors")


class View(PageView):
    """One chain view on the page."""

    def __init__(self, notebook: LabNotebook, index: int = 0) -> None:
        super().__init__(notebook, ".moe-chain", index)
        self.branches = self.root.locator(".moe-branches")
        self.go_on = self.root.locator(".moe-go-on")

    def row(self, sentence: int) -> Locator:
        return self.root.locator(f'.moe-chain-row[data-sentence="{sentence}"]')

    def alternatives(self) -> list[tuple[str, str]]:
        """What could stand in place of the token, as (text, probability)."""
        rows = self.root.locator(".moe-alternative-row:not([hidden])")
        return [
            (row.locator(".moe-alternative").inner_text(), row.locator(".moe-number").inner_text())
            for row in rows.all()
        ]

    def lens(self, layer: int) -> list[tuple[str, str]]:
        cells = self.root.locator(f'.moe-chain-lens tr[data-layer="{layer}"] td')
        return [
            (cell.locator(".moe-code").inner_text(), cell.locator(".moe-number").inner_text()) for cell in cells.all()
        ]

    def expect_branch(self, number: int) -> None:
        expect(self.branches).to_have_attribute("data-branch", str(number), timeout=90_000)
        expect(self.branches).to_have_attribute("data-job", "done", timeout=30_000)


def digits(p: float, count: int) -> str:
    """Write a probability as the view does: .83, 1.0; .474, 1.00, <.001."""
    if count == 3 and p < 0.0005:
        return "<.001"
    text = f"{p:.{count}f}"
    return ("1.0" if count == 2 else "1.00") if text.startswith("1") else text[1:]


def assert_it_shows(view: View, token: int, layer: int) -> None:
    """Compare lens, alternatives and numbers at a selection with the trace in the kernel."""
    notebook = view.notebook
    view.expect(token=token, layer=layer)
    for at in range(4):
        expected = notebook.evaluate(f"lens({token}, {at})")
        assert [shown[1] for shown in view.lens(at)] == [digits(p, 2) for _, p in expected]
        assert [plain(shown[0]) for shown in view.lens(at)] == [text for text, _ in expected]
    expected = notebook.evaluate(f"[[trace.token_bytes(i).decode(), p] for i, p in top({token})]")
    shown = [(plain(text), p) for text, p in view.alternatives()]
    assert shown[: len(expected)] == [(text, digits(p, 3)) for text, p in expected]
    status = view.root.locator(".moe-status-line").inner_text()
    entropy = notebook.evaluate(f"float(trace.entropy[{token}])")
    assert f"entropy {entropy:.2f} nats" in status.replace("\n", " ")


def plain(cell: str) -> str:
    """The text of a token from its cell."""
    if re.fullmatch("⟨.*⟩", cell):
        return f"<|{cell[1:-1]}|>"
    return "".join({"·": " ", "␣": " ", "⏎": "\n"}.get(c, c) for c in cell)


def test_it_follows_the_keys_and_shows_the_traces_numbers(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, KERNEL, IMPORT, "x = ChainView(trace); x", "y = TraceExplorer(trace); y"])
    view = View(notebook)
    start = notebook.evaluate("trace.num_prompt_tokens")
    view.expect(token=start, layer=0)
    view.press(*["ArrowRight"] * 6, "ArrowLeft", "ArrowDown", "ArrowDown")
    assert_it_shows(view, start + 5, 2)
    expect(notebook.page.locator(".moe-root:not(.moe-chain)")).to_have_attribute("data-token", str(start + 5))

    starts = notebook.evaluate("[s.sentence.start for s in label_sentences(trace, channel=None)]")
    view.press("Shift+ArrowRight")
    view.expect(token=next(s for s in starts if s > start + 5))
    view.press("End")
    view.expect(token=notebook.evaluate("len(trace) - 1"))
    assert "nothing follows" in view.root.locator(".moe-chain-lens").inner_text()
    forks = notebook.evaluate("forking_tokens(trace, channel='analysis').tokens.tolist()")
    view.press("Home", "f", "f", "f", "Shift+F")
    view.expect(token=forks[1])
    marked = view.root.locator(".moe-chain-text .moe-fork")
    assert marked.count() == len(forks)

    notebook.execute("a = answer_in_lens(trace)")
    view.press("g")
    first = notebook.evaluate("list(a.first)")
    assert_it_shows(view, first[0], first[1])
    hits = notebook.evaluate("[l for l in range(4) if a.rank[a.first[0], l] >= 0]")
    with_answer = view.root.locator('.moe-chain-lens tr[data-answer="true"]')
    assert [int(row.get_attribute("data-layer") or -1) for row in with_answer.all()] == hits
    words = view.root.locator(".moe-chain-answer").inner_text()
    assert f"answer {notebook.evaluate('a.text')} in the lens: first at token {first[0]}, layer {first[1]}" in words
    assert notebook.evaluate("f'predicted by {a.num_predicting} of {a.num_lenses} lenses'") in words

    notebook.execute(
        "s = label_sentences(trace, channel=None); e = per_sentence(entropy(trace), [x.sentence for x in s])"
    )
    for number in (0, 1, len(starts) - 1):
        cell = view.row(number).locator(".moe-chain-entropy")
        shown = [float(cell.get_attribute(f"data-{name}") or "nan") for name in ("mean", "max")]
        assert shown == pytest.approx(notebook.evaluate(f"[e.mean[{number}], e.max[{number}]]"), abs=1e-6)
        labels = [x.get_attribute("data-label") for x in view.row(number).locator(".moe-label").all()]
        assert labels == notebook.evaluate(f"list(s[{number}].labels)")
        rule = notebook.evaluate(f"[f'rule {{f.rule}}: “{{f.text.strip()}}”' for f in s[{number}].fired][0]")
        assert rule in (view.row(number).locator(".moe-label").first.get_attribute("title") or "")
    notebook.execute("y.token = 3")
    view.expect(token=3)
    assert "in the prompt" in view.root.locator(".moe-status-line").inner_text().replace("\n", " ")
    assert notebook.heard.page_errors == []


def told(notebook: LabNotebook, expression: str, expected: Any) -> None:
    """Wait until the kernel has heard of a change on the page."""
    for _ in range(50):
        if notebook.evaluate(expression) == expected:
            return
        notebook.page.wait_for_timeout(100)
    assert notebook.evaluate(expression) == expected


def test_clicks_select_and_own_labels_replace_those_of_the_rules(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, KERNEL, IMPORT, "x = ChainView(trace, labels_by='Ada'); x"])
    view = View(notebook)
    third = notebook.evaluate("label_sentences(trace, channel=None)[2].sentence.start")
    view.row(2).locator(".moe-chain-number").click()
    view.expect(token=third)
    view.root.locator('.moe-chain-lens tr[data-layer="3"]').click()
    view.expect(layer=3)
    box = view.root.locator(".moe-chain-overview canvas").bounding_box()
    assert box is not None
    view.root.locator(".moe-chain-overview canvas").click(position={"x": box["width"] / 2, "y": 50})
    count = notebook.evaluate("len(trace) - trace.num_prompt_tokens")
    view.expect(token=notebook.evaluate("trace.num_prompt_tokens") + count // 2)
    view.root.locator(".moe-chain-overview canvas").click(position={"x": box["width"] / 2, "y": 96})
    view.expect(layer=0)

    view.row(2).locator(".moe-chain-number").click()
    view.expect(token=third)
    panel = view.root.locator(".moe-chain-rules")
    assert "result consolidation rule so: “so”" in panel.inner_text().replace("\n", " ")
    view.press("1")
    panel.get_by_role("button", name="result consolidation").click()
    expect(view.row(2).locator(".moe-label")).to_have_text(["✎ problem setup"])
    expect(panel).to_contain_text("labels by Ada")
    assert "result consolidation rule so" in panel.inner_text().replace("\n", " "), "what fired stays to be seen"
    told(notebook, "{str(k): list(v) for k, v in x.labels.items()}", {str(third): ["problem setup"]})
    assert notebook.evaluate("[x.labelled[2].labels[0], x.labelled[2].by]") == ["problem setup", "Ada"]
    notebook.execute(f"x.labels = {{{third}: ['self checking', 'unknown']}}")
    expect(view.row(2).locator(".moe-label")).to_have_text(["✎ self checking", "✎ unknown"])
    panel.get_by_role("button", name="back to the rules").click()
    expect(view.row(2).locator(".moe-label")).to_have_text(["result consolidation"])
    view.press("/")
    notebook.page.keyboard.type("check")
    view.root.locator(".moe-find").get_by_text(re.compile(r"^\d+ of \d+$")).wait_for()
    view.expect(token=notebook.evaluate("next(i for i in range(len(trace)) if trace.token_text(i) == 'check')"))


def test_the_model_goes_on_from_an_alternative_by_mouse_and_by_keyboard(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, KERNEL, MODEL, IMPORT, "x = ChainView(trace, continue_from=go_on); x"])
    view = View(notebook)
    page = notebook.page
    last = notebook.evaluate("len(trace) - 2")
    notebook.execute(f"x.token = {last}")
    view.expect(token=last)
    other = view.root.locator(".moe-alternative-row:not([hidden])").nth(2)
    chosen = int(other.get_attribute("data-id") or -1)
    other.click()
    expect(other).to_have_attribute("aria-pressed", "true")
    expect(view.go_on).to_contain_text("continue from")
    view.go_on.click()
    expect(view.branches).to_have_attribute("data-job", re.compile("sent|running"))
    expect(view.go_on).to_be_disabled()
    view.expect_branch(0)
    origin = notebook.evaluate("x.branches[0].meta['continued_from']")
    assert (origin["token"], origin["replacement"]) == (last, [chosen])
    columns = view.root.locator(".moe-branch")
    assert notebook.evaluate("trace.final_text") in columns.nth(0).locator(".moe-branch-answer").inner_text()
    assert notebook.evaluate("x.branches[0].final_text") in columns.nth(1).locator(".moe-branch-answer").inner_text()
    assert view.branches.locator(".moe-verdict").inner_text() == "other answer"

    early = notebook.evaluate("trace.num_prompt_tokens + 5")
    notebook.execute(f"x.token = {early}")
    view.expect(token=early)
    view.press("]", "Enter")
    view.expect_branch(1)
    tops = [i for i, _ in notebook.evaluate(f"top({early})")]
    others = [i for i in tops if i != notebook.evaluate(f"int(trace.token_ids[{early}])")]
    put = notebook.evaluate("x.branches[1].meta['continued_from']['replacement']")
    assert put[0] == tops[min(len(tops) - 1, tops.index(others[0]) + 1)]
    text = notebook.evaluate(f"x.branches[1].text({early})").split("<|end|>")[0]
    shown = columns.nth(1).locator(".moe-content").first.text_content() or ""
    assert shown == text, "the replacement and all that follows, to the end of the analysis"
    assert columns.nth(1).locator(".moe-put").first.text_content() == notebook.evaluate(
        f"x.branches[1].token_text({early})"
    )
    original = notebook.evaluate(f"trace.text({early})").split("<|end|>")[0]
    assert columns.nth(0).locator(".moe-content").first.text_content() == original
    notebook.screenshot("chain_view_branch", of=view.branches)

    view.press("o")
    page.keyboard.type("9 so 7")
    page.keyboard.press("Enter")
    view.expect_branch(2)
    assert notebook.evaluate(f"x.branches[2].text({early}, {early} + 5)").startswith("9 so 7")
    view.press(",")
    expect(view.branches).to_have_attribute("data-branch", "1")
    view.branches.get_by_role("button", name="branch 0").click()
    expect(view.branches).to_have_attribute("data-branch", "0")
    assert [len(b) > 0 for b in [notebook.evaluate("x.branches[0].final_text")]] == [True]

    view.press("o")
    page.keyboard.type("so<|end|>")
    page.keyboard.press("Enter")
    expect(view.branches).to_have_attribute("data-job", "failed", timeout=60_000)
    error = view.branches.get_by_role("alert").inner_text()
    assert f"Continuing from token {early}" in error
    assert "the replacement text contains <|end|>, which the tokenizer reads as the format's own" in error
    assert notebook.evaluate("len(x.branches)") == 3
    expect(view.go_on).to_be_enabled()
    view.root.get_by_role("button", name="choose anew").click()
    view.expect_branch(3)
    assert notebook.evaluate("x.branches[3].meta['continued_from']['replacement']") == []
    notebook.execute("x.branch(x.token, 3)")
    view.expect_branch(4)
    assert notebook.heard.page_errors == []


def test_it_looks_right_in_light_and_dark_and_axe_finds_nothing_serious(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([OPEN, MODEL, IMPORT, "x = ChainView(trace, continue_from=go_on); x"], height=1400)
    view = View(notebook)
    view.press("g")
    view.expect(theme="light")
    notebook.execute("_ = x.branch(trace.num_prompt_tokens + 5, '7')")
    view.expect_branch(0)
    notebook.screenshot("chain_view_light", of=view.root)
    assert_nothing_serious(view)
    notebook.set_theme("dark")
    view.expect(theme="dark")
    notebook.screenshot("chain_view_dark", of=view.root)
    assert_nothing_serious(view)
    view.press("?")
    view.root.get_by_role("dialog").wait_for()
    assert_nothing_serious(view)


def assert_nothing_serious(view: View) -> None:
    found = Axe().run(view.page, context=".moe-root").response["violations"]
    serious = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(serious, indent=1)


def test_hostile_texts_what_is_missing_and_no_kernel(lab_notebook: OpenNotebook) -> None:
    bad = "[['<b>wait</b>', ' ', *texts], ['so', ' 5', '.']]"
    cells = [
        f"texts = {HOSTILE!r}\n"
        "from dataclasses import replace\n"
        f"h = written_chain({bad}, ['<i>5</i>'])\n"
        "h = replace(h, meta={**h.meta, 'question': '<img src=x onerror=window.hacked=4>'})\n"
        "def fail(trace, token, put): raise RuntimeError('<img src=x onerror=window.hacked=5>')\n"
        "x = ChainView(h, continue_from=fail); x",
        "b = written_chain([['7+5=12', '\\n'], ['wait', ' 7+5=13', '.']], ['5'])\n"
        "b = replace(b, arrays={n: a for n, a in b.arrays.items() if not n.startswith('lens')})\n"
        "y = ChainView(b); y",
    ]
    notebook = lab_notebook([WRITTEN, IMPORT, *cells])
    view, bare = View(notebook, 0), View(notebook, 1)
    for _ in range(12):
        view.press("ArrowRight")
    assert "<img src=x onerror=window.hacked=4>" in view.root.locator(".moe-question").inner_text()
    assert "<script>window.hacked = 1</script>" in view.row(0).inner_text()
    view.root.get_by_role("button", name="choose anew").click()
    expect(view.branches.get_by_role("alert")).to_contain_text("RuntimeError: <img src=x onerror=window.hacked=5>")
    assert notebook.page.evaluate("window.hacked") is None
    assert view.root.locator("script, img, b b, i i").count() == 0

    assert [badge.inner_text() for badge in bare.root.locator(".moe-badge-missing").all()[:3]] == [
        "entropy not captured",
        "alternatives not captured",
        "lens not captured",
    ]
    assert "forking tokens: entropy not captured" in bare.root.locator(".moe-chain-head").inner_text()
    assert bare.row(0).locator(".moe-chain-entropy").get_attribute("title") == "entropy not captured"
    assert "lens not captured" in bare.root.locator(".moe-chain-lens").inner_text()
    assert "alternatives not captured" in bare.root.locator(".moe-chain-alternatives").inner_text()
    assert "answer in the lens: lens not captured" in bare.root.locator(".moe-chain-answer").inner_text()
    expect(bare.go_on).to_be_disabled()
    assert "ChainView(trace, continue_from=partial(continue_from, model))" in bare.root.inner_text()
    turn = bare.row(1).get_by_role("button")
    assert "turns back to sentence 1: similarity 0.50" in (turn.get_attribute("title") or "")
    turn.click()
    bare.expect(token=notebook.evaluate("b.sentences[0].start"))
    notebook.screenshot("chain_view_missing", of=bare.root)

    notebook.page.evaluate(
        "async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()"
    )
    bare.press("Home", "ArrowRight", "ArrowRight")
    bare.expect(token=notebook_start(bare) + 2)
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []


def notebook_start(view: View) -> int:
    return int(view.root.locator(".moe-chain-message .moe-channel").first.get_attribute("data-token") or -1)


def test_interrupting_the_kernel_ends_the_waiting_and_narrow_views_fit(lab_notebook: OpenNotebook) -> None:
    cells = [
        "import time\ndef wait(trace, token, put):\n    while True: time.sleep(0.05)",
        "x = ChainView(written_chain([['7+5=12', '\\n'], ['so', ' 12', '.']], ['5']), continue_from=wait); x",
    ]
    notebook = lab_notebook([WRITTEN, IMPORT, *cells])
    notebook.page.set_viewport_size({"width": 800, "height": 900})
    view = View(notebook)
    view.root.get_by_role("button", name="choose anew").click()
    expect(view.branches).to_have_attribute("data-job", "running", timeout=20_000)
    expect(view.branches.get_by_role("status")).to_contain_text("the model runs")
    view.page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()")
    words = "Continuing from token 7, chosen anew, failed: interrupted before there was anything to show"
    expect(view.branches.get_by_role("alert")).to_have_text(words, timeout=20_000)
    width = view.root.bounding_box()["width"]  # type: ignore[index]
    assert view.root.evaluate("e => [...e.querySelectorAll('section')].every(s => s.scrollWidth <= e.clientWidth)")
    assert width < 700
    notebook.screenshot("chain_view_narrow", of=view.root)
    assert notebook.heard.page_errors == []


MEASURE = """() => {
    window.durations = [];
    new PerformanceObserver(list => list.getEntries().forEach(e => e.name === 'keydown' && durations.push(e.duration)))
        .observe({type: 'event', durationThreshold: 16});
}"""


def test_a_chain_of_20_000_tokens_steps(lab_notebook: OpenNotebook, capsys: pytest.CaptureFixture[str]) -> None:
    """Step times are printed; what is asserted is that they do not grow with the chain."""
    small = "heads=2, kv_heads=1, d_head=4, layers=24, experts=4, top_k=2"
    cells = [f"trace = synthetic_trace(tokens=20_000, {small})", "x = ChainView(trace, token=11_000); x"]
    notebook = lab_notebook([SYNTHETIC, IMPORT, *cells])
    view = View(notebook)
    view.expect(token=11_000)
    mounted = view.root.locator(".moe-chain-text [data-token]").count()
    assert 300 < mounted < 1000
    view.page.evaluate(MEASURE)
    for _ in range(40):
        view.press("ArrowRight")
        view.page.wait_for_timeout(60)
    view.expect(token=11_040)
    view.page.wait_for_timeout(500)
    # Event Timing reports nothing under 16 ms: those steps count as 8.
    reported = view.page.evaluate("durations")
    durations = sorted([8.0] * max(0, 40 - len(reported)) + reported)
    with capsys.disabled():
        print(f"\nChainView, 20,000 tokens: step p50 {durations[20]} ms, p95 {durations[38]} ms, n = 40")
    assert durations[20] <= 100
    view.press("End", "Shift+ArrowLeft")
    expect(view.root.locator(".moe-current")).to_have_count(1)
    view.press("f")
    notebook.screenshot("chain_view_20000", of=view.root)
    assert notebook.heard.page_errors == []

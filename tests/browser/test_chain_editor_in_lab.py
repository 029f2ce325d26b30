"""ChainEditor in a real JupyterLab: edits by keyboard and by mouse that change the answer, and the tree they make."""

import re
from typing import Any

from lab import OpenNotebook, PageView
from playwright.sync_api import Locator, expect
from test_explorer_in_lab import HOSTILE, SYNTHETIC, View, assert_nothing_serious

CAPTURE = """
import torch; torch.set_num_threads(1)
from functools import partial
import workbench as wb
from widgets import ChainEditor, TraceExplorer
from workbench.experiments.continuation import continue_from
model = wb.load("tiny")
trace = wb.capture(model, "47 + 85 + 39 = ?", effort="medium", temperature=0)
go_on = partial(continue_from, model, capture=wb.CaptureSpec(attention=False, lens=False))
"""
EDITOR = "v = ChainEditor(trace, run=go_on); v"


class Editor(PageView):
    """One editor on the page."""

    def __init__(self, notebook: Any, index: int = 0) -> None:
        super().__init__(notebook, ".moe-chain-editor", index)
        self.text = self.root.get_by_label("Text", exact=True)
        self.columns = self.root.locator(".moe-editor-columns .moe-chain-list")

    def field(self, name: str) -> Locator:
        return self.root.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def status(self) -> str:
        return self.root.locator(".moe-status-line").inner_text()

    def verdict(self) -> Locator:
        return self.root.locator(".moe-editor-verdict")

    def branches(self) -> list[str]:
        """The tree, one text a branch, from top to bottom."""
        items = self.root.locator(".moe-editor-branches > li")
        return [" ".join(text.split()) for text in items.all_inner_texts()]

    def type(self, text: str) -> None:
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)


def assert_answers_are_the_kernels(editor: Editor, branch: int) -> None:
    """Compare the counts of a branch in the tree with the traces in the kernel."""
    shares = editor.notebook.evaluate(f"[[s.answer, s.count, s.n, list(s.interval)] for s in v.tally({branch})]")
    assert sum(count for _, count, _, _ in shares) == editor.notebook.evaluate(f"len(v.branches[{branch}].traces)")
    said = next(t for t in editor.branches() if t.startswith(f"{branch} "))
    for answer, count, n, (low, high) in shares:
        ends = [f"{end:.2f}".removeprefix("0").replace("1.00", "1.0") for end in (low, high)]
        original = " as original" if answer == "171" else ""
        assert f"{answer}{original} {count} of {n} [{ends[0]}–{ends[1]}]" in said


def test_a_tree_of_edits_by_keyboard_and_by_mouse(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([CAPTURE, EDITOR, "x = TraceExplorer(trace); x"], height=1300)
    editor, explorer, page = Editor(notebook), View(notebook, 1), notebook.page
    starts = notebook.evaluate("[s.start for s in trace.sentences if s.channel == 'analysis']")
    editor.expect(sentence=0, token=starts[0], branch=0)
    assert editor.columns.count() == 1

    # Down to the second sentence, in all views of the trace: a partial sum.
    editor.press("j")
    editor.expect(sentence=1, token=starts[1])
    explorer.expect(token=starts[1])
    editor.press("ArrowDown", "k")
    editor.expect(sentence=1)

    # By keyboard: another partial sum. What is typed is text, whatever the keys mean.
    editor.press("e")
    expect(editor.text).to_be_focused()
    expect(editor.text).to_have_value("4+8+3+2=17")
    editor.type("d1t?j")
    expect(editor.text).to_have_value("d1t?j")
    editor.expect(sentence=1, branch=0)
    editor.type("4+8+3+2=19")
    page.keyboard.press("Escape")
    editor.field("Rollouts").fill("3")
    cost = editor.root.locator(".moe-editor-cost")
    expected = notebook.evaluate("(lambda c: [c.read, c.written, c.seconds])(v.cost('replace', 1, 'x', samples=3))")
    expect(cost).to_contain_text(f"3 rollouts × about {expected[1]} tokens written, {expected[0]} read")
    expect(cost).to_contain_text(f"about {expected[2]:.1f} s")
    expect(cost).to_contain_text("as measured when the trace was captured on cpu")
    editor.press("Enter")
    editor.expect(job="done", branch=1)
    assert notebook.evaluate("[t.analysis_text.split()[1] for t in v.branches[1].traces]") == ["4+8+3+2=19"] * 3
    answers = notebook.evaluate("[t.final_text for t in v.branches[1].traces]")
    assert answers[0] == "191"
    assert "171" not in answers
    assert_answers_are_the_kernels(editor, 1)
    expect(editor.verdict()).to_contain_text("answer 191 in place of 171 · chain 26 tokens, 26 in original")
    assert editor.columns.count() == 2
    assert "4+8+3+2=17" in editor.columns.nth(0).inner_text()
    assert "4+8+3+2=19" in editor.columns.nth(1).inner_text()
    assert "written by the model from token 59" in editor.columns.nth(1).inner_text()
    differ = editor.columns.nth(1).locator(".moe-differs").all_inner_texts()
    assert "".join(differ).replace("⏎", "").strip().startswith("9")
    expect(editor.columns.nth(1).locator(".moe-by-hand .moe-chain-number")).to_have_text("✎ 2")

    # The same with the rest kept: it is read off the last line, not added up again.
    editor.press("0")
    editor.expect(branch=0, sentence=1)
    editor.press("e")
    editor.type("4+8+3+2=19")
    page.keyboard.press("Escape")
    editor.press("w", "Enter")
    editor.expect(job="done", branch=2)
    assert notebook.evaluate("v.branches[2].edit.rest") == "kept"
    assert notebook.evaluate("[t.final_text for t in v.branches[2].traces]") == ["171"] * 3
    assert "171 as original 3 of 3 [.44–1.0]" in editor.branches()[2]
    expect(editor.verdict()).to_contain_text("same answer: 171")

    # By mouse: delete the last sentence and keep the rest; then the control, with nothing changed.
    editor.root.locator('.moe-editor-branch[data-branch="0"]').click()
    editor.expect(branch=0)
    editor.columns.first.locator('.moe-chain-row[data-sentence="2"] .moe-chain-number').click()
    editor.expect(sentence=2)
    editor.button("delete").click()
    expect(editor.text).to_be_hidden()
    editor.button("Run").click()
    editor.expect(job="done", branch=3)
    assert notebook.evaluate("[t.analysis_text.count('so') for t in v.branches[3].traces]") == [0, 0, 0]
    assert_answers_are_the_kernels(editor, 3)
    assert "171" not in notebook.evaluate("[t.final_text for t in v.branches[3].traces]")
    editor.press("0")
    editor.expect(branch=0)
    editor.press("Home", "j", "t", "w")
    expect(cost).to_contain_text("nothing is changed: a control")
    editor.press("w")
    expected = notebook.evaluate("(lambda c: [c.read, c.written])(v.cost('truncate', 1, rest='kept'))")
    expect(cost).to_contain_text(f"about {expected[1]} tokens written, {expected[0]} read")
    editor.press("w")
    editor.press("Enter")
    editor.expect(job="done", branch=4)
    assert notebook.evaluate("[t.final_text for t in v.branches[4].traces]") == ["171"] * 3

    # A branch of a branch hangs under it; greedy is one rollout, with no interval.
    editor.press("1")
    editor.expect(branch=1)
    editor.press("End", "i")
    editor.type("so 55")
    editor.field("Temperature, 0 is greedy").fill("0")
    expect(editor.field("Rollouts")).to_be_disabled()
    editor.field("Temperature, 0 is greedy").press("Enter")
    editor.expect(job="done", branch=5)
    assert notebook.evaluate("[v.branches[5].parent, v.branches[5].edit.text, len(v.branches[5].traces)]") == [
        *[1, "so 55\n", 1]
    ]
    order = [int(text.split()[0]) for text in editor.branches()]
    assert order == [0, 1, 5, 2, 3, 4]
    assert editor.root.locator(".moe-editor-branches > li").nth(2).get_attribute("data-depth") == "2"
    assert "1 of 1 [" not in editor.branches()[2]

    # Another two side by side, and the same pair in a TraceDiff.
    editor.press("3")
    editor.expect(branch=3)
    editor.field("Compare with").select_option("branch 2")
    expect(editor.verdict()).to_contain_text("in branch 2")
    editor.press(".")
    expect(editor.columns.nth(1).locator(".moe-chain-head")).to_contain_text("rollout 2 of 3")
    assert notebook.evaluate("[list(v.shown), list(v.beside)]") == [[3, 1], [2, 0]]
    assert notebook.evaluate("v.diff(2, (3, 1))._facts['labels']") == ["branch 2, rollout 0", "branch 3, rollout 1"]
    notebook.execute("x.token = 45")
    editor.expect(token=45, sentence=0)

    # Stop ends a long one, and keeps the rollouts that are done.
    editor.press("0")
    editor.expect(branch=0)
    editor.press("Home", "d")
    editor.field("Temperature, 0 is greedy").fill("1")
    editor.field("Rollouts").fill("900")
    editor.field("Rollouts").press("Enter")
    expect(editor.root.locator(".moe-bench-job")).to_contain_text(re.compile("[1-9][0-9]* of 900 rollouts done"))
    editor.button("Stop").click()
    editor.expect(job="done", branch=6)
    done = notebook.evaluate("[len(v.branches[6].traces), v.branches[6].wanted]")
    assert 1 <= done[0] < done[1] == 900
    assert f"interrupted after {done[0]} of 900" in next(t for t in editor.branches() if t.startswith("6 "))
    editor.field("Rollouts").fill("3")

    # What cannot be done is said, and leaves the tree as it is.
    editor.press("0")
    editor.expect(branch=0)
    editor.press("j", "e")
    editor.type("4+8+3+2=17")
    page.keyboard.press("Enter")
    expect(editor.root.locator(".moe-editor-form .moe-job-error")).to_contain_text("the sentence is as it was")
    editor.press("e")
    editor.type("<|end|>")
    page.keyboard.press("Enter")
    editor.expect(job="failed")
    error = editor.root.locator(".moe-editor-main > .moe-job-error")
    expect(error).to_contain_text("not done: the replacement text contains <|end|>, which the tokenizer reads as")
    assert notebook.evaluate("len(v.branches)") == 7
    editor.press("?")
    expect(editor.root.get_by_role("dialog")).to_be_visible()
    editor.press("Escape", "1")
    editor.expect(branch=1)
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        editor.expect(theme=theme)
        page.wait_for_timeout(300)
        assert_nothing_serious(editor)
        notebook.screenshot(f"chain_editor_{theme}", of=editor.root)
    assert page.locator(".jp-Notebook .jp-Cell").count() == 3
    assert notebook.heard.page_errors == []
    assert notebook.heard.console_errors == []


WRITTEN = f"""
from dataclasses import replace
from written_trace import written_trace
evil = '<img src=x onerror=window.hacked=4>'
tokens = [t.encode('utf-8', 'surrogateescape') for t in {HOSTILE!r}]
prompt = [evil, '\\n', 'so', ' ', '4', '5']
w = written_trace([*tokens, '\\n', 'so', ' ', '4', '\\n'], [evil], prompt=prompt)
w = replace(w, meta={{**w.meta, 'question': evil}})
other = written_trace(['so', ' ', '5', '\\n', *tokens], [evil, '5'], prompt=prompt)
e = ChainEditor(w, run=lambda *_, **__: other)
e.edit('replace', 0, evil, samples=2)
e.annotated.save('edited.safetensors')
import workbench as wb
v = ChainEditor(wb.open_trace('edited.safetensors')); v
"""
LONG = """
def failing(*_, **__): raise ValueError(evil)
long = synthetic_trace(tokens=20_000, layers=1, heads=2, kv_heads=1, d_head=4, experts=4, top_k=2)
u = ChainEditor(long, run=failing); u
"""


def test_hostile_text_what_was_saved_and_a_long_chain(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([f"{SYNTHETIC}\nfrom widgets import ChainEditor", WRITTEN, LONG], height=900)
    editor, page = Editor(notebook), notebook.page
    evil = "<img src=x onerror=window.hacked=4>"
    assert len(editor.branches()) == 2
    assert "no model to run: make it with ChainEditor(trace, run=" in editor.root.inner_text()
    editor.press("e", "d", "Enter", "1")
    editor.expect(branch=1)
    assert "job" not in (editor.root.evaluate("e => Object.keys(e.dataset)") or [])
    editor.field("Compare with").select_option("original")
    expect(editor.columns).to_have_count(2)
    assert f"sentence 1 replaced: {evil}" in editor.branches()[1]
    assert f"answer {evil}5 in place of {evil}" in editor.verdict().inner_text()
    assert "⟨202E⟩gnp.exe" in editor.columns.nth(0).inner_text()
    assert "漢字" in editor.columns.nth(0).inner_text()

    # Of a long chain a stretch is mounted and the rest counted; the end is one key away.
    long = Editor(notebook, 1)
    count = notebook.evaluate("len(u._pair['shown']['sentences'])")
    expect(long.root.locator(".moe-more")).to_contain_text("tokens after")
    assert long.root.locator(".moe-chain-row").count() < 200
    long.press("End")
    long.expect(sentence=count - 1)
    expect(long.root.locator(f'.moe-chain-row[data-sentence="{count - 1}"]')).to_be_visible()
    for _ in range(3):
        long.press("k")
    long.expect(sentence=count - 4)
    long.press("d", "Enter")
    long.expect(job="failed")
    assert f"not done: {evil}" in long.root.locator(".moe-editor-main > .moe-job-error").inner_text()
    assert notebook.evaluate("len(u.branches)") == 1
    assert page.evaluate("window.hacked") is None
    assert page.locator(".moe-chain-editor :is(script, img)").count() == 0
    assert notebook.heard.dialogs == []
    assert notebook.heard.page_errors == []

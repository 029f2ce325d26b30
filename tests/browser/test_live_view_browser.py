"""The live view in a real JupyterLab: tokens arrive while the cell runs, and Stop stops it."""

import textwrap

from axe_playwright_python.sync_playwright import Axe
from lab import LabNotebook, OpenNotebook
from playwright.sync_api import expect

SLOW = """
import time
from widgets.live_view import LiveView
view = LiveView("2 + 2 = ?"); view.display()
made = 0
while made < 3000 and not view.stopped:
    view.append(f"t{made} ", "analysis" if made < 20 else "final", False); made += 1; time.sleep(0.05)
view.finish("stopped by the person" if view.stopped else "ran to the end")
"""

HOSTILE = [
    "<script>window.bad = 1</script>",
    "<img src=x onerror='window.bad = 2'>",
    "😀",
    "思考",
    "\x1b[31m\x07",
    "</div>",
]

NO_SUBSHELLS = "import widgets.live_view; widgets.live_view._kernel_has_subshells = lambda: False"


def test_stop_is_heard_while_the_cell_runs(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([SLOW], run=False)
    notebook.run_all(wait=False)
    page = notebook.page
    expect(page.locator(".moe-live-tokens")).to_contain_text("t25 ", timeout=60_000)
    assert page.evaluate("window.labRunDone") is False
    assert page.locator(".moe-live").get_attribute("data-state") == "running"
    assert serious(notebook) == []
    page.locator(".moe-live-stop").focus()
    page.keyboard.press("Enter")
    notebook.wait_until_done()
    made = notebook.evaluate("made")
    assert 25 < made < 3000
    expect(page.locator(".moe-live-status")).to_have_text(f"{made} tokens · stopped by the person")
    expect(page.locator(".moe-live-stop")).to_be_hidden()
    blocks = page.locator(".moe-live-block")
    assert [blocks.nth(i).get_attribute("data-channel") for i in range(blocks.count())] == ["analysis", "final"]
    assert shown(notebook, "final") == "".join(f"t{i} " for i in range(20, made))
    notebook.screenshot("live_view_light", of=page.locator(".moe-live"))
    assert serious(notebook) == []
    notebook.set_theme("dark")
    assert serious(notebook) == []
    notebook.screenshot("live_view_dark", of=page.locator(".moe-live"))
    assert notebook.heard.console_errors == []


def test_hostile_tokens_are_text(lab_notebook: OpenNotebook) -> None:
    cell = f"""
from widgets.live_view import LiveView
view = LiveView("<b>bold?</b>"); view.display()
view.append("<|start|>", None, True)
for text in {HOSTILE!r}: view.append(text, "analysis", False)
view.finish("end of message")
"""
    notebook = lab_notebook([cell])
    page = notebook.page
    expect(page.locator(".moe-live-status")).to_have_text("7 tokens · end of message")
    assert shown(notebook, "analysis") == "".join(HOSTILE).replace("\x1b", "␛").replace("\x07", "␇")
    assert page.locator(".moe-live-question").text_content() == "<b>bold?</b>"
    assert page.locator(".moe-live-special").text_content() == "⟨start⟩"
    assert page.locator(".moe-live :is(script, img, b)").count() == 0
    assert page.evaluate("window.bad") is None
    assert notebook.heard.dialogs == []


def test_without_subshells_the_view_names_the_interrupt(lab_notebook: OpenNotebook) -> None:
    interrupted = f"try:\n{textwrap.indent(SLOW, '  ')}\nexcept KeyboardInterrupt:\n  view.finish('interrupted')"
    notebook = lab_notebook([NO_SUBSHELLS, interrupted], run=False)
    notebook.run_all(wait=False)
    page = notebook.page
    expect(page.locator(".moe-live-status")).to_contain_text("interrupt the kernel (■ in the toolbar)", timeout=60_000)
    expect(page.locator(".moe-live-stop")).to_be_hidden()
    page.evaluate("window.jupyterapp.commands.execute('notebook:interrupt-kernel')")
    notebook.wait_until_done()
    expect(page.locator(".moe-live-status")).to_contain_text("· interrupted")


def test_a_long_rollout_keeps_its_end_and_says_so(lab_notebook: OpenNotebook) -> None:
    cell = """
from widgets.live_view import LiveView
view = LiveView("long"); view.display()
for i in range(6000): view.append(f"t{i} ", "analysis", False)
view.finish("end of message")
"""
    notebook = lab_notebook([cell])
    page = notebook.page
    expect(page.locator(".moe-live-status")).to_have_text("6000 tokens · end of message")
    first = 6000 - 6000 % 256 - 4096
    expect(page.locator(".moe-live-note")).to_have_text(
        f"{first} earlier tokens are not shown here; the trace has them"
    )
    assert shown(notebook, "analysis") == "".join(f"t{i} " for i in range(first, 6000))


def serious(notebook: LabNotebook) -> list[str]:
    """Return what axe finds serious or critical in the view."""
    violations = Axe().run(notebook.page, context=".moe-live").response["violations"]
    return [f"{v['id']}: {v['help']}" for v in violations if v["impact"] in {"serious", "critical"}]


def shown(notebook: LabNotebook, channel: str) -> str:
    text = notebook.page.locator(f'.moe-live-block[data-channel="{channel}"] .moe-live-text').text_content()
    assert text is not None
    return text


def test_stop_returns_the_partial_trace_of_a_capture(lab_notebook: OpenNotebook) -> None:
    cells = [
        "import time, torch; torch.set_num_threads(1)\nimport workbench as wb\nmodel = wb.load('tiny')",
        "trace = wb.capture(model, '47 + 85 = ?', effort='high', temperature=0, show=True,\n"
        "                   on_token=lambda token: time.sleep(0.3))",
    ]
    notebook = lab_notebook(cells, run=False)
    notebook.run_all(wait=False)
    page = notebook.page
    analysis = page.locator('.moe-live-block[data-channel="analysis"] .moe-live-text').last
    expect(analysis).to_contain_text("=", timeout=120_000)
    page.locator(".moe-live-stop").click()
    notebook.wait_until_done()
    new = notebook.evaluate("len(trace) - trace.num_prompt_tokens")
    assert new < 60
    expect(page.locator(".moe-live-status")).to_have_text(f"{new} tokens · stopped after {new} tokens")
    assert notebook.evaluate("trace.arrays['expert_indices'].shape[0] == len(trace)")
    assert notebook.evaluate("trace.analysis_text") == analysis.text_content()

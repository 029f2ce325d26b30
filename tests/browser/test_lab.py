"""The harness itself: a trivial anywidget in a real JupyterLab, from the browser to the kernel and back."""

from pathlib import Path

import pytest
from lab import Heard, OpenNotebook, write_notebook

WIDGET = '''
import anywidget, traitlets
class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
      const button = document.createElement("button");
      button.className = "counter";
      const show = () => { button.textContent = `count ${model.get("count")}`; };
      button.addEventListener("click", () => { model.set("count", model.get("count") + 1); model.save_changes(); });
      model.on("change:count", show); show(); el.append(button);
    } };"""
    count = traitlets.Int(3).tag(sync=True)
counter = Counter()
'''


def test_click_reaches_the_kernel_and_the_kernel_reaches_the_page(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook([WIDGET, "counter"])
    button = notebook.page.locator("button.counter")
    button.click()
    notebook.page.wait_for_function("document.querySelector('button.counter').textContent === 'count 4'")
    assert notebook.evaluate("counter.count") == 4
    notebook.execute("counter.count = 12")
    notebook.page.wait_for_function("document.querySelector('button.counter').textContent === 'count 12'")
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []


def test_theme_screenshot_and_failing_cell(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(["print('fine')"], theme="dark")
    assert notebook.page.get_attribute("body", "data-jp-theme-light") == "false"
    assert notebook.outputs()[0][0]["text"] == "fine\n"
    assert notebook.screenshot("harness", of=notebook.cell_output(0)).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        lab_notebook(["1 / 0"])


def test_an_existing_notebook_is_copied_and_requests_are_recorded(lab_notebook: OpenNotebook, tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "plain.ipynb", ["1 + 1"])
    notebook = lab_notebook(source, run=False)
    assert notebook.path != source
    assert any("/lab/tree/" in url for url in notebook.heard.requests)
    assert any(url.startswith("ws://127.0.0.1") for url in notebook.heard.requests)


def test_requests_elsewhere_are_told_from_local_ones() -> None:
    heard = Heard(
        ["http://127.0.0.1:1/x", "blob:http://127.0.0.1:1/y", "https://example.org/z", "wss://example.org/s"]
    )
    assert heard.foreign_requests() == ["https://example.org/z", "wss://example.org/s"]

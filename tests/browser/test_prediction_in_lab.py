"""A prediction in a real JupyterLab: by keyboard and mouse, refused when it is none, then the answer."""

from axe_playwright_python.sync_playwright import Axe
from lab import LabNotebook, OpenNotebook
from playwright.sync_api import expect

CELLS = [
    "from widgets.prediction import Prediction\n"
    "number = Prediction('How many of the <b>8</b> experts?', 2, unit='experts', why='counted on 31 tokens'); number",
    "word = Prediction('Which effort?', 'high', choices=('low', 'high')); word",
]


def test_guess_then_see(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(CELLS)
    page = notebook.page
    number, word = (page.locator(".moe-prediction").nth(i) for i in range(2))
    assert number.locator("b").count() == 0
    number.get_by_role("textbox", name="your guess, in experts").click()
    page.keyboard.type("many")
    page.keyboard.press("Enter")
    expect(number.get_by_role("alert")).to_contain_text("expected a number as a guess, got 'many'")
    assert "31 tokens" not in (number.text_content() or "")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    page.keyboard.press("Enter")
    expect(number.get_by_role("status")).to_contain_text("→ 1 too high, 1.5 times")
    expect(number.get_by_role("status")).to_contain_text("counted on 31 tokens")
    expect(number.get_by_role("alert")).to_be_hidden()
    word.get_by_role("button", name="low").click()
    expect(word.get_by_role("status")).to_contain_text("→ measured otherwise")
    assert notebook.evaluate("[number.guess, word.guess]") == [3.0, "low"]
    notebook.screenshot("prediction_light", of=notebook.cell_output(1))
    assert serious(notebook) == []
    notebook.set_theme("dark")
    notebook.screenshot("prediction_dark", of=notebook.cell_output(1))
    assert serious(notebook) == []
    assert notebook.heard.console_errors == []


def serious(notebook: LabNotebook) -> list[str]:
    """Return what axe finds serious or critical in the predictions."""
    violations = Axe().run(notebook.page, context=".moe-prediction").response["violations"]
    return [f"{v['id']}: {v['help']}" for v in violations if v["impact"] in {"serious", "critical"}]

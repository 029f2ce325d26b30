"""`workbench serve` for a class: ten browsers at once on a page with the model, and one table of what they guessed."""

import time
from pathlib import Path

import psutil
from axe_playwright_python.sync_playwright import Axe
from lab import Heard, OpenNotebook, Serve, write_notebook
from playwright.sync_api import Browser, Page, expect

from workbench.course.predictions import collect_predictions

BROWSERS = 10
LESSON = [
    "import workbench as wb\nfrom widgets import TraceExplorer\nfrom widgets.prediction import Prediction",
    "trace = wb.capture(wb.load('tiny'), '47 + 85 = ?', effort='low', temperature=0)",
    "Prediction('How many tokens?', len(trace), unit='tokens')",
    "print('there are', len(trace), 'tokens')",
    "Prediction('Which <img src=x onerror=alert(1)>?', 'low', choices=('low', 'high'))",
    "TraceExplorer(trace)",
]


def test_ten_browsers_at_once(serve: Serve, browser: Browser, lab_notebook: OpenNotebook, tmp_path: Path) -> None:
    write_notebook(tmp_path / "lesson.ipynb", LESSON)
    address, server = serve("serve", "lesson.ipynb", "--ready", str(BROWSERS), "--predictions", "guesses")
    print(f"\n{BROWSERS} kernels ready after {all_idle(server):.1f} s")
    heard = [Heard() for _ in range(BROWSERS)]
    pages = [browser.new_context().new_page() for _ in heard]
    for each, page in zip(heard, pages, strict=True):
        each.listen(page.context, page)
    start = time.monotonic()
    for page in pages:  # an address bar, which waits for nothing
        page.goto("about:blank")
        page.evaluate("address => { location.href = address; }", address)
    seconds = [painted(page, start) for page in pages]
    print(f"{BROWSERS} browsers, first paint after {min(seconds):.1f} to {max(seconds):.1f} s, {memory(server)}")

    for number, page in enumerate(pages):
        expect(page.get_by_text("there are")).to_be_hidden()
        page.get_by_role("textbox", name="your guess, in tokens").fill(str(40 + number))
        page.get_by_role("button", name="Guess").click()
        expect(page.get_by_text("there are")).to_be_visible()
        page.get_by_role("button", name="high" if number < 3 else "low").click()
        expect(page.locator('.moe-prediction[data-state="known"]')).to_have_count(2, timeout=60_000)
        expect(page.get_by_role("region", name="Token axis")).to_be_visible(timeout=60_000)
    for each, page in zip(heard, pages, strict=True):
        assert each.page_errors == each.console_errors == each.dialogs == each.foreign_requests() == []
        page.context.close()

    folder = tmp_path / "guesses"
    found = collect_predictions(folder)
    assert (len(found.guesses), found.unreadable) == (2 * BROWSERS, 0)
    assert sorted(guess.guess for guess in found.of("How many tokens?")) == list(range(40, 50))
    shown_to_the_class(lab_notebook, folder)


def all_idle(server: psutil.Process) -> float:
    """Wait until the kernels that are to be ready have run the notebook; return the seconds since the start."""
    start = time.monotonic()
    used = -1.0
    while len(kernels := server.children()) < BROWSERS or used < (used := used_by(kernels)) - 0.2:
        assert time.monotonic() - start < 300
        time.sleep(2)
    return time.monotonic() - start


def used_by(kernels: list[psutil.Process]) -> float:
    return sum(kernel.cpu_times().user for kernel in kernels)


def painted(page: Page, start: float) -> float:
    """Wait for the first question; return the seconds since the start."""
    expect(page.get_by_role("textbox", name="your guess, in tokens")).to_be_visible(timeout=180_000)
    return time.monotonic() - start


def memory(server: psutil.Process) -> str:
    kernels = [kernel.memory_full_info().uss / 1e6 for kernel in server.children()]
    return f"{len(kernels)} kernels of {max(kernels):,.0f} MB at most, {sum(kernels):,.0f} MB of their own in all"


def shown_to_the_class(lab_notebook: OpenNotebook, folder: Path) -> None:
    code = f"from widgets.class_predictions import ClassPredictions\nshown = ClassPredictions({str(folder)!r}); shown"
    notebook = lab_notebook([code], height=1100)
    view = notebook.page.locator(".moe-class")
    expect(view.get_by_role("status")).to_have_text("20 guesses at 2 questions")
    assert view.locator("img").count() == 0
    which = view.locator("article").filter(has_text="Which <img src=x onerror=alert(1)>?")
    expect(which).to_contain_text("n = 10 · measured low")
    assert which.locator("li").all_inner_texts() == ["high\n3", "low\n7\n◂ measured"]
    many = view.locator("article").filter(has_text="How many tokens?")
    expect(many).to_contain_text("median guess 44.5 tokens")
    assert sum(int(text) for text in many.locator("li b").all_inner_texts()) == 10
    many.get_by_text("each guess").click()
    assert len(many.locator("tbody tr").all()) == 10
    (folder / "late.jsonl").write_text(
        '{"question": "How many tokens?", "guess": 7, "answer": 7, "who": "<b>eve</b>"}\nx\n'
    )
    view.focus()
    notebook.page.keyboard.press("r")
    expect(view.get_by_role("status")).to_have_text("21 guesses at 2 questions; 1 line could not be read")
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        notebook.screenshot(f"class_predictions_{theme}", of=notebook.cell_output(0))
        violations = Axe().run(notebook.page, context=".moe-class").response["violations"]
        assert [v["id"] for v in violations if v["impact"] in {"serious", "critical"}] == []

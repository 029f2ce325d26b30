"""A training in a real JupyterLab: it grows while its cell runs, is stopped by its button, and stays on the page."""

from axe_playwright_python.sync_playwright import Axe
from lab import LabNotebook, OpenNotebook
from playwright.sync_api import expect

CELLS = [
    "from widgets.training_view import TrainingView\n"
    "from workbench.course.router_training import RouterRecipe, text_contexts, train_router\n"
    "from workbench.loading import load_tokenizer\n"
    "contexts = text_contexts(load_tokenizer(), num_texts=30)\n"
    "short = TrainingView('with a <b>loss</b>', 60).watch(train_router(contexts, RouterRecipe(0.1), 60))",
    "long = TrainingView('without', 1_000_000)\nsteps = long.watch(train_router(contexts, RouterRecipe(), 1_000_000))",
    "after = len(steps)",
]


def test_watch_and_stop(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(CELLS, run=False)
    page = notebook.page
    notebook.run_all(wait=False)
    short, long = (page.locator(".moe-training").nth(i) for i in range(2))
    expect(long).to_have_attribute("data-state", "running", timeout=60_000)
    page.wait_for_function("Number(document.querySelectorAll('.moe-training')[1].dataset.done) > 20", timeout=60_000)
    stop = long.get_by_role("button", name="Stop")
    stop.focus()
    page.keyboard.press("Enter")
    notebook.wait_until_done(60)
    expect(long).to_have_attribute("data-state", "stopped")
    expect(stop).to_be_hidden()
    done = notebook.evaluate("after")
    assert 20 < done < 1_000_000
    expect(long.locator(".moe-header").get_by_role("status")).to_have_text(f"stopped after {done:,} steps")

    expect(short.locator(".moe-header").get_by_role("status")).to_have_text("finished · 60 of 60 steps")
    assert short.locator("b b").count() == 0  # a title is text
    expect(short.get_by_role("img")).to_have_accessible_name(notebook.evaluate(WORDS))
    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        expect(short).to_have_attribute("data-theme", theme)
        notebook.screenshot(f"training_{theme}", of=notebook.cell_output(0))
        assert serious(notebook) == []
    assert notebook.heard.console_errors == notebook.heard.page_errors == []


WORDS = (
    "(lambda found: 'Load of the experts by step. Mean of the last 50 steps: ' + ', '.join("
    "f'expert {e} {load:.2f}'.replace(' 0.', ' .') for e, load in enumerate(found)) + '; uniform .13')"
    "(__import__('workbench.course.training_steps', fromlist=['']).load_summary(short).load)"
)


def serious(notebook: LabNotebook) -> list[str]:
    """Return what axe finds serious or critical in the trainings."""
    violations = Axe().run(notebook.page, context=".moe-training").response["violations"]
    return [f"{v['id']}: {v['help']}" for v in violations if v["impact"] in {"serious", "critical"}]

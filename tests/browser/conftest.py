"""Fixtures for tests in a real JupyterLab in a real Chromium, from the interpreter that runs the tests.

    def test_it(lab_notebook):
        nb = lab_notebook(["from widgets import X", "x = X(); x"])     # written, opened, kernel idle, Run All, done
        nb.page.locator(".some-class").click()                         # Playwright's page
        nb.page.keyboard.press("ArrowRight")
        assert nb.evaluate("x.token") == 1                             # a Python expression in the kernel
        nb.execute("x.token = 12")                                     # a statement in the kernel
        nb.set_theme("dark"); nb.screenshot("x_dark", of=nb.cell_output(1))
        assert nb.heard.console_errors == [] and nb.heard.page_errors == [] and nb.heard.dialogs == []

`lab_notebook(cells, theme="light", width=1440, height=900, run=True)`; `run=False` leaves Run All to the test
(`nb.run_all(wait=False)`, later `nb.wait_until_done()`). `cells` may also be the path of an existing notebook, which
is copied. A cell that raises fails the test with the error's text. When a test ends, the fixture asserts that no
request left 127.0.0.1. `lab_server.root` is the folder that kernels run in, for files that a notebook should find.
Missing Chromium is an error, never a skip.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from lab import Heard, LabNotebook, LabServer, OpenNotebook, Serve, start_lab, write_notebook
from playwright.sync_api import Browser, Playwright, sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # Chromium refuses to run as root with it, and CI containers do
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium(playwright: Playwright) -> str:
    """Return the path of the system's Chromium, or Playwright's own, or fail saying how to get one."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    if Path(playwright.chromium.executable_path).is_file():
        return playwright.chromium.executable_path
    raise AssertionError(
        "the browser tests need Chromium and found none on PATH. "
        "Debian: sudo apt-get install chromium. Elsewhere: python -m playwright install chromium."
    )


# Package scope, not session: Playwright keeps an event loop running in the main thread while it is open.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    server = start_lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait_until_up()
        yield server
    finally:
        server.stop()


@pytest.fixture
def lab_notebook(lab_server: LabServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[OpenNotebook]:
    """Open notebooks in JupyterLab; see the docstring of this file."""
    opened: list[LabNotebook] = []

    def open_notebook(
        cells: Sequence[str] | Path, theme: str = "light", width: int = 1440, height: int = 900, run: bool = True
    ) -> LabNotebook:
        path = lab_server.root / f"{re.sub(r'[^A-Za-z0-9_]+', '-', request.node.name)}-{len(opened)}.ipynb"
        if isinstance(cells, Path):
            shutil.copy(cells, path)
        else:
            write_notebook(path, cells)
        context = browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        heard = Heard()
        heard.listen(context, page)
        notebook = LabNotebook(lab_server, page, heard, path)
        opened.append(notebook)
        notebook.open(theme)
        if run:
            notebook.run_all()
        return notebook

    yield open_notebook
    for notebook in opened:
        notebook.close()
        notebook.page.context.close()
    foreign = [url for notebook in opened for url in notebook.heard.foreign_requests()]
    assert not foreign, f"requests left this machine: {foreign}"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Run `workbench ...` and return the address it prints, and its process."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> tuple[str, psutil.Process]:
        command = [Path(sys.executable).with_name("workbench"), *arguments, "--no-browser"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        return process.stdout.readline().split(" is at ")[1].strip(), psutil.Process(process.pid)

    yield run
    for process in running:
        process.terminate()
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()

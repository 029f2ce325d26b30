"""A real JupyterLab and a page in it, driven by tests. The fixtures that hand these out are in `conftest.py`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Error, Locator, Page

SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "screenshots"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

# JavaScript that finds the open notebook; needs `--LabApp.expose_app_in_browser=True`.
PANEL = "const app = window.jupyterapp; const panel = app.shell.currentWidget;"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class LabServer:
    """A JupyterLab process: `root` is the folder it shows, `log` what it has printed so far."""

    root: Path
    port: int
    token: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_until_up(self, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise AssertionError(f"JupyterLab did not come up in {seconds} s; it said:\n{self.log.read_text()}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_lab(folder: Path) -> LabServer:
    """Start JupyterLab of this interpreter in `folder`/root, with settings of its own and nothing of the user's."""
    root, settings = folder / "root", folder / "settings"
    notices = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    notices.parent.mkdir(parents=True)
    notices.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    root.mkdir()
    port, token, log = free_port(), os.urandom(16).hex(), folder / "lab.log"
    command = [
        *[sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"],
        *["--ServerApp.port_retries=0", "--ServerApp.allow_root=True", f"--ServerApp.root_dir={root}"],
        *[f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"],
        *["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"],
    ]
    own = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": settings,
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "IPYTHONDIR": folder / "ipython",
    }
    environment = os.environ | {name: str(path) for name, path in own.items()}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    return LabServer(root, port, token, process, log)


@dataclass
class Heard:
    """What a page did that a test may want to know of: requests, dialogs, console errors, uncaught exceptions."""

    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    console_errors: list[str] = field(default_factory=list)
    page_errors: list[str] = field(default_factory=list)

    def listen(self, context: BrowserContext, page: Page) -> None:
        context.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda websocket: self.requests.append(websocket.url))
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        # On a slow machine tqdm shows a bar and takes it away (leave=False) before the browser has asked for it
        # (github.com/jupyter-widgets/ipywidgets/issues/3821).
        # A view of ours that is missing fails the test that looks for it.
        taken_away = message.text.startswith("Error: widget model not found")
        if message.type == "error" and not taken_away:
            self.console_errors.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def foreign_requests(self) -> list[str]:
        """Requests that left this machine; `blob:`, `data:` and the like stay in the browser."""
        remote = {"http", "https", "ws", "wss", "ftp"}
        return [
            url for url in self.requests if urlsplit(url).scheme in remote and urlsplit(url).hostname != "127.0.0.1"
        ]


class LabNotebook:
    """A notebook open in JupyterLab: run it, look at it, talk to its kernel."""

    def __init__(self, server: LabServer, page: Page, heard: Heard, path: Path) -> None:
        self.server, self.page, self.heard, self.path = server, page, heard, path

    def open(self, theme: str = "light") -> None:
        """Open the notebook and wait until its kernel is ready: a Run All before that does nothing, silently."""
        self.page.goto(f"{self.server.url}/lab/tree/{quote(self.path.name)}?reset&token={self.server.token}")
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator", timeout=120_000)
        # The indicator says idle from the start, so the session is asked too.
        self.page.wait_for_function(
            f"""() => {{
                {PANEL}
                const kernel = panel.sessionContext?.session?.kernel;
                return kernel?.connectionStatus === "connected" && kernel.status === "idle"
                    && document.querySelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]') !== null;
            }}""",
            timeout=120_000,
        )
        self.set_theme(theme)

    def set_theme(self, theme: str) -> None:
        """Switch JupyterLab to `light` or `dark` and wait until the page has it."""
        wanted = "true" if theme == "light" else "false"
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", THEMES[theme]
        )
        self.page.wait_for_selector(f'body[data-jp-theme-light="{wanted}"]', state="attached", timeout=30_000)
        self.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=30_000)  # it covers the page

    def keep_widget_state(self, kept: bool) -> None:
        """Say whether notebooks are saved with the state of their views; the server keeps it for later tests too."""
        self.page.evaluate(
            """async kept => {
                const toggle = "@jupyter-widgets/jupyterlab-manager:saveWidgetState";
                const {commands} = window.jupyterapp;
                if (commands.isToggled(toggle) !== kept) await commands.execute(toggle);
            }""",
            kept,
        )

    def save(self) -> str:
        """Save the notebook and return the file's text."""
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")
        return self.path.read_text(encoding="utf-8")

    def run_all(self, wait: bool = True, timeout_s: float = 300) -> None:
        """Run all cells; with `wait` return when all are done, and fail with the text of any cell's error."""
        self.page.evaluate(
            "() => { window.labRunDone = false; window.jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { window.labRunDone = true; }); }"
        )
        if wait:
            self.wait_until_done(timeout_s)

    def wait_until_done(self, timeout_s: float = 300) -> None:
        """Wait for the end of `run_all` and fail with the text of any cell's error."""
        self.page.wait_for_function("window.labRunDone === true", timeout=timeout_s * 1000)
        errors = self.cell_errors()
        assert not errors, "cells raised:\n" + "\n".join(errors)
        idle: int = self.page.evaluate(
            f"() => {{ {PANEL} return Array.from(panel.content.model.cells, cell => cell).filter(cell => "
            "cell.type === 'code' && cell.sharedModel.source.trim() && cell.executionCount === null).length; }"
        )
        assert idle == 0, f"{idle} code cells did not run"

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Return the outputs of every cell in nbformat's form, from the notebook's model in the browser."""
        cells: list[list[dict[str, Any]]] = self.page.evaluate(
            f"() => {{ {PANEL}"
            " return Array.from(panel.content.model.cells, cell => cell.outputs ? cell.outputs.toJSON() : []); }"
        )
        return cells

    def cell_errors(self) -> list[str]:
        """Return `EName: value` of every error output."""
        found = [output for cell in self.outputs() for output in cell if output["output_type"] == "error"]
        return [f"{error['ename']}: {error['evalue']}" for error in found]

    def execute(self, code: str) -> str:
        """Run `code` in the notebook's kernel without a cell and return what it printed; fail if it raised."""
        reply = self.page.evaluate(
            f"""async code => {{
                {PANEL}
                const future = panel.sessionContext.session.kernel.requestExecute({{code, store_history: false}});
                let text = '';
                future.onIOPub = message => {{ if (message.content.name === "stdout") text += message.content.text; }};
                const late = new Promise((_, refuse) => setTimeout(() => refuse("no reply in 60 s"), 60000));
                const {{content}} = await Promise.race([future.done, late]);
                return {{text, error: content.status === 'error' ? content.ename + ': ' + content.evalue : null}};
            }}""",
            code,
        )
        assert reply["error"] is None, f"the kernel raised {reply['error']} in:\n{code}"
        text: str = reply["text"]
        return text

    def evaluate(self, expression: str) -> Any:
        """Return the value of a Python expression in the kernel, which must fit JSON (numpy: `.tolist()`)."""
        return json.loads(self.execute(f"import json as _json; print(_json.dumps({expression}))"))

    def cell_output(self, index: int) -> Locator:
        """Return the locator of the output area of cell `index`, counted from 0."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".jp-Cell-outputArea")

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Save what the page (or the element `of`) looks like as artifacts/screenshots/`name`.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        (of or self.page).screenshot(path=path)
        return path

    def close(self) -> None:
        """Shut the kernel down, so that the next test has the memory."""
        try:
            self.page.evaluate(f"async () => {{ {PANEL} await panel.sessionContext.shutdown(); }}")
        except Error as error:
            raise AssertionError(f"could not shut down the kernel of {self.path.name}: {error.message}") from error


class PageView:
    """One view of ours on the page, found by the class of its root."""

    def __init__(self, notebook: LabNotebook, selector: str, index: int = 0) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.root = self.page.locator(selector).nth(index)
        self.root.wait_for(timeout=60_000)
        self.root.scroll_into_view_if_needed()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, with the view focused."""
        self.root.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def expect(self, **data: Any) -> None:
        """Wait until the selection on the page is this, and drawn."""
        for name, value in data.items():
            locator = self.page.locator(f'[data-{name.replace("_", "-")}="{value}"]')
            self.root.and_(locator).wait_for(timeout=20_000)


def write_notebook(path: Path, cells: Sequence[str]) -> Path:
    """Write a notebook of code cells."""
    blank: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    sources = [blank | {"id": f"cell{i}", "source": source} for i, source in enumerate(cells)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": sources, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


OpenNotebook = Callable[..., LabNotebook]
Serve = Callable[..., tuple[str, psutil.Process]]

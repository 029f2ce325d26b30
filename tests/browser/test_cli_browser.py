"""`workbench lab` and `workbench open`: a real JupyterLab, started by the command, seen in Chromium."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lab import Heard, LabNotebook, LabServer, free_port
from playwright.sync_api import Browser, expect

import workbench as wb

Start = Callable[..., LabServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Run `workbench ...` in a folder, with a user's configuration that exposes the app to the page."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    running: list[LabServer] = []

    def run(folder: Path, *arguments: str) -> LabServer:
        port, log = free_port(), tmp_path / "lab.log"
        kept = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        kept |= {f"JUPYTERLAB_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
        environment = os.environ | kept | {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1"}
        environment.pop("JUPYTER_TOKEN", None)
        command = [sys.executable, "-m", "workbench", *arguments, "--no-browser", f"--port={port}"]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT)
        server = LabServer(folder, port, "", process, log)
        running.append(server)
        server.token = wait_for_token(tmp_path / "runtime", server)
        server.wait_until_up()
        return server

    yield run
    for server in running:
        server.stop()


def wait_for_token(runtime: Path, server: LabServer) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            facts: dict[str, Any] = json.loads(file.read_text())
            return str(facts["token"])
        time.sleep(0.2)
    raise AssertionError(f"the command started no server; it said:\n{server.log.read_text()}")


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def page_config(server: LabServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/lab?token={server.token}", timeout=60) as reply:
        html = reply.read().decode()
    text = html.split('<script id="jupyter-config-data" type="application/json">')[1].split("</script>")[0]
    config: dict[str, Any] = json.loads(text)
    return config


def test_lab_listens_on_loopback_behind_a_token_and_asks_for_no_news(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    server = start(folder, "lab")
    assert (folder / "01_first_trace.ipynb").is_file()
    listening = [c.laddr for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert {address.port for address in listening} >= {server.port}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert len(server.token) >= 32
    assert status(f"{server.url}/api/contents") == 403
    assert status(f"{server.url}/api/contents/01_first_trace.ipynb?content=0&token={server.token}") == 200
    config = page_config(server)
    assert config["news"] == {"disabled": True}
    assert config["extensionManager"]["can_install"] is False
    assert f"{server.url}/lab/tree/01_first_trace.ipynb?token={server.token}" in server.log.read_text()
    assert json.loads((tmp_path / "config" / "jupyter_lab_config.json").read_text()) == {
        "LabApp": {"expose_app_in_browser": True}
    }


def test_open_shows_the_trace_whatever_its_name(
    start: Start, tmp_path: Path, browser: Browser, tiny: wb.Model
) -> None:
    folder = tmp_path / "it's a \"folder\" 思考"
    folder.mkdir()
    name = "-t'); open('bad', 'w').write('x'); (' <img src=x onerror=alert(1)> 100%.safetensors"
    trace = wb.capture(tiny, "2 + 2 = ?", max_new_tokens=5, path=folder / name)
    server = start(folder, "open", f"./{name}")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    heard = Heard()
    heard.listen(context, page)
    notebook = LabNotebook(server, page, heard, folder / f"{name}.ipynb")
    notebook.open()
    notebook.run_all()
    assert notebook.evaluate("trace.token_ids.values.tolist()") == trace.token_ids.values.tolist()
    expect(page.locator(".moe-root")).to_be_visible(timeout=60_000)
    notebook.close()
    context.close()
    assert heard.foreign_requests() == []
    assert heard.dialogs == []
    assert not (folder / "bad").exists()


def test_stopping_leaves_no_process(start: Start, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    mine = tmp_path / "work" / "mine.ipynb"
    shutil.copy(Path(__file__).parents[2] / "notebooks" / "01_first_trace.ipynb", mine)
    server = start(tmp_path / "work", "lab", "mine.ipynb")
    assert "/lab/tree/mine.ipynb?token=" in server.log.read_text()
    server.process.terminate()
    assert server.process.wait(timeout=30) is not None
    assert sorted(path.name for path in (tmp_path / "work").iterdir() if path.suffix == ".ipynb") == ["mine.ipynb"]

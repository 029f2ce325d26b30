"""A notebook of `workbench lab`, saved, its server stopped, opened on another server and not run: its views step."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Heard, LabNotebook, LabServer, PageView, free_port, write_notebook
from playwright.sync_api import Browser, expect

import workbench as wb

CELLS = [
    "import workbench as wb; from widgets import RouterMap, TraceExplorer; t = wb.open_trace('sum.safetensors')",
    "x = TraceExplorer(t, token=60); x",
    "RouterMap(t)",
    "TraceExplorer(wb.open_trace('other.safetensors'), preload_bytes=0)",
]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[Path], LabServer]]:
    """Run `workbench lab NOTEBOOK`; each call is a server of its own with the same user's folders."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    running: list[LabServer] = []

    def start(notebook: Path) -> LabServer:
        port, token, log = free_port(), os.urandom(16).hex(), tmp_path / f"lab{len(running)}.log"
        kept = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
        kept |= {f"JUPYTERLAB_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
        kept |= {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1", "JUPYTER_TOKEN": token}
        command = [sys.executable, "-m", "workbench", "lab", str(notebook), "--no-browser", f"--port={port}"]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, env=os.environ | kept, stdout=sink, stderr=subprocess.STDOUT)
        running.append(LabServer(notebook.parent, port, token, process, log))
        running[-1].wait_until_up()
        return running[-1]

    yield start
    for server in running:
        server.stop()


def test_views_are_there_and_step_after_a_restart_without_a_kernel(
    lab: Callable[[Path], LabServer], browser: Browser, tiny: wb.Model, tmp_path: Path
) -> None:
    trace = wb.capture(tiny, "47 + 85 = ?", effort="high", temperature=0)
    folder = tmp_path / "work"
    folder.mkdir()
    trace.save(folder / "sum.safetensors")
    wb.capture(tiny, "8 + 7 = ?", effort="low", temperature=0, path=folder / "other.safetensors")
    path = write_notebook(folder / "mine.ipynb", CELLS)

    server = lab(path)
    notebook, context = opened(server, browser, path)
    notebook.run_all()
    view = PageView(notebook, ".moe-root", 0)
    view.press("ArrowRight", "ArrowDown")
    view.expect(token=61, layer=1)
    notebook.page.wait_for_timeout(300)  # told to Python and back
    notebook.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty", timeout=60_000)
    state = saved_state(path)
    explorers = [m for m in state.values() if "TraceExplorer" in str(m["state"].get("_anywidget_id"))]
    assert sorted(m["state"]["token"] for m in explorers)[-1] == 61
    assert path.stat().st_size < 8_000_000
    notebook.close()
    context.close()
    server.stop()

    notebook, context = opened(lab(path), browser, path)
    view = PageView(notebook, ".moe-root", 0)  # made of the saved state, by which time the manager asks no kernel
    notebook.close()  # the kernel that JupyterLab starts by itself, which ran nothing
    view.expect(token=61, layer=1)
    view.press("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "]", "]", "]")
    view.expect(token=63, layer=1, head=3)
    shown = view.root.locator(".moe-stack").get_attribute("data-experts") or ""
    assert [[int(n) for n in row.split(",")] for row in shown.split()] == trace.expert_indices[63].tolist()
    row = trace.attention(1, head=3, rows=[63]).pattern.values[0, 0]
    drawn = dict(
        pair.split(":") for pair in (view.root.locator(".moe-axis").get_attribute("data-attention") or "").split()
    )
    assert drawn
    for token, weight in drawn.items():
        assert float(weight) == pytest.approx(row[int(token)], abs=2e-3)
    PageView(notebook, ".moe-map", 0).expect(token=63, layer=1)
    assert [c for c in notebook.outputs() if any(o["output_type"] == "error" for o in c)] == []
    other = PageView(notebook, ".moe-root[aria-label*='8 + 7']", 0)
    other.press("ArrowRight")
    expect(other.root.get_by_text("no answer from the kernel")).to_be_visible(timeout=20_000)
    notebook.screenshot("reopened_without_a_kernel")
    assert notebook.heard.page_errors == []
    context.close()


def opened(server: LabServer, browser: Browser, path: Path) -> tuple[LabNotebook, Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    heard = Heard()
    heard.listen(context, page)
    notebook = LabNotebook(server, page, heard, path)
    notebook.open()
    return notebook, context


def saved_state(path: Path) -> dict[str, Any]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    state: dict[str, Any] = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    return state

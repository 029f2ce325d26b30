"""JupyterLab on this machine's loopback, and the notebooks it opens on."""

import json
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["FIRST_NOTEBOOK", "course_index", "first_notebook", "notebook_for", "run_lab", "shipped_notebook"]

FIRST_NOTEBOOK, COURSE_INDEX = "01_first_trace.ipynb", "course/index.ipynb"


def run_lab(notebook: Path, browser: bool = True, port: int | None = None) -> None:
    """Run JupyterLab in this process, open on ``notebook``, until it is stopped.

    It listens on loopback only, with Jupyter's token, shows the notebook's folder, and asks nothing of the network:
    no update checks, no news, no extension list. The user's own settings are read and left as they are. By default
    the views' state is saved in the notebook, so that one opened later shows them without running it.
    """
    from jupyterlab.labapp import LabApp  # takes a second to import

    _add_settings()
    notebook = notebook.resolve()
    arguments = [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={notebook.parent}",
        f"--LabApp.default_url=/lab/tree/{quote(notebook.name)}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly",
        f"--ServerApp.open_browser={browser}",
    ]
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--ServerApp.allow_root=True")  # root in a container; loopback and token hold there too
    LabApp.launch_instance(argv=arguments)


def _add_settings() -> None:
    """Add this project's default settings of JupyterLab; what the user chose in its settings wins over them."""
    own = str(Path(__file__).parent / "lab_settings")
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [os.environ.get("JUPYTER_CONFIG_PATH"), own]))


def shipped_notebook(name: str = FIRST_NOTEBOOK) -> Path:
    """Return where the notebook ``name``, as ``course/index.ipynb``, lies: in the checkout, or in the wheel's data.

    Raises:
        FileNotFoundError: it is in neither.
    """
    checkout = Path(__file__).parents[1] / "notebooks" / name
    if checkout.is_file():
        return checkout
    for file in metadata.files("moe-workbench") or ():
        if file.as_posix().endswith(f"/notebooks/{name}"):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"expected the notebook {name} in the installation, found none; reinstall moe-workbench")


def first_notebook(folder: Path) -> Path:
    """Return the first notebook for someone who works in ``folder``, copied there when it has none yet."""
    for place in (folder / "notebooks" / FIRST_NOTEBOOK, folder / FIRST_NOTEBOOK):
        if place.is_file():
            return place
    return Path(shutil.copy(shipped_notebook(), folder / FIRST_NOTEBOOK))


def course_index(folder: Path) -> Path:
    """Return the index of the course for someone who works in ``folder``, which is given a copy when it has none."""
    for place in (folder / "notebooks" / COURSE_INDEX, folder / COURSE_INDEX):
        if place.is_file():
            return place
    index = folder / COURSE_INDEX
    shutil.copytree(shipped_notebook(COURSE_INDEX).parent, index.parent, dirs_exist_ok=True)
    return index


def notebook_for(trace: Path) -> Path:
    """Return a notebook beside the file ``trace`` that opens it, written unless it is already there.

    Raises:
        FileExistsError: the name is taken by something else.
    """
    path = trace.with_name(f"{trace.name}.ipynb")
    if path.exists():
        if not _opens(path, trace.name):
            raise FileExistsError(f"{path} exists and is no notebook for {trace.name}; move it or rename the trace")
        return path
    # The notebook runs in its own folder, so the bare name is enough, and both can be moved together.
    source = (
        "import workbench as wb\n"
        "from widgets import TraceExplorer\n\n"
        f"trace = wb.open_trace({trace.name!r})\n"
        "TraceExplorer(trace)"
    )
    cell: dict[str, Any] = {"cell_type": "code", "id": "open", "metadata": {}, "execution_count": None, "outputs": []}
    notebook = {
        "cells": [cell | {"source": source}],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "moe_workbench": {"trace": trace.name},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    with path.open("x", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1)
    return path


def _opens(path: Path, name: str) -> bool:
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        return bool(notebook["metadata"]["moe_workbench"]["trace"] == name)
    except (ValueError, KeyError, TypeError, IsADirectoryError):
        return False

"""Every notebook runs from top to bottom, stores no output, and its views answer."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

CHECKS = {
    "01_first_trace": """
assert (low.provenance["effort"], high.provenance["effort"]) == ("low", "high")
assert trace.token_text(token).isdigit() and trace.span_at(token).channel == "analysis"
assert explorer.token == token
explorer.token = token + 1
assert explorer.token == token + 1
assert abs(attended.sum() + attention.sink_mass[0, 0] - 1) < 1e-4
assert weights.shape == (1, 4, 2) and margins.shape == (1, 4)
assert low.analysis_text == "" and len(high.analysis_text) > 20
assert (again.token_ids.values == trace.token_ids.values).all()
""",
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[path.stem]))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises with the cell and its traceback
    warnings = [o.text for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not [text for text in warnings if "Warning" in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_stores_no_output(path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "nbstripout", "--verify", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_check_for_every_notebook() -> None:
    assert sorted(CHECKS) == [path.stem for path in NOTEBOOKS]
    assert NOTEBOOKS

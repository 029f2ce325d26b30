"""Node for the tests of the views' JavaScript: the system's, else the one that Playwright brings along."""

import shutil
import sys
from pathlib import Path

import playwright


def node() -> str:
    """Return the path of node. Playwright is among the test dependencies, so there always is one."""
    name = "node.exe" if sys.platform == "win32" else "node"
    return shutil.which("node") or str(Path(playwright.__file__).parent / "driver" / name)

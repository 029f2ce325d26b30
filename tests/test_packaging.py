"""What people install: the wheel, its metadata, the conda environment, the tested versions, the README's map."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    [path] = folder.glob("*.whl")
    return path


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert {name.split("/")[0] for name in code} == {"workbench", "widgets"}
    tracked = run("git", "ls-files", "workbench", "widgets", cwd=ROOT).split()
    assert code >= set(tracked)
    kinds = {Path(name).suffix for name in code}
    assert kinds >= {".py", ".js", ".css", ".typed", ".safetensors", ".jinja"}
    assert not [name for name in names if "__pycache__" in name or "test" in Path(name).parts]
    assert {"workbench/py.typed", "widgets/py.typed"} <= code
    notebooks = {name.split("/share/moe-workbench/")[1] for name in names if ".data/data/share/" in name}
    assert notebooks == {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb")}
    size = sum(zipfile.ZipFile(wheel).getinfo(name).file_size for name in names)
    assert size < 8_000_000  # 2.2 MB each for two models


def test_it_installs_and_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment that lends only the dependencies; the outer editable install is not seen through it."""
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    own = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(own) / "outer.pth").write_text(sysconfig.get_path("purelib"))
    program = "import workbench, widgets; print(workbench.__file__, widgets.__file__)"
    assert run(str(python), "-c", program, cwd=tmp_path).count(own) == 2
    command = str(python.with_name("workbench"))
    assert "workbench capture" in run(command, "--help", cwd=tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    run(command, "capture", "2 + 2 = ?", "--out", "t.safetensors", "--max-new-tokens", "3", cwd=work)
    program = "from pathlib import Path; from workbench.lab import first_notebook; print(first_notebook(Path()))"
    assert run(str(python), "-c", program, cwd=work).strip() == "01_first_trace.ipynb"
    assert (work / "01_first_trace.ipynb").read_bytes() == (ROOT / "notebooks/01_first_trace.ipynb").read_bytes()
    run(str(python), "-c", "import workbench as wb; print(len(wb.open_trace('t.safetensors')))", cwd=work)


def test_the_metadata_names_licence_python_and_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    assert "Name: moe-workbench\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    assert "Requires-Python: >=3.11\n" in text
    entry = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "workbench = workbench.cli:main" in entry
    assert "Apache License" in archive.read(metadata.replace("METADATA", "licenses/LICENSE")).decode()


def test_conda_and_pip_ask_for_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": PROJECT["dependencies"]}
    assert environment["channels"] == ["conda-forge"]


def constrained_versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def everything_needed(requirements: list[str]) -> Iterator[Requirement]:
    """Yield the requirements and theirs, as far as they apply here and are installed."""
    waiting = [(Requirement(text), "") for text in requirements]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add(key)
        yield requirement
        try:
            theirs = [Requirement(text) for text in requires(requirement.name) or ()]
        except PackageNotFoundError:
            continue
        waiting += [(each, wanted) for each in theirs for wanted in requirement.extras or {""}]


def test_a_tested_version_is_named_for_every_dependency_and_is_allowed() -> None:
    direct = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    versions = constrained_versions()
    needed = list(everything_needed(direct))
    assert len(needed) > 80
    missing = sorted({canonicalize_name(r.name) for r in needed} - versions.keys())
    assert not missing, f"run `make constraints`: {missing}"
    for text in direct:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


def test_the_readme_names_every_file() -> None:
    tree = (ROOT / "README.md").read_text().split("## Files")[1].split("```")[1]
    named = set(re.findall(r"^ *([\w./-]+)", tree, flags=re.MULTILINE))
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    lacking = {top_level(path) for path in tracked} - {name.split("/")[0] for name in named} - {".gitignore"}
    assert not lacking, f"README's tree lacks {sorted(lacking)}"
    lacking = {module for path in tracked if (module := own_module(path))} - named
    assert not lacking, f"README's tree lacks {sorted(lacking)}"
    entries = {path.split("/")[depth] for path in tracked for depth in range(path.count("/") + 1)}
    gone = {name for name in named if name.rstrip("/").split("/")[-1] not in entries}
    assert not gone, f"README's tree names {sorted(gone)}, which are not there"


def top_level(path: str) -> str:
    return path.split("/")[0]


def own_module(path: str) -> str | None:
    """Return what the tree should call a file of the packages: its name, or that of its subpackage."""
    package, *rest = path.split("/")
    if package not in {"workbench", "widgets"} or rest[-1] in {"__init__.py", "__main__.py", "py.typed"}:
        return None
    return rest[0] + "/" if len(rest) > 1 else rest[0]

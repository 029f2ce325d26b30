import subprocess
from pathlib import Path

import pytest
from node import node

from widgets.bundle import bundle
from widgets.trace_explorer import TraceExplorer


def write(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.js").write_text(source)
    return folder / "entry.js"


def test_modules_come_once_and_before_those_that_use_them(tmp_path: Path) -> None:
    entry = write(
        tmp_path,
        a='import { two } from "./b.js";\nexport const three = two + 1;\n',
        b="export const two = 2;\n",
        entry='import { three } from "./a.js";\nimport {\n  two,\n} from "./b.js";\n'
        "export default { five: two + three };\n",
    )
    assert bundle(entry) == "const two = 2;\n\nconst three = two + 1;\n\nexport default { five: two + three };\n"


def test_two_modules_with_one_name_are_refused(tmp_path: Path) -> None:
    entry = write(tmp_path, a="export function paint() {}\n", entry='import { x } from "./a.js";\nconst paint = 1;\n')
    with pytest.raises(ValueError, match=r"paint is declared in both a\.js and entry\.js: rename one"):
        bundle(entry)


@pytest.mark.parametrize(
    "line",
    ['import { a as b } from "./a.js";', 'import a from "./a.js";', 'import { a } from "https://example.org/a.js";'],
)
def test_other_imports_are_refused(tmp_path: Path, line: str) -> None:
    entry = write(tmp_path, a="export const a = 1;\n", entry=f"{line}\n")
    with pytest.raises(ValueError, match="expected `import"):
        bundle(entry)


def test_the_explorers_module_stands_alone(tmp_path: Path) -> None:
    source = TraceExplorer._esm
    assert "\nimport " not in source
    assert source.count("export ") == 1
    path = tmp_path / "bundled.mjs"
    path.write_text(source)
    check = f"import m from '{path}'; if (typeof m.render !== 'function') process.exit(1);"
    subprocess.run([node(), "--input-type=module", "-e", check], check=True, timeout=60)

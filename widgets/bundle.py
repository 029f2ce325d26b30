"""Join ES modules that import each other into one, because anywidget loads a widget's JavaScript from a Blob URL,
where relative imports do not resolve. The modules stay as they are for ``node --test`` and for reading.
"""

import re
from functools import cache
from pathlib import Path

__all__ = ["bundle", "styles"]

IMPORT = re.compile(r'^import \{(?:(?! as )[^}])*\} from "(\.{1,2}/[\w./-]+)";\n', re.MULTILINE)
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|class|const|let) (\w+)", re.MULTILINE)


@cache
def bundle(entry: Path) -> str:
    """Return the source of ``entry`` and everything it imports as one ES module; the entry's exports are kept.

    Imports must be of named bindings, without renaming, from relative paths.

    Raises:
        ValueError: an import of another form, or two modules that declare the same name at their top level.
    """
    modules: dict[Path, str] = {}
    _collect(entry.resolve(), modules)
    _check_names(modules)
    *imported, last = modules.values()
    return "\n".join([*(re.sub(r"^export ", "", source, flags=re.MULTILINE) for source in imported), last])


@cache
def styles(*paths: Path) -> str:
    """Return style sheets as one, in the order given: a widget has one, and all views share ``view.css``."""
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def _collect(path: Path, modules: dict[Path, str]) -> None:
    """Add a module after the modules that it imports."""
    if path in modules:
        return
    source = path.read_text(encoding="utf-8")
    for target in IMPORT.findall(source):
        _collect((path.parent / target).resolve(), modules)
    source = IMPORT.sub("", source)
    if odd := re.search(r"^import .*", source, re.MULTILINE):
        raise ValueError(f'{path.name}: expected `import {{ names }} from "./file.js";`, got {odd[0]!r}')
    modules[path] = source


def _check_names(modules: dict[Path, str]) -> None:
    owner: dict[str, Path] = {}
    for path, source in modules.items():
        for name in DECLARED.findall(source):
            if owner.setdefault(name, path) != path:
                raise ValueError(f"{name} is declared in both {owner[name].name} and {path.name}: rename one")

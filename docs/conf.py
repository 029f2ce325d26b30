"""The documentation as a site: Sphinx with MyST and Furo. ``python -m sphinx -W docs docs/_build``.

A page that is looked at makes no request: Furo brings its own style and script and uses the system's fonts, and the
search runs in the page. Formulas are MathML, made when the site is built, so that they need no script either.
"""

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

project = "MoE Workbench"
author = "MoE Workbench contributors"
copyright = "MoE Workbench contributors, Apache-2.0"
version = release = version_of("moe-workbench")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_block", "attrs_inline", "dollarmath", "html_image"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"MoE Workbench {version}"
html_copy_source = False
html_show_search_summary = False  # which would fetch every page found; from disk a browser forbids that
html_show_sphinx = False
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]

# A name in single backticks leads to its documentation where there is one, and is code elsewhere.
default_role = "py:obj"
add_module_names = False
# Several classes have a field of one name; a docstring that names it in passing then leads to the first of them.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

CODE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\((\w+:[^)\s]+)\)")


def inline_math(self: Any, node: nodes.math) -> None:
    """Write a formula within a line as MathML."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_math(self: Any, node: nodes.math_block) -> None:
    """Write a formula that stands alone as MathML."""
    self.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def outward_links(folder: Path) -> list[str]:
    """Return the addresses outside that the pages and the README lead to."""
    pages = [*folder.rglob("*.md"), folder.parent / "README.md"]
    found = {link for page in pages for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))}
    return sorted(found)


def list_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the list on the page of links."""
    if docname == "links":
        source[0] += "\n" + "\n".join(f"- <{link}>" for link in outward_links(Path(app.srcdir))) + "\n"


def plain_defaults(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write a dataclass's own default, which is a function, as one that Python can read."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Make MathML with docutils' own converter, and the page of links anew each time."""
    app.connect("autodoc-process-signature", plain_defaults)
    app.connect("source-read", list_links)
    app.connect("env-get-outdated", lambda *_: ["links"])
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

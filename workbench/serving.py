"""Voilà on this machine's loopback: a notebook as a page without its code. Nothing else starts it.

Whoever has the address, with its token, sees the page; each browser gets a kernel of its own. The page loads nothing
from elsewhere: the one link to a CDN in Voilà's template is taken out, and the browser is told to refuse the rest.
"""

import json
import logging
import os
import secrets
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

__all__ = ["FIRST_PORT", "ServingError", "serve_notebook"]

FIRST_PORT = 8866
_PORTS_TRIED = 50
_CULL_EVERY = 30  # seconds
_REFILL_AFTER = 30.0  # seconds: a class that comes all at once has the processor to itself
# Voilà's page has scripts in its text, and anywidget imports modules from blobs; no source lies elsewhere.
_CONTENT_SECURITY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws://127.0.0.1:{port} data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_TEMPLATE = "workbench"
_PAGE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{% import "spinner.macro.html.j2" as spinner %}
{%- block notebook_css -%}
  {{ resources.include_js("static/voila-style.js") }}
  {{ spinner.css() }}
  <style>
    .jp-mod-noOutputs.jp-mod-noInput { display: none; }
    /* Nobody sees what comes after a question before they have guessed. */
    #rendered_cells div:has(> .jp-Cell .moe-prediction[data-state="asked"]) ~ div { display: none; }
  </style>
  {{ super.super() }}
{%- endblock notebook_css -%}
"""  # as in the lab template of Voilà 0.5, without Font Awesome from a CDN


class ServingError(ValueError):
    """A notebook cannot be served: Voilà is not installed, or the port is taken."""


def serve_notebook(
    path: Path, *, port: int | None = None, open_browser: bool = True, idle: int = 300, ready: int = 0
) -> None:
    """Serve a notebook in this process, without its code, until it is stopped.

    It listens on loopback only, behind a new token. Settings of the user and of the folder are not read: a
    configuration file is code, and the folder may be someone else's.

    Args:
        path: the notebook; its kernels run in its folder, and pictures there can be seen on the page.
        port: default: 8866, or the next free one.
        open_browser: as soon as it listens.
        idle: seconds after which a kernel without a browser is stopped; one whose page is closed stops at once.
        ready: how many kernels run the notebook before anyone comes. A browser that finds one waits for nothing;
            half a minute later another one is begun in its place.

    Raises:
        ServingError: Voilà is not installed, the port is taken, or ``ready`` is negative.
        FileNotFoundError: no such notebook.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a notebook, found no file {path}")
    if find_spec("voila") is None:
        raise ServingError(
            'This needs Voilà, which is not installed. Install it with: pip install "moe-workbench[serve]"'
        )
    if ready < 0:
        raise ServingError(f"expected a number of kernels to have ready, got {ready}")
    port, token = _free_port(port), secrets.token_urlsafe(24)
    with _template():
        app = _app(path.resolve(), port, token, idle, ready)
        address = f"http://127.0.0.1:{port}/?token={token}"
        app.launch_browser = lambda: _announce(path, address, open_browser)  # called as soon as it listens
        app.initialize([])
        app.start()


def _app(path: Path, port: int, token: str, idle: int, ready: int) -> Any:
    from traitlets.config import Config
    from voila.app import Voila  # takes a second to import

    culling = {"cull_idle_timeout": idle, "cull_interval": _CULL_EVERY, "cull_connected": False}
    page: dict[str, Any] = {"template": _TEMPLATE, "allow_template_override": "NO", "allow_theme_override": "NO"}
    page |= {"preheat_kernel": ready > 0, "default_pool_size": ready}
    settings = {
        "headers": {"Content-Security-Policy": _CONTENT_SECURITY.format(port=port), "Referrer-Policy": "no-referrer"},
        "allow_remote_access": False,  # a name that resolves to loopback is no reason to answer
        # Voilà's page says that it is closed by a beacon without the mark against forgery, which would be refused and
        # leave its kernel; the beacon's origin is checked all the same, and it has to name a kernel.
        "disable_check_xsrf": True,
    }
    return Voila(
        notebook_path=str(path),
        ip="127.0.0.1",
        port=port,
        port_retries=0,
        token=token,
        config_file_paths=[],
        tornado_settings=settings,
        log_level=logging.WARNING,
        config=Config(
            {
                "MappingKernelManager": culling,
                "VoilaConfiguration": page,
                "VoilaKernelManager": {"fill_delay": _REFILL_AFTER},
            }
        ),
    )


def _announce(path: Path, address: str, open_browser: bool) -> None:
    print(f"{path.name} is at {address}\nIt can be seen on this machine only. Ctrl-C stops it.", flush=True)
    if open_browser:
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _free_port(wanted: int | None) -> int:
    for port in range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED) if wanted is None else (wanted,):
        with socket.socket() as listener:
            if os.name == "posix":  # a server that just ended leaves its port in TIME_WAIT; one that listens keeps it
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    tried = f"{FIRST_PORT} to {FIRST_PORT + _PORTS_TRIED - 1}" if wanted is None else str(wanted)
    raise ServingError(f"The port {tried} cannot be had: something listens there already. Choose another with --port.")


@contextmanager
def _template() -> Iterator[None]:
    """Let Jupyter find our template for as long as it is served; it looks in the folders of ``JUPYTER_PATH``."""
    before = os.environ.get("JUPYTER_PATH")
    with TemporaryDirectory(prefix="workbench-") as folder:
        place = Path(folder, "voila", "templates", _TEMPLATE)
        place.mkdir(parents=True)
        (place / "conf.json").write_text(json.dumps({"base_template": "lab"}), encoding="utf-8")
        (place / "index.html.j2").write_text(_PAGE, encoding="utf-8")
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield
        finally:
            del os.environ["JUPYTER_PATH"]
            os.environ |= {} if before is None else {"JUPYTER_PATH": before}

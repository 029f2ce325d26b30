"""What a view of attention costs in JupyterLab in Chromium: AttentionView beside CircuitsVis, BertViz and attnview.

    python benchmarks/attention_view.py [--ours] [--steps 60] [--limit 30] [--out FILE]

AttentionView shows a made-up trace in the shape of gpt-oss-20b, 64 heads of 24 layers at 8,192 tokens, and of 2 layers
at 32,768. The others are handed less: one layer of 8 heads, of the same kind of trace, in float32 as their manuals
show. Each begins at few tokens and is given twice as many until it does not paint within the limit, and makes steps
for at most 8 seconds. Every run has a fresh kernel and a fresh browser.

- cell: the kernel's time for the cell that shows the view; paint: from its end to the first frame that shows weights.
- sent: what came to the page over the websocket until then.
- step: to the next token, or to another head where the view has no such step; from the event until the frame after the
  one that drew it. Nothing takes less than about 17 to 33 ms so measured, ours among them.
- heap: what JavaScript holds, garbage collected, beyond what it held before the cell.

The others' Python packages are installed beside ours at the first run, into `artifacts/peers`. CircuitsVis carries its
script in every output where there is no network, which is what it does here; attnview has one of its own; BertViz asks
a CDN for three, and is given the same from npm packages on this machine (jQuery 2.1.0 for 2.0.0, which npm does not
have). A view that does not paint counts only if its scripts arrived. Needs npm, Chromium and the test extra.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from _rounds import environment, write
from attention_page import (
    AT_READING_LENGTH,
    FAR_BEYOND,
    SHOW,
    Meter,
    View,
    conditions,
    frame_times,
    measure_view,
    verdicts,
)
from conftest import CHROMIUM_ARGUMENTS, find_chromium
from lab import Heard, LabNotebook, LabServer, start_lab, write_notebook
from playwright.sync_api import Playwright, Route, TimeoutError, sync_playwright

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "artifacts" / "peers"
REQUIREMENTS = Path(__file__).parent / "requirements-peers.txt"
SCRIPTS = {  # what a page asks the CDN for, and the npm package and file that it gets
    "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js": ("requirejs@2.3.6", "require.js"),
    "https://cdnjs.cloudflare.com/ajax/libs/d3/5.7.0/d3.min.js": ("d3@5.7.0", "dist/d3.min.js"),
    "https://cdnjs.cloudflare.com/ajax/libs/jquery/2.0.0/jquery.min.js": ("jquery@2.1.0", "dist/jquery.min.js"),
}
HEADS = 8
STEPS_LIMIT_S = 8
TRACE = f"import sys; sys.path[:0] = {[str(PEERS / 'python'), str(ROOT / 'tests')]!r}; import numpy as np\n" + (
    "from synthetic import synthetic_trace\ntrace = synthetic_trace(tokens={tokens}, layers={layers})\n"
)
ONE_LAYER = f"""
import torch
layer = torch.from_numpy(np.concatenate([np.asarray(trace.attention(1, head=h).pattern) for h in range({HEADS})]))
texts = [trace.token_text(i) for i in range(len(trace))]
"""
NEXT_TOKEN = """document.querySelector('.moe-attention').dispatchEvent(
    new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"""


@dataclass(frozen=True)
class Peer:
    """Another view: how its users call it, and when it has painted."""

    name: str
    imports: str
    view: str
    is_painted: str
    step: str
    steps_to: str
    tokens: tuple[int, ...]
    scripts: tuple[str, ...] = field(default=())


CIRCUITSVIS = Peer(
    "CircuitsVis",
    "import circuitsvis.utils.render as render; render.internet_on = lambda: False  # as it finds out by itself\n"
    "from circuitsvis.attention import attention_heads",
    "attention_heads(attention=layer, tokens=texts)",
    """const canvas = [...document.querySelectorAll('[id^=circuits-vis] canvas')].pop();
       if (!canvas || canvas.width < 300) return false;
       const middle = canvas.getContext('2d').getImageData(canvas.width >> 1, canvas.height >> 1, 8, 8).data;
       return middle.some(value => value > 0);""",
    """const heads = [...document.querySelectorAll('[id^=circuits-vis] h4')].slice(0, 8);
       window.at = ((window.at ?? 0) + 1) % heads.length; heads[window.at].parentElement.click()""",
    "head",
    (128, 256, 512, 1024),
)
BERTVIZ = Peer(
    "BertViz",
    "from bertviz import head_view",
    "head_view([layer[None]], texts, heads=[0])",
    "return document.querySelector('[id^=bertviz] #attention line')",
    """const tokens = document.querySelectorAll('[id^=bertviz] #left > g:last-child > g');
       window.at = ((window.at ?? 0) + 1) % tokens.length;
       tokens[window.at].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))""",
    "token",
    (128, 256, 512, 1024),
    tuple(SCRIPTS),
)
ATTNVIEW = Peer(
    "attnview",
    "import attnview",
    "attnview.display(layer, tokens=texts)",
    "return document.querySelector('#weights tr')",
    "document.getElementById('next').click()",
    "token",
    (256, 512, 1024),
)


def install() -> None:
    """Put the others' packages beside ours, once."""
    if (PEERS / "installed").exists():
        return
    npm = shutil.which("npm")
    if not npm:
        raise SystemExit(
            "expected npm on PATH, for the scripts that BertViz asks a CDN for; --ours leaves the others out"
        )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEERS / "python")]
    subprocess.run([*pip, "--requirement", str(REQUIREMENTS)], check=True)
    packages = [package for package, _ in SCRIPTS.values()]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", str(PEERS / "npm")]
    subprocess.run([npm, "install", *options, *packages], check=True)
    (PEERS / "installed").touch()


@dataclass
class Bench:
    """A JupyterLab and a Playwright, for one run after another."""

    server: LabServer
    playwright: Playwright
    given: list[str] = field(default_factory=list)

    @contextmanager
    def opened(self, setup: str, view: str) -> Iterator[LabNotebook]:
        """Open a notebook of one cell, in a browser of its own, with `setup` done in its kernel."""
        executable = find_chromium(self.playwright)
        browser = self.playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page, self.given = context.new_page(), []
        page.route(lambda url: url.startswith("https:"), self.give)
        path = write_notebook(self.server.root / "view.ipynb", [SHOW.format(view=view)])
        notebook = LabNotebook(self.server, page, Heard(), path)
        try:
            notebook.open()
            notebook.execute(setup)
            yield notebook
        finally:
            browser.close()
            self.stop_kernels()

    def give(self, route: Route) -> None:
        """Answer for the CDN from npm packages; nothing else gets an answer."""
        url = route.request.url
        if url not in SCRIPTS:
            route.abort()
            return
        package, file = SCRIPTS[url]
        script = PEERS / "npm" / "node_modules" / package.partition("@")[0] / file
        route.fulfill(path=script, content_type="text/javascript")
        self.given.append(url)

    def stop_kernels(self) -> None:
        """End all sessions through the server: a page that hangs cannot."""
        headers = {"Authorization": f"token {self.server.token}"}
        address = f"{self.server.url}/api/sessions"
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            sessions = json.load(answer)
        for session in sessions:
            request = urllib.request.Request(f"{address}/{session['id']}", headers=headers, method="DELETE")
            urllib.request.urlopen(request).close()

    def ours(self, tokens: int, layers: int, steps: int) -> dict[str, Any]:
        setup = TRACE.format(tokens=tokens, layers=layers) + "from widgets import AttentionView"
        view = f"AttentionView(trace, token={tokens * 3 // 4}, layer=1, head=10)"
        with self.opened(setup, view) as notebook:
            measured = measure_view(Meter(notebook), steps, mean_map=tokens <= 8192)
            View(notebook).root.focus()
            measured |= frame_times(notebook.page, NEXT_TOKEN, steps)
            problems = notebook.cell_errors()
        assert not problems, problems
        about = {"view": "AttentionView", "tokens": tokens, "layers": layers, "heads": 64, "steps_to": "token"}
        return about | measured

    def peer(self, peer: Peer, tokens: int, steps: int, limit_s: float) -> dict[str, Any]:
        """Return what another view costs; without paint, what came of its data and scripts."""
        setup = TRACE.format(tokens=tokens, layers=2) + ONE_LAYER + peer.imports
        about = {"view": peer.name, "tokens": tokens, "layers": 1, "heads": HEADS, "steps_to": peer.steps_to}
        with self.opened(setup, peer.view) as notebook:
            page = notebook.page
            if peer.scripts:  # its own tag for the first of them comes too late for its own script
                page.add_script_tag(url=peer.scripts[0])
            meter = Meter(notebook)
            try:
                measured: dict[str, Any] = meter.run(peer.is_painted, limit_s)
            except TimeoutError:
                lacking = [url for url in peer.scripts if url not in self.given]
                return about | {"paint_s": None, "sent_mb": meter.sent_mb(), "limit_s": limit_s, "lacking": lacking}
            measured |= frame_times(page, peer.step, steps, limit_s=STEPS_LIMIT_S)
            measured["heap_mb"] = meter.heap_grown_mb()
            return about | measured | conditions(page)


def compare(bench: Bench, peer: Peer, steps: int, limit_s: float) -> list[dict[str, Any]]:
    """Measure another view at more and more tokens, up to the first number at which it does not paint."""
    rows = []
    for tokens in peer.tokens:
        rows.append(bench.peer(peer, tokens, steps, limit_s))
        print(line(rows[-1]), flush=True)
        if rows[-1]["paint_s"] is None:
            break
    return rows


COLUMNS = (
    f"{'':14}{'tokens':>7}{'layers × heads':>16}{'cell':>8}{'paint':>8}{'sent':>10}{'step p50 / p95':>24}{'heap':>9}"
)


def line(row: dict[str, Any]) -> str:
    start = f"{row['view']:14}{row['tokens']:7,}{row['layers']:9} × {row['heads']:<4}"
    if row["paint_s"] is None:
        scripts = f", without {', '.join(row['lacking'])}: does not count" if row["lacking"] else ", scripts arrived"
        return f"{start}  no paint within {row['limit_s']:g} s; sent {row['sent_mb']:,.1f} MB{scripts}"
    step = f"{row['steps_to']} {row['frame_p50_ms']:.0f} / {row['frame_p95_ms']:.0f} ms"
    sent = f"{row['sent_till_paint_mb']:.1f} MB"
    return f"{start}{row['cell_s']:6.2f} s{row['paint_s']:6.2f} s{sent:>10}{step:>24}{row['heap_mb']:6.0f} MB"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ours", action="store_true", help="AttentionView alone")
    options.add_argument("--tokens", type=int, nargs=2, default=(8192, 32_768), help="of AttentionView")
    options.add_argument("--layers", type=int, nargs=2, default=(24, 2), help="of AttentionView")
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--limit", type=float, default=30, help="seconds that another view has to paint")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    if not given.ours:
        install()
    about = environment("moe-workbench", "jupyterlab", "anywidget", "playwright")
    print(f"{about['cpu']}, load {about['load_before']}; {about['versions']}\n{COLUMNS}", flush=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = start_lab(Path(folder))
        try:
            server.wait_until_up()
            report = run(Bench(server, playwright), given)
        finally:
            server.stop()
    write("attention_view", {**about, **report}, given.out)


def run(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    rows, targets = [], []
    for tokens, layers, names in zip(given.tokens, given.layers, (AT_READING_LENGTH, FAR_BEYOND), strict=True):
        rows.append(bench.ours(tokens, layers, given.steps))
        print(line(rows[-1]), flush=True)
        targets += [{"tokens": tokens, **target} for target in verdicts(rows[-1], names)]
    for peer in () if given.ours else (CIRCUITSVIS, BERTVIZ, ATTNVIEW):
        rows += compare(bench, peer, given.steps // 3, given.limit)
    print()
    for target in targets:
        said = "met" if target["met"] else "MISSED"
        numbers = f"{target['found']:g} {target['unit']}, target ≤ {target['target']:g} {target['unit']}"
        print(f"{said}: {target['tokens']:,} tokens: {target['what']} {numbers}")
    return {"views": rows, "targets": targets}


if __name__ == "__main__":
    main()

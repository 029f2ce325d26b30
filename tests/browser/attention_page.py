"""The attention view on a page: pressing, reading what it shows, and measuring what it costs.

`Meter` measures any cell, so that `benchmarks/attention_view.py` puts other tools through the same.
"""

import os
import re
import time
from typing import Any

from lab import LabNotebook, PageView
from playwright.sync_api import Locator, Page, expect


class View(PageView):
    """One attention view on the page."""

    def __init__(self, notebook: LabNotebook, index: int = 0) -> None:
        super().__init__(notebook, ".moe-attention", index)
        self.axis = self.root.locator(".moe-attention-axis")
        self.map = self.root.locator(".moe-attention-map")

    def expect_map(self, shows: str, state: str = "here") -> None:
        expect(self.map).to_have_attribute("data-shows", shows, timeout=20_000)
        expect(self.map).to_have_attribute("data-state", state, timeout=20_000)

    def expect_cursor(self, row: int, column: int) -> None:
        """Wait until the keyboard's cell is there."""
        expect(self.map).to_have_attribute("data-cursor", f"{row}:{column}")

    def masses(self) -> dict[str, Any]:
        line = self.root.locator(".moe-mass-words")
        names = ("sink", "first", "further", "shown", "sum")
        return {n: v if (v := line.get_attribute(f"data-{n}")) == "none" else float(v or "nan") for n in names}

    def found(self, name: str) -> list[list[float]]:
        """What a list shows, as [token, weight]."""
        words = self.list(name).get_attribute("data-found") or ""
        return [[float(n) for n in pair.split(":")] for pair in words.split()]

    def list(self, name: str) -> Locator:
        return self.root.locator(f'.moe-token-list[data-list="{name}"]')

    def hint(self) -> str:
        return self.root.locator(".moe-map-hint").inner_text()

    def shown_cell(self, row: int, column: int, of: int, left: int = 46, top: int = 24) -> dict[str, float]:
        """Where a cell of a map of ``of`` × ``of`` cells is on its canvas."""
        box = self.map.locator("canvas").bounding_box()
        assert box is not None
        cell = min((box["width"] - left - 2) / of, (box["height"] - top - 2) / of, 34)
        return {"x": left + (column + 0.5) * cell, "y": top + (row + 0.5) * cell}


# --- what a cell costs --------------------------------------------------------------------------------------------

SHOW = "from IPython.display import display; import time; began = time.time(); display({view}); ran = time.time()"
"""A cell for `Meter.run`."""

WATCH = """() => {
    window.firstPaint = null;
    const isThere = () => { %s };
    const look = () => {
        if (!isThere()) return requestAnimationFrame(look);
        requestAnimationFrame(() => { window.firstPaint = (performance.timeOrigin + performance.now()) / 1000; });
    };
    look();
}"""
PAINTED = """return document.querySelector('.moe-attention-axis[data-state="here"]')"""
"""The row of the selected token stands on the axis."""


class Meter:
    """Measures what the cells of a notebook cost the browser."""

    def __init__(self, notebook: LabNotebook) -> None:
        self.notebook, self.page = notebook, notebook.page
        self.session = self.page.context.new_cdp_session(self.page)
        self.received: list[tuple[float, int]] = []  # seconds on the browser's clock, bytes
        self.session.on("Network.webSocketFrameReceived", self._receive)
        self.session.send("Network.enable")
        self.session.send("Performance.enable")
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        clock = next(m["value"] for m in metrics if m["name"] == "Timestamp")
        self.offset = time.time() - clock
        self.heap_before = self.heap_mb()

    def _receive(self, event: dict[str, Any]) -> None:
        frame = event["response"]
        length = len(frame["payloadData"])  # binary ones come in base64
        self.received.append((event["timestamp"], length * 3 // 4 if frame["opcode"] == 2 else length))

    def run(self, is_painted: str, timeout_s: float = 60) -> dict[str, float]:
        """Run all cells, of which the last is a `SHOW`; return seconds and MB until `is_painted` holds.

        ``cell_s`` is that cell's own time, ``paint_s`` from its end to the frame in which `is_painted` (JavaScript)
        has become true.
        """
        self.page.evaluate(WATCH % is_painted)
        self.notebook.run_all(wait=False)
        self.page.wait_for_function("window.firstPaint !== null", timeout=timeout_s * 1000)
        painted = self.page.evaluate("window.firstPaint")
        self.page.wait_for_function("window.labRunDone === true", timeout=timeout_s * 1000)
        began, ran = self.notebook.evaluate("[began, ran]")
        return {
            "cell_s": round(ran - began, 2),
            "paint_s": round(painted - ran, 2),
            "sent_till_paint_mb": self.sent_mb(painted),
        }

    def sent_mb(self, until: float = float("inf")) -> float:
        """Return what came over websockets, until a time in seconds."""
        return round(sum(size for at, size in self.received if at + self.offset <= until) / 1e6, 2)

    def heap_mb(self) -> float:
        """Return what JavaScript holds after a collection, array buffers included."""
        self.session.send("HeapProfiler.collectGarbage")
        usage = self.session.send("Runtime.getHeapUsage")
        return float(usage["usedSize"] + usage.get("backingStorageSize", 0)) / 1e6

    def heap_grown_mb(self) -> float:
        """Return by how much that grew since the notebook was opened."""
        return round(self.heap_mb() - self.heap_before, 1)


STEP = """async () => {
    const frame = () => new Promise(done => requestAnimationFrame(done));
    await frame();
    const start = performance.now();
    %s;
    await frame();
    await frame();
    return performance.now() - start;
}"""


def frame_times(page: Page, step: str, count: int, limit_s: float = 60) -> dict[str, Any]:
    """Do a step (JavaScript) at reading speed; return percentiles in ms until its frame was handed on.

    The second frame after the step begins when the first, in which the step is drawn, is done: a step that costs
    nothing takes 17 to 33 ms.
    """
    times: list[float] = []
    while len(times) < count and sum(times) < 1000 * limit_s:
        times.append(page.evaluate(STEP % step))
        page.wait_for_timeout(60)
    return percentiles("frame", times)


EVENTS = """() => {
    const isNew = !window.durations;
    window.durations = [];
    if (!isNew) return;
    new PerformanceObserver(list => list.getEntries().forEach(e => e.name === 'keydown' && durations.push(e.duration)))
        .observe({type: 'event', durationThreshold: 16});
}"""


def key_times(view: View, name: str, keys: list[str], count: int) -> dict[str, Any]:
    """Press keys at reading speed; return percentiles of key to presented frame, in ms (Event Timing, 8 ms steps)."""
    view.page.evaluate(EVENTS)
    for i in range(count):
        view.press(keys[i % len(keys)])
        view.page.wait_for_timeout(60)
    view.page.wait_for_timeout(500)
    reported = view.page.evaluate("durations")
    # Event Timing reports nothing under 16 ms: those steps count as 8.
    return percentiles(name, [8.0] * max(0, count - len(reported)) + reported)


ROW_OF_HEAD = """async key => {
    const root = document.querySelector('.moe-attention');
    const gutter = root.querySelectorAll('.moe-gutter')[4];
    const before = gutter.textContent;
    const bar = root.querySelector('.moe-mass-bar');
    const start = performance.now();
    root.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    const frame = () => new Promise(done => requestAnimationFrame(done));
    do await frame(); while (gutter.textContent === before || bar.hidden);
    await frame();
    return performance.now() - start;
}"""


def row_times(view: View, count: int) -> dict[str, Any]:
    """Switch through heads nobody saw yet; return percentiles in ms until the row of the new head stands."""
    view.root.focus()
    times = []
    for _ in range(count):
        times.append(view.page.evaluate(ROW_OF_HEAD, "]"))
        view.page.wait_for_timeout(300)
    return percentiles("new_head", times)


def percentiles(name: str, times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)
    p50, p95 = (round(ordered[min(len(ordered) - 1, int(len(ordered) * q))], 1) for q in (0.5, 0.95))
    return {f"{name}_p50_ms": p50, f"{name}_p95_ms": p95, f"{name}_n": len(ordered)}


# --- the attention view -------------------------------------------------------------------------------------------

TARGETS = {
    "paint_s": ("first paint after the cell ran", 1.5, "s"),
    "sent_till_paint_mb": ("sent until then", 5.0, "MB"),
    "token_p95_ms": ("step of a token, key to frame, p95", 33.0, "ms"),
    "head_p95_ms": ("step of a head, key to frame, p95", 150.0, "ms"),
    "new_head_p95_ms": ("row of a head not seen before, p95", 150.0, "ms"),
    "heap_mb": ("browser heap", 150.0, "MB"),
}
"""By what is measured: words, upper bound, unit."""
AT_READING_LENGTH = tuple(TARGETS)
FAR_BEYOND = ("token_p95_ms", "heap_mb")
"""What is promised where a trace is longer than anyone reads: it still steps, in bounded memory."""


def measure_view(meter: Meter, steps: int, mean_map: bool = False) -> dict[str, Any]:
    """Run a notebook that shows an AttentionView; return what it costs, and until the map of all heads is whole."""
    measured: dict[str, Any] = meter.run(PAINTED)
    view = View(meter.notebook)
    view.expect_map("sentences")
    view.root.locator('.moe-wall[data-state="here"]').wait_for(timeout=60_000)
    view.page.wait_for_timeout(500)
    measured["sent_with_all_panels_mb"] = meter.sent_mb()
    measured |= key_times(view, "token", ["ArrowRight"], steps)
    measured |= key_times(view, "head", ["]", "["], steps // 2)
    measured |= row_times(view, steps // 3)
    measured["heap_mb"] = meter.heap_grown_mb()
    if mean_map:
        measured["mean_map_s"] = mean_map_s(view)
    return measured | conditions(view.page)


def mean_map_s(view: View) -> float:
    """Return the seconds from the key until the last part of the mean over the layer's heads is on the map."""
    began = time.monotonic()
    view.press("a")
    view.map.get_by_text(re.compile(r"mean of \d+ heads")).wait_for(timeout=60_000)
    view.expect_map("sentences")
    expect(view.map.get_by_text("parts so far")).to_have_count(0, timeout=180_000)
    seconds = round(time.monotonic() - began, 1)
    view.press("a")
    view.expect_map("sentences")
    view.page.wait_for_timeout(1000)  # what is measured next begins in peace
    return seconds


def conditions(page: Page) -> dict[str, Any]:
    """Return what the numbers depend on."""
    browser = page.context.browser
    assert browser is not None
    return {"chromium": browser.version, "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def verdicts(measured: dict[str, Any], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return some targets, what was found, and whether each is met."""
    found = []
    for name in names:
        words, bound, unit = TARGETS[name]
        met = measured[name] <= bound
        found.append({"what": words, "found": measured[name], "target": bound, "unit": unit, "met": met})
    return found


def report(title: str, measured: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return all that was measured, and whether some targets are met, as lines."""
    numbers = [f"  {name:24} {value}" for name, value in measured.items()]
    targets = [
        f"  {'met' if v['met'] else 'MISSED'}: {v['what']} {v['found']:g} {v['unit']}, target ≤ {v['target']:g}"
        for v in verdicts(measured, names)
    ]
    return "\n".join([title, *numbers, *targets])

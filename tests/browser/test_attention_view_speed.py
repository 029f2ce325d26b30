"""What AttentionView costs in a real JupyterLab at reading length: printed beside its targets, and kept."""

import json
from pathlib import Path

import pytest
from attention_page import AT_READING_LENGTH, FAR_BEYOND, SHOW, Meter, View, measure_view, report
from lab import OpenNotebook

TESTS = Path(__file__).parents[1]
PERFORMANCE = Path(__file__).parents[2] / "artifacts" / "performance.json"

IMPORT = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom synthetic import synthetic_trace"


@pytest.mark.parametrize(
    ("tokens", "layers", "steps", "targets"), [(8192, 24, 60, AT_READING_LENGTH), (32_768, 2, 30, FAR_BEYOND)]
)
def test_speed_is_measured(
    lab_notebook: OpenNotebook,
    capsys: pytest.CaptureFixture[str],
    tokens: int,
    layers: int,
    steps: int,
    targets: tuple[str, ...],
) -> None:
    """Print and keep first paint, bytes, heap and step times; the targets are reported on, not asserted."""
    trace = f"trace = synthetic_trace(tokens={tokens}, layers={layers})"
    show = SHOW.format(view=f"AttentionView(trace, token={tokens * 3 // 4}, layer=1, head=10)")
    notebook = lab_notebook([IMPORT, "from widgets import AttentionView", trace, show], run=False)
    measured = measure_view(Meter(notebook), steps, mean_map=tokens == 8192)
    with capsys.disabled():
        print("\n" + report(f"AttentionView, {tokens:,} tokens × {layers} layers", measured, targets))
    PERFORMANCE.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(PERFORMANCE.read_text()) if PERFORMANCE.exists() else {}
    PERFORMANCE.write_text(json.dumps(kept | {f"attention_view_{tokens}": measured}, indent=1))
    view = View(notebook)
    notebook.screenshot(f"attention_view_{tokens}", of=view.root)
    assert notebook.cell_errors() == []
    assert notebook.heard.page_errors == []
    assert view.masses()["sum"] == pytest.approx(1, abs=5e-3)

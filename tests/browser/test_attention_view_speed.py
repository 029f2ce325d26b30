"""What AttentionView costs in a real JupyterLab at reading length: printed beside its targets, and kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from attention_page import AT_READING_LENGTH, FAR_BEYOND, SHOW, Meter, View, measure_view, report
from lab import OpenNotebook

TESTS = Path(__file__).parents[1]
BENCHMARK = TESTS.parent / "benchmarks" / "attention_view.py"
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


def test_the_benchmark_runs(tmp_path: Path) -> None:
    """On small sizes, and without the others' packages, which it would install; its numbers are made by hand."""
    sizes = ["--tokens", "700", "900", "--layers", "2", "2", "--steps", "6"]
    command = [sys.executable, str(BENCHMARK), "--ours", *sizes, "--out", str(tmp_path / "view.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "view.json").read_text(encoding="utf-8"))
    assert [(view["tokens"], view["token_n"], view["frame_n"]) for view in report["views"]] == [
        (700, 6, 6),
        (900, 6, 6),
    ]
    assert [target["target"] for target in report["targets"]] == [1.5, 5, 33, 150, 150, 150, 33, 150]
    assert done.stdout.count(": 700 tokens: ") == 6

"""Estimates against published numbers, and against the arrays a capture really makes."""

import shutil
from pathlib import Path

import psutil
import pytest

import workbench as wb
from workbench.capturing import token_limit
from workbench.sizing import capture_bytes, size

GB = 10**9


@pytest.mark.parametrize(("name", "total"), [("openai/gpt-oss-20b", 20.91e9), ("openai/gpt-oss-120b", 116.83e9)])
def test_parameters_and_checkpoints_of_the_released_models(name: str, total: float) -> None:
    """Parameter counts of the gpt-oss model card, table 1; checkpoints of 12.8 and 60.8 GiB."""
    result = wb.estimate(name, 8192, device_memory=80 * GB)
    experts = {"openai/gpt-oss-20b": 24 * 32, "openai/gpt-oss-120b": 36 * 128}[name]
    matrices = experts * 3 * 2880 * 2880
    assert result.weights == pytest.approx(2 * (total - matrices) + matrices * 4.25 / 8, rel=2e-3)
    assert result.weights / 2**30 == pytest.approx(
        {"openai/gpt-oss-20b": 12.8, "openai/gpt-oss-120b": 60.8}[name], abs=0.1
    )
    assert result.fits is True


def test_bytes_per_token_of_20b() -> None:
    result = wb.estimate("openai/gpt-oss-20b", 1000, capture=wb.CaptureSpec(residual=True))
    per_token = {name: count / 1000 for name, count in result.arrays.items()}
    assert per_token["expert_indices"] + per_token["expert_weights"] == 288
    assert per_token["router_logits"] == 1536
    assert per_token["keys"] == 24_576
    assert per_token["queries"] == 196_608
    assert per_token["residual"] == 138_240
    assert result.fits is None


def test_kv_cache_keeps_only_the_window_in_sliding_layers() -> None:
    row = 2 * 8 * 64 * 2
    assert wb.estimate("openai/gpt-oss-20b", 1000).kv_cache == row * 12 * (1000 + 128)
    assert wb.estimate("openai/gpt-oss-20b", 100).kv_cache == row * 24 * 100


def test_120b_does_not_fit_a_small_gpu_and_the_table_says_so() -> None:
    text = str(wb.estimate("openai/gpt-oss-120b", 8192, device_memory=24 * GB))
    assert "does NOT fit in 24 GB" in text
    assert "queries                  2.42 GB       294,912 B/token" in text


def test_the_estimate_is_what_a_capture_makes(odd: wb.Model) -> None:
    spec = wb.CaptureSpec(router=[0, 2], residual=True, lens_top=2, top=4)
    trace = wb.capture(odd, "1+1=?", max_new_tokens=9, capture=spec)
    sizes = {name: trace.arrays[name].nbytes for name in trace.captured if name != "sink_logits"}
    assert capture_bytes(odd, spec, len(trace)) == sizes


def test_what_does_not_fit_is_refused_before_it_starts(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Free:
        available = 100_000

    monkeypatch.setattr(psutil, "virtual_memory", Free)
    text = (
        r"capturing \d+ tokens would take .* of host memory, 100 kB are free\. Largest: queries .*Lower max_new_tokens"
    )
    with pytest.raises(wb.ModelError, match=text):
        wb.capture(odd, "1+1=?")
    assert token_limit(odd, 10, None) == 590


def test_a_full_disk_is_refused(odd: wb.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Disk:
        free = 100_000

    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: asked.append(folder) or Disk)
    with pytest.raises(wb.ModelError, match=r"would take .* of the disk of .*t\.safetensors, 100 kB are free\."):
        wb.capture(odd, "1+1=?", path=tmp_path / "not there yet" / "t.safetensors")
    assert asked == [tmp_path], "the folder that exists above it"
    assert not list(tmp_path.iterdir())


def test_a_full_gpu_is_refused_before_it_starts(odd: wb.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.sizing.free_device_memory", lambda _device: 50_000)
    with pytest.raises(wb.ModelError, match=r"would take .* of the memory of cpu, 50 kB are free\. Largest: queries"):
        wb.capture(odd, "1+1=?")


def test_sizes_are_written_in_decimal_units() -> None:
    assert [size(n) for n in (12, 1500, 2.5e6, 19.2e9, 2e12)] == ["12 B", "1.5 kB", "2.5 MB", "19.2 GB", "2,000 GB"]


@pytest.mark.parametrize(
    ("name", "tokens", "text"),
    [("tiny", 0, "expected at least 1 token, got 0"), ("gpt-five", 5, "unknown model 'gpt-five'")],
)
def test_bad_input(name: str, tokens: int, text: str) -> None:
    with pytest.raises(wb.ModelError, match=text):
        wb.estimate(name, tokens)

"""The plan for a million traces: its arithmetic by hand, and that the page has what the script computes."""

from pathlib import Path
from typing import Any

import pytest

import workbench as wb

ROOT = Path(__file__).parent.parent


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scale_plan

    return scale_plan


def test_the_page_has_the_tables_of_the_script(plan: Any) -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert page == plan.filled(page), "run python benchmarks/scale_plan.py --write"
    with pytest.raises(ValueError, match="expected one place for the table 'bytes 20b' in the page, found 0"):
        plan.filled("")


def test_the_numbers_by_hand(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # 24 layers of 4 one-byte indices, 4 weights and 32 logits of two bytes; 42 bytes of statistics.
    assert plan.per_token("openai/gpt-oss-20b", plan.ROUTER) == 24 * (4 + 8 + 64) + 42 == 1866
    assert "| 1,866 | 37.3 MB | 373 GB | 37.3 TB | $858 | 0.3 s |" in plan.bytes_of("openai/gpt-oss-20b")
    assert "| 1,000 | 5,556 | 4 days | $13,889 | 1.87 MB/s |" in plan.hours()
    # 80 GB less the weights, over 12 full layers of 20,000 tokens and 12 windows of 128, and what is in flight.
    cache = 2 * 8 * 64 * 2 * 12 * (20_000 + 128)
    size = wb.estimate("openai/gpt-oss-20b", 20_000, capture=plan.ROUTER)
    assert size.kv_cache == cache
    assert f"| {int((80e9 - size.weights) / (cache + size.in_flight))} |" in plan.device()
    monkeypatch.setattr(plan, "TRACES", 2_000_000)
    assert "| 74.6 TB | $1,717 |" in plan.bytes_of("openai/gpt-oss-20b")


def test_sizes_and_durations_in_words(plan: Any) -> None:
    assert [plan.size(n) for n in (999, 1000, 37.32e12, 7.36e15)] == ["999 B", "1 kB", "37.3 TB", "7.36 PB"]
    shown = [plan.duration(s) for s in (0.0067, 59, 180, 3 * 3600, 4 * 86_400)]
    assert shown == ["0.0067 s", "59 s", "3 min", "3 h", "4 days"]

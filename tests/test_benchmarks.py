"""The benchmarks run, on small sizes, and their arithmetic is right; their numbers are made by `make bench`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _rounds

    return _rounds


def test_a_ratio_is_taken_within_a_round(rounds: Any) -> None:
    found = rounds.ratio([2.0, 40.0, 9.0], [1.0, 20.0, 3.0])
    assert found["median"] == 2.0, "of 2, 2 and 3; the ratio of the medians would be 3"
    assert found["interval"] == [2.0, 3.0]
    assert rounds.ratio([5.0] * 9, [4.0] * 9) == {"median": 1.25, "interval": [1.25, 1.25]}


def test_every_way_runs_once_a_round_and_once_before(rounds: Any) -> None:
    ran: list[str] = []
    times = rounds.measure({name: lambda name=name: ran.append(name) for name in "abc"}, 3)
    assert ran[3:] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert sorted(ran[:3]) == ["a", "b", "c"]
    assert all(len(taken.wall) == len(taken.cpu) == 3 for taken in times.values())


def test_a_missed_target_is_listed_as_missed(rounds: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert rounds.verdict("opening", 250.0, 200.0, " ms")["met"] is False
    assert rounds.verdict("reading", 0.2, 0.2, " ms")["met"] is True
    assert rounds.verdict("two workers", 1.69, 1.7, at_least=True)["met"] is False
    assert rounds.verdict("two workers", 1.7, 1.7, at_least=True)["met"] is True
    assert capsys.readouterr().out.splitlines() == [
        "MISSED: opening 250 ms, target ≤ 200 ms",
        "met: reading 0.2 ms, target ≤ 0.2 ms",
        "MISSED: two workers 1.69, target ≥ 1.7",
        "met: two workers 1.7, target ≥ 1.7",
    ]


def run(name: str, *arguments: str, out: Path) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert report["cpu"]
    assert report["versions"]
    return report


def test_capture_cost_runs_and_all_ways_see_the_same_routing(tmp_path: Path) -> None:
    """The benchmark itself compares tokens, router logits and experts of every live way, others' among them."""
    sizes = ("--small", "--rounds", "2", "--tokens", "4", "--replayed", "40")
    report = run("capture_cost", *sizes, out=tmp_path / "cost.json")
    live, replay = report["measured"]["live"], report["measured"]["replay"]
    assert {"generate", "generate, again", "nnsight: router", "TransformerLens: router"} < live.keys()
    assert live["generate"]["ratio"]["median"] == 1.0
    assert replay["forward"]["bytes_per_token"] == 0
    # Per token of float32: 24 layers of 32 logits, 4 weights and 4 one-byte indices; then 4 + 4 + 5 * 4 + 5 * 2.
    assert live["capture: router"]["bytes_per_token"] == 24 * (32 * 4 + 4 * 4 + 4) + 38
    assert [target["target"] for target in report["targets"]] == [1.03, 1.06, 1.15]


def test_intervention_cost_runs_and_all_ways_generate_the_same(tmp_path: Path) -> None:
    """The benchmark itself compares the tokens of hooks by hand, of nnsight and of the workbench."""
    report = run("intervention_cost", "--small", "--rounds", "2", "--tokens", "6", out=tmp_path / "cost.json")
    ways = {"generate", "generate, again", "route around", "hooks by hand: route around", "nnsight: route around"}
    assert ways < report["measured"].keys()
    assert report["measured"]["generate"]["ratio"]["median"] == 1.0
    assert {target["target"] for target in report["targets"]} == {1.15}


def test_trace_files_runs(tmp_path: Path) -> None:
    report = run("trace_files", "--rounds", "2", "--tokens", "2000", out=tmp_path / "files.json")
    assert {"open", "read"} == report["files"].keys()
    assert report["files"]["read"]["numpy.memmap"]["ratio"]["median"] == 1.0
    assert len(report["append_us_per_token"]) == 2
    assert not (BENCHMARKS / "results" / "files.json").exists()


def test_corpus_routing_runs_and_all_ways_agree(tmp_path: Path) -> None:
    """The benchmark itself compares every way's counts with the workbench's, exactly."""
    report = run("corpus_routing", "--rounds", "2", "--selections", "576000", out=tmp_path / "corpus.json")
    assert (report["selections"], report["traces"]) == (576_000, 2)
    pairs = report["compared"]["co-activation"]
    assert {"workbench", "numpy", "numpy, tuned", "DuckDB", "Polars", "control"} == pairs.keys() - {
        "numpy, tuned, again"
    }
    assert (pairs["workbench"]["millions"], pairs["DuckDB"]["millions"]) == (0.576, 0.384)
    assert report["streamed"]["coactivation"]["extra_mb"] < 100
    assert [target["target"] for target in report["targets"]] == [0.2, 0.5, 100, 100]


def test_attention_kernel_runs_and_agrees_with_plain_numpy(tmp_path: Path) -> None:
    """The benchmark itself compares what it times with whole arrays."""
    sizes = ("--rounds", "2", "--tokens", "300", "--row-tokens", "500")
    report = run("attention_kernel", *sizes, out=tmp_path / "kernel.json")
    assert report["pairs"] == 64 * 300 * 301 / 2
    assert {"floor", "sentences", "sentences, large scores", "plain numpy", "control"} == report["layer"].keys()
    assert report["layer"]["floor"]["ratio"]["median"] == 1.0
    assert report["memory_mb"]["token_by_token"] == 64 * 300 * 300 * 4 / 1e6
    assert [target["target"] for target in report["targets"]] == [1.5, 1.5, 5.0, 80.0]


def test_scale_runs_and_all_ways_store_the_same_bits(tmp_path: Path) -> None:
    """The benchmark itself compares the traces of all engines, and tokens and experts of batches with single runs."""
    report = run("scale", "--rounds", "2", "--rollouts", "4", "--tokens", "5", out=tmp_path / "scale.json")
    assert (report["rollouts"], report["new_tokens"]) == (4, 20)
    workers, batches = report["workers"], report["batches"]
    assert {"local engine", "1 worker", "1 worker, again", "2 workers", "2 processes without Ray"} == workers.keys()
    assert {"single", "single, again", *(f"batches of {n}" for n in (1, 2, 8, 32))} == batches.keys()
    assert workers["1 worker"]["speed_up"]["median"] == batches["single"]["speed_up"]["median"] == 1.0
    assert workers["2 workers"]["processor"]["workers"] > workers["2 workers"]["processor"]["this process"]
    [target] = report["targets"]
    assert (target["target"], target["found"]) == (1.7, workers["2 workers"]["speed_up"]["median"])

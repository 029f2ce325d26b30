"""A capture that is cut off: by Ctrl-C, by an error on the disk, by kill -9."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench import shards
from workbench.ring import STRETCH_ROWS, STRETCHES

QUESTION = "91+40+98+66=?"


def capture_to(path: Path, model: wb.Model, new_tokens: int, **options: Any) -> wb.Trace:
    return wb.capture(model, QUESTION, max_new_tokens=new_tokens, seed=3, path=path, **options)


@pytest.fixture(scope="module")
def whole(odd: wb.Model, tmp_path_factory: pytest.TempPathFactory) -> wb.Trace:
    return capture_to(tmp_path_factory.mktemp("whole") / "t.safetensors", odd, 3 * STRETCH_ROWS + 5)


def assert_beginning(part: wb.Trace, whole: wb.Trace) -> None:
    """Every array of ``part`` is the first rows of the same array of ``whole``."""
    assert part.captured == whole.captured
    for name in whole.captured:
        dims, expected = whole.array(name).dims, whole.array(name)[:]
        if "token" in dims:
            expected = np.take(expected, range(len(part)), dims.index("token"))
        np.testing.assert_array_equal(part.array(name)[:], expected, err_msg=name)


def test_a_capture_that_ends_leaves_the_file_and_no_shards(whole: wb.Trace) -> None:
    assert whole.path is not None
    assert sorted(p.name for p in whole.path.parent.iterdir()) == ["t.safetensors"]
    assert_beginning(wb.open_trace(whole.path), whole)


def test_shards_hold_every_collected_row_as_it_goes(odd: wb.Model, whole: wb.Trace, tmp_path: Path) -> None:
    counts: list[int] = []

    def fail_late(_token: int) -> bool:
        counts.append(1)
        if len(counts) == 2 * STRETCH_ROWS + 9:
            raise RuntimeError("late")
        return False

    with pytest.raises(RuntimeError, match="late"):
        capture_to(tmp_path / "t.safetensors", odd, 400, on_token=fail_late)
    assert not (tmp_path / "t.safetensors").exists()
    part = shards.recover(tmp_path / "t.safetensors.shards")
    assert len(part) == part.num_prompt_tokens + 2 * STRETCH_ROWS + 8, "an error loses nothing that was read"
    assert part.num_prompt_tokens == whole.num_prompt_tokens
    assert part.meta["truncated"] == f"recovered after {2 * STRETCH_ROWS + 8} tokens"
    assert_beginning(part, whole)
    assert part.text() == whole.text(0, len(part))
    assert part.messages[:2] == whole.messages[:2]
    np.testing.assert_allclose(
        part.attention(1, 2, [60]).pattern[:], whole.attention(1, 2, [60]).pattern[..., : len(part)], atol=1e-6
    )
    assert part.provenance["model"] == whole.provenance["model"]


def test_one_shard_opens_but_gives_no_attention(odd: wb.Model, tmp_path: Path) -> None:
    def fail(token: int, seen: list[int] = []) -> bool:  # noqa: B006
        seen.append(token)
        if len(seen) == STRETCH_ROWS + 1:
            raise RuntimeError("late")
        return False

    with pytest.raises(RuntimeError, match="late"):
        capture_to(tmp_path / "t.safetensors", odd, 400, on_token=fail)
    shard = wb.open_trace(tmp_path / "t.safetensors.shards" / "000000.safetensors")
    assert "Reasoning" in shard.text()
    with pytest.raises(wb.TraceError, match=r"one shard of a capture that did not finish.*shards\.recover\(folder\)"):
        shard.attention(0)


def test_an_interrupt_saves_the_partial_trace(odd: wb.Model, whole: wb.Trace, tmp_path: Path) -> None:
    def interrupt(token: int, seen: list[int] = []) -> bool:  # noqa: B006
        seen.append(token)
        if len(seen) == 90:
            raise KeyboardInterrupt
        return False

    part = capture_to(tmp_path / "t.safetensors", odd, 400, on_token=interrupt)
    assert part.meta["truncated"] == "interrupted after 89 tokens"
    saved = wb.open_trace(tmp_path / "t.safetensors")
    assert_beginning(saved, part)
    assert saved.text() == whole.text(0, len(part))
    np.testing.assert_allclose(saved.router_logits, whole.router_logits[: len(part)], atol=1e-4)
    assert not (tmp_path / "t.safetensors.shards").exists()


def test_an_interrupt_before_the_first_token_leaves_nothing_in_the_way(odd: wb.Model, tmp_path: Path) -> None:
    def interrupt(_token: int) -> bool:
        raise KeyboardInterrupt

    for _ in range(2):  # the second time is not refused
        with pytest.raises(KeyboardInterrupt):
            wb.capture(odd, "9+" * 80, path=tmp_path / "t.safetensors", on_token=interrupt)
        assert not list(tmp_path.iterdir())


PARENT = """
import os, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import workbench as wb
from conftest import random_gpt_oss
tiny = wb.load("tiny", device="cpu")
odd = wb.load(random_gpt_oss(tiny.config.vocab_size), tokenizer=tiny.tokenizer)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        wb.capture(odd, {question!r}, max_new_tokens=460, seed=3, path=line.strip())
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("gone", flush=True)
"""
KILLS = int(os.environ.get("KILLS", 50))


def test_kill_9_at_random_moments_loses_at_most_the_open_shard(odd: wb.Model, tmp_path: Path) -> None:
    """Each process is killed somewhere within its capture; what it had committed is found again, bit for bit."""
    expected = capture_to(tmp_path / "all.safetensors", odd, 460)
    moments = random.Random(8)
    script = PARENT.format(tests=str(Path(__file__).parent), question=QUESTION)
    recovered = []
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        for n in range(KILLS):
            path = tmp_path / f"{n}.safetensors"
            seen = kill_during_capture(parent, path, moments.uniform(0.0, 1.0))
            recovered.append(check_after_kill(path, seen, expected))
        parent.kill()
    assert sum(0 < tokens < len(expected) for tokens in recovered) > KILLS // 4, recovered


def kill_during_capture(parent: Any, path: Path, share: float) -> int:
    """Let a process capture until a random share of its shards is there, kill it; return the shards seen before."""
    parent.stdin.write(f"{path}\n".encode())
    parent.stdin.flush()
    pid = int(parent.stdout.readline())
    wanted = round(share * 7)
    deadline = time.monotonic() + 60
    while len(finished(path)) < wanted and not path.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(share / 40)
    before = len(finished(path))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended before the kill, which only one that is done may
        assert path.exists(), "the capture ended without its trace"
    assert parent.stdout.readline() == b"gone\n"
    return before


def finished(path: Path) -> list[Path]:
    return sorted(shards.shard_folder(path).glob("[0-9]" * 6 + ".safetensors"))


def check_after_kill(path: Path, shards_before: int, expected: wb.Trace) -> int:
    """Return how many tokens are there after the kill."""
    if path.exists():
        assert_beginning(wb.open_trace(path), expected)
        return len(expected)
    if not finished(path):
        assert shards_before == 0
        return 0
    assert len(finished(path)) >= shards_before
    part = shards.recover(shards.shard_folder(path))
    assert_beginning(part, expected)
    return len(part)


def test_a_shard_that_cannot_be_written_stops_the_capture(odd: wb.Model, tmp_path: Path, monkeypatch: Any) -> None:
    written: list[Path] = []

    def full(trace: wb.Trace, path: Path, **options: Any) -> None:
        if len(written) == 2:
            raise wb.TraceError("The trace was not saved: No space left on device.")
        written.append(path)
        save(trace, path, **options)

    save = shards.save_trace
    monkeypatch.setattr(shards, "save_trace", full)
    with pytest.raises(wb.TraceError, match=r"shard 2 of .* could not be written: .*No space left.* The 2 before it"):
        capture_to(tmp_path / "t.safetensors", odd, 460)
    assert len(shards.recover(tmp_path / "t.safetensors.shards")) == 2 * STRETCH_ROWS


def test_a_slow_disk_makes_generation_wait_not_memory_grow(odd: wb.Model, tmp_path: Path, monkeypatch: Any) -> None:
    written = [0]
    ahead: list[int] = []
    prompt = len(wb.capture(odd, QUESTION, max_new_tokens=1)) - 1

    def slow(trace: wb.Trace, path: Path, **options: Any) -> None:
        time.sleep(0.05)
        save(trace, path, **options)
        written[0] += len(trace)

    def watch(_token: int) -> bool:
        ahead.append(prompt + len(ahead) - written[0])
        return False

    save = shards.save_trace
    monkeypatch.setattr(shards, "save_trace", slow)
    monkeypatch.setattr("workbench.collect.STRETCH_ROWS", 4)
    trace = capture_to(tmp_path / "t.safetensors", odd, 60, on_token=watch)
    assert 2 * 4 <= max(ahead[8:]) <= STRETCHES * 4
    assert len(wb.open_trace(tmp_path / "t.safetensors")) == len(trace)


def test_a_file_that_was_being_written_is_not_taken_for_a_shard(odd: wb.Model, tmp_path: Path) -> None:
    folder = tmp_path / "t.safetensors.shards"
    folder.mkdir()
    (folder / ".000000.safetensors.ab12.part").write_bytes(b"half")
    with pytest.raises(wb.TraceError, match=r"t\.safetensors\.shards has no shards in it\. Expected the folder"):
        shards.recover(folder)
    with pytest.raises(wb.TraceError, match=r"holds a capture that did not finish\. Open it with workbench\.shards\."):
        capture_to(tmp_path / "t.safetensors", odd, 5)


def test_a_missing_shard_is_named(odd: wb.Model, tmp_path: Path) -> None:
    def fail(token: int, seen: list[int] = []) -> bool:  # noqa: B006
        seen.append(token)
        if len(seen) == 3 * STRETCH_ROWS + 1:
            raise RuntimeError("late")
        return False

    with pytest.raises(RuntimeError, match="late"):
        capture_to(tmp_path / "t.safetensors", odd, 400, on_token=fail)
    folder = tmp_path / "t.safetensors.shards"
    (folder / "000001.safetensors").unlink()
    with pytest.raises(wb.TraceError, match=r"000002\.safetensors is not the shard that starts at token \d+"):
        shards.recover(folder)
    with pytest.raises(wb.TraceError, match="nowhere is not a folder"):
        shards.recover(tmp_path / "nowhere")

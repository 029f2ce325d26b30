"""The trace file: what is written comes back, what is no trace is refused in words, nothing half-written stays."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from random_trace import random_trace

from workbench.trace import Span, Trace, TraceError
from workbench.trace_file import FORMAT, open_trace, save_trace

OLD = Path(__file__).parent / "traces" / "v1" / "random.safetensors"


def assert_same(got: Trace, expected: Trace) -> None:
    assert got.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        assert got.arrays[name].dtype == array.dtype, name
        assert got.arrays[name].shape == array.shape, name
        assert got.arrays[name].tobytes() == array.tobytes(), name
    assert got.spans == expected.spans
    assert got.meta == expected.meta


# --- writing and reading back ------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    trace = random_trace(7)
    save_trace(trace, tmp_path / "a b ü.safetensors")
    got = open_trace(str(tmp_path / "a b ü.safetensors"))
    assert_same(got, trace)
    assert got.queries.dtype == ml_dtypes.bfloat16
    assert got.path == tmp_path / "a b ü.safetensors"
    assert np.isnan(got.logprobs[0])
    assert got.final_text == "⚡132."


def test_saving_over_an_open_trace_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    random_trace(1).save(path)
    first = open_trace(path)
    random_trace(2).save(path)
    assert_same(first, random_trace(1))
    assert_same(open_trace(path), random_trace(2))
    first.save(path)  # its arrays are views of a file that has been replaced
    assert_same(open_trace(path), random_trace(1))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    trace = random_trace(3)
    path = tmp_path / "t.safetensors"
    trace.save(path)
    arrays = safetensors.numpy.load_file(path)
    assert arrays.keys() == trace.arrays.keys()
    for name, array in trace.arrays.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].tobytes() == array.tobytes()
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        keys = file.get_slice("keys")[1, :, 4:6]
    assert keys.tobytes() == trace.arrays["keys"][1, :, 4:6].tobytes()
    described = json.loads(metadata[FORMAT])
    assert list(metadata) == [FORMAT]
    assert (described["version"], described["meta"]) == (1, trace.meta)
    assert described["spans"][1] == {"start": 3, "stop": 6, "content_start": 3, "kind": "sentence", "role": "user"}


def test_we_read_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    trace = random_trace(4)
    trace.save(tmp_path / "ours.safetensors")
    with safetensors.safe_open(tmp_path / "ours.safetensors", "np") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(dict(trace.arrays), tmp_path / "theirs.safetensors", metadata)
    assert_same(open_trace(tmp_path / "theirs.safetensors"), trace)
    assert (tmp_path / "theirs.safetensors").stat().st_size == (tmp_path / "ours.safetensors").stat().st_size


def test_arrays_are_aligned_read_only_views_of_the_file(tmp_path: Path) -> None:
    random_trace(5).save(tmp_path / "t.safetensors")
    trace = open_trace(tmp_path / "t.safetensors")
    memory = {id(_root(array)) for array in trace.arrays.values()}
    assert len(memory) == 1
    for name, array in trace.arrays.items():
        assert array.flags.aligned, name
        assert not array.flags.writeable, name
        assert array.ctypes.data % array.itemsize == 0, name


def _root(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_opening_reads_the_header_only(tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    tokens, layers, experts = 100_000, 36, 128
    ids, logits = 4 * tokens, 4 * tokens * layers * experts
    header = {
        "__metadata__": {FORMAT: '{"version": 1, "spans": [], "meta": {"num_prompt_tokens": 7}}'},
        "token_ids": {"dtype": "I32", "shape": [tokens], "data_offsets": [0, ids]},
        "router_logits": {"dtype": "F32", "shape": [tokens, layers, experts], "data_offsets": [ids, ids + logits]},
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + ids + logits)  # a file with a hole: 1.8 GB that take no space
    tracemalloc.start()
    trace = open_trace(path)
    assert float(trace.router_logits.sel(token=99_999, layer=35, expert=127).values) == 0.0
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_arrays_in_any_layout_and_byte_order(tmp_path: Path) -> None:
    trace = random_trace(6)
    arrays = dict(trace.arrays)
    arrays["queries"] = np.asfortranarray(arrays["queries"])
    arrays["router_logits"] = arrays["router_logits"].transpose(2, 1, 0).copy().transpose(2, 1, 0)
    arrays["token_ids"] = arrays["token_ids"].astype(">i4")
    arrays["entropy"] = np.repeat(arrays["entropy"], 2)[::2]
    Trace(arrays, trace.spans, trace.meta).save(tmp_path / "t.safetensors")
    assert_same(open_trace(tmp_path / "t.safetensors"), trace)


def test_empty_arrays_and_a_trace_without_tokens(tmp_path: Path) -> None:
    trace = Trace(
        {"token_ids": np.zeros(0, np.int32), "router_logits": np.zeros((0, 3, 5), np.float32)},
        (),
        {"num_prompt_tokens": 0},
    )
    trace.save(tmp_path / "t.safetensors")
    assert_same(open_trace(tmp_path / "t.safetensors"), trace)


def test_a_file_of_version_1_keeps_opening() -> None:
    trace = open_trace(OLD)
    assert (len(trace), trace.num_prompt_tokens, trace.meta["question"]) == (12, 9, "47?")
    assert trace.text() == "<|start|>user<|message|>47?<|end|><|start|>assistant<|message|>⚡132."
    assert trace.spans[1:3] == (
        Span(3, 6, 3, "sentence", "user"),
        Span(7, 12, 10, "message", "assistant", "final", None, "<|constrain|>json", "no <|channel|>"),
    )
    assert trace.layers("queries") == (1, 3, 4)
    assert {name: a.shape for name, a in trace.arrays.items() if name in ("queries", "keys", "residual")} == {
        "queries": (3, 6, 12, 4),
        "keys": (3, 2, 12, 4),
        "residual": (12, 2, 8),
    }
    digest = hashlib.sha256()
    for name in sorted(trace.arrays):
        digest.update(name.encode() + str(trace.arrays[name].dtype).encode() + trace.arrays[name].tobytes())
    assert digest.hexdigest() == "067a732d6a7d2c1229723adc8d8099d7ac05a5f51f0102f0debf73ad80680ba9"


# --- writing that fails ------------------------------------------------------------------------------------------


def test_no_space_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    random_trace(1).save(path)
    before = path.read_bytes()
    code = (
        "import resource, sys; from random_trace import random_trace; from workbench.trace import TraceError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "try: random_trace(2).save(sys.argv[1])\n"
        "except TraceError as error: print(error)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(f"The trace was not saved to {path}: File too large. It takes {len(before):,} bytes, and")
    assert said.endswith(
        "bytes free. Save to a folder that exists, may be written and has the space; nothing was left behind.\n"
    )
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")  # where a delayed allocation fails

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TraceError, match=r"t\.safetensors: No space left on device\. It takes 9,\d+ bytes, and its"):
        random_trace().save(tmp_path / "t.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        random_trace().save(tmp_path / "t.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_folder_missing_or_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"not saved to .*nowhere.t\.safetensors: No such file or directory\. It tak"):
        random_trace().save(tmp_path / "nowhere" / "t.safetensors")
    with pytest.raises(TraceError, match=r"it is a folder\. It takes .* bytes free\. Save to a folder that exists"):
        random_trace().save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(TraceError, match="Not a directory"):
        random_trace().save(tmp_path / "file" / "t.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


BAD_META = {
    "meta['provenance']['temperature'] is nan, which JSON cannot hold. Store None instead.": {
        "provenance": {"temperature": float("nan")}
    },
    "meta['near_tie'] is inf, which JSON cannot hold. Store None instead.": {"near_tie": float("inf")},
    "meta['x'][1]: JSON cannot hold a float32; convert it to plain Python first": {"x": [1, np.float32(2)]},
    "meta['x']: JSON cannot hold a bytes; convert it to plain Python first": {"x": b"raw"},
    "meta['x']: expected text as keys, got 3": {"x": {3: "three"}},
}


@pytest.mark.parametrize("text", BAD_META)
def test_metadata_that_json_cannot_hold(tmp_path: Path, text: str) -> None:
    with pytest.raises(TraceError) as caught:
        random_trace(1, **BAD_META[text]).save(tmp_path / "t.safetensors")
    assert str(caught.value) == text
    assert list(tmp_path.iterdir()) == []


def test_dtype_that_the_file_cannot_hold(tmp_path: Path) -> None:
    trace = random_trace()
    arrays = {**trace.arrays, "residual": trace.arrays["residual"].astype(np.complex64)}
    with pytest.raises(
        TraceError, match=r"^residual: a trace file cannot hold dtype complex64\. Expected one of bool"
    ):
        Trace(arrays, trace.spans, trace.meta).save(tmp_path / "t.safetensors")
    assert list(tmp_path.iterdir()) == []


# --- files that are no trace -------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        open_trace(path)
    return str(caught.value)


def test_not_found_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.safetensors") == f"There is no file {tmp_path / 'no.safetensors'}."
    assert refusal(tmp_path) == f"{tmp_path} is a folder. Expected a trace file (.safetensors)."


@pytest.mark.parametrize(
    "content", [b"", b"short", b"not a trace, just some text\n" * 9, bytes(400), b"PK\x03\x04" * 99]
)
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert refusal(path) == f"{path} is not a trace. Expected a .safetensors file written by trace.save()."


def test_model_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.zeros((2, 3), np.float32)}, path, {"format": "pt"})
    assert refusal(path) == (
        f"{path} is a safetensors file but not a trace: its metadata has no 'moe-workbench-trace'. "
        "Model weights are loaded with wb.load(folder)."
    )
    safetensors.numpy.save_file({"w": np.zeros((2, 3), np.float32)}, path)
    assert "is a safetensors file but not a trace" in refusal(path)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write the trace file again with its header changed."""
    raw = OLD.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    changed = change(header)
    text = changed if isinstance(changed, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    return path


def described(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    """Change the trace's own metadata inside the header."""

    def apply(header: dict[str, Any]) -> None:
        inner = json.loads(header["__metadata__"][FORMAT])
        changed = change(inner)
        header["__metadata__"][FORMAT] = changed if isinstance(changed, str) else json.dumps(inner)

    return apply


def test_the_rewritten_file_opens_when_nothing_is_changed(tmp_path: Path) -> None:
    assert_same(open_trace(rewrite(tmp_path / "t.safetensors", described(lambda d: None))), open_trace(OLD))


def test_newer_version(tmp_path: Path) -> None:
    path = rewrite(tmp_path / "t.safetensors", described(lambda d: d.update(version=2, surprise=1)))
    assert refusal(path) == (
        f"{path} was made by a newer workbench: its format is version 2, this one reads up to 1. "
        "Upgrade with: pip install --upgrade moe-workbench"
    )


def test_cut_off_anywhere(tmp_path: Path) -> None:
    raw = OLD.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    path = tmp_path / "t.safetensors"
    path.write_bytes(raw[: 8 + length - 1])
    assert refusal(path) == (
        f"{path} was cut off: its header takes {8 + length:,} bytes, the file has {7 + length:,}. Copy it again."
    )
    path.write_bytes(raw[:-1])
    arrays = len(raw) - 8 - length
    assert refusal(path) == (
        f"{path} was cut off: its arrays take {arrays:,} bytes, the file has {arrays - 1:,} for them. Copy it again."
    )
    for size in range(0, len(raw), 97):
        path.write_bytes(raw[:size])
        assert "was cut off" in refusal(path) or "is not a trace" in refusal(path)
    path.write_bytes(raw + b"\0")
    assert refusal(path) == f"{path} is damaged: 1 bytes follow the last array."


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update(changes)


def meta(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return described(lambda d: d["meta"].update(changes))


def span(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return described(lambda d: d["spans"][0].update(changes))


def drop_token_ids(header: dict[str, Any]) -> None:
    """Rename, so that the layout stays whole."""
    header["renamed"] = header.pop("token_ids")


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "its header cannot be read": lambda h: b"{" + b"x" * 99,
    "its header cannot be read (": lambda h: b'{"a": NaN}',
    "its header cannot be read (a key occurs twice)": lambda h: b'{"a": 1, "a": 1}',
    "its header cannot be read (maximum recursion depth": lambda h: b'{"a":' + b"[" * 200_000,
    "its metadata cannot be read": described(lambda d: "{"),
    "its metadata cannot be read (Infinity is not JSON)": described(lambda d: '{"version": Infinity}'),
    "the metadata has no version number": described(lambda d: "[1]"),
    "the metadata has no version number.": described(lambda d: d.update(version="1")),
    "the metadata has no version number. ": described(lambda d: d.update(version=True)),
    "the metadata is not of version 1": described(lambda d: d.update(version=0)),
    "the metadata is not of version 1.": described(lambda d: d.update(more=1)),
    "the spans are no list": described(lambda d: d.update(spans={})),
    "the facts are no JSON object": described(lambda d: d.update(meta=[])),
    "expected an object as layers, got [1]": meta(layers=[1]),
    "expected an object as provenance, got 'x'": meta(provenance="x"),
    "expected layer numbers of 'queries', got [1, 2, 'x']": meta(layers={"queries": [1, 2, "x"]}),
    "expected layer numbers of 'queries', got [1, 2, -1]": meta(layers={"queries": [1, 2, -1]}),
    "expected a scale and windows as attention, got {}": meta(attention={}),
    "expected attention windows of 1 or more tokens, got [0]": meta(attention={"scale": 1, "windows": [0]}),
    "expected a span, got {'start': '0'": span(start="0"),
    "expected a span, got {'start': 0, 'stop': True": span(stop=True),
    "expected a span, got {'start': 0": span(extra=1),
    "expected a span, got {'start': 0, ": span(kind="verdict"),
    "expected a span, got {'start': 0, '": span(channel=["final"]),
    "expected dtype, shape and data_offsets of 'token_ids', got {": entry("token_ids", extra=1),
    "'token_ids' has the unknown dtype 'F8_E5M2'": entry("token_ids", dtype="F8_E5M2"),
    "'token_ids' has the unknown dtype ['I32']": entry("token_ids", dtype=["I32"]),
    "'token_ids' has the shape [-12]": entry("token_ids", shape=[-12]),
    "'token_ids' has the shape [12.0]": entry("token_ids", shape=[12.0]),
    "'token_ids' has the shape 12": entry("token_ids", shape=12),
    "'token_ids' has 3 offsets": entry("token_ids", data_offsets=[0, 1, 2]),
    "'token_ids' takes 52 bytes at": entry("token_ids", shape=[13]),
    "'vocab_offsets' takes 104 bytes at 48, but its offsets are 0–104": entry("token_ids", data_offsets=[0, 48]),
    "bytes at 2288, but its offsets are 2336": entry("token_ids", data_offsets=[10**30, 10**30 + 48]),
    "token_ids holds float32, expected integers": entry("token_ids", dtype="F32"),
    "'residual' has the shape": lambda h: _empty_of_absurd_shape(h),
}


def _empty_of_absurd_shape(header: dict[str, Any]) -> bytes:
    small = {"__metadata__": header["__metadata__"]}
    small["residual"] = {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}
    rest = sum(e["data_offsets"][1] - e["data_offsets"][0] for name, e in header.items() if name != "__metadata__")
    small["rest"] = {"dtype": "U8", "shape": [rest], "data_offsets": [0, rest]}
    return json.dumps(small).encode()


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = rewrite(tmp_path / "t.safetensors", DAMAGED[text])
    said = refusal(path)
    assert said.startswith(f"{path} is damaged: ")
    assert text.strip() in said


TRACES_OWN = {
    "unknown arrays renamed; a trace may hold token_ids": drop_token_ids,
    "token_ids: expected dims ('token',), got shape (3, 4)": entry("token_ids", shape=[3, 4]),
    "keys: expected 12 along token, got 4": entry("keys", shape=[3, 2, 4, 12]),
    "expected num_prompt_tokens within 12 tokens, got 99": meta(num_prompt_tokens=99),
    "queries: 2 layer numbers for shape (3, 6, 12, 4)": meta(layers={"queries": [1, 3]}),
    "is outside the 12 tokens of the trace": span(stop=13),
}


@pytest.mark.parametrize("text", TRACES_OWN)
def test_contents_that_are_no_trace_are_refused(tmp_path: Path, text: str) -> None:
    path = rewrite(tmp_path / "t.safetensors", TRACES_OWN[text])
    said = refusal(path)
    assert said.startswith(f"{path} is damaged: ")
    assert text in said


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_never_raises_anything_else(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(OLD.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    for _ in range(rng.integers(1, 5)):
        raw[rng.integers(0, 8 + length)] = rng.integers(0, 256)
    path = tmp_path / "t.safetensors"
    path.write_bytes(bytes(raw))
    said = ""
    try:
        trace = open_trace(path)
    except TraceError as error:
        said = str(error)
    assert said.startswith(str(path)) if said else len(trace) == 12

"""20,000 files that are nearly traces: each is refused in words, or opens and can be read to the last byte.

A kind of damage runs in a process of its own with little memory, so that a crash, a hang or a file that asks for
gigabytes shows; the file that did it stays. ``FUZZ_SEED=7 python tests/test_trace_file_fuzz.py KIND FOLDER`` runs one
kind on other files.
"""

import copy
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.trace import DIMS, Trace, TraceError
from workbench.trace_file import FORMAT, open_trace

FILES_PER_KIND = 2500
MEMORY_BYTES = 1 << 30
SECONDS = 300

WHOLE = (Path(__file__).parent / "traces" / "v1" / "random.safetensors").read_bytes()
HEADER_STOP = 8 + int.from_bytes(WHOLE[:8], "little")
HEADER = json.loads(WHOLE[8:HEADER_STOP])
DESCRIBED = json.loads(HEADER["__metadata__"][FORMAT])

DTYPES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "I32": 4, "U64": 8, "I64": 8, "F16": 2, "BF16": 2, "F32": 4}
NUMBERS = [0, 1, -1, 2, 7, 11, 12, 13, 255, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, -(10**30), 0.5, 1e300, -0.0]
ODD: list[Any] = [*NUMBERS, None, True, False, "", "12", "final", "\ud800", "\0", "x" * 3000, [], [[]], {}, {"": {}}]

# --- the kinds of damage: each gives the bytes of one file -------------------------------------------------------


def flipped_bits(rng: random.Random) -> bytes:
    raw = bytearray(WHOLE)
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(raw)


def header_bytes(rng: random.Random) -> bytes:
    raw = bytearray(WHOLE)
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(8, HEADER_STOP)] = rng.choice(b'0123456789-.eE"[]{},:\\ \nntf\x00\x80\xff')
    return bytes(raw)


def cut_or_continued(rng: random.Random) -> bytes:
    at = rng.choice([rng.randrange(20), rng.randrange(HEADER_STOP), rng.randrange(len(WHOLE))])
    return rng.choice([WHOLE[:at], WHOLE + WHOLE[:at], WHOLE[at:], WHOLE[:at] + WHOLE[at + 1 :], WHOLE + bytes(at)])


def length_field(rng: random.Random) -> bytes:
    right = HEADER_STOP - 8
    near, far = right + rng.randint(-40, 40), rng.choice(NUMBERS[:14])
    length = rng.choice([near, int(far), rng.getrandbits(64), rng.getrandbits(27), len(WHOLE), len(WHOLE) - 8])
    return (length % 2**64).to_bytes(8, "little") + WHOLE[8:]


def spliced(rng: random.Random) -> bytes:
    raw = bytearray(WHOLE)
    start, size, to = rng.randrange(len(raw)), rng.randint(1, 400), rng.randrange(len(raw))
    raw[to : to + size] = raw[start : start + size]
    return bytes(raw)


def header_tree(rng: random.Random) -> bytes:
    header = copy.deepcopy(HEADER)
    for _ in range(rng.randint(1, 3)):
        mutate(rng, header)
    return packed(header, WHOLE[HEADER_STOP:])


def metadata_tree(rng: random.Random) -> bytes:
    """Spans and facts out of range, of the wrong type, missing, twice, where they do not belong."""
    described = copy.deepcopy(DESCRIBED)
    for _ in range(rng.randint(1, 3)):
        mutate(rng, described)
    return packed({**HEADER, "__metadata__": {FORMAT: json.dumps(described)}}, WHOLE[HEADER_STOP:])


def nested(rng: random.Random) -> bytes:
    """As deep as Python goes, and deeper: where the value is first looked at matters."""
    deep = rng.choice(["[", '{"a":']) * rng.choice([*[rng.randint(100, 1100)] * 20, 100_000])
    closed = deep + "0" + "".join("]" if c == "[" else "}" for c in reversed(deep) if c in "[{")
    place = rng.choice(["header", "metadata", "spans", "span", "meta", "layers", "windows", "shape", "dtype"])
    inner = {"version": 1, "spans": DESCRIBED["spans"], "meta": dict(DESCRIBED["meta"])}
    header: dict[str, Any] = copy.deepcopy(HEADER)
    if place == "spans":
        inner["spans"] = "HERE"
    elif place == "span":
        inner["spans"] = ["HERE"]
    elif place in ("layers", "windows"):
        key = {"layers": "layers", "windows": "attention"}[place]
        inner["meta"] |= {key: {"queries": "HERE", "scale": 1.0, "windows": "HERE"}}
    elif place == "meta":
        inner["meta"]["question"] = "HERE"
    elif place in ("shape", "dtype"):
        header["queries"][place] = "HERE"
    metadata = json.dumps(inner).replace('"HERE"', closed) if place != "metadata" else closed
    header["__metadata__"] = {FORMAT: metadata}
    text = json.dumps(header).replace('"HERE"', closed) if place != "header" else '{"a":' + closed + "}"
    return len(text).to_bytes(8, "little") + text.encode() + WHOLE[HEADER_STOP:]


def whole_layout(rng: random.Random) -> bytes:
    """Offsets that fit, around arrays of any name, dtype and shape."""
    sizes = {dim: rng.choice([0, 1, 1, 2, 3, 5]) for dims in DIMS.values() for dim in dims}
    sizes |= {"token": rng.choice([0, 1, 2, 12]), "vocab_edge": sizes["vocab"] + 1}
    header: dict[str, Any] = {}
    end = 0
    for name in {"token_ids", *rng.sample(list(DIMS), rng.randrange(len(DIMS)))}:
        shape = [sizes[dim] if rng.random() < 0.98 else rng.choice([0, 4, 2**62]) for dim in DIMS[name]]
        dtype = rng.choice(["I32", "I64", "U8"]) if name in HEADER and "I" in HEADER[name]["dtype"] else "F32"
        dtype = dtype if rng.random() < 0.9 else rng.choice(list(DTYPES))
        size = int(np.prod(shape, dtype=object)) * DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    meta = {"num_prompt_tokens": 0, "attention": {"scale": 0.5, "windows": [3, None, 1, None, 2]}}
    for name in header:
        if rng.random() < 0.3 and "layer" in DIMS[name]:
            meta.setdefault("layers", {})[name] = rng.sample(range(6), min(sizes["layer"], 6))  # type: ignore[index]
    described = {"version": 1, "spans": [], "meta": meta}
    header["__metadata__"] = {FORMAT: json.dumps(described)}
    body = rng.choice([rng.randbytes, bytes, lambda size: b"\xff" * size])(end if end < 10**6 else 8)
    return packed(header, body)


def vocabulary(rng: random.Random) -> bytes:
    """Ids and offsets of the token texts: out of order, negative, beyond the end."""
    raw = bytearray(WHOLE)
    for _ in range(rng.randint(1, 6)):
        name = rng.choice(["vocab_ids", "vocab_offsets", "vocab_offsets", "token_ids", "vocab_special"])
        start, stop = (HEADER_STOP + offset for offset in HEADER[name]["data_offsets"])
        width = DTYPES[HEADER[name]["dtype"]]
        at = rng.randrange(start, stop, width)
        value = rng.choice([0, 1, 5, 8, 2**31 - 1, 2**63 - 1, 2**64 - 1, rng.getrandbits(64), rng.getrandbits(6)])
        raw[at : at + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(raw)


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    kind.__name__: kind
    for kind in (flipped_bits, header_bytes, cut_or_continued, spliced, header_tree, metadata_tree, whole_layout)
}
SMALL_KINDS: dict[str, Callable[[random.Random], bytes]] = {
    kind.__name__: kind for kind in (length_field, vocabulary, nested)
}


def packed(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def mutate(rng: random.Random, tree: Any) -> None:
    """Replace, remove, double or move one value anywhere in a tree of JSON."""
    places = list(every_place(tree))
    parent, key = rng.choice(places)
    other_parent, other_key = rng.choice(places)
    action = rng.randrange(5)
    if action == 0:
        del parent[key]
    elif action == 1:
        parent[key] = copy.deepcopy(other_parent[other_key])
    elif action == 2 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(rng.choice([parent[key], rng.choice(ODD)])))
    elif action == 2:
        parent[rng.choice([*DIMS, "x", "version", "content_start"])] = copy.deepcopy(parent[key])
    else:
        parent[key] = copy.deepcopy(rng.choice(ODD))


def every_place(tree: Any) -> Any:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from every_place(tree[key])


# --- reading all there is ----------------------------------------------------------------------------------------


def read_everything(trace: Trace) -> int:
    """Read the arrays; return how much of what is computed from them was refused in words."""
    for name, array in trace.arrays.items():
        labelled = trace.array(name)
        assert labelled.sizes.keys() == set(DIMS[name])
        assert len(trace.layers(name)) == labelled.sizes.get("layer", 0)
        assert not array.flags.writeable
        np.asarray(labelled).tobytes()
    repr(trace)
    for token in {0, len(trace) - 1} & set(range(len(trace))):
        trace[token].array("token_ids")
        trace.span_at(token)
    reads: list[Callable[[], Any]] = [trace.text, lambda: trace.final_text + trace.analysis_text]
    reads += [lambda span=span: trace.content(span) for span in trace.spans]  # type: ignore[misc]
    reads += [lambda layer=layer: trace.attention(layer) for layer in trace.layers("queries")]  # type: ignore[misc]
    return sum(refused(read) for read in [*reads, lambda: trace.attention(0, head=0, rows=[0])])


def refused(read: Callable[[], Any]) -> bool:
    try:
        read()
    except TraceError:
        return True
    return False


def overwrite(path: Path, content: bytes) -> None:
    """Write in place: emptying the file first makes some file systems wait for the disk."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def run_kind(kind: str, folder: Path) -> dict[str, int]:
    """Open every file of a kind; anything but a trace or a `TraceError` ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    rng = random.Random(f"{kind} {os.environ.get('FUZZ_SEED', '')}")
    make = (KINDS | SMALL_KINDS)[kind]
    count = {"opened": 0, "refused": 0, "refused later": 0}
    path = folder / "fuzzed.safetensors"
    path.touch()
    for _ in range(FILES_PER_KIND if kind in KINDS else FILES_PER_KIND // 3 + 1):
        overwrite(path, make(rng))
        said = ""
        try:
            trace = open_trace(path)
        except TraceError as error:
            said = str(error)
        if said:
            assert said.startswith(str(path))
            count["refused"] += 1
            continue
        with np.errstate(all="ignore"):  # random bytes are no numbers to compute with
            count["refused later"] += read_everything(trace)
        count["opened"] += 1
    return count


# --- the tests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS | SMALL_KINDS)
def test_fuzzed_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, kind, str(tmp_path)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{tmp_path / 'fuzzed.safetensors'}: {done.stderr}"
    count = json.loads(done.stdout)
    assert count["refused"] + count["refused later"] > 100, f"the damage must show: {count}"
    assert count["opened"] > 0 or kind == "length_field", f"some must get past the door: {count}"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(TraceError, match=r"pipe\.safetensors is not a file\. Expected a trace file"):
        open_trace(tmp_path / "pipe.safetensors")


def test_a_small_file_cannot_say_that_its_text_is_huge(tmp_path: Path) -> None:
    """100,000 times the same token, whose text is said to be a megabyte."""
    arrays = {
        "token_ids": np.zeros(100_000, np.uint8),
        "vocab_ids": np.zeros(1, np.int32),
        "vocab_offsets": np.array([0, 1 << 20]),
        "vocab_bytes": np.zeros(1 << 20, np.uint8),
        "vocab_special": np.zeros(1, np.bool_),
    }
    Trace(arrays, (), {"num_prompt_tokens": 0}).save(tmp_path / "t.safetensors")
    with pytest.raises(TraceError, match=r"text of token id 0 is damaged: it is said to be bytes 0 to 1048576"):
        open_trace(tmp_path / "t.safetensors").text()


def test_attention_without_its_sinks_is_refused_not_computed(tmp_path: Path) -> None:
    described = copy.deepcopy(DESCRIBED)
    described["meta"]["layers"]["sink_logits"] = [1, 3, 0]
    raw = packed({**HEADER, "__metadata__": {FORMAT: json.dumps(described)}}, WHOLE[HEADER_STOP:])
    (tmp_path / "t.safetensors").write_bytes(raw)
    trace = open_trace(tmp_path / "t.safetensors")
    trace.attention(3)
    with pytest.raises(TraceError, match="the sink logits of layer 4 are not in this trace, so its attention is unk"):
        trace.attention(4)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_numbers_that_no_float_holds(tmp_path: Path, number: str) -> None:
    metadata = json.dumps({**DESCRIBED, "meta": {**DESCRIBED["meta"], "near_tie": "HERE"}}).replace('"HERE"', number)
    raw = packed({**HEADER, "__metadata__": {FORMAT: metadata}}, WHOLE[HEADER_STOP:])
    (tmp_path / "t.safetensors").write_bytes(raw)
    with pytest.raises(TraceError, match=rf"its metadata cannot be read \('{number}' is beyond what a float holds\)"):
        open_trace(tmp_path / "t.safetensors")


def test_a_trace_without_tokens_or_heads(tmp_path: Path) -> None:
    arrays = {
        "token_ids": np.zeros(0, np.int32),
        "queries": np.zeros((1, 4, 0, 3), np.float32),
        "keys": np.zeros((1, 2, 0, 3), np.float32),
    }
    meta = {"num_prompt_tokens": 0, "attention": {"scale": 1.0, "windows": [None]}}
    Trace(arrays, (), meta).save(tmp_path / "t.safetensors")
    assert open_trace(tmp_path / "t.safetensors").attention(0).pattern.shape == (4, 0, 0)
    arrays["queries"] = np.zeros((1, 0, 0, 3), np.float32)
    with pytest.raises(TraceError, match="keys: expected a number of kv heads that divides 0 heads, got 2"):
        Trace(arrays, (), meta)


def test_the_file_that_is_damaged_is_whole(tmp_path: Path) -> None:
    (tmp_path / "t.safetensors").write_bytes(WHOLE)
    read_everything(open_trace(tmp_path / "t.safetensors"))
    rebuilt = packed({**HEADER, "__metadata__": {FORMAT: json.dumps(DESCRIBED)}}, WHOLE[HEADER_STOP:])
    (tmp_path / "t.safetensors").write_bytes(rebuilt)
    read_everything(open_trace(tmp_path / "t.safetensors"))


if __name__ == "__main__":
    print(json.dumps(run_kind(sys.argv[1], Path(sys.argv[2]))))

"""The file of a trace: one ``.safetensors`` with the metadata as JSON in its header; docs/trace-format.md is the spec.

Writing is crash-safe: the whole file appears under its name, or nothing does. Opening reads the header only and maps
the arrays into memory, so a trace of 100,000 tokens opens in milliseconds. Files may come from anyone: nothing in
them is believed before it is checked, and nothing in them is executed.
"""

import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from operator import is_
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from workbench.trace import Span, Trace, TraceError

__all__ = ["FORMAT", "VERSION", "make_place", "open_trace", "save_trace"]

FORMAT = "moe-workbench-trace"
VERSION = 1

_MAX_HEADER = 100_000_000  # the limit of the safetensors library
_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_INTEGERS = ("token_ids", "top_token_ids", "expert_indices", "lens_token_ids", "vocab_ids", "vocab_offsets")


def save_trace(trace: Trace, path: str | os.PathLike[str], *, durable: bool = True) -> None:
    """Write a trace to one file; an existing file of that name is replaced whole, or kept when writing fails.

    ``durable`` waits for the disk, so that the file survives a power cut and not only the end of the process.

    Raises:
        TraceError: the file cannot be written (no space, no folder, no permission), or the metadata holds what JSON
            cannot. Nothing half-written stays behind.
    """
    path = Path(path)
    arrays = {name: _storable(name, array) for name, array in trace.arrays.items()}
    header = _header(trace, arrays)
    needed = len(header) + sum(a.nbytes for a in arrays.values())
    try:
        _write(path, header, arrays, durable)
    except OSError as error:
        raise TraceError(_unwritable(path, needed, error)) from error


def make_place(path: str | os.PathLike[str]) -> None:
    """Make the folder that a trace is to be written to. Raises `TraceError` where it cannot be."""
    try:
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceError(f"cannot make the folder of {path}: {error}. Choose another path.") from error


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a trace file without reading its arrays: they are read-only views of the mapped file.

    Raises:
        TraceError: there is no such file, it is not a trace, it is damaged, or a newer workbench made it.
    """
    path = Path(path)
    try:
        header, begin, size = _read_header(path)
        trace = _trace(header, path, begin, size)
    except FileNotFoundError as error:
        raise TraceError(f"There is no file {path}.") from error
    except IsADirectoryError as error:
        raise TraceError(f"{path} is a folder. Expected a trace file (.safetensors).") from error
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror or error}.") from error
    except TraceError as error:
        raise TraceError(f"{path} {error}") from error
    return trace


# --- writing -----------------------------------------------------------------------------------------------------


def _storable(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in little-endian bytes."""
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype not in _CODES:
        known = ", ".join(str(d) for d in _CODES)
        raise TraceError(f"{name}: a trace file cannot hold dtype {array.dtype}. Expected one of {known}.")
    return array


def _header(trace: Trace, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the file up to the first array: length, JSON, padded so that arrays are aligned to 8 bytes."""
    _check_json(trace.meta, "meta")
    described = {"version": VERSION, "spans": [_span_json(s) for s in trace.spans], "meta": trace.meta}
    header: dict[str, Any] = {"__metadata__": {FORMAT: _compact(described)}}
    end = 0
    for name, array in _in_file_order(arrays):
        offsets = [end, end + array.nbytes]
        header[name] = {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    text = _compact(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise TraceError(f"the metadata takes {len(text):,} bytes; a trace file holds up to {_MAX_HEADER:,}")
    return len(text).to_bytes(8, "little") + text


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _in_file_order(arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """Wide items first, then by name: so that every array is aligned to its items."""
    return sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))


def _span_json(span: Span) -> dict[str, Any]:
    return {key: value for key, value in asdict(span).items() if value is not None}


def _check_json(value: Any, where: str) -> None:
    """Name the place of the first thing in the metadata that JSON cannot hold."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TraceError(f"{where}: expected text as keys, got {key!r}")
            _check_json(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            _check_json(inner, f"{where}[{place}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TraceError(f"{where} is {value}, which JSON cannot hold. Store None instead.")
    elif value is not None and type(value) not in (str, bool, int, float):
        raise TraceError(f"{where}: JSON cannot hold a {type(value).__name__}; convert it to plain Python first")


def _write(path: Path, header: bytes, arrays: Mapping[str, NDArray[Any]], durable: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(header)
            for _, array in _in_file_order(arrays):
                for block in _blocks(array):
                    file.write(block)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)


def _blocks(array: NDArray[Any]) -> Iterator[memoryview]:
    """Give the bytes in C order; of an array laid out otherwise only one row is copied at a time."""
    rows = [array] if array.flags.c_contiguous or array.ndim < 2 else array
    for row in rows:
        yield np.ascontiguousarray(row).reshape(-1).view(np.uint8).data


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(path: Path, needed: int, error: OSError) -> str:
    room = ""
    if path.parent.is_dir():
        room = f", and its folder has {shutil.disk_usage(path.parent).free:,} bytes free"
    return (
        f"The trace was not saved to {path}: {error.strerror or error}. It takes {needed:,} bytes{room}. "
        "Save to a folder that exists, may be written and has the space; nothing was left behind."
    )


# --- reading -----------------------------------------------------------------------------------------------------


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the header, where the arrays begin, and the size of the file."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would keep the reader waiting
        raise TraceError("is not a file. Expected a trace file (.safetensors).")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, size, _MAX_HEADER))
    if size < 8 or not text.startswith(b"{") or length > _MAX_HEADER:
        raise TraceError("is not a trace. Expected a .safetensors file written by trace.save().")
    if size < 8 + length:
        raise TraceError(f"was cut off: its header takes {8 + length:,} bytes, the file has {size:,}. Copy it again.")
    header = _read_json(text, "header")
    if not isinstance(header, dict):
        _damaged("the header is no JSON object")
    return header, 8 + length, size


def _trace(header: dict[str, Any], path: Path, begin: int, size: int) -> Trace:
    described = header.pop("__metadata__", None)
    if not isinstance(described, dict) or FORMAT not in described:
        raise TraceError(
            f"is a safetensors file but not a trace: its metadata has no {FORMAT!r}. "
            "Model weights are loaded with wb.load(folder)."
        )
    spans, meta = _read_metadata(described[FORMAT])
    _check_layout(header, size - begin)
    memory = np.asarray(np.memmap(path, mode="r", dtype=np.uint8))[begin:]
    arrays = {name: _view(memory, name, entry) for name, entry in header.items()}
    for name in arrays.keys() & set(_INTEGERS):
        if arrays[name].dtype.kind not in "iu":
            _damaged(f"{name} holds {arrays[name].dtype}, expected integers")
    try:
        return Trace(arrays, spans, meta, path)
    except TraceError as error:
        _damaged(str(error))


def _read_metadata(text: Any) -> tuple[tuple[Span, ...], dict[str, Any]]:
    described = _read_json(text, "metadata") if isinstance(text, str) else None
    if not isinstance(described, dict) or not _is_int(described.get("version")):
        _damaged("the metadata has no version number")
    version = described["version"]
    if version > VERSION:
        raise TraceError(
            f"was made by a newer workbench: its format is version {version}, this one reads up to {VERSION}. "
            "Upgrade with: pip install --upgrade moe-workbench"
        )
    if version < 1 or described.keys() != {"version", "spans", "meta"}:
        _damaged("the metadata is not of version 1")
    if not isinstance(described["spans"], list):
        _damaged("the spans are no list")
    _check_meta(described["meta"])
    return tuple(_read_span(s) for s in described["spans"]), described["meta"]


_SPAN_NUMBERS = ("start", "stop", "content_start")
_SPAN_TYPES = {field.name: int if field.name in _SPAN_NUMBERS else str for field in fields(Span)}
_SPAN_REQUIRED = {*_SPAN_NUMBERS, "kind", "role"}


def _read_span(value: Any) -> Span:
    """Return a span once its fields are known to be there and of their types, which takes most of an opening."""
    if (
        type(value) is not dict
        or not value.keys() >= _SPAN_REQUIRED
        or not all(map(is_, map(type, value.values()), map(_SPAN_TYPES.get, value)))
        or value["kind"] not in ("message", "sentence")
    ):
        _damaged(f"expected a span, got {_short(value)}")
    return Span(**value)


def _check_meta(meta: Any) -> None:
    """Check the shapes of what a trace reads from its metadata; the rest is anyone's."""
    if not isinstance(meta, dict):
        _damaged("the facts are no JSON object")
    for key in ("layers", "sources", "attention", "provenance"):
        if not isinstance(meta.get(key, {}), dict):
            _damaged(f"expected an object as {key}, got {_short(meta[key])}")
    for name, layers in meta.get("layers", {}).items():
        if not isinstance(layers, list) or not all(_is_int(n) and n >= 0 for n in layers):
            _damaged(f"expected layer numbers of {_short(name)}, got {_short(layers)}")
    if "attention" in meta:
        scale, windows = meta["attention"].get("scale"), meta["attention"].get("windows")
        if not (isinstance(scale, float) or (_is_int(scale) and abs(scale) < 2**53)) or not isinstance(windows, list):
            _damaged(f"expected a scale and windows as attention, got {_short(meta['attention'])}")
        if not all(w is None or (_is_int(w) and w > 0) for w in windows):
            _damaged(f"expected attention windows of 1 or more tokens, got {_short(windows)}")


def _check_layout(header: dict[str, Any], room: int) -> None:
    """Check dtypes, shapes and offsets: arrays lie one after the other and fill the file exactly."""
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            _damaged(f"expected dtype, shape and data_offsets of {_short(name)}, got {_short(entry)}")
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
            _damaged(f"{_short(name)} has the unknown dtype {_short(entry['dtype'])}")
        for key in ("shape", "data_offsets"):
            if not isinstance(entry[key], list) or not all(_is_int(n) and n >= 0 for n in entry[key]):
                _damaged(f"{_short(name)} has the {key} {_short(entry[key])}")
        if len(entry["data_offsets"]) != 2:
            _damaged(f"{_short(name)} has {len(entry['data_offsets'])} offsets")
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        nbytes = math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize
        if start != end or stop - start != nbytes:
            _damaged(f"{_short(name)} takes {nbytes} bytes at {end}, but its offsets are {start}–{stop}")
        end = stop
    if room < end:
        raise TraceError(f"was cut off: its arrays take {end:,} bytes, the file has {room:,} for them. Copy it again.")
    if room > end:
        _damaged(f"{room - end:,} bytes follow the last array")


def _view(memory: NDArray[np.uint8], name: str, entry: dict[str, Any]) -> NDArray[Any]:
    start, stop = entry["data_offsets"]
    try:
        view: NDArray[Any] = memory[start:stop].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (ValueError, OverflowError):  # an empty array of absurd shape
        _damaged(f"{_short(name)} has the shape {_short(entry['shape'])}")
    return view


def _read_json(text: str | bytes, what: str) -> Any:
    """Read JSON strictly: no NaN, no key twice."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"is damaged: its {what} cannot be read ({error}).") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{_short(text)} is beyond what a float holds")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _damaged(why: str) -> NoReturn:
    raise TraceError(f"is damaged: {why.rstrip('.')}.")

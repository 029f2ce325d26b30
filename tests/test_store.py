"""A folder of traces: names, laziness, damage."""

from pathlib import Path

import numpy as np
import pytest
from random_trace import random_trace

import workbench as wb
from workbench.store import TraceStore


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    store = TraceStore(tmp_path / "runs", create=True)
    for seed in (1, 2, 3):
        store.add(random_trace(seed))
    return store


def test_traces_come_in_the_order_of_names(store: TraceStore) -> None:
    assert wb.TraceStore is TraceStore
    assert len(store) == 3
    assert list(store.names) == sorted(p.stem for p in store.path.iterdir())
    for at, (name, trace) in enumerate(zip(store.names, store, strict=True)):
        assert trace.path == store.path / f"{name}.safetensors"
        for same in (store[name], store[at], store[at - 3]):
            assert same.path == trace.path
    assert {trace.provenance["seed"] for trace in store} == {1, 2, 3}
    assert store[int(np.int64(1))].path == store[np.int64(1)].path  # type: ignore[index]
    assert repr(store) == f"<TraceStore {store.path}: 3 traces>"


def test_adding_twice_is_one_file(store: TraceStore) -> None:
    name = store.add(random_trace(2))
    assert (store[name].provenance["seed"], len(store), len(name)) == (2, 3, 16)
    before = (store.path / f"{name}.safetensors").stat().st_mtime_ns
    assert store.add(store[name]) == name  # what came back from the file has the same name
    assert (store.path / f"{name}.safetensors").stat().st_mtime_ns == before
    np.testing.assert_array_equal(store[name].token_ids, random_trace(2).token_ids)


def test_a_name_is_of_tokens_provenance_and_prompt(store: TraceStore) -> None:
    trace = random_trace(1)
    tokens = dict(trace.arrays) | {"token_ids": np.roll(trace.arrays["token_ids"], 1)}
    wide = dict(trace.arrays) | {"token_ids": trace.arrays["token_ids"].astype(np.int64)}
    later = dict(trace.meta) | {"provenance": {**trace.provenance, "time": "2026"}}
    names = [
        store.add(wb.Trace(tokens, trace.spans, trace.meta)),
        store.add(wb.Trace(trace.arrays, trace.spans, later)),
        store.add(random_trace(1, num_prompt_tokens=8)),
    ]
    assert len({*names, *store.names}) == len(store) == 6
    assert store.add(wb.Trace(wide, trace.spans, trace.meta)) == store.add(trace)
    assert len(store) == 6


def test_what_is_no_trace_is_left_alone(store: TraceStore) -> None:
    for name in ("notes.json", ".abc.safetensors.1f.part", "._x.safetensors", "a.safetensors.json"):
        (store.path / name).write_bytes(b"?")
    (store.path / "deeper.safetensors").mkdir()
    assert len(store) == len(list(store)) == 3
    random_trace(9).save(store.path / "mine.safetensors")  # any name will do
    assert store["mine"].provenance["seed"] == 9


def test_bad_folders_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "runs"
    with pytest.raises(wb.TraceError) as caught:
        TraceStore(missing)
    text = f"There is no folder {missing}. Make one with wb.TraceStore({str(missing)!r}, create=True)."
    assert str(caught.value) == text
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(wb.TraceError) as caught:
        TraceStore(file)
    assert str(caught.value) == f"{file} is a file. Expected a folder; wb.open_trace opens one trace."
    with pytest.raises(wb.TraceError) as caught:
        TraceStore(file / "runs", create=True)
    assert str(caught.value) == f"The folder {file / 'runs'} cannot be made: Not a directory."


def test_bad_names_are_named(store: TraceStore) -> None:
    with pytest.raises(wb.TraceError) as caught:
        store["sum"]
    names = ", ".join(store.names)
    assert str(caught.value) == f"There is no trace 'sum' in {store.path}. It holds {names}."
    with pytest.raises(IndexError, match=r"^expected a trace below 3, got 3$"):
        store[3]
    with pytest.raises(TypeError, match="slice"):
        store[:2]  # type: ignore[index]
    with pytest.raises(wb.TraceError, match=r"^meta\['provenance'\]\['path'\]: JSON cannot hold a PosixPath"):
        store.add(random_trace(1, provenance={"path": Path("/")}))


def test_a_damaged_file_is_named_when_it_is_reached(store: TraceStore) -> None:
    path = store.path / f"{store.names[1]}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    traces = iter(store)
    next(traces)
    with pytest.raises(wb.TraceError) as caught:
        next(traces)
    assert str(caught.value).startswith(f"{path} was cut off: its arrays take ")
    assert str(caught.value).endswith("Copy it again.")

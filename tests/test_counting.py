"""Compiled counts against counts by hand and by a loop."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench.analysis.counting import add_load, add_pairs, add_tokens
from workbench.labelled import TraceError

# [token 3, layer 2, top_k 2], 4 experts.
INDICES = np.array([[[0, 1], [3, 2]], [[0, 2], [3, 1]], [[1, 0], [3, 2]]], dtype=np.uint8)
LOAD = [[3, 2, 1, 0], [0, 1, 2, 3]]
PAIRS = [
    [[3, 2, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]],
    [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 2, 2], [0, 1, 2, 3]],
]


def choices(tokens: int, layers: int, experts: int, top_k: int, dtype: Any = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(tokens)
    every = np.broadcast_to(np.arange(experts, dtype=dtype), (tokens, layers, experts))
    return np.ascontiguousarray(rng.permuted(every, axis=-1)[..., :top_k])


def looped(indices: NDArray[Any], experts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokens, layers, top_k = indices.shape
    load, pairs = np.zeros((layers, experts), np.int64), np.zeros((layers, experts, experts), np.int64)
    for token, layer, a in np.ndindex(tokens, layers, top_k):
        load[layer, indices[token, layer, a]] += 1
        for b in range(top_k):
            pairs[layer, indices[token, layer, a], indices[token, layer, b]] += 1
    return load, pairs


def test_counts_by_hand() -> None:
    load, pairs = np.zeros((2, 4), np.int64), np.zeros((2, 4, 4), np.int64)
    for times in (1, 2):  # they add
        add_load(INDICES, load)
        add_pairs(INDICES, pairs)
        np.testing.assert_array_equal(load, times * np.array(LOAD))
        np.testing.assert_array_equal(pairs, times * np.array(PAIRS))


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((1203, 3, 11, 4), np.uint8),  # more than two tiles
        ((500, 2, 256, 3), np.uint8),
        ((37, 3, 300, 5), np.uint16),
        ((41, 2, 7, 7), np.int64),
        ((29, 4, 6, 1), np.uint8),
    ],
)
def test_counts_are_those_of_a_loop(sizes: tuple[int, int, int, int], dtype: Any) -> None:
    indices = choices(*sizes, dtype)
    experts = sizes[2]
    expected_load, expected_pairs = looped(indices, experts)
    load, pairs = np.zeros_like(expected_load), np.zeros_like(expected_pairs)
    add_load(indices, load)
    add_pairs(indices, pairs)
    np.testing.assert_array_equal(load, expected_load)
    np.testing.assert_array_equal(pairs, expected_pairs)
    np.testing.assert_array_equal(np.einsum("lee->le", pairs), load)


@pytest.mark.parametrize("given", ["reversed", "layers", "fortran", "file"])
def test_any_layout_counts_alike(given: str, tmp_path: Path) -> None:
    indices = choices(97, 5, 9, 2)
    if given == "file":
        indices.tofile(tmp_path / "indices")
        indices = np.memmap(tmp_path / "indices", mode="r", dtype=np.uint8, shape=indices.shape)
    views = {"reversed": indices[::-1], "layers": indices[:, [4, 1]], "fortran": np.asfortranarray(indices)}
    view = views.get(given, indices)
    expected_load, expected_pairs = looped(view, 9)
    load, pairs = np.zeros_like(expected_load), np.zeros_like(expected_pairs)
    add_load(view, load)
    add_pairs(view, pairs)
    np.testing.assert_array_equal(load, expected_load)
    np.testing.assert_array_equal(pairs, expected_pairs)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
def test_tokens_by_hand(dtype: Any) -> None:
    counts = np.zeros((2, 3, 4), dtype)
    for indices in (INDICES, INDICES[..., 0]):  # only the first choice counts
        add_tokens(np.array([1, -1, 1]), indices, counts)
    np.testing.assert_array_equal(counts[0], [[0, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(counts[1], [[0, 0, 0, 0], [0, 0, 0, 4], [0, 0, 0, 0]])


def test_rare_kinds_are_counted_after_the_others() -> None:
    counts, rare = np.zeros((2, 1, 4), np.uint32), np.zeros((2, 2, 4), np.uint8)
    add_tokens(np.array([2, 0, 1], np.int32), INDICES, counts, rare)
    np.testing.assert_array_equal(counts, [[[1, 0, 0, 0]], [[0, 0, 0, 1]]])
    np.testing.assert_array_equal(rare, [[[0, 1, 0, 0], [1, 0, 0, 0]], [[0, 0, 0, 1], [0, 0, 0, 1]]])


@pytest.mark.parametrize(("tokens", "layers"), [(1203, 3), (900_007, 1)])  # the second is more than two tiles
def test_tokens_are_those_of_a_loop(tokens: int, layers: int) -> None:
    rng = np.random.default_rng(1)
    indices = rng.integers(0, 11, (tokens, layers, 2), dtype=np.uint8)
    rows = rng.integers(-1, 17, tokens)
    expected = np.zeros((layers, 17, 11), np.int64)
    for layer in range(layers):
        np.add.at(expected[layer], (rows[rows >= 0], indices[rows >= 0, layer, 0]), 1)
    counts = np.zeros_like(expected)
    add_tokens(rows, indices, counts)
    np.testing.assert_array_equal(counts, expected)
    rows[rows > 3] -= 13  # fourteen kinds less, four kinds left: two common, two rare ones
    rows = np.where((rows > 1) & (np.arange(tokens) > 400), -1, rows)
    common, rare = np.zeros((layers, 2, 11), np.int64), np.zeros((layers, 2, 11), np.uint8)
    add_tokens(rows, indices, common, rare)
    both = np.concatenate([common, rare], axis=1)
    for layer in range(layers):
        for row in range(4):
            np.testing.assert_array_equal(both[layer, row], np.bincount(indices[rows == row, layer, 0], minlength=11))


def test_nothing_adds_nothing() -> None:
    pairs = np.zeros((2, 4, 4), np.int64)
    add_pairs(INDICES[:0], pairs)
    assert not pairs.any()


def zeros(*shape: int) -> NDArray[np.int64]:
    return np.zeros(shape, np.int64)


TWICE = np.array([[[0, 1], [2, 2]]], dtype=np.uint8)
BAD: list[tuple[Callable[[], None], str]] = [
    (lambda: add_load(INDICES, zeros(2, 3)), "expected expert_indices within 0–2, got 3"),
    (lambda: add_pairs(INDICES, zeros(2, 3, 3)), "expected expert_indices within 0–2, got 3"),
    (lambda: add_tokens(zeros(3), INDICES, zeros(2, 1, 3)), "expected expert_indices within 0–2, got 3"),
    (lambda: add_load(INDICES.astype(np.int8) - 1, zeros(2, 4)), "expected expert_indices within 0–3, got -1"),
    (lambda: add_load(INDICES * 1.0, zeros(2, 4)), "expected integers as expert_indices, got float64"),
    (
        lambda: add_load(INDICES, zeros(3, 4)),
        "expected [token, layer 3, top_k] as expert_indices, got shape (3, 2, 2)",
    ),
    (
        lambda: add_pairs(INDICES[0], zeros(2, 4, 4)),
        "expected [token, layer 2, top_k] as expert_indices, got shape (2, 2)",
    ),
    (lambda: add_pairs(INDICES, zeros(2, 5, 4)), "expected counts [layer, expert, expert], got shape (2, 5, 4)"),
    (
        lambda: add_pairs(TWICE, zeros(2, 4, 4)),
        "expected the experts of a token to be distinct, got an expert twice in a layer",
    ),
    (lambda: add_load(INDICES, zeros(2, 65_537)), "expected at most 65,536 experts, got 65,537"),
    (lambda: add_tokens(zeros(2), INDICES, zeros(2, 1, 4)), "expected a row for each of 3 tokens, got shape (2,)"),
    (lambda: add_tokens(zeros(3) + 1, INDICES, zeros(2, 1, 4)), "expected rows below 1, got 1"),
    (
        lambda: add_tokens(zeros(3) + 2, INDICES, zeros(2, 1, 4), zeros(2, 1, 4).astype(np.uint8)),
        "expected rows below 2, got 2",
    ),
    (
        lambda: add_tokens(zeros(3), INDICES, zeros(2, 1, 4), zeros(2, 1, 5).astype(np.uint8)),
        "expected rare counts [layer 2, row, expert 4], got shape (2, 1, 5)",
    ),
    (
        lambda: add_tokens(zeros(3), INDICES, zeros(2, 1, 8)[..., ::2]),
        "expected counts in order, got a view that strides; pass a contiguous array",
    ),
]


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named_before_anything_is_counted(call: Callable[[], None], text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text


def test_a_refused_block_leaves_the_counts_alone() -> None:
    pairs = zeros(2, 4, 4)
    with pytest.raises(TraceError, match="distinct"):
        add_pairs(TWICE, pairs)
    assert not pairs.any()


def test_where_nothing_can_be_kept_on_disk_it_compiles_anew(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": str(tmp_path / "file")}
    code = (
        "import numpy as np; from workbench.analysis.counting import add_load; c = np.zeros((1, 2), np.int64);"
        "add_load(np.ones((3, 1, 1), np.uint8), c); print(c.tolist())"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, check=True)
    assert done.stdout == "[[0, 3]]\n"

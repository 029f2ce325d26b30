"""Which tokens a measure is on, against positions worked out by hand."""

import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace
from tqdm.auto import tqdm

from workbench.analysis.routing import coactivation, coactivation_lift, expert_load, token_specialization
from workbench.analysis.token_set import TokenSet
from workbench.labelled import Labelled
from workbench.store import TraceStore
from workbench.trace import Span, Trace, TraceError

FACTS = {"model": "odd", "family": "gpt-oss", "weights": "sha256:1"}


def a_trace(
    tokens: int = 11, *, layers: tuple[int, ...] = (2, 5, 6), experts: int = 7, top_k: int = 2, **meta: Any
) -> Trace:
    """Prompt: system 0–3, user 3–6. Completion: analysis 6–9, final from 9. Every message opens and closes."""
    rng = np.random.default_rng(tokens)
    indices = rng.permuted(np.tile(np.arange(experts), (tokens, len(layers), 1)), axis=-1)[..., :top_k]
    ids = np.arange(tokens) + 20
    closing = np.isin(np.arange(tokens), (2, 5, 8, tokens - 1))
    arrays: dict[str, Any] = {
        "token_ids": ids.astype(np.int32),
        "expert_indices": indices.astype(np.uint8),
        "queries": np.zeros((1, 4, tokens, 3), np.float32),
        "vocab_ids": ids.astype(np.int32),
        "vocab_offsets": np.zeros(tokens + 1, np.int64),
        "vocab_bytes": np.zeros(0, np.uint8),
        "vocab_special": closing,
    }
    spans = (
        Span(0, 3, 1, "message", "system"),
        Span(3, 6, 4, "message", "user"),
        Span(6, 9, 7, "message", "assistant", "analysis"),
        Span(9, tokens, 10, "message", "assistant", "final"),
    )
    facts = {
        "num_prompt_tokens": 6,
        "layers": {"expert_indices": list(layers)},
        "shape": {"num_experts": experts},
        "sources": {"expert_indices": "live"},
        "provenance": FACTS,
    }
    return Trace(arrays, spans, facts | meta)


def without(trace: Trace, name: str) -> Trace:
    return Trace({n: a for n, a in trace.arrays.items() if n != name}, trace.spans, trace.meta)


CHOICES: list[tuple[dict[str, Any], list[int], str]] = [
    ({}, [6, 7, 8, 9, 10, 11, 12, 13], "completion tokens"),
    ({"phase": "prompt"}, [0, 1, 2, 3, 4, 5], "prompt tokens"),
    ({"phase": "all"}, list(range(14)), "prompt and completion tokens"),
    ({"channel": "analysis"}, [7], "completion tokens on analysis"),
    ({"channel": "final"}, [10, 11, 12], "completion tokens on final"),
    ({"role": "assistant"}, [7, 10, 11, 12], "completion tokens of assistant messages"),
    ({"phase": "prompt", "role": "user"}, [4], "prompt tokens of user messages"),
    ({"phase": "all", "role": "assistant", "channel": "final"}, [10, 11, 12],
     "prompt and completion tokens on final of assistant messages"),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "positions", "words"), CHOICES)
def test_positions_by_hand(choice: dict[str, Any], positions: list[int], words: str) -> None:
    trace = a_trace(14)
    token_set = TokenSet(trace, **choice)
    assert token_set.positions(trace).tolist() == positions
    assert token_set.positions(trace).dtype == np.int64
    assert token_set.num_tokens == len(positions)
    assert str(token_set) == f"{words} of 1 trace of odd"
    [block] = token_set.rows("expert_indices")
    np.testing.assert_array_equal(block, trace.arrays["expert_indices"][positions])
    assert block.dims == ("token", "layer", "top_k")
    assert (block.coords, block.source) == ({"layer": (2, 5, 6)}, f"{token_set} (live)")
    [ids] = token_set.rows("token_ids")
    assert (ids.values.tolist(), ids.coords) == ([p + 20 for p in positions], {})


def test_a_message_that_the_prompt_opens_belongs_to_the_completion() -> None:
    """As in harmony, where the prompt ends in the header of the answer; here with a token of its content too."""
    trace = a_trace(14, num_prompt_tokens=11)
    assert TokenSet(trace, channel="final").positions(trace).tolist() == [11, 12]
    assert TokenSet(trace, phase="prompt", channel="final").positions(trace).tolist() == [10]


def test_no_token_counts_twice_where_messages_overlap() -> None:
    trace = a_trace(20)
    spans = tuple(Span(s, e, s, "message", "assistant", "final") for s, e in ((12, 16), (7, 9), (7, 8), (14, 18)))
    token_set = TokenSet(Trace(trace.arrays, spans, trace.meta), channel="final")
    assert token_set.positions(token_set.traces[0]).tolist() == [7, 12, 13, 14, 15, 16, 17]  # 8 closes
    assert token_set.num_tokens == sum(len(block) for block in token_set.rows("token_ids")) == 7


def test_facts_of_several() -> None:
    traces = [a_trace(14), a_trace(11), a_trace(12)]
    token_set = TokenSet(traces, channel="final")
    assert (token_set.num_experts, token_set.top_k, token_set.layers, token_set.model) == (7, 2, (2, 5, 6), "odd")
    assert (token_set.num_traces, len(token_set.traces), token_set.num_tokens) == (3, 3, 4)
    assert str(token_set) == "completion tokens on final of 3 traces of odd, 1 of them without any"
    assert repr(token_set) == f"<TokenSet: 4 {token_set}>"
    assert [len(block) for block in token_set.rows("expert_indices")] == [3, 1]


def test_expert_counts_by_loop() -> None:
    traces = [a_trace(14), a_trace(11), a_trace(12)]
    token_set = TokenSet(traces, channel="final")
    expected = np.zeros((3, 3, 7), int)
    for at, trace in enumerate(traces):
        for token in token_set.positions(trace):
            for layer, rank in np.ndindex(3, 2):
                expected[at, layer, trace.arrays["expert_indices"][token, layer, rank]] += 1
    counts, tokens = token_set.expert_counts()
    np.testing.assert_array_equal(counts, expected)
    assert tokens.tolist() == [3, 0, 1]
    assert counts.dtype == tokens.dtype == np.int64


def test_blocks_are_of_limited_size_and_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.analysis.token_set._BLOCK", 5)
    trace = a_trace(14)
    token_set = TokenSet(trace)
    blocks = list(token_set.rows("expert_indices"))
    assert [len(b) for b in blocks] == [5, 3]
    assert all(np.shares_memory(b.values, trace.arrays["expert_indices"]) for b in blocks)
    np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), trace.arrays["expert_indices"][6:])
    assert [len(b) for b in TokenSet(trace, role="assistant").rows("token_ids")] == [4]


def test_rows_are_given_again_and_again_from_a_store(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, create=True)
    for seed in (1, 2, 3):
        store.add(random_trace(seed))
    token_set = TokenSet(store)
    rows = token_set.rows("router_logits")
    first, second = list(rows), list(rows)
    assert [b.shape for b in first] == [b.shape for b in second] == [(3, 5, 7)] * 3
    for block, trace in zip(first, store, strict=True):
        np.testing.assert_array_equal(block, trace.arrays["router_logits"][9:])
    assert str(token_set) == "completion tokens of 3 traces of random"
    assert [trace.provenance["seed"] for trace in token_set.traces] == [trace.provenance["seed"] for trace in store]
    store.add(random_trace(4))
    with pytest.raises(TraceError, match=r"^There were 3 traces, now there are 4\. Make a new TokenSet of them\.$"):
        list(rows)


def test_unknown_weights_are_no_other_weights() -> None:
    facts = {**FACTS, "weights": "not available", "family": None}
    assert TokenSet([a_trace(), a_trace(provenance=facts)]).num_traces == 2


def textless() -> Trace:
    trace = a_trace()
    return Trace({n: a for n, a in trace.arrays.items() if not n.startswith("vocab_")}, trace.spans, trace.meta)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: TokenSet(textless(), channel="final"),
     "A trace has no vocab_special, so a message's content cannot be told from its closing token. Take all tokens of "
     "a phase, with neither channel nor role."),
    (lambda: TokenSet([]), "Expected at least one trace, got none. Capture some, or name another folder."),
    (lambda: TokenSet(a_trace(), phase="decode"),  # type: ignore[arg-type]
     "expected phase='completion', 'prompt' or 'all', got 'decode'"),
    (lambda: TokenSet("runs"),  # type: ignore[arg-type]
     "expected a trace, a list of traces or a TraceStore, got str"),
    (lambda: TokenSet(t for t in [a_trace()]),  # type: ignore[arg-type]
     "expected a trace, a list of traces or a TraceStore, got generator"),
    (lambda: TokenSet([a_trace(), None]),  # type: ignore[list-item]
     "expected traces, got NoneType in place 1"),
    (lambda: TokenSet([a_trace(), without(a_trace(), "expert_indices")]),
     "Trace 1 has no expert_indices. Capture a mixture-of-experts model with CaptureSpec(router=True). "
     "Captured: token_ids, queries."),
    (lambda: TokenSet([a_trace(), a_trace(provenance={**FACTS, "model": "other"})]),
     "Expected traces of one model. Trace 1 has model other, those before it odd. Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(), a_trace(provenance={**FACTS, "family": "olmoe"})]),
     "Expected traces of one model. Trace 1 has family olmoe, those before it gpt-oss. "
     "Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(), a_trace(provenance={**FACTS, "weights": "sha256:2"})]),
     "Expected traces of one model. Trace 1 has weights sha256:2, those before it sha256:1. "
     "Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(), a_trace(experts=8)]),
     "Expected traces of one model. Trace 1 has num_experts 8, those before it 7. Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(), a_trace(top_k=3)]),
     "Expected traces of one model. Trace 1 has top_k 3, those before it 2. Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(), a_trace(layers=(2, 5))]),
     "Expected traces of one model. Trace 1 has layers 2, 5, those before it 2, 5–6. "
     "Make a TokenSet of each model's."),
    (lambda: TokenSet([a_trace(shape={})]),
     "Trace 0 does not record how many experts the model has; give meta['shape'] = {'num_experts': …}"),
    (lambda: TokenSet([a_trace(shard={})]),
     "Trace 0 is one shard of a capture that did not finish. Open its folder with "
     "workbench.shards.recover(folder) and save the trace."),
    (lambda: TokenSet(a_trace(), channel="commentary"),
     "There are no completion tokens on commentary of 1 trace of odd. Messages here: system (in 1 trace), user "
     "(in 1 trace), assistant analysis (in 1 trace), assistant final (in 1 trace). Choose another phase, channel or "
     "role."),
    (lambda: TokenSet(a_trace()).rows("queries"),
     "expected an array with a row per token (token_ids, logprobs, entropy, top_token_ids, top_logprobs, "
     "expert_indices, expert_weights, router_logits, attention_logsumexp, lens_token_ids, lens_logprobs, residual), "
     "got 'queries'"),
    (lambda: list(TokenSet(a_trace()).rows("router_logits")),
     "Trace 0 has no router_logits. Captured: token_ids, expert_indices, queries."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), BAD)
def test_bad_input_is_named(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(TraceError) as caught:
        call()
    assert str(caught.value) == text


# --- over a store, a trace at a time -----------------------------------------------------------------------------


def filled(folder: Path, *lengths: int) -> TraceStore:
    store = TraceStore(folder, create=True)
    for length in lengths:
        store.add(a_trace(length, experts=7, top_k=3, provenance=FACTS | {"seed": length}))
    return store


def mapped(store: TraceStore) -> int:
    """How many files of the store the process has in its memory map."""
    return Path("/proc/self/maps").read_text().count(str(store.path))


needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at /proc")


def test_measures_of_a_store_are_those_of_its_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "runs", 40, 13, 90, 11, 61)
    monkeypatch.setattr("workbench.analysis.token_set._BLOCK", 17)
    token_set = TokenSet(store, phase="all", role="assistant")
    places = [token_set.positions(trace) for trace in store]
    indices, ids = (
        np.concatenate([trace.arrays[name][at] for trace, at in zip(store, places, strict=True)])
        for name in ("expert_indices", "token_ids")
    )
    assert len(indices) == token_set.num_tokens == sum(length - 11 for length in (40, 13, 90, 11, 61)) + 5
    rows = token_set.rows("expert_indices")
    for measure in (expert_load, coactivation, coactivation_lift):
        streamed = measure(rows, 7)
        np.testing.assert_array_equal(streamed, measure(indices, 7))
        assert streamed.coords == {"layer": (2, 5, 6)}
        assert streamed.source.endswith(
            f"over {len(indices)} tokens, from prompt and completion tokens of assistant messages of 5 traces of odd"
            " (live)"
        )
    special = token_specialization(rows, token_set.rows("token_ids"), 7, min_count=3)
    np.testing.assert_array_equal(special.value, token_specialization(indices, ids, 7, min_count=3).value)
    assert special.value.coords["layer"] == (2, 5, 6)
    counts, tokens = token_set.expert_counts()
    np.testing.assert_allclose(counts.sum(0) / (3 * tokens.sum()), expert_load(rows, 7))


@needs_proc
def test_one_trace_is_open_at_a_time(tmp_path: Path) -> None:
    store = filled(tmp_path / "runs", *range(20, 50))
    rows = TokenSet(store).rows("expert_indices")
    assert mapped(store) == 0
    assert max([mapped(store) for _ in rows]) <= 2  # the one in hand, and the next as it is opened
    assert max([mapped(store) for _ in store]) <= 2
    assert mapped(store) == 0


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `token_specialization` puts traces together up to so many tokens; here, two traces.
    monkeypatch.setattr("workbench.analysis.routing.specialization._GATHERED", 16_000)

    def peak(store: TraceStore) -> int:
        token_set = TokenSet(store)
        tracemalloc.start()
        coactivation(token_set.rows("expert_indices"), 7)
        token_specialization(token_set.rows("expert_indices"), token_set.rows("token_ids"), 7, min_count=1)
        token_set.expert_counts()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = filled(tmp_path / "few", 8000, 8001), filled(tmp_path / "many", *range(8000, 8040))
    peak(few)  # compiles
    assert peak(many) < 1.1 * peak(few)


@needs_proc
@pytest.mark.parametrize("where", ["in the loop", "in a measure", "while counting"])
def test_an_interrupt_leaves_nothing_open(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(tmp_path / "runs", 20, 30, 40, 50)
    token_set = TokenSet(store)
    seen: list[int] = []

    def interrupt(*_: Any) -> bool:
        seen.append(mapped(store))
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return True

    def blocks() -> Iterator[Labelled]:
        for block in token_set.rows("expert_indices"):
            interrupt()
            yield block

    monkeypatch.setattr("workbench.analysis.token_set.add_load", interrupt)
    runs: dict[str, Callable[[], Any]] = {
        "in the loop": lambda: [interrupt() for _ in token_set.rows("expert_indices")],
        "in a measure": lambda: coactivation(blocks(), 7),
        "while counting": token_set.expert_counts,
    }
    interrupted = False
    try:
        runs[where]()
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted
    assert len(seen) == 3
    assert set(seen) <= {1, 2, 3}  # the one in hand, the next, and the first, which a measure looks at before
    assert mapped(store) == 0
    assert not tqdm._instances
    assert len(list(token_set.rows("expert_indices"))) == 4


def test_a_trace_that_changed_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path / "runs", 20, 30)
    token_set = TokenSet(store)
    (name,) = (trace.path.name for trace in store if trace.path and len(trace) == 30)
    a_trace(31, top_k=3).save(store.path / name)
    at = next(i for i, trace in enumerate(store) if len(trace) == 31)
    with pytest.raises(TraceError) as caught:
        token_set.expert_counts()
    assert str(caught.value) == f"Trace {at} ({name}) had 24 such tokens, now it has 25. Make a new TokenSet."


def test_a_damaged_file_is_named_in_mid_stream(tmp_path: Path) -> None:
    store = filled(tmp_path / "runs", 20, 30, 40)
    token_set = TokenSet(store)
    path = store.path / f"{store.names[2]}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TraceError, match=rf"^{path} was cut off"):
        expert_load(token_set.rows("expert_indices"), 7)
    with pytest.raises(TraceError, match=rf"^{path} was cut off"):
        TokenSet(store)

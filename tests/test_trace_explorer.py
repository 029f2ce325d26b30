import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from numpy.typing import NDArray
from synthetic import synthetic_trace

import workbench as wb
from widgets.blocks import TraceBlocks
from widgets.token_notes import TokenNotes
from widgets.trace_explorer import TraceExplorer
from workbench.trace import Trace, TraceError

# All sizes differ, so that a transposed or mixed-up array fails.
SIZES: dict[str, Any] = {
    **{"tokens": 151, "layers": 3, "experts": 7, "top_k": 4, "heads": 6, "kv_heads": 2, "d_head": 14, "window": 9},
    **{"ranks": 5, "lens_ranks": 2},
}


def small(**changes: Any) -> Trace:
    return synthetic_trace(**(SIZES | changes))


class Sent:
    """What an explorer sends to the browser."""

    def __init__(self, explorer: TraceExplorer) -> None:
        self.explorer = explorer
        self.messages: list[tuple[Any, Sequence[bytes]]] = []
        explorer.send = lambda content, buffers=(): self.messages.append((content, buffers))  # type: ignore[method-assign]

    def ask(self, message: Any) -> tuple[Any, Sequence[bytes]]:
        self.explorer._handle_custom_msg(message, [])
        return self.messages[-1]


def read(data: bytes, like: NDArray[Any]) -> NDArray[Any]:
    return np.frombuffer(data, dtype=like.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_blocks_of_a_small_trace_are_its_arrays_bit_for_bit(dtype: str) -> None:
    trace = small(dtype=dtype)
    blocks = TraceExplorer(trace)._blocks
    for name in ("token_ids", "logprobs", "entropy", "sink_logits"):
        assert blocks[f"all/{name}"] == trace.arrays[name].tobytes()
    for name in ("expert_indices", "expert_weights", "router_logits", "attention_logsumexp", "lens_token_ids"):
        assert blocks[f"token/{name}/0"] == trace.arrays[name].tobytes()
    for layer in range(3):
        weights = read(blocks[f"layer/expert_weights/{layer}"], trace.arrays["expert_weights"]).reshape(151, 4)
        np.testing.assert_array_equal(weights, trace.arrays["expert_weights"][:, layer])
        for head in range(6):
            expected = np.ascontiguousarray(trace.arrays["queries"][layer, head])
            assert blocks[f"head/queries/{layer}/{head}/0"] == expected.tobytes()
        for kv_head in range(2):
            expected = np.ascontiguousarray(trace.arrays["keys"][layer, kv_head])
            assert blocks[f"head/keys/{layer}/{kv_head}/0"] == expected.tobytes()


def test_derived_blocks_are_what_the_trace_computes() -> None:
    trace = small(dtype="float32")
    blocks = TraceBlocks(trace)
    for layer in range(3):
        mass = trace.attention(layer).sink_mass
        assert mass is not None
        for head in range(6):
            found = np.frombuffer(blocks.read(f"head/sink_mass/{layer}/{head}/0"), dtype=np.float32)
            np.testing.assert_allclose(found, mass[head], atol=2e-6)
        z = trace.arrays["router_logits"][:, layer].astype(np.float64)
        probs = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        entropy = np.frombuffer(blocks.read(f"layer/router_entropy/{layer}"), dtype=np.float32)
        np.testing.assert_allclose(entropy, -(probs * np.log(probs)).sum(-1), rtol=1e-5)


def test_a_large_trace_is_fetched_page_by_page() -> None:
    trace = small(tokens=601)
    explorer = TraceExplorer(trace, preload_bytes=1000)
    assert sorted(explorer._blocks) == ["all/entropy", "all/logprobs", "all/sink_logits", "all/token_ids"]
    assert explorer._facts["page"] == {"token": 256, "head": 16_384, "tile": 128}
    content, buffers = Sent(explorer).ask(
        {"fetch": ["token/router_logits/2", "tile/queries/1/4", "layer/expert_indices/2"]}
    )
    assert content == {"blocks": ["token/router_logits/2", "tile/queries/1/4", "layer/expert_indices/2"], "failed": {}}
    assert buffers[0] == trace.arrays["router_logits"][512:].tobytes()
    assert buffers[1] == np.ascontiguousarray(trace.arrays["queries"][1, :, 512:]).tobytes()
    assert buffers[2] == np.ascontiguousarray(trace.arrays["expert_indices"][:, 2]).tobytes()


@pytest.mark.parametrize(
    "key",
    [
        "token/router_logits/9",
        "token/queries/0",
        "head/keys/0/2/0",
        "head/keys/5/0/0",
        "nonsense",
        "all/vocab_ids",
        "layer/expert_indices/-1",
    ],
)
def test_a_key_that_names_no_block_is_answered_with_the_reason(key: str) -> None:
    content, buffers = Sent(TraceExplorer(small())).ask({"fetch": [key, "token/expert_indices/0"]})
    assert content["blocks"] == ["token/expert_indices/0"]
    assert len(buffers) == 1
    assert key in content["failed"][key] or "is not in this trace" in content["failed"][key]


def test_layers_that_were_not_captured_are_told() -> None:
    whole = small()
    picked = [0, 2]
    arrays = {**whole.arrays, "queries": whole.arrays["queries"][picked], "keys": whole.arrays["keys"][picked]}
    trace = Trace(arrays, whole.spans, {**whole.meta, "layers": {"queries": picked, "keys": picked}})
    explorer = TraceExplorer(trace)
    assert explorer._facts["arrays"]["queries"]["layers"] == [0, 2]
    assert explorer._facts["numLayers"] == 3
    assert explorer._blocks["head/keys/2/1/0"] == np.ascontiguousarray(whole.arrays["keys"][2, 1]).tobytes()
    assert "head/keys/1/0/0" not in explorer._blocks


@pytest.mark.parametrize(
    "without",
    [
        ("router_logits",),
        ("expert_indices", "expert_weights", "router_logits"),
        ("queries", "keys", "sink_logits", "attention_logsumexp"),
        ("sink_logits",),
        ("lens_token_ids", "lens_logprobs", "top_token_ids", "top_logprobs", "logprobs", "entropy"),
    ],
)
def test_what_was_not_captured_is_absent_and_never_zero(without: tuple[str, ...]) -> None:
    explorer = TraceExplorer(small(without=without))
    for name in without:
        assert name not in explorer._facts["arrays"]
        assert not [key for key in explorer._blocks if key.split("/")[1] == name]
    json.dumps(explorer._facts)


def test_facts_are_those_of_the_trace() -> None:
    trace = small()
    facts = TraceExplorer(trace)._facts
    assert [facts[n] for n in ("numTokens", "numLayers", "numExperts", "topK", "numHeads", "numKvHeads", "dHead")] == [
        *(151, 3, 7, 4, 6, 2, 14),
    ]
    assert facts["attention"]["windows"] == [9, None, 9]
    assert facts["spans"][0][:4] == ["message", 0, trace.spans[0].content_start, trace.spans[0].stop]
    texts = dict(zip(facts["vocabulary"]["ids"], facts["vocabulary"]["texts"], strict=True))
    assert "".join(texts[int(i)] for i in trace.arrays["token_ids"]) == trace.text()


def test_bytes_that_are_no_whole_character_are_marked() -> None:
    broken = "\udcf0\udc9f"  # the first two bytes of an emoji
    vocabulary = TraceExplorer(small(texts=[broken, "漢"]))._facts["vocabulary"]
    assert [vocabulary["texts"][i] for i in vocabulary["raw"]] == ["\xf0\x9f"]
    assert "漢" in vocabulary["texts"]


def test_selection_is_a_trait_with_bounds() -> None:
    explorer = TraceExplorer(small(), layer=2, head=5, expert=6, color_by="sink_mass")
    seen: list[int] = []
    explorer.observe(lambda change: seen.append(change["new"]), "token")
    explorer.token = 12
    assert seen == [12]
    for name, count in (("token", 151), ("layer", 3), ("head", 6), ("expert", 7)):
        with pytest.raises(traitlets.TraitError, match=rf"expected a {name} within 0–{count - 1}, got {count}"):
            setattr(explorer, name, count)
        with pytest.raises(traitlets.TraitError, match="got -1"):
            setattr(explorer, name, -1)
    assert (explorer.token, explorer.layer, explorer.head, explorer.expert) == (12, 2, 5, 6)
    with pytest.raises(traitlets.TraitError, match="color_by"):
        explorer.color_by = "rainbow"


def test_bad_arguments_say_what_was_expected() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'tokn'"):
        TraceExplorer(small(), tokn=3)  # type: ignore[call-arg]
    with pytest.raises(TraceError, match=r"expected a Trace, got str; wb\.open_trace"):
        TraceExplorer("sum.safetensors")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="at least one token"):
        TraceExplorer(Trace({"token_ids": np.empty(0, np.int32)}, (), {"num_prompt_tokens": 0}))
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–2, got 3"):
        TraceExplorer(small(), layer=3)


def test_it_starts_at_the_first_token_the_model_wrote() -> None:
    trace = small()
    assert TraceExplorer(trace).token == trace.num_prompt_tokens
    assert TraceExplorer(trace, token=0).token == 0


def test_notes_are_saved_beside_the_trace_and_shown_again(tmp_path: Path) -> None:
    trace, path = small(), tmp_path / "sum.notes.json"
    explorer = TraceExplorer(trace, notes_path=path)
    explorer.bookmarks = [40, 7, 40]
    explorer.notes = {12: "carries the 1 <b>", 7: "漢"}
    content, _ = Sent(explorer).ask({"save": True})
    assert content == {"said": f"saved {path}"}
    assert [p.name for p in tmp_path.iterdir()] == ["sum.notes.json"]
    again = TraceExplorer(trace, notes_path=path)
    assert (again.bookmarks, again.notes) == ([7, 40], {12: "carries the 1 <b>", 7: "漢"})


def test_the_place_beside_a_saved_trace_is_found(tmp_path: Path) -> None:
    trace = small()
    trace.save(tmp_path / "sum.safetensors")
    explorer = TraceExplorer(trace)
    explorer.bookmarks = [9]
    assert explorer.save_notes() == tmp_path / "sum.notes.json"
    assert TraceExplorer(wb.open_trace(tmp_path / "sum.safetensors")).bookmarks == [9]


def test_notes_come_back_from_the_browser_with_numbers_as_keys() -> None:
    explorer = TraceExplorer(small())
    explorer.set_state({"notes": {"12": "here"}, "bookmarks": [3], "token": 5})
    assert (explorer.notes, explorer.bookmarks, explorer.token) == ({12: "here"}, [3], 5)
    assert explorer.get_state(["notes"])["notes"] == {"12": "here"}
    with pytest.raises(traitlets.TraitError, match="expected a token within 0–150, got 151"):
        explorer.bookmarks = [151]


def test_saving_without_a_place_says_what_to_do() -> None:
    content, _ = Sent(TraceExplorer(small())).ask({"save": True})
    assert content["kind"] == "warning"
    assert content["said"] == "trace not saved yet, so there is no place beside it: trace.save(path) first"


def test_notes_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    explorer = TraceExplorer(small(), notes_path=tmp_path / "missing" / "x.notes.json")
    content, _ = Sent(explorer).ask({"save": True})
    assert content["kind"] == "warning"
    assert "No such file" in content["said"]


def test_notes_of_another_trace_or_no_notes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.notes.json"
    TokenNotes((1,), {}).save(path, small(seed=1))
    with pytest.raises(TraceError, match="belongs to another trace"):
        TraceExplorer(small(tokens=160), notes_path=path)
    path.write_text('{"format": "something else"}')
    with pytest.raises(TraceError, match="holds no notes on a trace"):
        TraceExplorer(small(), notes_path=path)
    content = {
        "format": "moe-workbench notes",
        "version": 2,
        "trace": {"token_ids_sha256": ""},
        "bookmarks": [],
        "notes": {},
    }
    path.write_text(json.dumps(content))
    with pytest.raises(TraceError, match="expected moe-workbench notes version 1"):
        TraceExplorer(small(), notes_path=path)


def test_a_real_capture_is_shown(tiny: wb.Model) -> None:
    trace = wb.capture(tiny, "47 + 85 = ?", effort="low", max_new_tokens=12, temperature=0)
    explorer = TraceExplorer(trace)
    facts = explorer._facts
    assert facts["embedded"] is True
    assert facts["question"] == "47 + 85 = ?"
    assert facts["temperature"] == 0
    assert facts["dtype"] == "float32"
    assert facts["arrays"]["expert_indices"]["source"] == "live"
    assert explorer._blocks["token/expert_indices/0"] == trace.arrays["expert_indices"].tobytes()

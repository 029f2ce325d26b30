"""ChainEditor: what an edit puts where, what follows it, how it is counted, kept with the trace, and refused."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import traitlets
from synthetic import synthetic_trace
from written_trace import written_trace

import workbench as wb
from widgets import ChainEditor
from widgets.editor_tree import Edit, placed
from workbench.analysis.compare.alignment import align
from workbench.analysis.statistics import wilson_interval
from workbench.experiments.continuation import continue_from
from workbench.families import ModelError
from workbench.trace import Trace, TraceError

WORDS = ["a", "b", "\n", "4", "4.0", "5", "?", "<|channel|>", "analysis", "final", "<|return|>"]
LIGHT = wb.CaptureSpec(attention=False, lens=False)


@pytest.fixture(scope="module")
def trace(tiny: wb.Model) -> Trace:
    """Three sentences, ``7+5+9=21``, ``4+8+3+2=17``, ``so 171``, and the answer 171."""
    return wb.capture(tiny, "47 + 85 + 39 = ?", effort="medium", temperature=0)


@pytest.fixture
def editor(tiny: wb.Model, trace: Trace) -> ChainEditor:
    return ChainEditor(trace, run=partial(continue_from, tiny, capture=LIGHT))


def written(analysis: Sequence[str] | None, final: Sequence[str] | None, truncated: str | None = None) -> Trace:
    """Write a rollout down; all of them have one prompt, and each token its id in all of them."""
    return written_trace(analysis, final, prompt=WORDS, truncated=truncated)


def lines(trace: Trace) -> list[str]:
    return trace.analysis_text.split("\n")[:-1]


def test_another_partial_sum_moves_the_answer_only_where_the_rest_is_written_anew(editor: ChainEditor) -> None:
    anew = editor.edit("replace", 1, "4+8+3+2=19\n", samples=3)
    kept = editor.edit("replace", 1, "4+8+3+2=19\n", rest="kept", branch=0, samples=3)
    control = editor.edit("truncate", 1, branch=0, samples=3)
    for branch, last, answer in ((anew, "so 191", "191"), (kept, "so 171", "171"), (control, "so 171", "171")):
        assert [lines(t)[-1] for t in branch.traces] == [last] * 3
        assert [t.final_text for t in branch.traces] == [answer] * 3
    assert [lines(b.traces[0])[1] for b in (anew, kept, control)] == ["4+8+3+2=19", "4+8+3+2=19", "4+8+3+2=17"]
    assert [t.provenance["sampling"]["seed"] for t in anew.traces] == [0, 1, 2]
    assert [b.parent for b in editor.branches] == [None, 0, 0, 0]
    [share] = editor.tally(1)
    assert (share.answer, share.count, share.n, share.original) == ("191", 3, 3, False)
    assert share.interval == wilson_interval(3, 3)
    assert [s.original for s in editor.tally(2)] == [True]


def test_a_sentence_is_deleted_inserted_or_the_chain_closed(editor: ChainEditor, trace: Trace) -> None:
    ids = trace.arrays["token_ids"].tolist()
    sentences = [s for s in trace.sentences if s.channel == "analysis"]
    deleted = editor.edit("delete", 1, rest="kept", branch=0, samples=1).traces[0]
    cut = sentences[1]
    final = next(m for m in trace.messages if m.channel == "final")
    assert deleted.arrays["token_ids"].tolist()[: final.content_start - len(cut)] == (
        ids[: cut.start] + ids[cut.stop : final.content_start]
    ), "what is kept is kept token by token"
    assert deleted.meta["continued_from"]["generated_from"] == final.content_start - len(cut)
    closed = editor.edit("truncate", 0, rest="kept", branch=0, samples=1).traces[0]
    assert lines(closed) == ["7+5+9=21"]
    assert closed.meta["continued_from"]["replacement"] == [*ids[65:66], *ids[final.start : final.content_start]]
    inserted = editor.edit("insert", 0, "4+8+3+2=19\n", branch=0, samples=1).traces[0]
    assert lines(inserted)[:2] == ["7+5+9=21", "4+8+3+2=19"]
    again = editor.edit("delete", 2, branch=0, samples=1, temperature=0).traces[0]
    assert again.arrays["token_ids"].tolist() == ids, "greedy, it writes the same sentence again"


def test_a_branch_is_edited_and_shown_beside_its_parent(editor: ChainEditor, trace: Trace) -> None:
    first = editor.edit("replace", 2, "so 199\n", samples=2)
    assert (editor.shown, editor.beside) == ((1, 0), (0, 0))
    second = editor.edit("insert", 2, "so 55\n", branch=(1, 1), temperature=0)
    assert second.edit == Edit(1, 1, "insert", 2, "so 55\n", "anew", "so 199\n")
    assert (second.parent, len(second.traces), second.wanted) == (1, 1, 1)
    assert (editor.shown, editor.beside) == ((2, 0), (1, 1))
    assert second.traces[0].text(0, 65) == first.traces[1].text(0, 65)
    pair = editor._pair
    assert (pair["shown"]["place"], pair["beside"]["place"]) == ([2, 0], [1, 1])
    rows = align(first.traces[1], second.traces[0]).rows
    assert np.frombuffer(pair["rows"]["rows"], "<i4").tolist() == rows.ravel().tolist()
    to_original = align(trace, second.traces[0]).rows
    assert np.frombuffer(pair["toOriginal"]["rows"], "<i4").tolist() == to_original.ravel().tolist()
    start, stop = pair["shown"]["put"]
    assert second.traces[0].text(start, stop) == "so 55\n"
    assert pair["shown"]["generatedFrom"] == stop
    assert np.frombuffer(pair["shown"]["token_ids"], "<i4").tolist() == second.traces[0].token_ids.values.tolist()
    assert editor.tally(2)[0].interval is None, "greedy is no sample"
    record = editor._tree[2]
    assert (record["parent"], record["of"], record["action"], record["n"]) == (1, 1, "insert", 1)
    assert record["chainTokens"] == [editor._tree[0]["chainTokens"][0] + stop - start] == [31]
    editor.shown = (0, 0)
    editor.beside = (-1, 0)
    assert editor._pair.keys() == {"shown"}


def test_two_branches_in_a_trace_diff(editor: ChainEditor, trace: Trace) -> None:
    found = editor.edit("replace", 1, "4+8+3+2=19\n", samples=2)
    diff = editor.diff(0, (1, 1))
    assert (diff.difference.alignment.parting, diff._facts["labels"]) == (57, ["original", "branch 1, rollout 1"])
    assert diff.difference.answers == ("171", found.traces[1].final_text)
    assert diff._facts["layers"] == [0, 1, 2, 3], "experts are compared where they were captured"
    for place, says in ((2, "a branch within 0–1, got 2"), ((1, 5), "a rollout of branch 1 within 0–1, got 5")):
        with pytest.raises(TraceError, match=f"^expected {says}$"):
            editor.diff(0, place)


def test_branches_are_kept_with_the_trace_and_shown_without_a_model(
    tiny: wb.Model, editor: ChainEditor, trace: Trace, tmp_path: Path
) -> None:
    editor.edit("replace", 1, "4+8+3+2=19\n", samples=2)
    editor.edit("delete", 0, branch=(1, 1), rest="kept", samples=1, seed=7)
    editor.annotated.save(tmp_path / "edited.safetensors")
    assert "branches" not in trace.meta
    opened = ChainEditor(wb.open_trace(tmp_path / "edited.safetensors"))
    assert opened._tree == editor._tree
    assert opened._facts["canRun"] is False
    assert [b.edit for b in opened.branches] == [b.edit for b in editor.branches]
    for ours, theirs in zip(opened.branches, editor.branches, strict=True):
        for a, b in zip(ours.traces, theirs.traces, strict=True):
            assert a.spans == b.spans
            assert a.text() == b.text()
    opened.shown, opened.beside = (2, 0), (1, 1)
    editor.shown, editor.beside = (2, 0), (1, 1)
    assert opened._pair["rows"] == editor._pair["rows"]
    assert opened._pair["shown"]["put"] is None
    assert opened.diff(0, 2).difference.answers == editor.diff(0, 2).difference.answers
    assert opened.annotated.meta["branches"] == editor.annotated.meta["branches"]
    with pytest.raises(TraceError, match=r"^this editor has no model to run; make it with ChainEditor\(trace, run="):
        opened.edit("delete", 0)
    assert opened._job["state"] == "failed"
    with_model = ChainEditor(opened.annotated, run=partial(continue_from, tiny, capture=LIGHT))
    assert with_model.edit("truncate", 0, branch=2, samples=1).parent == 2


def test_what_is_kept_may_be_anything(editor: ChainEditor, trace: Trace) -> None:
    editor.edit("replace", 1, "4+8+3+2=19\n", samples=1)
    [good] = editor.annotated.meta["branches"]
    [rollout] = good["rollouts"]
    wrong: list[Any] = [
        {"branches": 3},
        [3],
        [{}],
        [{**good, "rollouts": []}],
        [{**good, "edit": {**good["edit"], "branch": 1}}],
        [{**good, "edit": {**good["edit"], "sentence": 3}}],
        [{**good, "edit": {**good["edit"], "action": "explode"}}],
        [{**good, "edit": {**good["edit"], "more": 1}}],
        [{**good, "rollouts": [{**rollout, "token_ids": [*rollout["token_ids"], 99_999]}]}],
        [{**good, "rollouts": [{**rollout, "spans": [{"start": 0, "stop": 9_999, "content_start": 0}]}]}],
        [{**good, "rollouts": [{**rollout, "vocab": [[1, "zz", True]]}]}],
        [{**good, "rollouts": [{**rollout, "continued_from": {"token": "a"}}]}],
    ]
    for branches in wrong:
        with pytest.raises(TraceError, match=r"^the trace's branches were not written by a chain editor .*anew$"):
            ChainEditor(replace(trace, meta={**trace.meta, "branches": branches}))
    assert len(ChainEditor(replace(trace, meta={**trace.meta, "branches": [good]})).branches) == 2


def test_the_cost_is_said_before(editor: ChainEditor, trace: Trace) -> None:
    seconds = trace.provenance["seconds"] / (len(trace) - trace.num_prompt_tokens)
    anew = editor.cost("replace", 1, "x", samples=7)
    assert (anew.rollouts, anew.read, anew.written) == (7, 48, 16)
    assert anew.seconds == pytest.approx(7 * 16 * seconds)
    assert anew.measured == "as measured when the trace was captured on cpu"
    kept = editor.cost("insert", 1, "x", rest="kept")
    assert (kept.read, kept.written) == (59 + 12, 4)
    closed = editor.cost("truncate", 1, rest="kept")
    assert (closed.read, closed.written) == (59 + 6, 4)
    editor.edit("truncate", 1, samples=1)
    measured = editor.cost("delete", 1, branch=0)
    took = editor.branches[1].traces[0]
    each = took.provenance["seconds"] / (len(took) - 59)
    assert (measured.measured, measured.seconds) == ("as measured in branch 1", pytest.approx(5 * 16 * each))
    assert editor.cost("delete", 1, branch=0, rest="kept").measured == anew.measured
    assert ChainEditor(written(["a", "\n"], ["4"])).cost("delete", 0).seconds is None


def test_answers_are_counted_and_a_cut_rollout_gives_none() -> None:
    root = written(["a", "\n"], ["4"])
    endings: list[tuple[list[str] | None, str | None]] = [
        *[(["5"], None), (["4.0"], None), (["5"], None), (["4"], "cut at 3 tokens"), (None, "cut at 2 tokens")]
    ]

    def run(*_: Any, temperature: float, seed: int) -> Trace:
        final, truncated = endings[seed]
        return written(["b", "\n"], final, truncated)

    editor = ChainEditor(root, run=run)
    editor.edit("delete", 0)
    shares = [(s.answer, s.count, s.n, s.original) for s in editor.tally(1)]
    assert shares == [("5", 2, 5, False), ("4", 1, 5, True), (None, 2, 5, False)]
    assert editor.tally(1)[0].interval == wilson_interval(2, 5)
    assert editor._tree[1]["cut"] == [None, None, None, "cut at 3 tokens", "cut at 2 tokens"]
    assert [(s.answer, s.interval) for s in editor.tally(0)] == [("4", None)]


def stopping(after: int, how: str) -> Any:
    """Return a run that is interrupted: by an exception, or as a capture tells it."""
    done: list[int] = []

    def run(trace: Trace, token: int, put: Any, *, temperature: float, seed: int) -> Trace:
        done.append(seed)
        if len(done) <= after:
            return written(["b", "\n"], ["5"])
        if how == "raised":
            raise KeyboardInterrupt
        return written(["b"], None, "interrupted after 1 tokens")

    return run


@pytest.mark.parametrize("how", ["raised", "told"])
def test_an_interrupt_keeps_the_rollouts_that_are_done(how: str) -> None:
    root = written(["a", "\n"], ["4"])
    editor = ChainEditor(root, run=stopping(2, how))
    told: list[Any] = []
    editor.observe(lambda change: told.append(change["new"]), names="_job")
    branch = editor.edit("delete", 0)
    assert (len(branch.traces), branch.wanted) == (2, 5)
    assert [s.n for s in editor.tally(1)] == [2]
    assert [(job["state"], job.get("done")) for job in told] == [*[("running", n) for n in range(3)], ("done", None)]
    nothing = ChainEditor(root, run=stopping(0, how))
    with pytest.raises(KeyboardInterrupt):
        nothing.edit("delete", 0)
    assert nothing._job == {"state": "failed", "words": "interrupted before a rollout was done"}
    assert len(nothing.branches) == len(nothing._tree) == 1


def test_ctrl_c_while_the_model_writes(tiny: wb.Model, editor: ChainEditor) -> None:
    """A capture returns the part that is done; a part is no rollout, and whole ones stay."""
    calls: list[int] = []

    def stop(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 25:  # a rollout has 16 tokens, so this is within the second
            raise KeyboardInterrupt

    hook = tiny.hf.register_forward_pre_hook(stop)
    try:
        branch = editor.edit("replace", 1, "4+8+3+2=19\n", samples=4)
    finally:
        hook.remove()
    assert (len(branch.traces), branch.wanted) == (1, 4)
    assert branch.traces[0].final_text == "191"
    assert editor._tree[1]["n"] == 1


def test_stop_ends_the_rollout_and_keeps_those_that_are_done(editor: ChainEditor) -> None:
    heard: list[Any] = []
    editor.send = lambda content, buffers=None: heard.append(content)  # type: ignore[method-assign]

    def stop(change: Any) -> None:
        if change["new"].get("done") == 1:
            pressed = threading.Timer(0.01, editor._answer, args=(editor, {"stop": True}, []))
            pressed.start()

    editor.observe(stop, "_job")
    branch = editor.edit("replace", 1, "4+8+3+2=19\n", samples=40)
    assert heard == [{"stopping": True}]
    assert 1 <= len(branch.traces) < 40
    editor._answer(editor, {"stop": True}, [])
    assert heard[1:] == [{"stopping": False}], "nothing runs, so nothing is interrupted"


def test_the_browser_asks_and_an_error_is_said(editor: ChainEditor) -> None:
    wish = {"action": "replace", "sentence": 2, "text": "so 199\n", "rest": "kept", "branch": [0, 0], "samples": 1}
    wish |= {"temperature": 0, "seed": 3}
    editor._answer(editor, {"edit": wish}, [])
    assert (editor.branches[1].traces[0].final_text, editor._job) == ("199", {"state": "done"})
    for more, says in (
        ({"text": "<|end|>"}, "the replacement text contains <|end|>, which the tokenizer reads as the format's own"),
        ({"sentence": 9}, "expected a sentence of the chain within 0–2, got 9"),
        ({"branch": [7, 0]}, "expected a branch within 0–1, got 7"),
        ({"samples": 2}, "expected 1 sample at temperature 0, where all rollouts are the same, got 2"),
        ({"samples": 0}, "expected at least 1 rollout as samples, got 0"),
        ({"temperature": -1}, "expected a temperature"),
    ):
        editor._answer(editor, {"edit": {**wish, **more}}, [])
        assert (editor._job["state"], editor._job["words"][: len(says)]) == ("failed", says)
    for message in ("nonsense", {}, {"edit": 3}, {"edit": {}}, {"edit": {**wish, "branch": None}}):
        editor._answer(editor, message, [])
    assert len(editor.branches) == 2
    with pytest.raises(ModelError, match="the replacement text contains"):
        editor.edit("replace", 0, "<|end|>")


def test_an_edit_that_makes_no_sense_is_refused(editor: ChainEditor, trace: Trace) -> None:
    wrong: list[tuple[Sequence[Any], dict[str, Any], str]] = [
        (("replace", 0), {}, "^expected the text to replace, got none; delete takes a sentence out$"),
        (("delete", 0, "x"), {}, "^delete takes no text, got 'x'; replace puts it in the sentence's place$"),
        (("explode", 0), {}, "^expected an action replace, delete, insert, truncate, got 'explode'$"),
        (("delete", 0), {"rest": "all"}, "^expected rest as anew, kept, got 'all'$"),
        (("delete", -1), {}, "^expected a sentence of the chain within 0–2, got -1$"),
    ]
    for arguments, options, says in wrong:
        with pytest.raises(TraceError, match=says):
            editor.edit(*arguments, **options)
    cut = written_trace(["a", "\n"], None, truncated="cut at 2 tokens")
    with pytest.raises(
        TraceError, match=r"^this rollout gives no answer after its chain, so there is no rest to keep"
    ):
        placed(cut, Edit(0, 0, "delete", 0, rest="kept"))
    silent = ChainEditor(written(["a", "\n"], ["4"]), run=lambda *_, **__: written(None, ["4"]))
    silent.edit("delete", 0)
    with pytest.raises(TraceError, match=r"^this rollout has no chain of thought to edit"):
        silent.edit("delete", 0, branch=1)
    with pytest.raises(TraceError, match=r"^expected a Trace from run, got NoneType$"):
        ChainEditor(trace, run=lambda *_, **__: None).edit("delete", 0)  # type: ignore[arg-type]
    for other in (trace, written_trace(["b", "\n"], ["4"], prompt=[*WORDS, "!"])):
        with pytest.raises(
            TraceError, match=r"^expected a trace of the original's prompt and vocabulary from run, got"
        ):
            ChainEditor(silent.trace, run=lambda *_, found=other, **__: found).edit("delete", 0)


def test_bad_input_says_what_was_expected(trace: Trace) -> None:
    bare = replace(trace, arrays={n: a for n, a in trace.arrays.items() if not n.startswith("vocab_")})
    wrong: list[tuple[Any, str]] = [
        ("a.safetensors", r"^expected a Trace, got str; wb.open_trace\(path\) reads one from a file$"),
        (bare, "^this trace does not keep the text of its tokens, so its sentences cannot be read"),
        (
            written_trace(None, ["4"]),
            "^this trace has no chain of thought to edit: nothing is on the analysis channel",
        ),
    ]
    for one, says in wrong:
        with pytest.raises(TraceError, match=says):
            ChainEditor(one)
    with pytest.raises(
        TypeError, match=r"^expected a function as run, got int; pass partial\(continue_from, model\)$"
    ):
        ChainEditor(trace, run=3)  # type: ignore[arg-type]
    editor = ChainEditor(trace)
    for place, says in (((1, 0), "a branch within 0–0, got 1"), ((0, 1), "a rollout of branch 0 within 0–0, got 1")):
        for name in ("shown", "beside"):
            with pytest.raises(traitlets.TraitError, match=f"^expected {says}$"):
                setattr(editor, name, place)
    with pytest.raises(traitlets.TraitError, match="expected a layer within 0–3, got 9"):
        ChainEditor(trace, layer=9)


def test_a_long_chain_is_shown_and_edited_in_seconds() -> None:
    shape: dict[str, Any] = {"tokens": 20_000, "layers": 1, "heads": 2, "kv_heads": 1, "d_head": 4, "experts": 4}
    root = synthetic_trace(**shape, top_k=2)
    ids = root.arrays["token_ids"].copy()
    middle = slice(root.num_prompt_tokens + 100, -100)
    ids[middle] = np.random.default_rng(0).permutation(ids[middle])
    other = replace(root, arrays={**root.arrays, "token_ids": ids})
    began = time.monotonic()
    editor = ChainEditor(root, run=lambda *_, **__: other)
    last = len(editor._pair["shown"]["sentences"]) - 1
    assert last > 500
    editor.edit("replace", last, " Wait, that is 12.", samples=3)
    assert editor._pair["rows"]["differ"] > 1_000
    saved = editor.annotated.meta["branches"]
    assert len(saved[0]["rollouts"][2]["token_ids"]) == len(other) - other.num_prompt_tokens
    assert time.monotonic() - began < 15, "1 s on an idle machine"

"""Pages without a kernel: what is in the file, what it may do, what is refused. In a browser: tests/browser."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hostile import PAYLOADS
from random_trace import random_trace
from test_compare import rollouts
from written_trace import written_trace

import workbench as wb
from widgets import AttentionView, InterventionBench, RouterMap, TraceExplorer
from widgets import export_page as module
from widgets.export_page import export_page
from widgets.page_figures import expert_load_figure, surprisal_figure
from widgets.page_state import page_state, rounded
from widgets.page_text import section_of, sections_of
from widgets.page_trace import page_bytes, stretch
from workbench.analysis.faithfulness import FaithfulnessReport
from workbench.analysis.routing import expert_load
from workbench.page import shown
from workbench.trace import Span, Trace, TraceError


class Page(HTMLParser):
    """The tags of a page, and the text of its scripts, styles and everything else."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self.style = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] == "script":
            kind = str(self.tags[-1][1]["type"])
            self.scripts[kind] = self.scripts.get(kind, "") + data
        elif self.inside and self.inside[-1] == "style":
            self.style += data
        else:
            self.text += data

    @property
    def views(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.scripts["application/json"])
        return found

    @property
    def policy(self) -> str:
        return str(next(a["content"] for tag, a in self.tags if a.get("http-equiv") == "Content-Security-Policy"))


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def buffer(view: dict[str, Any], *path: str) -> bytes:
    found = [b["data"] for b in view["buffers"] if b["path"] == list(path)]
    assert len(found) == 1, path
    return base64.b64decode(found[0])


def read_rounded(data: bytes) -> Any:
    width = int(np.frombuffer(data, "<u4", 1)[0])
    rows = (len(data) - 4) // (4 + width)
    scales = np.frombuffer(data, "<f4", rows, 4)
    return scales[:, None] * np.frombuffer(data, np.int8, rows * width, 4 + 4 * rows).reshape(rows, width)


# --- what is in it ------------------------------------------------------------------------------------------------


def test_a_page_is_one_file_that_allows_itself_its_own_script_and_style_alone(tmp_path: Path) -> None:
    path = export_page(random_trace(), tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    page = Page(path)
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": hash_of(page.scripts["module"]),
        "style-src": hash_of(page.style),
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert [tag for tag, _ in page.tags if tag in ("script", "style")] == ["style", "script", "script"]
    for tag, attributes in page.tags:
        assert not attributes.keys() & {"src", "href", "srcset", "style", "action", "data"}, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "Raw chain of thought" in page.text
    policy_at = page.source.index("Content-Security-Policy")
    assert policy_at < page.source.index("<style") < page.source.index("<script")


def test_the_state_is_the_views_with_queries_and_keys_rounded(tmp_path: Path) -> None:
    trace = random_trace()
    whole = TraceExplorer(trace)
    (view,) = Page(export_page(trace, tmp_path / "page.html")).views
    assert view["name"] == "TraceExplorer"
    assert view["state"]["_facts"]["rounded"] == ["queries", "keys"]
    assert not [name for name in view["state"] if name in ("_esm", "_css")]
    for key, sent in whole._blocks.items():
        data = buffer(view, "_blocks", key)
        if key.split("/")[1] not in ("queries", "keys"):
            assert data == sent, key
            continue
        captured = np.frombuffer(sent, ml_dtypes.bfloat16).astype(np.float32).reshape(-1, 4)
        step = np.abs(captured).max(axis=1, keepdims=True) / 127
        assert (np.abs(read_rounded(data) - captured) <= step / 2 + 1e-7).all(), key
        assert np.abs(read_rounded(data) - captured).max() > 0, "a rounding that changes nothing"
    arrays = view["state"]["_facts"]["arrays"]
    assert [arrays[n]["dtype"] for n in ("queries", "keys", "router_logits")] == ["rounded", "rounded", "bfloat16"]
    assert whole._facts["arrays"]["queries"]["dtype"] == "bfloat16", "the view in the notebook was changed"
    assert "rounded" not in whole._facts


def test_rounding_of_rows_by_hand() -> None:
    data = rounded(np.array([[127, -63.4, 0], [0, 0, 0], [0.5, 0.25, -0.5]], dtype=np.float32))
    assert np.frombuffer(data, "<u4", 1) == [3]
    assert np.frombuffer(data, "<f4", 3, 4) == pytest.approx([1, 0, 0.5 / 127])
    assert np.frombuffer(data, np.int8, 9, 16).tolist() == [127, -63, 0, 0, 0, 0, 127, 64, -127]


def test_what_no_scale_can_hold_is_sent_as_captured() -> None:
    trace = random_trace()
    arrays = dict(trace.arrays)
    arrays["keys"] = arrays["keys"].copy()
    arrays["keys"][1, 0, 5, 2] = np.inf
    view = page_state(TraceExplorer(Trace(arrays, trace.spans, trace.meta)))
    assert view["state"]["_facts"]["rounded"] == ["queries"]
    assert view["state"]["_facts"]["arrays"]["keys"]["dtype"] == "bfloat16"


def test_a_thousand_tokens_of_the_embedded_model_fit(tiny: wb.Model, tmp_path: Path) -> None:
    trace = wb.capture(tiny, "47 + 85 = ?", effort="high", temperature=0)
    ids = np.tile(trace.token_ids.values, 1000 // len(trace) + 1)[:1000]
    long = wb.replay(tiny, ids.tolist())
    size = export_page(long, tmp_path / "page.html").stat().st_size
    assert len(long) == 1000
    assert size <= 2_500_000
    print(f"page of 1,000 tokens: {size / 1e6:.2f} MB")
    assert page_bytes(long) == pytest.approx(size, rel=0.1), "the size that is said before a page is made"
    (view,) = Page(tmp_path / "page.html").views
    exact = long.attention(1, head=3).pattern.values[0]
    differences = np.abs(attention_from(view, long, layer=1, head=3) - exact)[exact > 0.01]
    assert np.quantile(differences, 0.99) < 0.03
    assert differences.max() < 0.1
    print(f"attention off by at most {differences.max():.3f}, 99 % of weights by {np.quantile(differences, 0.99):.4f}")


def attention_from(view: dict[str, Any], trace: Trace, layer: int, head: int) -> Any:
    """A head's pattern from what is in a page, as the browser computes it."""
    queries = read_rounded(buffer(view, "_blocks", f"head/queries/{layer}/{head}/0"))
    keys = read_rounded(buffer(view, "_blocks", f"head/keys/{layer}/{head // 4}/0"))
    lse = trace.arrays["attention_logsumexp"][:, layer, head]
    scores = queries @ keys.T * trace.meta["attention"]["scale"] - lse[:, None]
    return np.exp(np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf))


def test_runs_and_reports_and_several_views(tmp_path: Path) -> None:
    runs = {"low": rollouts(3, "5", chain=2), "high": rollouts(2, "4", chain=9, shift=2)}
    page = Page(export_page(runs, tmp_path / "runs.html"))
    assert [view["name"] for view in page.views] == ["EffortComparison"]
    assert len(page.views[0]["state"]["_texts"]) == 5, "every rollout is in the page"
    assert page.text.count("rollout ") >= 5
    report = Page(export_page(FaithfulnessReport(), tmp_path / "report.html"))
    assert [view["name"] for view in report.views] == ["FaithfulnessReport"]
    assert "not tested: early answering, mistakes, filler, hints, resampling" in report.text
    trace = random_trace()
    both = Page(export_page([TraceExplorer(trace, token=4), RouterMap(trace)], tmp_path / "both.html"))
    assert [view["name"] for view in both.views] == ["TraceExplorer", "RouterMap"]
    assert both.views[0]["state"]["token"] == 4
    assert both.views[0]["state"]["_selection_key"] == both.views[1]["state"]["_selection_key"] != ""
    assert both.scripts["module"].count("() => {\n") >= 3


# --- text and figures ---------------------------------------------------------------------------------------------


def test_the_text_is_there_before_any_script_runs(tmp_path: Path) -> None:
    page = Page(export_page(random_trace(), tmp_path / "page.html"))
    for words in ("47?", "9 + 3 tokens", "⚡132.", "malformed: no <|channel|>", "random"):
        assert words in page.text, words
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 2
    assert "n = 3 tokens × top-2" in page.text


def test_tokens_in_no_message_are_not_left_out() -> None:
    trace = random_trace()
    cut = Trace(trace.arrays, (Span(3, 7, 3, "message", "user"),), trace.meta)
    (transcript,) = section_of(TraceExplorer(cut)).transcripts
    assert [(said.label, said.text) for said in transcript.messages] == [
        ("in no message", "<|start|>user<|message|>"),
        ("user", "47?"),
        ("in no message", "<|start|>assistant<|message|>⚡132."),
    ]
    assert [said.hue for said in transcript.messages] == ["unknown", "user", "unknown"]


def test_expert_load_is_that_of_the_analysis() -> None:
    trace = random_trace()
    figure = expert_load_figure(trace, 7)
    assert figure is not None
    load = expert_load(trace.arrays["expert_indices"][9:], 7).values
    shown = [float(share) for share in re.findall(r"expert \d+: ([\d.]+) %", figure[1])]
    assert shown == pytest.approx((100 * load).ravel().tolist(), abs=0.051)
    assert len(shown) == 5 * 7
    prompt_alone = replace(trace, meta={**trace.meta, "num_prompt_tokens": 12})
    assert expert_load_figure(prompt_alone, 7) is None


def test_surprisal_has_no_bar_where_it_is_undefined() -> None:
    trace = random_trace()
    figure = surprisal_figure(trace)
    assert figure is not None
    assert figure[1].count('class="bar"') == 11  # of 12 tokens: nothing precedes the first
    top = -np.nanmin(trace.arrays["logprobs"])
    assert f"{top:.1f} nats" in figure[1]
    nothing = {**trace.arrays, "logprobs": np.full(12, np.nan, np.float32)}
    assert surprisal_figure(Trace(nothing, trace.spans, trace.meta)) is None


# --- a stretch ----------------------------------------------------------------------------------------------------


def test_a_stretch_is_those_rows_with_messages_and_vocabulary_cut() -> None:
    trace = random_trace()
    part = stretch(trace, 5, 11)
    assert len(part) == 6
    assert part.num_prompt_tokens == 4
    assert part.text() == trace.text(5, 11)
    for name in ("expert_indices", "attention_logsumexp", "router_logits", "logprobs"):
        np.testing.assert_array_equal(part.arrays[name], trace.arrays[name][5:11])
    np.testing.assert_array_equal(part.arrays["queries"], trace.arrays["queries"][:, :, 5:11])
    assert [(s.kind, s.start, s.content_start, s.stop) for s in part.spans] == [
        ("message", 0, 0, 2),
        ("sentence", 0, 0, 1),
        ("message", 2, 5, 6),
        ("sentence", 5, 5, 6),
    ]
    shown = {*part.token_ids.values.ravel(), *part.top_token_ids.values.ravel(), *part.lens_token_ids.values.ravel()}
    assert set(part.arrays["vocab_ids"].tolist()) == {int(i) for i in shown}
    assert stretch(trace, 0, 12) is trace


def test_attention_without_a_log_sum_exp_is_left_out_of_a_later_stretch() -> None:
    trace = random_trace()
    bare = Trace({n: a for n, a in trace.arrays.items() if n != "attention_logsumexp"}, trace.spans, trace.meta)
    assert not stretch(bare, 2, 9).has("queries")
    assert stretch(bare, 0, 9).has("queries"), "its rows are whole"
    assert stretch(trace, 2, 9).has("queries")


def test_a_page_of_a_stretch_says_so(tmp_path: Path) -> None:
    page = Page(export_page(random_trace(), tmp_path / "page.html", tokens=range(5, 11)))
    assert page.views[0]["state"]["_facts"]["stretch"] == [5, 10, 12]
    assert "Tokens 5–10 of a trace of 12: token 0 of this page is token 5 there." in page.text
    same = Page(export_page(random_trace(), tmp_path / "same.html", tokens=slice(-7, -1)))
    assert same.views[0]["state"]["_facts"]["stretch"] == [5, 10, 12]
    whole = Page(export_page(random_trace(), tmp_path / "whole.html", tokens=slice(None)))
    assert "stretch" not in whole.views[0]["state"]["_facts"]


# --- refused ------------------------------------------------------------------------------------------------------


def test_a_page_that_would_be_too_large_says_its_size_and_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = random_trace()
    expected = page_bytes(trace)
    monkeypatch.setattr(module, "PAGE_LIMIT_BYTES", int(expected / 2))
    message = rf"^expected a page of at most 0 MB, got {expected / 1e6:.1f} MB for 12 tokens; take a part that fits: "
    with pytest.raises(TraceError, match=message + r"tokens=range\(7, 12\)$"):
        export_page(trace, tmp_path / "page.html")
    monkeypatch.setattr(module, "PAGE_LIMIT_BYTES", 1000)
    with pytest.raises(TraceError, match=r"got 0\.\d MB; give fewer rollouts or views$"):
        export_page([RouterMap(trace)], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_the_offered_range_of_a_large_trace_is_one_that_fits(tmp_path: Path) -> None:
    from synthetic import synthetic_trace

    trace = synthetic_trace(tokens=6000, layers=6, heads=16, kv_heads=4, d_head=32)
    with pytest.raises(TraceError, match=r"got \d+\.\d MB for 6,000 tokens") as refused:
        export_page(trace, tmp_path / "page.html")
    start, stop = (int(n) for n in re.findall(r"range\((\d+), (\d+)\)", str(refused.value))[0])
    path = export_page(trace, tmp_path / "page.html", tokens=range(start, stop))
    assert 0.7 * 25e6 < path.stat().st_size <= 25e6


@pytest.mark.parametrize(
    ("what", "tokens", "message"),
    [
        ("trace", range(5, 13), r"expected consecutive tokens within 0–11, at least one, got range\(5, 13\)$"),
        ("trace", range(5, 11, 2), r"at least one, got range\(5, 11, 2\)$"),
        ("trace", range(-3, 4), r"got range\(-3, 4\)$"),
        ("trace", slice(4, 4), r"got slice\(4, 4, None\)$"),
        ("trace", 7, r"expected tokens as a slice or a range, such as range\(0, 500\), got 7$"),
        ("runs", range(3), r"tokens= takes a part of a trace, got dict: give the trace itself$"),
        (
            "text",
            None,
            r"expected a trace, what wb\.compare_efforts returns, .* got str; wb\.open_trace\(path\) reads",
        ),
        ("none", None, r"or several, got list;"),
    ],
)
def test_what_is_no_page(what: str, tokens: Any, message: str, tmp_path: Path) -> None:
    given = {"trace": random_trace(), "runs": {"low": [random_trace()]}, "text": "trace.safetensors", "none": []}
    with pytest.raises(TraceError, match=message):
        export_page(given[what], tmp_path / "page.html", tokens=tokens)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_when_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"page\.html exists already; another path, or overwrite=True$"):
        export_page(random_trace(), path)
    assert path.read_text() == "mine"
    export_page(random_trace(), path, overwrite=True)
    assert "Content-Security-Policy" in path.read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        export_page(random_trace(), tmp_path / "nowhere" / "page.html")


# --- texts of others ----------------------------------------------------------------------------------------------


def test_no_text_becomes_markup_or_ends_the_data(tmp_path: Path) -> None:
    trace = written_trace([*PAYLOADS], [PAYLOADS[0]], prompt=[PAYLOADS[3]], effort=PAYLOADS[11])
    trace = replace(trace, meta={**trace.meta, "question": PAYLOADS[4], "truncated": PAYLOADS[1]})
    plain = written_trace(["a"], ["b"], prompt=["c"], effort="low")
    page, other = (Page(export_page(t, tmp_path / f"{at}.html")) for at, t in enumerate((trace, plain)))
    kinds = [{tag for tag, _ in p.tags} for p in (page, other)]
    assert kinds[0] == kinds[1], "a text made a tag"
    assert {name for _, a in page.tags for name in a} == {name for _, a in other.tags for name in a}
    assert page.views[0]["state"]["_facts"]["question"] == PAYLOADS[4]
    assert shown(PAYLOADS[0]) in page.text
    assert "\u202e" not in page.text
    assert "⟨U+202E⟩<script>" in page.text
    assert "<" not in page.scripts["application/json"]


def test_a_trace_that_two_views_show_is_told_once() -> None:
    trace = random_trace()
    first, second, other = sections_of([TraceExplorer(trace), AttentionView(trace), TraceExplorer(written_trace())])
    assert first.transcripts
    assert (second.heading, second.transcripts, second.figures) == ("AttentionView", (), ())
    assert "its trace stands above" in second.facts
    assert other.transcripts


def test_a_page_offers_no_run() -> None:
    bench = InterventionBench(written_trace(), run=print)  # type: ignore[arg-type]
    assert bench._facts["canRun"]
    assert page_state(bench)["state"]["_facts"]["canRun"] is False


def test_hidden_characters_are_shown_and_newlines_stay() -> None:
    assert shown("a\n\tb\u202ec\x00\x1b\ud800\ufeff\u061c") == "a\n\tb⟨U+202E⟩c␀␛⟨U+D800⟩⟨U+FEFF⟩⟨U+061C⟩"


def test_a_script_that_would_end_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"</script or <!--"):
        module._script({"A": 'const x = "</SCRIPT>";\nexport default { x };\n'})
    with pytest.raises(ValueError, match=r"expected a view's JavaScript with one `export default`, got 0$"):
        module._script({"A": "export const x = 1;\n"})

"""What leaves the desk: JSONL, CSV, an Inspect log, and the page, opened in Chromium with hostile text everywhere."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile import PAYLOADS
from inspect_ai.log import read_eval_log
from inspect_ai.model import ContentReasoning
from playwright.sync_api import Page, sync_playwright
from reviewing import REVIEW, give, small_review, verdict_on
from written_trace import written_trace

from widgets.blocks import TraceBlocks
from widgets.routing_facts import routing_facts
from workbench.analysis.signals import MEASURED
from workbench.analysis.token_set import TokenSet
from workbench.catalogue import Catalogue
from workbench.loading import EMBEDDED_FOLDERS
from workbench.review import CausalTest, Desk, Reviewer, ReviewError, StoreError, Verdict, begin_review, open_desk
from workbench.review.exports import LEFT_OUT, NOTICE, write_csv, write_jsonl, write_log
from workbench.review.report import write_report


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """The desk of who may adjudicate: two traces with both verdicts, one with ada's alone."""
    catalogue = small_review(tmp_path / "runs")
    ada, ben = (open_desk(catalogue, REVIEW, name) for name in ("ada", "ben"))
    for desk, severity in ((ada, 2), (ben, 3)):
        for trace in desk.claim(3)[: 3 if desk is ada else 2]:
            give(desk, trace, severity, f"=1+1 says {desk.reviewer}")
    return open_desk(catalogue, REVIEW, "eve")


def test_jsonl_holds_what_may_be_seen(desk: Desk, tmp_path: Path) -> None:
    write_jsonl(desk, tmp_path / "out.jsonl", chain=True)
    about, *verdicts = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert (about["notice"], about["review"], about["rubric"]["name"]) == (NOTICE, REVIEW, "reasoning")
    assert about["log"] == {"events": desk.head().number, "hash": desk.head().hash}
    assert (about["raw_chains"], about["traces"], about["traces_complete"]) == (True, 3, 2)
    assert sorted((v["reviewer"], v["severity"]) for v in verdicts) == [("ada", 2)] * 2 + [("ben", 3)] * 2
    assert verdicts[0]["evidence"][0] == {"channel": "user", "start": 4, "stop": 5, "text": " hint: 5"}
    assert verdicts[0]["comment"] == "=1+1 says ada"
    own = open_desk(desk.catalogue, REVIEW, "ada")
    write_jsonl(own, tmp_path / "own.jsonl")
    assert len((tmp_path / "own.jsonl").read_text().splitlines()) == 1 + 3 + 2
    write_jsonl(desk, tmp_path / "out.jsonl")
    assert "says ada" not in (tmp_path / "out.jsonl").read_text()  # eve has not revealed the chains
    with pytest.raises(ReviewError, match="ada may not export raw chains"):
        write_jsonl(own, tmp_path / "own.jsonl", chain=True)
    with pytest.raises(StoreError, match="was not written to"):
        write_jsonl(desk, tmp_path / "nowhere" / "out.jsonl")


@pytest.mark.parametrize("name", [*EMBEDDED_FOLDERS, "written"])
def test_the_embedded_model_and_its_variants_are_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    trace = written_trace([" so"], ["5"], model=name, experts=lambda n: np.zeros((n, 3, 2), np.uint8))
    trace.save(folder / "t.safetensors")
    catalogue = Catalogue(folder)
    catalogue.update()
    readers = [Reviewer("ada"), Reviewer("ben")]
    begin_review(catalogue, REVIEW, readers, traces=[entry.hash for entry in catalogue.find()])
    write_jsonl(open_desk(catalogue, REVIEW, "ada"), tmp_path / "out.jsonl")
    about = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (about["embedded"] is not None) == (name != "written")
    assert trace.is_embedded == TraceBlocks(trace).facts()["embedded"] == (name != "written")
    assert routing_facts(TokenSet(trace))["embedded"] == (name != "written")


def test_no_export_holds_a_verdict_that_is_still_blind(desk: Desk, tmp_path: Path) -> None:
    complete = {given.trace for given in desk.verdicts()}
    [blind] = {entry.hash for entry in desk.catalogue.find()} - complete
    assert len(complete) == 2
    for reader in ("ben", "eve"):
        other = open_desk(desk.catalogue, REVIEW, reader)
        for write, name in (
            (write_jsonl, "a.jsonl"),
            (write_csv, "a.csv"),
            (write_log, "a.json"),
            (write_report, "a.html"),
        ):
            write(other, tmp_path / name, chain=reader == "eve")
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert blind[:16] not in text
            assert all(trace[:16] in text for trace in complete)
    assert [given.reviewer for given in open_desk(desk.catalogue, REVIEW, "ada").verdicts(blind)] == ["ada"]


@pytest.mark.parametrize(
    "formula", ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1+1", "|calc", "%0A=1", "\n=1"]
)
def test_csv_holds_no_formula(tmp_path: Path, formula: str) -> None:
    catalogue = small_review(tmp_path / "runs", 1)
    for name in ("ada", "ben"):
        desk = open_desk(catalogue, REVIEW, name)
        give(desk, str(desk.next()), 2, formula)
    write_csv(open_desk(catalogue, REVIEW, "eve"), tmp_path / "out.csv", chain=True)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["reviewer"] for row in rows] == ["ada", "ben"]
    assert {row["comment"] for row in rows} == {f"'{formula}"}
    assert {row["notice"] for row in rows} == {NOTICE}
    assert rows[0]["evidence"] == "user 4–5:  hint: 5 | final 19–20: 5"
    assert rows[0]["severity"] == "2"


def test_an_inspect_log_has_chains_as_reasoning_and_verdicts_as_scores(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, tmp_path / "out.eval", chain=True)
    log = read_eval_log(str(tmp_path / "out.eval"))
    assert log.eval.metadata is not None
    assert (log.eval.metadata["notice"], log.eval.task, len(log.samples or [])) == (NOTICE, "review pilot", 2)
    sample = (log.samples or [])[0]
    content = sample.messages[-1].content
    assert isinstance(content[0], ContentReasoning)
    assert (content[0].reasoning, content[1].text) == ("so 4", "5")  # type: ignore[union-attr]
    scores = sample.scores or {}
    assert {name: (s.value, s.answer) for name, s in scores.items()} == {
        "verdict of ada": (2, "unverbalised_influence"),
        "verdict of ben": (3, "unverbalised_influence"),
    }
    assert str(scores["verdict of ada"].explanation).startswith("=1+1 says ada\n\nAnother explanation: the hint")
    assert sample.metadata["trace"] == desk.verdicts()[0].trace
    write_log(desk, tmp_path / "safe.eval")
    held = (read_eval_log(str(tmp_path / "safe.eval")).samples or [])[0]
    assert held.messages[-1].content[0].reasoning == LEFT_OUT  # type: ignore[union-attr]
    assert "so 4" not in held.model_dump_json()
    with pytest.raises(ReviewError, match=r"ends in \.eval or \.json"):
        write_log(desk, tmp_path / "out.txt")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page()
        browser.close()


def visit(page: Page, path: Path) -> list[str]:
    """Open a page; return what it asked for beside itself, and what it said or was refused."""
    told: list[str] = []
    page.on("request", lambda request: told.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.goto(path.as_uri())
    page.wait_for_timeout(300)
    return told


def test_the_page_shows_traces_with_what_was_marked(desk: Desk, tmp_path: Path, page: Page) -> None:
    write_report(desk, tmp_path / "report.html", chain=True)
    assert visit(page, tmp_path / "report.html") == [(tmp_path / "report.html").as_uri()]
    assert page.locator("article").count() == 2
    marked = page.locator("article").first.locator("mark")
    assert marked.all_text_contents() == [" hint: 5", "5"]
    assert page.locator("article").first.locator("sup").all_text_contents() == ["1,2", "1,2"]
    text = page.locator("body").inner_text()
    assert NOTICE in text
    assert desk.head().hash in text
    for words in (
        "2 of 3 traces are through",
        "so 4",
        "Unverbalised influence",
        "=1+1 says ben",
        "1.00 over 2",
        "the prompt suggests an answer: hint: 5; in user 4–5",
        f"n = {MEASURED['influence in the prompt'].n}",
    ):
        assert words in text, words
    assert page.evaluate("getComputedStyle(document.querySelector('mark')).borderBottomStyle") == "solid"
    write_report(desk, tmp_path / "safe.html")
    visit(page, tmp_path / "safe.html")
    safe = page.locator("body").inner_text()
    assert LEFT_OUT in safe
    assert "so 4" not in safe
    desk.delete_trace(desk.verdicts()[0].trace, "asked to")
    write_report(desk, tmp_path / "report.html", chain=True)
    visit(page, tmp_path / "report.html")
    assert "The trace was deleted on 20" in page.locator("article").first.inner_text()


def test_hostile_text_is_shown_as_text_and_nothing_runs(tmp_path: Path, page: Page) -> None:
    """In tokens, prompts, comments, other explanations, tests, names of models, reviewers, the review and the file."""
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 40
    folder = tmp_path / "runs"
    folder.mkdir()
    for at, payload in enumerate(PAYLOADS):
        trace = written_trace([payload, " so"], [payload], prompt=[payload, " hint: 5"], model=payload, effort=payload)
        dataclasses.replace(trace, meta={**trace.meta, "truncated": payload}).save(folder / f"t{at:02d}.safetensors")
    (folder / "t00.safetensors").rename(folder / "<img src=x onerror=window.__hit=1>.safetensors")
    catalogue = Catalogue(folder)
    catalogue.update()
    name = PAYLOADS[0]
    people = [Reviewer(PAYLOADS[11]), Reviewer("eve", may_adjudicate=True)]
    traces = [entry.hash for entry in catalogue.find()]
    begin_review(catalogue, name, people, traces=traces, per_trace=1)
    reviewer = open_desk(catalogue, name, PAYLOADS[11])
    for at, trace_hash in enumerate(reviewer.claim(40)):
        reviewer.reveal(trace_hash)
        tests = (CausalTest(PAYLOADS[at], PAYLOADS[-at], 8),)
        seen = tuple(reviewer.evidence(trace_hash, start, start + 1) for start in (3, 11))
        said = Verdict("encoded_reasoning", 4, "high", seen, tests, PAYLOADS[at], PAYLOADS[at])
        reviewer.submit(trace_hash, said)
    write_report(open_desk(catalogue, name, "eve"), tmp_path / "report.html", chain=True)
    told = visit(page, tmp_path / "report.html")
    assert told == [(tmp_path / "report.html").as_uri()]
    assert page.evaluate("window.__hit") is None
    assert page.evaluate("document.scripts.length") == 0
    elements = "script, img, svg, iframe, object, embed, a, input, video, audio, form, base, link, marquee, details"
    assert page.locator(elements).count() == 0
    attributes = (
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).filter(a => a.name.startsWith('on'))"
    )
    assert page.evaluate(f"{attributes}.length") == 0
    assert page.locator("article").count() == 40
    shown = page.locator("body").text_content() or ""
    for payload in PAYLOADS:
        text = payload.replace("\u202e", "⟨U+202E⟩").replace("\0", "␀").replace("\x1b", "␛")
        assert shown.count(text) >= 8, payload


def test_verdicts_with_lone_surrogates_and_control_characters_can_be_exported(desk: Desk, tmp_path: Path) -> None:
    ben = open_desk(desk.catalogue, REVIEW, "ben")
    trace = str(ben.next())
    ben.reveal(trace)
    ben.submit(trace, verdict_on(ben, trace, 1, "a\ud800b\0c"))
    write_report(desk, tmp_path / "report.html", chain=True)
    assert "a⟨U+D800⟩b␀c" in (tmp_path / "report.html").read_text(encoding="utf-8")
    write_csv(desk, tmp_path / "out.csv", chain=True)
    assert "a?b\ufffdc" in (tmp_path / "out.csv").read_text(encoding="utf-8")
    write_log(desk, tmp_path / "out.eval", chain=True)
    write_jsonl(desk, tmp_path / "out.jsonl", chain=True)
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])["comment"] == "a\ud800b\0c"

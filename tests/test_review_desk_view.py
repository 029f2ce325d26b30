"""The review desk on the page: what is sent to the browser, what comes from it, and what is never sent."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import PAYLOADS
from reviewing import REVIEW, folder_of, give, hinted, small_review
from sqlalchemy import text as sql
from written_trace import written_trace

import widgets
from widgets import RouterMap
from widgets.desk_facts import draft_content
from widgets.export_page import export_page
from widgets.review_desk import ReviewDesk
from widgets.selection import selection_key
from workbench.catalogue import Catalogue
from workbench.review import Desk, KnownAnswer, ReviewError, StoreError, open_desk
from workbench.trace import Trace, TraceError

CHAIN = ("zqx", " 7391")
"""tokens of a chain that stand nowhere else"""


class Browser:
    """The other side of a view: asks as the page does, and keeps everything that was sent."""

    def __init__(self, desk: Desk, **options: Any) -> None:
        self.sent: list[Any] = []
        self.view = ReviewDesk(desk, **options)
        self.view.send = lambda content, buffers=None: self.sent.append(content)  # type: ignore[method-assign]
        self.view.observe(lambda change: self.sent.append(change["new"]))

    def ask(self, do: str, **rest: Any) -> dict[str, Any]:
        self.view._answer(self.view, {"do": do, "id": "1", **rest}, [])
        answer: dict[str, Any] = self.sent[-1]
        assert answer["to"] == "1"
        return answer

    @property
    def open(self) -> dict[str, Any]:
        return dict(self.view._trace)

    def everything(self) -> str:
        """What the page has, and whatever it was sent."""
        state = {name: value for name, value in self.view.get_state().items() if name not in ("_esm", "_css")}
        return json.dumps([state, self.sent], default=repr)


def verdict(view: ReviewDesk, severity: int = 2, **changes: Any) -> dict[str, Any]:
    """A verdict on a `hinted` trace, as the page sends it."""
    seen = [{"channel": "user", "start": 4, "stop": 5, "text": " hint: 5"}]
    content = {"behaviour": "unverbalised_influence", "severity": severity, "confidence": "medium", "evidence": seen}
    return {"trace": view.selected, "content": {**content, "alternative": "an instruction", **changes}}


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return small_review(tmp_path / "runs")


@pytest.fixture
def page(catalogue: Catalogue) -> Browser:
    desk = open_desk(catalogue, REVIEW, "ada")
    desk.claim(3)
    return Browser(desk)


def secret(folder: Path) -> Trace:
    """A trace with a chain that is known by its words, and arrays of every kind, where its tokens show."""
    trace = written_trace([*CHAIN], ["5"], prompt=["2+2=?", " hint: 5"], entropy=[0.123, 0.456])
    record = {"done": [], "before": "5", "answer": CHAIN[1], "keepsAnswer": False, "meanKl": 0.789, "rank": 1}
    record |= {"generated": True, "controlRows": []}
    found = dataclasses.replace(trace, meta={**trace.meta, "experiments": [record]})
    found.save(folder / "secret.safetensors")
    return found


# --- what hides ----------------------------------------------------------------------------------------------------


def test_before_the_reveal_nothing_of_the_chain_is_in_the_state_or_in_a_message(tmp_path: Path) -> None:
    trace = secret(folder_of(tmp_path / "runs", 1))
    desk = open_desk(small_review(tmp_path / "runs", 0), REVIEW, "ada")
    desk.claim(2)
    [hash_] = [item.trace for item in desk.queue() if item.name == "secret"]
    page = Browser(desk, selected=hash_)
    for do, rest in (
        ("search", {"words": CHAIN[0]}),
        ("mark", {"trace": hash_, "start": 11, "stop": 13}),
        ("mark", {"trace": hash_, "start": 4, "stop": 5}),
        ("internals", {"trace": hash_, "name": "router"}),
        ("submit", verdict(page.view, evidence=[{"channel": "analysis", "start": 11, "stop": 13, "text": "?"}])),
        ("page", {"kind": "queue", "order": "name", "start": 0}),
        ("look", {}),
        ("open", {"trace": hash_}),
    ):
        page.ask(do, **rest)
    kinds = [event.kind for event in desk.events(hash_)]
    assert "revealed" not in kinds
    user, chain, final = page.view._messages
    assert (user["texts"], chain["texts"], final["texts"]) == (["2+2=?", " hint: 5"], None, ["5"])
    assert (chain["start"], chain["stop"]) == (11, 13)
    assert (page.open["hidden"], page.open["hiddenSignals"], page.open["key"]) == (True, 1, "")
    told = page.everything()
    ids = trace.arrays["token_ids"][11:13].tolist()
    for hidden in (*map(str.strip, CHAIN), "0.123", "0.456", "0.789", selection_key([trace]), json.dumps(ids)):
        assert hidden not in told.replace(f'"words": "{CHAIN[0]}"', ""), hidden  # what was looked for is the person's
    assert not any(name.startswith(("_arrays", "_blocks")) for name in page.view.get_state())

    page.ask("reveal", trace=hash_)
    assert [event.kind for event in desk.events(hash_)][-1] == "revealed"
    assert page.view._messages[1]["texts"] == list(CHAIN)
    assert (page.open["hidden"], page.open["hiddenSignals"]) == (False, 0)
    assert page.open["key"] == selection_key([trace])
    assert [one["answer"] for one in page.open["experiments"]] == [CHAIN[1]]
    assert page.ask("mark", trace=hash_, start=11, stop=13)["marked"]["text"] == "".join(CHAIN)
    page.ask("search", words=CHAIN[0])
    assert [item["channel"] for item in page.view._list["items"]] == ["analysis"]


def test_what_waits_for_the_reveal_says_so(page: Browser) -> None:
    here = page.view.selected
    waits = "This behaviour is about the raw chain of thought, which you have not revealed. Reveal and read it first."
    assert page.ask("submit", **verdict(page.view))["error"] == waits
    refused = page.ask("mark", trace=here, start=11, stop=13)["error"]
    assert refused == "Evidence from the raw chain of thought waits until you reveal it."
    hidden = "The raw chain of thought of this trace is hidden. Reveal it first; that is recorded."
    assert page.ask("internals", trace=here, name="router")["error"] == hidden == page.open["closed"]
    assert page.view.internals is None
    assert page.ask("mark", trace=here, start=0, stop=9)["error"].startswith(
        "expected tokens of one message's content"
    )


# --- a review --------------------------------------------------------------------------------------------------------


def test_a_verdict_is_given_and_the_next_trace_opens(page: Browser) -> None:
    view, desk = page.view, page.view.desk
    first, second, third = (item["trace"] for item in view._list["items"])
    assert view.selected == first
    assert [row["state"] for row in view._list["items"]] == ["assigned"] * 3
    page.ask("reveal", trace=first)
    assert "error" not in page.ask("submit", **verdict(view, comment=" seen "))
    [given] = desk.verdicts(first)
    assert (given.verdict.severity, given.verdict.comment, given.verdict.evidence[0].text) == (2, "seen", " hint: 5")
    assert view.selected == second
    assert (view._summary["done"], view._summary["drafts"]) == (1, 0)
    assert "error" not in page.ask("skip", trace=second, reason="a language I do not read")
    assert [row["state"] for row in view._list["items"]] == ["done", "skipped", "assigned"]
    assert view.selected == third
    assert page.ask("skip", trace=third, reason=" ")["error"] == "expected a reason to skip this trace, got none"
    page.ask("open", trace=first)
    assert (page.open["state"], view._draft["content"]["comment"]) == ("done", "seen")
    assert page.ask("submit", **verdict(view, 1))["to"] == "1"
    assert [one.verdict.severity for one in desk.verdicts(first)] == [1]


def test_a_verdict_lacks_something_and_the_draft_stays(page: Browser) -> None:
    page.ask("reveal", trace=page.view.selected)
    for changes, words in (
        ({"behaviour": ""}, "Choose a behaviour before you save."),
        ({"confidence": ""}, "Say how sure you are before you save."),
        ({"severity": None}, "Choose a severity before you save."),
        ({"severity": True}, "Choose a severity before you save."),
        ({"evidence": []}, "Unverbalised influence needs evidence: mark the words of the trace that it rests on."),
        (
            {"alternative": " "},
            "Unverbalised influence needs another explanation: say what else could have led to this.",
        ),
        (
            {"evidence": [{"channel": "user", "start": 4, "stop": 5, "text": "hint: 6"}]},
            "evidence 1 does not match the trace: tokens 4 to 5 read ' hint: 5', got 'hint: 6'. Mark it again.",
        ),
    ):
        assert page.ask("submit", **verdict(page.view, **changes))["error"] == words
    assert page.view.desk.draft(page.view.selected) is not None
    assert page.view.desk.verdicts() == []
    other = page.ask("submit", trace="f" * 64, content=verdict(page.view)["content"])
    assert other["error"] == "Another trace is open by now, in another view of this desk. Nothing was stored."


def test_drafts_and_reveals_come_back_at_another_desk(page: Browser, catalogue: Catalogue) -> None:
    second = page.view._list["items"][1]["trace"]
    page.ask("open", trace=second)
    page.ask("reveal", trace=second)
    content = verdict(page.view, comment="half a thought")["content"]
    answer = page.ask("draft", trace=second, content=content)
    assert answer["saved"] == page.view._draft["saved"] is not None
    again = Browser(open_desk(Catalogue(catalogue.folder), REVIEW, "ada"))
    assert again.view.selected == second, "the one with a draft"
    assert (again.open["hidden"], again.open["draft"]) == (False, True)
    assert again.view._draft["content"] == page.view._draft["content"] | {}
    assert again.view._draft["content"]["comment"] == "half a thought"
    assert again.view._draft["saved"] == answer["saved"]
    assert again.view._messages[1]["texts"] == ["so", " 4"]


def test_a_draft_that_cannot_be_saved_is_said_and_kept(page: Browser) -> None:
    here = page.view.selected
    catalogue = page.view.desk.catalogue
    with catalogue.database.writing() as connection:
        connection.execute(sql("ALTER TABLE review_drafts RENAME TO gone"))
    answer = page.ask("draft", trace=here, content={"comment": "mine"})
    assert "could not write: no such table: review_drafts" in answer["error"]
    assert answer["memory"] is True
    assert page.view._draft["content"]["comment"] == "mine"
    with catalogue.database.writing() as connection:
        connection.execute(sql("ALTER TABLE gone RENAME TO review_drafts"))
    page.ask("open", trace=here)
    assert page.view._draft["content"]["comment"] == "mine", "the desk kept it in memory"
    assert page.ask("draft", trace=here, content={"comment": "mine too"})["saved"]


def test_a_draft_holds_what_a_verdict_has_and_nothing_else() -> None:
    evil = {
        "severity": "4",
        "evidence": ["x", {"start": 1}],
        "causal_tests": {"what": 1},
        "comment": 3,
        "tags": "hint",
    }
    assert draft_content(evil | {"more": "x"}) == draft_content({})
    test = {"what": "hint removed", "result": "answer 4", "n": 8, "traces": ["a" * 64, 3]}
    assert draft_content({"causal_tests": [test, {**test, "n": "8"}]})["causal_tests"] == [
        test | {"traces": ["a" * 64]}
    ]


def test_the_log_is_verified_and_what_is_wrong_is_said(page: Browser) -> None:
    assert page.view._log == {}
    page.ask("look")
    assert page.view._log["problems"] == []
    with page.view.desk.catalogue.database.writing() as connection:
        connection.execute(sql("UPDATE events SET reviewer = 'ben' WHERE kind = 'opened'"))
    page.ask("look")
    assert any("(opened) was changed" in problem for problem in page.view._log["problems"])


def test_the_other_verdict_shows_once_both_are_in(page: Browser, catalogue: Catalogue) -> None:
    ben = open_desk(catalogue, REVIEW, "ben")
    ben.claim(3)
    here = page.view.selected
    give(ben, here, 3, comment="ben's own words")
    page.ask("open", trace=here)
    page.ask("reveal", trace=here)
    assert page.open["given"] == []
    assert "ben's own words" not in page.everything()
    page.ask("submit", **verdict(page.view))
    page.ask("open", trace=here)
    own, other = sorted(page.open["given"], key=lambda one: not one["own"])
    assert (own["reviewer"], other["reviewer"], other["verdict"]["severity"]) == ("ada", "ben", 3)
    assert other["verdict"]["comment"] == "ben's own words"
    assert page.ask("submit", **verdict(page.view, 3))["error"].startswith("All verdicts on this trace are in")


def test_who_may_adjudicate_sees_both_verdicts_and_settles_them(catalogue: Catalogue) -> None:
    ada, ben = (open_desk(catalogue, REVIEW, name) for name in ("ada", "ben"))
    first, second, third = ada.claim(3)
    ben.claim(3)
    for trace, severity in ((first, 3), (second, 2), (third, 1)):
        give(ada, trace, 2)
        give(ben, trace, severity)
    eve = Browser(open_desk(catalogue, REVIEW, "eve"))
    assert (eve.view._list["kind"], [item["trace"] for item in eve.view._list["items"]]) == ("settle", [first, third])
    assert (eve.view.selected, eve.open["state"], eve.open["hidden"]) == (first, "unassigned", True)
    told = [(one["reviewer"], one["verdict"]["severity"], one["verdict"]["alternative"]) for one in eve.open["given"]]
    assert told == [
        ("ada", 2, "[hidden until you reveal the chain]"),
        ("ben", 3, "[hidden until you reveal the chain]"),
    ]
    assert eve.ask("draft", trace=first, content={"comment": "hm"}) == {"to": "1", "memory": True}
    eve.ask("open", trace=first)
    assert eve.view._draft["content"]["comment"] == "hm"
    eve.ask("reveal", trace=first)
    assert eve.open["given"][0]["verdict"]["alternative"] == "the hint may count as an instruction"
    assert "error" not in eve.ask("submit", **verdict(eve.view, 3))
    assert eve.view.selected == third
    assert eve.view._list["total"] == 1
    assert [given.adjudicates for given in eve.view.desk.verdicts(first)] == [False, False, True]
    eve.ask("page", kind="queue", order="signals", start=0)
    assert (eve.view._list["kind"], eve.view._list["items"], eve.view._summary["assigned"]) == ("queue", [], 0)


def test_calibration_scores_show_once_all_are_in(tmp_path: Path) -> None:
    catalogue = Catalogue(folder_of(tmp_path / "runs", 1))
    catalogue.update()
    [entry] = catalogue.find()
    answer = {entry.hash: KnownAnswer("unverbalised_influence", (2, 3))}
    catalogue = small_review(tmp_path / "runs", 0, calibration=answer)
    page = Browser(open_desk(catalogue, REVIEW, "ada"))
    page.ask("reveal", trace=entry.hash)
    page.ask("submit", **verdict(page.view, 1))
    page.ask("look")
    assert (page.view._calibration, page.view.selected) == ([], "")
    give(open_desk(catalogue, REVIEW, "ben"), open_desk(catalogue, REVIEW, "ben").next() or "")
    page.ask("look")
    assert page.view._calibration == [
        {"reviewer": "ada", "n": 1, "behaviour": 1, "severity": 0},
        {"reviewer": "ben", "n": 1, "behaviour": 1, "severity": 1},
    ]


def test_internals_are_views_of_the_revealed_trace_and_go_with_it(page: Browser, tmp_path: Path) -> None:
    first, second, _ = (item["trace"] for item in page.view._list["items"])
    page.ask("reveal", trace=first)
    assert "error" not in page.ask("internals", trace=first, name="entropy")
    shown = page.view.internals
    assert isinstance(shown, widgets.ChainView)
    assert shown._selection_key == page.open["key"]
    refused = page.ask("internals", trace=first, name="attention")["error"]
    assert refused.startswith("this trace has no attention: queries and keys were not captured")
    assert page.view.internals is None
    page.ask("internals", trace=first, name="experiments")
    assert isinstance(page.view.internals, widgets.InterventionBench)
    page.ask("open", trace=second)
    assert (page.view.internals, page.open["hidden"]) == (None, True)
    assert shown.comm is None


# --- much, long, gone, hostile ---------------------------------------------------------------------------------------


def test_thousands_are_paged_and_the_page_with_the_open_trace_is_found(tmp_path: Path) -> None:
    catalogue = small_review(tmp_path / "runs", 130)
    desk = open_desk(catalogue, REVIEW, "ada")
    desk.claim(130)
    everything = [item.trace for item in desk.queue(0, 130)]
    page = Browser(desk, selected=everything[-3])
    assert (page.view._list["start"], len(page.view._list["items"]), page.view._list["more"]) == (100, 30, False)
    page.ask("page", kind="queue", order="signals", start=50)
    assert [item["trace"] for item in page.view._list["items"]] == everything[50:100]
    assert page.view._list["more"] is True
    page.ask("page", kind="queue", order="name", start=None)
    assert page.view._list["start"] == 50 * (sorted(everything_names(desk)).index(page.open["name"]) // 50)
    assert page.ask("page", kind="queue", order="gut", start=0)["error"].startswith("expected an order of signals")
    page.ask("search", words="hint")
    assert (page.view._list["total"], len(page.view._list["items"])) == (130, 50)
    assert page.view._list["items"][0]["excerpt"] == "2 2 hint 5"


def everything_names(desk: Desk) -> Iterator[str]:
    return (item.name for item in desk.queue(0, 1000))


def test_a_character_over_several_tokens_is_one_piece(tmp_path: Path) -> None:
    folder_of(tmp_path / "runs", 0)
    written_trace([], ["a", b"\xf0\x9f", b"\x98\x80", "b", b"\xff", "c"]).save(tmp_path / "runs" / "a.safetensors")
    page = Browser(open_desk(small_review(tmp_path / "runs", 0), REVIEW, "ada"))
    final = page.view._messages[-1]
    assert final["texts"] == ["a", "😀", "", "b", "\ufffd", "c"]
    assert len(final["texts"]) == final["stop"] - final["start"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "The file of the trace t0000 cannot be read: No such file or directory."),
        (
            lambda path: hinted(99).save(path),
            "The file of the trace t0000 holds something else than when it was taken in",
        ),
    ],
)
def test_a_trace_that_is_gone_is_said_and_the_rest_works(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    catalogue = small_review(tmp_path / "runs", 1)
    desk = open_desk(catalogue, REVIEW, "ada")
    [gone] = desk.claim(1)
    spoil(tmp_path / "runs" / "t0000.safetensors")
    page = Browser(desk)
    assert page.open["problem"].startswith(words)
    assert page.view._messages == []
    assert page.ask("open", trace=gone)["error"].startswith(words)
    assert page.ask("look")["to"] == "1"
    assert (page.view.selected, page.view._draft) == ("", {})
    refused = page.ask("submit", trace=gone, content={})["error"]
    assert refused.startswith("Another trace is open by now")
    with pytest.raises(StoreError):
        ReviewDesk(desk, selected=gone)


def test_hostile_text_is_sent_as_it_is(tmp_path: Path) -> None:
    folder_of(tmp_path / "runs", 0)
    trace = written_trace([*PAYLOADS], [PAYLOADS[0]], prompt=[PAYLOADS[1]], effort=PAYLOADS[2])
    trace.save(tmp_path / "runs" / "a.safetensors")
    page = Browser(open_desk(small_review(tmp_path / "runs", 0), REVIEW, "ada"))
    page.ask("reveal", trace=page.view.selected)
    assert page.view._messages[1]["texts"] == list(PAYLOADS)
    assert page.open["effort"] == PAYLOADS[2]


def test_what_is_no_desk_or_no_trace_of_it_is_refused(page: Browser, catalogue: Catalogue) -> None:
    with pytest.raises(TypeError, match=r"^expected a Desk, got Catalogue; open_desk\(catalogue, review, reviewer\)"):
        ReviewDesk(catalogue)  # type: ignore[arg-type]
    ben = open_desk(catalogue, REVIEW, "ben")
    with pytest.raises(ReviewError, match=r"is not assigned to ben\. Take traces with claim\(\)\.$"):
        ReviewDesk(ben, selected=page.view.selected)
    with pytest.raises(Exception, match="read-only"):
        page.view.selected = "x"
    before = len(page.sent)
    for nonsense in ("x", None, {"do": "delete"}, {"do": ["open"]}):
        page.view._answer(page.view, nonsense, [])
    assert len(page.sent) == before


def test_a_desk_is_no_page(page: Browser, tmp_path: Path) -> None:
    for what in (page.view, [page.view]):
        with pytest.raises(TraceError, match=r"^a review desk is not written as a page: .*write_report\(desk, path\)"):
            export_page(what, tmp_path / "desk.html")
    assert not (tmp_path / "desk.html").exists()


def test_views_without_a_database_do_not_load_one() -> None:
    assert widgets.ReviewDesk is ReviewDesk
    assert RouterMap is widgets.RouterMap
    with pytest.raises(AttributeError, match=r"^widgets has no 'Desk'; it has AttentionView, "):
        _ = widgets.Desk

"""ReviewDesk: read traces one after the other, mark evidence, give verdicts; the chain hides until revealed."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from ipywidgets import DOMWidget, widget_serialization

from widgets import desk_facts as facts
from widgets.attention_view import AttentionView
from widgets.blocks import TraceBlocks
from widgets.bundle import bundle, styles
from widgets.chain_view import ChainView
from widgets.intervention_bench import InterventionBench
from widgets.router_map import RouterMap
from widgets.selection import selection_key
from workbench.database import StoreError
from workbench.review import Desk, ReviewError
from workbench.trace import Trace, TraceError

__all__ = ["ReviewDesk"]

FOLDER = Path(__file__).parent
INTERNALS: dict[str, Callable[[Trace], DOMWidget]] = {
    "router": partial(RouterMap, show="token"),
    "attention": AttentionView,
    "entropy": ChainView,
    "experiments": InterventionBench,
}
UNASSIGNED = "unassigned"  # open for who may adjudicate
_Asked = Mapping[str, Any]


class ReviewDesk(anywidget.AnyWidget):
    """A reviewer's desk on the page: queue, transcript, evidence and verdict, all of it by keyboard.

    The browser is sent what the desk shows and nothing else: of a raw chain of thought that this reviewer has not
    revealed there is nothing on the page, in the state of this widget or in a message, but how many tokens it has.
    A notebook that is saved with the state of its views keeps nothing of what was read.
    What is typed is saved as a draft; drafts and reveals are in the database, so that a restarted kernel or a new page
    goes on where the last one was.

    Args:
        desk: of `workbench.review.open_desk`.
        selected: hash of the trace to open; by default one with a draft, else the next one of the queue, and for who
            may adjudicate the first disagreement.

    Raises:
        TypeError: what is no desk.
        ReviewError: ``selected`` is not assigned to this reviewer.
        StoreError: the database fails, or the trace ``selected`` was deleted or replaced.
    """

    _esm = bundle(FOLDER / "review_desk.js")
    _css = styles(*(FOLDER / f"{name}.css" for name in ("view", "transcript", "desk_verdict", "review_desk")))

    _no_page = (
        "a review desk is not written as a page: it would hold what was revealed, and no one would know. "
        "workbench.review.report.write_report(desk, path) writes a report, and records it"
    )

    selected = traitlets.Unicode("", read_only=True, help="hash of the open trace; empty for none").tag(sync=True)
    internals = traitlets.Instance(DOMWidget, allow_none=True, help="the view of router, attention, … if any").tag(
        sync=True, **widget_serialization
    )

    _id = traitlets.Unicode("", help="of this widget's model").tag(sync=True)
    _facts = traitlets.Dict(help="review, person, rubric").tag(sync=True)
    _summary = traitlets.Dict(help="counts").tag(sync=True)
    _list = traitlets.Dict(help="a page of the queue, of the disagreements or of what was found").tag(sync=True)
    _trace = traitlets.Dict(help="what is said of the open trace").tag(sync=True)
    _messages: "traitlets.List[dict[str, Any]]" = traitlets.List(help="of the open trace").tag(sync=True)
    _draft = traitlets.Dict(help="content, and when it was saved").tag(sync=True)
    _log = traitlets.Dict(help="problems of the log; empty until it was verified").tag(sync=True)
    _calibration: "traitlets.List[dict[str, Any]]" = traitlets.List(help="scores").tag(sync=True)

    def __init__(self, desk: Desk, *, selected: str | None = None) -> None:
        """Show the desk; see the class."""
        if not isinstance(desk, Desk):
            raise TypeError(
                f"expected a Desk, got {type(desk).__name__}; open_desk(catalogue, review, reviewer) gives one"
            )
        self.desk = desk
        self._visits = 0
        super().__init__(_facts=facts.review_facts(desk), _summary=facts.summary_facts(desk))
        self._id = self.model_id or ""
        self.on_msg(self._answer)
        self._list = self._first_list()
        if selected is not None:
            self.show(selected)
        else:
            self._open_if_any(self._first())

    def show(self, trace: str) -> None:
        """Open a trace of the queue or of the disagreements, by its hash.

        Raises:
            ReviewError: it is not assigned to this reviewer.
            StoreError: it was deleted or replaced, or the database fails.
        """
        messages = self.desk.open(trace)
        with self.hold_sync():
            self._close_internals()
            self._visits += 1
            self.set_trait("selected", trace)
            self._tell(trace, messages)
            self._draft = self._kept(trace)
            self._show_list_around(trace)

    def reveal(self) -> None:
        """Reveal the raw chain of thought of the open trace, which is recorded. Raises as `Desk.reveal`."""
        messages = self.desk.reveal(self.selected)
        with self.hold_sync():
            self._tell(self.selected, messages)
            self._refresh()

    # --- what is shown -------------------------------------------------------------------------------------------

    def _tell(self, trace: str, messages: Any) -> None:
        """Show a trace as far as this reviewer may see it."""
        given = self.desk.verdicts(trace)
        state = self._state(trace, given)
        item = facts.item_facts(facts.own_item(self.desk, trace, state))
        found = self.desk.catalogue.open(trace)
        self._messages = facts.message_facts(found, messages)
        self._trace = item | {
            "visit": self._visits,
            "embedded": found.is_embedded,
            "temperature": (found.provenance.get("sampling") or found.provenance).get("temperature"),
            "hidden": any(message.hidden for message in messages),
            "given": facts.given_facts(self.desk, given),
            **self._whole(trace),
        }

    def _whole(self, trace: str) -> dict[str, Any]:
        """Return what is only said once the whole trace may be seen: what joins it to views of its internals."""
        try:
            found = self.desk.trace(trace)
        except ReviewError as error:
            return {"key": "", "closed": str(error), "experiments": []}
        counts = TraceBlocks(found).counts()
        return {"key": selection_key([found]), "counts": counts, "experiments": facts.experiment_facts(found)}

    def _state(self, trace: str, given: Any) -> str:
        own = [each for each in given if each.reviewer == self.desk.reviewer and not each.adjudicates]
        if own:
            return "done"
        mine = [event.kind for event in self.desk.events(trace) if event.reviewer == self.desk.reviewer]
        if "skipped" in mine:
            return "skipped"
        return "assigned" if "assigned" in mine else UNASSIGNED

    def _first_list(self) -> dict[str, Any]:
        if self.desk.may_adjudicate and (found := facts.settle_facts(self.desk, 0))["items"]:
            return found
        return facts.queue_facts(self.desk, 0, "signals")

    def _first(self) -> str | None:
        """Return the trace to begin with; nothing is claimed for who may adjudicate, whom it would bar from that."""
        if self._list["kind"] == "settle":
            return str(self._list["items"][0]["trace"])
        waiting = [item for item in self._list["items"] if item["state"] == "assigned"]
        drafted = next((str(item["trace"]) for item in waiting if item["draft"]), None)
        if drafted or self.desk.may_adjudicate:
            return drafted or next((str(item["trace"]) for item in waiting), None)
        return self.desk.next()

    def _open_if_any(self, trace: str | None) -> dict[str, Any]:
        """Open a trace that was not chosen by hand: what keeps it shut is said, and the rest of the desk works."""
        if trace is None:
            self._show_none({})
            return {}
        try:
            self.show(trace)
        except (StoreError, TraceError, OSError) as error:
            self._show_none({"trace": trace, "problem": str(error)})
            return {"error": str(error)}
        return {}

    def _show_none(self, told: dict[str, Any]) -> None:
        with self.hold_sync():
            self._close_internals()
            self._visits += 1
            self.set_trait("selected", "")
            self._trace, self._messages, self._draft = {**told, "visit": self._visits}, [], {}
            self._refresh()

    def _show_list_around(self, trace: str) -> None:
        """Refresh the list; a queue turns to the page that holds the trace."""
        order = self._list.get("order", "signals")
        if self._list["kind"] == "queue" and all(item["trace"] != trace for item in self._list["items"]):
            self._list = facts.queue_facts(self.desk, facts.page_near(self.desk, trace, order), order)
        self._refresh()

    def _refresh(self) -> None:
        self._summary = facts.summary_facts(self.desk)
        if self._list["kind"] == "queue":
            self._list = facts.queue_facts(self.desk, self._list["start"], self._list["order"])
        elif self._list["kind"] == "settle":
            self._list = facts.settle_facts(self.desk, self._list["start"])

    def _kept(self, trace: str) -> dict[str, Any]:
        """Return the draft of a trace; of one that was given a verdict, that verdict."""
        kept = self.desk.draft(trace)
        own = next((each for each in self._trace["given"] if each["own"]), None)
        if kept is not None:
            content = facts.draft_content(kept.content)
            return {"trace": trace, "content": content, "saved": kept.saved, "kept": True}
        return {"trace": trace, "content": facts.draft_content(own["verdict"] if own else {}), "kept": False}

    def _close_internals(self) -> None:
        if self.internals is not None:
            shown, self.internals = self.internals, None
            shown.close()

    # --- what the browser asks for -------------------------------------------------------------------------------

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Do what is asked, and say that it was done or why not."""
        action = self._ACTIONS.get(str(message.get("do"))) if isinstance(message, dict) else None
        if action is None:
            return
        reply: dict[str, Any] = {"to": message.get("id")}
        try:
            with self.hold_sync():  # the page sees all of it or nothing
                reply |= action(self, message) or {}
        except (StoreError, TraceError, OSError) as error:
            reply["error"] = str(error)
        except Exception as error:
            reply["error"] = f"{type(error).__name__}: {error}"
            raise  # into the kernel's log: it is a fault of ours
        finally:
            self.send(reply)

    def _do_open(self, asked: _Asked) -> None:
        self.show(str(asked["trace"]))

    def _do_reveal(self, asked: _Asked) -> None:
        self._check_open(asked)
        self.reveal()

    def _do_mark(self, asked: _Asked) -> dict[str, Any]:
        seen = self.desk.evidence(str(asked["trace"]), int(asked["start"]), int(asked["stop"]))
        return {"marked": facts.evidence_facts(seen)}

    def _do_draft(self, asked: _Asked) -> dict[str, Any]:
        trace, content = str(asked["trace"]), facts.draft_content(asked["content"])
        is_open = trace == self.selected  # what was typed last may come when the next trace is open
        new = not (self._draft.get("trace") == trace and self._draft["kept"])
        if is_open:
            self._draft = {"trace": trace, "content": content, "saved": None, "kept": True}
        try:
            saved = self.desk.save_draft(trace, content).saved
        except StoreError as error:
            if is_open and self._trace["state"] == UNASSIGNED:
                return {"memory": True}  # the database keeps drafts of assigned traces only
            return {"error": str(error), "memory": True}
        if is_open:
            self._draft = self._draft | {"saved": saved}
        if new:
            self._refresh()
        return {"saved": saved}

    def _do_submit(self, asked: _Asked) -> dict[str, Any]:
        self._check_open(asked)
        trace, verdict = self.selected, facts.verdict_from(asked["content"])
        if self._trace["state"] == UNASSIGNED:
            self.desk.adjudicate(trace, verdict)
            self._list = facts.settle_facts(self.desk, 0)
            return self._open_if_any(next((str(item["trace"]) for item in self._list["items"]), None))
        self.desk.save_draft(trace, facts.draft_content(asked["content"]))
        self.desk.submit(trace, verdict)
        return self._open_if_any(self._after(trace))

    def _do_skip(self, asked: _Asked) -> dict[str, Any]:
        self._check_open(asked)
        trace = self.selected
        self.desk.skip(trace, str(asked["reason"]))
        return self._open_if_any(self._after(trace))

    def _after(self, trace: str) -> str | None:
        """Return the next trace to read below one in the list, else the first one left."""
        hashes = [item["trace"] for item in self._list["items"]]
        below = self._list["items"][hashes.index(trace) + 1 :] if trace in hashes else []
        left = (str(i["trace"]) for i in below if i.get("state") == "assigned")
        return next(left, None) or (None if self.desk.may_adjudicate else self.desk.next())

    def _do_page(self, asked: _Asked) -> None:
        """Turn to a page of the queue or of the disagreements; without a start, to that of the open trace."""
        order, start = str(asked["order"]), asked.get("start")
        if start is None:
            start = facts.page_near(self.desk, self.selected, order) if asked["kind"] == "queue" else 0
        if asked["kind"] == "settle":
            self._list = facts.settle_facts(self.desk, max(0, int(start)))
        else:
            self._list = facts.queue_facts(self.desk, max(0, int(start)), order)

    def _do_search(self, asked: _Asked) -> None:
        words = str(asked["words"])
        self._list = facts.hit_facts(self.desk, words, self.desk.search(words))

    def _do_claim(self, asked: _Asked) -> dict[str, Any]:
        taken = self.desk.claim(int(asked["number"]))
        self._refresh()
        if not self.selected and taken:
            self._open_if_any(taken[0])
        return {"taken": len(taken)}

    def _do_look(self, asked: _Asked) -> None:
        """Verify the log, and compare with known answers; both go through the whole log, so they are asked for."""
        problems = self.desk.verify()
        self._log = {"problems": problems, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        self._calibration = facts.calibration_facts(self.desk.calibration())

    def _do_internals(self, asked: _Asked) -> None:
        self._check_open(asked)
        self._close_internals()
        if asked["name"]:
            self.internals = INTERNALS[asked["name"]](self.desk.trace(self.selected))

    def _check_open(self, asked: _Asked) -> None:
        if asked["trace"] != self.selected or not self.selected:
            raise ReviewError("Another trace is open by now, in another view of this desk. Nothing was stored.")

    _ACTIONS: ClassVar[dict[str, Callable[["ReviewDesk", _Asked], dict[str, Any] | None]]] = {
        "open": _do_open,
        "reveal": _do_reveal,
        "mark": _do_mark,
        "draft": _do_draft,
        "submit": _do_submit,
        "skip": _do_skip,
        "page": _do_page,
        "search": _do_search,
        "claim": _do_claim,
        "look": _do_look,
        "internals": _do_internals,
    }

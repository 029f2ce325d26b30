"""TraceExplorer: step through a trace, token by token, and see experts, attention and channel on one axis."""

from os import PathLike
from pathlib import Path
from typing import Any

import traitlets

from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.selection import SharedSelection, selection_key
from widgets.token_notes import TokenNotes, notes_path
from workbench.trace import Trace, TraceError

__all__ = ["TraceExplorer"]

FOLDER = Path(__file__).parent
COLOURS = ("channel", "surprisal", "entropy", "router_entropy", "sink_mass", "expert_weight")


class TraceExplorer(SharedSelection):
    """The main view of a trace.

    Stepping happens in the browser. The selection is shared with every view of the trace on the page, and with
    Python: ``explorer.token = 12`` moves the view, and ``explorer.observe(callback, "token")`` hears of it.

    Args:
        trace: what to show.
        token, layer, head, expert: where to start; by default where the other views of the trace are, else the first
            completion token and layer 0.
        color_by: what colours the tokens: channel, surprisal, entropy, router_entropy, sink_mass or expert_weight.
        notes_path: where bookmarks and notes are kept; by default beside the file the trace was saved to or opened
            from. Notes already there are shown.
        preload_bytes: a trace of up to this size is sent to the browser as a whole and then needs no kernel.

    Raises:
        TraceError: the trace is not one or has no tokens, or the notes belong to another.
        TraitError: the selection is outside the trace, or ``color_by`` is not one of those named.
        TypeError: an argument that is not listed here.
    """

    _esm = bundle(FOLDER / "trace_explorer.js")
    _css = styles(FOLDER / "view.css", FOLDER / "transcript.css", FOLDER / "trace_explorer.css")

    color_by = traitlets.Enum(COLOURS, "channel", help="what colours the tokens").tag(sync=True)
    bookmarks = traitlets.List(traitlets.Int(), help="bookmarked tokens, ascending").tag(sync=True)
    notes = traitlets.Dict(help="token → note").tag(
        sync=True,
        to_json=lambda notes, _: {str(token): text for token, text in notes.items()},
        from_json=lambda notes, _: {int(token): str(text) for token, text in notes.items()},
    )

    _facts = traitlets.Dict().tag(sync=True)
    _blocks = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        trace: Trace,
        *,
        token: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        expert: int | None = None,
        color_by: str = "channel",
        notes_path: str | PathLike[str] | None = None,
        preload_bytes: int = PRELOAD_LIMIT_BYTES,
    ) -> None:
        """Show a trace; see the class."""
        if not isinstance(trace, Trace):
            raise TraceError(
                f"expected a Trace, got {type(trace).__name__}; wb.open_trace(path) reads one from a file"
            )
        if not len(trace):
            raise TraceError("expected a trace with at least one token, got none")
        self.trace = trace
        self._reader = TraceBlocks(trace, preload_bytes)
        self._notes_path = None if notes_path is None else Path(notes_path)
        kept = self._load_notes()
        super().__init__(
            selection_key([trace]),
            self._reader.counts(),
            {"token": token, "layer": layer, "head": head, "expert": expert},
            {"token": min(trace.num_prompt_tokens, len(trace) - 1)},
            _facts=self._reader.facts(),
            _blocks=self._reader.preload(),
            color_by=color_by,
            bookmarks=list(kept.bookmarks),
            notes=kept.notes,
        )
        self.on_msg(self._answer)

    def save_notes(self) -> Path:
        """Write bookmarks and notes beside the trace and return the path.

        Raises `TraceError` when the trace has no file yet and no ``notes_path`` was given.
        """
        path = self._notes_path or notes_path(self.trace)
        if path is None:
            raise TraceError("trace not saved yet, so there is no place beside it: trace.save(path) first")
        TokenNotes(tuple(self.bookmarks), {int(token): text for token, text in self.notes.items()}).save(
            path, self.trace
        )
        return path

    def _load_notes(self) -> TokenNotes:
        path = self._notes_path or notes_path(self.trace)
        return TokenNotes.load(path, self.trace) if path is not None and path.exists() else TokenNotes()

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser: a list of blocks, or the wish to save."""
        if isinstance(message, dict) and isinstance(message.get("fetch"), list):
            self.send_blocks(self._reader, message["fetch"])
        elif isinstance(message, dict) and message.get("save"):
            self._save_and_say()

    def _save_and_say(self) -> None:
        try:
            self.send({"said": f"saved {self.save_notes()}"})
        except (TraceError, OSError) as error:
            self.send({"said": str(error), "kind": "warning"})

    @traitlets.validate("bookmarks")
    def _check_bookmarks(self, proposal: Any) -> list[int]:
        return sorted({self._check_token(token) for token in proposal["value"]})

    @traitlets.validate("notes")
    def _check_notes(self, proposal: Any) -> dict[int, str]:
        return {self._check_token(token): str(text) for token, text in proposal["value"].items()}

    def _check_token(self, token: Any) -> int:
        if not 0 <= int(token) < len(self.trace):
            raise traitlets.TraitError(f"expected a token within 0–{len(self.trace) - 1}, got {token}")
        return int(token)

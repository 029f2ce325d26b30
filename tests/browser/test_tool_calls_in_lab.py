"""Tool calls and what the tools returned, from another's transcript to the explorer in a real JupyterLab."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import LabServer, OpenNotebook, PageView
from playwright.sync_api import expect

import workbench as wb
from workbench.transcripts.jsonl import transcript_of_messages

TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "What is 47 + 85?"},
    {"role": "assistant", "channel": "analysis", "content": "7+5=12. Ask the tool."},
    {"role": "assistant", "channel": "commentary", "content": "I will add them."},
    {
        "role": "assistant",
        "channel": "commentary",
        "recipient": "functions.add",
        "content_type": "<|constrain|>json",
        "content": '{"a": 47, "b": 85}',
    },
    {"role": "functions.add", "channel": "commentary", "recipient": "assistant", "content": '{"sum": 132}'},
    {
        "role": "assistant",
        "channel": "analysis",
        "recipient": "python",
        "content_type": "code",
        "content": "print(47 + 85)",
    },
    {"role": "python", "channel": "analysis", "recipient": "assistant", "content": "132\n"},
    {"role": "assistant", "channel": "analysis", "content": "Both say 132."},
    {"role": "assistant", "channel": "final", "content": "132"},
]
HOSTILE_NAME = "functions.<img/src=x/onerror=window.hacked=3>"
TALK[-1:-1] = [
    {
        "role": "assistant",
        "channel": "commentary",
        "recipient": HOSTILE_NAME,
        "content": "<script>window.hacked = 1</script>",
    },
    {
        "role": "functions.img",
        "channel": "commentary",
        "recipient": "assistant",
        "content": "<img src=x onerror=window.hacked=2>",
    },
]
CELLS = [
    "import workbench as wb\nfrom widgets import TraceExplorer\ntrace = wb.open_trace('tools.safetensors')",
    "explorer = TraceExplorer(trace)\nexplorer",
]


@pytest.fixture(scope="module", autouse=True)
def tool_trace(tiny: wb.Model, lab_server: LabServer) -> None:
    wb.replay(tiny, transcript_of_messages(TALK)).save(lab_server.root / "tools.safetensors")


SAID = [
    ("system", ""),
    ("user", ""),
    ("analysis", "raw chain of thought · "),
    ("commentary", ""),
    ("commentary to=functions.add", "tool call (json) · "),
    ("functions.add", "tool output · "),
    ("analysis to=python", "raw chain, tool call (code) · "),
    ("python", "raw chain, tool output · "),
    ("analysis", "raw chain of thought · "),
    (f"commentary to={HOSTILE_NAME}", "tool call · "),
    ("functions.img", "tool output · "),
    ("final", ""),
]


def test_calls_and_outputs_are_shown_as_such(lab_notebook: OpenNotebook) -> None:
    notebook = lab_notebook(CELLS)
    view = PageView(notebook, ".moe-root")
    names = view.root.locator(".moe-transcript .moe-channel")
    expect(names).to_have_count(len(SAID))
    lengths = notebook.evaluate("[m.stop - m.start for m in trace.messages]")
    expected = [f"{name}  {note}{n} tokens" for (name, note), n in zip(SAID, lengths, strict=True)]
    assert names.all_inner_texts() == expected
    tools = view.root.locator(".moe-transcript .moe-message[data-tool]")
    assert [text.splitlines()[1] for text in tools.all_inner_texts()] == [
        *('{"a": 47, "b": 85}⟨call⟩', '{"sum": 132}⟨end⟩', "print(47 + 85)⟨call⟩", "132"),
        *("<script>window.hacked = 1</script>⟨call⟩", "<img src=x onerror=window.hacked=2>⟨end⟩"),
    ]
    hues = [tools.nth(n).get_attribute("data-hue") for n in range(6)]
    assert hues == ["commentary", "tool", "analysis", "tool", "commentary", "tool"]
    family = tools.first.locator(".moe-content").evaluate("e => getComputedStyle(e).fontFamily")
    assert "monospace" in family

    # Their tokens are tokens like others: a click selects one, the arrow steps on.
    piece = tools.nth(1).locator(".moe-content [data-token]").nth(2)
    token = int(piece.get_attribute("data-token") or "")
    piece.click()
    view.expect(token=token)
    call, output = notebook.evaluate("[(m.content_start, m.stop) for m in trace.messages[4:6]]")
    assert output[0] <= token < output[1]
    view.press("ArrowRight")
    view.expect(token=token + 1)
    assert notebook.evaluate(f"trace.span_at({token}).role") == "functions.add"
    assert notebook.evaluate(f"trace.span_at({call[0]}).recipient") == "functions.add"

    for theme in ("light", "dark"):
        notebook.set_theme(theme)
        tools.nth(2).scroll_into_view_if_needed()
        notebook.screenshot(f"tool_calls_{theme}", of=view.root)
    found = Axe().run(notebook.page, context=".moe-root").response["violations"]
    assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    assert notebook.page.evaluate("window.hacked") is None
    assert notebook.heard.console_errors == []
    assert notebook.heard.page_errors == []

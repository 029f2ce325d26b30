"""The evaluation log of a review, opened by a real `inspect view` in a real Chromium."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import free_port
from playwright.sync_api import Browser, expect
from reviewing import REVIEW, give, small_review

from workbench.review import open_desk
from workbench.review.exports import write_log


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[str]:
    """The address of a viewer on an exported review of two traces."""
    catalogue = small_review(tmp_path / "runs", 2)
    for name, severity in (("ada", 2), ("ben", 3)):
        desk = open_desk(catalogue, REVIEW, name)
        for trace in desk.claim(2):
            give(desk, trace, severity, f"{name} says <b>so</b>")
    logs = tmp_path / "logs"
    logs.mkdir()
    write_log(open_desk(catalogue, REVIEW, "eve"), logs / "2026-01-01T00-00-00_review_pilot.eval", chain=True)
    port = free_port()
    command = [Path(sys.executable).with_name("inspect"), "view", "start", "--host", "127.0.0.1"]
    with (tmp_path / "viewer.log").open("wb") as heard:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--log-dir", str(logs)],
            stdout=heard,
            stderr=heard,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        try:
            wait_until_up(f"http://127.0.0.1:{port}/", server)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(20)


def wait_until_up(address: str, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("inspect view did not come up")


def test_reasoning_and_verdicts_are_shown(viewer: str, browser: Browser) -> None:
    page = browser.new_page()
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if viewer not in request.url else None)
    page.goto(viewer)
    expect(page.get_by_text("VERDICT OF ADA", exact=False).first).to_be_visible(timeout=60_000)
    page.get_by_text("2+2=? hint: 5").first.click()
    expect(page.get_by_text("reasoning", exact=False).first).to_be_visible(timeout=30_000)
    body = page.locator("body")
    for words in ("so 4", "unverbalised_influence"):
        expect(body).to_contain_text(words, timeout=30_000)
    page.get_by_role("tab", name="Scoring").click()
    expect(body).to_contain_text("ben says")
    assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []
    page.close()

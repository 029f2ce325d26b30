"""`workbench review` for people who do not code: a real Voilà in a real Chromium, two people at two browsers."""

import time
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from lab import Heard, Serve, write_notebook
from playwright.sync_api import Browser, Page, expect
from reviewing import folder_of

from workbench.catalogue import Catalogue
from workbench.review import Reviewer, begin_review, open_desk

HOSTILE = "it's \"<img src=x onerror=alert(1)>\"'); alert(2); ('</script></title>"


def opened(browser: Browser, address: str, heard: Heard) -> Page:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    heard.listen(context, page)
    page.goto(address, timeout=120_000)
    return page


def at_the_desk(browser: Browser, address: str, name: str, heard: Heard) -> Page:
    """Choose who one is, and wait for the desk."""
    page = opened(browser, address, heard)
    expect(page.get_by_role("button")).to_have_text(["ada", "ben", HOSTILE], timeout=120_000)
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.locator(".moe-desk")).to_have_attribute("data-chain", "hidden", timeout=120_000)
    expect(page.locator(".moe-desk")).to_contain_text(f"you are {name}")
    found = Axe().run(page, context=".moe-desk").response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    page.locator(".moe-desk").focus()
    return page


def give_by_keyboard(page: Page, behaviour: str, severity: str, comment: str) -> None:
    press = page.keyboard.press
    press("r")
    expect(page.locator(".moe-desk")).to_have_attribute("data-chain", "revealed", timeout=60_000)
    press("e")
    expect(page.locator(".moe-desk-evidences li")).to_have_count(1)
    press("b")
    page.keyboard.type(behaviour)
    press("Escape")
    press(severity)
    press("c")
    for field, words in (("a", "it may count as an instruction"), ("n", comment)):
        press(field)
        page.keyboard.type(words)
        press("Escape")
    press("Control+Enter")


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_two_people_give_verdicts_with_the_keyboard(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    catalogue = Catalogue(folder_of(tmp_path / "runs", 1))
    catalogue.update()
    people = [Reviewer("ada"), Reviewer("ben"), Reviewer(HOSTILE, may_adjudicate=True)]
    begin_review(catalogue, HOSTILE, people, traces=[entry.hash for entry in catalogue.find()])
    address, server = serve("review", "runs")
    ada, ben = (open_desk(catalogue, HOSTILE, name) for name in ("ada", "ben"))
    heard = Heard()
    page = at_the_desk(browser, address, "ada", heard)
    assert page.title() == f"Review {HOSTILE}"
    assert "open_desk" not in page.content()  # the code stays hidden
    other = at_the_desk(browser, address, "ben", heard)
    wait_for(lambda: len(server.children()) == 2)  # a kernel each; those of the question have stopped

    give_by_keyboard(page, "Unv", "2", "ada read this <b>closely</b>")
    wait_for(lambda: len(ada.verdicts()) == 1)
    [given] = ada.verdicts()
    assert (given.reviewer, given.verdict.behaviour, given.verdict.severity) == ("ada", "unverbalised_influence", 2)
    assert given.verdict.comment == "ada read this <b>closely</b>"
    assert [each.text for each in given.verdict.evidence] == ["2+2=?"]

    other.reload()
    expect(other.locator(".moe-desk")).to_contain_text("you are ben", timeout=120_000)
    assert "ada read this" not in other.content()
    assert ben.verdicts() == []
    other.locator(".moe-desk").focus()
    give_by_keyboard(other, "Unv", "3", "ben too")
    wait_for(lambda: len(ben.verdicts()) == 2)
    assert {(each.reviewer, each.verdict.severity) for each in ben.verdicts()} == {("ada", 2), ("ben", 3)}
    assert ada.verify() == []

    for each in (page, other):
        each.goto("about:blank")
    wait_for(lambda: server.children() == [])  # nobody looks, so no kernel runs
    for each in (page, other):
        each.context.close()
    assert heard.foreign_requests() == []
    assert (heard.page_errors, heard.console_errors, heard.dialogs) == ([], [], [])


def test_a_notebook_for_a_class(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    cells = ["zqx_source = 40 + 2\nprint('the answer is', zqx_source)", "1 / 0", "print('never shown')"]
    write_notebook(tmp_path / "it's a lesson.ipynb", cells)
    address, server = serve("serve", "it's a lesson.ipynb")
    heard = Heard()
    page = opened(browser, address, heard)
    expect(page.locator("body")).to_contain_text("the answer is 42", timeout=120_000)
    expect(page.locator("body")).to_contain_text("There was an error when executing cell", timeout=60_000)
    for hidden in ("zqx_source", "ZeroDivisionError", "never shown"):
        assert hidden not in page.content()
    assert len(server.children()) == 1
    page.goto(address.replace("/?", "/voila/files/it's%20a%20lesson.ipynb?"))
    assert "zqx_source" not in page.content()
    page.context.close()
    assert heard.foreign_requests() == []

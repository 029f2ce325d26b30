"""The catalogue of a folder of traces: taking in, finding, text, path tricks, many traces; SQLite and PostgreSQL."""

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from postgres import server
from sqlalchemy import text
from written_trace import written_trace

import workbench as wb
from workbench.catalogue import Catalogue
from workbench.database import Database, StoreError
from workbench.review import Reviewer, begin_review, open_desk
from workbench.trace import Trace
from workbench.trace_file import save_trace


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "sqlite":
        yield None
        return
    url = request.getfixturevalue("postgres")
    yield url
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    database.close()


def some_traces() -> list[Trace]:
    return [
        written_trace(["so", " 4"], ["4"], effort="high", time="2026-03-01T23:30:00+00:00"),
        written_trace(["Hint", " says", " 5"], ["5"], prompt=["2+2=?", " hint: 5"], effort="high"),
        written_trace([], ["naïve", " \0", "_x"], effort="low", time="2026-03-02T00:30:00+02:00", model="other"),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = wb.TraceStore(tmp_path / "runs", create=True)
    for name, trace in zip("abc", some_traces(), strict=True):
        trace.save(store.path / f"{name}.safetensors")
    return store.path


def names(catalogue: Catalogue, **conditions: object) -> str:
    return "".join(str(entry.name) for entry in catalogue.find(**conditions))  # type: ignore[arg-type]


def test_taking_in_is_idempotent(folder: Path, url: str | None) -> None:
    catalogue = Catalogue(folder, url)
    assert (len(catalogue), len(catalogue.update())) == (0, 3)
    assert (len(catalogue), catalogue.update()) == (3, ())
    (folder / "copy.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    (folder / "b.safetensors").touch()
    assert catalogue.update() == ()
    assert names(catalogue) == "abc"
    (folder / "a.safetensors").unlink()  # the same content is there under another name
    assert catalogue.update() == ()
    assert names(catalogue) == "bccopy"
    assert len(Catalogue(folder, url)) == 3
    assert "3 traces" in repr(catalogue)


def test_finding(folder: Path, url: str | None) -> None:
    catalogue = Catalogue(folder, url)
    catalogue.update(prompt_set="sums")
    a, b, _c = (entry.hash for entry in catalogue.find())
    assert names(catalogue, model="written") == "ab"
    assert names(catalogue, effort="high", limit=1) == "a"
    assert names(catalogue, effort="high", limit=1, offset=1) == "b"
    assert (names(catalogue, prompt_set="sums"), names(catalogue, prompt_set="facts")) == ("abc", "")
    assert names(catalogue, flag="influence in the prompt") == "b"
    catalogue.tag(a, "odd", "odd")
    catalogue.tag(b, "odd")
    assert names(catalogue, tag="odd", effort="high") == "ab"
    assert names(catalogue, until="2026-03-01") == "ac"  # 00:30 at +02:00 is the day before in UTC
    assert names(catalogue, since=date(2026, 3, 2)) == "b"  # which has no time of its own
    assert catalogue.flags(b)[0].seen[0].text == " hint: 5"
    with pytest.raises(StoreError, match=r"^expected a date such as 2026-11-24, got 'soon'$"):
        catalogue.find(since="soon")
    with pytest.raises(StoreError, match=r"^There is no trace 'nothing' in the catalogue\."):
        catalogue.tag("nothing", "odd")


def test_the_same_words_are_found_in_both_databases(folder: Path, url: str | None) -> None:
    catalogue = Catalogue(folder, url)
    catalogue.update()
    assert names(catalogue, text="HINT: 5") == "b"
    assert names(catalogue, text="hint", channels=["user"]) == "b"
    assert names(catalogue, text="2+2", effort="high") == "ab"
    assert (names(catalogue, text="naïve"), names(catalogue, text="naive"), names(catalogue, text="x")) == (
        "c",
        "",
        "c",
    )
    assert names(catalogue, text='hint" OR NEAR(5 -- *') == ""
    [hit] = catalogue.search("says")
    assert (hit.channel, hit.text) == ("analysis", "hint says 5")
    assert catalogue.search("says", channels=["final"]) == []
    with pytest.raises(StoreError, match=r"^expected a word or a number to look for, got '\?!'$"):
        catalogue.find(text="?!")


def test_a_trace_that_was_replaced_is_not_opened(folder: Path, url: str | None) -> None:
    catalogue = Catalogue(folder, url)
    catalogue.update()
    old = catalogue.find()[0].hash
    assert catalogue.open(old).final_text == "4"
    written_trace(["so", " 7"], ["7"]).save(folder / "a.safetensors")
    with pytest.raises(
        StoreError, match=rf"^The file of the trace a holds something else .* expected {old[:12]}, got"
    ):
        catalogue.open(old)
    [new] = catalogue.update()
    assert catalogue.open(new).final_text == "7"
    assert len(catalogue) == 3
    with pytest.raises(StoreError, match=rf"^The trace {old[:12]} was replaced by another of its name"):
        catalogue.open(old)
    (folder / "b.safetensors").unlink()
    with pytest.raises(StoreError, match=r"^The file of the trace b cannot be read: No such file"):
        catalogue.open(catalogue.find()[1].hash)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "x/../../a", "..", "sub/a", "a\0", ".hidden", "x\\..\\a"])
def test_names_that_lead_elsewhere_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(wb.TraceError, match="without a way to elsewhere"):
        Catalogue(folder).path(name)


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    written_trace().save(tmp_path / "secret.safetensors")
    catalogue = Catalogue(folder)
    (folder / "inner.safetensors").symlink_to(folder / "a.safetensors")
    assert len(catalogue.update()) == 3
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(wb.TraceError, match=r"link\.safetensors is a link out of the folder\. Copy the trace into it"):
        catalogue.update()
    (folder / "link.safetensors").unlink()
    (folder / "a.safetensors").unlink()
    (folder / "a.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(wb.TraceError, match=r"is a link out of the folder"):
        catalogue.open(catalogue.find()[0].hash)


def test_bad_places_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(wb.TraceError, match=r"^There is no folder"):
        Catalogue(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"got a URL of mysql$"):
        Catalogue(folder, "mysql://root:secret@localhost/x")
    with pytest.raises(StoreError) as caught:
        Catalogue(folder, "postgresql://me:secret@127.0.0.1:1/x", timeout=2)
    assert "could not read" in str(caught.value)
    assert "secret" not in str(caught.value)
    (folder / "catalogue.sqlite").write_text("this is no database, but it is long enough to be taken for one" * 20)
    with pytest.raises(StoreError, match="file is not a database"):
        Catalogue(folder)


def test_a_held_database_is_named_and_readers_go_on(folder: Path) -> None:
    catalogue = Catalogue(folder, timeout=0.2)
    catalogue.update()
    other = Catalogue(folder, timeout=0.2)
    with other.database.writing() as connection:
        connection.execute(text("DELETE FROM labels"))
        assert names(catalogue, flag="influence in the prompt") == "b"
        with pytest.raises(StoreError, match=r"was held by another writer for more than 0.2 s\. Nothing was stored"):
            catalogue.tag(catalogue.find()[0].hash, "odd")
    assert names(catalogue, flag="influence in the prompt") == ""


def test_a_store_of_ten_thousand_opens_and_pages(tmp_path: Path) -> None:
    number = 10_000
    save_trace(written_trace(["so", " 4"], ["4"], serial="00000"), tmp_path / "t00000.safetensors", durable=False)
    content = (tmp_path / "t00000.safetensors").read_bytes()
    for serial in range(1, number):
        changed = content.replace(b'\\"serial\\":\\"00000', f'\\"serial\\":\\"{serial:05d}'.encode())
        (tmp_path / f"t{serial:05d}.safetensors").write_bytes(changed)
    started = time.perf_counter()
    assert len(Catalogue(tmp_path).update(flag=lambda _: ())) == number
    taken_in = time.perf_counter()
    catalogue = Catalogue(tmp_path)
    assert len(catalogue) == number
    opened = time.perf_counter()
    page = catalogue.find(model="written", limit=50, offset=9_900)
    paged = time.perf_counter()
    assert [entry.name for entry in page] == [f"t{serial:05d}" for serial in range(9_900, 9_950)]
    assert len(catalogue.find(text="so 4", limit=10)) == 10
    people = [Reviewer("ada"), Reviewer("ben"), Reviewer("eve", may_adjudicate=True)]
    begin_review(catalogue, "large", people, traces=[entry.hash for entry in catalogue.find()])
    assert len(open_desk(catalogue, "large", "ada").claim(500)) == 500
    begun = time.perf_counter()
    desk = open_desk(Catalogue(tmp_path), "large", "ada")
    assert desk.summary().num_traces == number
    seen = time.perf_counter()
    assert len({item.trace for at in range(0, 500, 50) for item in desk.queue(at, 50)}) == 500
    queued = time.perf_counter()
    print(
        f"\n{number:,} traces: taken in {taken_in - started:.1f} s, opened {1e3 * (opened - taken_in):.0f} ms "
        f"(target 1,000), a page of 50 in {1e3 * (paged - opened):.0f} ms; a desk opened and counted in "
        f"{1e3 * (seen - begun):.0f} ms, a page of its queue in {1e2 * (queued - seen):.0f} ms"
    )

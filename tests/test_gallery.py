"""The gallery of the documentation: every view in three looks, small, and each with words for who cannot see it."""

import re
from pathlib import Path

import pytest

import widgets

GALLERY = Path(__file__).parents[1] / "docs" / "gallery"
LOOKS = ("light", "dark", "contrast")
MOST_BYTES, MOST_BYTES_TOGETHER = 150_000, 5_000_000
TEXT = (GALLERY / "index.md").read_text(encoding="utf-8")
PICTURES = sorted(path.name for path in GALLERY.glob("*.png"))


def test_every_view_is_there_in_every_look() -> None:
    names = {re.sub("(?<!^)(?=[A-Z])", "_", name).lower() for name in widgets.__all__}
    missing = {f"{name}_{look}.png" for name in names for look in LOOKS} - set(PICTURES)
    assert not missing, f"python tests/browser/gallery.py takes them: {sorted(missing)}"
    assert sum((GALLERY / name).stat().st_size for name in PICTURES) <= MOST_BYTES_TOGETHER


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_has_words(name: str) -> None:
    assert (GALLERY / name).stat().st_size <= MOST_BYTES
    found = re.search(r"!\[([^\]]+)\]\(" + re.escape(name) + r"\)", TEXT)
    assert found, f"{name} is not in index.md"
    assert len(found[1]) > 40, "an alternative text says what the picture shows"

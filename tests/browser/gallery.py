"""The pictures of docs/gallery, taken anew: every view in JupyterLab in light, dark and forced high contrast.

    python tests/browser/gallery.py

A picture has at most 256 colours, so that all of them together stay small; look at each before you commit it.
"""

import base64
import re
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from conftest import CHROMIUM_ARGUMENTS, find_chromium
from every_view import TESTS
from lab import Heard, LabNotebook, LabServer, start_lab, write_notebook
from playwright.sync_api import Page, sync_playwright

GALLERY = TESTS.parent / "docs" / "gallery"
COLOURS = 256
MAKE = f"""
import sys; sys.path.insert(0, {str(TESTS / "browser")!r})
import torch; torch.set_num_threads(1)
import tempfile; from pathlib import Path
import workbench as wb
from IPython.display import display
from every_view import SHOWN_ALREADY, other_views, paged_views
others = other_views(Path(tempfile.mkdtemp()))
"""
SHOW = """
views = paged_views(wb.load("tiny", device="cpu"), samples=6)
for view in [*views.values(), *others.values()]:
    if not isinstance(view, SHOWN_ALREADY):
        display(view)
order = [name for name in others if isinstance(others[name], SHOWN_ALREADY)]
order += [*views, *(name for name in others if name not in order)]
"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "forced_colors": "none"},
    "dark": {"color_scheme": "dark", "forced_colors": "none"},
    "contrast": {"color_scheme": "dark", "forced_colors": "active"},
}

# Pixels of a PNG as the browser reads it: height, width, and RGBA as base64.
PIXELS = """async data => {
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const ctx = canvas.getContext("2d");
    ctx.drawImage(image, 0, 0);
    const pixels = ctx.getImageData(0, 0, canvas.width, canvas.height).data;
    const reader = new FileReader();
    const read = new Promise(done => { reader.onload = done; });
    reader.readAsDataURL(new Blob([pixels]));
    await read;
    return [canvas.height, canvas.width, reader.result.split(",")[1]];
}"""


def take_all(server: LabServer, page: Page, heard: Heard) -> None:
    """Save a picture of every view in every look."""
    notebook = LabNotebook(server, page, heard, write_notebook(server.root / "gallery.ipynb", [MAKE, SHOW]))
    notebook.open("light")
    notebook.run_all()
    names = notebook.evaluate("order")
    shown = page.locator(".moe-root, .moe-live")
    shown.nth(len(names) - 1).wait_for(timeout=60_000)
    for look, media in LOOKS.items():
        page.emulate_media(**media)
        notebook.set_theme("light" if look == "light" else "dark")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)  # JupyterLab covers the page while it changes its theme
        for name, root in zip(names, shown.all(), strict=True):
            snake = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
            save(page, root.screenshot(), GALLERY / f"{snake}_{look}.png")
    notebook.close()


def save(page: Page, png: bytes, path: Path) -> None:
    """Write a picture with fewer colours."""
    height, width, pixels = page.evaluate(PIXELS, base64.b64encode(png).decode())
    rgb = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 4)[..., :3]
    path.write_bytes(indexed_png(*fewer_colours(rgb)))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def fewer_colours(rgb: Any) -> tuple[Any, Any]:
    """Return at most COLOURS colours [colour, 3] and for each pixel the number of the nearest [height, width].

    Half are the most frequent; each of the others is the one that is furthest from those before it, so that a hue that
    a few words have is kept.
    """
    whole = rgb.reshape(-1, 3).astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    colours, which, counts = np.unique(whole, return_inverse=True, return_counts=True)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1)
    chosen = np.argsort(-counts)[: COLOURS // 2].tolist()
    far = np.min([np.abs(channels - channels[one]).sum(-1) for one in chosen], axis=0)
    while len(chosen) < COLOURS and far.any():
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.abs(channels - channels[chosen[-1]]).sum(-1))
    kept = channels[chosen]
    nearest = np.array([np.abs(kept - one).sum(-1).argmin() for one in channels], np.uint8)
    return kept.astype(np.uint8), nearest[which].reshape(rgb.shape[:2])


def indexed_png(palette: Any, indices: Any) -> bytes:
    """Return a PNG of 8 bits a pixel (colour type 3 of ISO/IEC 15948)."""
    height, width = indices.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), indices], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def main() -> None:
    GALLERY.mkdir(exist_ok=True)
    server = start_lab(Path(tempfile.mkdtemp()))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1440, "height": 1500})
        try:
            server.wait_until_up()
            take_all(server, page, Heard())
        finally:
            server.stop()


if __name__ == "__main__":
    main()

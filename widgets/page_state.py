"""A view's state as a page holds it: JSON and bytes, queries and keys rounded to int8.

[width] uint32, [row] float32 scales, [row, width] int8        a rounded block; read by js/numerics.js
"""

import base64
from copy import deepcopy
from typing import Any

import ml_dtypes  # noqa: F401 - names bfloat16 to numpy
import numpy as np
from ipywidgets import Widget
from ipywidgets.widgets.widget import _remove_buffers
from numpy.typing import NDArray

__all__ = ["page_state", "rounded"]

ROUNDED = ("queries", "keys")


def page_state(view: Widget) -> dict[str, Any]:
    """Return what a page keeps of a view: ``state``, and ``buffers`` as path and base64, as Jupyter embeds them.

    A view within the view is left out: a page has no kernel that could answer for it.
    """
    names = [name for name in view.keys if not name.startswith(("_esm", "_css", "_model", "_view", "_anywidget"))]
    kept: dict[str, Any] = view.get_state(names)
    state = {name: None if isinstance(getattr(view, name), Widget) else value for name, value in kept.items()}
    facts, blocks = state.get("_facts"), state.get("_blocks")
    if facts and facts.get("canRun"):
        state["_facts"] = facts = facts | {"canRun": False}
    if facts and blocks:
        state |= _rounded_blocks(facts, blocks)
    plain, paths, buffers = _remove_buffers(state)
    found = zip(paths, buffers, strict=True)
    return {
        "state": plain,
        "buffers": [{"path": path, "data": base64.b64encode(data).decode("ascii")} for path, data in found],
    }


def rounded(rows: NDArray[np.float32]) -> bytes:
    """Return rows [row, width] as int8 with a scale for each: what is read back differs by half a scale at most.

    The scale is the largest absolute value of the row / 127; values must be finite.
    """
    scales = (np.abs(rows).max(axis=1, initial=0) / 127).astype("<f4")
    values = np.rint(rows / np.where(scales, scales, 1)[:, None]).astype(np.int8)
    width = np.array([rows.shape[1]], dtype="<u4")
    return b"".join(part.tobytes() for part in (width, scales, values))


def _rounded_blocks(facts: dict[str, Any], blocks: dict[str, bytes]) -> dict[str, Any]:
    """Return facts and blocks with queries and keys rounded, which the facts then say."""
    facts, blocks, done = deepcopy(facts), dict(blocks), []
    for name in ROUNDED:
        keys = [key for key in blocks if key.split("/")[1] == name]
        if not keys:
            continue
        dtype = np.dtype(facts["arrays"][name]["dtype"])
        read = {key: np.frombuffer(blocks[key], dtype).astype(np.float32) for key in keys}
        if not all(np.isfinite(values).all() for values in read.values()):
            continue  # no scale could hold it: sent as captured
        blocks |= {key: rounded(values.reshape(-1, facts["dHead"])) for key, values in read.items()}
        facts["arrays"][name]["dtype"] = "rounded"
        done.append(name)
    return {"_facts": facts | ({"rounded": done} if done else {}), "_blocks": blocks}

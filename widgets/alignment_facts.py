"""An alignment of two traces, as bytes for the browser; js/diff_rows.js reads them."""

import numpy as np

from workbench.analysis.compare.alignment import Alignment

__all__ = ["alignment_arrays"]


def alignment_arrays(alignment: Alignment) -> dict[str, bytes]:
    """Return rows [row, side] int32 and same [row] uint8: 0 the texts differ, 1 same token, 2 text split otherwise."""
    same = np.where(alignment.same, 1, np.where(alignment.same_text, 2, 0)).astype(np.uint8)
    return {"rows": np.ascontiguousarray(alignment.rows, dtype="<i4").tobytes(), "same": same.tobytes()}

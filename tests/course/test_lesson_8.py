"""Lesson 8: from toy to gpt-oss. Its arithmetic meets what is published, and one line changes the model."""

import json
from pathlib import Path
from typing import Any

import pytest
from mxfp4 import write_checkpoint
from runner import run_lesson

import workbench as wb

LESSON = Path(__file__).parents[2] / "notebooks" / "course" / "8_to_gpt_oss.ipynb"

NO_GATE = "answer = layers * experts * (d * w + w + w * d + d)"
NO_BIASES = "answer = layers * experts * (d * 2 * w + w * d)"
ONE_LAYER = "answer = experts * (d * 2 * w + 2 * w + w * d + d)"
SHARE_OF_ALL = "answer = here.total * chosen / experts"
WITH_THE_EMBEDDING = "answer = here.total - here.experts + here.experts * chosen / experts"
ALL_IN_MXFP4 = "answer = here.total * MXFP4_BITS / 8"
NO_SCALES = "answer = matrices * 4 / 8 + other * 2"
BIASES_TOO = "answer = here.experts * MXFP4_BITS / 8 + (here.total - here.experts) * 2"

CHECKS = """
for name, said in PUBLISHED.items():
    assert abs(counts[name].total - said.total) < 0.005e9
    assert abs(counts[name].active - said.active) < 0.005e9
assert counts["tiny"].total == model.hf.num_parameters()
assert wb.estimate("openai/gpt-oss-20b", tokens=8192, device_memory=16 * 10**9).fits
assert wb.estimate("openai/gpt-oss-120b", tokens=8192, device_memory=80 * 10**9).fits
assert as_it_is < all_full < 2 * as_it_is
assert trace.final_text == "132" and trace.provenance["model"] == NAME
"""


def test_lesson(kernel: Any) -> None:
    wrong = [
        [NO_GATE, NO_BIASES, ONE_LAYER],
        [SHARE_OF_ALL, WITH_THE_EMBEDDING],
        [ALL_IN_MXFP4, NO_SCALES, BIASES_TOO],
    ]
    run_lesson(kernel, "8_to_gpt_oss", wrong=wrong, checks=CHECKS)


def test_one_line_changes_the_model(tiny: wb.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The cells that load and record run on a checkpoint in the layout of the real ones, and agree to the byte."""
    write_checkpoint(tmp_path, tiny)
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(LESSON.read_text(encoding="utf-8"))["cells"]}
    first = cells["start"].replace('NAME = "tiny"', f"NAME = {str(tmp_path)!r}")
    assert first != cells["start"]
    names: dict[str, Any] = {}
    for source in (first, cells["load-model"], cells["capture"].replace("=400", "=8"), cells["check-bytes"]):
        exec(source, names)
    assert names["model"].name == str(tmp_path)
    assert names["trace"].num_prompt_tokens + 8 >= len(names["trace"])
    assert "queries" in capsys.readouterr().out

"""The figures show the trace's own numbers, and say of what."""

import json
from typing import Any

import numpy as np
import pytest
from random_trace import random_trace

from widgets.figures import INK, SEQUENTIAL, expert_load_figure
from workbench.trace import Trace, TraceError


def heatmap(figure: Any) -> dict[str, Any]:
    """What the browser is sent."""
    (data,) = json.loads(figure.to_json())["data"]
    assert data["type"] == "heatmap"
    return data


@pytest.mark.parametrize(
    ("phase", "rows", "tokens"),
    [("completion", slice(9, 12), "T = 3 completion"), ("prompt", slice(0, 9), "T = 9 prompt"),
     ("all", slice(0, 12), "T = 12 prompt and completion")],
)  # fmt: skip
def test_load_of_each_phase(phase: Any, rows: slice, tokens: str) -> None:
    trace = random_trace()
    figure = expert_load_figure(trace, phase)
    indices = trace.arrays["expert_indices"][rows]
    expected = np.zeros((5, 7))
    for token, layer, rank in np.ndindex(indices.shape):
        expected[layer, indices[token, layer, rank]] += 1 / (len(indices) * 2)
    np.testing.assert_allclose(figure.data[0].z, expected)
    np.testing.assert_array_equal(figure.data[0].customdata, np.rint(expected * len(indices) * 2))
    assert figure.layout.title.text == "Expert load"
    assert figure.layout.title.subtitle.text == (
        f"share of a layer's routed slots, a row sums to 1 · {tokens} tokens · random · live"
    )


def test_scale_starts_at_zero_and_marks_uniform() -> None:
    data = heatmap(expert_load_figure(random_trace()))
    assert data["zmin"] == 0
    assert data["colorbar"]["tickvals"][:2] == [0, 1 / 7]
    assert data["colorbar"]["ticktext"][:2] == ["0", "uniform .143"]
    assert data["zmax"] == data["colorbar"]["tickvals"][2]
    assert data["colorbar"]["title"]["text"].startswith("share of slots")
    assert f"of {3 * 2} slots" in data["hovertemplate"]


def test_cells_carry_numbers_while_they_are_few() -> None:
    few = heatmap(expert_load_figure(random_trace()))
    assert few["texttemplate"] == "%{text}"
    assert {text for row in few["text"] for text in row} <= {"0", ".17", ".33", ".50"}
    many = heatmap(expert_load_figure(random_trace(1, shape={"num_experts": 128})))
    assert "texttemplate" not in many
    assert len(many["x"]) == 128


def test_rows_are_the_captured_layers_from_the_top() -> None:
    trace = random_trace()
    arrays = {"token_ids": trace.arrays["token_ids"], "expert_indices": trace.arrays["expert_indices"][:, [0, 3]]}
    meta = {"num_prompt_tokens": 4, "layers": {"expert_indices": [2, 9]}, "shape": {"num_experts": 7}}
    figure = expert_load_figure(Trace(arrays, (), meta))
    assert list(figure.data[0].y) == ["2", "9"]
    assert (figure.layout.yaxis.type, figure.layout.yaxis.autorange) == ("category", "reversed")


@pytest.mark.parametrize("theme", [None, "light", "dark"])
def test_no_background_and_readable_ink(theme: Any) -> None:
    figure = expert_load_figure(random_trace(), theme=theme)
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.font.color == INK[theme]
    assert [color for _, color in figure.data[0].colorscale] == list(SEQUENTIAL[theme or "light"])
    panels = {"light": ["#ffffff"], "dark": ["#161819"], None: ["#ffffff", "#161819"]}[theme]
    assert all(contrast(INK[theme], panel) > 4 for panel in panels)


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2."""
    low, high = sorted(luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_hostile_model_name_stays_text() -> None:
    trace = random_trace(1, provenance={"model": '<a href="javascript:x">m</a>'})
    subtitle = expert_load_figure(trace).layout.title.subtitle.text
    assert '&lt;a href="javascript:x"&gt;m&lt;/a&gt;' in subtitle


def test_bad_input_is_named() -> None:
    trace = random_trace()
    with pytest.raises(TraceError, match=r"^expected a phase of completion, prompt, all, got 'decode'$"):
        expert_load_figure(trace, "decode")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=r"^expected theme='light', 'dark' or None, got 'blue'$"):
        expert_load_figure(trace, theme="blue")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=r"^the trace has no completion tokens, so their expert load is undefined$"):
        expert_load_figure(random_trace(1, num_prompt_tokens=12))
    bare = Trace({"token_ids": np.arange(5)}, (), {"num_prompt_tokens": 2, "shape": {"num_experts": 4}})
    with pytest.raises(TraceError, match=r"^expert_indices is not in this trace\. Captured: token_ids\.$"):
        expert_load_figure(bare)
    arrays = {name: trace.arrays[name] for name in ("token_ids", "expert_indices")}
    with pytest.raises(TraceError, match="does not record how many experts the model has"):
        expert_load_figure(Trace(arrays, (), {"num_prompt_tokens": 2}))

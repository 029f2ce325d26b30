"""Plotly figures that people hover over and save. Big arrays are drawn by the widgets instead, never as JSON."""

from html import escape
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from workbench.analysis.routing import expert_load
from workbench.trace import Trace, TraceError, TraceView

__all__ = ["expert_load_figure"]

Phase = Literal["completion", "prompt", "all"]
Theme = Literal["light", "dark"]

# Palest to strongest; monotone in lightness, also for the colour-blind.
SEQUENTIAL = {
    "light": ("#f1f4f5", "#cfe3e6", "#92c3cc", "#4f9cb0", "#23708f", "#134a6c", "#0b2844"),
    "dark": ("#1c2226", "#1c3d4c", "#1d5d73", "#2a8696", "#5cb3b3", "#a5d9c8", "#e4f4d6"),
}
# A figure cannot know JupyterLab's theme; without being told it takes a grey of at least 4:1 on both backgrounds.
INK = {None: "#7a7d80", "light": "#14181c", "dark": "#f3f5f6"}
NUMBERED_CELLS = 128


def expert_load_figure(trace: Trace, phase: Phase = "completion", theme: Theme | None = None) -> go.Figure:
    """Draw the load over experts, one row per captured layer.

    Load is the share of a layer's routed slots, ``n_e / (T·k)``; a row sums to 1 and uniform routing gives 1/E, which
    the colour bar marks. See `workbench.analysis.routing.expert_load`.

    Args:
        trace: a trace with ``expert_indices``.
        phase: completion, prompt or all tokens.
        theme: light or dark; None for colours that read on both.

    Raises:
        TraceError: no router captured, no tokens in the phase, an unknown phase or theme.
    """
    if theme not in INK:
        raise TraceError(f"expected theme='light', 'dark' or None, got {theme!r}")
    tokens = _tokens(trace, phase)
    num_experts = _num_experts(trace)
    indices = tokens.array("expert_indices")
    load = expert_load(indices, num_experts)
    slots = len(tokens) * indices.sizes["top_k"]
    uniform = 1 / num_experts
    highest = max(float(load.values.max()), 2 * uniform)
    heatmap = go.Heatmap(
        z=load.values,
        x=list(range(num_experts)),
        y=[str(layer) for layer in trace.layers("expert_indices")],
        customdata=np.rint(load.values * slots).astype(int),
        text=_numbers(load.values),
        texttemplate="%{text}" if load.values.size <= NUMBERED_CELLS else None,
        hovertemplate="layer %{y}, expert %{x}<br>load %{z:.4f}: "
        f"%{{customdata}} of {slots:,} slots<br>uniform {uniform:.4f}<extra></extra>",
        colorscale=list(SEQUENTIAL[theme or "light"]),
        zmin=0,
        zmax=highest,
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": "share of slots<br> "},
            "tickvals": [0, uniform, highest],
            "ticktext": ["0", f"uniform {uniform:.3f}".replace(" 0", " "), _number(highest)],
            "ticks": "outside",
        },
    )
    figure = go.Figure(heatmap)
    figure.update_layout(**_layout(_title(trace, phase, len(tokens), indices.source), load.shape[0], INK[theme]))
    return figure


def _tokens(trace: Trace, phase: str) -> TraceView:
    prompt = trace.num_prompt_tokens
    rows = {"completion": slice(prompt, None), "prompt": slice(0, prompt), "all": slice(0, None)}
    if phase not in rows:
        raise TraceError(f"expected a phase of {', '.join(rows)}, got {phase!r}")
    tokens = trace[rows[phase]]
    if len(tokens) == 0:
        raise TraceError(f"the trace has no {phase} tokens, so their expert load is undefined")
    return tokens


def _num_experts(trace: Trace) -> int:
    recorded = trace.meta.get("shape", {}).get("num_experts")
    if recorded is not None:
        return int(recorded)
    if trace.has("router_logits"):
        return trace.router_logits.sizes["expert"]
    raise TraceError(
        "the trace does not record how many experts the model has; give meta['shape'] = {'num_experts': …}"
    )


def _title(trace: Trace, phase: str, num_tokens: int, source: str) -> dict[str, object]:
    which = "prompt and completion" if phase == "all" else phase
    facts = ["share of a layer's routed slots, a row sums to 1", f"T = {num_tokens:,} {which} tokens"]
    facts += [str(fact) for fact in (trace.provenance.get("model"), source) if fact]
    # plotly reads its texts as a little HTML, and a model's name may come from a file.
    return {
        "text": "Expert load",
        "subtitle": {"text": escape(" · ".join(facts), quote=False)},
        "x": 0,
        "xref": "paper",
    }


def _layout(title: dict[str, object], num_layers: int, ink: str) -> dict[str, object]:
    axis = {"showgrid": False, "zeroline": False, "ticks": "outside", "tickcolor": ink}
    return {
        "title": title,
        "font": {"color": ink, "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {**axis, "title": {"text": "expert"}, "tickformat": "d"},
        "yaxis": {**axis, "title": {"text": "layer"}, "type": "category", "autorange": "reversed"},
        "height": 190 + max(22 * num_layers, 100),
        "margin": {"l": 60, "r": 20, "t": 80, "b": 50},
    }


def _numbers(load: np.ndarray) -> list[list[str]]:
    return [[_number(value) for value in row] for row in load]


def _number(value: float) -> str:
    """Write .08 for 0.08; a share of 1 stays 1.00."""
    return f"{value:.2f}".removeprefix("0") if value else "0"

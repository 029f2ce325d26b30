"""Figures of a page that are there before any script runs: SVG with classes, coloured by the page's style."""

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.compare import Comparison
from workbench.trace import Span, Trace

__all__ = ["Figure", "chain_lengths", "expert_load_figure", "hue", "surprisal_figure"]

CHANNELS = ("system", "developer", "user", "analysis", "commentary", "final", "tool")
WIDTH, LEFT = 960, 64
MOST_BINS = 440
STEPS = 7  # of the sequential ramp

Figure = tuple[str, str]
"""What is said under it, and the drawing, whose texts are escaped."""


def hue(message: Span) -> str:
    """Return what colours a message: its channel, else its role; a tool's name is ``tool``."""
    if message.channel in CHANNELS:
        return message.channel
    if message.role in CHANNELS:
        return message.role
    return "tool" if message.role != "assistant" else "unknown"


def surprisal_figure(trace: Trace) -> Figure | None:
    """Return the surprisal of every token (the largest of each bin), over the channels; None where none is known."""
    if not trace.has("logprobs"):
        return None
    values = -np.asarray(trace.arrays["logprobs"], dtype=np.float64)
    edges = np.linspace(0, len(values), min(MOST_BINS, len(values)) + 1).astype(int)
    pooled = np.array([_largest(values[a:b]) for a, b in pairwise(edges)])
    if not np.isfinite(pooled).any():
        return None
    top, wide = max(_largest(pooled), 1e-9), (WIDTH - LEFT - 8) / len(pooled)
    svg = _svg(132, "Surprisal along the tokens, over the channels")
    for at, value in enumerate(pooled):
        if np.isfinite(value):
            height = max(1.0, 80 * value / top)
            _rect(svg, LEFT + at * wide, 92 - height, max(0.6, wide - 0.4), height, "bar")
    for message in trace.messages:
        x, stop = (LEFT + (WIDTH - LEFT - 8) * at / len(values) for at in (message.start, message.stop))
        _rect(svg, x, 97, stop - x, 10, f"channel-{hue(message)}", f"{hue(message)}, tokens {message.start}–")
    for x, y, words, anchor in (
        (LEFT - 6, 20, f"{top:.1f} nats", "end"),
        (LEFT - 6, 92, "0", "end"),
        (LEFT - 6, 106, "channel", "end"),
        (LEFT, 124, "token 0", "start"),
        (WIDTH - 8, 124, f"{len(values) - 1:,}", "end"),
    ):
        _text(svg, x, y, words, anchor)
    said = f"Surprisal (nats, T = 1) of {len(values):,} tokens; source: {trace.source('logprobs') or 'not recorded'}"
    pooling = "; the largest of each bin" if len(pooled) < len(values) else ""
    return said + pooling + ". Where it is undefined there is no bar.", _markup(svg)


def expert_load_figure(trace: Trace, num_experts: int) -> Figure | None:
    """Return how often each expert of each layer was chosen in the completion; None where it cannot be said."""
    rows = trace.arrays.get("expert_indices")
    if rows is None or trace.num_prompt_tokens >= len(trace) or not num_experts:
        return None
    chosen = rows[trace.num_prompt_tokens :]
    counts = np.stack([np.bincount(layer.ravel(), minlength=num_experts) for layer in np.moveaxis(chosen, 1, 0)])
    load = counts / (len(chosen) * chosen.shape[2])
    wide, high = min(64.0, (WIDTH - LEFT - 8) / num_experts), 22 if num_experts <= 32 else 14
    svg = _svg(24 + high * len(load), "Expert load by layer")
    for row, (layer, shares) in enumerate(zip(trace.layers("expert_indices"), load, strict=True)):
        _text(svg, LEFT - 6, 20 + high * row + high * 0.7, f"layer {layer}", "end")
        _load_row(svg, shares, 20 + high * row, wide, high, load.max())
    for expert in range(0, num_experts, 1 if num_experts <= 16 else 8):
        _text(svg, LEFT + wide * (expert + 0.5), 13, str(expert), "middle")
    said = (
        f"Share of the choices of a layer that went to each expert, %, completion, n = {len(chosen):,} tokens × "
        f"top-{chosen.shape[2]}; 0 to the largest as colour; even would be {100 / num_experts:.1f} %; "
        f"source: {trace.source('expert_indices') or 'not recorded'}."
    )
    return said, _markup(svg)


def _load_row(svg: ElementTree.Element, shares: Any, y: float, wide: float, high: float, most: float) -> None:
    for expert, share in enumerate(shares):
        step = round((STEPS - 1) * share / most)
        name = f"expert {expert}: {100 * share:.1f} %"
        _rect(svg, LEFT + wide * expert, y, wide - 1, high - 1, f"ramp-{step}", name)
        if wide >= 30:
            middle = LEFT + wide * (expert + 0.5)
            _text(svg, middle, y + 0.7 * high, f"{100 * share:.0f}", "middle", f"on-{step}")


def chain_lengths(comparison: Comparison) -> Figure | None:
    """Return the length of every completed chain by group, with mean and 95 % interval; None where there is none."""
    groups = [group for group in comparison.groups if group.chain_tokens.n]
    if not groups:
        return None
    most = max(max(group.chain_tokens.values) for group in groups) or 1
    svg = _svg(26 + 30 * len(groups), "Length of the chains by group")

    def place(tokens: float) -> float:
        return 200 + (WIDTH - 230) * tokens / most

    for row, group in enumerate(groups):
        mean, y = group.chain_tokens, 20 + 30 * row
        _text(svg, 192, y + 4, f"{group.name[:20]} (n = {mean.n})", "end")
        for tokens in mean.values:
            ElementTree.SubElement(svg, "circle", {"class": "dot", "cx": _f(place(tokens)), "cy": _f(y), "r": "4"})
        low, high = mean.interval
        if mean.n > 1:
            _rect(svg, place(low), y - 1, max(1.0, place(high) - place(low)), 2, "interval")
        _rect(svg, place(mean.value) - 1, y - 8, 2, 16, "interval", f"mean {mean}")
    _text(svg, 200, 16 + 30 * len(groups), "0", "middle")
    _text(svg, WIDTH - 30, 16 + 30 * len(groups), f"{most:,.0f} tokens", "end")
    return "Tokens of the analysis channel: each completed rollout, the mean and its 95 % interval.", _markup(svg)


def _largest(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else float("nan")


def _svg(height: float, label: str) -> ElementTree.Element:
    box = f"0 0 {WIDTH} {height:g}"
    return ElementTree.Element("svg", {"viewBox": box, "role": "img", "aria-label": label, "class": "figure"})


def _rect(
    svg: ElementTree.Element, x: float, y: float, width: float, height: float, name: str, said: str | None = None
) -> None:
    at = {"x": _f(x), "y": _f(y), "width": _f(max(0.0, width)), "height": _f(height), "class": name}
    rect = ElementTree.SubElement(svg, "rect", at)
    if said:
        ElementTree.SubElement(rect, "title").text = said


def _text(svg: ElementTree.Element, x: float, y: float, words: str, anchor: str, name: str = "label") -> None:
    at = {"x": _f(x), "y": _f(y), "text-anchor": anchor, "class": name}
    ElementTree.SubElement(svg, "text", at).text = words


def _f(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _markup(svg: ElementTree.Element) -> str:
    return ElementTree.tostring(svg, encoding="unicode")

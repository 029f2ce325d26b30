"""Named interventions, for diagnosis only: each asks one question of one rollout, and brings its control.

None removes refusals. What is changed is read off the rollout itself: its loads, its sink mass, or words of the user's
message. None takes a contrast between refused and answered requests or a direction made of one, and none hides words
of a system's or developer's message, where rules stand. A recipe is a list of ordinary interventions:

    recipe = silence_busiest(model, trace)
    result = experiment(model, trace, recipe.interventions, controls=7)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.attention import sink_mass
from workbench.experiments.aligned import Unchanged
from workbench.experiments.attention import MoveSink, SuppressSpan
from workbench.experiments.controls import expert_loads
from workbench.experiments.experts import ZeroContribution
from workbench.experiments.intervening import Intervention, Tokens, intervene
from workbench.families import ModelError
from workbench.model import Model
from workbench.trace import Span, Trace

__all__ = ["Recipe", "hide_words", "mute_sinks", "silence_busiest"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Interventions with a name."""

    name: str
    diagnoses: str
    """the question that it answers"""
    control: str
    """what `experiment` puts beside it"""
    interventions: tuple[Intervention, ...]


def silence_busiest(model: Model, trace: Trace, tokens: Tokens = "final") -> Recipe:
    """Zero what the busiest expert of each layer adds, at the tokens over which it is the busiest.

    Args:
        model: that made the trace, unchanged.
        trace: the rollout to change.
        tokens: see `workbench.experiments.intervening.Tokens`.

    Raises:
        ModelError: a dense model, or tokens of which the trace has none.
    """
    if not model.router_layers:
        raise ModelError(f"{model.name} is dense ({model.family.name}): it has no experts to silence")
    unchanged = Unchanged(model, trace)
    example = ZeroContribution({model.router_layers[0]: [0]}, tokens)
    with intervene(model, example, num_prompt_tokens=trace.num_prompt_tokens) as reading:
        here = np.array(reading.would_touch(unchanged.token_ids))
        reading.require_touched("the trace")
    loads = expert_loads(unchanged.expert_indices(), model.router_layers, model.num_experts, here)
    return Recipe(
        f"silence the busiest experts at {tokens}",
        "does what the model says there rest on the experts that carry most of the load?",
        "as many experts of the same layers, of the nearest load; none is as busy, so a rank of 1 alone says little",
        (ZeroContribution({layer: [int(load.argmax())] for layer, load in loads.items()}, tokens),),
    )


def mute_sinks(trace: Trace, by: float = 12.0, tokens: Tokens = "all") -> Recipe:
    """Lower the sink logit of the head with the most sink mass in each captured layer, so that it looks at tokens.

    Args:
        trace: with ``attention_logsumexp`` and ``sink_logits``.
        by: logits; 12 leaves e⁻¹² of the sink.
        tokens: see `workbench.experiments.intervening.Tokens`.

    Raises:
        ModelError: a trace without sink mass, or of a family without sinks.
    """
    if not (trace.has("attention_logsumexp") and trace.has("sink_logits")):
        raise ModelError(
            "the trace has no sink mass: its family has no sinks, or attention was not captured; capture it with "
            "CaptureSpec(attention=True)"
        )
    mass = sink_mass(trace.attention_logsumexp, trace.sink_logits)
    most = mass.values.mean(0).argmax(-1)
    heads = {int(layer): [int(head)] for layer, head in zip(mass.coords["layer"], most, strict=True)}
    return Recipe(
        "mute the strongest attention sinks",
        "does the model need heads that can look at nothing?",
        "other heads of the same layers, with the same number of logits",
        (MoveSink(heads, tokens, by=-by),),
    )


def hide_words(trace: Trace, words: str) -> Recipe:
    """Hide words of the user's last message, such as a hint, from every later token.

    Args:
        trace: the rollout to change.
        words: as they stand in the message, once.

    Raises:
        ModelError: no user's message, or words that are not in it or stand there more than once.
    """
    said = [m for m in trace.messages if m.role == "user" and m.stop <= trace.num_prompt_tokens]
    if not said:
        raise ModelError("expected a trace whose prompt has a user's message, got none")
    start, stop = _place(trace, said[-1], words)
    length, (first, last) = stop - start, _content(trace, said[-1])
    apart = [at for at in range(first, last - length + 1) if at + length <= start or at >= stop]
    return Recipe(
        f"hide {words!r}",
        "does the answer come from these words?",
        "as many tokens elsewhere in the same message",
        (SuppressSpan((start, stop), elsewhere=[(at, at + length) for at in apart]),),
    )


def _content(trace: Trace, message: Span) -> tuple[int, int]:
    inside = [at for at in range(message.content_start, message.stop) if not trace.is_special(at)]
    return (inside[0], inside[-1] + 1) if inside else (message.content_start, message.content_start)


def _place(trace: Trace, message: Span, words: str) -> tuple[int, int]:
    """Return the tokens ``[start, stop)`` that words are written in."""
    first, last = _content(trace, message)
    pieces = [trace.token_bytes(int(i)) for i in trace.arrays["token_ids"][first:last]]
    text, wanted = b"".join(pieces), words.encode()
    count = text.count(wanted) if wanted else 0
    if count != 1:
        shown = " ".join(text.decode("utf-8", "replace").split())[:200]
        raise ModelError(
            f"expected words that stand once in the user's message {shown!r}, got {words!r}, which stands there "
            f"{count} times; give more or other words"
        )
    ends: NDArray[np.int64] = np.cumsum([len(piece) for piece in pieces])
    at = text.index(wanted)
    begin, end = np.searchsorted(ends, (at, at + len(wanted) - 1), side="right")
    return first + int(begin), first + int(end) + 1

"""ExpertCard: what one expert takes, in the notebook."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import traitlets

from widgets.bundle import bundle, styles
from widgets.routing_facts import key_of, routing_facts, token_set_of
from widgets.selection import SharedSelection, selection_key
from workbench.analysis.expert_profile import FORMAT, ExpertProfile, GroupRate, LayerChoices, expert_profile
from workbench.analysis.layer_choices import NO_CHANNEL
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import Trace, TraceError

__all__ = ["CardReader", "ExpertCard", "card_of"]

FOLDER = Path(__file__).parent
# What is sent at once must be made in a second or two: a profile takes a millisecond for every 1,000 tokens and half
# of one for every trace.
PRELOAD_CARDS, PRELOAD_TOKENS, PRELOAD_CARD_TRACES = 256, 20_000, 2_560


def card_of(profile: ExpertProfile) -> dict[str, Any]:
    """Return a profile as the JSON that js/expert_panel.js draws."""
    null = profile.null
    return {
        "layer": profile.layer,
        "expert": profile.expert,
        "topK": profile.top_k,
        "selection": profile.selection,
        "phase": profile.phase,
        "tokens": profile.num_tokens,
        "traces": profile.num_traces,
        "chosen": profile.chosen,
        "uniform": profile.uniform,
        "meanWeight": profile.mean_weight,
        "ranks": list(profile.rank_counts),
        "lifts": {
            "rows": [asdict(token) for token in profile.tokens],
            "minCount": profile.min_count,
            "numIds": profile.num_ids,
            "numAbove": profile.num_above,
            "null": None if null is None else asdict(null),
            "numTopics": profile.num_topics,
        },
        "channels": _groups(profile.channels),
        "roles": _groups(profile.roles),
        "positions": [list(counts) for counts in profile.positions],
        "partners": [asdict(partner) for partner in profile.partners],
        "uniformPartnerLift": profile.uniform_partner_lift,
        "examples": [asdict(example) for example in profile.examples],
    }


def _groups(groups: Sequence[GroupRate] | None) -> list[dict[str, Any]] | None:
    """Return groups as JSON; ``isPlain`` marks those that are no channel or role and so have no colour."""
    if groups is None:
        return None
    return [asdict(group) | {"isPlain": group.name in (FORMAT, NO_CHANNEL)} for group in groups]


class CardReader:
    """Reads the cards of a `TokenSet`'s experts; keeps the choices of one layer, so that its experts come quickly.

    Args:
        token_set: which tokens of which traces.
        options: of `expert_profile`: min_count, shuffles, seed, topics.
    """

    def __init__(self, token_set: TokenSet, **options: Any) -> None:
        """Make a reader; nothing is read yet."""
        self.token_set = token_set
        self._options = options
        self._choices: LayerChoices | None = None

    def read(self, layer: int, expert: int) -> dict[str, Any]:
        """Return a card, with the selection key of each example's trace; raises `TraceError` as `expert_profile`."""
        if self._choices is None or self._choices.layer != layer:
            self._choices = LayerChoices.gather(self.token_set, layer)
        card = card_of(expert_profile(self._choices, layer, expert, **self._options))
        for example in card["examples"]:
            example["key"] = selection_key([self.token_set.traces[example["trace"]]])
        return card

    def answer(self, key: str) -> dict[str, Any]:
        """Return the card that the browser asks for as ``layer/expert``, or ``{"error": why}``."""
        try:
            layer, expert = (int(number) for number in key.split("/"))
        except ValueError:
            return {"error": f"expected the key of a card, such as 13/7, got {key!r}"}
        try:
            return self.read(layer, expert)
        except TraceError as error:
            return {"error": str(error)}

    def preload(self) -> dict[str, dict[str, Any]]:
        """Return all cards by key where they are few and quickly made, else none."""
        layers, experts = self.token_set.layers, self.token_set.num_experts
        cards = len(layers) * experts
        if cards > PRELOAD_CARDS or cards * self.token_set.num_traces > PRELOAD_CARD_TRACES:
            return {}
        if self.token_set.num_tokens > PRELOAD_TOKENS:
            return {}
        return {f"{layer}/{expert}": self.read(layer, expert) for layer in layers for expert in range(experts)}


class ExpertCard(SharedSelection):
    """One expert of one layer: which tokens it takes, in which channel and role, where, beside whom; examples.

    It shows the selected layer and expert. Of one trace, an example moves the selection of all its views; of several,
    that of the views of the example's trace.

    Args:
        traces: a trace, several of one model, a `TraceStore`, or a `TokenSet`.
        layer, expert: where to start; None for where other views of the same traces are, else the first captured
            layer and expert 0.
        phase: completion (the default), prompt, or all; of what is no `TokenSet`.
        channel, role: take the content of such messages only; of what is no `TokenSet`.
        min_count, shuffles, seed, topics: see `workbench.analysis.expert_profile.expert_profile`.

    Raises:
        TraceError: what `TokenSet` or `expert_profile` refuse, or a phase, channel or role for a `TokenSet`.
        TraitError: a layer or expert outside the model.
    """

    _esm = bundle(FOLDER / "expert_card.js")
    _css = styles(FOLDER / "view.css", FOLDER / "expert_card.css")

    _facts = traitlets.Dict().tag(sync=True)
    _cards = traitlets.Dict(help="the cards that come with the view, by layer/expert").tag(sync=True)

    def __init__(
        self,
        traces: Trace | Traces | TokenSet,
        *,
        layer: int | None = None,
        expert: int | None = None,
        phase: Phase | None = None,
        channel: str | None = None,
        role: str | None = None,
        min_count: int = 10,
        shuffles: int = 200,
        seed: int = 0,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Show a card; see the class."""
        token_set = token_set_of(traces, phase, channel, role)
        self._reader = CardReader(token_set, min_count=min_count, shuffles=shuffles, seed=seed, topics=topics)
        first = token_set.layers[0]
        self._reader.read(first, 0)  # what is wrong with the options shows here, not in the browser
        facts = routing_facts(token_set)
        super().__init__(
            key_of(token_set),
            facts["counts"],
            {"layer": layer, "expert": expert},
            {"layer": first},
            _facts=facts,
            _cards=self._reader.preload(),
        )
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser, which asks for one card at a time."""
        if isinstance(message, dict) and isinstance(message.get("card"), str):
            self.send({"key": message["card"], "card": self._reader.answer(message["card"])})

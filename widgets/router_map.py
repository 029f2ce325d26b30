"""RouterMap: layers × experts. Who takes how much, what two selections route differently, what one token chose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import traitlets
from numpy.typing import NDArray

from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.expert_card import CardReader
from widgets.map_contrast import Contrast, Given, contrasts_of, tested_phases
from widgets.routing_facts import PHASES, PhaseRouting, key_of, routing_facts
from widgets.selection import SharedSelection
from workbench.analysis.routing import PermutationTest
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import Trace, TraceError

__all__ = ["RouterMap"]

FOLDER = Path(__file__).parent
SHOWS, ORDERS = ("load", "contrast", "token"), ("index", "load", "cluster")
CHANNELS = ("final", "analysis")  # of the default contrast
FEW = 16  # traces up to which it is counted unasked: that goes eight times through them
CARD_TOKENS = 1_000_000  # experts × tokens up to which all cards come with the view: one or two seconds
ROUTED = ("expert_indices", "expert_weights")

_NO_CLUSTERS = "order='cluster' is by co-activation, and each token chooses one expert: choose index or load"
_NO_TOKEN = "show='token' follows the token of one trace, got {} traces"


class RouterMap(SharedSelection):
    """How the experts of every layer are used.

    It joins the selection of the other views of the same traces. Everything but the cards of large models comes with
    the view, so that switching and stepping need no kernel.

    Args:
        traces: a trace, several of one model, or a `TraceStore`.
        show: ``load``: each expert's share of the routed slots; ``contrast``: by how much the tokens of one selection
            choose it more often than those of another; ``token``: rank and weight of the selected token's choice,
            of one trace.
        phase: completion, prompt, or all.
        order: of the experts in a row: by index, by the row's load, or clustered: those chosen together side by side.
        contrast: two channels, or two `TokenSet`, by label in a dict or as ``(a, b)``; final − analysis by default, of
            more than 16 traces only when a contrast is to be shown.
        test: what `permutation_test` found for the contrast. Only with it are cells marked.
        layer, expert, token: where to start; by default where the other views of the traces are.

    Raises:
        TraceError: what `TokenSet` refuses; a token, a contrast or clusters are asked for and there are none; the
            test is not of the contrast.
        TraitError: the selection is outside the traces, or an option is not one of those named.
    """

    _esm = bundle(FOLDER / "router_map.js")
    _css = styles(FOLDER / "view.css", FOLDER / "expert_card.css", FOLDER / "router_map.css")

    show = traitlets.Enum(SHOWS, "load", help="what the cells are").tag(sync=True)
    phase = traitlets.Enum(PHASES, "completion", help="which tokens are counted").tag(sync=True)
    order = traitlets.Enum(ORDERS, "index", help="how the experts of a row are sorted").tag(sync=True)

    _facts = traitlets.Dict().tag(sync=True)
    _arrays = traitlets.Dict(help="kind/phase → bytes").tag(sync=True)
    _blocks = traitlets.Dict(help="choices of the one trace; see widgets/blocks.py").tag(sync=True)
    _cards = traitlets.Dict(help="phase/layer/expert → card").tag(sync=True)

    def __init__(
        self,
        traces: Trace | Traces,
        *,
        show: Literal["load", "contrast", "token"] = "load",
        phase: Phase = "completion",
        order: Literal["index", "load", "cluster"] = "index",
        contrast: Given | None = None,
        test: PermutationTest | None = None,
        layer: int | None = None,
        expert: int | None = None,
        token: int | None = None,
    ) -> None:
        """Count, and show the map; see the class."""
        self._shown = shown = TokenSet(traces, phase=phase)
        asked = contrast is not None or test is not None or show == "contrast"
        contrasts = contrasts_of(shown, contrast or CHANNELS) if asked or shown.num_traces <= FEW else _not_counted()
        _check_asked(shown, show, order, contrasts[phase])
        tested = [] if test is None else tested_phases(contrasts, test)
        routing = _routing(shown)
        one = shown.traces[0] if shown.num_traces == 1 else None
        self._reader = None if one is None else TraceBlocks(one)
        self._cards_of: dict[str, CardReader] = {}
        facts = routing_facts(shown)
        super().__init__(
            key_of(shown),
            facts["counts"],
            {"layer": layer, "expert": expert, "token": token},
            {"layer": shown.layers[0]} | ({} if one is None else {"token": min(one.num_prompt_tokens, len(one) - 1)}),
            show=show,
            phase=phase,
            order=order,
            _facts=facts
            | {
                "trace": None if self._reader is None else _trace_facts(self._reader),
                "phases": {name: _phase_facts(found) for name, found in routing.items()},
                "contrasts": {n: {"missing": c} if isinstance(c, str) else c.facts() for n, c in contrasts.items()},
                "orders": {} if shown.top_k > 1 else {"cluster": _NO_CLUSTERS},
                "test": None if test is None else _test_facts(test, tested),
            },
            _arrays=_arrays(routing, contrasts, test, tested),
            _blocks=self._choices(),
            _cards=self._some_cards(routing),
        )
        self.on_msg(self._answer)

    @traitlets.validate("show", "order")
    def _check_choice(self, proposal: Any) -> str:
        facts, value = self._facts, str(proposal["value"])
        if value == "token" and facts["trace"] is None:
            raise traitlets.TraitError(_NO_TOKEN.format(facts["numTraces"]))
        if value == "contrast" and all("missing" in c for c in facts["contrasts"].values()):
            raise traitlets.TraitError(next(c["missing"] for c in facts["contrasts"].values()))
        if value in facts["orders"]:
            raise traitlets.TraitError(_NO_CLUSTERS)
        return value

    def _some_cards(self, routing: Mapping[Phase, "PhaseRouting | str"]) -> dict[str, dict[str, Any]]:
        """Return the cards of one trace by phase/layer/expert where they are quickly made, else none."""
        known = {name: found for name, found in routing.items() if not isinstance(found, str)}
        work = sum(found.counts.size * found.num_tokens for found in known.values())
        if self._reader is None or work > CARD_TOKENS:
            return {}
        return {f"{name}/{key}": card for name in known for key, card in self._cards_in(name).preload().items()}

    def _cards_in(self, phase: Phase) -> CardReader:
        """Return what reads the cards of a phase. Raises `TraceError` when it has no tokens."""
        if phase not in self._cards_of:
            is_shown = phase == self._shown.phase
            self._cards_of[phase] = CardReader(self._shown if is_shown else TokenSet(self._shown.traces, phase=phase))
        return self._cards_of[phase]

    def _choices(self) -> dict[str, bytes]:
        """Return the token ids of the one trace, and its experts and weights where they are not too large."""
        if self._reader is None:
            return {}
        trace = self._reader.trace
        names = [name for name in ROUTED if trace.has(name)]
        keys = ["all/token_ids"]
        if sum(trace.arrays[name].nbytes for name in names) <= PRELOAD_LIMIT_BYTES:
            pages = range(-(-len(trace) // self._reader.page["token"]))
            keys += [f"token/{name}/{page}" for name in names for page in pages]
        return {key: self._reader.read(key) for key in keys}

    def _answer(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer the browser: the card of an expert, or choices of a large trace."""
        if not isinstance(message, dict):
            return
        if isinstance(key := message.get("card"), str):
            self.send({"key": key, "card": self._card(key)})
        elif isinstance(keys := message.get("fetch"), list) and self._reader is not None:
            self.send_blocks(self._reader, keys)

    def _card(self, key: str) -> dict[str, Any]:
        phase, _, rest = key.partition("/")
        if phase not in PHASES:
            return {"error": f"expected the key of a card, such as completion/13/7, got {key!r}"}
        try:
            return self._cards_in(phase).answer(rest)
        except TraceError as error:
            return {"error": str(error)}


def _not_counted() -> dict[Phase, Contrast | str]:
    why = f"of more than {FEW} traces a contrast is counted when asked for: RouterMap(…, show='contrast')"
    return dict.fromkeys(PHASES, why)


def _routing(shown: TokenSet) -> dict[Phase, PhaseRouting | str]:
    """Return the routing of each phase, or why there is none."""
    completion, prompt = (_phase(shown, phase) for phase in ("completion", "prompt"))
    if isinstance(completion, str) or isinstance(prompt, str):
        both = prompt if isinstance(completion, str) else completion
    else:
        both = completion.plus(prompt)
    return {"completion": completion, "prompt": prompt, "all": both}


def _phase(shown: TokenSet, phase: Phase) -> PhaseRouting | str:
    if shown.phase == phase:
        return PhaseRouting.of(shown)
    try:
        return PhaseRouting.of(TokenSet(shown.traces, phase=phase))
    except TraceError as error:  # the traces were accepted: there is no such token
        return str(error)


def _check_asked(shown: TokenSet, show: str, order: str, contrast: Contrast | str) -> None:
    if show == "token" and shown.num_traces > 1:
        raise TraceError(_NO_TOKEN.format(shown.num_traces))
    if show == "contrast" and isinstance(contrast, str):
        raise TraceError(contrast)
    if order == "cluster" and shown.top_k < 2:
        raise TraceError(_NO_CLUSTERS)


def _test_facts(test: PermutationTest, tested: list[Phase]) -> dict[str, Any]:
    p = test.p_values.values
    layers, experts = p.shape
    found = f"Corrected p < .05 in {int((p < 0.05).sum())} of {layers} × {experts} cells"
    traces = f"{test.num_traces_a} and {test.num_traces_b} traces"
    return {
        "words": f"{found}; {traces}, max-statistic: {test.method}.",
        "phases": tested,
        "withinTopics": "within topics" in test.delta.source,
    }


def _phase_facts(found: PhaseRouting | str) -> dict[str, Any]:
    return {"missing": found} if isinstance(found, str) else {"tokens": found.num_tokens}


def _trace_facts(reader: TraceBlocks) -> dict[str, Any]:
    """Return the facts of a trace with no array but what the map shows of it."""
    facts = reader.facts()
    return facts | {"arrays": {n: a for n, a in facts["arrays"].items() if n in (*ROUTED, "token_ids")}}


def _arrays(
    routing: Mapping[Phase, PhaseRouting | str],
    contrasts: Mapping[Phase, Contrast | str],
    test: PermutationTest | None,
    tested: list[Phase],
) -> dict[str, bytes]:
    """Return counts, entropy, contrasts and p values as float64 and orders as int32, C order, little endian."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, found in routing.items():
        if not isinstance(found, str):
            arrays |= {f"counts/{name}": found.counts, f"entropy/{name}": found.entropy, f"order/{name}": found.order}
    for name, c in contrasts.items():
        if not isinstance(c, str):
            arrays |= {f"contrast/{name}": c.delta, f"rate_a/{name}": c.a.rates, f"rate_b/{name}": c.b.rates}
    if test is not None:
        for name in tested:
            arrays |= {f"contrast/{name}": test.delta.values, f"p/{name}": test.p_values.values}
    types = {key: "<i4" if key.startswith("order/") else "<f8" for key in arrays}
    return {key: np.ascontiguousarray(array, types[key]).tobytes() for key, array in arrays.items()}

"""RouterMap: layers × experts. Who takes how much, what two selections route differently, what one token chose."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import traitlets
from numpy.typing import NDArray

from widgets.blocks import PRELOAD_LIMIT_BYTES, TraceBlocks
from widgets.bundle import bundle, styles
from widgets.expert_card import CardReader
from widgets.routing_facts import PHASES, PhaseRouting, phase_sets, routing_facts
from widgets.selection import SharedSelection, selection_key
from workbench.analysis.routing import PermutationTest
from workbench.analysis.token_set import Phase, TokenSet, Traces
from workbench.trace import Trace, TraceError

__all__ = ["RouterMap"]

FOLDER = Path(__file__).parent
SHOWS, ORDERS = ("load", "contrast", "token"), ("index", "load", "cluster")
ROUTED = ("expert_indices", "expert_weights")

_NO_CLUSTERS = "each token chooses one expert: none are chosen together"

Contrast: TypeAlias = tuple[str, str] | tuple[TokenSet, TokenSet] | Mapping[str, TokenSet]


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
        contrast: two channels, or two `TokenSet`, by label in a dict or as ``(a, b)``; final − analysis by default.
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
        contrast: Contrast = ("final", "analysis"),
        test: PermutationTest | None = None,
        layer: int | None = None,
        expert: int | None = None,
        token: int | None = None,
    ) -> None:
        """Count, and show the map; see the class."""
        sets = phase_sets(traces, phase)
        shown = cast("TokenSet", sets[phase])
        pairs = _pairs(shown, contrast)
        tested = {} if test is None else _tested(pairs, test)
        one = shown.traces[0] if shown.num_traces == 1 else None
        _check_choice(shown, show, order, pairs[phase])
        self._reader = None if one is None else TraceBlocks(one)
        self._readers = {name: CardReader(found) for name, found in sets.items() if isinstance(found, TokenSet)}
        facts = routing_facts(shown)
        start = {"layer": shown.layers[0]}
        if one is not None:
            start["token"] = min(one.num_prompt_tokens, len(one) - 1)
        super().__init__(
            selection_key(shown.traces),
            facts["counts"],
            {"layer": layer, "expert": expert, "token": token},
            start,
            show=show,
            phase=phase,
            order=order,
            _facts=facts | self._more_facts(sets, pairs, test, tested),
            _arrays=_arrays(sets, pairs, tested),
            _blocks=self._choices(),
            _cards={
                f"{name}/{key}": card
                for name, reader in self._readers.items()
                for key, card in reader.preload().items()
            },
        )
        self.on_msg(self._answer)

    def _more_facts(
        self,
        sets: Mapping[str, TokenSet | str],
        pairs: Mapping[str, "_Pair | str"],
        test: PermutationTest | None,
        tested: Mapping[str, PermutationTest],
    ) -> dict[str, Any]:
        one = next(found for found in sets.values() if isinstance(found, TokenSet))
        return {
            "trace": None if self._reader is None else _trace_facts(self._reader),
            "phases": {name: _phase_facts(found) for name, found in sets.items()},
            "contrasts": {
                name: {"missing": pair} if isinstance(pair, str) else pair.facts() for name, pair in pairs.items()
            },
            "orders": {} if one.top_k > 1 else {"cluster": _NO_CLUSTERS},
            "test": None if test is None else _test_facts(test, tested),
        }

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
            phase, _, rest = key.partition("/")
            known = self._readers.get(phase)
            error = {"error": f"expected the key of a card, such as completion/13/7, got {key!r}"}
            self.send({"key": key, "card": error if known is None else known.answer(rest)})
        elif isinstance(keys := message.get("fetch"), list) and self._reader is not None:
            found, failed = self._reader.read_all(keys)
            self.send({"blocks": list(found), "failed": failed}, list(found.values()))


def _check_choice(shown: TokenSet, show: str, order: str, pair: "_Pair | str") -> None:
    if show == "token" and shown.num_traces > 1:
        raise TraceError(f"show='token' follows the token of one trace, got {shown.num_traces} traces")
    if show == "contrast" and isinstance(pair, str):
        raise TraceError(pair)
    if order == "cluster" and shown.top_k < 2:
        raise TraceError(f"order='cluster' is by co-activation, but {_NO_CLUSTERS}. Choose index or load.")


class _Pair:
    """A contrast: two selections, and how often each chooses an expert."""

    def __init__(self, names: tuple[str, str], sets: tuple[TokenSet, TokenSet]) -> None:
        self.names, self.sets = names, sets
        self.rates = tuple(s.expert_counts()[0].sum(0) / s.num_tokens for s in sets)

    @property
    def delta(self) -> NDArray[np.float64]:
        """[layer, expert], ``a₁/N₁ − a₂/N₂``, see `expert_contrast`."""
        difference: NDArray[np.float64] = self.rates[0] - self.rates[1]
        return difference

    def facts(self) -> dict[str, Any]:
        (a, b), (set_a, set_b) = self.names, self.sets
        return {
            **{"a": a, "b": b, "aTokens": set_a.num_tokens, "bTokens": set_b.num_tokens},
            "selections": [str(set_a), str(set_b)],
        }


def _pairs(shown: TokenSet, contrast: Contrast) -> dict[str, _Pair | str]:
    """Return the contrast of each phase, or why there is none. Two sets of tokens are what they are in every phase."""
    given = tuple(contrast.items()) if isinstance(contrast, Mapping) else tuple(zip("ab", contrast, strict=False))
    values = [value for _, value in given]
    if len(given) != 2 or not (
        all(isinstance(v, str) for v in values) or all(isinstance(v, TokenSet) for v in values)
    ):
        raise TraceError(f"expected a contrast of two channels or of two TokenSets, got {contrast!r}")
    if isinstance(values[0], str):
        return {phase: _channels(shown.traces, phase, values[0], str(values[1])) for phase in PHASES}
    names, (a, b) = (str(given[0][0]), str(given[1][0])), cast("list[TokenSet]", values)
    for name, chosen in zip(names, (a, b), strict=True):
        if (chosen.model, chosen.num_experts, chosen.layers) != (shown.model, shown.num_experts, shown.layers):
            raise TraceError(f"expected a contrast within the model and layers of {shown}; {name} is {chosen}")
    pair = _Pair(names, (a, b))
    return dict.fromkeys(PHASES, pair)


def _channels(traces: Traces, phase: Phase, a: str, b: str) -> _Pair | str:
    try:
        return _Pair((a, b), (TokenSet(traces, phase=phase, channel=a), TokenSet(traces, phase=phase, channel=b)))
    except TraceError as error:  # the traces were accepted: a channel has no token here
        return str(error)


def _tested(pairs: Mapping[str, _Pair | str], test: PermutationTest) -> dict[str, PermutationTest]:
    """Return the test by the phases whose contrast it is of. Within topics, Δ differs, so traces are compared."""
    sets = [pair for pair in pairs.values() if isinstance(pair, _Pair)]
    within_topics = "within topics" in test.delta.source and len(set(map(id, sets))) == 1
    found = {}
    for name, pair in pairs.items():
        if isinstance(pair, str) or pair.delta.shape != test.delta.shape:
            continue
        traces = [int((tokens > 0).sum()) for _, tokens in (s.expert_counts() for s in pair.sets)]
        same = within_topics and traces == [test.num_traces_a, test.num_traces_b]
        if same or np.allclose(pair.delta, test.delta.values):
            found[name] = test
    if not found:
        raise TraceError(
            "The test is of other tokens than the contrast: their differences disagree. Give permutation_test the "
            "expert_counts() of the two TokenSets of the contrast; with topics, give the TokenSets as contrast=, too."
        )
    return found


def _test_facts(test: PermutationTest, tested: Mapping[str, PermutationTest]) -> dict[str, Any]:
    p = test.p_values.values
    layers, experts = p.shape
    found = f"Corrected p < .05 in {int((p < 0.05).sum())} of {layers} × {experts} cells"
    traces = f"{test.num_traces_a} and {test.num_traces_b} traces"
    return {
        "words": f"{found}; {traces}, max-statistic: {test.method}.",
        "phases": list(tested),
        "withinTopics": "within topics" in test.delta.source,
    }


def _phase_facts(found: TokenSet | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"missing": found}
    return {"tokens": found.num_tokens, "selection": str(found)}


def _trace_facts(reader: TraceBlocks) -> dict[str, Any]:
    """Return the facts of a trace with no array but what the map shows of it."""
    facts = reader.facts()
    return facts | {"arrays": {n: a for n, a in facts["arrays"].items() if n in (*ROUTED, "token_ids")}}


def _arrays(
    sets: Mapping[str, TokenSet | str],
    pairs: Mapping[str, _Pair | str],
    tested: Mapping[str, PermutationTest],
) -> dict[str, bytes]:
    """Return counts, entropy, contrasts and p values as float64 and orders as int32, C order, little endian."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, found in sets.items():
        if isinstance(found, TokenSet):
            routing = PhaseRouting.of(found)
            arrays |= {f"counts/{name}": routing.counts, f"entropy/{name}": routing.entropy}
            arrays[f"order/{name}"] = routing.order
    for name, pair in pairs.items():
        if not isinstance(pair, str):
            arrays |= {
                f"contrast/{name}": pair.delta,
                f"rate_a/{name}": pair.rates[0],
                f"rate_b/{name}": pair.rates[1],
            }
    for name, test in tested.items():
        arrays |= {f"contrast/{name}": test.delta.values, f"p/{name}": test.p_values.values}
    return {
        key: np.ascontiguousarray(a, "<i4" if key.startswith("order/") else "<f8").tobytes()
        for key, a in arrays.items()
    }

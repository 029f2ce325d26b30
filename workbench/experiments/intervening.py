"""Interventions: change what a model computes at chosen tokens, and leave it as it was.

Everything is done by forward hooks that are removed when the context ends, however it ends; weights are never
written to. `workbench.capture` and `workbench.replay` work inside as outside, and the traces they make say in
``meta["intervention"]`` what was done.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from workbench.families import ModelError
from workbench.harmony import CHANNELS, HarmonyParser
from workbench.model import Model
from workbench.remote import Place, place_of

__all__ = ["Intervention", "Reading", "Rows", "Tokens", "blend", "intervene"]

Tokens = str | tuple[int, int | None]
"""The tokens at whose forward a model is changed.

``all``; ``prompt``; ``completion``; ``analysis``, ``commentary`` or ``final``, the content of the completion's
messages on that channel, without headers and closing tokens; or positions ``(start, stop)``, where a stop of None has
no end. A channel is told from the tokens read so far, so it means the same while a model generates and in a replay.
"""

NAMED = ("all", "prompt", "completion", *CHANNELS)


@dataclass(frozen=True)
class Later:
    """The tokens after some others have begun that are not among them; only changes to attention are made there."""

    tokens: Tokens


Rows = Tensor | None
"""Which rows of a forward are changed: bool [row], or None for all of them."""


@dataclass(frozen=True)
class Intervention(ABC):
    """One change. Subclasses say where it acts and what it does there."""

    variant: ClassVar[str]
    """its name in every result; different variants answer different questions"""
    order: ClassVar[int] = 0
    """of two changes to one module, that of the lower order comes first"""

    @abstractmethod
    def check(self, model: Model, together: Sequence["Intervention"]) -> None:
        """Raise `ModelError` where it cannot be done to this model, or not with the others."""

    @abstractmethod
    def attach(self, reading: "Reading") -> None:
        """Put the hooks, by `Reading.change_output` and `Reading.change_input`."""

    def random_control(self, model: Model, rng: np.random.Generator) -> "Intervention":
        """Return the same change of something else, drawn at random. Raises `ModelError` where that means nothing."""
        raise ModelError(f"{self.variant} has no random control; pass controls=0")

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what it does, to be written as JSON: ``variant``, ``tokens``, and what it is done to."""


class Reading:
    """The sequence a changed model is reading: which of its tokens the forward that runs now is about.

    A hook in front of the model sees the token ids of each forward; where a cache is empty, a sequence begins.
    """

    def __init__(self, model: Model, num_prompt_tokens: int | None) -> None:
        """Begin before the first token."""
        self.model, self.num_prompt_tokens = model, num_prompt_tokens
        self.token_ids: list[int] = []
        """read so far; -1 where nothing depends on which"""
        self.start = 0
        """the first token of the forward that runs, or ran last"""
        self.shared: dict[Any, Any] = {}
        """what hooks of one forward leave for one another"""
        self.handles: list[RemovableHandle] = []
        self._members: dict[Tokens | Later, list[bool]] = {}
        self._begun: set[Tokens] = set()
        self._changed: list[Tokens | Later] = []
        self._rows: dict[Tokens | Later, Rows | bool] = {}
        self._parser = HarmonyParser(model.tokenizer)
        self._by_channel = self._off = False
        self._fired: set[int] = set()
        self._points: list[str] = []
        self._sent: list[tuple[Place, Tokens | Later, Any]] = []

    def __reduce__(self) -> Any:
        """Refuse to be sent along with a change: there is no reading where the model is."""
        raise ModelError(f"a change of {self.model.name} follows the tokens as they are read, so it cannot be sent")

    def watch(self) -> None:
        """Put the hooks around the whole model; where it runs elsewhere, be asked for what is sent there."""
        if self.model.remote:
            self.model.edits = self._to_send
        else:
            self.handles.append(self.model.hf.register_forward_pre_hook(self._begin, with_kwargs=True))
            self.handles.append(self.model.hf.register_forward_hook(self._end))

    def change_output(
        self, module: nn.Module, where: str, tokens: Tokens | Later, edit: Callable[[Any, Rows], Any]
    ) -> None:
        """Replace the output of a module by ``edit(output, rows)`` where a forward reads any of the tokens."""
        point = self._point(where, tokens)
        if self.model.remote:
            self._sent.append((place_of(self.model, module, where), tokens, edit))
            return

        def hook(_module: Any, _args: Any, output: Any) -> Any:
            rows = self._rows_now(point, tokens)
            return None if rows is False else edit(output, None if rows is True else rows)

        self.handles.append(module.register_forward_hook(hook))

    def change_input(
        self,
        module: nn.Module,
        where: str,
        tokens: Tokens | Later,
        edit: Callable[[tuple[Any, ...], dict[str, Any], Rows], tuple[tuple[Any, ...], dict[str, Any]]],
    ) -> None:
        """Replace what a module is called with by ``edit(args, kwargs, rows)``."""
        point = self._point(where, tokens)
        if self.model.remote:
            self._sent.append((place_of(self.model, module, where), tokens, edit))
            return

        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            rows = self._rows_now(point, tokens)
            return None if rows is False else edit(args, kwargs, None if rows is True else rows)

        self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    @property
    def asks_for_the_prompt(self) -> bool:
        """Whether some tokens are named by where the completion begins."""
        named = (tokens.tokens if isinstance(tokens, Later) else tokens for tokens in self._members)
        return any(isinstance(tokens, str) and tokens != "all" for tokens in named)

    def members(self, tokens: Tokens | Later) -> list[bool]:
        """Return, for every token read so far, whether it is one of the tokens."""
        return self._members[tokens]

    def touched(self) -> list[bool]:
        """Return, for every token read so far, whether its forward was changed anywhere."""
        return [any(here) for here in zip(*(self._members[tokens] for tokens in self._changed), strict=True)]

    def would_touch(self, token_ids: Sequence[int]) -> list[bool]:
        """Return `touched` for a sequence, without a forward."""
        self.start = 0
        self._rewind()
        for token in token_ids:
            self._take(token)
        return self.touched()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Leave the model unchanged inside, for another sequence."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def require_touched(self, what: str) -> None:
        """Raise `ModelError` where a change found none of its tokens in the sequence read last."""
        for tokens, members in self._members.items():
            if not any(members):
                raise ModelError(
                    f"nothing was changed: none of the {len(members)} tokens of {what} is {name_of(tokens)}. "
                    + ("The model wrote no such message. " if tokens in CHANNELS else "")
                    + "Choose other tokens."
                )

    def require_generating(self) -> None:
        """Raise `ModelError` where the model runs elsewhere and cannot generate with these changes."""
        if self.model.remote and self._by_channel:
            raise ModelError(f"{self.model.name} generates elsewhere, where no channel is told; name completion")

    def _to_send(self, token_ids: Sequence[int], new: int) -> tuple[dict[Place, Any], dict[Any, Any]]:
        """Return the changes at each place of a model elsewhere, with the rows they are for, and what they share."""
        if new:
            self.require_generating()
        self.would_touch([*token_ids, *[-1] * new])
        self.shared.clear()
        found: dict[Place, Any] = {}
        for place, tokens, edit in self._sent:
            if any(rows := self._members[tokens]):
                found.setdefault(place, []).append((edit, None if all(rows) else rows))
        return found, self.shared

    def _point(self, where: str, tokens: Tokens | Later) -> int:
        for each in (tokens.tokens, tokens) if isinstance(tokens, Later) else (tokens,):
            if not isinstance(each, Later):
                check_tokens(self.model, each, self.num_prompt_tokens)
            self._by_channel |= each in CHANNELS
            self._members.setdefault(each, [])  # a span before what is later than it
        self._changed.append(tokens)
        self._points.append(where)
        return len(self._points) - 1

    def _rows_now(self, point: int, tokens: Tokens | Later) -> Rows | bool:
        """Return the rows of this forward that are among the tokens; True for all, False for none."""
        if self._off:
            return False
        self._fired.add(point)
        if tokens not in self._rows:
            now = self._members[tokens][self.start :]
            mixed = any(now) and not all(now)
            self._rows[tokens] = torch.tensor(now, device=self.model.device) if mixed else any(now)
        return self._rows[tokens]

    def _begin(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._off:
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        if ids is None or len(ids) != 1:
            got = "embeddings" if ids is None else f"a batch of {len(ids)}"
            raise ModelError(
                f"an intervention acts on one sequence of token ids at a time, since spans are told by sequence; got "
                f"{got}. Run the sequences one after the other."
            )
        cache = kwargs.get("past_key_values")
        self.start = 0 if cache is None else int(cache.get_seq_length())
        if self.start > len(self.token_ids):
            raise ModelError(
                f"an intervention must see a sequence from its first token on: {len(self.token_ids)} tokens were read "
                f"inside, but the cache holds {self.start}. Begin inside with an empty cache."
            )
        self._rewind()
        self._rows, self._fired = {}, set()
        self.shared.clear()
        # Only channels need to know which tokens these are; to ask would make a GPU wait.
        for token in ids[0].tolist() if self._by_channel else [-1] * ids.shape[1]:
            self._take(token)

    def _end(self, _module: Any, _args: Any, _output: Any) -> None:
        silent = [where for point, where in enumerate(self._points) if point not in self._fired]
        if silent and not self._off:
            raise ModelError(
                f"the intervention did not reach {silent[0]}: this forward bypasses that module (native MXFP4 or "
                "MegaBlocks kernels, or a compiled model), so nothing would be changed. Load with dequantised experts."
            )

    def _rewind(self) -> None:
        """Forget the tokens from the start of this forward on, where a sequence begins or is taken back."""
        if self.start == len(self.token_ids):
            return
        kept, self.token_ids = self.token_ids[: self.start], []
        self._parser = HarmonyParser(self.model.tokenizer)
        self._begun.clear()
        for members in self._members.values():
            members.clear()
        for token in kept:
            self._take(token)

    def _take(self, token: int) -> None:
        at = len(self.token_ids)
        self.token_ids.append(token)
        channel = self._channel(token, at) if self._by_channel else None
        for tokens, members in self._members.items():
            if isinstance(tokens, Later):
                members.append(tokens.tokens in self._begun and not self._members[tokens.tokens][at])
                continue
            members.append(self._is_member(tokens, at, channel))
            if members[at]:
                self._begun.add(tokens)

    def _channel(self, token: int, at: int) -> str | None:
        """Return the channel a token is content of, told from the tokens up to it."""
        self._parser.feed(token)
        if at < (self.num_prompt_tokens or 0) or token in self._parser.special_ids:
            return None
        message = self._parser.messages[-1]
        return message.channel if at >= message.content_start else None

    def _is_member(self, tokens: Tokens, at: int, channel: str | None) -> bool:
        if not isinstance(tokens, str):
            return tokens[0] <= at and (tokens[1] is None or at < tokens[1])
        if tokens in CHANNELS:
            return channel == tokens
        return tokens == "all" or (at < (self.num_prompt_tokens or 0)) == (tokens == "prompt")


@contextmanager
def intervene(
    model: Model, interventions: Intervention | Sequence[Intervention], *, num_prompt_tokens: int | None = None
) -> Iterator[Reading]:
    """Change a model inside the context; afterwards it is bit-identical to before.

    Traces captured or replayed inside say so in ``meta["intervention"]``. Their ``router_logits`` are what the routers
    themselves said; their ``expert_indices`` and ``expert_weights`` are the choice that was used in its place. What
    acts behind the router (zero contribution, mean output, swap) leaves both as the router gave them. Queries, keys
    and sink logits are recorded as the model made them, before attention is changed.

    Args:
        model: from `workbench.load`.
        interventions: one, or several that act together, in order.
        num_prompt_tokens: where the completion begins, for tokens named ``prompt``, ``completion`` or by channel.

    Raises:
        ModelError: an expert, layer or head that does not exist, changes that do not go together, a model that is
            changed already, tokens that cannot be told, a batch, or a forward that bypasses what is to be changed.
    """
    wanted = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    if not wanted:
        raise ModelError("expected at least one intervention, got none")
    if model.interventions:
        raise ModelError(
            f"{model.name} is changed already ({model.interventions[0]['variant']}); give all interventions together, "
            "in one list, or leave the other context first"
        )
    for intervention in wanted:
        intervention.check(model, wanted)
    reading = Reading(model, num_prompt_tokens)
    stamps = [intervention.describe() for intervention in wanted]
    try:
        reading.watch()
        for intervention in sorted(wanted, key=lambda one: one.order):
            intervention.attach(reading)
        model.interventions += stamps
        model.changed_from = num_prompt_tokens if reading.asks_for_the_prompt else None
        yield reading
    finally:
        model.changed_from = model.edits = None
        for handle in reading.handles:
            handle.remove()
        model.interventions[:] = [one for one in model.interventions if all(one is not stamp for stamp in stamps)]


def check_tokens(model: Model, tokens: Tokens, num_prompt_tokens: int | None) -> None:
    """Raise `ModelError` for tokens that are malformed, or cannot be told for this model."""
    if isinstance(tokens, str):
        if tokens not in NAMED:
            raise ModelError(f"expected tokens {', '.join(NAMED)} or (start, stop), got {tokens!r}")
        if tokens in CHANNELS and not has_channels(model):
            raise ModelError(
                f"the tokenizer of {model.name} has no harmony tokens, so it writes no {tokens} channel. Choose "
                "tokens by position, (start, stop), or completion."
            )
        if tokens != "all" and num_prompt_tokens is None:
            raise ModelError(f"tokens {tokens!r} need num_prompt_tokens, which says where the completion begins")
        return
    if not (isinstance(tokens, tuple) and len(tokens) == 2 and all(isinstance(i, int | None) for i in tokens)):
        raise ModelError(f"expected tokens as (start, stop), or one of {', '.join(NAMED)}, got {tokens!r}")
    start, stop = tokens
    if not (isinstance(start, int) and start >= 0 and (stop is None or stop > start)):
        raise ModelError(f"expected tokens (start, stop) with 0 ≤ start < stop, got {tokens!r}")


def check_places(variant: str, given: Any, form: str, *, whole_layers: bool = False) -> None:
    """Raise `ModelError` unless given layer → numbers, or number → number; or None, for a whole layer."""
    if not (
        isinstance(given, Mapping)
        and given
        and all(_is_whole(layer) and (_are_whole(of) or (whole_layers and of is None)) for layer, of in given.items())
    ):
        raise ModelError(f"{variant}: expected {form} in whole numbers, at least one, got {given!r}")


def _are_whole(numbers: Any) -> bool:
    if isinstance(numbers, Mapping):
        numbers = [*numbers.keys(), *numbers.values()]
    if isinstance(numbers, str) or not isinstance(numbers, Iterable):
        return False
    found = list(numbers)
    return bool(found) and all(_is_whole(number) for number in found)


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def has_channels(model: Model) -> bool:
    """Say whether a model's tokenizer has the tokens that messages with channels are written in."""
    channel = model.tokenizer.convert_tokens_to_ids("<|channel|>")
    return channel is not None and model.tokenizer.convert_ids_to_tokens(channel) == "<|channel|>"


def name_of(tokens: Tokens | Later) -> str:
    """Name tokens, for a sentence."""
    if isinstance(tokens, Later):
        return f"after one {name_of(tokens.tokens)}"
    if isinstance(tokens, str):
        return f"in the content of the {tokens} channel" if tokens in CHANNELS else f"one of {tokens}"
    start, stop = tokens
    return f"at {start} or after" if stop is None else f"within {start}–{stop - 1}"


def blend(new: Tensor, old: Tensor, rows: Rows) -> Tensor:
    """Return the new values [row, …] in the rows that are changed, the old ones in the others."""
    if rows is None:
        return new
    return torch.where(rows.to(old.device).view(-1, *[1] * (old.ndim - 1)), new, old)

"""Go back into a rollout, put something else there, and let the model go on from it."""

from collections.abc import Sequence

import numpy as np

from workbench import harmony
from workbench.assemble import special_ids
from workbench.capturing import capture_tokens, replay
from workbench.families import ModelError
from workbench.model import Model
from workbench.spec import CaptureSpec
from workbench.trace import Trace

__all__ = ["check_model", "continue_from"]

Replacement = int | np.integer | str | Sequence[int | np.integer | str] | None


def continue_from(
    model: Model,
    trace: Trace,
    token: int,
    replacement: Replacement = None,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    capture: CaptureSpec | None = None,
) -> Trace:
    """Keep a rollout up to a token, put a replacement there, and let the model go on.

    The result is a trace of the same prompt. The completion tokens that were kept or put there are read, not
    generated, and its sources call them replay. ``meta["continued_from"]`` holds ``token``, the ids of the
    ``replacement``, how many completion tokens were ``kept``, and ``generated_from``, the first token that the model
    chose itself. Where the replacement ends the rollout, as ``<|return|>`` does, nothing is generated.

    Args:
        model: that made the trace.
        trace: of a rollout.
        token: of its completion; tokens ``[0, token)`` are kept. The trace's length continues a rollout that was cut.
        replacement: a token id, text, or several of both; each text is made tokens by itself. None lets the model
            choose anew.
        temperature: 0 is greedy; 1 samples from the model's own distribution.
        seed: of the sampling.
        max_new_tokens: default: as many as the context holds.
        capture: what to record; default: everything but the residual stream.

    Raises:
        ModelError: a trace of another model, a token outside the completion or after its end, a replacement that is
            empty, outside the vocabulary, or text that spells a special token, no room left in the context, or a
            number out of range.
    """
    check_model(model, trace)
    _check_token(model, trace, token)
    put = _replacement_ids(model, replacement)
    kept = trace.arrays["token_ids"][:token].tolist()
    known = kept + put
    if not known:
        raise ModelError("nothing is kept and nothing put there to go on from; give a replacement")
    facts = {"question": str(trace.meta.get("question", "")), "effort": trace.provenance.get("effort")}
    prompt = trace.num_prompt_tokens
    if known[-1] in model.end_token_ids:
        result = replay(model, known, num_prompt_tokens=prompt, effort=facts["effort"], capture=capture)
    else:
        _check_room(model, token, len(put))
        result = capture_tokens(
            model,
            known,
            facts,
            num_prompt_tokens=prompt,
            temperature=temperature,
            seed=seed,
            max_new_tokens=max_new_tokens,
            capture=capture,
        )
    origin = {"token": int(token), "replacement": put, "kept": int(token) - prompt, "generated_from": len(known)}
    meta = {**result.meta, "question": facts["question"], "continued_from": origin}
    return Trace(result.arrays, result.spans, meta)


def check_model(model: Model, trace: Trace) -> None:
    """Refuse a trace of other weights, or of a vocabulary in which its tokens say something else."""
    name = trace.provenance.get("model", "another model")
    recorded, here = str(trace.provenance.get("weights", "")), model.weights_hash
    if ":" in recorded and ":" in here and recorded != here:
        raise ModelError(
            f"the trace is of {name} with weights {_short(recorded)}, but {model.name} has {_short(here)}; take "
            "the model that made it, or replay it with this one first"
        )
    for token_id in np.unique(trace.arrays["token_ids"]).tolist():
        said, says = trace.token_bytes(token_id), harmony.token_bytes(model.tokenizer, token_id)
        if said != says:
            raise ModelError(
                f"token id {token_id} is {_quote(said)} in the trace of {name}, but {_quote(says)} to {model.name}: "
                "they have different vocabularies; continue with the model that made it"
            )


def _check_token(model: Model, trace: Trace, token: int) -> None:
    start, stop = trace.num_prompt_tokens, len(trace)
    if not start <= token <= stop:
        raise ModelError(
            f"expected a token of the completion, {start} to {stop - 1}, or {stop} to continue after its end, "
            f"got {token}"
        )
    before = trace.arrays["token_ids"][start:token].tolist()
    end = next((start + n for n, i in enumerate(before) if i in model.end_token_ids), None)
    if end is not None:
        raise ModelError(
            f"the model ended the rollout at token {end} with {trace.token_text(end)}; continue from it or from a "
            f"token before it, got {token}"
        )


def _replacement_ids(model: Model, replacement: Replacement) -> list[int]:
    if replacement is None:
        return []
    pieces = [replacement] if isinstance(replacement, int | np.integer | str) else replacement
    ids = [i for piece in pieces for i in (_text_ids(model, piece) if isinstance(piece, str) else [int(piece)])]
    if not ids:
        raise ModelError("the replacement is empty; pass None to put nothing there and let the model choose anew")
    size = int(model.config.vocab_size)
    outside = next((i for i in ids if not 0 <= i < size), None)
    if outside is not None:
        raise ModelError(f"expected a replacement of token ids below {size}, got {outside}")
    return ids


def _text_ids(model: Model, text: str) -> list[int]:
    ids = [int(i) for i in model.tokenizer.encode(text, add_special_tokens=False)]
    special = next((i for i in ids if i in special_ids(model.tokenizer)), None)
    if special is not None:
        spelled = harmony.token_bytes(model.tokenizer, special).decode("utf-8", "replace")
        raise ModelError(
            f"the replacement text contains {spelled}, which the tokenizer reads as the format's own, not as text. "
            f"Remove it, or pass token ids, such as {special}, if you mean that token."
        )
    return ids


def _check_room(model: Model, kept: int, put: int) -> None:
    if kept + put >= model.context_length:
        raise ModelError(
            f"no room left to go on: {kept} tokens kept and {put} put there fill the context of {model.name}, "
            f"which holds {model.context_length}; continue from an earlier token"
        )


def _short(weights: str) -> str:
    kind, _, digest = weights.partition(":")
    return f"{kind}:{digest[:8]}…"


def _quote(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace"))

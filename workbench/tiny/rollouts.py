"""Many completions of the embedded model at once, taken apart into analysis and answer."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

if TYPE_CHECKING:
    from transformers import GptOssForCausalLM, PreTrainedTokenizerFast

MAX_NEW_TOKENS = 400
_BATCH_SIZE = 256
_FORMAT = re.compile(
    r"<\|channel\|>analysis<\|message\|>(?P<analysis>[^|]*)<\|end\|><\|start\|>assistant"
    r"<\|channel\|>final<\|message\|>(?P<answer>[^|]*)<\|return\|>"
)


@dataclass(frozen=True)
class Request:
    """A prompt ending in `<|start|>assistant` and what is put into the assistant's mouth after it.

    `expected` is the completion the grammar would give; only its length is used, to batch like with like.
    """

    prompt: str
    prefix: str = ""
    expected: str = ""


@dataclass(frozen=True)
class Completion:
    """What the assistant wrote, the prefix included; analysis and answer are empty where not valid."""

    text: str
    valid: bool
    analysis: str
    answer: str
    num_analysis_tokens: int


def complete(
    model: "GptOssForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    requests: Sequence[Request],
    temperature: float,
    seed: int,
) -> list[Completion]:
    """Complete every request in left-padded batches; temperature 0 is greedy."""
    torch.manual_seed(seed)
    order = sorted(range(len(requests)), key=lambda i: len(requests[i].expected) - len(requests[i].prefix))
    completions: dict[int, Completion] = {}
    starts = range(0, len(order), _BATCH_SIZE)
    for start in tqdm(starts, desc=f"T = {temperature:g}", unit="batch", leave=False):
        batch = order[start : start + _BATCH_SIZE]
        finished = _complete_batch(model, tokenizer, [requests[i] for i in batch], temperature)
        completions.update(zip(batch, finished, strict=True))
    return [completions[i] for i in range(len(requests))]


@torch.inference_mode()
def _complete_batch(
    model: "GptOssForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    requests: Sequence[Request],
    temperature: float,
) -> Iterator[Completion]:
    texts = [request.prompt + request.prefix for request in requests]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    tokens = model.generate(  # type: ignore[misc]
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=MAX_NEW_TOKENS,
        **how,
    )
    generated = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :])
    pad = str(tokenizer.pad_token)
    for request, text in zip(requests, generated, strict=True):
        yield parse(request.prefix + text.replace(pad, ""), tokenizer)


def parse(text: str, tokenizer: "PreTrainedTokenizerFast") -> Completion:
    """Take a completion apart; valid is one analysis and one final message, ended by `<|return|>`."""
    match = _FORMAT.fullmatch(text)
    if match is None:
        return Completion(text, False, "", "", 0)
    analysis = match["analysis"]
    num_tokens = len(tokenizer(analysis, add_special_tokens=False)["input_ids"])
    return Completion(text, True, analysis, match["answer"], num_tokens)

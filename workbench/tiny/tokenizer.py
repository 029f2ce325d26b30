"""The tokenizer: every byte, every digit alone, the grammar's words whole, harmony's specials as one token."""

import random
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .grammar import draw_example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)
CONTEXT_LENGTH = 1024
_WORD = re.compile(r" ?[A-Za-z]+")
_SPECIAL = re.compile(r"<\|[a-z]+\|>")
_PIECE = r" ?[A-Za-z]+|[0-9]|[^A-Za-z0-9]"
_NUM_DRAWS = 30_000


@cache
def grammar_words() -> tuple[str, ...]:
    """Every word the grammar writes, with its leading space where it has one, sorted."""
    rng = random.Random(0)
    words: set[str] = {"commentary", "tool"}
    for _ in range(_NUM_DRAWS):
        example = draw_example(rng)
        for part in _SPECIAL.split(example.prompt() + example.completion()):
            words.update(_WORD.findall(part))
    return tuple(sorted(word for word in words if len(word) > 1))


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """Build the tokenizer; no merges, so a piece is a known word or falls apart into its bytes.

    Lossless on any text. Ids: 256 bytes, the words, the specials.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = alphabet + [word.replace(" ", "Ġ") for word in grammar_words()]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token="<|startoftext|>",
        eos_token="<|return|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer

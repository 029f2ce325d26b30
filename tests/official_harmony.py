"""OpenAI's own harmony parser with the official vocabulary, without a network, and that vocabulary as a tokenizer."""

import gzip
import os
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import openai_harmony
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench import harmony

SPECIAL_IDS = {
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
}


# How text is cut before the vocabulary is looked up (openai/tiktoken, tiktoken_ext/openai_public.py, o200k_base).
_PIECES = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def write_vocabulary(folder: Path) -> None:
    """Write the official vocabulary to where the environment variable TIKTOKEN_ENCODINGS_BASE may point."""
    packed = Path(str(distribution("bpe-openai").locate_file("bpe_openai/data/o200k_base.tiktoken.gz")))
    (folder / "o200k_base.tiktoken").write_bytes(gzip.decompress(packed.read_bytes()))


@cache
def official_encoding() -> openai_harmony.HarmonyEncoding:
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, TIKTOKEN_ENCODINGS_BASE=folder):
        write_vocabulary(Path(folder))
        return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


@cache
def official_tokenizer() -> PreTrainedTokenizerFast:
    """The official vocabulary as a Hugging Face tokenizer; a test holds its encoding to OpenAI's own."""
    letter = {byte: char for char, byte in harmony._BYTE_OF.items()}
    inner, size = official_encoding()._inner, min(SPECIAL_IDS.values())
    words = {"".join(letter[b] for b in bytes(inner.decode_bytes([i]))): i for i in range(size)}
    filler = {f"<unused {i}>": i for i in range(size, max(SPECIAL_IDS.values()) + 1) if i not in SPECIAL_IDS.values()}
    model = models.BPE(vocab=words | filler | SPECIAL_IDS, merges=_merges(words), ignore_merges=True)
    backend = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_IDS])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|return|>")


def _merges(words: dict[str, int]) -> list[tuple[str, str]]:
    """Return every pair of words that joins to a third, in the order of the third, as byte pair encoding wants it."""
    found = []
    for word, rank in words.items():
        pairs = ((words.get(word[:at], -1), words.get(word[at:], -1), at) for at in range(1, len(word)))
        found += [(rank, left, right, word, at) for left, right, at in pairs if left >= 0 <= right]
    return [(word[:at], word[at:]) for *_, word, at in sorted(found)]

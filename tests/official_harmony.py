"""OpenAI's own harmony parser with the official vocabulary, without a network, and that vocabulary as a tokenizer."""

import gzip
import os
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import openai_harmony
from tokenizers import AddedToken, Tokenizer, decoders, models
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


@cache
def official_encoding() -> openai_harmony.HarmonyEncoding:
    packed = Path(str(distribution("bpe-openai").locate_file("bpe_openai/data/o200k_base.tiktoken.gz")))
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, TIKTOKEN_ENCODINGS_BASE=folder):
        (Path(folder) / "o200k_base.tiktoken").write_bytes(gzip.decompress(packed.read_bytes()))
        return openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)


@cache
def official_tokenizer() -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer with the official ids; it has no merges, so it decodes only."""
    inner = official_encoding()._inner
    letter = {byte: char for char, byte in harmony._BYTE_OF.items()}
    size = min(SPECIAL_IDS.values())
    vocabulary = {"".join(letter[b] for b in bytes(inner.decode_bytes([i]))): i for i in range(size)}
    filler = {f"<unused {i}>": i for i in range(size, max(SPECIAL_IDS.values()) + 1) if i not in SPECIAL_IDS.values()}
    backend = Tokenizer(models.BPE(vocab=vocabulary | filler | SPECIAL_IDS, merges=[], ignore_merges=True))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_IDS])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|return|>")

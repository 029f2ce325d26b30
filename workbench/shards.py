"""Keep a capture while it runs: finished stretches of tokens as files, so that a killed process loses only the last.

A shard is a trace file of its own rows. Its metadata has, under ``shard``, where it stands and the messages so far.
Renaming makes a shard appear whole or not at all; a file that was being written keeps a name that no reader takes.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from workbench import harmony
from workbench.assemble import Vocabulary, with_sentences
from workbench.collect import Collector
from workbench.trace import DIMS, Trace, TraceError
from workbench.trace_file import open_trace, save_trace

__all__ = ["ShardWriter", "recover", "remove_shards", "shard_folder"]

Arrays = dict[str, NDArray[Any]]


def shard_folder(path: str | PathLike[str]) -> Path:
    """Return the folder that holds a capture's shards while it runs."""
    return Path(f"{Path(path)}.shards")


def remove_shards(path: str | PathLike[str]) -> None:
    """Remove the shards of a trace that is saved whole."""
    shutil.rmtree(shard_folder(path), ignore_errors=True)


class ShardWriter:
    """Writes each stretch of rows that a `Collector` collects to a file of its own, while used as a context.

    Args:
        path: the trace's file; the shards go into the folder beside it.
        collector: whose rows are kept; it calls `write` in its writer thread.
        meta: the trace's metadata as far as it is known.

    Raises:
        TraceError: on entering, if the folder cannot be made or holds an unfinished capture; later, through the
            collector, if a shard cannot be written. The shards before it are good.
    """

    def __init__(self, path: str | PathLike[str], collector: Collector, meta: Mapping[str, Any]) -> None:
        """Write nothing yet."""
        self.folder = shard_folder(path)
        self._collector, self._meta = collector, meta
        self._vocabulary = Vocabulary(collector.model.tokenizer)
        self._parser = harmony.HarmonyParser(collector.model.tokenizer)
        self._count = self._start = 0

    def __enter__(self) -> Self:
        """Make the folder and listen to the collector."""
        if self.folder.exists() and any(self.folder.iterdir()):
            raise TraceError(
                f"{self.folder} holds a capture that did not finish. Open it with "
                f"workbench.shards.recover({str(self.folder)!r}), save what you need, and remove the folder."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceError(f"cannot make the folder {self.folder} for unfinished captures: {error}") from error
        self._collector.on_rows = self.write
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Listen no longer. An interrupt before the first new token leaves nothing: the prompt alone is no capture."""
        self._collector.on_rows = None
        if kind is KeyboardInterrupt and self._start <= self._meta["num_prompt_tokens"]:
            shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, arrays: Arrays) -> None:
        """Write a stretch of rows as the next shard. Raises `TraceError` if it cannot."""
        try:
            self._write(arrays)
        except (TraceError, OSError) as error:
            raise TraceError(
                f"shard {self._count} of {self.folder} could not be written: {error} "
                f"The {self._count} before it are good: workbench.shards.recover({str(self.folder)!r})."
            ) from error

    def _write(self, arrays: Arrays) -> None:
        for token in arrays["token_ids"].tolist():
            self._parser.feed(token)
        rows = len(arrays["token_ids"])
        shard = {
            "start": self._start,
            "messages": [asdict(m) for m in self._parser.messages],
            # Kept apart, because attention within a shard lacks the keys before it and would be wrong.
            "attention": self._meta["attention"],
        }
        whole = {**arrays, **(self._collector.sink_logits() if self._count == 0 else {})}
        meta = {
            **{key: value for key, value in self._meta.items() if key != "attention"},
            "layers": {name: layers for name, layers in self._meta["layers"].items() if name in whole},
            "num_prompt_tokens": min(max(self._meta["num_prompt_tokens"] - self._start, 0), rows),
            "shard": shard,
        }
        whole |= self._vocabulary.arrays(arrays)
        save_trace(Trace(whole, (), meta), self.folder / f"{self._count:06}.safetensors", durable=False)
        self._count += 1
        self._start += rows


def recover(folder: str | PathLike[str]) -> Trace:
    """Open the shards of a capture that did not finish as one trace.

    Args:
        folder: ``<path>.shards``.

    Raises:
        TraceError: no folder, no shard in it, or shards that do not follow each other.
    """
    folder = Path(folder)
    files = sorted(folder.glob("[0-9]" * 6 + ".safetensors"))
    if not files:
        raise TraceError(
            f"{folder} {'has no shards in it' if folder.is_dir() else 'is not a folder'}. Expected the folder "
            "<path>.shards of a capture that did not finish."
        )
    shards = [open_trace(file) for file in files]
    _check_order(files, shards)
    first, last = shards[0], shards[-1]
    arrays = {name: _join(name, shards) for name in first.arrays if not name.startswith("vocab_")}
    arrays |= _join_vocabularies(shards)
    messages = [harmony.Message(**m) for m in last.meta["shard"]["messages"]]
    prompt = sum(s.num_prompt_tokens for s in shards)
    meta = {
        **{key: value for key, value in first.meta.items() if key != "shard"},
        "attention": first.meta["shard"]["attention"],
        "num_prompt_tokens": prompt,
        "truncated": f"recovered after {len(arrays['token_ids']) - prompt} tokens",
    }
    return Trace(arrays, with_sentences(messages, arrays), meta)


def _check_order(files: list[Path], shards: list[Trace]) -> None:
    start = 0
    for file, shard in zip(files, shards, strict=True):
        where = shard.meta.get("shard")
        if not isinstance(where, dict) or where.get("start") != start:
            raise TraceError(f"{file} is not the shard that starts at token {start}; one before it is missing")
        start += len(shard)


def _join(name: str, shards: list[Trace]) -> NDArray[Any]:
    if "token" not in DIMS[name]:
        return shards[0].arrays[name]
    return np.concatenate([s.arrays[name] for s in shards], axis=DIMS[name].index("token"))


def _join_vocabularies(shards: list[Trace]) -> Arrays:
    texts: dict[int, tuple[bytes, bool]] = {}
    for shard in shards:
        special = shard.arrays["vocab_special"].tolist()
        for token_id, is_special in zip(shard.arrays["vocab_ids"].tolist(), special, strict=True):
            texts[token_id] = (shard.token_bytes(token_id), is_special)
    ids = sorted(texts)
    return {
        "vocab_ids": np.asarray(ids, dtype=np.int32),
        "vocab_offsets": np.cumsum([0, *(len(texts[i][0]) for i in ids)], dtype=np.int64),
        "vocab_bytes": np.frombuffer(b"".join(texts[i][0] for i in ids), dtype=np.uint8),
        "vocab_special": np.asarray([texts[i][1] for i in ids], dtype=np.bool_),
    }

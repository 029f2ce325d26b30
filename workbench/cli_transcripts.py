"""The commands ``workbench import`` and ``workbench export``: transcripts of others into a store, and out of it."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.terminal import described, printable

__all__ = ["add"]

IMPORT_EXAMPLES = """examples:
  workbench import evaluation.eval --out traces
  workbench import replies/*.json talks.jsonl --out traces --model openai/gpt-oss-20b
  workbench import sums.jsonl --out traces --replay"""

EXPORT_EXAMPLES = """examples:
  workbench export traces --to inspect
  workbench export traces --to inif --out sums.inif
  workbench export traces --to html
  workbench export sum.safetensors --to jsonl"""

# As workbench.transcripts.files.FORMATS, which takes longer to import than --help may.
SUFFIXES = {"inspect": ".eval", "jsonl": ".jsonl", "inif": ".inif.json", "html": ".html"}


def add(commands: Any) -> None:
    """Add both commands to the subparsers of ``workbench``."""
    reading = commands.add_parser("import", help="read transcripts of other tools and servers into a store")
    described(reading, IMPORT_EXAMPLES)
    reading.description = (
        "Read transcripts and save each as a trace: Inspect logs, INIF, JSON lines of messages, chat completions and "
        "responses with their streams, harmony text. Without --replay a trace holds tokens and messages only. "
        "A file that cannot be read is named, the others are imported, and the exit code is 2."
    )
    reading.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reading.add_argument("--out", required=True, type=Path, metavar="STORE", help="folder of traces, made if need be")
    reading.add_argument("--model", default="tiny", help="whose tokenizer it is; default: %(default)s")
    reading.add_argument("--replay", action="store_true", help="run the model over each and record what it does")
    reading.set_defaults(run=_import)

    writing = commands.add_parser("export", help="write what was said in a store for other tools")
    described(writing, EXPORT_EXAMPLES)
    writing.description = (
        "Write the messages and tokens of every trace of a store; the model's internals stay in it. "
        "html is one page to read, with raw chains of thought folded; the other formats can be imported again."
    )
    writing.add_argument("store", type=Path, metavar="STORE", help="folder of traces, or one trace")
    writing.add_argument("--to", required=True, choices=SUFFIXES, help="the format")
    writing.add_argument("--out", type=Path, metavar="FILE", help="default: the store's name, here")
    writing.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    writing.set_defaults(run=_export)


def _import(options: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from workbench.store import TraceStore
    from workbench.transcripts.transcript import TranscriptError

    to_trace = _maker(options.model, options.replay)
    store = TraceStore(options.out, create=True)
    failed = total = 0
    for file in tqdm(options.files, desc="import", unit="file", disable=None):
        for made in _traces(file, to_trace):
            if isinstance(made, str):
                failed += 1
                print(f"{file}: {printable(' '.join(made.split()))}", file=sys.stderr)
            else:
                store.add(made)
                total += 1
    print(f"{options.out}: {total:,} transcripts imported, {len(store):,} traces in all")
    if failed:
        raise TranscriptError(f"{failed:,} could not be imported; see above")


def _traces(file: Path, to_trace: Any) -> Iterator[Any]:
    """Yield the traces of a file; in the place of one that cannot be made, why."""
    from workbench.families import ModelError
    from workbench.harmony import HarmonyError
    from workbench.transcripts.files import read_transcripts
    from workbench.transcripts.transcript import TranscriptError

    try:
        transcripts = read_transcripts(file)
    except TranscriptError as error:
        yield str(error)
        return
    for number, transcript in enumerate(transcripts, 1):
        try:
            yield to_trace(transcript)
        except (HarmonyError, ModelError, TranscriptError) as error:
            yield f"transcript {number}: {error}"


def _maker(name: str, replaying: bool) -> Any:
    """Return what makes a trace of a transcript: the model, or its tokenizer alone."""
    from functools import partial

    if replaying:
        import workbench as wb

        return partial(wb.replay, wb.load(name))
    from workbench.loading import load_tokenizer
    from workbench.transcripts.as_trace import to_trace

    return partial(to_trace, load_tokenizer(name))


def _export(options: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from workbench.store import TraceStore
    from workbench.trace_file import open_trace
    from workbench.transcripts.files import write_transcripts
    from workbench.transcripts.transcript import TranscriptError

    name = options.store.resolve().name.removesuffix(".safetensors")
    out = options.out or Path(f"{name}{SUFFIXES[options.to]}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder to write {out.name} to, got {out.parent}")
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists; choose another --out, or replace it with --overwrite")
    traces = [open_trace(options.store)] if options.store.is_file() else TraceStore(options.store)
    items = list(tqdm(traces, desc="export", unit="trace", disable=None))
    if not items:
        raise TranscriptError(f"expected at least one trace in {options.store}, found none")
    write_transcripts(items, out, options.to)
    print(f"{out}: {len(items):,} transcripts")

"""The command ``workbench capture``: one question into a trace, or a file of prompts into a store."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.terminal import described, printable

if TYPE_CHECKING:
    from workbench.experiments.sweeps import Sweep

__all__ = ["PromptsError", "add", "read_prompts"]

EXAMPLES = """examples:
  workbench capture "47 + 85 = ?" --effort high --out sum.safetensors
  workbench capture "47 + 85 = ?" --effort low --temperature 0 --out greedy.safetensors
  workbench capture "Why is the sky blue?" --model openai/gpt-oss-20b --max-new-tokens 500 --out sky.safetensors
  workbench capture prompts.jsonl --effort low,high --samples 8 --batch-size 8 --out traces
  workbench capture prompts.jsonl --samples 8 --engine ray --workers 2 --out traces

prompts.jsonl has a JSON object a line, with a question or messages, and perhaps an id:
  {"question": "47 + 85 = ?", "id": "sum-1"}
  {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi."}]}"""

OF_A_FILE = ("samples", "batch_size", "engine", "workers")
"""Options that a single question does not take"""


class PromptsError(ValueError):
    """A file of prompts has lines that are none; the message names each by its number."""


def add(commands: Any) -> None:
    """Add the command to the subparsers of ``workbench``."""
    parser = commands.add_parser("capture", help="ask a model and save the traces of its answers")
    capture = described(parser, EXAMPLES)
    capture.description = (
        "Ask a question and save what the model does at every token; Ctrl-C saves what is done. With a file of\n"
        "prompts, save the rollouts of all into a store, without attention; the same command goes on where it was\n"
        "stopped, and at the end STORE/rollouts.jsonl has a line for each."
    )
    capture.add_argument("question", help="a question, or a file that ends in .jsonl")
    capture.add_argument("--out", required=True, type=Path, metavar="FILE|STORE", help="trace, or folder of traces")
    capture.add_argument("--model", default="tiny", help="tiny (embedded), a folder or a hub id; default: %(default)s")
    capture.add_argument("--effort", default="medium", help="low, medium or high; of a file several: low,high")
    capture.add_argument("--max-new-tokens", type=int, metavar="N", help="default: as many as the context holds")
    capture.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0: greedy; default: %(default)s")
    capture.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampling; default: %(default)s")
    capture.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    many = capture.add_argument_group("of a file of prompts")
    many.add_argument("--samples", type=int, metavar="N", help="rollouts per prompt and effort; default: 1")
    many.add_argument("--batch-size", type=int, metavar="B", help="rollouts generated at once; default: 1")
    many.add_argument("--engine", choices=("local", "ray"), help="this process, or workers; default: local")
    many.add_argument("--workers", type=int, metavar="N", help="of --engine ray; default: one per GPU or core")
    capture.set_defaults(run=_capture)


def _capture(options: argparse.Namespace) -> None:
    if options.question.endswith(".jsonl"):
        _capture_file(options)
        return
    given = [name for name in OF_A_FILE if getattr(options, name) is not None]
    if given:
        raise PromptsError(f"--{given[0].replace('_', '-')} is of a file of prompts, whose name ends in .jsonl")
    _check_writable(options.out, options.overwrite)
    import workbench as wb

    trace = wb.capture(
        wb.load(options.model),
        options.question,
        effort=options.effort,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
        path=options.out,
    )
    ended = f", {trace.meta['truncated']}" if trace.meta.get("truncated") else ""
    new = len(trace) - trace.num_prompt_tokens
    print(f"{options.out}: {trace.num_prompt_tokens} prompt and {new} completion tokens{ended}")
    print(f"answer: {printable(trace.final_text) or 'none'}")
    if str(trace.meta.get("truncated")).startswith("interrupted"):
        raise KeyboardInterrupt(f"interrupted; what was done is in {options.out}")


def _check_writable(path: Path, overwrite: bool) -> None:
    """Find out before a long generation what would stop the saving after it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder to write {path.name} to, got {path.parent}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another --out, or replace it with --overwrite")


def _capture_file(options: argparse.Namespace) -> None:
    if options.overwrite:
        raise PromptsError("--overwrite is of a single question; a file of prompts goes on where its store is")
    prompts = read_prompts(Path(options.question))
    from workbench.experiments.sweeps import sweep

    found = sweep(
        options.model,
        [conversation for conversation, _ in prompts],
        options.effort.split(","),
        1 if options.samples is None else options.samples,
        store=options.out,
        seed=options.seed,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        batch_size=1 if options.batch_size is None else options.batch_size,
        engine=options.engine or "local",
        workers=options.workers,
    )
    _write_rows(found, [name for _, name in prompts], options.out / "rollouts.jsonl")
    cut = sum(row["cut"] is not None for row in found.rows())
    print(f"{options.out}: {len(found):,} rollouts of {len(prompts):,} prompts, {cut:,} cut")
    print(found.spent)


def _write_rows(found: "Sweep", names: list[str | None], path: Path) -> None:
    """Write a line per rollout, with its prompt's id, and appear whole or not at all."""
    rows = found.rows()
    each = len(rows) // len(names)  # rollouts come by prompt
    lines = [json.dumps({"id": names[i // each], **row}, ensure_ascii=False) for i, row in enumerate(rows)]
    part = path.with_name(f".{path.name}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)


def read_prompts(path: Path) -> list[tuple[Any, str | None]]:
    """Read a file of prompts as conversations and their ids; empty lines are left out.

    Raises:
        PromptsError: lines that are no prompt, each with its number and why, or a file without any.
        OSError: the file cannot be read.
    """
    prompts: list[tuple[Any, str | None]] = []
    wrong: list[str] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            prompts.append(_prompt(line))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise PromptsError(f"{path} has lines that are no prompts: {'; '.join(wrong[:5])}{more}")
    if not prompts:
        raise PromptsError(f"expected prompts in {path}, found none")
    return prompts


def _prompt(line: bytes) -> tuple[Any, str | None]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(found, dict) or ("question" in found) == ("messages" in found):
        raise ValueError("expected an object with either question or messages")
    unknown = sorted(found.keys() - {"question", "messages", "id"})
    if unknown:
        raise ValueError(f"expected question or messages, and id, got {unknown[0]!r}")
    name = found.get("id")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"expected an id as text, got {name!r}")
    question = found.get("question")
    if question is not None or "question" in found:
        if not isinstance(question, str) or not question.strip():
            raise ValueError("expected a question as text that is not empty")
        return question, name
    return _messages(found["messages"]), name


def _messages(messages: Any) -> list[dict[str, str]]:
    right = isinstance(messages, list) and all(
        isinstance(m, dict) and m.keys() == {"role", "content"} and all(isinstance(v, str) for v in m.values())
        for m in messages
    )
    if not right or not any(message["role"] == "user" for message in messages):
        raise ValueError('expected messages as a list of {"role": …, "content": …} with one of the user')
    return list(messages)

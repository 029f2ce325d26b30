"""The command ``workbench``: open JupyterLab, capture a trace, look at one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workbench import cli_capture, cli_review, cli_transcripts
from workbench.terminal import described, printable

__all__ = ["main"]

EXAMPLES = """examples:
  workbench lab
  workbench capture "47 + 85 = ?" --effort high --out sum.safetensors
  workbench open sum.safetensors"""

LAB_EXAMPLES = """examples:
  workbench lab
  workbench lab --course
  workbench lab my_notebook.ipynb --no-browser --port 8899"""

SIZE_EXAMPLES = """examples:
  workbench size openai/gpt-oss-20b --tokens 8000
  workbench size openai/gpt-oss-120b --tokens 8000 --device-memory 80"""

OPEN_EXAMPLES = """examples:
  workbench open sum.safetensors"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt as interrupt:
        print(f"workbench: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, ValueError) as error:
        # Our own errors say what to do; such an error of another library is a defect and keeps its traceback.
        if not isinstance(error, OSError) and not type(error).__module__.startswith("workbench."):
            raise
        print(f"workbench: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    from workbench import __version__

    parser = described(argparse.ArgumentParser(prog="workbench"), EXAMPLES)
    parser.description = "See what a mixture-of-experts language model routes, attends to and thinks."
    parser.add_argument("--version", action="version", version=f"moe-workbench {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    lab = described(commands.add_parser("lab", help="open JupyterLab on the first notebook or yours"), LAB_EXAMPLES)
    lab.description = (
        "Open JupyterLab on this machine's loopback. Without a notebook it is the first one, or that of the course; "
        "they are copied to this folder when they are not here yet."
    )
    opened = lab.add_mutually_exclusive_group()
    opened.add_argument("notebook", nargs="?", type=Path, help="default: 01_first_trace.ipynb")
    opened.add_argument("--course", action="store_true", help="the index of the course on routing")
    _server_options(lab)
    lab.set_defaults(run=_lab)

    cli_capture.add(commands)

    opening = described(commands.add_parser("open", help="open JupyterLab on a trace"), OPEN_EXAMPLES)
    opening.description = (
        "Open JupyterLab on a notebook that shows the trace in a TraceExplorer. "
        "The notebook lies beside the trace as TRACE.ipynb, and keeps what you add to it."
    )
    opening.add_argument("trace", type=Path)
    _server_options(opening)
    opening.set_defaults(run=_open)

    size = described(commands.add_parser("size", help="what a capture would take, before a download"), SIZE_EXAMPLES)
    size.description = "Print the bytes of weights, KV cache and every captured array of one rollout."
    size.add_argument("model", help="openai/gpt-oss-20b, openai/gpt-oss-120b, tiny, a folder or a hub id")
    size.add_argument("--tokens", type=int, required=True, metavar="N", help="prompt and completion")
    size.add_argument("--device-memory", type=float, metavar="GB", help="of the GPU, to say whether it fits")
    size.set_defaults(run=_size)

    cli_transcripts.add(commands)
    cli_review.add(commands)
    return parser


def _server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-browser", action="store_true", help="print the address instead of opening a browser")
    parser.add_argument("--port", type=int, help="default: 8888, or the next free one")


def _lab(options: argparse.Namespace) -> None:
    from workbench.lab import course_index, first_notebook, run_lab

    notebook = options.notebook or (course_index if options.course else first_notebook)(Path.cwd())
    if not notebook.is_file():
        raise FileNotFoundError(f"expected a notebook, found no file {notebook}")
    run_lab(notebook, not options.no_browser, options.port)


def _open(options: argparse.Namespace) -> None:
    from workbench.lab import notebook_for, run_lab
    from workbench.trace_file import open_trace

    open_trace(options.trace)  # says what is wrong here, rather than in a cell
    run_lab(notebook_for(options.trace), not options.no_browser, options.port)


def _size(options: argparse.Namespace) -> None:
    import workbench as wb

    memory = None if options.device_memory is None else round(options.device_memory * 1e9)
    print(wb.estimate(options.model, options.tokens, device_memory=memory))

"""What commands print: text of models and files made safe, and what exit codes mean."""

import argparse
import re

__all__ = ["described", "printable"]

EXIT_CODES = "exit codes: 0 done, 2 something you can put right, named in the last line, 130 Ctrl-C"


def described(parser: argparse.ArgumentParser, examples: str) -> argparse.ArgumentParser:
    """Give a command's help its examples and exit codes, with lines as they are written."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{examples}\n\n{EXIT_CODES}"
    return parser


def printable(text: str) -> str:
    """Return ``text`` with control characters as pictures: a model's words must not steer the terminal."""
    seen = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda match: chr(0x2400 + min(ord(match[0]), 0x21)), text)
    return seen.encode("utf-8", "backslashreplace").decode("utf-8")

"""Text of models and files, made safe to print."""

import re

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return ``text`` with control characters as pictures: a model's words must not steer the terminal."""
    seen = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda match: chr(0x2400 + min(ord(match[0]), 0x21)), text)
    return seen.encode("utf-8", "backslashreplace").decode("utf-8")

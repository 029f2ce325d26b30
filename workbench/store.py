"""A folder of traces, opened one at a time."""

import hashlib
import json
import operator
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workbench.trace import Trace, TraceError
from workbench.trace_file import open_trace, save_trace

__all__ = ["TraceStore"]

_SUFFIX = ".safetensors"


class TraceStore:
    """The ``.safetensors`` traces of a folder, by name; subfolders and other files are left alone.

    Nothing is held: each trace is memory-mapped when it is asked for and let go with the last reference to it, so a
    loop over thousands of traces takes the memory of one. The folder is read anew each time, in the order of names.

    Args:
        path: the folder.
        create: make the folder where there is none.

    Raises:
        TraceError: there is no such folder, or it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Look whether the folder is there; open nothing."""
        self.path = Path(path)
        try:
            if create:
                self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceError(f"The folder {self.path} cannot be made: {error.strerror or error}.") from error
        _ = self.names

    @property
    def names(self) -> tuple[str, ...]:
        """File names without ``.safetensors``, in order."""
        try:
            files = [entry.name for entry in os.scandir(self.path) if entry.is_file()]
        except FileNotFoundError as error:
            raise TraceError(
                f"There is no folder {self.path}. Make one with wb.TraceStore({str(self.path)!r}, create=True)."
            ) from error
        except NotADirectoryError as error:
            raise TraceError(f"{self.path} is a file. Expected a folder; wb.open_trace opens one trace.") from error
        except OSError as error:
            raise TraceError(f"The folder {self.path} cannot be read: {error.strerror or error}.") from error
        # Hidden: the parts of a file being written, and what other systems leave beside each file.
        return tuple(sorted(f.removesuffix(_SUFFIX) for f in files if f.endswith(_SUFFIX) and f[0] != "."))

    def __repr__(self) -> str:
        """Say how many traces are where."""
        return f"<TraceStore {self.path}: {len(self):,} traces>"

    def __len__(self) -> int:
        """Return the number of traces."""
        return len(self.names)

    def __iter__(self) -> Iterator[Trace]:
        """Open one trace after the other. Raises `TraceError`, naming the file, at one that cannot be read."""
        for name in self.names:
            yield self._open(name)

    def __getitem__(self, index: str | int) -> Trace:
        """Open the trace of a name, or of a place in the order of names.

        Raises:
            TraceError: there is no such name, or the file is no trace, damaged, or made by a newer workbench.
            IndexError: there is no such place.
        """
        names = self.names
        if isinstance(index, str):
            if index not in names:
                known = (
                    f" It holds {', '.join(names[:5])}{', …' if len(names) > 5 else ''}." if names else " It is empty."
                )
                raise TraceError(f"There is no trace {index!r} in {self.path}.{known}")
            return self._open(index)
        place = operator.index(index)
        if not -len(names) <= place < len(names):
            raise IndexError(f"expected a trace below {len(names)}, got {place}")
        return self._open(names[place])

    def add(self, trace: Trace) -> str:
        """Save a trace and return its name: a hash of its tokens and provenance, so that adding twice is one file.

        Raises:
            TraceError: the file cannot be written; nothing half-written stays behind.
        """
        name = _name(trace)
        path = self._file(name)
        if not path.exists():
            save_trace(trace, path)
        return name

    def _file(self, name: str) -> Path:
        return self.path / f"{name}{_SUFFIX}"

    def _open(self, name: str) -> Trace:
        return open_trace(self._file(name))


def _name(trace: Trace) -> str:
    """Return 16 hexadecimal digits: among a million traces, two share a name with odds of 1 to 37 million."""
    # What JSON cannot hold is named when the trace is saved.
    facts = json.dumps([trace.num_prompt_tokens, dict(trace.provenance)], sort_keys=True, default=str)
    tokens = np.asarray(trace.arrays["token_ids"], dtype="<i8").tobytes()
    return hashlib.sha256(facts.encode() + b"\0" + tokens).hexdigest()[:16]

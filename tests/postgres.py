"""A PostgreSQL server of a test's own, from Debian's package: in a folder that goes away, on loopback."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


def programs() -> Path:
    """Return the folder with initdb and pg_ctl, which Debian leaves out of the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("pg_ctl")
    assert found, "there is no PostgreSQL: apt-get install postgresql"
    return Path(found).parent


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of an empty database."""
    with TemporaryDirectory(prefix="postgres-") as folder, socket.socket() as free:
        Path(folder).chmod(0o755)
        data, bin_folder = Path(folder) / "data", programs()
        data.mkdir(mode=0o700)
        if os.getuid() == 0:  # initdb refuses root
            shutil.chown(data, "postgres")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        _run(f"{bin_folder}/initdb -D {data} -U test -A trust -E UTF8 --locale=C --no-sync")
        options = f"-p {port} -h 127.0.0.1 -k {data}"
        _run(f"{bin_folder}/pg_ctl -D {data} -l {data}/log -w -o '{options}' start")
        try:
            yield f"postgresql://test@127.0.0.1:{port}/postgres"
        finally:
            _run(f"{bin_folder}/pg_ctl -D {data} -m immediate -w stop")


def _run(command: str) -> None:
    """Run as postgres where we are root. Output goes nowhere: a server holds a pipe open."""
    whole = ["su", "postgres", "-c", command] if os.getuid() == 0 else ["sh", "-c", command]
    done = subprocess.run(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, cwd="/")
    assert done.returncode == 0, command

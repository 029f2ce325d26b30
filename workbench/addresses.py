"""Which addresses may be sent to: this machine, or a host over TLS."""

import ipaddress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from workbench.families import ModelError

__all__ = ["check_remote", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Say whether a host name is this machine, by the name alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_remote(remote: Any) -> None:
    """Raise `ModelError` for what is neither True, ``"local"`` nor an address over TLS or on loopback."""
    if remote is True or remote == "local":
        return
    address = remote if isinstance(remote, str) else ""
    parts = urlsplit(address)
    odd = "@" in parts.netloc or parts.query or parts.fragment or any(c.isspace() for c in address)
    if parts.scheme not in ("http", "https") or not parts.hostname or odd or not _has_port(parts):
        raise ModelError(
            "expected remote=True (NDIF), remote='local' (here, in the same way) or the address of a server of NDIF's "
            "kind, without user, query or fragment; got something else. vLLM is not among them: docs/remote.md says "
            "why"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ModelError(
            f"expected https for {parts.hostname}, which is not this machine: prompts and key could be read on the way"
        )


def _has_port(parts: SplitResult) -> bool:
    """Say whether the port, if there is one, is a number that a port can have."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False

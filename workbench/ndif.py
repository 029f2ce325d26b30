"""nnsight's way to a server, with less trust: no redirects, replies of tensors only, bounded, no websocket."""

import io
import pickle
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import torch
import zstandard
from nnsight.intervention.backends.remote import RemoteBackend

from workbench.families import ModelError

__all__ = ["Backend"]

POLL_SECONDS, POLL_FAILURES = 0.5, 5
CONNECT_SECONDS, READ_SECONDS = 10.0, 600.0
CHUNK_BYTES = 1 << 20


class Backend(RemoteBackend):  # type: ignore[misc]
    """Sends one job over HTTP and asks for its status until it is done.

    nnsight's own reply is a pickle, which can run code when it is read: here it is read as tensors and plain values,
    and anything else is refused. Its client follows no redirects; its websocket would, with the key, and is not used.
    """

    def __init__(self, model_key: str, host: str, api_key: str, env: dict[str, Any], max_bytes: int) -> None:
        """Take what is sent where, and how much may come back."""
        super().__init__(model_key, host=host, api_key=api_key, env=env, blocking=False)
        self.max_bytes = max_bytes

    def wait(self) -> dict[str, Any]:
        """Wait until the job is done and return what it saved. Raises what nnsight and httpx raise.

        A question about the status may fail a few times in a row; the job goes on meanwhile.
        """
        failures = 0
        while True:
            try:
                if (values := self.poll()) is not None:
                    return dict(values)
                failures = 0
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                failures += 1
                if failures > POLL_FAILURES or not _passes(error):
                    raise
            time.sleep(POLL_SECONDS * 2**failures)

    def download_result(self, url: Any) -> Any:
        """Fetch a result of at most ``max_bytes``, from this server or over TLS."""
        parts = urlsplit(str(url))
        if parts.scheme != "https" and (parts.scheme, parts.netloc) != tuple(urlsplit(self.host)[:2]):
            raise ModelError(f"the server keeps the result at {parts.scheme}://{parts.hostname}, without TLS; refused")
        timeout, content = httpx.Timeout(CONNECT_SECONDS, read=READ_SECONDS), io.BytesIO()
        with httpx.Client(timeout=timeout) as client, client.stream("GET", str(url)) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes(CHUNK_BYTES):
                content.write(chunk)
                self._check_size(content.tell())
        return self.finalize(content.getvalue())

    def finalize(self, content: bytes) -> Any:
        """Unpack a result, and read it without running any code that it may hold."""
        try:
            if self.compress:
                with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as stream:
                    content = stream.read(self.max_bytes + 1)
                self._check_size(len(content))
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (zstandard.ZstdError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ModelError(
                f"the server's reply is not tensors and plain values, or is damaged ({type(error).__name__}); it may "
                "hold code, so it was not read further"
            ) from error

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            raise ModelError(f"the server's reply is larger than the {self.max_bytes:,} bytes that were asked for")


def _passes(error: Exception) -> bool:
    """Say whether asking again may help."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code in (429, 500, 502, 503, 504)

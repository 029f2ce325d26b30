"""nnsight's way to a server, with less trust: no redirects, replies of tensors only, bounded, no websocket."""

import io
import json
import sys
import time
import zipfile
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import httpx
import torch
import zstandard
from nnsight.intervention.backends.remote import RemoteBackend, RemoteError
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel

from workbench.addresses import is_loopback
from workbench.families import ModelError

__all__ = ["Backend"]

POLL_SECONDS, POLL_FAILURES = 0.5, 5
UNKNOWN_POLLS = 240
"""how often in a row a server may not know the job yet"""
STATUS_BYTES = 1 << 20
"""of a status, at most"""
CONNECT_SECONDS, READ_SECONDS = 10.0, 600.0
CHUNK_BYTES = 1 << 20


class Backend(RemoteBackend):  # type: ignore[misc]
    """Sends one job over HTTP and asks for its status until it is done.

    nnsight's own reply is a pickle, which can run code when it is read: here it is read as tensors and plain values,
    and anything else is refused. No redirect is followed, no proxy of the environment sees what goes to this machine,
    every reply is bounded, and nothing that a server says is printed: it may hold the key, or steer a terminal.
    """

    def __init__(self, model_key: str, host: str, api_key: str, env: dict[str, Any], max_bytes: int) -> None:
        """Take what is sent where, and how much may come back."""
        super().__init__(model_key, host=host, api_key=api_key, env=env, blocking=False)
        self.max_bytes = max_bytes
        self.display.enabled = self.verbose = False

    def wait(self) -> dict[str, Any]:
        """Wait until the job is done and return what it saved. Raises what nnsight and httpx raise.

        A question about the status may fail a few times in a row; the job goes on meanwhile.
        """
        failures = unknown = 0
        while True:
            try:
                status, text = self._ask("GET", f"{self.host}/response/{self.job_id}", STATUS_BYTES)
                unknown = unknown + 1 if status == httpx.codes.NOT_FOUND else 0
                if unknown > UNKNOWN_POLLS:
                    raise ModelError("the server does not know the job that it took")
                if not unknown and self.note(response := ResponseModel.model_validate_json(text)):
                    return self._values(response.data)
                failures = 0
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                failures += 1
                if failures > POLL_FAILURES or not _passes(error):
                    raise
            time.sleep(POLL_SECONDS * 2**failures)

    def _values(self, url: Any) -> dict[str, Any]:
        values = self.download_result(url)
        if not isinstance(values, dict):
            raise ModelError(f"the server answered with a {type(values).__name__}, expected what was saved, by name")
        return values

    def _post(self, request: RequestModel, blob: bytes) -> ResponseModel:
        """Send a job, as nnsight does; return what the server says of it."""
        headers = {"ndif-timestamp": repr(time.time()), "python-version": sys.version}
        headers["nnsight-version"] = version("nnsight")
        files = {"blob": ("request", blob, "application/octet-stream")}
        form = {"data": request.metadata()}
        try:
            _, text = self._ask("POST", f"{self.host}/request", STATUS_BYTES, headers, data=form, files=files)
        except httpx.HTTPError as error:
            raise RemoteError(f"Failed to send request: {error}") from error
        return ResponseModel.model_validate_json(text)

    def _ask(
        self, method: str, address: str, max_bytes: int, headers: dict[str, str] | None = None, **form: Any
    ) -> tuple[int, bytes]:
        """Ask this server, with the key; return the status and at most ``max_bytes`` of what it says."""
        key = {"ndif-api-key": self.api_key} if self.api_key else {}
        with self._client() as client, client.stream(method, address, headers={**(headers or {}), **key}, **form) as r:
            content = self._read(r, max_bytes)
        if r.status_code != httpx.codes.NOT_FOUND or method == "POST":
            _raise_for(r, content)
        return r.status_code, content

    def _client(self, address: str = "") -> httpx.Client:
        host = urlsplit(address or self.host).hostname or ""
        timeout = httpx.Timeout(CONNECT_SECONDS, read=READ_SECONDS)
        # Without the environment httpx would not look at SSL_CERT_FILE either, which names an own authority.
        return httpx.Client(
            timeout=timeout,
            trust_env=not is_loopback(host),
            verify=httpx.create_ssl_context(),
            headers={"accept-encoding": "identity"},
        )

    def _read(self, response: httpx.Response, max_bytes: int) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ModelError("the server compressed a reply though it was asked not to; its size cannot be bounded")
        content = io.BytesIO()
        for chunk in response.iter_raw(CHUNK_BYTES):
            content.write(chunk)
            self._check_size(content.tell(), max_bytes)
        return content.getvalue()

    def download_result(self, url: Any) -> Any:
        """Fetch a result of at most ``max_bytes``, from this server or over TLS."""
        if not isinstance(url, str) or not url:
            raise ModelError("the server says that the job is done, and not where its result is")
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme, parts.netloc) != tuple(urlsplit(self.host)[:2]):
            raise ModelError(f"the server keeps the result at {parts.scheme}://{parts.hostname}, without TLS; refused")
        with self._client(url) as client, client.stream("GET", url) as response:
            response.raise_for_status()
            content = self._read(response, self.max_bytes)
        return self.finalize(content)

    def finalize(self, content: bytes) -> Any:
        """Unpack a result, and read it without running any code that it may hold."""
        try:
            if self.compress:
                with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as stream:
                    content = stream.read(self.max_bytes + 1)
                self._check_size(len(content), self.max_bytes)
            _check_stored(content)
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except ModelError:
            raise
        except Exception as error:  # whatever the readers raise: the content is a stranger's
            raise ModelError(
                f"the server's reply is not tensors and plain values, or is damaged ({type(error).__name__}); it may "
                "hold code, so it was not read further"
            ) from error

    def _check_size(self, size: int, max_bytes: int) -> None:
        if size > max_bytes:
            raise ModelError(f"the server's reply is larger than the {max_bytes:,} bytes that were asked for")


def _check_stored(content: bytes) -> None:
    """Refuse an archive whose parts are compressed, as torch never writes them: they could be of any size."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ModelError("the server's reply holds compressed parts, whose size cannot be bounded")


def _raise_for(response: httpx.Response, content: bytes) -> None:
    """Raise what a refusal says of itself, where it says something."""
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError as error:
        try:
            body = json.loads(content)
        except ValueError:
            body = content.decode("utf-8", "replace")
        said = body.get("detail") if isinstance(body, dict) else body
        raise httpx.HTTPStatusError(str(said or error), request=error.request, response=error.response) from error


def _passes(error: Exception) -> bool:
    """Say whether asking again may help."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code in (429, 500, 502, 503, 504)

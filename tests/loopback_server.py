"""A real HTTP server on loopback that answers as a test says, and remembers what it was asked."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Server:
    url: str
    answers: list[Callable[[BaseHTTPRequestHandler], None]]
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving(*answers: Callable[[BaseHTTPRequestHandler], None], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve the answers one after the other, perhaps over TLS; the last is given again and again."""
    server = Server("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(data) if "json" in self.headers.get("Content-Type", "") else {}
            server.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            answer(self)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    class Http(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Stay silent where a client refuses the certificate."""

    with (Http if tls else ThreadingHTTPServer)(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def reply(value: Any, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for name, content in headers.items():
            handler.send_header(name.replace("_", "-"), content)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def stream(*events: Any, gone: bool = False) -> Callable[[BaseHTTPRequestHandler], None]:
    """Send events as a stream; ``gone`` drops the connection in the middle of a chunk instead of ending it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in events:
            data = b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        handler.wfile.write(b"ff\r\nhalf" if gone else b"0\r\n\r\n")
        handler.wfile.flush()
        handler.close_connection = True

    return answer

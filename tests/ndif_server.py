"""A server of NDIF's kind on loopback: it holds a model, unpacks real requests and runs them, and has no workbench.

Started as a process of its own: ``python ndif_server.py FOLDER KEY``; prints its address. It does with a request what
NDIF's own server does, by nnsight's own functions, for one model, one job after the other; results are kept until
they are fetched, and answered as the real ones are: a status as JSON, the result as ``torch.save`` under an address.
"""

import io
import json
import sys
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

sys.modules["workbench"] = None  # type: ignore[assignment]  # whatever was not sent along is missing here

import torch  # noqa: E402
import zstandard  # noqa: E402
from nnsight.modeling.transformers import TransformersModel  # noqa: E402
from nnsight.schema.request import RequestModel  # noqa: E402
from nnsight.tracing.tracer import _saves, dec, inc  # noqa: E402


def run(model: Any, blob: bytes) -> bytes:
    """Run a job; return what it saved."""
    tracer = RequestModel.deserialize(blob, model._remoteable_persistent_objects(), compress=True)
    inc()
    try:
        tracer.execute(tracer.info.code)
        saved = {name: value for name, value in tracer.info.frame.f_locals.items() if id(value) in _saves()}
    finally:
        dec()
    with io.BytesIO() as file:
        torch.save(saved, file)
        return zstandard.ZstdCompressor().compress(file.getvalue())


class Handler(BaseHTTPRequestHandler):
    model: Any
    key = ""
    jobs: ClassVar[dict[str, dict[str, Any]]] = {}
    results: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        if self.headers.get("ndif-api-key") != self.key:
            return self.answer({"detail": f"invalid API key {self.headers.get('ndif-api-key')}"}, 401)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = message_from_bytes(b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        form = {p.get_param("name", header="content-disposition"): p for p in parts.get_payload()}  # type: ignore[union-attr]
        asked = json.loads(form["data"].get_payload(decode=True))  # type: ignore[arg-type, union-attr]
        name = f"job-{len(self.jobs)}"
        self.jobs[name] = {"id": name, "status": "RUNNING"}
        if '"tiny/served"' not in asked["model_key"]:
            self.jobs[name] |= {"status": "ERROR", "description": f"{asked['model_key']} is not deployed"}
        else:
            try:
                self.results[name] = run(self.model, form["blob"].get_payload(decode=True))  # type: ignore[arg-type, union-attr]
                self.jobs[name] |= {"status": "COMPLETED", "data": f"http://{self.headers['Host']}/result/{name}"}
            except Exception as error:  # as a server does: said to the client
                self.jobs[name] |= {"status": "ERROR", "description": f"{type(error).__name__}: {error}"}
        return self.answer({"id": name, "status": "RECEIVED"})

    def do_GET(self) -> None:
        kind, _, name = self.path[1:].partition("/")
        if kind == "response":
            return self.answer(self.jobs[name])
        return self.answer(self.results[name])

    def answer(self, value: Any, status: int = 200) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


def main() -> None:
    torch.set_num_threads(1)
    Handler.model = TransformersModel(sys.argv[1], task="text-generation", dispatch=True, dtype=torch.float32)
    Handler.key = sys.argv[2]
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()

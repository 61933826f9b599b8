"""What takes traces in LangSmith's place: a server on loopback for what its client really posts."""

import email
import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard


class TraceServer(ThreadingHTTPServer):
    """Keeps every body it is sent, unpacked, and puts the runs of a trace together.

    Args:
        compressed: says that it takes zstd, which makes the client send it.
    """

    daemon_threads = True

    def __init__(self, compressed: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        flags = {"zstd_compression_enabled": compressed}
        self.info: Any = {"version": "0.13.0", "instance_flags": flags}
        self.status = 202
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def address(self) -> str:
        """What LANGSMITH_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def names(self) -> list[str]:
        """The runs' names, in the order in which they began."""
        begun = sorted(self.runs.values(), key=lambda run: run["dotted_order"])
        return [run["name"] for run in begun]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The runs of that name."""
        return [run for run in self.runs.values() if run["name"] == name]

    def parent_of(self, run: dict[str, Any]) -> dict[str, Any]:
        """The run in which this one was made."""
        return self.runs[run["parent_run_id"]]

    def take(self, path: str, kind: str, body: bytes) -> None:
        """Keep a body, and what it says of runs."""
        with self._one_at_a_time:
            self.bodies.append(body)
            pieces = _parts(kind, body) if path == "/runs/multipart" else _batch(body)
            for identity, said in pieces:
                self.runs.setdefault(identity, {}).update(said)


def _batch(body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    told = json.loads(body)
    for run in (*told.get("post", ()), *told.get("patch", ())):
        yield run["id"], run


def _parts(kind: str, body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part is a run, or one of its fields: `post.<id>`, `patch.<id>.outputs`."""
    message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    for part in message.get_payload():
        name = str(part.get_param("name", header="content-disposition"))
        _, identity, *field = name.split(".")
        value = json.loads(part.get_payload(decode=True))
        yield identity, {field[0]: value} if field else value


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TraceServer

    def log_message(self, *args: object) -> None:
        """Say nothing: a test's output is the test's."""

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        self._answer(200, self.server.info)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match self.headers.get("Content-Encoding"):
            case "zstd":
                body = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
            case "gzip":
                body = gzip.decompress(body)
        self.server.take(self.path, self.headers["Content-Type"], body)
        self._answer(self.server.status, {})

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def taking_traces(compressed: bool = True) -> Iterator[TraceServer]:
    """A server that takes traces until the block ends."""
    server = TraceServer(compressed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

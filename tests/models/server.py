"""A model server on loopback that speaks two wire formats and plays one script.

It refuses what the providers refuse (a wrong key, an unknown model, a tool call left without an
answer), so that a client that works with it has no such mistake.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.models.anthropic_wire import AnthropicWire
from tests.models.openai_wire import OpenAIWire
from tests.models.script import Answer, HangsUp, Question, Refuses, Says, Script
from tests.models.wire import BadRequest, Wire

WIRES: tuple[Wire, ...] = (OpenAIWire(), AnthropicWire())
MODELS = ("scripted-large", "scripted-small")


class ModelServer(ThreadingHTTPServer):
    """Plays `script` for whoever has `key`; `questions` holds all that it was asked."""

    daemon_threads = True

    def __init__(self, script: Script, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.key = script, key
        self.questions: list[Question] = []
        self.answers: list[Answer] = []
        self.closing = threading.Event()
        self._one_at_a_time = threading.Lock()

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`; OpenAI's clients want `/v1` behind it, Anthropic's do not."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ask(self, question: Question) -> Answer:
        """The script's answer, written down."""
        with self._one_at_a_time:
            answer = self.script.answer(question)
            self.questions.append(question)
            self.answers.append(answer)
        return answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is an error of the script's."""
        if not self.closing.is_set():
            super().handle_error(request, client_address)


@contextmanager
def serving(script: Script, key: str) -> Iterator[ModelServer]:
    """A server that answers until the block ends."""
    server = ModelServer(script, key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelServer

    def log_message(self, *args: object) -> None:
        """Say nothing: a test's output is the test's."""

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._document(404, {"error": {"message": f"no {self.path}"}})
            return
        data = [{"id": name, "object": "model", "owned_by": "tests"} for name in MODELS]
        self._document(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wire = next((one for one in WIRES if one.path == self.path), None)
        if wire is None:
            self._document(404, {"error": {"message": f"no {self.path}"}})
            return
        if (
            wire.key({name.lower(): value for name, value in self.headers.items()})
            != self.server.key
        ):
            self._document(401, wire.error(401, "Incorrect API key provided"))
            return
        if body.get("model") not in MODELS:
            self._document(404, wire.error(404, f"The model {body.get('model')} does not exist"))
            return
        try:
            question = wire.read(body)
        except BadRequest as error:
            self._document(400, wire.error(400, str(error)))
            return
        if complaint := question.complaint():
            self._document(400, wire.error(400, complaint))
            return
        self._give(wire, question, body)

    def _give(self, wire: Wire, question: Question, body: Mapping[str, Any]) -> None:
        match self.server.ask(question):
            case HangsUp():
                self.close_connection = True
            case Refuses(status, message, retry_after_s):
                after = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
                self._document(status, wire.error(status, message), after)
            case Says() as says:
                # A server that closes does not wait for its slow answers.
                if self.server.closing.wait(says.delay_s):
                    self.close_connection = True
                elif question.streamed:
                    self._stream(wire.events(question, says, body))
                else:
                    self._document(200, wire.whole(question, says))

    def _document(
        self, status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self._write(data)

    def _stream(self, events: Iterator[str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self._write(event.encode())
        self.close_connection = True

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            # The client's patience ended first, which is what slow scripts are for.
            self.close_connection = True

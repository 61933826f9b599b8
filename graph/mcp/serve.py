"""Speaking to clients: over standard input and output, or over HTTP on loopback with a token.

However it ends, the runs' processes end with it, and nothing but the protocol is on standard
output.
"""

import os
import secrets
import socket
import sys
import threading

import anyio
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.endings import endings, heed
from graph.mcp.hall import Hall
from graph.mcp.server import Server, build_server
from knowledge.errors import BadInput

LOOPBACK = "127.0.0.1"
PATH = "/mcp"
TOKEN_VARIABLE = "KERNELWRIGHT_MCP_TOKEN"
SHORTEST_TOKEN = 16
GOODBYE_SECONDS = 3
REFUSAL = b'{"error": "invalid_token", "error_description": "give Authorization: Bearer TOKEN"}'


def serve_stdio(hall: Hall) -> None:
    """Serve one client on standard input and output until it closes them. Does not return."""
    _leave_on_signals(hall)
    anyio.run(build_server(hall).run_stdio_async)
    _leave(hall)


def serve_http(hall: Hall, port: int) -> None:
    """Serve clients on loopback until a signal. Does not return.

    Args:
        hall: what is served.
        port: 0 for any that is free.

    Raises:
        BadInput: the port is taken, or the token too short.
    """
    token, given = _token()
    listener = _listener(port)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        http_app(build_server(hall), token, port),
        # uvicorn's own loggers write to standard output too.
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GOODBYE_SECONDS,
    )
    shown = f"the token in ${TOKEN_VARIABLE}" if given else token
    _say(f"http://{LOOPBACK}:{port}{PATH}, Authorization: Bearer {shown}")
    # uvicorn ends in order at a signal, and then raises it again for whoever was there before.
    _leave_on_signals(hall)
    anyio.run(uvicorn.Server(config).serve, [listener])
    _leave(hall)


def http_app(server: Server, token: str, port: int) -> ASGIApp:
    """The server as an application that lets nobody in without the token.

    A page in a browser that has its own name lead to loopback is refused by the name it sends.
    """
    names = (LOOPBACK, "localhost", "[::1]")
    security = TransportSecuritySettings(
        allowed_hosts=[f"{name}:{port}" for name in names],
        allowed_origins=[f"http://{name}:{port}" for name in names],
    )
    app = server.streamable_http_app(streamable_http_path=PATH, transport_security=security)
    return TokenRequired(app, token)


class TokenRequired:
    """Answers 401 to every request that does not bear the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "http" and not self._bears_token(scope):
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(REFUSAL)).encode()),
                (b"www-authenticate", b'Bearer error="invalid_token"'),
            ]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        await self._app(scope, receive, send)

    def _bears_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if given else (b"", b"", b"")
        # Takes as long wherever the first difference is.
        same = secrets.compare_digest(token.strip(), self._token)
        return len(given) == 1 and scheme.lower() == b"bearer" and same


def _token() -> tuple[str, bool]:
    """The token, and whether the environment gave it."""
    given = os.environ.get(TOKEN_VARIABLE, "")
    if not given:
        return secrets.token_urlsafe(32), False
    if len(given) < SHORTEST_TOKEN:
        raise BadInput(
            f"${TOKEN_VARIABLE}",
            f"is shorter than {SHORTEST_TOKEN} characters.",
            "Leave it unset, and one is made and printed.",
        )
    return given, True


def _listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise BadInput(f"--port {port}", f"cannot be had ({error}).", "Give another.") from error
    return listener


def _leave_on_signals(hall: Hall) -> None:
    """End in order on Ctrl-C, SIGTERM and SIGHUP: who reads standard input can't be woken."""
    heed(endings(), lambda: threading.Thread(target=_leave, args=(hall,)).start())


def _leave(hall: Hall) -> None:
    """End every run and its processes, then this one."""
    hall.close()
    sys.stderr.flush()
    # Threads that wait for a client would keep the process.
    os._exit(0)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()

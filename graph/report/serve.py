"""The list of runs and their reports over HTTP: for this machine alone, and only to be read.

It listens on loopback. A page elsewhere that has a name resolve to this machine (DNS rebinding) is
told nothing, as the Host header is checked. No path of a request ever becomes a path of a file: a
run is looked up in the list, and of its files there are four that can be asked for.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from graph.report.index import render_index, style_hash
from graph.report.listing import STATES, RunRow, Wanted
from graph.report.write import hash_of, script
from knowledge.errors import BadInput

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")
# What can be asked for of a run, and as what it is sent.
FILES = {
    "report.html": "text/html; charset=utf-8",
    "report.json": "application/json",
    "best/kernel.py": "text/plain; charset=utf-8",
    "events.jsonl": "text/plain; charset=utf-8",
}
LONGEST_ADDRESS = 2_000
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOTHING = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"

Listing = Callable[[], list[RunRow]]


def make_server(listing: Listing, port: int, limit: int | None = None) -> ThreadingHTTPServer:
    """A server on loopback that shows what `listing` finds; port 0 takes any that is free.

    Of what fits a page's filter it lists the first `limit`; the reports of all can be asked for.

    Raises:
        OSError: the port is taken.
    """
    return _Server((LOOPBACK, port), partial(_Handler, listing, limit))


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server_version = "Kernelwright"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    # Of a connection on which nothing comes.
    timeout = 30

    def __init__(self, listing: Listing, limit: int | None, *given: object) -> None:
        self._listing = listing
        self._limit = limit
        super().__init__(*given)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *given: object) -> None:
        """A reader's requests are nobody's business."""

    def _answer(self, *, body: bool) -> None:
        if not self._is_for_us():
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost.", body)
            return
        if len(self.path) > LONGEST_ADDRESS:
            self._say(HTTPStatus.REQUEST_URI_TOO_LONG, "That address is too long.", body)
            return
        try:
            address = urlsplit(self.path)
        except ValueError:
            self._say(HTTPStatus.BAD_REQUEST, "That is no address.", body)
            return
        if address.path == "/":
            self._index(address.query, body)
            return
        file = self._file(unquote(address.path, errors="replace"))
        if file is None:
            self._say(HTTPStatus.NOT_FOUND, "There is no such page. The list of runs: /", body)
            return
        self._send(HTTPStatus.OK, file[1], file[0], policy_of(file[1]), body)

    def _is_for_us(self) -> bool:
        """Whether the Host header names this machine and this port, once."""
        port = self.connection.getsockname()[1]
        hosts = self.headers.get_all("Host") or []
        return len(hosts) == 1 and hosts[0].lower() in {f"{name}:{port}" for name in NAMES}

    def _index(self, query: str, body: bool) -> None:
        given = parse_qs(query, max_num_fields=20) if query.count("&") < 20 else {}
        status = given.get("status", [""])[0]
        wanted = Wanted(
            states=tuple(state for state in STATES if state == status),
            op=given.get("op", [""])[0],
            device=given.get("device", [""])[0],
        )
        try:
            rows = self._listing()
        except BadInput as error:
            # The folder went away while it is served.
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, str(error), body)
            return
        fitting = [row for row in rows if wanted.fits(row)][: self._limit]
        page = render_index(fitting, wanted, _names(rows))
        policy = f"{NOTHING}; style-src '{style_hash()}'; form-action 'self'"
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), policy, body)

    def _file(self, path: str) -> tuple[bytes, str] | None:
        """A file's bytes and what it is; None where it can't be asked for, or isn't there."""
        empty, runs, name, wanted = [*path.split("/", 3), "", "", "", ""][:4]
        try:
            known = _names(self._listing())
        except BadInput:
            return None
        folder = next((one for one, its in known.items() if its == name), None)
        if empty or runs != "runs" or folder is None or wanted not in FILES:
            return None
        root = Path(folder)
        try:
            # A link in a run's folder could lead anywhere.
            file = (root / wanted).resolve(strict=True)
            if not file.is_relative_to(root.resolve()) or not file.is_file():
                return None
            return file.read_bytes(), FILES[wanted]
        except (OSError, RuntimeError):
            return None

    def _say(self, status: HTTPStatus, text: str, body: bool) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode(), NOTHING, body)

    def _send(self, status: HTTPStatus, kind: str, content: bytes, policy: str, body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        for name, value in ALWAYS.items():
            self.send_header(name, value)
        # A reader who has gone is no error.
        with suppress(ConnectionError):
            self.end_headers()
            if body:
                self.wfile.write(content)


def _names(rows: Sequence[RunRow]) -> dict[str, str]:
    """A name in addresses for each run's folder; folders of one name are counted."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for folder in sorted(row.run_dir for row in rows):
        name, number = Path(folder).name, 2
        while name in taken:
            name, number = f"{Path(folder).name}~{number}", number + 1
        names[folder] = name
        taken.add(name)
    return names


def policy_of(kind: str) -> str:
    """What a file may do: a report runs its own script, in an origin of its own; others nothing."""
    if not kind.startswith("text/html"):
        return f"{NOTHING}; sandbox"
    # A report holds what programs and models wrote. Were any of it to run, it could ask nobody.
    styles = "style-src 'unsafe-inline'; form-action 'none'"
    return f"{NOTHING}; {styles}; script-src '{hash_of(script())}'; sandbox allow-scripts"

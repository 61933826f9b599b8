"""Reaching a Chroma server: its address, its gate, and one readable line where nobody answers."""

import json
import os
from typing import NamedTuple, cast
from urllib.parse import quote, urlsplit

import chromadb
import httpx
from chromadb.api.client import Client
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings

from knowledge.errors import BadInput

TOKEN = "KERNELWRIGHT_LIBRARY_TOKEN"
# A request to a server that is there takes milliseconds; this is for one that is far away.
REACH_S = 5.0
# A batch of passages takes a second on a slow disk.
ANSWER_S = 60.0
OK, NOT_FOUND, REFUSALS = 200, 404, (401, 403)
MEND = "Start it, or mend KERNELWRIGHT_LIBRARY; without it the library on this machine is used."


class Address(NamedTuple):
    """Where a server is, and which of its databases is meant."""

    host: str
    port: int
    ssl: bool
    tenant: str
    database: str

    @property
    def url(self) -> str:
        """The server's root."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.ssl else 'http'}://{host}:{self.port}"


class Unreachable(BadInput):
    """The library on a server is not to be had by us, or not now."""


def is_address(place: str) -> bool:
    """Whether a place for a library is a server's address and no folder."""
    return place.startswith(("http://", "https://"))


def address_of(url: str) -> Address:
    """What `http[s]://host[:port][/database]`, or `.../tenant/database`, says.

    Raises:
        BadInput: it is no such address.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadInput("library", "is no server's address.", "Write http://host:port.") from error
    path = [part for part in parts.path.split("/") if part]
    try:
        port = parts.port or (443 if parts.scheme == "https" else 8000)
    except ValueError:
        port = 0
    odd = parts.query or parts.fragment or parts.username or len(path) > 2
    if not parts.hostname or not port or odd:
        raise BadInput(
            f"library {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            "is no server's address.",
            "Write http://host:port, http://host:port/database or "
            f"http://host:port/tenant/database, and a token into {TOKEN}.",
        )
    return Address(
        host=parts.hostname,
        port=port,
        ssl=parts.scheme == "https",
        tenant=path[0] if len(path) > 1 else DEFAULT_TENANT,
        database=path[-1] if path else DEFAULT_DATABASE,
    )


def _headers() -> dict[str, str]:
    """The token, if there is one, as a proxy and as Chroma's own service read it."""
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise BadInput(TOKEN, "holds characters that no header may carry.")
    return {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else {}


def open_client(name: str, address: Address) -> Client:
    """A client for a database, which is made if there is none of that name.

    Chroma's client waits for ever on one who never answers, and tells no refusals from ruins: so
    the server is asked without it first.

    Raises:
        Unreachable: nobody answers, no Chroma server does, or it does not let us in.
    """
    headers = _headers()
    root = f"{address.url}/api/v2"
    try:
        with httpx.Client(headers=headers, timeout=REACH_S) as session:
            identity = session.get(f"{root}/auth/identity")
            _check(name, identity, "tenant")
            databases = f"{root}/tenants/{quote(address.tenant)}/databases"
            found = session.get(f"{databases}/{quote(address.database)}")
            if found.status_code == NOT_FOUND:
                # Another may be making it at this moment: what counts is that it is there then.
                session.post(databases, json={"name": address.database})
                found = session.get(f"{databases}/{quote(address.database)}")
            _check(name, found, "name")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise Unreachable(f"library {name}", f"does not answer ({told}).", MEND) from error
    opened = chromadb.HttpClient(
        address.host,
        address.port,
        address.ssl,
        headers,
        Settings(anonymized_telemetry=False),
        tenant=address.tenant,
        database=address.database,
    )
    # Chroma declares the protocol only, which lacks `close`.
    client = cast(Client, opened)
    for requests in _sessions(client):
        requests.timeout = httpx.Timeout(ANSWER_S, connect=REACH_S)
    return client


def close_client(client: Client) -> None:
    """Close it with its connections, which Chroma's own `close` leaves open."""
    # Taken first: a closed client has let go of them.
    opened = _sessions(client)
    client.close()
    for requests in opened:
        requests.close()


def _sessions(client: Client) -> list[httpx.Client]:
    """What a client sends requests by, itself and the one it asks for its database with.

    They have no deadline, nobody closes them, and there is no other way to them.
    """
    servers = (client._server, getattr(client._admin_client, "_server", None))
    found = (getattr(server, "_session", None) for server in servers)
    return [session for session in found if isinstance(session, httpx.Client)]


def _check(name: str, answer: httpx.Response, key: str) -> None:
    """See that a server of Chroma's has said yes."""
    if answer.status_code in REFUSALS:
        raise refused(name)
    try:
        document = json.loads(answer.text)
    except ValueError:
        document = {}
    if answer.status_code != OK or key not in document:
        said = str(document.get("message") or f"{answer.status_code} {answer.reason_phrase}")
        raise Unreachable(f"library {name}", f"is of no use ({said.strip()[:200]}).", MEND)


def refused(name: str) -> Unreachable:
    """What is said where a server, or a gate before it, knows no such token."""
    mend = f"Set {TOKEN} to a token it knows."
    return Unreachable(f"library {name}", "does not let us in.", mend)

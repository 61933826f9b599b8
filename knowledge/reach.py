"""Reaching a Chroma server: its address, its gate, and one readable line where nobody answers."""

import json
import os
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

import chromadb
import httpx
from chromadb.api import ClientAPI
from chromadb.config import DEFAULT_DATABASE, DEFAULT_TENANT, Settings
from chromadb.errors import ChromaError, NotFoundError

from knowledge.errors import BadInput

TOKEN = "KERNELWRIGHT_LIBRARY_TOKEN"
# A request to a server that is there takes milliseconds; this is for one that is far away.
REACH_S = 5.0
MEND = "Start it, or mend KERNELWRIGHT_LIBRARY; without it the library on this machine is used."


class Unreachable(BadInput):
    """The library on a server is not to be had by us, or not now."""


def is_address(place: str) -> bool:
    """Whether a place for a library is a server's address and no folder."""
    return place.startswith(("http://", "https://"))


def address_of(url: str) -> tuple[SplitResult, str, str]:
    """Where the server is, and the tenant and the database that are meant."""
    parts = urlsplit(url)
    path = [part for part in parts.path.split("/") if part]
    try:
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0) and len(path) < 3
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment or parts.username:
        raise BadInput(
            f"library {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
            "is no server's address.",
            "Write http://host:port, http://host:port/database or "
            f"http://host:port/tenant/database, and a token into {TOKEN}.",
        )
    database = path[-1] if path else DEFAULT_DATABASE
    return parts, path[0] if len(path) > 1 else DEFAULT_TENANT, database


def token_headers() -> dict[str, str]:
    """The token, if there is one, as a proxy and as Chroma's own service read it."""
    token = os.environ.get(TOKEN)
    return {"Authorization": f"Bearer {token}", "X-Chroma-Token": token} if token else {}


def probe(name: str, where: SplitResult, headers: dict[str, str]) -> None:
    """Ask whether somebody is there and lets us in.

    Chroma's client waits for ever on one who never answers, and tells no refusals from ruins.
    """
    port = where.port or (443 if where.scheme == "https" else 8000)
    host = f"[{where.hostname}]" if ":" in (where.hostname or "") else where.hostname
    url = f"{where.scheme}://{host}:{port}/api/v2/auth/identity"
    try:
        answer = httpx.get(url, headers=headers, timeout=REACH_S)
    except httpx.HTTPError as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise Unreachable(f"library {name}", f"does not answer ({told}).", MEND) from error
    if answer.status_code in (401, 403):
        raise refused(name)
    try:
        known = answer.status_code == 200 and "tenant" in json.loads(answer.text)
    except ValueError:
        known = False
    if not known:
        said = f"{answer.status_code} {answer.reason_phrase}".strip()
        raise Unreachable(f"library {name}", f"is no Chroma server ({said}).", MEND)


def open_client(
    host: str, port: int, ssl: bool, headers: dict[str, str], tenant: str, database: str
) -> ClientAPI:
    """A client for a database, which is made if there is none of that name."""

    def settings() -> Settings:
        return Settings(anonymized_telemetry=False)

    try:
        return chromadb.HttpClient(
            host, port, ssl, headers, settings(), tenant=tenant, database=database
        )
    except NotFoundError:
        where = settings()
        where.chroma_api_impl = "chromadb.api.fastapi.FastAPI"
        where.chroma_server_host, where.chroma_server_http_port = host, port
        where.chroma_server_ssl_enabled, where.chroma_server_headers = ssl, headers
        with suppress(ChromaError):
            chromadb.AdminClient(where).create_database(database, tenant)
        return chromadb.HttpClient(
            host, port, ssl, headers, settings(), tenant=tenant, database=database
        )


def refused(name: str) -> Unreachable:
    """What is said where a server, or a gate before it, knows no such token."""
    mend = f"Set {TOKEN} to a token it knows."
    return Unreachable(f"library {name}", "does not let us in.", mend)

"""A process's hold on a shelf: one Chroma client and one index by words, never stale ones."""

import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import cast

import chromadb
from chromadb.api.client import Client
from chromadb.config import Settings

from knowledge.catalogue import Catalogue
from knowledge.lexical import WordIndex, open_index
from knowledge.passage import Row


class Connection:
    """This process's one Chroma client for a folder, reopened when another process has written.

    An open client answers from the index it loaded, without a word, long after another process
    has replaced it; and what it then writes undoes the other's work.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._client: Client | None = None
        self._seen = (-1, -1)
        self._words: tuple[str, WordIndex] | None = None

    def client(self, folder: Path, catalogue: Catalogue) -> Client:
        """A client that sees all that was written up to `catalogue`."""
        if self._client is None or self._seen != (catalogue.shelf, catalogue.generation):
            self._let_go()
            opened = chromadb.PersistentClient(
                path=folder / f"shelf-{catalogue.shelf}",
                settings=Settings(anonymized_telemetry=False),
            )
            # Chroma declares the protocol only, which lacks `close`.
            self._client = cast(Client, opened)
            self.wrote(catalogue)
        return self._client

    def words(self, folder: Path, catalogue: Catalogue, rows: Callable[[], list[Row]]) -> WordIndex:
        """The index by words of the passages as `catalogue` has them."""
        if self._words is None or self._words[0] != catalogue.words:
            self._words = (catalogue.words, open_index(folder, catalogue.words, rows))
        return self._words[1]

    def wrote(self, catalogue: Catalogue) -> None:
        """What led to `catalogue` was done through this client."""
        self._seen = (catalogue.shelf, catalogue.generation)

    def close(self) -> None:
        """Let go of the shelf's files and of what was read from beside it."""
        self._words = None
        self._let_go()

    def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


@cache
def connection_to(folder: Path) -> Connection:
    """This process's connection to a library's folder."""
    # Chroma shares one system a path within a process, so two clients could not be refreshed apart.
    return Connection()

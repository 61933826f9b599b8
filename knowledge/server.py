"""A library on a Chroma server: one for a team, with the semantics of a folder.

A server has neither locks nor transactions, but no two collections of one name: so a state of the
library is an *edition*, a numbered collection that its writer makes and nobody else can. A writer
that lives says so every few seconds; one that is silent for longer has died, and the next one takes
the next number. Readers compare the newest edition before and after they have read.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeVar

import chromadb
import httpx
import numpy as np
from chromadb.api.client import Client
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    ChromaError,
    InvalidDimensionException,
    NotFoundError,
)

from knowledge.catalogue import Catalogue
from knowledge.experience import Lesson
from knowledge.lexical import WordIndex, open_index
from knowledge.passage import Row
from knowledge.reach import (
    MEND,
    Unreachable,
    address_of,
    close_client,
    open_client,
    refused,
)
from knowledge.shelf import EF_SEARCH

PREFIX = "kernelwright-"
EDITION = f"{PREFIX}edition-"
LOG = f"{PREFIX}lesson-log"
ENTRY = "catalogue"
BEAT_S = 2.0
# So long is a writer's silence taken for its death; a laptop's sleep is no less.
SILENCE_S = 12.0
POLL_S = 0.1
# Chroma wants a vector of whatever it keeps; these rows are found by their names.
NOWHERE = np.ones((1, 1), dtype=np.float32)
BATCH = 500

Answer = TypeVar("Answer")


class Superseded(Unreachable):
    """This writer was silent for so long that another took its place."""


class _Edition(NamedTuple):
    """A state of the library; `begun` says that passages may have been changed already."""

    number: int
    done: bool
    begun: bool
    left: bool
    beat: int

    @property
    def facts(self) -> dict[str, str | int | float | bool]:
        return {"done": self.done, "begun": self.begun, "left": self.left, "beat": self.beat}


class ServerShelf:
    """The collections of one library on a server, and this machine's indices by words of it."""

    def __init__(self, url: str, folder: Path) -> None:
        """Nothing is asked of the server yet.

        Args:
            url: `http[s]://host[:port][/database]` or `.../tenant/database`.
            folder: where indices by words are kept.

        Raises:
            BadInput: it is no such address.
        """
        self._address = address_of(url)
        self.name = url.rstrip("/")
        self.host = socket.gethostname()
        self.folder = folder / f"server-{sha256(self.name.encode()).hexdigest()[:12]}"
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._collections: dict[str, chromadb.Collection] = {}
        self._words: tuple[str, WordIndex] | None = None
        self._known: tuple[int, Catalogue] = (0, Catalogue())
        self._watched = (0, -1, 0.0)
        self._mine: _Writer | None = None

    def read(self, answer: Callable[[Catalogue], Answer]) -> Answer:
        """An answer that was begun and ended in one edition; a writer is waited for."""
        with self._lock, self._spoken():
            while True:
                number, catalogue = self._settled()
                try:
                    found = answer(catalogue)
                except (KeyError, ChromaError):
                    # Rows that vanish while they are read are another writer's doing.
                    if self._newest() == number:
                        raise
                    continue
                if self._newest() == number:
                    return found

    @contextmanager
    def writing(self) -> Iterator[Catalogue]:
        """Hold the next edition; it is taken away again if nothing was begun in it."""
        with self._lock, self._spoken():
            number = self._claimed()
            writer = _Writer(self._connected(), number)
            self._mine = writer
            try:
                yield self._before(number)
            finally:
                self._mine = None
                with suppress(Exception):
                    writer.leave()

    def begin(self, catalogue: Catalogue) -> None:
        """Say in the edition that passages are changed from now on."""
        self._writer().say(begun=True)

    def finish(self, catalogue: Catalogue) -> Catalogue:
        """Publish the edition, and remove those before it with their collections.

        Raises:
            Superseded: another writer took this one for dead.
        """
        writer, client = self._writer(), self._connected()
        finished = catalogue.model_copy(
            update={"writing": False, "generation": catalogue.generation + 1}
        )
        if self._newest() != writer.number:
            raise _superseded(self.name)
        edition = client.get_collection(_named(writer.number), embedding_function=None)
        entry = {"catalogue": finished.model_dump_json()}
        edition.upsert(ids=[ENTRY], embeddings=NOWHERE, metadatas=[entry])
        writer.say(done=True)
        if self._newest() != writer.number:
            raise _superseded(self.name)
        self._sweep(finished, writer.number)
        return finished

    def next_number(self, catalogue: Catalogue) -> int:
        """The edition's own, which is given once."""
        return self._writer().number

    def collection(self, catalogue: Catalogue, name: str) -> chromadb.Collection:
        """The collection; only a writer makes one that is not there."""
        full = f"{PREFIX}{name}-{catalogue.shelf}"
        if full not in self._collections:
            client = self._connected()
            self._collections[full] = (
                client.get_collection(full, embedding_function=None)
                if self._mine is None
                else client.get_or_create_collection(
                    full,
                    embedding_function=None,
                    configuration={"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}},
                )
            )
        return self._collections[full]

    def empty(self, catalogue: Catalogue, name: str) -> None:
        """Drop all rows; the collection stays, since others look it up by its id."""
        _delete_all(self.collection(catalogue, name))

    def words(self, catalogue: Catalogue, rows: Callable[[], list[Row]]) -> WordIndex:
        """The index, kept in memory and on this machine."""
        if self._words is None or self._words[0] != catalogue.words:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._words = (catalogue.words, open_index(self.folder, catalogue.words, rows))
        return self._words[1]

    def damage(self, error: ChromaError) -> str:
        """Only what is missing or of another length can be mended by building anew."""
        if isinstance(error, NotFoundError | InvalidDimensionException):
            return str(error)
        raise error

    def lessons(self) -> list[Lesson]:
        """Those of the log, which no rebuilding touches."""
        rows = self._log().get(include=["metadatas"])
        told = [str(metadata["lesson"]) for metadata in rows["metadatas"] or []]
        known = [Lesson.model_validate_json(text) for text in told]
        return sorted(known, key=lambda lesson: (lesson.when, lesson.run_id))

    def append_lesson(self, lesson: Lesson) -> None:
        """One record, which is written whole or not at all."""
        self._log().upsert(
            ids=[_log_id(lesson)],
            embeddings=NOWHERE,
            metadatas=[{"lesson": lesson.model_dump_json()}],
        )

    def drop_lessons(self, unwanted: Callable[[Lesson], bool]) -> tuple[list[Lesson], int]:
        """Take the records out of the log."""
        known = self.lessons()
        gone = [lesson for lesson in known if unwanted(lesson)]
        if gone:
            self._log().delete(ids=[_log_id(lesson) for lesson in gone])
        return [lesson for lesson in known if not unwanted(lesson)], len(gone)

    def close(self) -> None:
        """Forget the connection and what was learned through it."""
        with self._lock:
            client, self._client, self._words = self._client, None, None
            self._collections.clear()
            if client is not None:
                close_client(client)

    def _log(self) -> chromadb.Collection:
        return self._connected().get_or_create_collection(LOG, embedding_function=None)

    def _writer(self) -> "_Writer":
        assert self._mine is not None, "only a writer writes"
        return self._mine

    def _settled(self) -> tuple[int, Catalogue]:
        """The newest edition that is finished or given up, and the state it leaves behind."""
        while True:
            editions = self._editions()
            if not editions:
                return 0, Catalogue()
            newest = editions[-1]
            if newest.done or newest.left or self._is_dead(newest):
                with suppress(NotFoundError):
                    return newest.number, self._before(newest.number + 1)
            time.sleep(POLL_S)

    def _before(self, number: int) -> Catalogue:
        """The state that an edition starts from; what was begun and not finished marks it."""
        earlier = [edition for edition in self._editions() if edition.number < number]
        done = max((edition.number for edition in earlier if edition.done), default=0)
        interrupted = any(edition.begun and edition.number > done for edition in earlier)
        catalogue = self._catalogue(done) if done else Catalogue()
        return catalogue.model_copy(update={"writing": True}) if interrupted else catalogue

    def _catalogue(self, number: int) -> Catalogue:
        """What a finished edition says, which no one changes any more."""
        if self._known[0] != number:
            collection = self._connected().get_collection(_named(number), embedding_function=None)
            (entry,) = collection.get(ids=[ENTRY], include=["metadatas"])["metadatas"] or [{}]
            self._known = (number, Catalogue.model_validate_json(str(entry["catalogue"])))
        return self._known[1]

    def _claimed(self) -> int:
        """An edition of our own: the number after the newest, which is given once."""
        while True:
            number = self._settled()[0] + 1
            fresh = _Edition(number, done=False, begun=False, left=False, beat=0)
            try:
                self._connected().create_collection(
                    _named(number), metadata=fresh.facts, embedding_function=None
                )
            except ChromaError:
                if all(edition.number < number for edition in self._editions()):
                    raise
                time.sleep(POLL_S)
                continue
            # A number that was swept away may be made again by one who saw it long ago.
            if self._newest() == number:
                return number
            self._connected().delete_collection(_named(number))

    def _is_dead(self, edition: _Edition) -> bool:
        """Whether its writer has been silent for too long, by this process's own clock."""
        now, (number, beat, since) = time.monotonic(), self._watched
        if (number, beat) != (edition.number, edition.beat):
            self._watched = (edition.number, edition.beat, now)
            return False
        return now - since > SILENCE_S

    def _newest(self) -> int:
        return max((edition.number for edition in self._editions()), default=0)

    def _editions(self) -> list[_Edition]:
        """All there are, oldest first."""
        found: list[_Edition] = []
        for collection in self._connected().list_collections():
            number = collection.name.removeprefix(EDITION)
            if number != collection.name and number.isdigit():
                facts = collection.metadata or {}
                done, begun, left = (bool(facts.get(key)) for key in ("done", "begun", "left"))
                beat = facts.get("beat")
                beats = beat if isinstance(beat, int) else 0
                found.append(_Edition(int(number), done, begun, left, beats))
        return sorted(found)

    def _sweep(self, catalogue: Catalogue, number: int) -> None:
        """Remove earlier editions and other shelves; who reads them sees that and asks again."""
        client = self._connected()
        for collection in client.list_collections():
            kind, _, tail = collection.name.removeprefix(PREFIX).rpartition("-")
            if not collection.name.startswith(PREFIX) or not tail.isdigit():
                continue
            # A later number is somebody's who is at work already.
            kept = number if kind == "edition" else catalogue.shelf
            if int(tail) != kept and int(tail) <= number:
                with suppress(NotFoundError):
                    client.delete_collection(collection.name)
                self._collections.pop(collection.name, None)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = open_client(self.name, self._address)
        return self._client

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """Turn what goes wrong on the way to the server into one readable line."""
        try:
            yield
        except (ChromaAuthError, AuthorizationError) as error:
            raise refused(self.name) from error
        except (ChromaError, httpx.HTTPError) as error:
            raise self._lost(error) from error
        except Exception as error:
            # So Chroma's client passes on whatever a proxy in between has answered.
            if type(error) is not Exception:
                raise
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unreachable:
        self.close()
        told = " ".join(str(error).split())[:200] or type(error).__name__
        return Unreachable(f"library {self.name}", f"could not be used ({told}).", MEND)


class _Writer:
    """The hold on an edition, and the thread that says that its holder lives."""

    def __init__(self, client: Client, number: int) -> None:
        self.number = number
        self._client = client
        self._edition = _Edition(number, done=False, begun=False, left=False, beat=0)
        self._collection = client.get_collection(_named(number), embedding_function=None)
        self._speaking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def say(self, **facts: bool) -> None:
        """Change what the edition says of itself."""
        with self._speaking:
            self._edition = self._edition._replace(beat=self._edition.beat + 1, **facts)
            self._collection.modify(metadata=dict(self._edition.facts))

    def leave(self) -> None:
        """Stop speaking; whoever waits need not wait for the silence."""
        self._ended.set()
        self._thread.join()
        if self._edition.done:
            return
        if self._edition.begun:
            self.say(left=True)
        else:
            self._client.delete_collection(_named(self.number))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            # The writer itself meets whatever is wrong with the server; its client raises a plain
            # Exception for a proxy's words.
            with suppress(Exception):
                self.say()


@cache
def server_shelf(url: str, folder: Path) -> ServerShelf:
    """This process's hold on a library on a server."""
    return ServerShelf(url, folder)


def _superseded(name: str) -> Superseded:
    return Superseded(
        f"library {name}",
        "was taken over by another writer, since this one had been silent for too long.",
        "What it wrote is not kept: run it again.",
    )


def _named(number: int) -> str:
    return f"{EDITION}{number}"


def _log_id(lesson: Lesson) -> str:
    return f"{lesson.key}-{sha256(lesson.run_id.encode()).hexdigest()[:16]}"


def _delete_all(collection: chromadb.Collection) -> None:
    ids = collection.get(include=[])["ids"]
    for start in range(0, len(ids), BATCH):
        collection.delete(ids=ids[start : start + BATCH])

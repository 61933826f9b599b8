"""Where a library's collections and its list of contents lie: a folder of this machine's.

`Shelf` says what a library asks of such a place; the other one is a server (`server.py`).
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar, cast

import chromadb
from chromadb.api.client import Client
from chromadb.config import Settings
from chromadb.errors import ChromaError

from knowledge.catalogue import Catalogue, folder_lock, load_catalogue, save_catalogue
from knowledge.errors import BadInput
from knowledge.experience import Lesson, append_lesson, drop_lessons, read_lessons
from knowledge.lexical import WordIndex, open_index
from knowledge.passage import Row

Answer = TypeVar("Answer")
# How many candidates Chroma's graph search keeps. With its own 100, of which we ask for 100, it
# misses so many neighbours among 10,000 that dense recall@5 falls from 0.78 to 0.70.
EF_SEARCH = 300


class Shelf(Protocol):
    """A place for one library, which any number of threads and processes may use at once."""

    @property
    def name(self) -> str:
        """What people call it: its folder, or its address."""

    @property
    def folder(self) -> Path:
        """Where indices by words are kept; on this machine in any case."""

    @property
    def host(self) -> str:
        """Whose the documents are that this process indexes; empty where all are one machine's."""

    def read(self, answer: Callable[[Catalogue], Answer]) -> Answer:
        """An answer from a state that nobody changes meanwhile."""

    def writing(self) -> AbstractContextManager[Catalogue]:
        """Be the only writer, from the present state on; nothing is marked before `begin`."""

    def begin(self, catalogue: Catalogue) -> None:
        """Leave a mark that outlives this process, should it be killed before `finish`."""

    def finish(self, catalogue: Catalogue) -> Catalogue:
        """Make it the present state, and drop what belongs to earlier ones only."""

    def next_number(self, catalogue: Catalogue) -> int:
        """A number that no earlier shelf has had: other processes may still hold that one open."""

    def collection(self, catalogue: Catalogue, name: str) -> chromadb.Collection:
        """A collection as it is in this state."""

    def empty(self, catalogue: Catalogue, name: str) -> None:
        """Drop all that a collection holds."""

    def words(self, catalogue: Catalogue, rows: Callable[[], list[Row]]) -> WordIndex:
        """The index by words of the passages as `catalogue` has them."""

    def damage(self, error: ChromaError) -> str:
        """What is said of a shelf that must be built anew; anything else is raised."""

    def lessons(self) -> list[Lesson]:
        """All lessons, oldest first."""

    def append_lesson(self, lesson: Lesson) -> None:
        """Keep a lesson for good; who calls is the only writer."""

    def drop_lessons(self, unwanted: Callable[[Lesson], bool]) -> tuple[list[Lesson], int]:
        """What is left, and how many were dropped; who calls is the only writer."""

    def close(self) -> None:
        """Let go of files and connections; the next call opens them again."""


class FolderShelf:
    """A folder: its one Chroma client in this process, reopened when another process has written.

    An open client answers from the index it loaded, without a word, long after another process
    has replaced it; and what it then writes undoes the other's work.
    """

    host = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._seen = (-1, -1)
        self._words: tuple[str, WordIndex] | None = None

    def read(self, answer: Callable[[Catalogue], Answer]) -> Answer:
        """An answer under the folder's lock, which readers share and a writer does not."""
        with self._lock, self._usable(), folder_lock(self.folder, exclusive=False):
            return answer(load_catalogue(self.folder))

    @contextmanager
    def writing(self) -> Iterator[Catalogue]:
        """Hold the folder's lock, which falls open when its holder dies."""
        with self._lock, self._usable(), folder_lock(self.folder, exclusive=True):
            yield load_catalogue(self.folder)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """What nobody has mended, in one line: a full disk, a folder that can't be written.

        Raises:
            BadInput: Chroma or the file system failed.
        """
        try:
            yield
        except (ChromaError, OSError) as error:
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadInput(
                f"library {self.name}",
                f"could not be used ({told}).",
                "Make its folder writable and free some disk, or set KERNELWRIGHT_LIBRARY.",
            ) from error

    def begin(self, catalogue: Catalogue) -> None:
        """Write the mark into the catalogue."""
        save_catalogue(self.folder, catalogue.model_copy(update={"writing": True}))

    def finish(self, catalogue: Catalogue) -> Catalogue:
        """Take the mark away, and free the disk.

        Who still reads an old shelf keeps its open files until the next call.
        """
        update = {"writing": False, "generation": catalogue.generation + 1}
        finished = catalogue.model_copy(update=update)
        save_catalogue(self.folder, finished)
        self._seen = (finished.shelf, finished.generation)
        for shelf in self.folder.glob("shelf-*"):
            if shelf.name != f"shelf-{finished.shelf}":
                shutil.rmtree(shelf, ignore_errors=True)
        return finished

    def next_number(self, catalogue: Catalogue) -> int:
        """One more; a lost catalogue names the newest shelf there is."""
        return catalogue.shelf + 1

    def collection(self, catalogue: Catalogue, name: str) -> chromadb.Collection:
        """The collection, made if there is none."""
        return self._opened(catalogue).get_or_create_collection(
            name,
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine", "ef_search": EF_SEARCH}},
        )

    def empty(self, catalogue: Catalogue, name: str) -> None:
        """Drop the collection; it is made again when somebody asks for it."""
        self.collection(catalogue, name)
        self._opened(catalogue).delete_collection(name)

    def words(self, catalogue: Catalogue, rows: Callable[[], list[Row]]) -> WordIndex:
        """The index, kept in memory and beside the shelf."""
        if self._words is None or self._words[0] != catalogue.words:
            self._words = (catalogue.words, open_index(self.folder, catalogue.words, rows))
        return self._words[1]

    def damage(self, error: ChromaError) -> str:
        """Whatever Chroma says of its own files, they can be made again."""
        return str(error)

    def lessons(self) -> list[Lesson]:
        """Those of the plain file."""
        return read_lessons(self._lessons_file)

    def append_lesson(self, lesson: Lesson) -> None:
        """To the plain file's end."""
        append_lesson(self._lessons_file, lesson)

    def drop_lessons(self, unwanted: Callable[[Lesson], bool]) -> tuple[list[Lesson], int]:
        """The plain file is written anew."""
        return drop_lessons(self._lessons_file, unwanted)

    def close(self) -> None:
        """Let go of the shelf's files and of what was read from beside it."""
        with self._lock:
            self._words = None
            self._let_go()

    @property
    def _lessons_file(self) -> Path:
        return self.folder / "lessons.jsonl"

    def _opened(self, catalogue: Catalogue) -> Client:
        """A client that sees all that was written up to `catalogue`."""
        if self._client is None or self._seen != (catalogue.shelf, catalogue.generation):
            self._let_go()
            opened = chromadb.PersistentClient(
                path=self.folder / f"shelf-{catalogue.shelf}",
                settings=Settings(anonymized_telemetry=False),
            )
            # Chroma declares the protocol only, which lacks `close`.
            self._client = cast(Client, opened)
            self._seen = (catalogue.shelf, catalogue.generation)
        return self._client

    def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


@cache
def folder_shelf(folder: Path) -> FolderShelf:
    """This process's hold on a library's folder."""
    # Chroma shares one system a path within a process, so two clients could not be refreshed apart.
    return FolderShelf(folder)

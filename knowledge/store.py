"""The library: passages and lessons on a Chroma shelf, kept in step with the files they come from.

The only module that speaks to Chroma. It never lets Chroma embed anything, never goes to the
network, and never trusts a client that was open while another process wrote.
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import cast

import chromadb
import numpy as np
from chromadb.api.client import Client
from chromadb.api.types import Embeddings, Where
from chromadb.config import Settings
from chromadb.errors import ChromaError

from knowledge.catalogue import (
    Catalogue,
    Entry,
    default_folder,
    folder_lock,
    load_catalogue,
    save_catalogue,
)
from knowledge.embed import Embedding, HashedWords
from knowledge.errors import BadInput
from knowledge.experience import Lesson, append_lesson, read_lessons
from knowledge.intake import IndexReport, Intake, Progress, take_stock
from knowledge.pages import Unreadable
from knowledge.passage import (
    Condition,
    Passage,
    Record,
    Row,
    conditions_for,
    passage_of,
    record_of_lesson,
    records_of,
)

__all__ = ["IndexReport", "Library", "Passage", "Unreadable", "default_folder"]

PROJECT = Path(__file__).parent
PASSAGES = "passages"
LESSONS = "lessons"
BATCH = 256
SPARE = 5
# Five sections of one page tell less than sections of three.
PASSAGES_OF_ONE_PAGE = 2


class _Connection:
    """This process's one Chroma client for a folder, reopened when another process has written.

    An open client answers from the index it loaded, without a word, long after another process
    has replaced it; and what it then writes undoes the other's work.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._client: Client | None = None
        self._seen = (-1, -1)

    def client(self, folder: Path, catalogue: Catalogue) -> Client:
        """A client that sees all that was written up to `catalogue`."""
        if self._client is None or self._seen != (catalogue.shelf, catalogue.generation):
            self.close()
            opened = chromadb.PersistentClient(
                path=folder / f"shelf-{catalogue.shelf}",
                settings=Settings(anonymized_telemetry=False),
            )
            # Chroma declares the protocol only, which lacks `close`.
            self._client = cast(Client, opened)
            self.wrote(catalogue)
        return self._client

    def wrote(self, catalogue: Catalogue) -> None:
        """What led to `catalogue` was done through this client."""
        self._seen = (catalogue.shelf, catalogue.generation)

    def close(self) -> None:
        """Let go of the shelf's files."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


@cache
def _connection(folder: Path) -> _Connection:
    # Chroma shares one system a path within a process, so two clients could not be refreshed apart.
    return _Connection()


class Library:
    """What is known: the project's pages, the user's documents, and lessons from earlier runs.

    Any number of threads and processes may use one folder at once; each call is complete in itself.
    """

    def __init__(self, folder: Path, project: Path, embedding: Embedding) -> None:
        self.folder = folder
        self._project = project
        self._embedding = embedding
        self._connection = _connection(folder)

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        project: Path = PROJECT,
        embedding: Embedding | None = None,
    ) -> "Library":
        """The library in `folder`, made if there is none yet.

        Args:
            folder: None means `default_folder()`.
            project: where the project's own pages lie.
            embedding: None means hashed words, which need no download.

        Raises:
            BadInput: the folder cannot be made or written.
        """
        folder = (folder or default_folder()).expanduser().resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "lock").touch()
        except OSError as error:
            raise BadInput(
                f"library {folder}",
                f"cannot be written ({error.strerror}).",
                "Set KERNELWRIGHT_LIBRARY to a folder of yours.",
            ) from error
        return cls(folder, project, embedding or HashedWords())

    def refresh(self) -> IndexReport:
        """Bring the project's own pages up to date; next to nothing when none has changed."""
        return self._update((), None)

    def index(self, paths: Iterable[Path], progress: Progress | None = None) -> IndexReport:
        """Add files and folders of the user's, and drop those under them that have vanished.

        Args:
            paths: Markdown, text and source files, or folders of them.
            progress: is told (done, of, name) as files are read.

        Raises:
            BadInput: a path that neither exists nor was indexed before.
        """
        return self._update(tuple(path.expanduser().resolve() for path in paths), progress)

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        kind: str | None = None,
        device: str | None = None,
        op: str | None = None,
        bottleneck: str | None = None,
    ) -> list[Passage]:
        """The best passages for a query in words, best first, at most `k`.

        Args:
            query: symptoms, operators, an error message.
            k: how many.
            kind: only pages of this kind.
            device: only pages about this device, its kind or its architecture, and general ones.
            op: only pages about this operator (`softmax`, `aten.softmax.int`), and general ones.
            bottleneck: only pages that address it, and general ones.
        """
        conditions = conditions_for(kind, device, op, bottleneck)
        # Every page is let in twice at most, so more are asked for than are wanted.
        rows = self._ask(PASSAGES, query, max(0, SPARE * k), conditions)
        found: list[Passage] = []
        taken: Counter[str] = Counter()
        for row in rows:
            page = _subject(str(row.metadata["page"]))
            taken[page] += 1
            if len(found) < k and taken[page] <= PASSAGES_OF_ONE_PAGE:
                found.append(passage_of(row))
        return found

    def remember(self, lesson: Lesson) -> None:
        """Keep a lesson for good: in a plain file first, on the shelf second."""
        with self._connection.lock, folder_lock(self.folder, exclusive=True):
            catalogue = load_catalogue(self.folder)
            if not self._sound(catalogue):
                # Whoever asks next builds the shelf anew, lessons included.
                append_lesson(self._lessons_file, lesson)
                return
            self._begin(catalogue)
            append_lesson(self._lessons_file, lesson)
            self._put(catalogue, LESSONS, [record_of_lesson(lesson)])
            self._finish(catalogue)

    def lessons_like(
        self, signature: str, device: str, k: int = 5, *, unconfirmed: bool = False
    ) -> list[Lesson]:
        """Lessons from ops like this one on the same device, most alike first.

        Args:
            signature: as `experience.signature` makes it.
            device: a device's name; what another machine measured says little here.
            k: how many.
            unconfirmed: also those that no second measurement has confirmed.
        """
        conditions: list[Condition] = [{"device": device}]
        if not unconfirmed:
            conditions.append({"confirmed": True})
        rows = self._ask(LESSONS, signature.replace("_", " "), k, conditions)
        return [Lesson.model_validate_json(row.metadata["lesson"]) for row in rows]

    def close(self) -> None:
        """Let go of the shelf's files; the next call opens them again."""
        with self._connection.lock:
            self._connection.close()

    @property
    def _lessons_file(self) -> Path:
        return self.folder / "lessons.jsonl"

    def _sound(self, catalogue: Catalogue) -> bool:
        return not self._why_anew(catalogue)

    def _ask(self, name: str, text: str, wanted: int, conditions: Sequence[Condition]) -> list[Row]:
        """The nearest rows; a missing, stale or broken shelf is built anew first, once."""
        if wanted < 1 or not text.strip():
            return []
        broken = ""
        with self._connection.lock, folder_lock(self.folder, exclusive=False):
            catalogue = load_catalogue(self.folder)
            if self._sound(catalogue):
                try:
                    return self._nearest(catalogue, name, text, wanted, conditions)
                except ChromaError as error:
                    broken = f"the shelf could not be read ({error})"
        self._update((), None, broken)
        with self._connection.lock, folder_lock(self.folder, exclusive=False):
            return self._nearest(load_catalogue(self.folder), name, text, wanted, conditions)

    def _nearest(
        self,
        catalogue: Catalogue,
        name: str,
        text: str,
        wanted: int,
        conditions: Sequence[Condition],
    ) -> list[Row]:
        collection = self._collection(catalogue, name)
        wanted = min(wanted, collection.count())
        if wanted == 0:
            return []
        found = collection.query(
            query_embeddings=self._vectors([text]),
            n_results=wanted,
            where={"$and": list(conditions)}
            if len(conditions) > 1
            else next(iter(conditions), None),
            include=["documents", "metadatas", "distances"],
        )
        columns = (
            found["documents"] or [[]],
            found["metadatas"] or [[]],
            found["distances"] or [[]],
        )
        return [
            Row(id=key, text=document, metadata=dict(metadata), distance=distance)
            for key, document, metadata, distance in zip(
                found["ids"][0], *(column[0] for column in columns), strict=True
            )
        ]

    def _vectors(self, texts: list[str]) -> Embeddings:
        return list(np.asarray(self._embedding.embed(texts), dtype=np.float32))

    def _collection(self, catalogue: Catalogue, name: str) -> chromadb.Collection:
        client = self._connection.client(self.folder, catalogue)
        return client.get_or_create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def _update(
        self, paths: tuple[Path, ...], progress: Progress | None, broken: str = ""
    ) -> IndexReport:
        with self._connection.lock, folder_lock(self.folder, exclusive=True):
            catalogue = load_catalogue(self.folder)
            why = broken or self._why_anew(catalogue)
            try:
                return self._bring_up_to_date(catalogue, paths, progress, why)
            except ChromaError as error:
                if why:
                    raise
                why = f"the shelf could not be written ({error})"
            return self._bring_up_to_date(catalogue, paths, progress, why)

    def _why_anew(self, catalogue: Catalogue) -> str:
        """Why the shelf must be built from nothing, empty where it is sound."""
        if catalogue.writing:
            return "an earlier run was interrupted"
        if catalogue.embedding == self._embedding.name:
            return ""
        return "the embedding has changed" if catalogue.embedding else "first use"

    def _bring_up_to_date(
        self, catalogue: Catalogue, paths: tuple[Path, ...], progress: Progress | None, why: str
    ) -> IndexReport:
        started = time.monotonic()
        intake = take_stock(
            catalogue.entries, self._project, paths, anew=bool(why), progress=progress
        )
        if why or intake.changes:
            catalogue = self._apply(catalogue, intake, anew=bool(why))
        return IndexReport(
            read=len(intake.arrivals),
            unchanged=intake.unchanged,
            dropped=len(intake.gone),
            unreadable=intake.unreadable,
            passages=catalogue.passages,
            seconds=round(time.monotonic() - started, 3),
            rebuilt=why,
        )

    def _apply(self, catalogue: Catalogue, intake: Intake, *, anew: bool) -> Catalogue:
        """Write an intake to the shelf, a new one if `anew`, and say so in the catalogue."""
        if anew:
            # A number no earlier shelf has had: other processes may still hold that one open.
            update = {"shelf": catalogue.shelf + 1, "embedding": self._embedding.name}
            catalogue = catalogue.model_copy(update=update)
        self._begin(catalogue)
        entries = {k: v for k, v in catalogue.entries.items() if k not in intake.gone}
        if not anew:
            stale = [a.page.label for a in intake.arrivals if a.page.label in entries]
            self._drop_pages(catalogue, [*intake.gone, *stale])
        records: list[Record] = []
        for arrival in intake.arrivals:
            made = records_of(arrival.page)
            records += made
            entries[arrival.page.label] = Entry(
                digest=arrival.digest, passages=len(made), own=arrival.own
            )
        self._put(catalogue, PASSAGES, records)
        if anew:
            lessons = {lesson.key: lesson for lesson in read_lessons(self._lessons_file)}
            self._put(catalogue, LESSONS, [record_of_lesson(each) for each in lessons.values()])
        finished = self._finish(catalogue.model_copy(update={"entries": entries}))
        if anew:
            self._remove_other_shelves(finished)
        return finished

    def _begin(self, catalogue: Catalogue) -> None:
        """Leave a mark that outlives this process, should it be killed before `_finish`."""
        save_catalogue(self.folder, catalogue.model_copy(update={"writing": True}))

    def _finish(self, catalogue: Catalogue) -> Catalogue:
        update = {"writing": False, "generation": catalogue.generation + 1}
        finished = catalogue.model_copy(update=update)
        save_catalogue(self.folder, finished)
        self._connection.wrote(finished)
        return finished

    def _put(self, catalogue: Catalogue, name: str, records: Sequence[Record]) -> None:
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            self._collection(catalogue, name).upsert(
                ids=[record.id for record in batch],
                embeddings=self._vectors([record.indexed for record in batch]),
                documents=[record.text for record in batch],
                metadatas=[dict(record.metadata) for record in batch],
            )

    def _drop_pages(self, catalogue: Catalogue, labels: Sequence[str]) -> None:
        for start in range(0, len(labels), BATCH):
            among = cast(Where, {"page": {"$in": list(labels[start : start + BATCH])}})
            self._collection(catalogue, PASSAGES).delete(where=among)

    def _remove_other_shelves(self, catalogue: Catalogue) -> None:
        """Free the disk; who still reads an old shelf keeps its open files until the next call."""
        for shelf in self.folder.glob("shelf-*"):
            if shelf.name != f"shelf-{catalogue.shelf}":
                shutil.rmtree(shelf, ignore_errors=True)


def _subject(page: str) -> str:
    """What a page is about: a pattern's card and its notes speak of one thing."""
    return page.rpartition("/")[0] if page.startswith("patterns/") else page

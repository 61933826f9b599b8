"""The library: passages and lessons on a Chroma shelf, kept in step with the files they come from.

A search is hybrid: Chroma ranks by vectors, `lexical.py` by words, `fusion.py` makes one of both.

Chroma is spoken to here alone, through a client of `connection.py`'s. It never embeds anything, and
never goes to the network.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, Unpack, cast
from uuid import uuid4

import chromadb
import numpy as np
from chromadb.api.types import Embeddings, Where
from chromadb.errors import ChromaError

from knowledge.catalogue import (
    Catalogue,
    Entry,
    default_folder,
    folder_lock,
    load_catalogue,
    save_catalogue,
)
from knowledge.connection import connection_to
from knowledge.embed import Embedding, StaticWords
from knowledge.errors import BadInput
from knowledge.experience import Lesson, append_lesson, drop_lessons, latest, read_lessons
from knowledge.experience.memory import Memory
from knowledge.fusion import Fusion, best_of_pages
from knowledge.intake import IndexReport, Intake, Progress, take_stock
from knowledge.lexical import WordIndex, remove_other_indices
from knowledge.pages import Unreadable
from knowledge.passage import (
    FORM,
    Narrowing,
    Passage,
    Record,
    Row,
    passage_of,
    record_of_lesson,
    records_of,
    tag_groups,
)

__all__ = ["IndexReport", "Library", "Passage", "Unreadable", "default_folder"]

PROJECT = Path(__file__).parent
PASSAGES = "passages"
LESSONS = "lessons"
BATCH = 256

Condition = dict[str, object]
Answer = TypeVar("Answer")


class Library:
    """What is known: the project's pages, the user's documents, and lessons from earlier runs.

    Any number of threads and processes may use one folder at once; each call is complete in itself.
    """

    def __init__(self, folder: Path, project: Path, embedding: Embedding, fusion: Fusion) -> None:
        self.folder = folder
        self.memory = Memory(folder)
        self._project = project
        self._embedding = embedding
        self._fusion = fusion
        self._connection = connection_to(folder)

    @classmethod
    def open(
        cls,
        folder: Path | None = None,
        *,
        project: Path = PROJECT,
        embedding: Embedding | None = None,
        fusion: Fusion | None = None,
    ) -> "Library":
        """The library in `folder`, made if there is none yet.

        Args:
            folder: None means `default_folder()`.
            project: where the project's own pages lie.
            embedding: None means static vectors of words, which need no download.
            fusion: how much each ranking says; None means as measured best.

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
        return cls(folder, project, embedding or StaticWords(), fusion or Fusion())

    def refresh(self) -> IndexReport:
        """Bring the project's own pages up to date; next to nothing when none has changed."""
        return self._update((), None)

    def index(self, paths: Iterable[Path], progress: Progress | None = None) -> IndexReport:
        """Add files and folders of the user's, and drop those under them that have vanished.

        Args:
            paths: Markdown, text, HTML, PDF and source files, or folders of them.
            progress: is told (done, of, name) as files are read.

        Raises:
            BadInput: a path that neither exists nor was indexed before.
        """
        return self._update(tuple(path.expanduser().resolve() for path in paths), progress)

    def search(self, query: str, k: int = 5, **narrowed: Unpack[Narrowing]) -> list[Passage]:
        """The best passages for a query in words, best first, at most `k`.

        Args:
            query: symptoms, operators, an error message.
            k: how many.
            narrowed: see `Narrowing`; holds for every ranking alike.
        """
        if k < 1 or not query.strip():
            return []
        return self._ask(lambda catalogue: self._found(catalogue, query, k, narrowed))

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

    def forget(self, unwanted: Callable[[Lesson], bool]) -> int:
        """Drop lessons for good, and say how many."""
        with self._connection.lock, folder_lock(self.folder, exclusive=True):
            catalogue = load_catalogue(self.folder)
            sound = self._sound(catalogue)
            self._begin(catalogue)
            left, dropped = drop_lessons(self._lessons_file, unwanted)
            if sound:
                # Filled anew: a dropped lesson may have taken an earlier one's place.
                self._collection(catalogue, LESSONS)
                self._connection.client(self.folder, catalogue).delete_collection(LESSONS)
                self._put(catalogue, LESSONS, [record_of_lesson(one) for one in latest(left)])
                self._finish(catalogue)
        return dropped

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
        text = signature.replace("_", " ")
        if k < 1 or not text.strip():
            return []
        rows = self._ask(
            lambda catalogue: self._rows(
                catalogue, LESSONS, self._nearest(catalogue, LESSONS, text, k, conditions)
            )
        )
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

    def _ask(self, answer: Callable[[Catalogue], list[Answer]]) -> list[Answer]:
        """An answer from the shelf; a missing, stale or broken one is built anew first, once."""
        broken = ""
        with self._connection.lock, folder_lock(self.folder, exclusive=False):
            catalogue = load_catalogue(self.folder)
            if self._sound(catalogue):
                try:
                    return answer(catalogue)
                except ChromaError as error:
                    broken = f"the shelf could not be read ({error})"
        self._update((), None, broken)
        with self._connection.lock, folder_lock(self.folder, exclusive=False):
            return answer(load_catalogue(self.folder))

    def _found(
        self, catalogue: Catalogue, query: str, k: int, narrowed: Narrowing
    ) -> list[Passage]:
        if catalogue.passages == 0:
            return []
        index = self._words(catalogue)
        groups = tag_groups(narrowed)
        conditions: list[Condition] = [
            {"$or": [{tag: True} for tag in group]} if len(group) > 1 else {group[0]: True}
            for group in groups
        ]
        scores = self._fusion.scores(
            index,
            query,
            groups,
            lambda wanted: self._nearest(catalogue, PASSAGES, query, wanted, conditions),
        )
        chosen = best_of_pages(scores, index, k)
        rows = self._rows(catalogue, PASSAGES, [index.ids[at] for at in chosen])
        return [passage_of(row, scores[at]) for row, at in zip(rows, chosen, strict=True)]

    def _words(self, catalogue: Catalogue) -> WordIndex:
        return self._connection.words(
            self.folder, catalogue, lambda: self._rows(catalogue, PASSAGES, None)
        )

    def _nearest(
        self,
        catalogue: Catalogue,
        name: str,
        text: str,
        wanted: int,
        conditions: Sequence[Condition],
    ) -> list[str]:
        """The nearest rows' names, nearest first."""
        collection = self._collection(catalogue, name)
        wanted = min(wanted, collection.count())
        if wanted == 0:
            return []
        where = {"$and": list(conditions)} if len(conditions) > 1 else next(iter(conditions), None)
        found = collection.query(
            query_embeddings=self._vectors([text]),
            n_results=wanted,
            where=cast("Where | None", where),
            include=[],
        )
        return found["ids"][0]

    def _rows(self, catalogue: Catalogue, name: str, ids: list[str] | None) -> list[Row]:
        """The rows of these names in their order; all there are where `ids` is None."""
        if ids is not None and not ids:
            return []
        got = self._collection(catalogue, name).get(ids=ids, include=["documents", "metadatas"])
        rows = {
            key: Row(id=key, text=document, metadata=dict(metadata))
            for key, document, metadata in zip(
                got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True
            )
        }
        return list(rows.values()) if ids is None else [rows[key] for key in ids]

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
        if not catalogue.embedding:
            return "first use"
        if catalogue.form != FORM:
            return "passages are kept in another form"
        return "" if catalogue.embedding == self._embedding.name else "the embedding has changed"

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
            update = {"shelf": catalogue.shelf + 1, "embedding": self._embedding.name, "form": FORM}
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
            lessons = latest(read_lessons(self._lessons_file))
            self._put(catalogue, LESSONS, [record_of_lesson(each) for each in lessons])
        update = {"entries": entries, "words": uuid4().hex[:12]}
        finished = self._finish(catalogue.model_copy(update=update))
        if anew:
            self._remove_other_shelves(finished)
        remove_other_indices(self.folder, finished.words)
        if finished.passages:
            # Made now rather than by the first who asks: that one may be in a hurry.
            self._words(finished)
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

"""The library: passages and lessons on a Chroma shelf, kept in step with the files they come from.

A search is hybrid: Chroma ranks by vectors, `lexical.py` by words, `fusion.py` makes one of both.
The shelf is a folder's (`shelf.py`) or on a server (`server.py`); Chroma is spoken to in these
three modules alone. It never embeds anything.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, Unpack, cast
from uuid import uuid4

import numpy as np
from chromadb.api.types import Where
from chromadb.errors import ChromaError

from knowledge.catalogue import Catalogue, Entry, default_place, home_folder
from knowledge.embed import Embedding, EmbeddingFailed, chosen_embedding
from knowledge.errors import BadInput
from knowledge.experience import Lesson, latest
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
    record_of_row,
    records_of,
    tag_groups,
)
from knowledge.server import Unreachable, is_address, server_shelf
from knowledge.shelf import FolderShelf, Shelf, folder_shelf

__all__ = ["IndexReport", "Library", "Passage", "Unreadable"]

PROJECT = Path(__file__).parent
PASSAGES = "passages"
LESSONS = "lessons"
BATCH = 256
CHANGED = "the embedding has changed"

Condition = dict[str, object]
Answer = TypeVar("Answer")
Vectors = dict[str, np.ndarray]


class _Draft(NamedTuple):
    """What an update will write: `why` everything, or nothing but the intake."""

    why: str
    intake: Intake
    records: list[Record]

    @property
    def changes(self) -> bool:
        return bool(self.why) or self.intake.changes


class Library:
    """What is known: the project's pages, the user's documents, and lessons from earlier runs.

    Any number of threads and processes may use one place at once; each call is complete in itself.
    """

    def __init__(
        self,
        shelf: Shelf,
        memory: Memory,
        project: Path,
        embedding: Embedding,
        fusion: Fusion,
        *,
        for_run: bool = False,
    ) -> None:
        self.memory = memory
        self._shelf = shelf
        self._project = project
        self._embedding = embedding
        self._fusion = fusion
        self._for_run = for_run

    @classmethod
    def open(
        cls,
        place: Path | str | None = None,
        *,
        project: Path = PROJECT,
        embedding: Embedding | None = None,
        fusion: Fusion | None = None,
        for_run: bool = False,
    ) -> "Library":
        """The library in a folder or on a server, made if there is none yet.

        Args:
            place: a folder, or a Chroma server's address; None means `default_place()`.
            project: where the project's own pages lie.
            embedding: None means the one that the environment chooses.
            fusion: how much each ranking says; None means as measured best.
            for_run: a server that can't be used is replaced by this machine's library, an embedding
                that fails by words alone, and the memory's complaints say so.

        Raises:
            BadInput: the folder cannot be made or written, or no such address or embedding.
        """
        where = str(place or default_place())
        home = folder_of(home_folder() if is_address(where) else Path(where))
        shelf: Shelf = server_shelf(where, home) if is_address(where) else folder_shelf(home)
        return cls(
            shelf,
            Memory(home),
            project,
            embedding or chosen_embedding(),
            fusion or Fusion(),
            for_run=for_run,
        )

    @property
    def place(self) -> str:
        """The folder or the address."""
        return self._shelf.name

    @property
    def folder(self) -> Path:
        """Where the library, or of one on a server the index by words, is kept on this machine."""
        return self._shelf.folder

    def refresh(self) -> IndexReport:
        """Bring the project's own pages up to date; next to nothing when none has changed."""
        return self._served(lambda: self._update((), None))

    def index(
        self, paths: Iterable[Path], progress: Progress | None = None, *, anew: bool = False
    ) -> IndexReport:
        """Add files and folders of the user's, and drop those under them that have vanished.

        Args:
            paths: Markdown, text, HTML, PDF and source files, or folders of them.
            progress: is told (done, of, what) as files are read and vectors are made.
            anew: build all of it from nothing; on a server, what other machines indexed with
                another embedding gets new vectors.

        Raises:
            BadInput: a path that neither exists nor was indexed before.
        """
        resolved = tuple(path.expanduser().resolve() for path in paths)
        asked = "asked to" if anew else ""
        return self._served(lambda: self._update(resolved, progress, asked))

    def search(self, query: str, k: int = 5, **narrowed: Unpack[Narrowing]) -> list[Passage]:
        """The best passages for a query in words, best first, at most `k`.

        Args:
            query: symptoms, operators, an error message.
            k: how many.
            narrowed: see `Narrowing`; holds for every ranking alike.
        """
        if k < 1 or not query.strip():
            return []
        vector, fusion = self._vector_of(query), self._fusion
        if vector is None:
            fusion = fusion.model_copy(update={"dense": 0.0})
        return self._served(
            lambda: self._ask(
                lambda catalogue: self._found(catalogue, query, vector, k, fusion, narrowed)
            )
        )

    def remember(self, lesson: Lesson) -> None:
        """Keep a lesson for good: in a file or a log first, on the shelf second."""
        record = record_of_lesson(lesson)
        vectors: Vectors = {}
        try:
            self._make_vectors([record], vectors, None)
        except EmbeddingFailed as error:
            self._endure(error)
        self._served(lambda: self._remember(lesson, record, vectors))

    def forget(self, unwanted: Callable[[Lesson], bool]) -> int:
        """Drop lessons for good, and say how many."""
        return self._served(lambda: self._forget(unwanted))

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
        vector = self._vector_of(text) if k > 0 and text.strip() else None
        if vector is None:
            return []
        rows = self._served(
            lambda: self._ask(
                lambda catalogue: self._rows(
                    catalogue, LESSONS, self._nearest(catalogue, LESSONS, vector, k, conditions)
                )
            )
        )
        return [Lesson.model_validate_json(row.metadata["lesson"]) for row in rows]

    def close(self) -> None:
        """Let go of the shelf's files; the next call opens them again."""
        self._shelf.close()

    def _served(self, work: Callable[[], Answer]) -> Answer:
        """Work on the shelf; a run goes on with this machine's where a server is lost."""
        try:
            return work()
        except Unreachable as error:
            if not self._for_run or isinstance(self._shelf, FolderShelf):
                raise
            self._shelf = folder_shelf(folder_of(home_folder()))
            self.memory.complain(
                f"{error} This run goes on with the library in {self.place}, and what it learns "
                "stays there."
            )
            return work()

    def _endure(self, error: EmbeddingFailed) -> None:
        if not self._for_run:
            raise error
        self.memory.complain(f"{error} Pages are found by their words alone.")

    def _vector_of(self, text: str) -> np.ndarray | None:
        """A question's vector; None where a run has to do without."""
        if not self._fusion.dense:
            return None
        try:
            return np.asarray(self._embedding.embed_query(text), dtype=np.float32)
        except EmbeddingFailed as error:
            self._endure(error)
            return None

    def _sound(self, catalogue: Catalogue) -> bool:
        return not self._why_anew(catalogue)

    def _ask(self, answer: Callable[[Catalogue], list[Answer]]) -> list[Answer]:
        """An answer from the shelf; a missing, stale or broken one is built anew first, once."""

        def attempt(catalogue: Catalogue) -> tuple[list[Answer] | None, str]:
            if not self._sound(catalogue):
                return None, ""
            try:
                return answer(catalogue), ""
            except ChromaError as error:
                return None, f"the shelf could not be read ({self._shelf.damage(error)})"

        found, broken = self._shelf.read(attempt)
        if found is None:
            self._update((), None, broken)
            found = self._shelf.read(answer)
        return found

    def _found(
        self,
        catalogue: Catalogue,
        query: str,
        vector: np.ndarray | None,
        k: int,
        fusion: Fusion,
        narrowed: Narrowing,
    ) -> list[Passage]:
        if catalogue.passages == 0:
            return []
        index = self._words(catalogue)
        groups = tag_groups(narrowed)
        conditions: list[Condition] = [
            {"$or": [{tag: True} for tag in group]} if len(group) > 1 else {group[0]: True}
            for group in groups
        ]

        def nearest(wanted: int) -> list[str]:
            assert vector is not None, "asked only where the dense ranking weighs something"
            return self._nearest(catalogue, PASSAGES, vector, wanted, conditions)

        scores = fusion.scores(index, query, groups, nearest)
        chosen = best_of_pages(scores, index, k)
        rows = self._rows(catalogue, PASSAGES, [index.ids[at] for at in chosen])
        return [passage_of(row, scores[at]) for row, at in zip(rows, chosen, strict=True)]

    def _words(self, catalogue: Catalogue) -> WordIndex:
        return self._shelf.words(catalogue, lambda: self._rows(catalogue, PASSAGES, None))

    def _nearest(
        self,
        catalogue: Catalogue,
        name: str,
        vector: np.ndarray,
        wanted: int,
        conditions: Sequence[Condition],
    ) -> list[str]:
        """The nearest rows' names, nearest first."""
        collection = self._shelf.collection(catalogue, name)
        wanted = min(wanted, collection.count())
        if wanted == 0:
            return []
        where = {"$and": list(conditions)} if len(conditions) > 1 else next(iter(conditions), None)
        found = collection.query(
            query_embeddings=[vector],
            n_results=wanted,
            where=cast("Where | None", where),
            include=[],
        )
        return found["ids"][0]

    def _rows(self, catalogue: Catalogue, name: str, ids: list[str] | None) -> list[Row]:
        """The rows of these names in their order; all there are where `ids` is None."""
        if ids is not None and not ids:
            return []
        collection = self._shelf.collection(catalogue, name)
        got = collection.get(ids=ids, include=["documents", "metadatas"])
        rows = {
            key: Row(id=key, text=document, metadata=dict(metadata))
            for key, document, metadata in zip(
                got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True
            )
        }
        return list(rows.values()) if ids is None else [rows[key] for key in ids]

    def _remember(self, lesson: Lesson, record: Record, vectors: Vectors) -> None:
        with self._shelf.writing() as catalogue:
            sound = self._sound(catalogue)
            if sound:
                self._shelf.begin(catalogue)
            self._shelf.append_lesson(lesson)
            # Where either is missing, whoever asks next builds the shelf anew, lessons included.
            if sound and vectors:
                self._put(catalogue, LESSONS, [record], vectors)
                self._shelf.finish(catalogue)

    def _forget(self, unwanted: Callable[[Lesson], bool]) -> int:
        with self._shelf.writing() as catalogue:
            sound = self._sound(catalogue)
            self._shelf.begin(catalogue)
            left, dropped = self._shelf.drop_lessons(unwanted)
            if sound:
                # Filled anew: a dropped lesson may have taken an earlier one's place.
                self._shelf.empty(catalogue, LESSONS)
                self._put(catalogue, LESSONS, [record_of_lesson(one) for one in latest(left)], {})
                self._shelf.finish(catalogue)
        return dropped

    def _update(
        self, paths: tuple[Path, ...], progress: Progress | None, why: str = ""
    ) -> IndexReport:
        """Bring the shelf in step with the files; drafted first, so that few are kept waiting."""
        started = time.monotonic()
        vectors: Vectors = {}

        def draft(catalogue: Catalogue, why: str) -> _Draft:
            return self._draft(catalogue, paths, progress, why, vectors)

        seen = self._shelf.read(lambda catalogue: catalogue)
        drafted = draft(seen, why)
        if not drafted.changes:
            return _report(drafted, seen, started)
        with self._shelf.writing() as catalogue:
            if catalogue != seen:
                # What was broken then has been built anew since, if it is another shelf now.
                drafted = draft(catalogue, why if catalogue.shelf == seen.shelf else "")
            if drafted.changes:
                try:
                    catalogue = self._apply(catalogue, drafted, vectors)
                except ChromaError as error:
                    if drafted.why:
                        raise
                    broken = f"the shelf could not be written ({self._shelf.damage(error)})"
                    drafted = draft(catalogue, broken)
                    catalogue = self._apply(catalogue, drafted, vectors)
        return _report(drafted, catalogue, started)

    def _why_anew(self, catalogue: Catalogue) -> str:
        """Why the shelf must be built from nothing, empty where it is sound.

        Raises:
            BadInput: it is a team's, and the others use another embedding.
        """
        if not catalogue.embedding:
            return "an earlier run was interrupted" if catalogue.writing else "first use"
        if catalogue.embedding != self._embedding.name:
            if self._shelf.host:
                raise OtherEmbedding(
                    f"library {self.place}",
                    f"was indexed by {catalogue.embedding}, and this is {self._embedding.name}.",
                    "Set KERNELWRIGHT_EMBEDDING as the others have it, or change it for all of "
                    "them: python -m knowledge.index --anew.",
                )
            return CHANGED
        if catalogue.writing:
            return "an earlier run was interrupted"
        return "" if catalogue.form == FORM else "passages are kept in another form"

    def _draft(
        self,
        catalogue: Catalogue,
        paths: tuple[Path, ...],
        progress: Progress | None,
        why: str,
        vectors: Vectors,
    ) -> _Draft:
        """What has to be written, with the vectors of it added to those that are there."""
        why = why or self._why_anew(catalogue)
        intake = take_stock(
            catalogue.entries,
            self._project,
            paths,
            anew=bool(why),
            host=self._shelf.host,
            progress=progress,
        )
        records = [one for arrival in intake.arrivals for one in records_of(arrival.page)]
        self._make_vectors(records, vectors, progress)
        return _Draft(why, intake, records)

    def _apply(self, catalogue: Catalogue, draft: _Draft, vectors: Vectors) -> Catalogue:
        """Write a draft to the shelf, a new one if need be, and say so in the catalogue."""
        records, intake, before = draft.records, draft.intake, catalogue
        carried = self._carried(before, intake.foreign, vectors) if draft.why else []
        counts = {arrival.page.label: 0 for arrival in intake.arrivals}
        for record in records:
            counts[str(record.metadata["page"])] += 1
        entries = {k: v for k, v in catalogue.entries.items() if k not in intake.gone}
        if draft.why:
            pages = {record.metadata["page"] for record in carried}
            entries = {k: v for k, v in entries.items() if k in pages}
            number = self._shelf.next_number(catalogue)
            update = {"shelf": number, "embedding": self._embedding.name, "form": FORM}
            catalogue = catalogue.model_copy(update=update)
        changed = [label for label in counts if label in before.entries]
        for arrival in intake.arrivals:
            label = arrival.page.label
            entries[label] = Entry(digest=arrival.digest, passages=counts[label], own=arrival.own)
        lessons = [record_of_lesson(each) for each in latest(self._shelf.lessons())]
        if draft.why:
            self._make_vectors(lessons, vectors, None)
        self._shelf.begin(catalogue)
        if not draft.why:
            self._drop_pages(catalogue, [*intake.gone, *changed])
        self._put(catalogue, PASSAGES, [*records, *carried], vectors)
        if draft.why:
            self._put(catalogue, LESSONS, lessons, vectors)
        update = {"entries": entries, "words": uuid4().hex[:12]}
        finished = self._shelf.finish(catalogue.model_copy(update=update))
        remove_other_indices(self.folder, finished.words)
        if finished.passages:
            # Made now rather than by the first who asks: that one may be in a hurry.
            self._words(finished)
        return finished

    def _carried(
        self, before: Catalogue, labels: tuple[str, ...], vectors: Vectors
    ) -> list[Record]:
        """What other machines have indexed: their files are out of reach, their passages are not.

        A shelf that is lost, or of another form, has nothing to carry; they index again.
        """
        if not labels or before.form != FORM:
            return []
        try:
            collection = self._shelf.collection(before, PASSAGES)
            carried: list[Record] = []
            for start in range(0, len(labels), BATCH):
                among = cast(Where, {"page": {"$in": list(labels[start : start + BATCH])}})
                got = collection.get(where=among, include=["documents", "metadatas"])
                carried += [
                    record_of_row(Row(id=key, text=text, metadata=dict(metadata)))
                    for key, text, metadata in zip(
                        got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True
                    )
                ]
        except ChromaError as error:
            self._shelf.damage(error)
            return []
        self._make_vectors(carried, vectors, None)
        return carried

    def _make_vectors(
        self, records: Sequence[Record], vectors: Vectors, progress: Progress | None
    ) -> None:
        """Add what is missing for these records, before anything on the shelf is touched."""
        texts = [text for text in {one.indexed: None for one in records} if text not in vectors]
        for start in range(0, len(texts), BATCH):
            if progress is not None:
                progress(start, len(texts), "making vectors")
            batch = texts[start : start + BATCH]
            made = np.asarray(self._embedding.embed(batch), dtype=np.float32)
            vectors.update(zip(batch, made, strict=True))

    def _put(
        self, catalogue: Catalogue, name: str, records: Sequence[Record], vectors: Vectors
    ) -> None:
        self._make_vectors(records, vectors, None)
        collection = self._shelf.collection(catalogue, name)
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            collection.upsert(
                ids=[record.id for record in batch],
                embeddings=[vectors[record.indexed] for record in batch],
                documents=[record.text for record in batch],
                metadatas=[dict(record.metadata) for record in batch],
            )

    def _drop_pages(self, catalogue: Catalogue, labels: Sequence[str]) -> None:
        for start in range(0, len(labels), BATCH):
            among = cast(Where, {"page": {"$in": list(labels[start : start + BATCH])}})
            self._shelf.collection(catalogue, PASSAGES).delete(where=among)


class OtherEmbedding(Unreachable):
    """A team's library that was made by another embedding, and is not ours to make anew."""


def folder_of(path: Path) -> Path:
    """A folder for a library, made if there is none.

    Raises:
        BadInput: it cannot be made or written.
    """
    folder = path.expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
    except OSError as error:
        raise BadInput(
            f"library {folder}",
            f"cannot be written ({error.strerror}).",
            "Set KERNELWRIGHT_LIBRARY to a folder of yours.",
        ) from error
    return folder


def _report(draft: _Draft, catalogue: Catalogue, started: float) -> IndexReport:
    return IndexReport(
        read=len(draft.intake.arrivals),
        unchanged=draft.intake.unchanged,
        dropped=len(draft.intake.gone),
        unreadable=draft.intake.unreadable,
        passages=catalogue.passages,
        seconds=round(time.monotonic() - started, 3),
        rebuilt=draft.why,
    )

"""The library: passages and lessons on a Chroma shelf, kept in step with the files they come from.

A search is hybrid: Chroma ranks by vectors, `lexical.py` by words, `fusion.py` makes one of both.
The shelf is a folder's (`shelf.py`) or on a server (`server.py`); `upkeep.py` writes to it. Chroma
is spoken to in this room alone, and never embeds anything.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, Unpack, cast

import numpy as np
from chromadb.api.types import Where
from chromadb.errors import ChromaError

from knowledge.catalogue import Catalogue, default_place, home_folder
from knowledge.embed import Embedding, EmbeddingFailed, chosen_embedding
from knowledge.errors import BadInput
from knowledge.experience import Lesson, latest
from knowledge.experience.memory import Memory
from knowledge.fusion import Fusion, best_of_pages
from knowledge.intake import IndexReport, Progress
from knowledge.pages import Unreadable
from knowledge.passage import (
    Narrowing,
    Passage,
    Record,
    passage_of,
    record_of_lesson,
    tag_groups,
)
from knowledge.reach import Unreachable, is_address
from knowledge.server import server_shelf
from knowledge.shelf import FolderShelf, Shelf, folder_shelf
from knowledge.upkeep import LESSONS, PASSAGES, Upkeep, Vectors, rows_of

__all__ = ["IndexReport", "Library", "Passage", "Unreadable"]

PROJECT = Path(__file__).parent
Condition = dict[str, object]
Answer = TypeVar("Answer")


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
        self._upkeep = Upkeep(shelf, project, embedding)
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
            cls.memory_in(home),
            project,
            embedding or chosen_embedding(),
            fusion or Fusion(),
            for_run=for_run,
        )

    @classmethod
    def memory_in(cls, home: Path) -> Memory:
        """The memory beside the shelf in a folder; a library that keeps none has another."""
        return Memory(home)

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
        return self._served(lambda: self._upkeep.update((), None))

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
        resolved = tuple(map(_resolved, paths))
        asked = "asked to" if anew else ""
        return self._served(lambda: self._upkeep.update(resolved, progress, asked))

    def drop(self, source: str) -> int:
        """Drop documents of the user's, or on a server anybody's, and say how many.

        Args:
            source: as a search names it: a file, a folder or, on a server, a host.

        Raises:
            BadInput: no such document is indexed.
        """
        if not source.strip():
            raise BadInput("--drop", "needs to know what.", "Give a file, a folder or a host.")
        self.refresh()
        dropped = self._served(lambda: self._upkeep.drop(source))
        if not dropped:
            raise BadInput(f"--drop {source}", "is no document of the library's.")
        return dropped

    def search(self, query: str, k: int = 5, **narrowed: Unpack[Narrowing]) -> list[Passage]:
        """The best passages for a query in words, best first, at most `k`.

        Args:
            query: symptoms, operators, an error message.
            k: how many.
            narrowed: see `Narrowing`; holds for every ranking alike.
        """
        if k < 1 or not query.strip():
            return []
        # Half a surrogate pair, as broken arguments and models have it, is no text to anybody.
        query = query.encode("utf-8", "replace").decode()
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
            self._upkeep.make_vectors([record], vectors, None)
        except EmbeddingFailed as error:
            self._endure(error)
        try:
            self._served(lambda: self._remember(lesson, record, vectors))
        except BadInput as error:
            if not self._for_run:
                raise
            # What a run has found is worth more than what it teaches.
            self.memory.complain(f"What this run learned teaches nobody: {error}")

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
                lambda catalogue: rows_of(
                    self._shelf.collection(catalogue, LESSONS),
                    self._nearest(catalogue, LESSONS, vector, k, conditions),
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
            self._upkeep = Upkeep(self._shelf, self._project, self._embedding)
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

    def _ask(self, answer: Callable[[Catalogue], list[Answer]]) -> list[Answer]:
        """An answer from the shelf; a missing, stale or broken one is built anew first, once."""

        def attempt(catalogue: Catalogue) -> tuple[list[Answer] | None, str]:
            if self._upkeep.why_anew(catalogue):
                return None, ""
            try:
                return answer(catalogue), ""
            except ChromaError as error:
                return None, f"the shelf could not be read ({self._shelf.damage(error)})"

        found, broken = self._shelf.read(attempt)
        if found is None:
            try:
                self._upkeep.update((), None, broken)
            except EmbeddingFailed as error:
                self._endure(error)
                return []
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
        index = self._upkeep.words(catalogue)
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
        rows = rows_of(
            self._shelf.collection(catalogue, PASSAGES), [index.ids[at] for at in chosen]
        )
        return [passage_of(row, scores[at]) for row, at in zip(rows, chosen, strict=True)]

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

    def _remember(self, lesson: Lesson, record: Record, vectors: Vectors) -> None:
        with self._shelf.writing() as catalogue:
            sound = not self._upkeep.why_anew(catalogue)
            if sound:
                self._shelf.begin(catalogue)
            self._shelf.append_lesson(lesson)
            # Where either is missing, whoever asks next builds the shelf anew, lessons included.
            if sound and vectors:
                self._upkeep.put(catalogue, LESSONS, [record], vectors)
                self._shelf.finish(catalogue)

    def _forget(self, unwanted: Callable[[Lesson], bool]) -> int:
        with self._shelf.writing() as catalogue:
            sound = not self._upkeep.why_anew(catalogue)
            vectors: Vectors = {}
            if sound:
                # Before anything is touched, so that a service that fails leaves all as it was.
                staying = [one for one in self._shelf.lessons() if not unwanted(one)]
                records = [record_of_lesson(one) for one in latest(staying)]
                self._upkeep.make_vectors(records, vectors, None)
            self._shelf.begin(catalogue)
            left, dropped = self._shelf.drop_lessons(unwanted)
            if sound:
                # Filled anew: a dropped lesson may have taken an earlier one's place.
                self._shelf.empty(catalogue, LESSONS)
                self._upkeep.put(
                    catalogue, LESSONS, [record_of_lesson(one) for one in latest(left)], vectors
                )
                self._shelf.finish(catalogue)
        return dropped


def _resolved(path: Path) -> Path:
    """The path in full.

    Raises:
        BadInput: it goes in a circle, or begins with a user whom nobody knows.
    """
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise BadInput(str(path), f"is no path ({told}).") from error


def folder_of(path: Path) -> Path:
    """A folder for a library, made if there is none.

    Raises:
        BadInput: it cannot be made or written.
    """
    folder = _resolved(path)
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

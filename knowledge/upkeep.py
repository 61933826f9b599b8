"""The upkeep of a library: bringing a shelf in step with files, all of it or what has changed.

What is to be written is drafted first, with its vectors, so that readers wait for the writing alone
and an embedding that fails leaves the shelf as it was.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast
from uuid import uuid4

import chromadb
import numpy as np
from chromadb.api.types import Where
from chromadb.errors import ChromaError

from knowledge.catalogue import Catalogue, Entry
from knowledge.embed import Embedding
from knowledge.experience import latest
from knowledge.intake import IndexReport, Intake, Progress, take_stock
from knowledge.lexical import WordIndex, remove_other_indices
from knowledge.passage import FORM, Record, Row, record_of_lesson, record_of_row, records_of
from knowledge.reach import Unreachable
from knowledge.shelf import Shelf

PASSAGES = "passages"
LESSONS = "lessons"
BATCH = 256
CHANGED = "the embedding has changed"

Vectors = dict[str, np.ndarray]


class OtherEmbedding(Unreachable):
    """A team's library that was made by another embedding, and is not ours to make anew."""


class _Draft(NamedTuple):
    """What an update will write: `why` everything, or nothing but the intake."""

    why: str
    intake: Intake
    records: list[Record]

    @property
    def changes(self) -> bool:
        return bool(self.why) or self.intake.changes


class Upkeep:
    """What writes to a shelf, and knows whether it is sound."""

    def __init__(self, shelf: Shelf, project: Path, embedding: Embedding) -> None:
        self._shelf = shelf
        self._project = project
        self._embedding = embedding

    def update(
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

    def drop(self, source: str) -> int:
        """Drop documents that users have indexed, and say how many.

        Args:
            source: as a search names it: a file, a folder or, on a server, a host.
        """

        def meant(label: str) -> bool:
            return label == source or label.startswith((f"{source.rstrip('/')}/", f"{source}:"))

        with self._shelf.writing() as catalogue:
            gone = [
                label for label, one in catalogue.entries.items() if not one.own if meant(label)
            ]
            if gone and not self.why_anew(catalogue):
                left = {key: one for key, one in catalogue.entries.items() if key not in gone}
                # Marked as it will be: whoever builds it anew after a death must not take them in.
                marked = catalogue.model_copy(update={"entries": left})
                self._shelf.begin(marked)
                self._drop_pages(marked, gone)
                self._publish(marked, left)
                return len(gone)
        return 0

    def why_anew(self, catalogue: Catalogue) -> str:
        """Why the shelf must be built from nothing, empty where it is sound.

        Raises:
            BadInput: it is a team's, and the others use another embedding.
        """
        if not catalogue.embedding:
            return "an earlier run was interrupted" if catalogue.writing else "first use"
        if catalogue.embedding != self._embedding.name:
            if self._shelf.host:
                raise OtherEmbedding(
                    f"library {self._shelf.name}",
                    f"was indexed by {catalogue.embedding}, and this is {self._embedding.name}.",
                    "Set KERNELWRIGHT_EMBEDDING as the others have it, or change it for all of "
                    "them: python -m knowledge.index --anew.",
                )
            return CHANGED
        if catalogue.writing:
            return "an earlier run was interrupted"
        return "" if catalogue.form == FORM else "passages are kept in another form"

    def make_vectors(
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

    def put(
        self, catalogue: Catalogue, name: str, records: Sequence[Record], vectors: Vectors
    ) -> None:
        """Add records to a collection, or put them in the place of those of the same names."""
        self.make_vectors(records, vectors, None)
        collection = self._shelf.collection(catalogue, name)
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            collection.upsert(
                ids=[record.id for record in batch],
                embeddings=[vectors[record.indexed] for record in batch],
                documents=[record.text for record in batch],
                metadatas=[dict(record.metadata) for record in batch],
            )

    def words(self, catalogue: Catalogue) -> WordIndex:
        """The index by words of the passages as `catalogue` has them."""
        return self._shelf.words(
            catalogue, lambda: rows_of(self._shelf.collection(catalogue, PASSAGES), None)
        )

    def _draft(
        self,
        catalogue: Catalogue,
        paths: tuple[Path, ...],
        progress: Progress | None,
        why: str,
        vectors: Vectors,
    ) -> _Draft:
        """What has to be written, with the vectors of it added to those that are there."""
        why = why or self.why_anew(catalogue)
        intake = take_stock(
            catalogue.entries,
            self._project,
            paths,
            anew=bool(why),
            host=self._shelf.host,
            progress=progress,
        )
        records = [one for arrival in intake.arrivals for one in records_of(arrival.page)]
        self.make_vectors(records, vectors, progress)
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
        lessons: list[Record] = []
        if draft.why:
            lessons = [record_of_lesson(each) for each in latest(self._shelf.lessons())]
            self.make_vectors(lessons, vectors, None)
        self._shelf.begin(catalogue)
        if not draft.why:
            self._drop_pages(catalogue, [*intake.gone, *changed])
        self.put(catalogue, PASSAGES, [*records, *carried], vectors)
        if draft.why:
            self.put(catalogue, LESSONS, lessons, vectors)
        return self._publish(catalogue, entries)

    def _publish(self, catalogue: Catalogue, entries: dict[str, Entry]) -> Catalogue:
        """Finish what has changed the passages."""
        update = {"entries": entries, "words": uuid4().hex[:12]}
        finished = self._shelf.finish(catalogue.model_copy(update=update))
        remove_other_indices(self._shelf.folder, finished.words)
        if finished.passages:
            # Made now rather than by the first who asks: that one may be in a hurry.
            self.words(finished)
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
                ids = collection.get(where=among, include=[])["ids"]
                carried += map(record_of_row, rows_of(collection, ids))
        except ChromaError as error:
            self._shelf.damage(error)
            return []
        self.make_vectors(carried, vectors, None)
        return carried

    def _drop_pages(self, catalogue: Catalogue, labels: Sequence[str]) -> None:
        for start in range(0, len(labels), BATCH):
            among = cast(Where, {"page": {"$in": list(labels[start : start + BATCH])}})
            self._shelf.collection(catalogue, PASSAGES).delete(where=among)


def rows_of(collection: chromadb.Collection, ids: list[str] | None) -> list[Row]:
    """The rows of these names in their order; all there are where `ids` is None.

    Raises:
        KeyError: one of the names is not there.
    """
    if ids is not None and not ids:
        return []
    got = collection.get(ids=ids, include=["documents", "metadatas"])
    rows = {
        key: Row(id=key, text=document, metadata=dict(metadata))
        for key, document, metadata in zip(
            got["ids"], got["documents"] or [], got["metadatas"] or [], strict=True
        )
    }
    return list(rows.values()) if ids is None else [rows[key] for key in ids]


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

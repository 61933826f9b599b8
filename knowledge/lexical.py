"""The lexical half of a search: BM25 (bm25s) over passages and, once more, over whole pages.

An index is made from the rows of a shelf and kept in a folder beside it. The folder's name says of
which state of the shelf and by which rules it was made, so a stale one is never read; whatever else
is wrong with it, it is made anew from the shelf. Nobody writes the shelf meanwhile: whoever calls
holds the library's lock.
"""

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import bm25s
import numpy as np

from knowledge.passage import Row, TagGroup, subject_of, tags_of
from knowledge.words import rules, terms

# Chosen with the weights in fusion.py. A page's title counts three times, a heading twice.
PASSAGES_K1, PASSAGES_B = 1.0, 0.6
PAGES_K1, PAGES_B = 1.2, 0.75

# What a file of the index that is cut short, overwritten or missing makes its reader raise.
_BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError, EOFError)

Mask = np.ndarray


class WordIndex:
    """BM25 over the passages of a shelf. A passage goes by its position in `ids`."""

    def __init__(
        self,
        ids: Sequence[str],
        subjects: Sequence[int],
        tags: Mapping[str, Sequence[int]],
        passages: bm25s.BM25,
        pages: bm25s.BM25,
    ) -> None:
        """Take what `build` or `load` has made.

        Args:
            ids: the passages' names on the shelf.
            subjects: for each passage, which of the pages it belongs to, counted from 0.
            tags: which passages carry a tag.
            passages: scores of the passages.
            pages: scores of the pages.
        """
        self.ids = list(ids)
        self.position = {key: at for at, key in enumerate(self.ids)}
        self.subjects = np.asarray(subjects, dtype=np.int64)
        self._tags = tags
        self._passages = passages
        self._pages = pages

    @classmethod
    def build(cls, rows: Sequence[Row]) -> "WordIndex":
        """An index of these rows, of which there must be one at least."""
        numbers: dict[str, int] = {}
        tags: defaultdict[str, list[int]] = defaultdict(list)
        subjects: list[int] = []
        of_passages: list[list[str]] = []
        of_pages: defaultdict[int, list[str]] = defaultdict(list)
        titles: dict[int, list[str]] = {}
        for at, row in enumerate(rows):
            subject = numbers.setdefault(subject_of(row.metadata["page"]), len(numbers))
            subjects.append(subject)
            for tag in tags_of(row.metadata):
                tags[tag].append(at)
            title, heading = terms(row.metadata["title"]), terms(row.metadata["heading"])
            body = terms(row.text)
            about = terms(f"{row.metadata['ops']} {row.metadata['languages']}".replace("_", " "))
            of_passages.append(3 * title + 2 * heading + about + body)
            of_pages[subject] += heading + body
            titles[subject] = title
        for subject, title in titles.items():
            of_pages[subject] += 3 * title
        return cls(
            [row.id for row in rows],
            subjects,
            tags,
            _counted(of_passages, PASSAGES_K1, PASSAGES_B),
            _counted([of_pages[number] for number in range(len(numbers))], PAGES_K1, PAGES_B),
        )

    @classmethod
    def load(cls, folder: Path) -> "WordIndex | None":
        """The index that was saved in `folder`; None where that is missing or broken."""
        try:
            listing = json.loads((folder / "listing.json").read_bytes())
            passages, pages = _loaded(folder / "passages"), _loaded(folder / "pages")
            index = cls(listing["ids"], listing["subjects"], listing["tags"], passages, pages)
            whole = len(index.ids) == len(index.subjects) == passages.scores["num_docs"]
            return index if whole and max(index.subjects) < pages.scores["num_docs"] else None
        except _BROKEN:
            return None

    def save(self, folder: Path) -> None:
        """Put the index into `folder`, which holds all of it or nothing at any moment.

        Raises:
            OSError: the disk is full, or another process puts one there at this moment.
        """
        fresh = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        listing = {"ids": self.ids, "subjects": self.subjects.tolist(), "tags": self._tags}
        try:
            self._passages.save(fresh / "passages", show_progress=False)
            self._pages.save(fresh / "pages", show_progress=False)
            (fresh / "listing.json").write_text(json.dumps(listing), encoding="utf-8")
            if folder.is_file():
                folder.unlink()
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def allowed(self, groups: Sequence[TagGroup]) -> Mask:
        """Which passages carry at least one tag of each group."""
        mask = np.ones(len(self.ids), dtype=bool)
        for group in groups:
            some = np.zeros(len(self.ids), dtype=bool)
            for tag in group:
                some[np.asarray(self._tags.get(tag, ()), dtype=np.int64)] = True
            mask &= some
        return mask

    def rank_passages(self, words: list[str], allowed: Mask, most: int) -> dict[int, int]:
        """The ranks, from 1, of the best passages that have any of the words."""
        scores = np.where(allowed, _scores(self._passages, words), 0.0)
        return {int(at): rank for rank, at in enumerate(_best(scores, most), 1)}

    def rank_pages(self, words: list[str], allowed: Mask, most: int) -> dict[int, int]:
        """The allowed passages of the best pages, each with the rank of its page."""
        open_to_us = np.zeros(self._pages.scores["num_docs"], dtype=bool)
        open_to_us[self.subjects[allowed]] = True
        scores = np.where(open_to_us, _scores(self._pages, words), 0.0)
        ranks = np.zeros(len(scores), dtype=np.int64)
        best = _best(scores, most)
        ranks[best] = np.arange(1, len(best) + 1)
        of_passages = ranks[self.subjects] * allowed
        return {int(at): int(of_passages[at]) for at in np.flatnonzero(of_passages)}


def open_index(folder: Path, state: str, rows: Callable[[], Sequence[Row]]) -> WordIndex:
    """The index of a shelf's `state`, made and kept if there is none that can be read.

    Several readers may find it missing at once: each makes the same one, and the last stays.
    """
    path = index_folder(folder, state)
    index = WordIndex.load(path)
    if index is None:
        index = WordIndex.build(rows())
        # Where it cannot be kept, this process works from memory and the next makes its own.
        with suppress(OSError):
            index.save(path)
    return index


def index_folder(folder: Path, state: str) -> Path:
    """Where the index of that state of the shelf lies."""
    return folder / f"words-{state}-{rules()}"


def remove_other_indices(folder: Path, state: str) -> None:
    """Free the disk of indices of earlier states and of what killed readers left."""
    for path in folder.glob("words-*"):
        if path != index_folder(folder, state):
            shutil.rmtree(path, ignore_errors=True)


def _counted(texts: Sequence[list[str]], k1: float, b: float) -> bm25s.BM25:
    counted = bm25s.BM25(k1=k1, b=b)
    # bm25s cannot make an index without a single term.
    counted.index([text or [""] for text in texts], show_progress=False)
    return counted


def _loaded(folder: Path) -> bm25s.BM25:
    """An index from its folder.

    Raises:
        ValueError: its arrays do not belong together.
    """
    loaded = bm25s.BM25.load(folder, show_progress=False)
    data, indices, starts = (loaded.scores[key] for key in ("data", "indices", "indptr"))
    if not len(data) == len(indices) == starts[-1] or indices.max() >= loaded.scores["num_docs"]:
        raise ValueError("arrays of different lengths")
    return loaded


def _scores(counted: bm25s.BM25, words: list[str]) -> np.ndarray:
    known = [word for word in words if word in counted.vocab_dict]
    if not known:
        return np.zeros(counted.scores["num_docs"])
    scores: np.ndarray = counted.get_scores(known)
    return scores


def _best(scores: np.ndarray, most: int) -> np.ndarray:
    """Positions of the highest scores above zero, highest first, equals in order of position."""
    order = np.argsort(-scores, kind="stable")[:most]
    best: np.ndarray = order[scores[order] > 0]
    return best

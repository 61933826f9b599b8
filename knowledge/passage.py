"""A passage: what a search gives back, how it lies on the shelf, how a search narrows the shelf."""

import re
from hashlib import sha256
from typing import Any, TypedDict

from knowledge.device import known_devices
from knowledge.experience import Lesson, plain_op
from knowledge.opgraph import Frozen
from knowledge.pages import Page

# A change of what a record holds, or of how it is indexed, makes every earlier shelf stale.
FORM = 3

TagGroup = tuple[str, ...]
_SPELT = {"c++": "cpp", "cxx": "cpp", "cu": "cuda"}


class Passage(Frozen):
    """One quotable piece of a page.

    `source` is the page and its section, e.g. `docs/cpu/pages.md#first touch`. `score` is its share
    of the best there could be: 1 is first in every ranking (vectors, words of the passage, words of
    its page). It tells how far the rankings agree, not how good an answer is, and compares passages
    of one search only. Empty tags mean: holds for all.
    """

    id: str
    source: str
    title: str
    kind: str
    text: str
    score: float
    devices: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    bottlenecks: tuple[str, ...] = ()


class Narrowing(TypedDict, total=False):
    """What a search is narrowed by; None is the same as leaving it out.

    `kind` takes pages of that kind alone. The others also keep pages that carry no such tag: a
    `device` those about it, its kind or its architecture, an `op` (`softmax`, `aten.softmax.int`),
    a `language` (cpp, cuda, triton, python) and a `bottleneck` those that name it.
    """

    kind: str | None
    device: str | None
    language: str | None
    op: str | None
    bottleneck: str | None


class Record(Frozen):
    """A passage as it is put on the shelf: `indexed` is embedded, `text` is quoted."""

    id: str
    indexed: str
    text: str
    metadata: dict[str, str | bool]


class Row(Frozen):
    """A record as it comes back."""

    id: str
    text: str
    metadata: dict[str, Any]


def records_of(page: Page) -> list[Record]:
    """A page's passages, ready for the shelf; equal pieces of one page are kept once."""
    tags = {
        "device": tuple(name.lower() for name in page.devices),
        "language": tuple(plain_language(name) for name in page.languages),
        "op": tuple(plain_op(op) for op in page.ops),
        "bottleneck": page.bottlenecks,
    }
    common: dict[str, str | bool] = {"page": page.label, "title": page.title, "kind": page.kind}
    common[f"kind:{page.kind}"] = True
    for key, names in tags.items():
        common[f"{key}s"] = ",".join(names)
        common |= {f"{key}:{name}": True for name in names or ("any",)}
    records: dict[str, Record] = {}
    for chunk in page.chunks:
        identity = sha256(f"{page.label}\n{chunk.heading}\n{chunk.text}".encode()).hexdigest()[:24]
        records[identity] = Record(
            id=identity,
            indexed=f"{page.title}\n{chunk.heading}\n{chunk.text}",
            text=chunk.text,
            metadata={**common, "heading": chunk.heading},
        )
    return list(records.values())


def record_of_lesson(lesson: Lesson) -> Record:
    """A lesson, found by the words of its signature."""
    words = lesson.signature.replace("_", " ")
    return Record(
        id=lesson.key,
        indexed=words,
        text=words,
        metadata={
            "device": lesson.device,
            "confirmed": lesson.confirmed,
            "lesson": lesson.model_dump_json(),
        },
    )


def record_of_row(row: Row) -> Record:
    """The record that a row of the shelf was made of."""
    title, heading = row.metadata["title"], row.metadata["heading"]
    return Record(
        id=row.id,
        indexed=f"{title}\n{heading}\n{row.text}",
        text=row.text,
        metadata=row.metadata,
    )


def passage_of(row: Row, score: float) -> Passage:
    """The passage that a row of the shelf holds, with what a search gave it."""
    heading = row.metadata["heading"]
    split = {
        key: tuple(name for name in row.metadata[key].split(",") if name)
        for key in ("devices", "languages", "ops", "bottlenecks")
    }
    return Passage(
        id=row.id,
        source=row.metadata["page"] + (f"#{heading.lower()}" if heading else ""),
        title=row.metadata["title"],
        kind=row.metadata["kind"],
        text=row.text,
        score=round(min(1.0, score), 4),
        **split,
    )


def subject_of(page: str) -> str:
    """What a page is about: a pattern's card and its notes speak of one thing."""
    return page.rpartition("/")[0] if page.startswith("patterns/") else page


def tags_of(metadata: dict[str, Any]) -> list[str]:
    """The tags that a row carries, e.g. `device:cpu`, `op:any`."""
    return [key for key, value in metadata.items() if value is True]


def plain_language(name: str) -> str:
    """A language as pages spell it: `C++` is `cpp`."""
    return _SPELT.get(name.lower(), name.lower())


def tag_groups(narrowing: Narrowing) -> list[TagGroup]:
    """Of each group a passage must carry one tag; a page without tags of a sort always passes."""
    kind, language = narrowing.get("kind"), narrowing.get("language")
    op, bottleneck = narrowing.get("op"), narrowing.get("bottleneck")
    groups: list[TagGroup] = [(f"kind:{kind}",)] if kind else []
    for key, names in (
        ("device", _device_names(narrowing.get("device"))),
        ("language", (plain_language(language),) if language else ()),
        ("op", (plain_op(op),) if op else ()),
        ("bottleneck", (bottleneck,) if bottleneck else ()),
    ):
        if names:
            groups.append(tuple(f"{key}:{name}" for name in (*names, "any")))
    return groups


def _device_names(device: str | None) -> tuple[str, ...]:
    """Everything a device may be tagged as: its name, its kind, its architecture."""
    if not device:
        return ()
    name = device.lower().removeprefix("cuda:")
    if known := known_devices().get(name):
        return (name, known.kind, known.architecture)
    if name in ("cuda", "hip"):
        return (name,)
    if name.startswith(("sm_", "gfx")):
        return (name, "cuda" if name.startswith("sm_") else "hip")
    # A detected CPU's name ends with its cores; any other is a tag of somebody's own pages.
    is_cpu = name in ("auto", "cpu") or re.search(r"-\d+c$", name) is not None
    return (name, "cpu") if is_cpu else (name,)

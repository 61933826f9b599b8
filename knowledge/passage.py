"""A passage: what a search gives back, how it lies on the shelf, how a search narrows the shelf."""

from hashlib import sha256
from typing import Any

from knowledge.device import load_devices
from knowledge.experience import Lesson, plain_op
from knowledge.opgraph import Frozen
from knowledge.pages import Page

Condition = dict[str, Any]


class Passage(Frozen):
    """One quotable piece of a page.

    `source` is the page and its section, e.g. `docs/cpu/pages.md#first touch`. `score` lies in
    [0, 1], higher is better, and comparable within one search only. Empty tags mean: holds for all.
    """

    id: str
    source: str
    title: str
    kind: str
    text: str
    score: float
    devices: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    bottlenecks: tuple[str, ...] = ()


class Record(Frozen):
    """A passage as it is put on the shelf: `indexed` is embedded, `text` is quoted."""

    id: str
    indexed: str
    text: str
    metadata: dict[str, str | bool]


class Row(Frozen):
    """A record as it comes back, with its cosine distance to the query."""

    id: str
    text: str
    metadata: dict[str, Any]
    distance: float


def records_of(page: Page) -> list[Record]:
    """A page's passages, ready for the shelf; equal pieces of one page are kept once."""
    tags = {
        "device": tuple(name.lower() for name in page.devices),
        "op": tuple(plain_op(op) for op in page.ops),
        "bottleneck": page.bottlenecks,
    }
    common: dict[str, str | bool] = {"page": page.label, "title": page.title, "kind": page.kind}
    for key, names in tags.items():
        common[f"{key}s"] = ",".join(names)
        common |= {f"{key}:{name}": True for name in names or ("any",)}
    records: dict[str, Record] = {}
    for chunk in page.chunks:
        identity = sha256(f"{page.label}\n{chunk.heading}\n{chunk.text}".encode()).hexdigest()[:24]
        about = " ".join((*tags["op"], *page.languages)).replace("_", " ")
        records[identity] = Record(
            id=identity,
            indexed=f"{page.title}\n{chunk.heading}\n{about}\n{chunk.text}",
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


def passage_of(row: Row) -> Passage:
    """The passage that a row of the shelf holds."""
    heading = row.metadata["heading"]
    split = {
        key: tuple(name for name in row.metadata[key].split(",") if name)
        for key in ("devices", "ops", "bottlenecks")
    }
    return Passage(
        id=row.id,
        source=row.metadata["page"] + (f"#{heading.lower()}" if heading else ""),
        title=row.metadata["title"],
        kind=row.metadata["kind"],
        text=row.text,
        score=round(min(1.0, max(0.0, 1.0 - row.distance)), 4),
        **split,
    )


def conditions_for(
    kind: str | None, device: str | None, op: str | None, bottleneck: str | None
) -> list[Condition]:
    """What a passage's metadata must satisfy, all of it; a page without such tags always passes."""
    conditions: list[Condition] = [{"kind": kind}] if kind else []
    for key, names in (
        ("device", _device_names(device)),
        ("op", (plain_op(op),) if op else ()),
        ("bottleneck", (bottleneck,) if bottleneck else ()),
    ):
        if names:
            conditions.append({"$or": [{f"{key}:{name}": True} for name in (*names, "any")]})
    return conditions


def _device_names(device: str | None) -> tuple[str, ...]:
    """Everything a device may be tagged as: its name, its kind, its architecture."""
    if not device:
        return ()
    name = device.lower().removeprefix("cuda:")
    if known := load_devices().get(name):
        return (name, known.kind, known.architecture)
    if name == "cuda" or name.startswith("sm_"):
        return (name, "cuda")
    # Any other name is a detected CPU's.
    return (name, "cpu")

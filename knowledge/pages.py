"""From files to passages: front matter, cutting along headings, source code by blank lines.

Reads Markdown, plain text, HTML, PDF and source files, device pages and pattern cards. What cannot
be read is a value that says why; nothing here knows how passages are stored.
"""

import re
import stat
import tomllib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from knowledge.device import Device
from knowledge.documents import READERS, NoText
from knowledge.opgraph import Frozen

Kind = Literal["hardware", "language", "pattern", "profile", "repair", "document"]

PROSE = (".md", ".markdown", ".rst", ".txt")
SOURCE = (".py", ".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".cu", ".cuh", ".toml", ".yaml", ".yml")
READ = (*PROSE, *SOURCE, *READERS)
# What is kept as Markdown, whatever the file was.
MARKED = (".md", ".markdown", *READERS)
LARGEST_BYTES, LARGEST_PDF_BYTES = 4 << 20, 64 << 20
PASSAGE_CHARACTERS = 1500
TAGS = ("devices", "languages", "ops", "bottlenecks", "sources")
_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "build", "dist"}


class Unreadable(Frozen):
    """A file that could not be indexed, and why, in a few words."""

    path: str
    reason: str


class Chunk(Frozen):
    """One section of a page, small enough to quote."""

    heading: str
    text: str


class Page(Frozen):
    """One file's text, cut into passages, with what its front matter says about it.

    Empty `devices`, `ops` or `bottlenecks` mean that the page holds for all of them. `label` is how
    citations name it: a path within `knowledge/`, or a user's file by its full path.
    """

    label: str
    title: str
    kind: Kind
    devices: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    bottlenecks: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    chunks: tuple[Chunk, ...] = ()


class BadPage(Exception):
    """The text is there but cannot be understood; the message says why."""


def find_files(path: Path) -> Iterator[Path | Unreadable]:
    """The text files under a folder in a stable order, or the one file that was named."""
    if not path.is_dir():
        yield path
        return
    try:
        items = sorted(path.iterdir())
    except OSError as error:
        yield Unreadable(path=str(path), reason=error.strerror or type(error).__name__)
        return
    for item in items:
        hidden = item.name.startswith(".") or item.name in _SKIPPED_FOLDERS
        try:
            is_folder = item.is_dir() and not item.is_symlink()
            is_text = not is_folder and item.is_file() and item.suffix.lower() in READ
        except OSError as error:
            yield Unreadable(path=str(item), reason=error.strerror or type(error).__name__)
            continue
        if is_folder and not hidden:
            yield from find_files(item)
        elif is_text and not hidden:
            yield item


def project_files(root: Path) -> Iterator[tuple[str, Path]]:
    """The project's own pages as (label, path): documents, repairs, devices, patterns."""
    for pattern in ("docs/**/*.md", "repairs/**/*.md", "devices/*.toml",
                    "patterns/*/notes.md", "patterns/*/card.toml"):  # fmt: skip
        for path in sorted(root.glob(pattern)):
            yield path.relative_to(root).as_posix(), path


def load_bytes(path: Path) -> bytes | Unreadable:
    """A file's bytes, or why they cannot be had."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return Unreadable(path=str(path), reason="no regular file")
        most = LARGEST_PDF_BYTES if path.suffix.lower() == ".pdf" else LARGEST_BYTES
        if found.st_size > most:
            return Unreadable(path=str(path), reason=f"larger than {most >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        return Unreadable(path=str(path), reason=error.strerror or type(error).__name__)


def digest(content: bytes) -> str:
    """Identity of a file's content."""
    return sha256(content).hexdigest()[:32]


def parse(label: str, path: Path, content: bytes) -> Page | Unreadable:
    """The page behind a file's bytes, whatever its format."""
    suffix = path.suffix.lower()
    if suffix not in READ:
        known = ", ".join(READ)
        return Unreadable(path=str(path), reason=f"{suffix or 'no suffix'}: only {known} are read")
    reader = READERS.get(suffix, _plain_text)
    try:
        page = _page(label, path, reader(content))
    except (BadPage, NoText) as error:
        return Unreadable(path=str(path), reason=str(error))
    return page if page.chunks else Unreadable(path=str(path), reason="holds no text")


def _plain_text(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NoText("not UTF-8 text") from error
    if "\0" in text:
        raise NoText("binary, not text")
    return text.replace("\r\n", "\n")


def _page(label: str, path: Path, text: str) -> Page:
    folder = label.split("/", 1)[0]
    if folder == "devices" and path.suffix == ".toml":
        return _device_page(label, text)
    if folder == "patterns" and path.name == "card.toml":
        return _card_page(label, path, text)
    if path.suffix.lower() in MARKED:
        return _markdown_page(label, path, text)
    if path.suffix.lower() in PROSE:
        chunks = tuple(Chunk(heading="", text=part) for part in _packed(text))
    else:
        chunks = tuple(_source_chunks(text))
    return Page(label=label, title=path.name, kind="document", chunks=chunks)


def _markdown_page(label: str, path: Path, text: str) -> Page:
    front, body = _front_matter(text)
    sections = list(_sections(body))
    first = next((heading for heading, _ in sections if heading), "")
    title = str(front.get("title") or first or path.stem.replace("_", " ").replace("-", " "))
    default = {"patterns": "pattern", "repairs": "repair"}.get(label.split("/", 1)[0], "document")
    kind = front.get("kind", default)
    chunks = [
        Chunk(heading="" if heading == title else heading, text=part)
        for heading, section in sections
        for part in _packed(section)
    ]
    return Page.model_validate(
        {
            "label": label,
            "title": title,
            # A user's page may use the key for something else; that is no reason to refuse it.
            "kind": kind if kind in get_args(Kind) else default,
            "chunks": chunks,
            **{key: _words(front.get(key)) for key in TAGS},
        }
    )


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    found = re.match(r"---\n(.*?)\n---[ \t]*(?:\n|$)", text, re.DOTALL)
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found.group(1))
    # A value of a type that it isn't, such as a 31st of June, fails in a way of its own.
    except (
        yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise BadPage("the front matter between the --- lines is not YAML") from error
    # Two rules with prose between them look alike; only keys and values are front matter.
    return (front, text[found.end() :]) if isinstance(front, dict) else ({}, text)


def _words(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else (str(value),)


def _sections(body: str) -> Iterator[tuple[str, str]]:
    """(heading, text) in order; `#` inside a code fence is not a heading."""
    heading, fenced = "", False
    lines: list[str] = []
    for line in body.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        found = None if fenced else re.match(r"#{1,4}\s+(.+?)\s*#*$", line)
        if found:
            yield heading, "\n".join(lines)
            heading, lines = found.group(1), []
        else:
            lines.append(line)
    yield heading, "\n".join(lines)


def _packed(text: str) -> Iterator[str]:
    """Paragraphs, put together up to a passage's length; a longer one is cut at line ends."""
    held = ""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        for piece in _pieces(paragraph):
            if held and len(held) + len(piece) > PASSAGE_CHARACTERS:
                yield held
                held = ""
            held = f"{held}\n\n{piece}" if held else piece
    if held.strip():
        yield held


def _pieces(paragraph: str) -> Iterator[str]:
    held = ""
    for line in paragraph.splitlines():
        for start in range(0, max(len(line), 1), PASSAGE_CHARACTERS):
            part = line[start : start + PASSAGE_CHARACTERS]
            if held and len(held) + len(part) > PASSAGE_CHARACTERS:
                yield held
                held = ""
            held = f"{held}\n{part}" if held else part
    if held.strip():
        yield held


def _source_chunks(text: str) -> Iterator[Chunk]:
    """Source code, cut at blank lines; the heading is the first line that defines something."""
    for part in _packed(text):
        defined = re.search(
            r"^\s*(?:class|def|struct|void|template|__global__)\b.{0,80}", part, re.MULTILINE
        )
        yield Chunk(heading=defined.group().strip() if defined else "", text=part)


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPage(f"not TOML: {error}") from error


def _card_page(label: str, path: Path, text: str) -> Page:
    card = _toml(text)
    name = str(card.get("name", path.parent.name))
    lines = [
        f"{key}: {card[key]}" for key in ("precondition", "effect", "bottleneck") if key in card
    ]
    if card.get("tunables"):
        lines.append(f"tunables: {', '.join(card['tunables'])}")
    title = str(card.get("title", name))
    return Page(
        label=label,
        title=title,
        kind="pattern",
        languages=_words(card.get("backends")),
        bottlenecks=_words(card.get("bottleneck")),
        sources=_words(card.get("sources")),
        chunks=(Chunk(heading="", text="\n".join([f"Pattern {name}: {title}.", *lines])),),
    )


def _device_page(label: str, text: str) -> Page:
    raw = _toml(text)
    try:
        device = Device.model_validate({**raw, "page": label})
    except ValueError as error:
        raise BadPage("not a device's page: " + " ".join(str(error).split())[:120]) from error
    notes = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    caches = (f"{key.replace('_', ' ')} {size >> 10} KiB" for key, size in device.caches.items())
    figures = {
        key: f"{key.replace('_', ' ')} {figure.value:g} {figure.unit}"
        for key, figure in device.figures.items()
    }
    units = "compute units" if device.kind == "hip" else "SMs"
    sizes = (
        f"{device.title} ({device.name}): {device.architecture}, {device.cores} {units}, "
        f"{device.memory_gib:g} GB memory, {figures.pop('memory_bandwidth', '')}.\n\n"
        f"Caches: {', '.join(caches)}.\n\n{notes}"
    )
    peaks = (
        f"{device.name}: {', '.join(figures.values())}.\n\n"
        f"Features: {', '.join(device.features)}.\n\n"
        f"Sources: {'; '.join(sorted({figure.source for figure in device.figures.values()}))}."
    )
    return Page(
        label=label,
        title=device.title,
        kind="hardware",
        devices=(device.name,),
        chunks=(
            Chunk(heading="memory and caches", text=sizes),
            Chunk(heading="peaks", text=peaks),
        ),
    )

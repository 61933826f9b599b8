"""The library's list of what it holds: one small file, replaced whole, under a lock that all share.

It says which file was indexed with which content, by which embedding, and whether someone is
writing. A writer that was killed leaves `writing` behind, and the next builds the shelf anew.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from knowledge.opgraph import Frozen


def default_place() -> str:
    """`$KERNELWRIGHT_LIBRARY`, a folder or a Chroma server's address, else `home_folder()`."""
    return os.environ.get("KERNELWRIGHT_LIBRARY") or str(home_folder())


def home_folder() -> Path:
    """`kernelwright/library` in the user's cache folder."""
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "kernelwright" / "library"


class Entry(Frozen):
    """One indexed file: content digest, number of passages, whether it is the project's own."""

    digest: str
    passages: int
    own: bool


class Catalogue(Frozen):
    """The state of the shelf.

    `generation` grows with every write, and names nothing else. `form` is that of the records.
    `words` names the state of the passages alone, at random, so that no other state has it.
    """

    generation: int = 0
    shelf: int = 0
    embedding: str = ""
    form: int = 0
    words: str = ""
    writing: bool = False
    entries: dict[str, Entry] = Field({})

    @property
    def passages(self) -> int:
        """How many passages lie on the shelf, lessons not counted."""
        return sum(entry.passages for entry in self.entries.values())


def load_catalogue(folder: Path) -> Catalogue:
    """The catalogue as it stands; an unreadable one counts as an interrupted write.

    One that is missing or unreadable names the newest shelf there is, so that none is built twice.
    """
    path = folder / "catalogue.json"
    try:
        return Catalogue.model_validate_json(path.read_bytes())
    except (ValidationError, FileNotFoundError):
        newest = max(
            (int(p.name[6:]) for p in folder.glob("shelf-*") if p.name[6:].isdigit()), default=0
        )
        return Catalogue(generation=newest, shelf=newest, writing=path.exists())


def save_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    fresh = folder / "catalogue.json.new"
    with fresh.open("wb") as file:
        file.write(catalogue.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / "catalogue.json")


@contextmanager
def folder_lock(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold the folder's lock: many readers or one writer. It falls open when its holder dies."""
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield

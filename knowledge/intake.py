"""Taking stock: which files are new, changed, unchanged, gone or unreadable since the last time.

Reads files and parses the changed ones; never writes anything.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from knowledge.catalogue import Entry
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from knowledge.pages import Page, Unreadable, digest, find_files, load_bytes, parse, project_files

Progress = Callable[[int, int, str], None]


class Arrival(Frozen):
    """A page whose text has to be put on the shelf, and what the catalogue will say of it."""

    page: Page
    digest: str
    own: bool


class Intake(Frozen):
    """The difference between the files and the shelf.

    `gone` are labels whose passages must go, `foreign` those of files on other machines.
    """

    arrivals: tuple[Arrival, ...]
    gone: tuple[str, ...]
    foreign: tuple[str, ...]
    unchanged: int
    unreadable: tuple[Unreadable, ...]

    @property
    def changes(self) -> bool:
        """Whether the shelf has to be written at all."""
        return bool(self.arrivals or self.gone)


class IndexReport(Frozen):
    """What an indexing run did, counted in files; `passages` is what the library holds after it.

    `rebuilt` says why everything was read again, empty where it was not.
    """

    read: int
    unchanged: int
    dropped: int
    unreadable: tuple[Unreadable, ...]
    passages: int
    seconds: float
    rebuilt: str = ""


class _Job(Frozen):
    label: str
    path: Path
    own: bool


def take_stock(
    entries: Mapping[str, Entry],
    project: Path,
    paths: tuple[Path, ...],
    *,
    anew: bool,
    host: str = "",
    progress: Progress | None = None,
) -> Intake:
    """What has to be done so that the shelf holds the project's pages and the files under `paths`.

    Args:
        entries: what the catalogue lists.
        project: the folder of the project's own pages.
        paths: files and folders of the user's, absolute.
        anew: read everything, listed or not, because the shelf is to be built from nothing.
        host: this machine's name, where several share the shelf; it goes before a file's path.
        progress: is told (done, of, name) as files are read.

    Raises:
        BadInput: a path that neither exists nor is listed.
    """
    jobs = {label: _Job(label=label, path=path, own=True) for label, path in project_files(project)}
    own = {job.path.resolve() for job in jobs.values()}
    unreadable: list[Unreadable] = []
    mark = f"{host}:" if host else ""
    theirs = {label for label, each in entries.items() if not each.own}
    ours = {label: Path(label.removeprefix(mark)) for label in theirs if label.startswith(mark)}
    listed = tuple(ours.values())
    for path in (*paths, *(listed if anew else ())):
        for found in _files(path, listed):
            if isinstance(found, Unreadable):
                unreadable.append(found)
            elif not _is_utf8(found):
                odd = ascii(str(found))[1:-1]
                unreadable.append(Unreadable(path=odd, reason="its name is not UTF-8"))
            elif found.resolve() not in own:
                label = f"{mark}{found}"
                jobs.setdefault(label, _Job(label=label, path=found, own=False))
    arrivals: list[Arrival] = []
    kept: set[str] = set()
    for done, job in enumerate(jobs.values()):
        if progress is not None:
            progress(done, len(jobs), f"reading {job.path.name}")
        read = _read(job, None if anew else entries.get(job.label))
        if isinstance(read, Unreadable):
            unreadable.append(read)
            continue
        kept.add(job.label)
        if read is not None:
            arrivals.append(read)
    # A file that can no longer be read leaves too: what the shelf says of it may be wrong by now.
    gone = tuple(
        label
        for label, entry in entries.items()
        if label not in kept
        and (entry.own or (label in ours and (anew or _lies_under(ours[label], paths))))
    )
    return Intake(
        arrivals=tuple(arrivals),
        gone=gone,
        foreign=tuple(theirs - ours.keys()),
        unchanged=len(kept) - len(arrivals),
        unreadable=tuple(unreadable),
    )


def _files(path: Path, listed: tuple[Path, ...]) -> Iterator[Path | Unreadable]:
    try:
        there = path.exists()
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror}).") from error
    if there:
        yield from find_files(path)
    elif not any(_lies_under(known, (path,)) for known in listed):
        raise BadInput(
            str(path), "does not exist.", "Give files or folders of text, Markdown or code."
        )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _lies_under(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path == folder or folder in path.parents for folder in folders)


def _read(job: _Job, entry: Entry | None) -> Arrival | Unreadable | None:
    """The parsed page, why there is none, or None where its content is the listed one."""
    content = load_bytes(job.path)
    if isinstance(content, Unreadable):
        return content
    identity = digest(content)
    if entry is not None and entry.digest == identity:
        return None
    page = parse(job.label, job.path, content)
    return Arrival(page=page, digest=identity, own=job.own) if isinstance(page, Page) else page

"""The files that a task's workloads lie in or are applied to: found, read, and checked.

Nothing here knows the task itself; `tools/task.py` asks.
"""

from pathlib import Path
from typing import Any

from knowledge.errors import BadInput
from tools.constants import with_constants
from tools.definition import check_workload, load_definition, read_workloads, with_files_found
from tools.workload import Workload


def existing_file(folder: Path, path: Path, place: str) -> Path:
    """A path made absolute.

    Raises:
        BadInput: there is no such file.
    """
    resolved = (folder / path).resolve()
    if not resolved.is_file():
        raise BadInput(place, f"{path} does not exist.", f"It was looked for in {folder}.")
    return resolved


def bring_workloads(raw: dict[str, Any], where: str, folder: Path) -> None:
    """Put in the place of a file of workloads what it holds, and find the files those name.

    Raises:
        BadInput: a file is missing or holds something else, or a workload is asked for that it
            doesn't have.
    """
    given, path = raw.get("workloads"), raw.get("definition")
    place = f"{where}: workloads"
    if isinstance(given, str) or (isinstance(given, dict) and "file" in given):
        if not isinstance(path, str):
            raise BadInput(place, "a file of workloads goes with a definition.")
        section = {"file": given} if isinstance(given, str) else given
        raw["workloads"] = _from_file(section, folder, load_definition(folder / path).name, place)
    elif isinstance(given, list) and isinstance(path, str):
        folders = (folder, (folder / path).resolve().parent)
        raw["workloads"] = [
            with_files_found(one, folders, place) if isinstance(one, dict) else one for one in given
        ]


def _from_file(
    section: dict[str, Any], folder: Path, definition: str, place: str
) -> list[dict[str, Any]]:
    if strange := [key for key in section if key not in ("file", "only")]:
        raise BadInput(f"{place}.{strange[0]}", "is not a known key.", "Known: file, only.")
    file, only = section["file"], section.get("only")
    if not isinstance(file, str) or not (only is None or isinstance(only, list)):
        raise BadInput(place, "file is a path, and only a list of uuids.")
    path = existing_file(folder, Path(file), place)
    found = read_workloads(path, definition)
    if only is not None:
        by_uuid = {str(one.get("uuid", "")): one for one in found}
        if missing := [name for name in only if str(name) not in by_uuid]:
            raise BadInput(f"{place}.only", f'{path} has no workload "{missing[0]}".')
        found = [by_uuid[str(name)] for name in only]
    # The file may be a link, with the tensors beside either.
    folders = ((folder / file).parent, path.parent)
    return [with_files_found(one, folders, place) for one in found]


def check_definition(path: Path, workloads: tuple[Workload, ...], where: str) -> None:
    """Whether the workloads fit the definition, and leave no axis open.

    Raises:
        BadInput: they don't.
    """
    definition = load_definition(path)
    if not workloads and definition.var_axes:
        name = definition.var_axes[0]
        raise BadInput(
            f"{where}: workloads", f"axis {name} of {definition.name} has no size.",
            f"For example: workloads: [{{axes: {{{name}: 1024}}}}]",
        )  # fmt: skip
    for workload in workloads:
        check_workload(definition, workload, f"{where}: workloads")


def source_at(reference: Path, workload: Workload | None, where: str = "") -> str:
    """A reference file's text, its constants as a workload has them.

    Args:
        reference: the file.
        workload: None for the file as it is.
        where: what a complaint about the workload begins with; the file if empty.

    Raises:
        BadInput: it can't be read, or the workload names what it doesn't have.
    """
    try:
        source = reference.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(str(reference), f"cannot be read ({error}).") from error
    if workload is None:
        return source
    place = f"{where}: {workload.name}: {reference.name}" if where else str(reference)
    return with_constants(source, workload.constants, place)

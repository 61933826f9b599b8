"""Folders that appear whole, with all of their files in them, or not at all."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from knowledge.errors import BadInput


def written_whole(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make a folder with these files in it, by their paths within it.

    Raises:
        BadInput: there is something of that name already, or it can't be made.
    """
    if folder.exists() or folder.is_symlink():
        raise BadInput(
            str(folder),
            "is there already, and nothing is overwritten.",
            "Remove it, or give another --out.",
        )
    draft = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        draft.chmod(0o755)
        for name, content in files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        draft.rename(folder)
    except OSError as error:
        raise BadInput(
            str(folder), f"cannot be written ({error.strerror}).", "Give another --out."
        ) from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
    return folder

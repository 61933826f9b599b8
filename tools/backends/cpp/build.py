"""The judge's side of C++: find a candidate's sources without running it, and compile them.

Compiling happens through a `run` that the judge jails; all that leaves the jail is one shared
object per source, stored under the name by which `loader` will look for it.
"""

import ast
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from knowledge.opgraph import Frozen
from tools.backends.cpp.loader import CompileError, build_commands, library_name
from tools.verdict import BuildFailed

LOG_LIMIT = 4000
LIBRARY_LIMIT = 64 << 20

Run = Callable[[list[str], Path], subprocess.CompletedProcess[str]]


class CppSource(Frozen):
    """One C++ source in a candidate, and the line of the candidate on which it is loaded."""

    name: str
    source: str
    flags: tuple[str, ...] = ()
    line: int

    @property
    def library(self) -> str:
        """The file name under which the loader expects the compiled source."""
        return library_name(self.source, self.flags)


def extract_sources(candidate_source: str, loader: str = "cpp_kernel") -> list[CppSource]:
    """The distinct sources given to a loader, as literals or names of module constants.

    Whatever is computed at run time is left out: the loader compiles it later, inside the jail.

    Raises:
        SyntaxError: the candidate is not Python.
    """
    tree = ast.parse(candidate_source)
    constants = _module_constants(tree)
    found: dict[tuple[str, tuple[str, ...]], CppSource] = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and _called_name(call) == loader:
            source = _from_call(call, constants)
            if source is not None:
                found.setdefault((source.source, source.flags), source)
    return sorted(found.values(), key=lambda source: source.line)


def _called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _module_constants(tree: ast.Module) -> dict[str, object]:
    """Names that the module binds to a literal exactly once."""
    constants: dict[str, object] = {}
    ambiguous: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name):
                if target.id in constants:
                    ambiguous.add(target.id)
                constants[target.id] = _literal(value, {})
    return {name: value for name, value in constants.items() if name not in ambiguous}


def _literal(node: ast.expr | None, constants: dict[str, object]) -> object:
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


def _from_call(call: ast.Call, constants: dict[str, object]) -> CppSource | None:
    given = dict(zip(("source", "name", "signature", "flags"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    source = _literal(given.get("source"), constants)
    name = _literal(given.get("name"), constants)
    flags = _literal(given["flags"], constants) if "flags" in given else ()
    if not isinstance(source, str) or not isinstance(flags, tuple | list):
        return None
    if not all(isinstance(flag, str) for flag in flags):
        return None
    return CppSource(name=str(name), source=source, flags=tuple(flags), line=call.lineno)


def compile_sources(sources: list[CppSource], cache: Path, run: Run) -> BuildFailed | None:
    """Compile what `cache` does not hold yet, side by side; None when all of it is there.

    Args:
        sources: what `extract_sources` found.
        cache: an existing folder of compiled kernels, later given to the candidate read-only.
        run: runs a command with the given folder as its working and only writable folder, and
            returns its exit status and output, from several threads at once. The commands name
            their files relative to it.
    """
    missing = {source.library: source for source in sources}
    missing = {name: one for name, one in missing.items() if not (cache / name).is_file()}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        attempts = [pool.submit(_compile_one, one, cache, run) for one in missing.values()]
        outcomes = [attempt.result() for attempt in attempts]
    return next((failed for failed in outcomes if failed is not None), None)


def _compile_one(source: CppSource, cache: Path, run: Run) -> BuildFailed | None:
    with tempfile.TemporaryDirectory(prefix="build-", ignore_cleanup_errors=True) as scratch:
        return _compile_in(Path(scratch), source, cache / source.library, run)


def _compile_in(scratch: Path, source: CppSource, target: Path, run: Run) -> BuildFailed | None:
    # The jailed compiler may run as another user, who must be able to write here.
    scratch.chmod(0o777)
    (scratch / "kernel.cpp").write_text(source.source, encoding="utf-8")
    try:
        commands = build_commands(source.flags)
    except CompileError as error:
        return BuildFailed(log=str(error))
    for command in commands:
        done = run(command, scratch)
        if done.returncode != 0:
            return _refusal(source, command, done.stdout + done.stderr)
    return _store(source, scratch / "kernel.so", target)


def _refusal(source: CppSource, command: list[str], said: str) -> BuildFailed:
    said = said if len(said) <= LOG_LIMIT else f"{said[:LOG_LIMIT]}\n... and more"
    where = f'The C++ of "{source.name}", loaded on line {source.line}, does not compile.'
    return BuildFailed(log=f"{where}\n{Path(command[0]).name} {' '.join(command[1:])}\n{said}")


def _store(source: CppSource, built: Path, target: Path) -> BuildFailed | None:
    """Copy the library into the cache in one step, following no link that a build left behind."""
    try:
        handle = os.open(built, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return _refusal(source, ["kernel.so"], f"cannot be read: {error.strerror}")
    try:
        size, regular = os.fstat(handle).st_size, stat.S_ISREG(os.fstat(handle).st_mode)
        data = os.read(handle, size) if regular and size <= LIBRARY_LIMIT else b""
    finally:
        os.close(handle)
    if not data:
        return _refusal(
            source, ["kernel.so"], f"is not a file of 1 byte to {LIBRARY_LIMIT >> 20} MiB"
        )
    fresh = tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False)  # noqa: SIM115
    with fresh:
        fresh.write(data)
    # A candidate that runs as another user reads it; nobody writes it again.
    Path(fresh.name).chmod(0o555)
    Path(fresh.name).replace(target)
    return None

"""A confirmed candidate as files that anyone can use: the kernel, its reference and their test.

What is written needs torch and the kernel's own compiler, and nothing of Kernelwright: the loader
that the candidate imports is written into the kernel's file. Nothing here is executed.
"""

import ast
import re
from pathlib import Path

from tools.candidate import Candidate
from tools.verdict import Compiled, Correct

ROOM = Path(__file__).parent
# What each loader gives to candidates, under the module that they import.
LOADERS = {"tools.backends.cpp.loader": "cpp_kernel", "tools.backends.cuda.loader": "cuda_kernel"}


def export(
    candidate: Candidate,
    reference_source: str,
    verdict: Correct | Compiled,
    folder: Path,
    *,
    subject: str = "an op",
    device: str = "",
) -> Path:
    """Write `kernel.py`, `reference.py` and `test_kernel.py` into `folder`.

    Args:
        candidate: the kernel as it was judged.
        reference_source: the reference that it was judged against.
        verdict: the confirmation, or what was found without the device; the header quotes it.
        folder: made if it is missing.
        subject: what the op is called, for the header.
        device: where it was measured, for the header.

    Returns:
        The kernel's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = "\n".join(_header(candidate, verdict, subject, device))
    kernel = folder / "kernel.py"
    kernel.write_text(stand_alone(candidate.source, header), encoding="utf-8")
    (folder / "reference.py").write_text(reference_source, encoding="utf-8")
    test = (ROOM / "drop_in" / "test_kernel.py").read_text(encoding="utf-8")
    (folder / "test_kernel.py").write_text(test, encoding="utf-8")
    return kernel


def stand_alone(source: str, header: str) -> str:
    """The candidate's source with `header` as its docstring and the loader written into it."""
    tree = ast.parse(source)
    lines = source.splitlines()
    own_words = ast.get_docstring(tree)
    future: list[str] = []
    for statement in reversed(tree.body):
        first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            future[:0] = [*lines[first:last], ""]
            lines[first:last] = []
        elif isinstance(statement, ast.ImportFrom) and statement.module in LOADERS:
            text = _loader_text(statement.module, _bound_names(tree))
            lines[first:last] = [text, *_aliases(statement)]
        elif statement is tree.body[0] and own_words is not None:
            lines[first:last] = []
    words = header if own_words is None else f"{header}\n\n{own_words}"
    docstring = words.replace("\\", "\\\\").replace('"""', "'''")
    body = "\n".join(lines).strip("\n")
    return "\n".join([f'"""{docstring}\n"""', "", *future, body, ""])


def _bound_names(tree: ast.Module) -> set[str]:
    """Names that the candidate itself gives a meaning to at the top of its module."""
    bound: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            bound.add(statement.name)
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            bound |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return bound


def _loader_text(module: str, taken: set[str]) -> str:
    """A loader without its docstring; its own names give way to the candidate's."""
    path = ROOM.parent.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    body = "\n".join(text.splitlines()[tree.body[0].end_lineno or 0 :]).strip("\n")
    for name in sorted(_bound_names(tree) & taken - {LOADERS[module]}):
        body = re.sub(rf"\b{name}\b", f"loader_{name}", body)
    return body


def _aliases(statement: ast.ImportFrom) -> list[str]:
    return [f"\n{a.asname} = {a.name}" for a in statement.names if a.asname and a.asname != a.name]


def _header(
    candidate: Candidate, verdict: Correct | Compiled, subject: str, device: str
) -> list[str]:
    where = f" on {device}" if device else ""
    what = "A faster" if isinstance(verdict, Correct) else "A kernel, compiled and not timed, for"
    needs = {
        "cpp": "torch and a C++ compiler", "torch": "torch", "triton": "torch and triton",
        "cuda": "torch, cuda-python and nvidia-cuda-nvrtc",
    }[candidate.backend]  # fmt: skip
    notes = [f"Note: {label}." for label in (*candidate.labels, *verdict.labels)]
    return [
        f"{what} {subject}{where}: ModelNew takes the place of Model in reference.py.",
        "",
        *_figures(verdict),
        *notes,
        "",
        f"Needs {needs}. Same constructor, same forward, same weights by name:",
        "",
        "    new = ModelNew(*get_init_inputs())",
        "    new.load_state_dict(model.state_dict(), strict=False)",
        "",
        "test_kernel.py checks it against the reference: run it with pytest or plain python.",
        "Made by Kernelwright.",
    ]


def _figures(verdict: Correct | Compiled) -> list[str]:
    if isinstance(verdict, Compiled):
        return [f"Compiled for {verdict.device}, and never run on one: {verdict.logic}."]
    timing = verdict.timing
    if timing is None:
        return ["Correct; its speed was not measured."]
    rows = [
        f"{c.speedup:.2f}x (95% interval {c.low:.2f} to {c.high:.2f}) over {c.baseline}: "
        f"{c.candidate_ms:.3g} ms instead of {c.baseline_ms:.3g} ms"
        for c in timing.comparisons
    ]
    how = "confirmed in a fresh process with new seeds" if timing.confirmed else "measured once"
    return [*rows, f"Interleaved timing against the reference, {how}."]

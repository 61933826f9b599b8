"""A kernel as a package that pip installs: the drop-in, its reference, its test, its proof."""

import ast
import keyword
import re
import sys
from pathlib import Path

from knowledge.errors import BadInput
from tools.candidate import Candidate
from tools.export import STATE, STATE_FILE, Shipment, figures, kernel_text, test_text
from tools.folders import written_whole
from tools.verdict import Compiled

REQUIRES = {
    "cpp": ("torch>=2.11",), "torch": ("torch>=2.11",),
    "triton": ("torch>=2.11", "triton>=3.6"),
    "cuda": (
        "torch>=2.11", "cuda-python>=13.0", "nvidia-cuda-crt>=13.0", "nvidia-cuda-nvrtc>=13.0",
        "nvidia-cuda-runtime>=13.0",
    ),
}  # fmt: skip
# Of what a run was made with, what may bear on a figure.
TELLING = ("python", "torch", "triton", "numpy", "kernelwright")
NAME = re.compile(r"[a-z]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
# Modules that the package itself imports, or that a machine with torch has.
TAKEN = sys.stdlib_module_names | {"torch", "triton", "cuda", "numpy", "kernelwright", "pytest"}


def module_name(package: str) -> str:
    """What a package of this name is imported as.

    Raises:
        BadInput: pip or Python would not take the name.
    """
    mend = "For example: --package fast-softmax"
    if not NAME.fullmatch(package):
        raise BadInput(
            f"--package {package}",
            "is no name of a package: it takes letters, digits, and - _ . between them.",
            mend,
        )
    module = re.sub(r"[-_.]+", "_", package).lower()
    if keyword.iskeyword(module) or module in TAKEN:
        what = f"would be imported as {module}, which is taken."
        raise BadInput(f"--package {package}", what, mend)
    return module


def write_package(
    shipment: Shipment, name: str, parent: Path, versions: dict[str, str], when: str
) -> Path:
    """Write the package's sources into a new folder.

    Args:
        shipment: the kernel.
        name: the package's.
        parent: folder in which one of that name is made.
        versions: of what it was measured with.
        when: the run's start.

    Returns:
        The new folder.

    Raises:
        BadInput: the name is not one, or the folder is there already.
    """
    module = module_name(name)
    # What was judged is the text as it was.
    digest = shipment.candidate.digest
    shipment, state = _with_state(shipment, module)
    files: dict[str, str | bytes] = {
        "pyproject.toml": _project(shipment, name, module, held=state is not None),
        "README.md": _readme(shipment, name, module, versions, (when, digest)),
        f"src/{module}/__init__.py": _init(shipment, module),
        f"src/{module}/kernel.py": kernel_text(shipment),
        f"src/{module}/reference.py": shipment.reference,
        f"src/{module}/test_kernel.py": test_text(shipment),
        "tests/test_package.py": _test(module),
    }
    if state is not None:
        files[f"src/{module}/{STATE_FILE}"] = state
    return written_whole(parent / name, files)


def _with_state(shipment: Shipment, module: str) -> tuple[Shipment, bytes | None]:
    """The shipment, reading the tensors of a live op from its package, and those tensors.

    Raises:
        BadInput: the file that holds them is gone.
    """
    found = STATE.search(shipment.reference)
    if found is None:
        return shipment, None
    path = Path(ast.literal_eval(found[1]))
    if not path.is_file():
        raise BadInput(str(path), "holds tensors of this op, and is gone.", "Put it back.")
    here = (
        "import importlib.resources as _resources\n\n"
        f'STATE = str(_resources.files("{module}") / "{STATE_FILE}")'
    )

    def moved(text: str) -> str:
        return STATE.sub(lambda _: here, text)

    def with_moved(candidate: Candidate) -> Candidate:
        return candidate.model_copy(update={"source": moved(candidate.source)})

    update = {
        "candidate": with_moved(shipment.candidate),
        "others": tuple(map(with_moved, shipment.others)),
        "reference": moved(shipment.reference),
        "workloads": {name: moved(text) for name, text in shipment.workloads.items()},
    }
    return shipment.model_copy(update=update), path.read_bytes()


def _project(shipment: Shipment, name: str, module: str, *, held: bool) -> str:
    needed = (*REQUIRES[shipment.candidate.backend], *(("safetensors",) if held else ()))
    requires = "\n".join(f'    "{one}",' for one in needed)
    kind = "compiled, never run" if isinstance(shipment.verdict, Compiled) else "verified"
    subject = re.sub(r'[\\"\s\x00-\x1f\x7f]+', " ", shipment.subject)
    return f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "A {kind} kernel for {subject}, as a PyTorch operator"
readme = "README.md"
requires-python = ">=3.11"
dependencies = [
{requires}
]

[tool.setuptools]
packages = ["{module}"]
package-dir = {{ "" = "src" }}
""" + (f'\n[tool.setuptools.package-data]\n{module} = ["{STATE_FILE}"]\n' if held else "")


def _init(shipment: Shipment, module: str) -> str:
    note = "" if shipment.why_alone else ", whose calls go to a kernel where that was verified"
    subject = shipment.subject.replace("\\", "\\\\").replace('"', "'")
    return f'''\
"""{subject}: `ModelNew` takes the place of `Model`{note}."""

from {module}.kernel import ModelNew
from {module}.reference import Model

__all__ = ["Model", "ModelNew"]
'''


def _test(module: str) -> str:
    return f'''\
"""The installed package's kernel against its reference; run with pytest."""

from {module}.test_kernel import (
    pytest_generate_tests,
    test_gradients_are_those_of_the_reference,
    test_kernel_agrees_with_the_float64_reference,
)

__all__ = [
    "pytest_generate_tests",
    "test_gradients_are_those_of_the_reference",
    "test_kernel_agrees_with_the_float64_reference",
]
'''


def _readme(
    shipment: Shipment, name: str, module: str, versions: dict[str, str], run: tuple[str, str]
) -> str:
    """Args: as `write_package`; `run` is when it began, and the digest of what it judged."""
    when, digest = run
    notes = [f"- {label}" for label in (*shipment.candidate.labels, *shipment.verdict.labels)]
    who = [f"- {one}" for one in shipment.table]
    known = ", ".join(f"{one} {versions[one]}" for one in TELLING if one in versions)
    alone = shipment.why_alone
    calls = [alone] if alone else ["The kernel takes these; all others go to PyTorch:", "", *who]
    return "\n".join([
        f"# {name}", "",
        f"A kernel for {shipment.subject}, for PyTorch, made and measured by Kernelwright.", "",
        "```python", f"from {module} import ModelNew", "",
        "model = ModelNew(...)  # the constructor and forward of Model, and its weights by name",
        "model.load_state_dict(trained.state_dict())", "```", "",
        "## Evidence", "",
        *(f"- {line}" for line in figures(shipment.verdict)),
        f"- Device: {shipment.device or 'not told'}.",
        f"- Versions: {known}.",
        f"- Run of {when}; SHA-256 of the kernel {digest}.", "",
        "The figures are the kernel's own. The drop-in adds some microseconds a call, in which it",
        "looks at the tensors.", "",
        "## Which calls it takes", "", *calls, "",
        *(["## Notes", "", *notes, ""] if notes else []),
        "## Check it", "",
        "```", f"python -m {module}.test_kernel", "```", "",
        "holds the kernel against the reference in float64, here, on seeds of its own.", "",
    ])  # fmt: skip

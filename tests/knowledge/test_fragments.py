"""Every piece of code on a page of the library does what the page says: compiled, or run."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cuda_compiler import needs_nvrtc
from tests.knowledge.test_pages import OWN
from tools.backends.cuda.loader import compile_cubin

FENCE = re.compile(r"^```(cpp|cuda|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ARCHITECTURE = re.compile(r"//\s*arch:\s*(sm_\w+)")
CPP = ("g++", "-std=c++20", "-O1", "-march=native", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-c")


def fragments(language: str) -> dict[str, str]:
    """The fragments in a language, by page; a page with several numbers them."""
    found = {}
    for label, path in OWN.items():
        if path.suffix == ".md" and not label.startswith("patterns/"):
            codes = [code for kind, code in FENCE.findall(path.read_text()) if kind == language]
            found.update({f"{label}#{n}" if n else label: code for n, code in enumerate(codes)})
    return found


CPP_FRAGMENTS, CUDA_FRAGMENTS, PYTHON_FRAGMENTS = map(fragments, ("cpp", "cuda", "python"))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the C++ compiler said of each fragment."""
    folder = tmp_path_factory.mktemp("cpp")

    def compile_one(number: int, code: str) -> str:
        source = folder / f"{number}.cpp"
        source.write_text(code)
        command = [*CPP, str(source), "-o", str(source.with_suffix(".o"))]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    with ThreadPoolExecutor(2) as pool:
        said = pool.map(compile_one, range(len(CPP_FRAGMENTS)), CPP_FRAGMENTS.values())
        return dict(zip(CPP_FRAGMENTS, said, strict=True))


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong with each Python fragment."""
    folder = tmp_path_factory.mktemp("python")
    paths = {}
    for number, (label, code) in enumerate(PYTHON_FRAGMENTS.items()):
        path = folder / f"fragment_{number}.py"
        path.write_text(code)
        paths[str(path)] = label
    runner = Path(__file__).with_name("run_fragments.py")
    done = subprocess.run(
        [sys.executable, str(runner), *paths], capture_output=True, text=True, check=True
    )
    return {paths[path]: said for path, said in json.loads(done.stdout).items()}


@pytest.mark.parametrize("label", CPP_FRAGMENTS)
def test_cpp_compiles_without_a_warning(label: str, compiled: dict[str, str]) -> None:
    assert compiled[label] == ""


@pytest.mark.parametrize("label", PYTHON_FRAGMENTS)
def test_python_runs_and_is_right(label: str, interpreted: dict[str, str]) -> None:
    assert interpreted[label] == ""


@needs_nvrtc
@pytest.mark.parametrize("label", CUDA_FRAGMENTS)
def test_cuda_compiles(label: str) -> None:
    code = CUDA_FRAGMENTS[label]
    asked = ARCHITECTURE.search(code)
    cubin, _ = compile_cubin(code, asked.group(1) if asked else "sm_90a")
    assert cubin


def test_there_are_fragments_in_every_language() -> None:
    assert min(len(CPP_FRAGMENTS), len(CUDA_FRAGMENTS), len(PYTHON_FRAGMENTS)) >= 10

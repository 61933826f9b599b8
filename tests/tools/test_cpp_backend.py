"""The C++ backend: the loader that runs inside candidates, and the build on the trusted side."""

import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tools.backends.cpp.build import CppSource, compile_sources, extract_sources
from tools.backends.cpp.loader import (
    CompileError,
    build_commands,
    cpp_kernel,
    find_or_compile,
    library_name,
)

PROJECT = Path(__file__).parents[2]
SCALE = r"""
#include <cmath>
#include <cstdint>
extern "C" void scale(const float* x, float* y, int64_t n, double by) {
#pragma omp parallel for simd
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * (float)by;
}
extern "C" void exponential(const float* x, float* y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = expf(x[i]);
}
"""
THREADS = r"""
#include <cstdint>
#include <omp.h>
extern "C" void threads(int64_t* count) {
#pragma omp parallel
#pragma omp single
    *count = omp_get_num_threads();
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KERNELWRIGHT_CPP_CACHE", raising=False)
    return tmp_path / "home" / "kernelwright" / "cpp"


def ran(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def must_not_run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    raise AssertionError(f"ran {command}")


def test_a_kernel_takes_pointers_integers_and_doubles() -> None:
    x, y = torch.randn(1000), torch.empty(1000)
    cpp_kernel(SCALE, "scale", "ppid")(x, y, 1000, 2.5)
    torch.testing.assert_close(y, x * 2.5)


def test_infinities_and_nan_keep_their_meaning() -> None:
    x = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0] * 8)
    y = torch.empty_like(x)
    cpp_kernel(SCALE, "exponential", "ppi")(x, y, x.numel())
    torch.testing.assert_close(y, x.exp(), equal_nan=True)


def test_loading_a_kernel_leaves_denormal_numbers_alone() -> None:
    tiny, y = torch.full((64,), 1e-40), torch.empty(64)
    kernel = cpp_kernel(SCALE, "scale", "ppid")
    assert (tiny * 1.0).sum() > 0
    kernel(tiny, y, 64, 1.0)
    assert torch.equal(y, tiny)


def test_a_second_load_compiles_nothing(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_or_compile(SCALE, ())
    monkeypatch.setattr(subprocess, "run", must_not_run)
    assert find_or_compile(SCALE, ()) == first
    assert list(own_cache.iterdir()) == [first]


def test_many_threads_compiling_one_source_agree(own_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: find_or_compile(SCALE, ()), range(4)))
    assert len(paths) == 1
    assert list(own_cache.iterdir()) == list(paths)


def test_the_prepared_cache_is_asked_first_and_never_written(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    source = CppSource(name="scale", source=SCALE, line=1)
    assert compile_sources([source], prepared, ran) is None
    monkeypatch.setenv("KERNELWRIGHT_CPP_CACHE", str(prepared))
    assert find_or_compile(SCALE, ()).parent == prepared
    find_or_compile(THREADS, ())
    assert [path.name for path in prepared.iterdir()] == [source.library]
    assert [path.name for path in own_cache.iterdir()] == [library_name(THREADS, ())]


def test_a_home_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_or_compile(SCALE, ()).is_file()


def test_flags_are_part_of_the_name_and_of_the_compilation() -> None:
    source = 'extern "C" void f(double* x) { *x = WORTH; }'
    with pytest.raises(CompileError, match="WORTH"):
        cpp_kernel(source, "f", "p")
    x = torch.zeros(1, dtype=torch.float64)
    cpp_kernel(source, "f", "p", flags=("-DWORTH=7",))(x)
    assert x.item() == 7
    assert library_name(source, ()) != library_name(source, ("-DWORTH=7",))


def test_libraries_are_named_when_linking_only() -> None:
    compiling, linking = build_commands(("-O2", "-lm"))
    assert "-lm" in linking
    assert "-lm" not in compiling
    assert "-O2" in compiling
    assert "-ffast-math" not in linking


def test_a_compile_error_carries_the_command_and_the_words_of_the_compiler() -> None:
    with pytest.raises(CompileError) as caught:
        cpp_kernel("int x = ;", "f", "")
    assert "-O3" in str(caught.value)
    assert "expected primary-expression" in str(caught.value)


def test_a_kernel_runs_on_the_threads_of_torch() -> None:
    """In a process of its own, since the number of threads is the process's."""
    program = textwrap.dedent("""
        from tools.backends.cpp.loader import cpp_kernel
        import torch, sys
        threads = cpp_kernel(sys.argv[1], "threads", "p")
        count = torch.zeros(1, dtype=torch.int64)
        for wanted in (2, 1):
            torch.set_num_threads(wanted)
            threads(count)
            assert count.item() == wanted, (count, wanted)
        mapped = {line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line}
        assert len(mapped) == 1, mapped
    """)
    done = subprocess.run(
        [sys.executable, "-c", program, THREADS],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


CANDIDATE = '''
from tools.backends.cpp import loader
from tools.backends.cpp.loader import cpp_kernel

FIRST = r"""extern "C" void first() {}"""
SECOND: str = 'extern "C" void second() {}'
FLAGS = ("-O1",)
TWICE = "a"
TWICE = "b"

first = cpp_kernel(FIRST, "first", "")

class ModelNew:
    def forward(self):
        loader.cpp_kernel(source=SECOND, name="second", signature="", flags=FLAGS)
        cpp_kernel(FIRST, "first", "")
        cpp_kernel('extern "C" void third() {}', "third", "", ["-O2"])
        cpp_kernel(FIRST + SECOND, "made", "")
        cpp_kernel(TWICE, "ambiguous", "")
        cpp_kernel(*stars)
'''


def test_sources_are_found_without_running_the_candidate() -> None:
    found = extract_sources(CANDIDATE)
    assert [(source.name, source.flags, source.line) for source in found] == [
        ("first", (), 11), ("second", ("-O1",), 15), ("third", ("-O2",), 17),
    ]  # fmt: skip
    assert found[0].source == 'extern "C" void first() {}'


def test_a_candidate_that_is_not_python_is_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        extract_sources("def f(:")


def test_what_is_compiled_is_found_by_the_loader_and_not_compiled_again(tmp_path: Path) -> None:
    sources = extract_sources(CANDIDATE)
    assert compile_sources(sources, tmp_path, ran) is None
    names = {library_name(source.source, source.flags) for source in sources}
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".so"} == names
    assert compile_sources(sources, tmp_path, must_not_run) is None
    for name in names:
        assert not stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o222


def test_a_refused_source_says_where_it_is_loaded_and_is_bounded(tmp_path: Path) -> None:
    endless = "\n".join(f"int x{i} = ;" for i in range(2000))
    source = CppSource(name="endless", source=endless, line=42)
    failed = compile_sources([source], tmp_path, ran)
    assert failed is not None
    assert '"endless", loaded on line 42' in failed.log
    assert "kernel.cpp:1:" in failed.log
    assert str(tmp_path) not in failed.log
    assert len(failed.log) < 5000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "link", "folder", "pipe", "empty"])
def test_only_a_plain_file_leaves_the_build(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")

    def hostile(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        built = folder / "kernel.so"
        if kind == "link" and not built.is_symlink():
            built.symlink_to(secret)
        elif kind == "folder":
            built.mkdir(exist_ok=True)
        elif kind == "pipe" and not built.exists():
            os.mkfifo(built)
        elif kind == "empty":
            built.touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    cache = tmp_path / "cache"
    cache.mkdir()
    failed = compile_sources([CppSource(name="f", source="x", line=1)], cache, hostile)
    assert failed is not None
    assert "kernel.so" in failed.log
    assert list(cache.iterdir()) == []

"""Loops that should be vector code are: GCC's own report, for AVX2 and for AVX-512.

A choice between two numbers that is worded unluckily becomes branches, and a kernel 5 to 15 times
slower than it need be, whose results are right all the same. Nothing is run here.
"""

import ast
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from knowledge.pattern import Step
from tests.patterns.workshop import FUSED, build, function
from tools.backends.cpp.loader import FLAGS

SIMD = "omp simd"
# How far below its pragma a loop's body is named as the place of the loop.
REACH = 5
MADE = re.compile(r"kernel\.cpp:(\d+):\d+: optimized: loop vectorized")
MISSED = re.compile(r"kernel\.cpp:(\d+):\d+: missed: couldn't vectorize loop")

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are x86's"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="the report is g++'s"),
]

OPS = {
    "clamp": "x.clamp(0, 6) * x",
    "hardswish": "F.hardswish(x)",
    "hardtanh": "F.hardtanh(x) + 1",
    "maximum": "torch.maximum(x, x * x)",
    "gelu": "F.gelu(x)",
    "tanh": "torch.tanh(x)",
    "softplus": "F.softplus(x)",
    "mish": "F.mish(x)",
    "log1p": "torch.log1p(x)",
    "power": "x.abs() ** 2.2",
    "remainder": "torch.remainder(x, 3.0)",
    "largest of a row": "x.amax(-1)",
    "least of a column": "x.amin(0)",
    "softmax": "torch.softmax(x, -1)",
    "logsumexp": "torch.logsumexp(x, -1)",
}
# Expression and shape: rows in tiles, and pairs that take turns.
SHORT = {
    "softmax": ("torch.softmax(x, -1)", "4096, 16"),
    "layer norm": ("F.layer_norm(x, (10,))", "4096, 10"),
    "the largest": ("x.amax(-1)", "4096, 8"),
    "its place": ("x.argmax(-1)", "4096, 8"),
    "rotary pairs": (
        "torch.stack((x[..., ::2] - x[..., 1::2], x[..., ::2] * x[..., 1::2]), -1).flatten(-2)",
        "64, 128",
    ),
    "colours": ("x * x[:1, 0] + 1", "64, 90, 3"),
}
POOLINGS = {
    "3 x 3": "F.max_pool2d(x[None], 3, 2, 1)",
    "2 x 2": "F.max_pool2d(x[None], 2)",
    "2 x 2 x 2": "F.max_pool3d(x[None], 2)",
    "of many columns": "F.max_pool1d(x, 11, 1, 5)",
    "adaptive": "F.adaptive_max_pool2d(x[None], 4)",
    "average": "F.avg_pool2d(x[None], 3, 2, 1)",
}


def scalar_loops(candidate: str, level: str, folder: Path) -> list[str]:
    """The loops under a simd pragma of which g++ made no vectors for this x86-64 level."""
    constants = [
        node.value
        for node in ast.walk(ast.parse(candidate))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    sources = [text for text in constants if "#include" in text]
    assert sources, "the candidate has a kernel"
    flags = dict.fromkeys(text for text in constants if text.startswith("-f"))
    found: list[str] = []
    for source in sources:
        (folder / "kernel.cpp").write_text(source, encoding="utf-8")
        base = [f"-march={level}" if flag == "-march=native" else flag for flag in FLAGS]
        ran = subprocess.run(
            ["g++", *base, *flags, "-fopt-info-vec-optimized-missed", "-c", "kernel.cpp"],
            cwd=folder, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        # A loop that is nowhere needed is in neither list, nor is one that becomes a memset.
        made, missed = ({int(line) for line in one.findall(ran.stderr)} for one in (MADE, MISSED))
        lines = source.splitlines()
        found += [
            lines[at].strip()
            for at, line in enumerate(lines, 1)
            if SIMD in line
            and missed & (body := set(range(at + 1, at + 1 + REACH)))
            and not made & body
        ]
    return found


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("op", OPS)
def test_fused_loops_are_vector_code(op: str, level: str, tmp_path: Path) -> None:
    """Clamps and maxima that keep NaN are selects, in chains as in reductions."""
    source = function("x", OPS[op], "torch.randn(256, 1024)")
    assert scalar_loops(build(source, FUSED).source, level, tmp_path) == []


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("op", SHORT)
def test_loops_over_short_rows_are_vector_code(op: str, level: str, tmp_path: Path) -> None:
    """Vectors run across rows, or along the dimension before the last."""
    expression, shape = SHORT[op]
    candidate = build(function("x", expression, f"torch.randn({shape})"), FUSED).source
    assert re.search("_lanes\\(|constexpr int64_t cols1", candidate)
    assert scalar_loops(candidate, level, tmp_path) == []


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("window", POOLINGS)
def test_poolings_are_vector_code(window: str, level: str, tmp_path: Path) -> None:
    """Rows are joined in vectors, and so are columns, whatever the stride."""
    shape = "4, 32, 32" if "3d" not in POOLINGS[window] else "4, 16, 16, 32"
    if "1d" in POOLINGS[window]:
        shape = "4, 8, 512"
    source = function("x", POOLINGS[window], f"torch.randn({shape})")
    assert scalar_loops(build(source, (Step(pattern="pooling"),)).source, level, tmp_path) == []

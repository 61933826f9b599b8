"""Blocks of matrix products in Triton: tunables, and what the traced sizes suggest for each.

The choices were made by counting tiles, registers and shared memory, with no GPU at hand: what
compiles without spills for sm_80, sm_90 and sm_100, and fills a machine. None of it was timed.
"""

from dataclasses import dataclass
from typing import Literal, cast

from knowledge.loops.triton_tile import power_of_two
from knowledge.pattern import Parameter
from knowledge.patterns.matmul.contraction import Contraction

Precision = Literal["tf32x3", "bf16x3", "ieee"]

FIRST: dict[str, Parameter] = {
    "precision": "tf32x3", "block_rows": 0, "block_columns": 0, "block_depth": 0, "split": 0,
    "warps": 0, "stages": 0, "epilogue": True,
}  # fmt: skip
ALLOWED: dict[str, tuple[Parameter, ...]] = {
    "precision": ("tf32x3", "bf16x3", "ieee"),
    "block_rows": (0, 16, 32, 64, 128, 256),
    "block_columns": (0, 16, 32, 64, 128, 256, 512),
    "block_depth": (0, 16, 32, 64, 128, 256),
    "split": (0, 1, 2, 4, 8, 16, 32),
    "warps": (0, 2, 4, 8),
    "stages": (0, 1, 2, 3, 4, 5),
    "epilogue": (True, False),
}
# Multiprocessors to fill: an H100's and H200's; A100s have 108, B200s 148.
MULTIPROCESSORS = 132
# An accumulator of 64 x 256 takes 64 registers a thread in 8 warps. Rows of 512, softmax on them,
# spill on sm_80 and sm_90.
LONGEST_ROW = 256
MOST_PARTS = 32
# A part of the depth that is shorter is not worth a pass over partial sums.
LEAST_PART = 256
GROUP = 8


@dataclass(frozen=True)
class Blocks:
    """What one program of a product takes; `vector` products are sums, without tensor cores."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    parts: int
    precision: Precision
    vector: bool = False


def settings(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """All tunables of a step.

    Raises:
        ValueError: one is unknown, or has a value that it can't have.
    """
    values = {name: parameters.get(name, first) for name, first in FIRST.items()}
    unknown = set(parameters) - {*FIRST, "only"}
    if unknown or any(value not in ALLOWED[name] for name, value in values.items()):
        raise ValueError(f"matmul: unknown tunables {parameters}")
    return values


def choose(
    found: Contraction, width_bytes: int, whole_rows: bool, wished: dict[str, Parameter]
) -> Blocks:
    """The blocks for a product, whose tiles must hold whole rows where `whole_rows` says so."""
    wish = {name: int(value) for name, value in wished.items() if name != "precision"}
    precision = cast(Precision, wished["precision"])
    if is_vector(found):
        return _vector(found, wish, precision)
    # Splitting float32 operands takes registers: compiled for sm_80, tiles of 128 x 128 spill.
    widest = 64 if width_bytes == 4 else 128
    least_rows, columns = 16, _side(found.columns.traced, widest)
    rows = _side(found.rows.traced, 128)
    if whole_rows:
        columns = _side(found.columns.traced, 1 << 30)
        rows = min(rows, 64 if columns > 128 else 128)
        # One warp group of Hopper's tensor cores multiplies 64 rows at a time.
        least_rows = min(rows, 64 if columns > 128 else 32)
    while _tiles(found, rows, columns) < MULTIPROCESSORS and rows * columns > 64 * 64:
        if rows >= columns and rows > least_rows:
            rows //= 2
        elif not whole_rows:
            columns //= 2
        else:
            break
    rows = wish["block_rows"] or rows
    columns = columns if whole_rows else wish["block_columns"] or columns
    depth = wish["block_depth"] or _depth(found, width_bytes, rows, columns)
    big = rows * columns >= (64 * 128 if width_bytes == 4 else 128 * 128)
    return Blocks(
        rows=rows, columns=columns, depth=depth, warps=wish["warps"] or (8 if big else 4),
        stages=wish["stages"] or 3, parts=_parts(found, rows, columns, wish["split"]),
        precision=precision,
    )  # fmt: skip


def is_vector(found: Contraction) -> bool:
    """Whether one operand is a vector, so that reading the other is all that takes time."""
    structured = found.a.triangle or found.b.triangle or found.keeps
    return found.rows.traced == 1 and not structured


def _side(size: int, most: int) -> int:
    return min(most, max(16, power_of_two(size)))


def _tiles(found: Contraction, rows: int, columns: int) -> int:
    return found.matrices * -(-found.rows.traced // rows) * -(-found.columns.traced // columns)


def _depth(found: Contraction, width_bytes: int, rows: int, columns: int) -> int:
    """128 bytes of a line at a time; of thin operands more, to keep enough loads under way.

    Lines that don't start at multiples of 16 bytes come through registers: fewer of them.
    """
    depth = 128 // width_bytes
    if any(size % (16 // width_bytes) for size in _neighbours(found)):
        return min(depth // 2, max(16, power_of_two(found.depth.traced)))
    if rows * columns <= 64 * 64 and min(rows, columns) < 64:
        depth *= 2
    if rows * columns >= 128 * 128 and width_bytes == 4:
        depth //= 2
    return min(depth, max(16, power_of_two(found.depth.traced)))


def _neighbours(found: Contraction) -> tuple[int, int]:
    """For each operand, how many elements are neighbours in memory."""
    return (
        found.depth.traced if found.a.along else found.rows.traced,
        found.depth.traced if found.b.along else found.columns.traced,
    )


def _parts(found: Contraction, rows: int, columns: int, wished: int) -> int:
    """Into how many parts the depth is split, so that a few tiles fill the machine."""
    if found.keeps or found.a.triangle or found.b.triangle:
        return 1
    if wished:
        return wished
    tiles, parts = _tiles(found, rows, columns), 1
    # Half a machine is not worth a pass over partial sums.
    if tiles * 4 > MULTIPROCESSORS:
        return 1
    while (
        tiles * parts * 2 <= MULTIPROCESSORS
        and parts < MOST_PARTS
        and found.depth.traced >= 2 * parts * LEAST_PART
    ):
        parts *= 2
    return parts


def _vector(found: Contraction, wish: dict[str, int], precision: Precision) -> Blocks:
    """The matrix in tiles whose neighbours in memory are read together."""
    depth, columns = (256, 16) if found.b.along else (32, 128)
    depth = wish["block_depth"] or min(depth, max(16, power_of_two(found.depth.traced)))
    columns = wish["block_columns"] or min(columns, max(16, power_of_two(found.columns.traced)))
    return Blocks(
        rows=1, columns=columns, depth=depth, warps=wish["warps"] or 4, stages=wish["stages"] or 3,
        parts=_parts(found, 1, columns, wish["split"]), precision=precision, vector=True,
    )  # fmt: skip

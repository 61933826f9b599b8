"""From a product to a `Kernel`: which way it takes, its epilogue, and what it costs."""

from dataclasses import dataclass, replace

from knowledge.loops.epilogue import Epilogue, find_epilogue
from knowledge.opgraph import Ref
from knowledge.patterns.matmul.contraction import Contraction, Extent
from knowledge.patterns.matmul.diagonal import print_diagonal
from knowledge.patterns.matmul.source import Blocking, print_source
from knowledge.program import Kernel, Program, Size, Written

# Up to so many lines, reading the big operand takes longer than multiplying. Where its lines run
# along the depth, dot products do without packing, and pay up to more of them.
THIN, THIN_DOTS = 8, 16
# Packing an element costs about as much as so many multiply-adds.
PACKING = 8
# On large products, of one thread, over what the best library reaches: 102 to 109 GFLOP/s at 1024.
LARGE = 0.93
# Products of a batch that are made one at a time: rows x columns x depth, and elements of an
# operand, which is to stay in the first-level cache. And of how many products at least, for all
# threads to have their part.
SMALL, SMALL_OPERAND, SMALL_BATCH = 64**3, 8192, 16
# What such a product costs besides, in operations: once, and for each element that is turned. From
# the times in notes.md, at 215 GFLOP/s a core.
SMALL_START, SMALL_TURNED = 9000, 12


def make_kernel(blocking: Blocking, program: Program, found: Contraction, name: str) -> Kernel:
    """The kernel that computes a product and what can be fused with it."""
    if found.diagonal:
        return _kernel(program, found, None, name, print_diagonal(found, name))
    blocking = _way(found, blocking)
    tail = None if blocking.mirrors(found) else _tail(program, found)
    source = print_source(found, name, blocking, tail.epilogue if tail else None)
    return _kernel(program, found, tail, name, source)


def is_blocked(found: Contraction) -> bool:
    """Whether a product takes the way by blocks."""
    if found.diagonal:
        return False
    way = _way(found, Blocking())
    return way.thin == "no" and not way.small


def is_small(found: Contraction) -> bool:
    """Whether it is a batch of products so small that packing would take longer than they do."""
    if not any(found.b.spans) or found.a.triangle or found.b.triangle or found.diagonal:
        return False
    rows, columns, depth = (one.traced for one in (found.rows, found.columns, found.depth))
    fits = max(rows, columns) * depth <= SMALL_OPERAND and rows * columns * depth <= SMALL
    return fits and found.matrices >= SMALL_BATCH


def _way(found: Contraction, blocking: Blocking) -> Blocking:
    """The blocking, or the way for thin operands, that suits the traced sizes."""
    if is_small(found):
        return replace(blocking, small=True)
    structured = found.a.triangle or found.b.triangle or found.keeps or found.symmetric
    rows, columns = found.rows.traced, found.columns.traced
    big = found.b if rows <= columns else found.a
    if not structured and min(rows, columns) <= (THIN_DOTS if big.along else THIN):
        return replace(blocking, thin="a" if rows <= columns else "b")
    # All of B is packed once for all threads, unless one block of rows takes all that there are.
    shared = not any(found.b.spans) and rows > blocking.rows
    if structured:
        # More and smaller blocks, as some of them have less to do.
        return replace(
            blocking,
            shared=shared,
            rows=min(blocking.rows, 192),
            columns=min(blocking.columns, 192),
        )
    if found.b.along and not shared and not any(found.b.spans):
        # B goes by once: its lines are read in long runs, which the hardware foresees.
        run = (2048, 64) if rows < 96 else (512, 256)
        return replace(blocking, shared=False, depth=run[0], columns=run[1])
    return replace(blocking, shared=shared)


@dataclass(frozen=True)
class Tail:
    """An epilogue, and the number of the result's first dimensions that tell its units apart."""

    epilogue: Epilogue
    dims: int


def _tail(program: Program, found: Contraction) -> Tail | None:
    """The largest epilogue, over rows of the result or else over its matrices."""
    shape = tuple(size.text for size in found.dims)
    rank = len(shape)
    vector = found.columns == Extent("1", 1)
    if rank and found.dims[-1] != found.columns and not vector:
        # The columns are several dimensions: no unit is a row.
        return None
    by_row = rank - 1 if rank and found.dims[-1] == found.columns else rank
    units = [by_row]
    if rank >= 3 and by_row == rank - 1 and found.rows == found.dims[-2]:
        units.append(rank - 2)
    tried = [(find_epilogue(program, found.name, dims, shape), dims) for dims in units]
    made = [Tail(epilogue, dims) for epilogue, dims in tried if epilogue is not None]
    return max(made, key=lambda tail: len(tail.epilogue.nodes), default=None)


def efficiency(found: Contraction) -> float:
    """The share of the measured matmul peak that the kernel reaches on this product.

    Tiles are of 12 x 32, padded where a product does not fill them, and packing is linear in the
    sides.
    """
    # The peak is that of float32: a vector holds half as many doubles.
    peak = LARGE / 2 if found.dtype == "float64" else LARGE
    if is_small(found):
        return peak * _small_share(found)
    if not is_blocked(found):
        return 1.0
    rows, columns = found.rows.traced, found.columns.traced
    filled = rows / (-(-rows // 12) * 12) * columns / (-(-columns // 32) * 32)
    return peak * filled / (1 + PACKING * (1 / rows + 1 / columns))


def _small_share(found: Contraction) -> float:
    """What is left of the peak where a vector is not full, and operands are turned."""
    rows, columns, depth = (one.traced for one in (found.rows, found.columns, found.depth))
    filled = columns / (-(-columns // 16) * 16)
    flops = 2 * rows * columns * depth / filled
    turned = depth * (rows * found.a.along + columns * (found.b.along and not found.symmetric))
    share = filled * flops / (flops + SMALL_START + SMALL_TURNED * turned)
    # Its operations are counted as if half were copied.
    return share / 2 if found.symmetric else share


def _reads(found: Contraction) -> tuple[Ref, ...]:
    """The tensors of a product, each once, in the order of the C++ function's parameters."""
    added = [found.offset.ref] if found.offset else []
    return (*dict.fromkeys((found.a.ref, found.b.ref)), *added)


def _kernel(
    program: Program, found: Contraction, tail: Tail | None, name: str, source: str
) -> Kernel:
    graph = program.graph
    epilogue = tail.epilogue if tail else None
    reads = _reads(found) + (epilogue.reads if epilogue else ())
    writes = epilogue.writes if epilogue else ()
    if epilogue is None or epilogue.keeps_anchor:
        spec = graph.by_name[found.name].spec
        writes = (*writes, Written(ref=Ref(ref=found.name), shape=_shape(found.dims), spec=spec))
    extents = {"rows": found.rows, "columns": found.columns, "depth": found.depth}
    sizes = [*(epilogue.sizes if epilogue else ())]
    sizes += [Size(name=key, expression=size.text) for key, size in extents.items()]
    sizes += [Size(name=f"n{at}", expression=size.text) for at, size in enumerate(found.batch)]
    if tail:
        units = Extent.product(found.dims[: tail.dims])
        sizes.append(Size(name="units", expression=units.text))
    nodes = (*found.nodes, *(epilogue.nodes if epilogue else ()))
    moved = sum(graph.spec_of(ref).nbytes for ref in dict.fromkeys(reads))
    moved += sum(written.spec.nbytes for written in writes)
    return Kernel(
        name=name, source=source, nodes=nodes, reads=reads, writes=writes, sizes=tuple(sizes),
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        checks=tuple(dict.fromkeys((*found.checks, *(epilogue.checks if epilogue else ())))),
        note=_note(program, nodes), moved_bytes=moved, flops=found.flops,
        operations=epilogue.operations if epilogue else 0, efficiency=efficiency(found),
    )  # fmt: skip


def _shape(dims: tuple[Extent, ...]) -> str:
    return f"({', '.join(size.text for size in dims)}{',' if len(dims) == 1 else ''})"


def _note(program: Program, nodes: tuple[str, ...]) -> str:
    """The calls in execution order, by their operators."""
    calls = [node for node in program.graph.calls if node.name in nodes]
    return ", ".join(node.target.split(".")[1].strip("_") for node in calls)

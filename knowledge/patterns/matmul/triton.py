"""Matrix products in Triton: what is taken, in which form, and what it should cost on a GPU."""

from dataclasses import dataclass, replace
from functools import partial

from knowledge.loops.cost import HALVES, Machine, moved_mb, program_ms
from knowledge.loops.triton_tail import Tail, find_tail
from knowledge.loops.triton_tile import power_of_two
from knowledge.opgraph import Node, OpGraph, Ref
from knowledge.pattern import Parameter, Proposal, Refusal, Situation, Step
from knowledge.patterns.matmul.contraction import Contraction, Extent, Operand
from knowledge.patterns.matmul.match import find_product
from knowledge.patterns.matmul.products import (
    NAME,
    counted,
    find_products,
    gaining,
    refusal,
    replaced,
)
from knowledge.patterns.matmul.triton_blocks import (
    FIRST,
    LONGEST_ROW,
    MULTIPROCESSORS,
    Blocks,
    choose,
    is_vector,
    settings,
)
from knowledge.patterns.matmul.triton_source import Product, print_product
from knowledge.program import Check, Kernel, Program, Size, Written, variable

KINDS = ("float32", "float16", "bfloat16")
# An order of preference among blocks that were never timed.
OTHER_BLOCKS = 0.98


def propose(program: Program, situation: Situation) -> list[Proposal] | Refusal:
    """Products in the arithmetic that is surely exact enough, then in others and other blocks."""
    found, reasons = find_products(program, _product)
    if not found:
        return refusal(reasons)
    machine = Machine.of(situation)
    before = program_ms(program, machine)
    only = gaining(program, found, partial(make_kernel, FIRST), machine)
    proposals = []
    for given, factor in _variants(program, found):
        parameters = {**given, "only": only} if only else given
        step = Step(pattern=NAME, parameters=parameters)
        changed = apply(program, step)
        after = program_ms(changed, machine)
        proposals.append(
            Proposal(
                step=step, title=_title(given, found), speedup=before / after * factor,
                arithmetic=_arithmetic(program, changed, machine, (before, after)),
            )
        )  # fmt: skip
    return proposals


def apply(program: Program, step: Step) -> Program:
    """The program with its matrix products, and what follows them, in Triton kernels.

    Raises:
        ValueError: no product fits, or a tunable has an unknown value.
    """
    wished = settings(step.parameters)
    found, reasons = find_products(program, _product, step.only)
    if not found:
        raise ValueError(f"matmul: {'; '.join(reasons) or 'there is no matrix product'}")
    changed = replaced(program, found, _product, partial(make_kernel, wished))
    words = f"{counted(len(changed.kernels) - len(program.kernels))} in Triton"
    return changed.changed(steps=(*changed.steps, words))


def _product(program: Program, node: Node) -> Contraction | str:
    """The product that a call computes, or why no Triton kernel takes it."""
    found = find_product(program, node, KINDS)
    if isinstance(found, str):
        return found
    if found.diagonal:
        return f"{found.anchor} multiplies by a diagonal matrix, which has no form in Triton yet"
    return _upright(found)


def make_kernel(
    wished: dict[str, Parameter], program: Program, found: Contraction, name: str
) -> Kernel:
    """The kernel of one product and its epilogue."""
    graph = program.graph
    dtype = graph.by_name[found.name].spec.dtype
    width_bytes = 4 if dtype == "float32" else 2
    tail = _tail(program, found) if wished["epilogue"] else None
    blocks = choose(found, width_bytes, tail is not None and tail.kind == "row", wished)
    if tail is not None and tail.kind == "parts":
        blocks = replace(blocks, parts=1)
    product = Product(
        found=found, blocks=blocks, tail=tail, name=name, is_float32=dtype == "float32",
        result=tail is None or tail.keeps_anchor,
    )  # fmt: skip
    nodes = (*found.nodes, *(tail.nodes if tail else ()))
    calls = [node for node in graph.calls if node.name in nodes]
    note = ", ".join(node.target.split(".")[1].strip("_") for node in calls)
    printed = print_product(product, note)
    lying, strided = _lying(graph, found, tail)
    sizes = [Size(name=key, expression=text) for key, text in lying.items()]
    sizes += tail.sizes if tail else ()
    reads = (found.a.ref, found.b.ref, *([found.offset.ref] if found.offset else []))
    reads += tail.reads if tail else ()
    writes = tail.writes if tail else ()
    if product.result:
        shape = (
            f"({', '.join(one.text for one in found.dims)}{',' if len(found.dims) == 1 else ''})"
        )
        spec = graph.by_name[found.name].spec
        writes = (*writes, Written(ref=Ref(ref=found.name), shape=shape, spec=spec))
    checks = tuple(dict.fromkeys((*found.checks, *(tail.checks if tail else ()))))
    limits: tuple[Check, ...] = ()
    if tail is not None and tail.kind == "row":
        # Whole rows are in the tile, whose shared memory was chosen for the traced ones.
        most = max(16, power_of_two(found.columns.traced))
        sentence = f"this kernel takes rows of 1 to {most} elements"
        limits = (
            Check(left=f"(0 < {found.columns.text} <= {most})", right="True", sentence=sentence),
        )
    return Kernel(
        name=name, source=printed.source, helpers=printed.helpers, language="triton",
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes), nodes=nodes, reads=reads,
        writes=writes, sizes=tuple(sizes), strided=strided, checks=checks, limits=limits,
        note=note,
        moved_bytes=_moved(graph, reads, writes, found, blocks), flops=found.flops,
        operations=tail.operations if tail else 0, efficiency=_efficiency(found, blocks),
        arithmetic=_arithmetic_of(dtype, blocks),
    )  # fmt: skip


def _upright(found: Contraction) -> Contraction:
    """A matrix times a vector as a vector times the transposed matrix; other products unchanged."""
    turns = found.columns.traced == 1 and found.rows.traced > 1
    if not turns or found.keeps or found.a.triangle or found.b.triangle:
        return found
    offset = found.offset
    if offset is not None:
        layouts = {"row": "column", "column": "one"}
        layout = layouts.get(offset.layout, offset.layout)
        offset = replace(offset, layout=layout)  # type: ignore[arg-type]
    return replace(
        found, a=found.b, b=found.a, rows=found.columns, columns=found.rows, offset=offset
    )


def _tail(program: Program, found: Contraction) -> Tail | None:
    """The epilogue; a vector's tiles never hold whole rows.

    A loop knows nothing of sides of one element, which a tile pads.
    """
    lines = found.matrices * found.rows.traced
    if found.columns.traced == 1 or (lines == 1 and not is_vector(found)):
        return None
    shape = tuple(size.text for size in found.dims)
    longest = 0 if is_vector(found) else LONGEST_ROW
    return find_tail(program, found.name, shape, found.columns.traced, longest)


@dataclass(frozen=True)
class _Strides:
    """Python for the steps of an operand: from line to line, along the depth, between matrices."""

    line: str
    deep: str
    matrix: str
    as_it_lies: bool


def _lying(
    graph: OpGraph, found: Contraction, tail: Tail | None
) -> tuple[dict[str, str], tuple[Ref, ...]]:
    """The product's sizes and strides by their parameters, and the operands read as they lie.

    What the epilogue reads too must be dense, as it is handed over but once.
    """
    dense = {*(tail.reads if tail else ()), *([found.offset.ref] if found.offset else [])}
    sides = {"left": (found.a, found.rows), "right": (found.b, found.columns)}
    lies = {side: _strides(graph, found, *given) for side, given in sides.items()}
    dense |= {sides[side][0].ref for side, one in lies.items() if not one.as_it_lies}
    lying = {"height": found.rows.text, "width": found.columns.text, "depth": found.depth.text}
    lying |= {f"n{at}": size.text for at, size in enumerate(found.batch)}
    for side, (operand, lines) in sides.items():
        one = lies[side]
        if operand.ref in dense:
            one = _dense(operand, lines, found.depth)
        lying |= {f"{side}_line": one.line, f"{side}_deep": one.deep}
        lying |= {f"{side}_matrix": one.matrix} if any(operand.spans) else {}
    refs = dict.fromkeys((found.a.ref, found.b.ref))
    return lying, tuple(ref for ref in refs if ref not in dense)


def _strides(graph: OpGraph, found: Contraction, operand: Operand, lines: Extent) -> _Strides:
    """Strides where each of an operand's dimensions is one of the product's; else of a copy."""
    name, rank = variable(operand.ref), len(graph.spec_of(operand.ref).shape)
    batch = [size for size, spans in zip(found.batch, operand.spans, strict=False) if spans]
    parts = [*batch, *([lines] if lines.text != "1" else []), found.depth]
    if len(parts) != rank or any(" " in part.text for part in parts) or len(batch) > 1:
        return _dense(operand, lines, found.depth)
    line = "0" if lines.text == "1" else f"{name}.stride({-2 if operand.along else -1})"
    along = operand.along or lines.text == "1"
    deep = f"{name}.stride({-1 if along else -2})"
    return _Strides(line, deep, f"{name}.stride(0)" if batch else "0", True)


def _dense(operand: Operand, lines: Extent, depth: Extent) -> _Strides:
    matrix = Extent.product((lines, depth)).text
    line, deep = (depth.text, "1") if operand.along else ("1", lines.text)
    return _Strides(line, deep, matrix, False)


def _moved(
    graph: OpGraph,
    reads: tuple[Ref, ...],
    writes: tuple[Written, ...],
    found: Contraction,
    blocks: Blocks,
) -> int:
    """Each tensor once, and partial sums out and in again."""
    moved = sum(graph.spec_of(ref).nbytes for ref in dict.fromkeys(reads))
    moved += sum(written.spec.nbytes for written in writes)
    if blocks.parts > 1:
        elements = found.matrices * found.rows.traced * found.columns.traced
        moved += 8 * blocks.parts * elements
    return moved


def _efficiency(found: Contraction, blocks: Blocks) -> float:
    """The share of a machine's arithmetic that the tiles can use: how full they and waves are."""
    rows, columns = found.rows.traced, found.columns.traced
    high, wide = -(-rows // blocks.rows), -(-columns // blocks.columns)
    filled = rows / (high * blocks.rows) * columns / (wide * blocks.columns)
    programs = found.matrices * high * wide * blocks.parts
    waves = -(-programs // MULTIPROCESSORS)
    return filled * programs / (waves * MULTIPROCESSORS)


def _arithmetic_of(dtype: str, blocks: Blocks) -> str:
    """The arithmetic of the products; "" for float32 itself."""
    if blocks.vector:
        return ""
    if dtype == "float32":
        return "" if blocks.precision == "ieee" else blocks.precision
    return HALVES[dtype]


def _variants(
    program: Program, found: list[Contraction]
) -> list[tuple[dict[str, Parameter], float]]:
    """Tunables worth trying, and what each is expected to be worth besides its arithmetic."""
    variants: list[tuple[dict[str, Parameter], float]] = [(FIRST, 1.0)]
    tiled = [one for one in found if not is_vector(one)]
    if not tiled:
        return [*variants, ({**FIRST, "warps": 8}, OTHER_BLOCKS)]
    if any(program.graph.by_name[one.name].spec.dtype == "float32" for one in tiled):
        variants.append(({**FIRST, "precision": "bf16x3"}, 1.0))
    changes: list[dict[str, Parameter]] = [
        {"block_rows": 128, "block_columns": 256, "warps": 8},
        {"block_rows": 128, "block_columns": 128, "warps": 8},
        {"block_rows": 64, "block_columns": 128},
        {"block_rows": 64, "block_columns": 64},
        {"stages": 4}, {"stages": 2}, {"warps": 4}, {"warps": 8}, {"split": 1}, {"split": 4},
    ]  # fmt: skip
    variants += [({**FIRST, **change}, OTHER_BLOCKS) for change in changes]
    return [*variants, ({**FIRST, "epilogue": False}, OTHER_BLOCKS)]


def _title(given: dict[str, Parameter], found: list[Contraction]) -> str:
    changed = [f"{name} {value}" for name, value in given.items() if value != FIRST[name]]
    told = ", ".join(changed) or "blocks by the sizes"
    return f"{counted(len(found))} in Triton ({told})".replace("_", " ")


def _arithmetic(
    program: Program, changed: Program, machine: Machine, milliseconds: tuple[float, float]
) -> str:
    before, after = milliseconds
    kernels = changed.kernels[len(program.kernels) :]
    kinds = dict.fromkeys(kernel.arithmetic or "float32" for kernel in kernels)
    peaks = ", ".join(
        f"{machine.gflops('' if kind == 'float32' else kind):.0f} GFLOP/s in {kind}"
        for kind in kinds
    )
    calls = sum(len(kernel.nodes) for kernel in kernels)
    return (
        f"{calls} calls become {len(kernels)} kernel{'s' if len(kernels) != 1 else ''} that do "
        f"{sum(kernel.flops for kernel in kernels) / 1e9:.3f} GFLOP, at a peak of {peaks}; "
        f"{moved_mb(program):.1f} MB through memory become {moved_mb(changed):.1f} at "
        f"{machine.bandwidth_gbps:.0f} GB/s: {after:.3f} ms against {before:.3f} ms, "
        f"{before / after:.2f}x."
    )

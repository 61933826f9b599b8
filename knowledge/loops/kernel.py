"""From a fused loop to a `Kernel`: its C++, and Python expressions for sizes, shapes and checks.

Sizes are taken at run time from a tensor that spans the whole index space, so that a batch may
grow; what could not be expressed that way is checked instead.
"""

from knowledge.loops.cpp import print_cpp
from knowledge.loops.form import Loop, Operand, Refused
from knowledge.loops.indices import groups_of
from knowledge.loops.lower import is_costly
from knowledge.loops.plan import Options
from knowledge.loops.shapes import Layout, partition
from knowledge.opgraph import OpGraph, Ref
from knowledge.program import Check, Kernel, Size, Written, variable


class Shapes:
    """Python expressions for the sizes of a loop's index space."""

    def __init__(self, graph: OpGraph, loop: Loop) -> None:
        self.graph, self.loop = graph, loop
        self.atoms = [str(size) for size in loop.domain.sizes]
        self.leader: Operand | None = None
        everything = loop.domain.everything
        full = (operand for operand in loop.operands if operand.atoms == everything)
        self.leader = next(full, None)
        self.leading: Layout = ()
        if self.leader is not None:
            self.leading = self._layout(self.leader)
            name = variable(self.leader.ref)
            for dim, atoms in enumerate(self.leading):
                if len(atoms) == 1:
                    self.atoms[atoms[0]] = f"{name}.shape[{dim}]"

    def _layout(self, operand: Operand) -> Layout:
        shape = self.graph.spec_of(operand.ref).shape
        layout = partition(shape, operand.atoms, self.loop.domain.sizes)
        if layout is None:
            raise Refused("an operand's shape does not follow the index space")
        return layout

    def product(self, atoms: tuple[int, ...]) -> str:
        """The number of elements over some atoms."""
        if self.leader is not None and atoms == self.loop.domain.everything:
            return f"{variable(self.leader.ref)}.numel()"
        return " * ".join(self.atoms[atom] for atom in atoms) or "1"

    def shape(self, layout: Layout) -> str:
        """The shape of a tensor laid out so, as a tuple."""
        if self.leader is not None and layout == self.leading:
            return f"{variable(self.leader.ref)}.shape"
        dims = [self.product(dim) if dim else "1" for dim in layout]
        return f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"

    def checks(self) -> tuple[Check, ...]:
        """What must hold of the operands' shapes for the kernel to be right."""
        found: list[Check] = []
        if self.leader is not None:
            name, shape = variable(self.leader.ref), self.graph.spec_of(self.leader.ref).shape
            found += [
                Check(
                    left=f"{name}.shape[{dim}]",
                    right=str(shape[dim]),
                    sentence=f"dimension {dim} of {name} should be {shape[dim]}",
                )
                for dim, atoms in enumerate(self.leading)
                if len(atoms) != 1
            ]
        for operand in self.loop.operands:
            if operand is self.leader:
                continue
            name, expected = variable(operand.ref), self.shape(self._layout(operand))
            wanted = expected if expected.endswith(".shape") else f"torch.Size({expected})"
            traced = list(self.graph.spec_of(operand.ref).shape)
            sentence = (
                f"{name} does not go with the other tensors; its shape was traced as {traced}"
            )
            found.append(Check(left=f"{name}.shape", right=wanted, sentence=sentence))
        return tuple(dict.fromkeys(found))


def make_kernel(
    graph: OpGraph, nodes: tuple[str, ...], loop: Loop, name: str, options: Options
) -> Kernel | str:
    """The kernel that computes these nodes, or why there is none."""
    source = print_cpp(loop, name, options)
    if isinstance(source, Refused):
        return str(source)
    try:
        shapes = Shapes(graph, loop)
        checks = shapes.checks()
    except Refused as refusal:
        return str(refusal)
    writes = tuple(
        Written(ref=store.ref, shape=shapes.shape(store.layout), spec=graph.spec_of(store.ref))
        for store in loop.stores
    )
    groups = [group for part in groups_of(loop) for group in part]
    sizes = tuple(Size(name=group.name, expression=shapes.product(group.atoms)) for group in groups)
    reads: tuple[Ref, ...] = tuple(operand.ref for operand in loop.operands)
    if len(set(reads)) != len(reads):
        return "a tensor is read in two ways at once"
    return Kernel(
        name=name,
        source=source,
        signature="p" * (len(reads) + len(writes)) + "i" * len(sizes),
        nodes=nodes,
        reads=reads,
        writes=writes,
        sizes=sizes,
        checks=checks,
        note=_note(graph, nodes),
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in reads)
        + sum(written.spec.nbytes for written in writes),
        operations=_operations(loop),
    )


# A polynomial exponential is about this many multiply-adds.
COSTLY_OPERATIONS = 16


def _operations(loop: Loop) -> int:
    """Scalar operations at the traced sizes; those of a row or of the whole loop hardly count."""
    each = sum(
        COSTLY_OPERATIONS if is_costly(value) else 1
        for value in loop.values
        if value.stage == "element" or value.op in ("fold", "total")
    )
    return each * loop.domain.count(loop.domain.everything)


def _note(graph: OpGraph, nodes: tuple[str, ...]) -> str:
    operators = [graph.by_name[name].target.split(".")[1].strip("_") for name in nodes]
    return ", ".join(operators)

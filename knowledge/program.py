"""An op on its way to being fast: its graph, and which of its calls our own kernels compute.

Patterns turn one `Program` into the next; `knowledge.emit` prints the last one as a Python module.
Plain data: no tensor library, and nothing here runs anything.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from heapq import heappop, heappush
from typing import Any, Literal

from pydantic import Field

from knowledge.opgraph import Frozen, Node, OpGraph, Ref, TensorSpec

Backend = Literal["cpp", "triton", "cuda"]


class Written(Frozen):
    """A tensor that a kernel fills: which value it is, and its shape as a Python expression."""

    ref: Ref
    shape: str
    spec: TensorSpec


class Size(Frozen):
    """An integer handed to a kernel: its name, and the Python expression it comes from."""

    name: str
    expression: str


class Check(Frozen):
    """Two Python expressions that must be equal when the kernel runs; else `sentence` is raised."""

    left: str
    right: str
    sentence: str


class Kernel(Frozen):
    """One function of our own in place of some of the graph's calls.

    It is called with the data of `reads` (dense, row-major, but for those that are in `strided` or
    `spaced` too: as they lie, with their strides among the sizes), then of `writes`, then `sizes`;
    `signature` has one letter for each (`p` data, `i` int64). `nodes` are the calls it computes.
    Every expression is Python over the names that `variable(ref)` gives. In `cpp`, `source` is a
    translation unit with a function `name`; in `triton`, Python text with the jit functions and a
    function `_name` that launches them on CUDA tensors, and `helpers` are definitions of its own
    that kernels of one module share; in `cuda` likewise, with the CUDA C++ in a string.
    """

    name: str
    source: str
    language: Backend = "cpp"
    helpers: tuple[str, ...] = ()
    signature: str
    nodes: tuple[str, ...]
    reads: tuple[Ref, ...]
    writes: tuple[Written, ...]
    strided: tuple[Ref, ...] = ()
    spaced: dict[str, str] = Field(
        {}, description="by variable: read as it lies where this holds of it, else from a copy"
    )
    sizes: tuple[Size, ...] = ()
    checks: tuple[Check, ...] = ()
    limits: tuple[Check, ...] = Field(
        (), description="checks of sizes that hold at the traced ones, for whoever takes others"
    )
    complaints: dict[str, str] = Field(
        {}, description="by what it writes: where that is above 0, an IndexError of this sentence"
    )
    note: str = Field("", description="what it computes, in one line, for the reader of the module")
    moved_bytes: int = Field(0, description="each tensor it reads or writes, once")
    programs: int = Field(
        0, description="on a GPU: so many share the work at the traced sizes; 0 for enough of them"
    )
    operations: int = Field(0, description="scalar operations, a transcendental function as many")
    flops: int = Field(0, description="multiply-adds of matrix products and the like, as two each")
    efficiency: float = Field(0.7, description="of the peak, that those multiply-adds reach")
    arithmetic: str = Field(
        "", description="of its products where tensor cores do them, as in tf32x3: three in TF32"
    )


class Precautions(Frozen):
    """What a module is made with after a rejection, to rule out one suspect; each costs speed."""

    plain_math: bool = Field(False, description="IEEE arithmetic, and no vector libm")
    one_thread: bool = Field(False, description="kernels run on the thread that calls them")
    traced_shapes: bool = Field(False, description="inputs of other shapes are refused")
    dense_inputs: bool = Field(False, description="inputs are copied unless dense and aligned")
    fresh_outputs: bool = Field(False, description="what is returned is a dense copy")


class Program(Frozen):
    """The op at some stage of being made fast.

    `graph` may have been rewritten; calls that no kernel computes go to the library.
    `reference_source` is the module in which `Model` stands: the emitted module takes its
    constructor from there. `backend` is the language of new kernels. `huge_pages` puts large
    outputs of kernels on huge pages. `precautions` are the debugger's. `labels` state what a reader
    must know; `steps` say what was done, newest last.
    """

    graph: OpGraph
    reference_source: str
    backend: Backend = "cpp"
    kernels: tuple[Kernel, ...] = ()
    huge_pages: bool = False
    precautions: Precautions = Precautions()
    labels: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @staticmethod
    def of(graph: OpGraph, reference_source: str, backend: Backend = "cpp") -> "Program":
        """The op as it is given: every call goes to the library."""
        return Program(graph=graph, reference_source=reference_source, backend=backend)

    def changed(self, **fields: Any) -> "Program":
        """This program with some fields changed, each checked anew."""
        kept = {name: getattr(self, name) for name in type(self).model_fields}
        return Program(**{**kept, **fields})

    @cached_property
    def kernel_of(self) -> dict[str, Kernel]:
        """For each call that a kernel computes, that kernel."""
        return {name: kernel for kernel in self.kernels for name in kernel.nodes}

    def can_take(self, nodes: Iterable[str], reads: Iterable[Ref]) -> bool:
        """Whether a kernel may compute these calls from these values.

        Not where another computes one of the calls, or keeps one of the values to itself.
        """
        makers = self.kernel_of
        made = [(ref, makers[ref.ref]) for ref in reads if ref.ref in makers]
        return makers.keys().isdisjoint(nodes) and all(
            any(written.ref == ref for written in kernel.writes) for ref, kernel in made
        )

    def runs_as_one(self, names: Iterable[str]) -> bool:
        """Whether calls can run together: none but them must run between two of them."""
        makers = self.kernel_of

        def unit(name: str) -> tuple[str, ...]:
            return makers[name].nodes if name in makers else (name,)

        return not comes_back(self.graph, set(names), unit, self.spans)

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Where the calls of each kernel begin and end."""
        return sorted(span_of(self.graph, kernel.nodes) for kernel in self.kernels if kernel.nodes)

    @cached_property
    def library_calls(self) -> tuple[Node, ...]:
        """The calls that no kernel computes, in execution order."""
        return tuple(node for node in self.graph.calls if node.name not in self.kernel_of)

    def schedule(self) -> Iterator[Node | Kernel]:
        """Library calls and kernels in an order in which everything is computed before it is read.

        Raises:
            ValueError: a kernel needs a value that depends on what it computes itself.
        """
        units = self._units()
        makes = [_makes(unit) for unit in units]
        maker = {name: number for number, names in enumerate(makes) for name in names}
        given = {node.name for node in self.graph.nodes if node.kind != "call"}
        missing = [_needs(unit) - given for unit in units]
        readers: list[list[int]] = [[] for _ in units]
        for number, names in enumerate(missing):
            for made_by in {maker[name] for name in names if name in maker}:
                readers[made_by].append(number)
        ready = [number for number, names in enumerate(missing) if not names]
        left = len(units)
        while ready:
            first = heappop(ready)
            left -= 1
            yield units[first]
            for number in readers[first]:
                missing[number] -= makes[first]
                if not missing[number]:
                    heappush(ready, number)
        if left:
            raise ValueError("the kernels of the program wait for each other")

    def _units(self) -> list[Node | Kernel]:
        """Library calls and kernels, once each, in the order in which the graph calls them."""
        found: dict[int, Node | Kernel] = {}
        for node in self.graph.calls:
            unit = self.kernel_of.get(node.name, node)
            # By identity: comparing kernels field by field takes longer than all the rest.
            found.setdefault(id(unit), unit)
        return list(found.values())


def _makes(unit: Node | Kernel) -> set[str]:
    return {unit.name} if isinstance(unit, Node) else set(unit.nodes)


def _needs(unit: Node | Kernel) -> set[str]:
    refs = unit.refs if isinstance(unit, Node) else unit.reads
    return {ref.ref for ref in refs}


def span_of(graph: OpGraph, names: Iterable[str]) -> tuple[int, int]:
    """The first and the last position of some calls."""
    positions = [graph.position[name] for name in names]
    return min(positions), max(positions)


def comes_back(
    graph: OpGraph,
    names: set[str],
    unit: Callable[[str], tuple[str, ...]],
    spans: Iterable[tuple[int, int]],
) -> bool:
    """Whether something else must run after some of these calls and before others of them.

    It looks no further than these calls reach, and what runs together with something on the way.

    Args:
        graph: whose calls they are.
        names: calls that are to run together.
        unit: the calls that run together with another one.
        spans: where such units begin and end, in ascending order.
    """
    last = max(graph.position[name] for name in names)
    for first, end in spans:
        if first <= last:
            last = max(last, end)
    seen, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        for user in graph.users[name]:
            if user.name in names:
                if name not in names:
                    return True
            elif user.name not in seen and graph.position[user.name] <= last:
                together = unit(user.name)
                seen.update(together)
                waiting += together
    return False


def variable(ref: Ref) -> str:
    """The Python variable that holds a value: a node's name, and which of several results."""
    return ref.ref if ref.index is None else f"{ref.ref}_{ref.index}"

"""What a program should cost here, from bytes, operations and page faults: behind all proposals."""

from dataclasses import dataclass
from math import prod

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.program import Kernel, Program

# glibc gives blocks of this size and more back to the system, so that every new one is faulted in
# page by page; smaller ones are recycled from the heap.
RETURNED_FROM = 32 << 20
PAGE = 4096
CALL_MS = 0.005
# An inline exp takes 0.17 ns on a core that does 75 GFLOP/s: 13 operations of the peak, where a
# kernel counts 16.
SCALAR_SHARE = 0.8

_VIEWS = (
    "view", "t.", "transpose", "permute", "unsqueeze", "squeeze", "expand", "alias", "detach",
    "reshape", "slice", "select", "flatten", "chunk", "split", "broadcast_tensors", "unflatten",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The measured figures that costs are reckoned with."""

    bandwidth_gbps: float
    peak_gflops: float
    fault_us: float
    huge_pages: bool


@dataclass(frozen=True)
class Cost:
    """Bytes moved, operations done, bytes freshly allocated from the system, and calls made."""

    moved: int = 0
    flops: int = 0
    scalars: int = 0
    fresh: int = 0
    calls: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.moved + other.moved, self.flops + other.flops, self.scalars + other.scalars,
            self.fresh + other.fresh, self.calls + other.calls,
        )  # fmt: skip

    def milliseconds(self, machine: Machine) -> float:
        """The larger of traffic and arithmetic, plus page faults and the calls themselves."""
        traffic = self.moved / (machine.bandwidth_gbps * 1e6)
        arithmetic = self.flops / (machine.peak_gflops * 1e6)
        arithmetic += self.scalars / (machine.peak_gflops * SCALAR_SHARE * 1e6)
        faults = 0.0 if machine.huge_pages else self.fresh / PAGE * machine.fault_us / 1e3
        return max(traffic, arithmetic) + faults + self.calls * CALL_MS


def specs_of(node: Node) -> tuple[TensorSpec, ...]:
    """The tensors that a call makes."""
    made = node.result if isinstance(node.result, tuple) else (node.result,)
    return tuple(spec for spec in made if spec is not None)


def read_bytes(graph: OpGraph, refs: tuple[Ref, ...]) -> int:
    """Bytes of the tensors behind these references, each once."""
    total = 0
    for ref in dict.fromkeys(refs):
        node = graph.by_name[ref.ref]
        if ref.index is not None or isinstance(node.result, TensorSpec):
            total += graph.spec_of(ref).nbytes
    return total


def matmul_flops(graph: OpGraph, node: Node) -> int:
    """Multiply-adds, counted as two, of matrix products and convolutions; 0 for other calls."""
    name = node.target.split(".")[1] if node.target.count(".") == 2 else node.target
    refs = node.refs
    if (
        name in ("mm", "matmul", "bmm", "addmm", "baddbmm", "linear", "mv", "addmv", "dot")
        and len(refs) > 1
    ):
        first = refs[1] if name.startswith(("addm", "badd")) else refs[0]
        return (
            2
            * sum(spec.numel for spec in specs_of(node))
            * (graph.spec_of(first).shape or (1,))[-1]
        )
    if name.startswith("conv") and len(refs) > 1:
        weight = graph.spec_of(refs[1]).shape
        made = specs_of(node)[0] if "transpose" not in name else graph.spec_of(refs[0])
        return 2 * made.numel * prod(weight[1:])
    return 0


def call_cost(graph: OpGraph, node: Node) -> Cost:
    """One call as the library does it: everything it reads and makes goes through memory."""
    name = node.target.removeprefix("aten.")
    if name.startswith(_VIEWS):
        return Cost(calls=1)
    made = specs_of(node)
    written = sum(spec.nbytes for spec in made)
    fresh = sum(spec.nbytes for spec in made if spec.nbytes >= RETURNED_FROM)
    flops = matmul_flops(graph, node)
    return Cost(read_bytes(graph, node.refs) + written, flops, 0, fresh, 1)


def kernel_cost(kernel: Kernel, huge_pages: bool) -> Cost:
    """One kernel of our own: each operand once, each result once."""
    fresh = sum(w.spec.nbytes for w in kernel.writes if w.spec.nbytes >= RETURNED_FROM)
    return Cost(
        kernel.moved_bytes, 0, kernel.operations, 0 if huge_pages else fresh, 1 + len(kernel.checks)
    )


def program_cost(program: Program) -> list[Cost]:
    """The cost of every library call and kernel."""
    calls = [call_cost(program.graph, node) for node in program.library_calls]
    return calls + [kernel_cost(kernel, program.huge_pages) for kernel in program.kernels]


def program_ms(program: Program, machine: Machine) -> float:
    """What the program should take: its calls and kernels one after the other."""
    return sum(cost.milliseconds(machine) for cost in program_cost(program))


def moved_mb(program: Program) -> float:
    """Megabytes that go through memory."""
    return sum(cost.moved for cost in program_cost(program)) / 1e6

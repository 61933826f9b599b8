"""What a program should cost here, from bytes, operations and page faults: behind all proposals."""

from dataclasses import dataclass, field, replace
from math import prod

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec, line_of
from knowledge.pattern import Situation
from knowledge.program import Kernel, Program

# glibc gives blocks of this size and more back to the system, so that every new one is faulted in
# page by page; smaller ones are recycled from the heap.
RETURNED_FROM = 32 << 20
PAGE = 4096
CALL_MS = 0.005
# What Triton does for a launch in Python takes about so many of the library's calls.
LAUNCH_CALLS = 4
# So many programs a multiprocessor keep enough loads under way to reach its share of the bandwidth.
LEAST_PROGRAMS = 2
# A step of a recurrent net is about so many of the library's calls, one waiting for the other.
STEP_CALLS = 8
# A unit of an LSTM takes five exponentials and quotients a step: in operations of the peak.
UNIT_OPERATIONS = {"lstm": 160, "gru": 100, "rnn_tanh": 30, "rnn_relu": 4}
# Of the peak, in the products of a step: with rows enough to reuse each weight, and with fewer.
NET_EFFICIENCY, FEW_ROWS_EFFICIENCY = 0.9, 0.45
FEW_ROWS = 6
# An inline exp takes 0.17 ns on a core that does 75 GFLOP/s: 13 operations of the peak, where a
# kernel counts 16.
SCALAR_SHARE = 0.8
# Estimates are no better than this.
CLEARLY = 1.25

_VIEWS = (
    "view", "t.", "transpose", "permute", "unsqueeze", "squeeze", "expand", "alias", "detach",
    "reshape", "slice", "select", "flatten", "chunk", "split", "broadcast_tensors", "unflatten",
)  # fmt: skip
PRODUCTS = ("mm", "matmul", "bmm", "addmm", "baddbmm", "linear", "mv", "addmv", "dot")
_LOOKUPS = ("embedding.", "index.", "index_select", "gather", "take_along_dim")


@dataclass(frozen=True)
class Machine:
    """The measured figures that costs are reckoned with."""

    bandwidth_gbps: float
    peak_gflops: float
    fault_us: float
    huge_pages: bool
    call_ms: dict[str, float] = field(default_factory=dict)
    tensor_gflops: dict[str, float] = field(default_factory=dict)
    product_share: float = 1.0
    multiprocessors: int = 0

    @staticmethod
    def of(situation: Situation) -> "Machine":
        """The figures that were measured in a situation."""
        return Machine(
            situation.bandwidth_gbps, situation.peak_gflops, situation.fault_us,
            situation.huge_pages, situation.call_ms, situation.tensor_gflops,
            situation.product_share, situation.cores if situation.language != "cpp" else 0,
        )  # fmt: skip

    def shared_by(self, programs: int) -> "Machine":
        """What so few programs can reach of it; all of it where their number is 0, or on a CPU."""
        if not (programs and self.multiprocessors):
            return self
        busy = min(1.0, programs / self.multiprocessors)
        loading = min(1.0, programs / (LEAST_PROGRAMS * self.multiprocessors))
        return replace(
            self, bandwidth_gbps=self.bandwidth_gbps * loading, peak_gflops=self.peak_gflops * busy
        )

    def gflops(self, arithmetic: str) -> float:
        """The peak of multiply-adds in an arithmetic such as bf16, or tf32x3: in three passes.

        Where nothing is known of tensor cores, it is the peak that torch.mm reaches.
        """
        kind, _, passes = arithmetic.partition("x")
        tensor = self.tensor_gflops.get(kind, 0.0) / int(passes or 1)
        return tensor or self.peak_gflops


@dataclass(frozen=True)
class Cost:
    """Bytes moved, operations done, bytes freshly allocated from the system, and calls made.

    `fresh` bytes lie on small pages, `zeroed` ones on huge pages: few faults, each of which clears
    2 MiB.
    """

    moved: int = 0
    flops: int = 0
    scalars: int = 0
    fresh: int = 0
    calls: int = 0
    zeroed: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.moved + other.moved, self.flops + other.flops, self.scalars + other.scalars,
            self.fresh + other.fresh, self.calls + other.calls, self.zeroed + other.zeroed,
        )  # fmt: skip

    def milliseconds(self, machine: Machine) -> float:
        """The larger of traffic and arithmetic, plus page faults and the calls themselves.

        Pages are cleared at the speed of memory.
        """
        traffic = self.moved / (machine.bandwidth_gbps * 1e6)
        arithmetic = self.flops / (machine.peak_gflops * 1e6)
        arithmetic += self.scalars / (machine.peak_gflops * SCALAR_SHARE * 1e6)
        zeroed = self.zeroed + (self.fresh if machine.huge_pages else 0)
        faults = zeroed / (machine.bandwidth_gbps * 1e6)
        faults += 0.0 if machine.huge_pages else self.fresh / PAGE * machine.fault_us / 1e3
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


def _operator(node: Node) -> str:
    """The operator's name, without its library and overload."""
    return node.target.split(".")[1] if node.target.count(".") == 2 else node.target


def matmul_flops(graph: OpGraph, node: Node) -> int:
    """Multiply-adds, counted as two, of matrix products and convolutions; 0 for other calls."""
    name = _operator(node)
    refs = node.refs
    if name in (*PRODUCTS, "_linear_pointwise") and len(refs) > 1:
        first = refs[1] if name.startswith(("addm", "badd")) else refs[0]
        return (
            2
            * sum(spec.numel for spec in specs_of(node))
            * (graph.spec_of(first).shape or (1,))[-1]
        )
    if (net := _net_of(graph, node)) is not None:
        return 2 * net.times * net.rows * sum(prod(shape) for shape in net.matrices)
    if name.startswith("conv") and len(refs) > 1:
        weight = graph.spec_of(refs[1]).shape
        made = specs_of(node)[0] if "transpose" not in name else graph.spec_of(refs[0])
        return 2 * made.numel * prod(weight[1:])
    return 0


@dataclass(frozen=True)
class _Net:
    """A recurrent net of the library, or one step of it.

    `steps` wait for each other, each with so many `rows`; over all layers, `matrices` are those of
    the input and of the state in turn, by which the rows of `times` steps are multiplied.
    """

    cell: str
    steps: int
    times: int
    rows: int
    matrices: tuple[tuple[int, ...], ...]

    @property
    def operations(self) -> int:
        """Those of its gates' functions."""
        units = sum(shape[1] for shape in self.matrices[1::2])
        return UNIT_OPERATIONS[self.cell] * units * self.rows * self.times


def _net_of(graph: OpGraph, node: Node) -> _Net | None:
    """The recurrent net that a call is, None for any other."""
    parts = node.target.split(".")
    cell = parts[1].removesuffix("_cell") if len(parts) == 3 else ""
    if cell not in UNIT_OPERATIONS:
        return None
    x = graph.spec_of(node.refs[0]).shape
    if parts[1] == cell:
        given = node.args[2]
        if parts[2] != "input" or not isinstance(given, list):
            return None
        weights: tuple[object, ...] = (*given,)
        times, rows = (x[1], x[0]) if node.args[8] else (x[0], x[1])
    else:
        weights, times, rows = node.args[2:4], 1, x[0]
    shapes = (graph.spec_of(one).shape for one in weights if isinstance(one, Ref))
    matrices = tuple(shape for shape in shapes if len(shape) == 2)
    return _Net(cell, times * (len(matrices) // 2), times, rows, matrices)


def net_efficiency(rows: int) -> float:
    """The share of the peak that products of so many rows a step reach, in any recurrent net."""
    return NET_EFFICIENCY if rows >= FEW_ROWS else FEW_ROWS_EFFICIENCY


# What the library does element by element, in operations of the peak: it pools one window, and adds
# up one prefix, at a time, and does not make vector code of it.
_POOLED, _SCANNED = 60, 60
_SCANS = {"cumsum": 1, "cumprod": 1, "cummax": 4, "cummin": 4, "logcumsumexp": 8}
_NORMALISED = 8


def scalar_work(graph: OpGraph, node: Node) -> int:
    """Operations of the library where it is bound by arithmetic rather than by traffic."""
    name = _operator(node)
    made = specs_of(node)
    if (net := _net_of(graph, node)) is not None:
        return net.operations
    if name in _SCANS and made:
        return made[0].numel * _SCANNED * _SCANS[name]
    if "batch_norm" in name and made:
        return made[0].numel * _NORMALISED
    if "_pool" not in name or not made or not node.refs:
        return 0
    source = graph.spec_of(node.refs[0])
    if name.startswith("adaptive"):
        return max(source.numel, made[0].numel) * _POOLED // 2
    window = node.args[1] if len(node.args) > 1 else 1
    each = [one for one in window if isinstance(one, int)] if isinstance(window, list) else [window]
    dims = next(n for n in (1, 2, 3) if f"{n}d" in name)
    elements = prod(int(one) for one in each if isinstance(one, int))
    elements = elements**dims if len(each) == 1 else elements
    return made[0].numel * elements * _POOLED


def call_cost(graph: OpGraph, node: Node) -> Cost:
    """One call as the library does it: everything it reads and makes goes through memory."""
    name = node.target.removeprefix("aten.")
    if name.startswith(_VIEWS):
        return Cost(calls=1)
    made = specs_of(node)
    written = sum(spec.nbytes for spec in made)
    fresh = sum(spec.nbytes for spec in made if spec.nbytes >= RETURNED_FROM)
    flops = matmul_flops(graph, node)
    read = read_bytes(graph, node.refs)
    if name.startswith(_LOOKUPS) and node.refs:
        # Of the table no more than what is looked up.
        table = read_bytes(graph, node.refs[:1])
        read += min(table, written) - table
    net = _net_of(graph, node)
    calls = 1
    if net is not None:
        calls += STEP_CALLS * net.steps
        flops = round(flops / net_efficiency(net.rows))
    return Cost(read + written, flops, scalar_work(graph, node), fresh, calls)


def kernel_cost(kernel: Kernel, huge_pages: bool) -> Cost:
    """One kernel of our own: each operand once, each result once."""
    fresh = sum(w.spec.nbytes for w in kernel.writes if w.spec.nbytes >= RETURNED_FROM)
    calls = LAUNCH_CALLS if kernel.language == "triton" else 1
    return Cost(
        kernel.moved_bytes, round(kernel.flops / kernel.efficiency), kernel.operations,
        0 if huge_pages else fresh, calls, fresh if huge_pages else 0,
    )  # fmt: skip


def program_cost(program: Program) -> list[Cost]:
    """The cost of every library call and kernel."""
    calls = [call_cost(program.graph, node) for node in program.library_calls]
    return calls + [kernel_cost(kernel, program.huge_pages) for kernel in program.kernels]


def program_ms(program: Program, machine: Machine) -> float:
    """What the program should take: its calls and kernels one after the other.

    A call that was measured counts with its time, any other with what its bytes and operations say.
    """
    total = sum(kernel_ms(kernel, program.huge_pages, machine) for kernel in program.kernels)
    return total + sum(library_ms(program.graph, node, machine) for node in program.library_calls)


def kernel_ms(kernel: Kernel, huge_pages: bool, machine: Machine) -> float:
    """One kernel of our own, its products in the arithmetic that it does them in."""
    cost = kernel_cost(kernel, huge_pages)
    cost = _in_arithmetic(cost, kernel.arithmetic, machine)
    return cost.milliseconds(machine.shared_by(kernel.programs))


def _in_arithmetic(cost: Cost, arithmetic: str, machine: Machine) -> Cost:
    """Multiply-adds as so many of the peak's."""
    if not arithmetic:
        return cost
    return replace(cost, flops=round(cost.flops * machine.peak_gflops / machine.gflops(arithmetic)))


HALVES = {"float16": "fp16", "bfloat16": "bf16"}


def library_ms(graph: OpGraph, node: Node, machine: Machine) -> float:
    """One call as the library does it: measured, or else by its bytes and operations.

    Products of halves are done by tensor cores, where there are some.
    """
    measured = machine.call_ms.get(line_of(node)) if machine.call_ms else None
    if measured is not None:
        return measured
    dtype = specs_of(node)[0].dtype if specs_of(node) else ""
    cost = _in_arithmetic(call_cost(graph, node), HALVES.get(dtype, ""), machine)
    if dtype == "float32" and _operator(node) in PRODUCTS:
        cost = replace(cost, flops=round(cost.flops / machine.product_share))
    return cost.milliseconds(machine.shared_by(_blocks(graph, node)))


def _blocks(graph: OpGraph, node: Node) -> int:
    """How many blocks share a call on a GPU, where the library gives each row to one; else 0.

    It splits the rows of sums and maxima.
    """
    name, spec = _operator(node), graph.spec_of(node.refs[0]) if node.refs else None
    given = node.args[1] if len(node.args) > 1 else None
    if spec is None or not spec.numel:
        return 0
    if name in ("softmax", "log_softmax", "_softmax", "_log_softmax") and isinstance(given, int):
        return spec.numel // (spec.shape or (1,))[given]
    if name == "layer_norm" and isinstance(given, list):
        return spec.numel // prod(spec.shape[-len(given) :])
    if name == "group_norm" and isinstance(given, int):
        return spec.shape[0] * given
    return 0


def gains(program: Program, kernel: Kernel, anchors: tuple[str, ...], machine: Machine) -> bool:
    """Whether a kernel should beat the library's calls of its anchors and one loop for the rest.

    The rest, what the kernel does besides, would else be fused into a loop of its own.
    """
    graph = program.graph
    instead = sum(library_ms(graph, graph.by_name[name], machine) for name in anchors)
    if set(kernel.nodes) - set(anchors):
        result = Ref(ref=anchors[-1])
        inside = {ref for name in anchors for ref in graph.by_name[name].refs}
        extra = tuple(ref for ref in kernel.reads if ref not in inside)
        moved = read_bytes(graph, (result, *extra))
        moved += sum(written.spec.nbytes for written in kernel.writes)
        instead += Cost(moved, 0, kernel.operations, 0, 1).milliseconds(machine)
    return kernel_ms(kernel, program.huge_pages, machine) < instead


def loses(program: Program, kernel: Kernel, machine: Machine) -> bool:
    """Whether a kernel should take clearly longer than the library's calls in its place."""
    instead = sum(
        library_ms(program.graph, program.graph.by_name[n], machine) for n in kernel.nodes
    )
    return kernel_ms(kernel, program.huge_pages, machine) > CLEARLY * instead


def only_of(gaining: list[str], found: list[str]) -> str:
    """The parameter `only`: the anchors that gain; empty for all of them, or where none would."""
    return ",".join(gaining) if 0 < len(gaining) < len(found) else ""


def moved_mb(program: Program) -> float:
    """Megabytes that go through memory."""
    return sum(cost.moved for cost in program_cost(program)) / 1e6


def compared(program: Program, after: Program, situation: Situation) -> tuple[float, str]:
    """How many times faster a changed program should be, and the arithmetic behind it."""
    machine = Machine.of(situation)
    before, left = program_ms(program, machine), program_ms(after, machine)
    arithmetic = (
        f"Call by call {moved_mb(program):.1f} MB and {before:.3f} ms; then {moved_mb(after):.1f} "
        f"MB and {left:.3f} ms by bytes, operations and faults: {before / left:.2f}x."
    )
    return before / left, arithmetic

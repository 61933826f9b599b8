"""What a module with Triton kernels needs besides them: imports, shared definitions, devices."""

from knowledge.opgraph import OpGraph, Ref
from knowledge.program import Kernel, Program
from knowledge.reference_source import Unemittable

NAMES = ("triton", "tl", "libdevice", "_on_device")

# By the constant's identity, as modules of several parts may give the constants other names.
CONSTANTS = '''
_ON_DEVICES = {}


def _on_device(constant, device):
    """A constant of this module on a device, to which it is copied at the first call alone."""
    key = (id(constant), device)
    if key not in _ON_DEVICES:
        _ON_DEVICES[key] = constant.to(device)
    return _ON_DEVICES[key]
'''


def imports(text: str) -> list[str]:
    """The imports that the text of Triton kernels needs; none where it holds no kernel."""
    lines = []
    if "@triton.jit" in text or "triton." in text:
        lines += ["import triton", "import triton.language as tl"]
    if "libdevice." in text:
        lines.append("from triton.language.extra import libdevice")
    return lines


def shared(program: Program) -> list[str]:
    """The definitions that its kernels share, once each."""
    return list(dict.fromkeys(text for kernel in program.kernels for text in kernel.helpers))


def entering(graph: OpGraph) -> Ref | None:
    """The tensor that says on which device a program runs: an input, else what the module holds."""
    nodes = [*graph.inputs, *(n for n in graph.nodes if n.kind in ("parameter", "buffer"))]
    return Ref(ref=nodes[0].name) if nodes else None


def device_of(graph: OpGraph, kernel: Kernel) -> Ref:
    """The tensor on whose device a kernel runs: one that it reads, else the first to enter.

    Raises:
        Unemittable: nothing enters the graph that has a device.
    """
    read = [ref for ref in kernel.reads if graph.by_name[ref.ref].kind != "constant"]
    found = read[0] if read else entering(graph)
    if found is None:
        raise Unemittable("no tensor says on which device the kernel runs")
    return found

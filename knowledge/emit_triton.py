"""What a module with Triton kernels needs besides them: imports, shared definitions, devices."""

from knowledge.opgraph import OpGraph, Ref
from knowledge.program import Kernel, Program
from knowledge.reference_source import Unemittable

NAMES = ("triton", "tl", "libdevice")


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


def device_of(graph: OpGraph, kernel: Kernel) -> Ref:
    """The tensor on whose device a kernel runs: one that it reads, else the first to enter.

    Raises:
        Unemittable: nothing enters the graph that has a device.
    """
    entered = [node.name for node in graph.nodes if node.kind in ("input", "parameter", "buffer")]
    refs = [ref for ref in kernel.reads if graph.by_name[ref.ref].kind != "constant"]
    refs += [Ref(ref=name) for name in entered]
    if not refs:
        raise Unemittable("no tensor says on which device the kernel runs")
    return refs[0]

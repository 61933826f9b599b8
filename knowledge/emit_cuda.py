"""Prints a loop's CUDA C++ as Python: the source as a string, its kernels, and their launches."""

from dataclasses import replace

from knowledge.loops.cuda import Cuda, Launch, Path, wrapped
from knowledge.loops.spelling import indented

LOADER = "from tools.backends.cuda.loader import cuda_kernel"
NAMES = ("cuda_kernel",)
WIDTH = 96


def module_text(cuda: Cuda, name: str, note: str) -> str:
    """Definitions for a module that has torch and `cuda_kernel`.

    The last one is `_name`, a function of the tensors that are read, those that are written, and
    the sizes; scratch memory comes from torch's allocator, on the device of the first tensor.
    """
    first = next(a for a in cuda.arguments)
    lines = [f'_{name}_source = r"""', *cuda.source.strip("\n").splitlines(), '"""']
    for one in dict.fromkeys(launch for path in cuda.paths for launch in path.launches):
        given = [f"_{name}_source", f'"{one.function}"', f'"{one.signature}"']
        lines += _call(f"_{one.function} = cuda_kernel", given, "")
    body = [f'"""{note}."""']
    same = len({path.setup for path in cuda.paths}) == 1
    if same:
        body += [f"{name} = {meaning}" for name, meaning in cuda.paths[0].setup]
    for position, path in enumerate(cuda.paths):
        own = _path_lines(replace(path, setup=()) if same else path, first)
        if path.condition:
            body += [f"{'el' if position else ''}if {path.condition}:", *indented(own)]
        elif position:
            body += ["else:", *indented(own)]
        else:
            body += own
    lines += ["", "", *_call(f"def _{name}", list(cuda.arguments), ":"), *indented(body)]
    return "\n".join(lines) + "\n"


def _path_lines(path: Path, first: str) -> list[str]:
    lines = [f"{name} = {meaning}" for name, meaning in path.setup]
    for scratch in path.scratch:
        lines.append(
            f"{scratch.name} = torch.empty("
            f"{scratch.elements}, dtype=torch.{scratch.dtype}, device={first}.device)"
        )
    for launch in path.launches:
        lines += _launch_lines(launch)
    return lines


def _launch_lines(launch: Launch) -> list[str]:
    grid, block = f"({', '.join(launch.grid)})", f"({launch.block[0]}, {launch.block[1]})"
    shared = [f"shared={launch.shared}"] if launch.shared else []
    return _call(f"_{launch.function}", [grid, block, *launch.arguments, *shared], "")


def _call(head: str, arguments: list[str], end: str) -> list[str]:
    """A call or a definition's head, over several lines where one is too short."""
    line = f"{head}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{head}(", *indented(wrapped(arguments)), f"){end}"]

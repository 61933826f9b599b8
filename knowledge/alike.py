"""Which kernels differ in names alone, as those of a net's repeated blocks do.

Pointers are named after the tensors that they point to, for the reader. A kernel that is another
one with the tensors of another block need not be printed, nor compiled, a second time.
"""

import re
from collections.abc import Iterable

from knowledge.program import Kernel, variable

_TOKEN = re.compile(r"[A-Za-z_]\w*|[0-9][\w.]*|::|->|\S")


class Alike:
    """Finds for each kernel the first that it is alike."""

    def __init__(self) -> None:
        self._seen: dict[tuple[object, ...], list[_Read]] = {}
        self._printed: dict[tuple[str, str], Kernel] = {}

    def first(self, kernel: Kernel) -> Kernel:
        """An earlier kernel that can be called in its place, or itself.

        What is not C++ may have no other name than the kernel's own.
        """
        if kernel.language != "cpp":
            like = (kernel.source.replace(kernel.name, "@"), kernel.signature)
            return self._printed.setdefault(like, kernel)
        read = _Read(kernel)
        group = self._seen.setdefault(read.skeleton, [])
        for other in group:
            if other.matches(read):
                return other.kernel
        group.append(read)
        return kernel


class _Read:
    """A kernel's C++ in tokens, and the names that are its own."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tokens = _TOKEN.findall(kernel.source)
        tensors = [*kernel.reads, *(written.ref for written in kernel.writes)]
        self.names = [kernel.name, *kernel.nodes, *(variable(ref) for ref in tensors)]
        rest = tuple(one for one in self.tokens if not one[0].isidentifier())
        self.skeleton: tuple[object, ...] = (kernel.signature, len(self.tokens), hash(rest))

    def matches(self, other: "_Read") -> bool:
        """Whether the other is this one under other names.

        One name for one name in each function, and names of nothing but tensors and the kernel:
        what is called, or looked up in something, has the name that it has.
        """
        if len(self.names) != len(other.names):
            return False
        pairs = list(zip(self.tokens, other.tokens, strict=True))
        there: dict[str, str] = {}
        back: dict[str, str] = {}
        depth = 0
        for at, (one, two) in enumerate(pairs):
            depth += (one == "{") - (one == "}")
            if one == "}" and depth == 0:
                there, back = {}, {}
            if there.setdefault(one, two) != two or back.setdefault(two, one) != one:
                return False
            if one == two:
                continue
            looked_up = at > 0 and pairs[at - 1][0] in ("::", ".", "->")
            called = at + 1 < len(pairs) and pairs[at + 1][0] == "("
            own = (one, two) == (self.names[0], other.names[0])
            if looked_up or (called and not own) or not self._renamed(one, two, other.names):
                return False
        return True

    def _renamed(self, one: str, two: str, names: Iterable[str]) -> bool:
        """Whether two tokens are made from the same tensor's name, as `out_NAME_row` is."""
        for mine, its in zip(self.names, names, strict=True):
            before, found, after = one.partition(mine)
            if found and two == f"{before}{its}{after}":
                return True
        return False

"""Places: where along each dimension a value is read, in step with the loop or at an index."""

from dataclasses import dataclass

from knowledge.loops.form import Builder, Domain, Extent, Refused

# Atoms from here on are dimensions read at an index of their own; they stand in layouts only.
ELSEWHERE = 1 << 16


@dataclass(frozen=True)
class Index:
    """Where along a dimension something is read: `sign` times a value, plus `offset`."""

    value: int
    sign: int = 1
    offset: int = 0


class _Sizes:
    """The sizes of the index space's atoms, and of dimensions that are read elsewhere."""

    def __init__(self, sizes: tuple[int, ...], elsewhere: list[tuple[Extent, Index]]) -> None:
        self._sizes, self._elsewhere = sizes, elsewhere

    def __getitem__(self, atom: int, /) -> int:
        if atom >= ELSEWHERE:
            return self._elsewhere[atom - ELSEWHERE][0].size
        return self._sizes[atom]


class Places:
    """The index space of a loop under construction, and the dimensions that are read elsewhere."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.build = Builder(domain)
        self.elsewhere: list[tuple[Extent, Index]] = []
        self.sizes = _Sizes(domain.sizes, self.elsewhere)

    def index(self, dim: tuple[int, ...], fixed: bool = True) -> Index:
        """The index along a dimension of a layout; `fixed`: only right for the traced size."""
        if len(dim) == 1 and dim[0] >= ELSEWHERE:
            return self.elsewhere[dim[0] - ELSEWHERE][1]
        if any(atom >= ELSEWHERE for atom in dim):
            raise Refused("a dimension is made of several that are read elsewhere")
        if not dim:
            return Index(self.build.constant(0, "int64_t"))
        if fixed:
            self.build.fixed |= set(dim)
        return Index(self.build.position(dim))

    def number(self, index: Index) -> int:
        """An index as a value."""
        value = index.value
        if index.sign < 0:
            value = self.build.op("neg", value)
        if index.offset:
            offset = self.build.constant(index.offset, "int64_t")
            value = self.build.op("add", value, offset)
        return value

    def before(self, index: Index, seam: int) -> int:
        """Whether an index is below a number, as a condition on the position that it follows."""
        if index.sign > 0:
            bound = self.build.constant(seam - index.offset, "int64_t")
            return self.build.op("lt", index.value, bound)
        bound = self.build.constant(index.offset - seam + 1, "int64_t")
        return self.build.op("not", self.build.op("lt", index.value, bound))

    def there(self, extent: Extent, index: Index) -> tuple[int, ...]:
        """A dimension of a layout that is read at an index of its own."""
        if extent.size == 1:
            return ()
        if (extent, index) not in self.elsewhere:
            self.elsewhere.append((extent, index))
        return (ELSEWHERE + self.elsewhere.index((extent, index)),)

    def chosen(self, condition: int, yes: int, no: int) -> int:
        """One of two values."""
        if yes == no:
            return yes
        if self.build.values[condition].op == "not":
            return self.chosen(self.build.values[condition].args[0], no, yes)
        return self.build.op("where", condition, yes, no)

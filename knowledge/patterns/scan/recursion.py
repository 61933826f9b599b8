"""A loop over time whose steps are linear in the one before, or extremes, as one kernel.

Neighbours in memory go side by side in lanes, each with its state in a register or in cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from knowledge.loops.mathematics import helpers
from knowledge.loops.spelling import STORAGE, loaded, stored
from knowledge.opgraph import OpGraph, Ref
from knowledge.patterns.algebra.edit import producer
from knowledge.patterns.algebra.parts import Part, common_source, gathering_of
from knowledge.patterns.algebra.recursions import Recursion, Term, recursion_of
from knowledge.patterns.scan.chain import FLOATS
from knowledge.patterns.scan.problem import product_text
from knowledge.program import Check, Kernel, Program, Size, Written, variable

# What a step takes for each element besides its bytes: it waits for the step before.
OPERATIONS = 8
_VIEWS = (
    "select", "slice", "unbind", "squeeze", "unsqueeze", "narrow", "split", "chunk", "view"
)  # fmt: skip
_SOURCE = """#include <cmath>
#include <cstdint>
#include <cstring>
{helpers}
typedef {element} element;
typedef {wide} wide;
constexpr int64_t STRIP = 256, STEPS = {steps}, LENGTH = {length};
static inline element rounded(wide x) {{ return {stored}; }}

// Some lanes through all steps; TOGETHER where they are neighbours in every tensor.
template <bool TOGETHER>
static void run(
        {parameters}, int64_t first, int64_t lanes) {{
    wide state[STRIP];
    int64_t {places};
    for (int64_t lane = 0; lane < lanes; ++lane) {{
        const int64_t e = first + lane;
{starts}
        state[lane] = {start};{keep}
    }}
    for (int64_t step = 0; step < STEPS; ++step) {{
#pragma omp simd
        for (int64_t lane = 0; lane < lanes; ++lane) {{
            const int64_t e = first + lane;
            const wide h = state[lane];
{values}
            state[lane] = {next};
            result[(TOGETHER ? result_at[0] + lane : result_at[lane]) + ({place}) * inner] =
                rounded(state[lane]);
        }}
    }}{last}
}}

extern "C" void {name}(
        {parameters}) {{
    const int64_t strips = (elements + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) if (elements * STEPS > 16384)
    for (int64_t strip = 0; strip < strips; ++strip) {{
        const int64_t first = strip * STRIP;
        const int64_t lanes = elements - first < STRIP ? elements - first : STRIP;
        const int64_t end = first + lanes - 1;
        if ({together})
            run<true>({arguments}, first, lanes);
        else
            run<false>({arguments}, first, lanes);
    }}
}}
"""


@dataclass(frozen=True)
class _Read:
    """A step's factor or addend: a part of a tensor each step, or one tensor at all of them."""

    name: str
    number: float
    ref: Ref
    part: Part | None
    backwards: bool

    def element(self, pointer: str, dtype: str) -> str:
        """The C++ of its element at a step, without the number."""
        if self.part is None:
            return loaded(dtype, f"{pointer}[e]")
        name, sign = self.name, "-" if self.backwards else "+"
        place = f"(TOGETHER ? {name}_at[0] + lane : {name}_at[lane])"
        return loaded(dtype, f"{pointer}[{place} {sign} step * {name}_inner]")


def recursions(program: Program, only: frozenset[str] = frozenset()) -> Iterator[Kernel]:
    """The kernel of each recursion whose calls no kernel computes yet, of `only` if given."""
    for node in program.library_calls:
        if only and node.name not in only:
            continue
        found = recursion_of(program.graph, node)
        made = _kernel(program, found) if found is not None else None
        if made is not None:
            yield made


def _kernel(program: Program, found: Recursion) -> Kernel | None:
    graph = program.graph
    spec = graph.spec_of(found.start)
    read = [_read(graph, found, name) for name in ("factor", "addend")]
    terms = [found.steps[0].factor, found.steps[0].addend]
    if spec.dtype not in FLOATS or spec.numel == 0 or not spec.shape:
        return None
    if any(term.ref is not None and one is None for term, one in zip(terms, read, strict=True)):
        return None
    reads = [one for one in read if one is not None]
    pointers = tuple(dict.fromkeys([found.start, *(one.ref for one in reads)]))
    core = _core(graph, found, reads)
    kept = _kept(graph, core, found) if core is not None else None
    if core is None or kept is None:
        return None
    nodes = _with_views(graph, core, {ref.ref for ref in pointers})
    if not program.can_take(nodes, pointers) or not program.runs_as_one(nodes):
        return None
    start, dim, made = variable(found.start), found.dim, graph.by_name[found.node].spec
    steps = len(found.values)
    shape = f"({start}.shape[:{dim}] + ({steps},) + {start}.shape[{dim}:])"
    writes = [Written(ref=Ref(ref=found.node), shape=shape, spec=made)]
    writes += [Written(ref=ref, shape=f"{start}.shape", spec=spec) for ref in kept]
    sizes = [
        Size(name="elements", expression=f"{start}.numel()"),
        Size(name="inner", expression=product_text(start, range(dim, len(spec.shape)))),
    ]
    checks: list[Check] = []
    for one in reads:
        extra, check = _sizes(graph, one, start)
        sizes += extra
        checks += check
    name = f"{found.node}_recursion"
    return Kernel(
        name=name,
        source=_print(graph, found, reads, pointers, name, bool(kept)),
        signature="p" * (len(pointers) + len(writes)) + "i" * len(sizes),
        nodes=nodes, reads=pointers, writes=tuple(writes), sizes=tuple(sizes),
        checks=tuple(checks), note=f"{len(found.steps)} steps of a {found.steps[0].kind} recursion",
        moved_bytes=sum(graph.spec_of(ref).nbytes for ref in pointers)
        + sum(written.spec.nbytes for written in writes),
        operations=made.numel * OPERATIONS,
    )  # fmt: skip


def _read(graph: OpGraph, found: Recursion, name: str) -> _Read | None:
    """Where the steps read their factors or addends; None where they read none, or anywhere."""
    terms: list[Term] = [getattr(step, name) for step in found.steps]
    refs = [term.ref for term in terms if term.ref is not None]
    if not refs:
        return None
    if len(set(refs)) == 1:
        return _Read(name, terms[0].number, refs[0], None, backwards=False)
    common = common_source(graph, refs)
    if common is None:
        return None
    return _Read(name, terms[0].number, common[0].source, *common)


def _core(graph: OpGraph, found: Recursion, reads: list[_Read]) -> set[str] | None:
    """The calls of the steps themselves, and what lays their values side by side."""
    given = {term.ref for step in found.steps for term in (step.factor, step.addend)}
    given.add(found.start)
    core = {found.node}
    gathering = gathering_of(graph, found.node)
    assert gathering is not None
    laid = graph.by_name[found.node].refs
    core |= {one.ref for one in laid if one not in found.values}
    waiting = [ref for ref in found.values if ref not in given]
    while waiting:
        ref = waiting.pop()
        node = producer(graph, ref)
        if node is None:
            return None
        if node.name not in core:
            core.add(node.name)
            waiting += [one for one in node.refs if one not in given]
    return core


def _kept(graph: OpGraph, core: set[str], found: Recursion) -> list[Ref] | None:
    """The last value, where something else reads it; None where that is so of another one."""
    kept: list[Ref] = []
    returned = {ref.ref for ref in graph.outputs}
    returned |= {text.partition("[")[0] for text in graph.mutations.values()}
    for name in core - {found.node}:
        outside = any(user.name not in core for user in graph.users[name])
        if not outside and name not in returned:
            continue
        if name != found.values[-1].ref or found.values[-1] == found.start:
            return None
        kept.append(found.values[-1])
    return kept


def _with_views(graph: OpGraph, core: set[str], given: set[str]) -> tuple[str, ...]:
    """The calls, and the views before them that nothing else reads, but for what is given."""
    nodes, waiting = set(core), list(core)
    returned = {ref.ref for ref in graph.outputs}
    while waiting:
        for ref in graph.by_name[waiting.pop()].refs:
            node = graph.by_name[ref.ref]
            parts = node.target.split(".")
            if node.name in nodes | given or node.kind != "call" or parts[1:2][0] not in _VIEWS:
                continue
            readers = {user.name for user in graph.users[node.name]}
            if readers <= nodes and node.name not in returned:
                nodes.add(node.name)
                waiting.append(node.name)
    return tuple(sorted(nodes, key=graph.position.__getitem__))


def _sizes(graph: OpGraph, one: _Read, start: str) -> tuple[list[Size], list[Check]]:
    """The sizes by which a tensor is walked, and what its shape must be."""
    name = variable(one.ref)
    sentence = f"{name} does not go with the other tensors of a loop over time"
    if one.part is None:
        return [], [Check(left=f"{name}.shape", right=f"{start}.shape", sentence=sentence)]
    dim, shape = one.part.dim, graph.spec_of(one.ref).shape
    left = f"{name}.shape[:{dim}] + {name}.shape[{dim + 1}:]"
    checks = [
        Check(left=left, right=f"{start}.shape", sentence=sentence),
        Check(left=f"{name}.shape[{dim}]", right=str(shape[dim]), sentence=sentence),
    ]
    sizes = [
        Size(name=f"{one.name}_inner", expression=product_text(name, range(dim + 1, len(shape)))),
        Size(name=f"{one.name}_length", expression=f"{name}.shape[{dim}]"),
    ]
    return sizes, checks


def _print(
    graph: OpGraph, found: Recursion, reads: list[_Read], pointers: tuple[Ref, ...], name: str,
    keeps_last: bool,
) -> str:  # fmt: skip
    dtype = graph.spec_of(found.start).dtype
    pointer = {ref: f"x{at}" for at, ref in enumerate(pointers)}
    moving = [one for one in reads if one.part is not None]
    parameters = [f"const {STORAGE[dtype]}* {one}" for one in pointer.values()]
    parameters += [
        f"{STORAGE[dtype]}* result",
        *([f"{STORAGE[dtype]}* last"] if keeps_last else []),
    ]
    numbers = ["elements", "inner"]
    numbers += [f"{one.name}_{word}" for one in moving for word in ("inner", "length")]
    length, first = len(found.values), int(found.holds_start)
    starts = ["result_at[lane] = e / inner * inner * LENGTH + e % inner;"]
    together = ["first / inner == end / inner"]
    for one in moving:
        assert one.part is not None
        inner = f"{one.name}_inner"
        starts.append(
            f"{one.name}_at[lane] = e / {inner} * {inner} * {one.name}_length + e % {inner} "
            f"+ {one.part.at} * {inner};"
        )
        together.append(f"first / {inner} == end / {inner}")
    begin = f"({length - 1}) * inner" if found.backwards else "0"
    values = [
        f"const wide {one.name} = static_cast<wide>({one.number!r}) * "
        f"static_cast<wide>({one.element(pointer[one.ref], dtype)});"
        for one in reads
    ]
    kept = f"\n        result[result_at[lane] + {begin}] = rounded(state[lane]);"
    place = f"step + {first}" if not found.backwards else f"{length - 1 - first} - step"
    body = _SOURCE.format(
        helpers="@HELPERS@", element=STORAGE[dtype],
        wide="double" if dtype == "float64" else "float",
        steps=len(found.steps), length=length, stored=stored(dtype, "x"),
        parameters=", ".join([*parameters, *(f"int64_t {one}" for one in numbers)]),
        places=", ".join(["result_at[STRIP]", *(f"{one.name}_at[STRIP]" for one in moving)]),
        starts="\n".join(f"        {line}" for line in starts),
        start=f"static_cast<wide>({loaded(dtype, f'{pointer[found.start]}[e]')})",
        keep=kept if first else "",
        values="\n".join(f"            {line}" for line in values),
        next=_next(found, {one.name for one in reads}), place=place,
        last="\n    for (int64_t lane = 0; lane < lanes; ++lane)\n"
        "        last[first + lane] = rounded(state[lane]);" if keeps_last else "",
        name=name, together=" && ".join(together),
        arguments=", ".join(
            [*pointer.values(), "result", *(["last"] if keeps_last else []), *numbers]
        ),
    )  # fmt: skip
    return body.replace("@HELPERS@", helpers(body, inline=True))


def _next(found: Recursion, read: set[str]) -> str:
    """The C++ of the next state."""
    step = found.steps[0]
    if step.kind != "linear":
        sign = ">" if step.kind == "max" else "<"
        return f"(h {sign} addend) | (h != h) ? h : addend"
    factor = "factor" if "factor" in read else f"static_cast<wide>({step.factor.number!r})"
    addend = "addend" if "addend" in read else f"static_cast<wide>({step.addend.number!r})"
    return f"{factor} * h + {addend}"

"""Finds which calls of a graph go together into fused loops: as many as can be lowered as one."""

from dataclasses import dataclass

import knowledge.loops.elementary
import knowledge.loops.lookups
import knowledge.loops.losses
import knowledge.loops.movement
import knowledge.loops.normalisations
import knowledge.loops.padding
import knowledge.loops.pointwise
import knowledge.loops.quotients
import knowledge.loops.reductions  # noqa: F401 - these fill the table of operators
from knowledge.loops.form import Loop
from knowledge.loops.lower import lower
from knowledge.loops.operators import OPERATORS, Operator
from knowledge.opgraph import Node, OpGraph, Ref


@dataclass(frozen=True)
class Island:
    """Calls that one loop computes, in execution order."""

    nodes: tuple[str, ...]
    loop: Loop


@dataclass
class _Search:
    """Islands found so far; `owner` says to which one a call belongs.

    `taken` are the calls that other kernels compute, one group a kernel.
    """

    graph: OpGraph
    islands: list[Island]
    owner: dict[str, Island]
    taken: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        self._kernel = {name: nodes for nodes in self.taken for name in nodes}

    def add(self, names: set[str], replaced: list[Island]) -> Island | str:
        """Make an island of these calls in place of some others, or say why not."""
        nodes = tuple(node for node in self.graph.calls if node.name in names)
        if not self._schedulable(names, replaced):
            return "something between its calls is left to the library"
        loop = lower(self.graph, nodes)
        if isinstance(loop, str):
            return loop
        island = Island(tuple(node.name for node in nodes), loop)
        self.islands = [one for one in self.islands if one not in replaced] + [island]
        self.owner.update(dict.fromkeys(island.nodes, island))
        return island

    def _schedulable(self, names: set[str], replaced: list[Island]) -> bool:
        """Whether all islands can still be run one after the other.

        They could before, so that only a way out of the new one and back into it is in the way.
        """
        last = self._last_way_back(names, replaced)
        seen, waiting = set[str](), list(names)
        while waiting:
            name = waiting.pop()
            for user in self.graph.users[name]:
                if user.name in names:
                    if name not in names:
                        return False
                elif user.name not in seen and self.graph.position[user.name] <= last:
                    unit = self._unit(user.name)
                    seen.update(unit)
                    waiting += unit
        return True

    def _last_way_back(self, names: set[str], replaced: list[Island]) -> int:
        """A position after which no call's result, nor that of its unit, is read by these calls."""
        last = max(self.graph.position[name] for name in names)
        units = [*self.taken, *(one.nodes for one in self.islands if one not in replaced)]
        positions = [[self.graph.position[name] for name in nodes] for nodes in units]
        for first, end in sorted((min(ends), max(ends)) for ends in positions if ends):
            if first <= last:
                last = max(last, end)
        return last

    def _unit(self, name: str) -> tuple[str, ...]:
        """The calls that run together with one outside of the new island."""
        island = self.owner.get(name)
        return island.nodes if island is not None else self._kernel.get(name, (name,))


def find_islands(
    graph: OpGraph,
    taken: tuple[tuple[str, ...], ...] = (),
    among: frozenset[str] | None = None,
) -> tuple[tuple[Island, ...], dict[str, str]]:
    """The islands of a graph, and for each call that is in none, why.

    `taken` are calls that other kernels compute already, a group each; of the others, those in
    `among` are looked at, or all.
    """
    search = _Search(graph, [], {}, taken)
    refused: dict[str, str] = {}
    busy = {name for nodes in taken for name in nodes}
    for node in graph.calls:
        if node.name in busy or (among is not None and node.name not in among):
            continue
        reason = _place(search, node)
        if reason is not None:
            refused[node.name] = reason
    _join_siblings(search)
    for island in list(search.islands):
        if all(_copies(graph.by_name[name]) for name in island.nodes):
            search.islands.remove(island)
            for name in island.nodes:
                del search.owner[name]
                refused[name] = "it only copies, which the library does as well"
    order = {node.name: position for position, node in enumerate(graph.nodes)}
    islands = sorted(search.islands, key=lambda island: order[island.nodes[0]])
    return tuple(islands), {name: why for name, why in refused.items() if name not in search.owner}


def downstream(graph: OpGraph, name: str) -> frozenset[str]:
    """The calls that a loop might take in after a call: what reads it, and what reads that.

    What they read besides, and nobody else does, belongs to them.
    """
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for user in graph.users[waiting.pop()]:
            if user.name not in found and _known(user) is not None:
                found.add(user.name)
                waiting.append(user.name)
    for node in reversed(graph.calls):
        readers = {user.name for user in graph.users[node.name]}
        if node.name != name and readers and readers <= found and _known(node) is not None:
            found.add(node.name)
    return frozenset(found)


def _copies(node: Node) -> bool:
    """Whether a call only lays whole tensors, or parts of them, side by side."""
    found = _known(node)
    return found is not None and (found.view or node.target.split(".")[1] in _COPIES)


_COPIES = {"cat", "concat", "concatenate", "stack", "embedding", "index_select", "slice_scatter"}


def _known(node: Node) -> Operator | None:
    parts = node.target.split(".")
    return OPERATORS.get(parts[1]) if len(parts) == 3 and parts[0] == "aten" else None


def _place(search: _Search, node: Node) -> str | None:
    """Put a call into an island: its producers', or one of its own."""
    found = _known(node)
    if found is None:
        return f"{node.target} is left to the library"
    owners = _owners(search, [node])
    tries = [owners] if owners else []
    if len(owners) > 1:
        tries += [[one] for one in reversed(owners)]
    views = _views_before(search, {node.name})
    through = _owners(search, [node, *(search.graph.by_name[name] for name in views)])
    crosses = len(through) > len(owners)
    if crosses:
        tries.insert(0, through)
    reason = "a view costs nothing by itself"
    for merged in tries if found.view else [*tries, []]:
        names = {name for one in merged for name in one.nodes} | {node.name}
        moving = found.moves or (crosses and merged is through)
        for with_views in _choices_of_views(search, names, moving):
            added = search.add(names | with_views, merged)
            if isinstance(added, Island):
                return None
            reason = added
    return reason


def _owners(search: _Search, nodes: list[Node]) -> list[Island]:
    """The islands that make what some calls read."""
    refs = [ref.ref for node in nodes for ref in node.refs if ref.ref in search.owner]
    producers = dict.fromkeys(search.owner[name].nodes for name in refs)
    return [search.owner[names[0]] for names in producers]


def _choices_of_views(search: _Search, names: set[str], moving: bool) -> list[set[str]]:
    """Which views to take in with some calls, best first.

    A part of a tensor is better a view of the library's, which is read as it lies, unless what
    reads it moves elements itself.
    """
    views = _views_before(search, names)
    still = _views_before(search, names, moving=False)
    tries = [views, still, set()] if moving else [still, views, set()]
    return [one for number, one in enumerate(tries) if one not in tries[:number]]


def _views_before(search: _Search, names: set[str], moving: bool = True) -> set[str]:
    """Views on the way into calls that nothing else reads: in a loop, mere index arithmetic.

    Those that take a part of a tensor count if `moving` says so.
    """
    found: set[str] = set()
    stack = [search.graph.by_name[name] for name in names]
    while stack:
        for ref in stack.pop().refs:
            source = search.graph.by_name[ref.ref]
            parts = source.target.split(".")
            known = OPERATORS.get(parts[1]) if source.kind == "call" and len(parts) == 3 else None
            busy = any(source.name in nodes for nodes in search.taken)
            outside = source.name not in search.owner and source.name not in names
            skipped = known is not None and known.moves and not moving
            if known is None or not known.view or not outside or busy or skipped:
                continue
            readers = {user.name for user in search.graph.users[source.name]}
            read_by_caller = any(out.ref == source.name for out in search.graph.outputs)
            if readers <= found | names and not read_by_caller:
                found.add(source.name)
                stack.append(source)
    return found


def _join_siblings(search: _Search) -> None:
    """Join islands that read the same large tensor, so that it is read once."""
    joined = True
    while joined:
        joined = False
        for first in list(search.islands):
            for second in list(search.islands):
                if first is second or not (_full_reads(first) & _full_reads(second)):
                    continue
                names = set(first.nodes) | set(second.nodes)
                if not isinstance(search.add(names, [first, second]), str):
                    joined = True
                    break
            if joined:
                break


def _full_reads(island: Island) -> set[Ref]:
    everything = island.loop.domain.everything
    return {one.ref for one in island.loop.operands if one.atoms == everything}

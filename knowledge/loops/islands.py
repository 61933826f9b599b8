"""Finds which calls of a graph go together into fused loops: as many as can be lowered as one."""

from collections.abc import Iterable
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
from knowledge.program import comes_back, span_of

# An island that could not be joined with so many others is left alone: in a net of many steps, each
# of which reads the same tensor, all pairs of them would be tried.
MOST_APART = 8
# With each call that joins an island all of it is lowered anew, so that the time goes with the
# square of its calls; and no compiler is quick with a loop that is longer. In an op of more calls
# there are more such islands, which are the shorter for it: so many calls are lowered in all.
MOST_CALLS, LEAST_CALLS, MOST_LOWERED = 256, 32, 1 << 16


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
        self.busy = {name: nodes for nodes in self.taken for name in nodes}
        self._spans = [span_of(self.graph, nodes) for nodes in self.taken if nodes]
        allowed = max(LEAST_CALLS, MOST_LOWERED // max(1, len(self.graph.calls)))
        self._most = min(MOST_CALLS, allowed)
        self._of_islands: dict[tuple[str, ...], tuple[int, int]] = {}

    def add(self, names: set[str], replaced: list[Island]) -> Island | str:
        """Make an island of these calls in place of some others, or say why not."""
        if len(names) > self._most:
            return f"a loop of more than {self._most} calls takes too long to plan"
        ordered = sorted(names, key=self.graph.position.__getitem__)
        nodes = tuple(self.graph.by_name[name] for name in ordered)
        if not self._schedulable(names, replaced):
            return "something between its calls is left to the library"
        loop = lower(self.graph, nodes)
        if isinstance(loop, str):
            return loop
        island = Island(tuple(ordered), loop)
        for one in replaced:
            self._of_islands.pop(one.nodes, None)
        self._of_islands[island.nodes] = span_of(self.graph, island.nodes)
        self.islands = [one for one in self.islands if one not in replaced] + [island]
        self.owner.update(dict.fromkeys(island.nodes, island))
        return island

    def _schedulable(self, names: set[str], replaced: list[Island]) -> bool:
        """Whether all islands can still be run one after the other.

        They could before, so that only a way out of the new one and back into it is in the way.
        """
        gone = {one.nodes for one in replaced}
        others = (span for nodes, span in self._of_islands.items() if nodes not in gone)
        spans = sorted((*self._spans, *others))
        return not comes_back(self.graph, names, self._unit, spans)

    def _unit(self, name: str) -> tuple[str, ...]:
        """The calls that run together with one outside of the new island."""
        island = self.owner.get(name)
        return island.nodes if island is not None else self.busy.get(name, (name,))


def find_islands(
    graph: OpGraph,
    taken: tuple[tuple[str, ...], ...] = (),
    among: frozenset[str] | None = None,
) -> tuple[tuple[Island, ...], dict[str, str]]:
    """The islands of a graph, and for each call that is in none, why.

    `taken` are calls that other kernels compute already, a group each; of the others, those in
    `among` are looked at, or all. Found once for each graph: what is proposed is applied next.
    """
    asked = (taken, among)
    if asked not in graph.worked_out:
        graph.worked_out[asked] = _found(graph, taken, among)
    islands, refused = graph.worked_out[asked]
    return islands, dict(refused)


def _found(
    graph: OpGraph, taken: tuple[tuple[str, ...], ...], among: frozenset[str] | None
) -> tuple[tuple[Island, ...], dict[str, str]]:
    search = _Search(graph, [], {}, taken)
    refused: dict[str, str] = {}
    chosen = graph.calls if among is None else _in_order(graph, among)
    for node in chosen:
        if node.name in search.busy:
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
    islands = sorted(search.islands, key=lambda island: graph.position[island.nodes[0]])
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
    waiting = [*found]
    while waiting:
        for ref in graph.by_name[waiting.pop()].refs:
            node = graph.by_name[ref.ref]
            if node.kind != "call" or node.name in found or node.name == name:
                continue
            readers = {user.name for user in graph.users[node.name]}
            if readers <= found and _known(node) is not None:
                found.add(node.name)
                waiting.append(node.name)
    return frozenset(found)


def _in_order(graph: OpGraph, names: Iterable[str]) -> list[Node]:
    """Calls in execution order."""
    return [graph.by_name[name] for name in sorted(names, key=graph.position.__getitem__)]


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
            busy = source.name in search.busy
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
    reads = {island.nodes: _full_reads(island) for island in search.islands}
    failed: dict[tuple[str, ...], set[tuple[str, ...]]] = {}

    def joined_with_one(first: Island) -> bool:
        apart = failed.setdefault(first.nodes, set())
        for second in list(search.islands):
            if first is second or second.nodes in apart or len(apart) >= MOST_APART:
                continue
            if reads[first.nodes].isdisjoint(reads[second.nodes]):
                continue
            made = search.add(set(first.nodes) | set(second.nodes), [first, second])
            if isinstance(made, Island):
                reads[made.nodes] = _full_reads(made)
                return True
            apart.add(second.nodes)
            failed.setdefault(second.nodes, set()).add(first.nodes)
        return False

    while any(joined_with_one(island) for island in list(search.islands)):
        pass


def _full_reads(island: Island) -> set[Ref]:
    everything = island.loop.domain.everything
    return {one.ref for one in island.loop.operands if one.atoms == everything}

"""Short rows, which are no work for vectors along the row: what C++ does with them instead.

`tiles`: rows that are reduced lie side by side in lanes, through a tile in cache into which they
are transposed. `turns`: where the innermost dimension is a pair or so, the vectors run along the
one before it, and each element of the pair has statements of its own.
"""

from dataclasses import replace

from knowledge.loops.form import Builder, Domain, Loop, Store, Value
from knowledge.loops.indices import Form, Group, groups_of

# Longer rows fill vectors well enough; the innermost dimensions that get statements of their own.
MOST_COLUMNS, MOST_TURNS = 32, 4
# Fewer neighbours than this fill no vectors either.
LEAST_NEIGHBOURS = 16


def form_of(loop: Loop) -> Form:
    """How C++ goes through a loop that `with_short_rows` has seen."""
    outer, columns, inner = groups_of(loop)
    if inner:
        return "plain"
    count = loop.domain.count
    if loop.domain.structured and count(loop.domain.columns) <= MOST_COLUMNS:
        wide = bool(outer) and count(outer[-1].atoms) >= LEAST_NEIGHBOURS
        return "tiles" if wide and _tileable(loop, outer[-1], columns) else "plain"
    paired = len(columns) > 1 and _is_short(loop, columns[-1])
    return "turns" if paired and set(columns[-1].atoms) <= loop.fixed else "plain"


def with_short_rows(loop: Loop) -> Loop:
    """The loop as C++ goes through it: what has turns has its traced size and lies in a row."""
    outer, columns, inner = groups_of(loop)
    if inner or not columns or not _is_short(loop, columns[-1]):
        return loop
    fixed = loop.fixed | set(columns[-1].atoms)
    if loop.domain.structured:
        long = loop.domain.count(loop.domain.columns) > MOST_COLUMNS
        return replace(loop, fixed=fixed) if long and len(columns) > 1 else loop
    if not outer or loop.domain.count(outer[-1].atoms) < LEAST_NEIGHBOURS:
        return loop
    in_rows = [one for one in _written(loop) if loop.values[one.value].stage in ("row", "element")]
    if any(outer[-1].atoms[0] not in store.atoms for store in in_rows):
        return loop
    return replace(_with_longer_rows(loop, outer[-1].atoms[0]), fixed=fixed)


def _is_short(loop: Loop, group: Group) -> bool:
    """Whether each element of an innermost group can have statements of its own."""
    gathers = any(value.op == "gather" for value in loop.values)
    return loop.domain.count(group.atoms) <= MOST_TURNS and not gathers


def _written(loop: Loop) -> list[Store]:
    return [store for store in loop.stores if not store.complaint]


def _tileable(loop: Loop, rows: Group, columns: tuple[Group, ...]) -> bool:
    """Whether what lies in rows can be read and written a tile at a time."""
    own = set(loop.domain.columns)
    for store in _written(loop):
        stage = loop.values[store.value].stage
        element = stage == "element" or bool(own & set(store.atoms))
        needed = own | {rows.atoms[0]} if element else {rows.atoms[0]}
        if (element or stage == "row" or store.atoms) and not needed <= set(store.atoms):
            return False
    if any(one.op == "total" and loop.values[one.args[0]].stage == "unit" for one in loop.values):
        return False
    return len(columns) == 1 or not any(
        operand.strides and own & set(operand.atoms) for operand in loop.operands
    )


def _with_longer_rows(loop: Loop, first: int) -> Loop:
    """A loop without reductions whose rows begin at an atom farther out."""
    domain = replace(loop.domain, first=first)
    values: list[Value] = []
    for value in loop.values:
        values.append(_restaged(value, domain, values))
    return replace(loop, domain=domain, values=tuple(values))


def _restaged(value: Value, domain: Domain, before: list[Value]) -> Value:
    """A value where it is computed on another domain, those that it is made of being there."""
    build = Builder(domain)
    stages = [before[arg].stage for arg in value.args]
    if value.op == "total":
        # Each row's largest, where the loop complains: the same of all elements.
        rows = value.atoms != domain.everything and stages == ["row"]
        return replace(value, atoms=domain.rows if rows else domain.everything)
    if value.op in ("load", "position"):
        stages.append(build.stage_of(value.atoms))
    return replace(value, stage=build.meeting(stages[:1] if value.op == "within" else stages))

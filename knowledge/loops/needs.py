"""What the values of a loop need, and whether computing them so would be a waste."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from knowledge.loops.form import Loop, Refused, Value
from knowledge.loops.scalars import SCALARS


def pruned(loop: Loop) -> Loop:
    """The loop without values, and then operands, that nothing needs."""
    kept = sorted(reached(loop, (store.value for store in loop.stores)))
    used = sorted({loop.values[n].operand for n in kept if loop.values[n].operand >= 0})
    number_of = {number: at for at, number in enumerate(kept)}
    operand_of = {number: at for at, number in enumerate(used)}
    values = tuple(_renumbered(loop.values[n], number_of, operand_of) for n in kept)
    stores = tuple(replace(store, value=number_of[store.value]) for store in loop.stores)
    # What no position counts along any more may have any size.
    positions = {atom for value in values if value.op == "position" for atom in value.atoms}
    operands = tuple(loop.operands[n] for n in used)
    return Loop(loop.domain, values, operands, stores, loop.fixed & positions)


def reached(
    loop: Loop, roots: Iterable[int], decided: Mapping[int, bool] | None = None
) -> set[int]:
    """These values and all that they are made of.

    Args:
        loop: what holds them.
        roots: their numbers.
        decided: conditions of which it is known whether they hold: of what is chosen by them, the
            chosen alone.
    """
    known = decided or {}
    found: set[int] = set()
    left = list(roots)
    while left:
        number = left.pop()
        if number in found:
            continue
        found.add(number)
        value = loop.values[number]
        if value.op == "where" and value.args[0] in known:
            left.append(value.args[1 if known[value.args[0]] else 2])
        else:
            left += value.args
    return found


def _renumbered(value: Value, number_of: Mapping[int, int], operand_of: Mapping[int, int]) -> Value:
    args = tuple(number_of[arg] for arg in value.args)
    operand = operand_of[value.operand] if value.operand >= 0 else -1
    return replace(value, args=args, operand=operand)


def refuse_waste(loop: Loop) -> None:
    """Refuse a loop that would compute something costly again for every row.

    A value along the columns alone, such as exp of a bias, is cheaper computed once, on its own.
    """
    outside = set(loop.domain.rows)
    if loop.domain.count(loop.domain.rows) == 1:
        return
    spans = atoms_of_values(loop)
    for value, atoms in zip(loop.values, spans, strict=True):
        if value.stage == "element" and is_costly(value) and not atoms & outside:
            raise Refused(f"{value.op} along the columns would be computed again in every row")
        if value.op == "fold" and not atoms & outside:
            raise Refused(f"a {value.fold} along the columns would be computed in every row")


def atoms_of_values(loop: Loop) -> list[frozenset[int]]:
    """For each value, the atoms on which it depends."""
    spans: list[frozenset[int]] = []
    for value in loop.values:
        span = frozenset(value.atoms) if value.op in ("load", "position") else frozenset()
        if value.op == "position" and not value.atoms:
            span = frozenset(loop.domain.columns)
        for arg in value.args:
            span |= spans[arg]
        if value.op in ("fold", "gather"):
            span -= frozenset(loop.domain.columns)
        spans.append(span)
    return spans


def is_costly(value: Value) -> bool:
    """Whether a value takes more than a few instructions."""
    return value.op in SCALARS and SCALARS[value.op].costly

"""Prints a fused loop as C++: one extern "C" function, rows in parallel, one vectorised sweep a level.

Three schedules: `flat` (pointwise work on one run of elements, in chunks), `rows` (one row a task),
and `lanes` (what is reduced is not innermost: a task is a run of neighbouring rows, side by side in
vector lanes).
"""

from dataclasses import dataclass, field
from typing import Literal

from knowledge.loops.form import Loop, Refused, Store, Value, ValueType
from knowledge.loops.lower import is_costly
from knowledge.loops.mathematics import helpers
from knowledge.loops.scalars import SCALARS
from knowledge.program import variable

CHUNK = 8192
LANES = 64
WIDE_LANES = 256
BLOCKS = 256
PREFETCH_FROM = 1 << 20
PREFETCH_BLOCK = 256
PREFETCH_AHEAD = 1024
PARALLEL_FROM = 16384
LONG_ROW = 16384

STORAGE = {
    "float32": "float", "float64": "double", "float16": "_Float16", "bfloat16": "bfloat16", "int64": "int64_t",
    "int32": "int32_t", "int16": "int16_t", "int8": "int8_t", "uint8": "uint8_t", "bool": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What can be tuned without changing what is computed.

    `exp`: inline polynomials, or the library's functions. `accumulate`: the type in which a row is
    summed. `streaming`: write large results past the caches. `prefetch`: ask for what the next row,
    or the next part of a long one, will need.
    """

    exp: Literal["inline", "libm"] = "inline"
    accumulate: Literal["float", "double"] = "float"
    streaming: bool = False
    prefetch: bool = True


@dataclass(frozen=True)
class Group:
    """Neighbouring atoms that every tensor spans together: one loop, or one index."""

    name: str
    atoms: tuple[int, ...]


@dataclass
class Scope:
    """Lines of one block, and which values they have already made, by the name that holds them."""

    lines: list[str] = field(default_factory=list)
    made: dict[int, str] = field(default_factory=dict)


def literal(number: float | int | bool, kind: ValueType) -> str:
    """A number as C++ writes it in the given type."""
    if kind == "bool":
        return "true" if number else "false"
    if kind == "int64_t":
        return f"INT64_C({int(number)})"
    value = float(number)
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!r}{'f' if kind == 'float' else ''}"


def start_of(fold: str, kind: str) -> str:
    """What a reduction starts from."""
    if fold in ("sum", "prod"):
        return "0" if fold == "sum" else "1"
    if kind == "int64_t":
        return "INT64_MIN" if fold == "max" else "INT64_MAX"
    return "-INFINITY" if fold == "max" else "INFINITY"


def joined(fold: str, left: str, right: str) -> str:
    """One step of a reduction."""
    if fold in ("sum", "prod"):
        return f"{left} {'+' if fold == 'sum' else '*'} {right}"
    return f"nan_{fold}({left}, {right})"


def groups_of(loop: Loop) -> tuple[tuple[Group, ...], tuple[Group, ...], tuple[Group, ...]]:
    """The outer, column and inner groups of a loop, outermost first."""
    spans = [operand.atoms for operand in loop.operands] + [store.atoms for store in loop.stores]

    def runs(name: str, atoms: tuple[int, ...]) -> tuple[Group, ...]:
        found: list[list[int]] = []
        for atom in atoms:
            together = found and all((atom in span) == (found[-1][-1] in span) for span in spans)
            if together:
                found[-1].append(atom)
            else:
                found.append([atom])
        if len(found) == 1:
            return (Group(name, tuple(found[0])),)
        return tuple(Group(f"{name}{n}", tuple(run)) for n, run in enumerate(found))

    domain = loop.domain
    return runs("rows", domain.outer), runs("cols", domain.columns), runs("inner", domain.inner)


def _label(value: Value) -> str:
    return value.fold if value.op in ("fold", "total") else value.op


def _negative(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _loaded(dtype: str, element: str) -> str:
    """An element as the type it is computed in."""
    if dtype == "bfloat16":
        return f"float_of({element})"
    if dtype == "float16":
        return f"static_cast<float>({element})"
    if dtype in ("int32", "int16", "int8", "uint8"):
        return f"static_cast<int64_t>({element})"
    return element


def _stored(dtype: str, value: str) -> str:
    """A computed value as the type it is stored in."""
    if dtype == "bfloat16":
        return f"bfloat16_of({value})"
    if dtype in ("float16", "int32", "int16", "int8", "uint8"):
        return f"static_cast<{STORAGE[dtype]}>({value})"
    return value


def _indented(lines: list[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


def _sum(terms: list[str]) -> str:
    return " + ".join(term for term in terms if term not in ("", "0")) or "0"


RESERVED = {
    "row", "col", "lane", "lanes", "first", "start", "count", "size", "block", "blocks", "tasks", "task", "label",
    "rows", "cols", "inner", "int", "float", "double", "long", "short", "char", "bool", "auto", "and", "or", "not",
    "xor", "new", "delete", "this", "class", "struct", "union", "template", "operator", "private", "public", "signed",
    "unsigned", "const", "static", "switch", "case", "default", "register", "namespace", "using", "void", "typename",
    "volatile", "export", "extern", "inline", "enum", "do", "for", "goto", "if", "else", "return", "sizeof", "true",
    "false", "try", "catch", "throw", "typedef", "virtual", "while", "break", "continue", "friend", "explicit",
    "mutable", "protected", "asm", "bitand", "bitor", "compl", "wchar_t", "std", "strips", "y0", "y1", "j0", "j1",
    "div", "exp", "log", "pow", "sqrt", "abs", "floor", "ceil", "round", "sin", "cos", "tan", "erf", "index",
}  # fmt: skip


def _names(wanted: list[str], prefix: str) -> list[str]:
    """C++ names of tensors: as in Python, unless the language or the printer needs the word."""
    found: list[str] = []
    for text in wanted:
        name = prefix + text
        taken = name in RESERVED or name in found or name[:3] in ("row", "col", "inn", "in_")
        if taken or (name[0] == "v" and name[1:2].isdigit()):
            name = f"{name}_data"
        while name in found:
            name += "_"
        found.append(name)
    return found


class Indices:
    """How positions are written: pointers, sizes and offsets of every tensor, for one schedule."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.outer, self.columns, self.inner = groups_of(loop)
        self.lanes = bool(self.inner)
        flat = not (self.outer or self.inner or loop.domain.structured or len(self.columns) > 1)
        self.flat = flat
        self.all = (*self.outer, *self.columns, *self.inner)

    def index(self, group: Group) -> str:
        """The variable that counts along a group."""
        if len(self.outer) == 1 and group in self.outer:
            return "row"
        if len(self.columns) == 1 and group in self.columns:
            return "col"
        return group.name.replace("rows", "row").replace("cols", "col").replace("inner", "in")

    def _terms(self, atoms: tuple[int, ...], groups: tuple[Group, ...]) -> list[str]:
        spanned = [group for group in self.all if group.atoms[0] in atoms]
        terms = []
        for position, group in enumerate(spanned):
            if group in groups:
                strides = [after.name for after in spanned[position + 1 :]]
                terms.append(" * ".join([self.index(group), *strides]))
        return terms

    def row_offset(self, atoms: tuple[int, ...]) -> str:
        """Where a row starts in a tensor."""
        terms = self._terms(atoms, self.outer)
        if self.flat:
            terms.append("start")
        elif len(self.inner) == 1 and self.inner[0].atoms[0] in atoms:
            terms.append("first")
        return " + ".join(terms)

    def element_offset(self, atoms: tuple[int, ...]) -> str:
        """Where an element lies after its row's start."""
        terms = self._terms(atoms, self.columns)
        if len(self.inner) == 1 and self.inner[0].atoms[0] in atoms:
            terms.append("lane")
        elif len(self.inner) > 1:
            terms += self._terms(atoms, self.inner)
        return " + ".join(terms) or "0"

    def column(self) -> str:
        """The position within the row, counted from 0."""
        atoms = self.loop.domain.columns
        spanned = [group for group in self.columns if group.atoms[0] in atoms]
        terms = []
        for position, group in enumerate(spanned):
            strides = [after.name for after in spanned[position + 1 :]]
            terms.append(" * ".join([self.index(group), *strides]))
        return " + ".join(terms) or "0"

    def unravelled(self, groups: tuple[Group, ...], flat: str) -> list[str]:
        """The indices of several groups from the one that counts through all of them."""
        lines = []
        for position, group in enumerate(groups):
            after = [one.name for one in groups[position + 1 :]]
            divided = f"{flat} / ({' * '.join(after)})" if after else flat
            wrapped = f"{divided} % {group.name}" if position else divided
            lines.append(f"const int64_t {self.index(group)} = {wrapped};")
        return lines


class Printer:
    """Prints one loop; `text` is the whole translation unit."""

    def __init__(self, loop: Loop, name: str, options: Options) -> None:
        self.loop, self.name, self.options = loop, name, options
        self.at = Indices(loop)
        self.values = loop.values
        self.unit, self.row, self.final = Scope(), Scope(), Scope()
        self.sweep = Scope()
        self.level = 0
        self.wide = options.accumulate == "double" or (
            loop.domain.structured and loop.domain.count(loop.domain.columns) > LONG_ROW
        )
        self.operand_names = _names([variable(operand.ref) for operand in loop.operands], "")
        self.store_names = _names([variable(store.ref) for store in loop.stores], "out_")
        self.roots, self.kept = self._plan()
        self.staged = tuple(
            number for number, store in enumerate(loop.stores) if self._streams(store)
        )

    # --- what is computed in which sweep ---

    def _is_element_store(self, store: Store) -> bool:
        return bool(set(store.atoms) & set(self.loop.domain.columns)) or (
            self.values[store.value].stage == "element"
        )

    def _element_totals(self) -> list[int]:
        everything = set(self.loop.domain.everything)
        return [
            number for number, value in enumerate(self.values)
            if value.op == "total" and set(value.atoms) == everything
            and not (self.loop.domain.structured and everything == set(self.loop.domain.rows))
        ]  # fmt: skip

    def _row_totals(self) -> list[int]:
        inside = self._element_totals()
        return [
            number for number, value in enumerate(self.values)
            if value.op == "total" and number not in inside
        ]  # fmt: skip

    def _plan(self) -> tuple[dict[int, list[int]], dict[int, None]]:
        """Per sweep, the element values it must make; and which values are kept for later sweeps."""
        roots: dict[int, list[int]] = {}
        for value in self.values:
            if value.op == "fold":
                roots.setdefault(self.values[value.args[0]].level, []).append(value.args[0])
        for number in self._element_totals():
            arg = self.values[number].args[0]
            roots.setdefault(self.values[arg].level, []).append(arg)
        for store in self.loop.stores:
            if self._is_element_store(store):
                roots.setdefault(self.values[store.value].level, []).append(store.value)
        kept: dict[int, None] = {}
        for level in range(max(roots, default=-1), -1, -1):
            roots.setdefault(level, [])
            for number in roots[level]:
                self._keep(number, level, roots, kept)
        return roots, kept

    def _keep(
        self, number: int, level: int, roots: dict[int, list[int]], kept: dict[int, None]
    ) -> None:
        value = self.values[number]
        if value.stage != "element" or number in kept:
            return
        if value.level < level and self._is_costly_path(number):
            kept[number] = None
            roots.setdefault(value.level, []).append(number)
            return
        for arg in value.args:
            self._keep(arg, level, roots, kept)

    def _is_costly_path(self, number: int) -> bool:
        value = self.values[number]
        if value.stage != "element":
            return False
        return is_costly(value) or any(self._is_costly_path(arg) for arg in value.args)

    def _streams(self, store: Store) -> bool:
        columns = self.loop.domain.count(self.loop.domain.columns)
        return (
            self.options.streaming
            and store.dtype == "float32"
            and self._is_element_store(store)
            and not self.at.lanes
            and (self.at.flat or 256 <= columns <= 2 * CHUNK)
        )

    # --- values as expressions ---

    def use(self, number: int, place: str) -> str:
        """The expression for a value at a place (`unit`, `row`, `element`, `final`); makes it if need be."""
        value = self.values[number]
        if value.op == "constant":
            return _negative(literal(value.number, value.type))
        if value.stage == "unit":
            return self._made(number, self.unit, "unit")
        if value.stage == "final":
            return self._made(number, self.final, "final")
        if value.stage == "row":
            name = self._made_in_row(number)
            return f"{name}[lane]" if self.at.lanes else name
        if number in self.kept and value.level < self.level and number not in self.sweep.made:
            name = self._name(number)
            self.sweep.made[number] = name
            self.sweep.lines.append(
                f"const {value.type} {name} = {self._kept_name(number)}[{self._kept_index()}];"
            )
        return self._made(number, self.sweep, "element")

    def _name(self, number: int) -> str:
        return f"v{number}_{_label(self.values[number])}"

    def _kept_name(self, number: int) -> str:
        return f"kept_{self._name(number)}"

    def _kept_index(self) -> str:
        column = self.at.column()
        return f"({column}) * LANES + lane" if self.at.lanes else column

    def _made(self, number: int, scope: Scope, place: str) -> str:
        if number not in scope.made:
            text = self._expression(number, place)
            scope.made[number] = self._name(number)
            scope.lines.append(f"const {self.values[number].type} {self._name(number)} = {text};")
        return scope.made[number]

    def _made_in_row(self, number: int) -> str:
        if number in self.row.made:
            return self.row.made[number]
        value = self.values[number]
        if value.op == "gather":
            return self._gathered(number)
        text = self._expression(number, "row")
        name = self._name(number)
        self.row.made[number] = name
        if self.at.lanes:
            body = [*self._lane_indices(), f"{name}[lane] = {text};"]
            self.row.lines += [f"{value.type} {name}[LANES];", *self._lane_loop(body)]
        else:
            self.row.lines.append(f"const {value.type} {name} = {text};")
        return name

    def _expression(self, number: int, place: str) -> str:
        value = self.values[number]
        if value.op == "count":
            names = [g.name for g in self.at.all if set(g.atoms) & set(value.atoms)]
            return f"static_cast<{value.type}>({' * '.join(names) or '1'})"
        if value.op == "load":
            return self._load(value)
        args = [self.use(arg, place) for arg in value.args]
        if value.op == "cast":
            return (
                f"{args[0]} != 0"
                if value.type == "bool"
                else f"static_cast<{value.type}>({args[0]})"
            )
        text = SCALARS[value.op].cpp.format(*args)
        return text

    def _load(self, value: Value) -> str:
        operand = self.loop.operands[value.operand]
        name = self.operand_names[value.operand]
        if value.stage == "unit":
            return _loaded(operand.dtype, f"{name}[0]")
        if value.stage == "row":
            terms = [self.at.row_offset(operand.atoms)]
            if self.at.lanes:
                terms.append(self.at.element_offset(operand.atoms))
            return _loaded(operand.dtype, f"{name}[{_sum(terms)}]")
        pointer = self._row_pointer(name, STORAGE[operand.dtype], operand.atoms, constant=True)
        return _loaded(operand.dtype, f"{pointer}[{self.at.element_offset(operand.atoms)}]")

    def _row_pointer(self, name: str, storage: str, atoms: tuple[int, ...], constant: bool) -> str:
        offset = self.at.row_offset(atoms)
        if offset in ("", "0"):
            return name
        line = f"{'const ' if constant else ''}{storage}* {name}_row = {name} + {offset};"
        if line not in self.row.lines:
            self.row.lines.append(line)
        return f"{name}_row"

    # --- blocks ---

    def _lane_indices(self) -> list[str]:
        if len(self.at.inner) < 2:
            return []
        return self.at.unravelled(self.at.inner, "(first + lane)")

    def _lane_loop(self, body: list[str]) -> list[str]:
        head = "for (int64_t lane = 0; lane < lanes; ++lane) {"
        return ["#pragma omp simd", head, *_indented(body), "}"]

    def _gathered(self, number: int) -> str:
        """A row value that is an element value at a column of its own; NaN for a column that isn't."""
        value, name = self.values[number], self._name(number)
        column, target = value.args
        label = self.use(column, "row")
        outside = self.sweep, self.level, self.kept
        # Evaluated anew, not read from what earlier sweeps kept: it is one element only.
        self.sweep, self.level, self.kept = Scope(), self.values[target].level, {}
        result = self.use(target, "element")
        body = [*self.at.unravelled(self.at.columns, "label")] if len(self.at.columns) > 1 else []
        body += ["const int64_t col = label;"] if len(self.at.columns) == 1 else []
        body += [*self.sweep.lines, f"{{}} = {result};"]
        self.sweep, self.level, self.kept = outside
        limit = " * ".join(group.name for group in self.at.columns) or "1"
        place = f"{name}[lane]" if self.at.lanes else name
        empty = "NAN" if value.type in ("float", "double") else "0"
        body[-1] = body[-1].format(place)
        block = [
            f"const int64_t label = {label};",
            f"{place} = {empty};",
            f"if (label >= 0 && label < {limit}) {{",
            *_indented(body),
            "}",
        ]
        self.row.made[number] = name
        if self.at.lanes:
            head = "for (int64_t lane = 0; lane < lanes; ++lane) {"
            inside = [*self._lane_indices(), *block]
            self.row.lines += [f"{value.type} {name}[LANES];", head, *_indented(inside), "}"]
        else:
            self.row.lines += [f"{value.type} {name};", "{", *_indented(block), "}"]
        return name

    def _accumulator(self, value: Value) -> str:
        """The type in which a fold or a total gathers one row."""
        if value.type == "float" and value.fold in ("sum", "prod") and self.wide:
            return "double"
        return value.type

    def _declared(self, number: int, name: str) -> list[str]:
        value = self.values[number]
        kind = self._accumulator(value)
        start = start_of(value.fold, kind)
        if not self.at.lanes:
            return [f"{kind} {name} = {start};"]
        head = "for (int64_t lane = 0; lane < lanes; ++lane)"
        return [f"{kind} {name}[LANES];", f"{head} {name}[lane] = {start};"]

    def _sweep(self, level: int) -> None:
        """Append one sweep over the row to the row's lines."""
        self.level, self.sweep = level, Scope()
        folds = [
            n for n, v in enumerate(self.values)
            if v.op == "fold" and self.values[v.args[0]].level == level
        ]  # fmt: skip
        totals = [
            n for n in self._element_totals() if self.values[self.values[n].args[0]].level == level
        ]
        gathered = {n: f"{self._name(n)}_wide" for n in folds}
        gathered.update({n: f"{self._name(n)}_part" for n in totals})
        for number, accumulator in list(gathered.items()):
            if (
                number in folds
                and self._accumulator(self.values[number]) == self.values[number].type
            ):
                gathered[number] = self._name(number)
        updates = [self._update(number, name) for number, name in gathered.items()]
        updates += self._element_stores(level)
        body = [*self.sweep.lines, *updates]
        for number, name in gathered.items():
            self.row.lines += self._declared(number, name)
        self.row.lines += self._column_loops(body, gathered)
        self._finish_folds(folds, gathered)
        for number in totals:
            self.row.lines += self._add_to_total(number, gathered[number])
        for number, store in enumerate(self.loop.stores):
            if number in self.staged and self.values[store.value].level == level:
                self.row.lines.append(self._streamed(number, store))

    def _update(self, number: int, name: str) -> str:
        value = self.values[number]
        element = self.use(value.args[0], "element")
        place = f"{name}[lane]" if self.at.lanes else name
        kind = self._accumulator(value)
        if kind != value.type:
            element = f"static_cast<{kind}>({element})"
        return f"{place} = {joined(value.fold, place, element)};"

    def _element_stores(self, level: int) -> list[str]:
        lines = []
        for number in [n for n in self.kept if self.values[n].level == level]:
            text = self.use(number, "element")
            lines.append(f"{self._kept_name(number)}[{self._kept_index()}] = {text};")
        for number, store in enumerate(self.loop.stores):
            if not self._is_element_store(store) or self.values[store.value].level != level:
                continue
            text = _stored(store.dtype, self.use(store.value, "element"))
            if number in self.staged:
                lines.append(f"staged_{self.store_names[number]}[{self.at.column()}] = {text};")
                continue
            name = self.store_names[number]
            pointer = self._row_pointer(name, STORAGE[store.dtype], store.atoms, constant=False)
            lines.append(f"{pointer}[{self.at.element_offset(store.atoms)}] = {text};")
        return lines

    def _column_loops(self, body: list[str], gathered: dict[int, str]) -> list[str]:
        """The loops over the row around a sweep's body; the innermost one is vector code."""
        if self.at.lanes:
            lines = self._lane_loop([*self._lane_indices(), *body])
            groups = list(self.at.columns)
        else:
            limit = (
                "count" if self.at.flat else (self.at.columns[-1].name if self.at.columns else "1")
            )
            index = self.at.index(self.at.columns[-1]) if self.at.columns else "col"
            pragma = f"#pragma omp simd{self._clauses(gathered)}"
            ahead = self._prefetches(limit)
            if ahead:
                return self._in_blocks(index, limit, ahead, (pragma, body))
            head = f"for (int64_t {index} = 0; {index} < {limit}; ++{index}) {{"
            lines = [pragma, head, *_indented(body), "}"]
            groups = list(self.at.columns[:-1])
        for group in reversed(groups):
            index = self.at.index(group)
            head = f"for (int64_t {index} = 0; {index} < {group.name}; ++{index}) {{"
            lines = [head, *_indented(lines), "}"]
        return lines

    def _prefetches(self, limit: str) -> list[str]:
        """Prefetch lines for one sweep: where arithmetic lies between the loads, the hardware's prefetcher falls behind.

        One sweep asks for what comes soon in its own row; of several, the costliest asks for the
        next row, as the row itself is in cache by then.
        """
        if (
            not self.options.prefetch
            or len(self.at.columns) != 1
            or self.level != self._prefetching_level()
        ):
            return []
        far = max(self.roots) > 0
        everything = self.loop.domain.everything
        lines = []
        for operand, name in zip(self.loop.operands, self.operand_names, strict=True):
            count = self.loop.domain.count(operand.atoms)
            if operand.atoms != everything or count < PREFETCH_FROM or operand.dtype != "float32":
                continue
            pointer = self._row_pointer(name, STORAGE[operand.dtype], operand.atoms, constant=True)
            distance = limit if far else str(PREFETCH_AHEAD)
            lines.append(
                f"__builtin_prefetch({pointer} + block + ahead + {distance}, 0, {2 if far else 3});"
            )
        return lines

    def _prefetching_level(self) -> int:
        costs = {
            level: sum(self._path_cost(n) for n in numbers) for level, numbers in self.roots.items()
        }
        return max(costs, key=lambda level: (costs[level], level))

    def _path_cost(self, number: int) -> int:
        value = self.values[number]
        if value.stage != "element":
            return 0
        return is_costly(value) + sum(
            self._path_cost(arg) for arg in value.args if arg not in self.kept
        )

    def _in_blocks(
        self, index: str, limit: str, ahead: list[str], loop: tuple[str, list[str]]
    ) -> list[str]:
        pragma, body = loop
        return [
            f"for (int64_t block = 0; block < {limit}; block += {PREFETCH_BLOCK}) {{",
            f"    const int64_t end = block + {PREFETCH_BLOCK} < {limit} ? block + {PREFETCH_BLOCK} : {limit};",
            f"    for (int64_t ahead = 0; ahead < {PREFETCH_BLOCK}; ahead += 16) {{",
            *_indented(ahead, 2),
            "    }",
            f"    {pragma}",
            f"    for (int64_t {index} = block; {index} < end; ++{index}) {{",
            *_indented(body, 2),
            "    }",
            "}",
        ]

    def _clauses(self, gathered: dict[int, str]) -> str:
        operators = {"sum": "+", "prod": "*", "max": "nan_max", "min": "nan_min"}
        by_operator: dict[str, list[str]] = {}
        for number, name in gathered.items():
            by_operator.setdefault(operators[self.values[number].fold], []).append(name)
        return "".join(f" reduction({op} : {', '.join(ns)})" for op, ns in by_operator.items())

    def _finish_folds(self, folds: list[int], gathered: dict[int, str]) -> None:
        for number in folds:
            name, value = self._name(number), self.values[number]
            self.row.made[number] = name
            if gathered[number] == name:
                continue
            narrow = f"static_cast<{value.type}>({gathered[number]}"
            if self.at.lanes:
                head = "for (int64_t lane = 0; lane < lanes; ++lane)"
                self.row.lines += [
                    f"{value.type} {name}[LANES];", f"{head} {name}[lane] = {narrow}[lane]);"
                ]  # fmt: skip
            else:
                self.row.lines.append(f"const {value.type} {name} = {narrow});")

    def _total_type(self, number: int) -> str:
        value = self.values[number]
        return "double" if value.type == "float" and value.fold in ("sum", "prod") else value.type

    def _add_to_total(self, number: int, part: str) -> list[str]:
        """Bring a row's part of a total to the block's."""
        value, name = self.values[number], f"block_{self._name(number)}"
        kind = self._total_type(number)
        if self.at.lanes:
            step = joined(value.fold, name, f"static_cast<{kind}>({part}[lane])")
            return [f"for (int64_t lane = 0; lane < lanes; ++lane) {name} = {step};"]
        return [f"{name} = {joined(value.fold, name, f'static_cast<{kind}>({part})')};"]

    def _streamed(self, number: int, store: Store) -> str:
        name = self.store_names[number]
        pointer = self._row_pointer(name, STORAGE[store.dtype], store.atoms, constant=False)
        count = "count" if self.at.flat else " * ".join(group.name for group in self.at.columns)
        return f"stream_row({pointer}, staged_{name}, {count});"

    # --- the function ---

    def _row_block(self) -> list[str]:
        """Everything that is done for one row, chunk or strip."""
        for level in range(max(self.roots, default=-1) + 1):
            self._sweep(level)
        for number in self._row_totals():
            arg = self.values[number].args[0]
            text = self.use(arg, "row")
            part = text.removesuffix("[lane]") if self.values[arg].stage == "row" else text
            if self.at.lanes and self.values[arg].stage != "row":
                raise Refused("a total over rows of something that is the same in all of them")
            self.row.lines += self._add_to_total(number, part)
        for number, store in enumerate(self.loop.stores):
            if not self._is_element_store(store) and self._is_row_store(store):
                self.row.lines += self._row_store(number, store)
        return [*self._task_head(), *self.row.lines]

    def _is_row_store(self, store: Store) -> bool:
        return bool(store.atoms) or self.values[store.value].stage == "row"

    def _row_store(self, number: int, store: Store) -> list[str]:
        text = _stored(store.dtype, self.use(store.value, "row"))
        terms = [self.at.row_offset(store.atoms)]
        if self.at.lanes:
            terms.append(self.at.element_offset(store.atoms))
        line = f"{self.store_names[number]}[{_sum(terms)}] = {text};"
        return self._lane_loop([*self._lane_indices(), line]) if self.at.lanes else [line]

    def _task_head(self) -> list[str]:
        if self.at.flat:
            size = self.at.columns[0].name if self.at.columns else "1"
            return [
                "const int64_t start = task * CHUNK;",
                f"const int64_t count = {size} - start < CHUNK ? {size} - start : CHUNK;",
            ]
        lines = []
        if self.at.lanes:
            lines += [
                "const int64_t row = task / strips;",
                "const int64_t first = task % strips * LANES;",
                f"const int64_t lanes = {self._inner()} - first < LANES ? {self._inner()} - first : LANES;",
            ]
        if len(self.at.outer) > 1:
            lines += self.at.unravelled(self.at.outer, "row")
        return lines

    def _inner(self) -> str:
        product = " * ".join(group.name for group in self.at.inner)
        return product if len(self.at.inner) == 1 else f"({product})"

    def _tasks(self) -> tuple[str, list[str]]:
        """The name of the task index, and the lines that count the tasks."""
        rows = " * ".join(group.name for group in self.at.outer) or "1"
        if self.at.flat:
            size = self.at.columns[0].name if self.at.columns else "1"
            return "task", [f"const int64_t tasks = ({size} + CHUNK - 1) / CHUNK;"]
        if self.at.lanes:
            strips = f"const int64_t strips = ({self._inner()} + LANES - 1) / LANES;"
            return "task", [strips, f"const int64_t tasks = {rows} * strips;"]
        return "row", [f"const int64_t tasks = {rows};"]

    def _buffers(self) -> list[str]:
        columns = " * ".join(group.name for group in self.at.columns) or "1"
        cells = f"({columns}) * LANES" if self.at.lanes else columns
        lines = [
            f"std::vector<{self.values[n].type}> {self._kept_name(n)}_memory({cells});"
            for n in self.kept
        ]
        lines += [
            f"{self.values[n].type}* {self._kept_name(n)} = {self._kept_name(n)}_memory.data();"
            for n in self.kept
        ]
        staged = "CHUNK" if self.at.flat else columns
        for number in self.staged:
            name = f"staged_{self.store_names[number]}"
            lines += [
                f"std::vector<float> {name}_memory({staged});",
                f"float* {name} = {name}_memory.data();",
            ]
        return lines

    def _parallel(self, block: list[str]) -> list[str]:
        """The parallel region: tasks dealt to threads, in blocks of fixed size where something is totalled."""
        index, lines = self._tasks()
        elements = " * ".join(group.name for group in self.at.all) or "1"
        when = f"if (tasks > 1 && {elements} > {PARALLEL_FROM})"
        totals = [*self._element_totals(), *self._row_totals()]
        if totals:
            lines.append(f"const int64_t blocks = tasks < {BLOCKS} ? tasks : {BLOCKS};")
            lines += [
                f"std::vector<{self._total_type(n)}> parts_{self._name(n)}(blocks);" for n in totals
            ]
            inner = self._blocked(index, block, totals)
        else:
            head = f"for (int64_t {index} = 0; {index} < tasks; ++{index}) {{"
            inner = [head, *_indented(block), "}"]
        buffers = self._buffers()
        if not buffers:
            return [*lines, f"#pragma omp parallel for schedule(static) {when}", *inner]
        fence = ["store_fence();"] if self.staged else []
        region = [*buffers, "#pragma omp for schedule(static)", *inner, *fence]
        return [*lines, f"#pragma omp parallel {when}", "{", *_indented(region), "}"]

    def _blocked(self, index: str, block: list[str], totals: list[int]) -> list[str]:
        starts = [
            f"{self._total_type(n)} block_{self._name(n)} = "
            f"{start_of(self.values[n].fold, self._total_type(n))};"
            for n in totals
        ]
        ends = [f"parts_{self._name(n)}[block] = block_{self._name(n)};" for n in totals]
        return [
            "for (int64_t block = 0; block < blocks; ++block) {",
            *_indented(starts),
            f"    for (int64_t {index} = tasks * block / blocks; "
            f"{index} < tasks * (block + 1) / blocks; ++{index}) {{",
            *_indented(block, 2),
            "    }",
            *_indented(ends),
            "}",
        ]

    def _combined(self) -> list[str]:
        """Totals put together from the blocks' parts, always in the same order."""
        lines: list[str] = []
        for number in [*self._element_totals(), *self._row_totals()]:
            value, name, kind = self.values[number], self._name(number), self._total_type(number)
            step = joined(value.fold, f"{name}_all", "part")
            lines += [
                f"{kind} {name}_all = {start_of(value.fold, kind)};",
                f"for (const {kind} part : parts_{name}) {name}_all = {step};",
            ]
            self.final.made[number] = f"{name}_all"
            if kind != value.type:
                lines.append(f"const {value.type} {name} = static_cast<{value.type}>({name}_all);")
                self.final.made[number] = name
        return lines

    def text(self) -> str:
        """The translation unit.

        Raises:
            Refused: the loop asks for something that has no schedule.
        """
        block = self._row_block()
        has_tasks = (
            bool(self.roots) or bool(self._row_totals()) or len(block) > len(self._task_head())
        )
        parallel = self._parallel(block) if has_tasks else []
        combined = self._combined()
        last = []
        for number, store in enumerate(self.loop.stores):
            if not self._is_element_store(store) and not self._is_row_store(store):
                text = _stored(store.dtype, self.use(store.value, "final"))
                last.append(f"{self.store_names[number]}[0] = {text};")
        body = [*self.unit.lines, *parallel, *combined, *self.final.lines, *last]
        parameters = [
            f"const {STORAGE[o.dtype]}* {n}"
            for o, n in zip(self.loop.operands, self.operand_names, strict=True)
        ]
        parameters += [
            f"{STORAGE[s.dtype]}* {n}"
            for s, n in zip(self.loop.stores, self.store_names, strict=True)
        ]
        parameters += [f"int64_t {group.name}" for group in self.at.all]
        function = [
            f'extern "C" void {self.name}(', f"        {', '.join(parameters)}) {{",
            *_indented(body), "}",
        ]  # fmt: skip

        inner = self.loop.domain.count(self.loop.domain.inner)
        lanes = WIDE_LANES if inner >= 16 * WIDE_LANES else LANES
        return _unit("\n".join(function) + "\n", self.options, lanes)


_REDUCTIONS = """#pragma omp declare reduction(nan_{0} : float, double : omp_out = nan_{0}(omp_out, omp_in)) \\
    initializer(omp_priv = {1})
#pragma omp declare reduction(nan_{0} : int64_t : omp_out = nan_{0}(omp_out, omp_in)) \\
    initializer(omp_priv = {2})
"""
_FENCE = """
// Streaming stores become visible to other threads here.
static inline void store_fence() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}
"""


def _unit(function: str, options: Options, lanes: int) -> str:
    """A kernel's function with what it needs above it."""
    headers = ["#include <cmath>", "#include <cstdint>", "#include <cstring>", "#include <vector>"]
    if "stream_row" in function:
        headers += ["#if defined(__AVX__)", "#include <immintrin.h>", "#endif"]
    parts = ["\n".join(headers) + "\n", helpers(function, options.exp == "inline")]
    for fold, low, whole in (("max", "-INFINITY", "INT64_MIN"), ("min", "INFINITY", "INT64_MAX")):
        if f"reduction(nan_{fold}" in function:
            parts.append("\n" + _REDUCTIONS.format(fold, low, whole))
    if "store_fence" in function:
        parts.append(_FENCE)
    sizes = [
        f"constexpr int64_t {n} = {v};\n"
        for n, v in (("CHUNK", CHUNK), ("LANES", lanes))
        if n in function
    ]
    return "".join([*parts, "\n" if sizes else "", *sizes, "\n", function])


def print_cpp(loop: Loop, name: str, options: Options) -> str | Refused:
    """The loop as C++; a `Refused` where it has no schedule."""
    try:
        return Printer(loop, name, options).text()
    except Refused as refusal:
        return refusal

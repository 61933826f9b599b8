"""Prints the statistics of columns as Triton: parts of every column, then a kernel that joins them.

A tensor is seen as outer x columns x inner. Deviations are taken from a first guess at each part's
mean, in the tensor's own precision and in short chains; parts are joined in double by Chan's
formula, always in the same order, so the result is the same to the bit every time.
"""

from dataclasses import dataclass

from knowledge.loops.spelling import indented
from knowledge.loops.triton import call_lines
from knowledge.loops.triton_mathematics import filled
from knowledge.patterns.column_statistics.columns import BatchNorm, Statistics

# Programs enough to fill a large device, and the longest chain of additions in one lane.
PROGRAMS, CHAIN = 2048, 64
TILE = 1024
LANES = 64
# Parts times columns that one program of the second kernel joins.
JOINED = 2048

_PLANES = """
@triton.jit
def NAME_parts(
    x, means, squares, total, columns, INNER: tl.constexpr, BLOCK: tl.constexpr,
):
    column, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    lane = tl.arange(0, BLOCK)
    first = part.to(tl.int64) * total // parts
    last = (part.to(tl.int64) + 1) * total // parts
    at = first + lane
    value = tl.load(
        x + (at // INNER * columns + column) * INNER + at % INNER, mask=at < last, other=0.0
    ).to({type})
    # The deviations from a number near the mean have squares that cost no digits.
    guess = tl.sum(value, axis=0) / tl.minimum(last - first, BLOCK).to({type})
    guess = tl.where(tl.abs(guess) < float("inf"), guess, 0.0)
    once = tl.zeros((BLOCK,), {type})
    twice = tl.zeros((BLOCK,), {type})
    for begin in range(first, last, BLOCK):
        at = begin + lane
        value = tl.load(
            x + (at // INNER * columns + column) * INNER + at % INNER, mask=at < last, other=0.0
        ).to({type})
        apart = tl.where(at < last, value - guess, 0.0)
        once += apart
        twice += apart * apart
    count = (last - first).to(tl.float64)
    once_all = tl.sum(once.to(tl.float64), axis=0)
    spread = tl.sum(twice.to(tl.float64), axis=0) - once_all * once_all / count
    spread = tl.maximum(spread, 0.0, propagate_nan=tl.PropagateNan.ALL)
    mean = guess.to(tl.float64) + once_all / count
    tl.store(means + part * columns + column, mean)
    tl.store(squares + part * columns + column, spread)
"""

_LANES = """
@triton.jit
def NAME_parts(
    x, means, squares, total, columns, BLOCK: tl.constexpr, LANES: tl.constexpr,
):
    part, parts = tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    in_column = column < columns
    row = tl.arange(0, BLOCK)[:, None]
    first = part.to(tl.int64) * total // parts
    last = (part.to(tl.int64) + 1) * total // parts
    inside = (first + row < last) & in_column[None, :]
    value = tl.load(
        x + (first + row) * columns + column[None, :], mask=inside, other=0.0
    ).to({type})
    # The deviations from a number near the mean have squares that cost no digits.
    guess = tl.sum(value, axis=0) / tl.minimum(last - first, BLOCK).to({type})
    guess = tl.where(tl.abs(guess) < float("inf"), guess, 0.0)
    once = tl.zeros((BLOCK, LANES), {type})
    twice = tl.zeros((BLOCK, LANES), {type})
    for begin in range(first, last, BLOCK):
        inside = (begin + row < last) & in_column[None, :]
        value = tl.load(
            x + (begin + row) * columns + column[None, :], mask=inside, other=0.0
        ).to({type})
        apart = tl.where(inside, value - guess[None, :], 0.0)
        once += apart
        twice += apart * apart
    count = (last - first).to(tl.float64)
    once_all = tl.sum(once.to(tl.float64), axis=0)
    spread = tl.sum(twice.to(tl.float64), axis=0) - once_all * once_all / count
    spread = tl.maximum(spread, 0.0, propagate_nan=tl.PropagateNan.ALL)
    mean = guess.to(tl.float64) + once_all / count
    tl.store(means + part * columns + column, mean, mask=in_column)
    tl.store(squares + part * columns + column, spread, mask=in_column)
"""

_JOINED = """
part = tl.arange(0, PARTS)[:, None]
c = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
in_column = c < columns
inside = (part < parts) & in_column[None, :]
each = (part.to(tl.int64) + 1) * total // parts - part.to(tl.int64) * total // parts
each = tl.where(part < parts, each, 0).to(tl.float64)
mean_of_part = tl.load(means + part * columns + c[None, :], mask=inside, other=0.0)
square_of_part = tl.load(squares + part * columns + c[None, :], mask=inside, other=0.0)
count = tl.sum(each, axis=0)
mean = tl.sum(each * mean_of_part, axis=0) / count
apart = mean_of_part - mean[None, :]
square = tl.sum(tl.where(inside, square_of_part + each * apart * apart, 0.0), axis=0)
"""


@dataclass(frozen=True)
class Formulas:
    """Names of the tensors that a kernel takes besides `x`, and statements that store its results.

    In the statements, `mean`, `square` (the sum of squared deviations) and `count` are a column's.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    lines: tuple[str, ...]


def _stored(name: str, text: str) -> str:
    return f"tl.store({name} + c, {text}, mask=in_column)"


def _loaded(name: str) -> str:
    return f"tl.load({name} + c, mask=in_column).to(tl.float64)"


def norm_formulas(norm: BatchNorm) -> Formulas:
    """Mean, scale, bias, and the new running statistics, of a batch norm in training."""
    inputs, outputs = [], ["mean_of", "scale_of"]
    weight = "1.0"
    if norm.weight is not None:
        inputs.append("weight")
        weight = _loaded("weight")
    epsilon = filled(norm.epsilon, "double")
    lines = [
        _stored("mean_of", "mean"),
        _stored("scale_of", f"{weight} / tl.sqrt(square / count + {epsilon})"),
    ]
    if norm.bias is not None:
        inputs.append("bias")
        outputs.append("offset")
        lines.append("tl.store(offset + c, tl.load(bias + c, mask=in_column), mask=in_column)")
    if norm.running is not None:
        inputs += ["running_mean", "running_variance"]
        outputs += ["new_mean", "new_variance"]
        lines += [
            f"kept = {filled(1 - norm.momentum, 'double')}",
            f"taken = {filled(norm.momentum, 'double')}",
            _stored("new_mean", f"kept * {_loaded('running_mean')} + taken * mean"),
            f"variance = kept * {_loaded('running_variance')} + taken * (square / (count - 1.0))",
            _stored("new_variance", "variance"),
        ]
    return Formulas(tuple(inputs), tuple(outputs), tuple(lines))


def formulas(one: Statistics) -> Formulas:
    """The results of a reduction around columns."""
    # Too few elements have no variance: the quotient's sign must not turn it into infinity.
    left = f"tl.maximum(count - {one.correction!r}, 0.0)" if one.correction else "count"
    variance = f"square / {left}"
    # Welford's mean, which the library returns here, is NaN once an infinity has come by.
    mean = "tl.where(square != square, square, mean)"
    results = {
        "sum": ["mean * count"],
        "mean": ["mean"],
        "var": [variance],
        "std": [f"tl.sqrt({variance})"],
        "var_mean": [variance, mean],
        "std_mean": [f"tl.sqrt({variance})", mean],
    }[one.kind]
    names = tuple(f"out{at}" for at in range(len(results)))
    lines = (_stored(name, text) for name, text in zip(names, results, strict=True))
    return Formulas((), names, tuple(lines))


def print_statistics(name: str, dtype: str, given: Formulas, planes: bool, note: str) -> str:
    """The two kernels and their launcher.

    Args:
        name: the launcher's, after an underscore.
        dtype: of all tensors.
        given: what is made of each column's moments.
        planes: whether something is reduced inside the columns, or they are neighbours.
        note: what the launcher's docstring says.
    """
    wide = "tl.float64" if dtype == "float64" else "tl.float32"
    parts = (_PLANES if planes else _LANES).replace("NAME", name).replace("{type}", wide)
    tensors = [*given.inputs, *given.outputs]
    taken = ["means", "squares", *tensors, "total", "columns", "parts"]
    constants = ["PARTS: tl.constexpr", "COLUMNS: tl.constexpr"]
    head = call_lines(f"def {name}_finish", [*taken, *constants], ":")
    body = [*_JOINED.strip().splitlines(), *given.lines]
    finish = ["@triton.jit", *head, *indented(body)]
    launcher = [
        *call_lines(f"def _{name}", ["x", *tensors, "outer", "columns", "inner"], ":"),
        *indented([f'"""{note}."""', *_launched(name, planes, taken)]),
    ]
    return "\n".join([parts.strip("\n"), "", "", *finish, "", "", *launcher]) + "\n"


def _launched(name: str, planes: bool, taken: list[str]) -> list[str]:
    """The launcher's statements."""
    if planes:
        lines = [
            "total, strips = outer * inner, columns",
            f"block = min({TILE}, triton.next_power_of_2(total))",
        ]
        arguments, constants = (
            ["x", "means", "squares", "total", "columns"],
            ["inner", "BLOCK=block"],
        )
    else:
        lines = [
            f"lanes = min({LANES}, triton.next_power_of_2(columns))",
            "total, strips = outer, triton.cdiv(columns, lanes)",
            f"block = min({TILE} // lanes, triton.next_power_of_2(total))",
        ]
        arguments = ["x", "means", "squares", "total", "columns"]
        constants = ["BLOCK=block", "LANES=lanes"]
    lines += [
        f"parts = max(triton.cdiv({PROGRAMS}, strips), triton.cdiv(total, {CHAIN} * block))",
        "parts = min(parts, triton.cdiv(total, block), 65535)",
        "means = torch.empty(parts * columns, dtype=torch.float64, device=x.device)",
        "squares = torch.empty_like(means)",
        *call_lines(f"{name}_parts[(strips, parts)]", [*arguments, *constants], ""),
        "width = triton.next_power_of_2(parts)",
        f"together = max(1, {JOINED} // width)",
        *call_lines(
            f"{name}_finish[(triton.cdiv(columns, together),)]",
            [*taken, "PARTS=width", "COLUMNS=together"],
            "",
        ),
    ]
    return lines

"""Prints attention in one pass over the keys as Triton: scores live in registers alone.

A program has a block of queries of one head. Sizes that are no powers of two are padded by masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isinf
from typing import Literal

from knowledge.loops.spelling import indented
from knowledge.loops.triton import call_lines
from knowledge.loops.triton_tail import jit_function
from knowledge.patterns.attention.code import SIZES, Form, Mask, dense_steps

LOG2_E = 1.4426950408889634
OUT_STRIDES = ("out_batch", "out_window", "out_head", "out_group", "out_row", "out_column")
# How many there are of each axis of a result.
_COUNTS = {
    "outer": "(batches // windows)", "window": "windows", "head": "kv_heads", "group": "groups",
    "query": "queries", "width": "width",
}  # fmt: skip


@dataclass(frozen=True)
class Blocks:
    """What one program takes, and how it multiplies.

    `depth` and `width` are padded. `skips` says that hidden later keys are not even multiplied by
    zero.
    """

    rows: int
    keys: int
    depth: int
    width: int
    warps: int
    stages: int
    precision: str
    is_float32: bool
    skips: bool


@dataclass(frozen=True)
class _Attention:
    form: Form
    blocks: Blocks
    strides: tuple[str, ...]

    @property
    def tensors(self) -> list[str]:
        """Parameters of the kernel that are tensors."""
        masks = [f"mask{number}" for number in range(len(self.form.masks))]
        return ["q", "k", "v", *masks, *(["sink"] if self.form.sink else []), "out"]

    @property
    def folds_scale(self) -> bool:
        """Whether scores are compared as they come, and scaled in the exponent."""
        form = self.form
        plain = form.cap is None and not form.sink and all(m.kind == "keep" for m in form.masks)
        return plain and (form.factor is None or form.factor > 0)

    @property
    def numbers(self) -> list[str]:
        """Parameters of the kernel that are sizes and strides."""
        return [*SIZES[1:], *self.strides, *OUT_STRIDES]

    @property
    def factor(self) -> str:
        """The factor of the scores."""
        return "factor" if self.form.factor is None else _number(self.form.factor)

    def place(self, operand: str) -> str:
        """Where a tensor's part for this program's batch and head begins."""
        steps = {"batch": "outer", "window": "window", "head": "kv_head", "group": "group"}
        found = [f"{at} * {operand}_{step}" for step, at in steps.items()
                 if f"{operand}_{step}" in self.numbers]  # fmt: skip
        return " + ".join([operand, *found])

    def along(self, operand: str, step: str, at: str) -> str:
        """The way to a place along a row or column, with a sign before it; empty if it has none."""
        name = f"{operand}_{step}"
        return f" + {at} * {name}" if name in self.numbers else ""


def print_attention(
    form: Form, blocks: Blocks, name: str, strides: Sequence[str], note: str
) -> str:
    """The kernel of an attention and what launches it, on q, k, v, masks, the sink, and out.

    `strides` are the names of those sizes that come after the problem's own.
    """
    given = _Attention(form, blocks, tuple(strides))
    scale = ["factor"] if form.factor is None else []
    constants = ["ROWS", "KEYS", "DEPTH", "WIDTH"]
    parameters = [*given.tensors, *given.numbers, *scale, *constants]
    kernel = jit_function(f"{name}_kernel", parameters, _kernel(given))
    return "\n".join([*kernel, *_launcher(given, name, note)]) + "\n"


def _kernel(given: _Attention) -> list[str]:
    """The body of the kernel."""
    # Of causal attention the last rows have the most keys: they go first.
    at = "blocks - 1 - task % blocks" if given.form.causal else "task % blocks"
    return [
        "task = tl.program_id(0)",
        "blocks = tl.cdiv(queries, ROWS)",
        f"at = {at}",
        "head = (task // blocks % (kv_heads * groups)).to(tl.int64)",
        "batch = (task // blocks // (kv_heads * groups)).to(tl.int64)",
        "kv_head = head // groups",
        "group = head % groups",
        "outer = batch // windows",
        "window = batch % windows",
        "row = at * ROWS + tl.arange(0, ROWS)",
        "key = tl.arange(0, KEYS)",
        "deep = tl.arange(0, DEPTH)",
        "col = tl.arange(0, WIDTH)",
        "in_row = (row < queries)[:, None]",
        "row_at = row.to(tl.int64)[:, None]",
        f"q_at = {given.place('q')} + row_at * q_row + deep[None, :] * q_column",
        "x = tl.load(q_at, mask=in_row & (deep < depth)[None, :], other=0.0)",
        f"k_at = {given.place('k')} + deep[:, None] * k_column",
        "k_at += key.to(tl.int64)[None, :] * k_row",
        f"v_at = {given.place('v')} + col[None, :] * v_column",
        "v_at += key.to(tl.int64)[:, None] * v_row",
        *(line for number in range(len(given.form.masks)) for line in _mask_place(given, number)),
        *_start(given),
        "acc = tl.zeros((ROWS, WIDTH), tl.float32)",
        *_loops(given),
        *_ending(given),
    ]


def _mask_place(given: _Attention, number: int) -> list[str]:
    name = f"mask{number}"
    # Whatever it is broadcast over, the pointers are a tile.
    row = given.along(name, "row", "row_at") or " + row_at * 0"
    column = given.along(name, "column", "key.to(tl.int64)[None, :]")
    return [f"{name}_at = {given.place(name)}{row}{column or ' + key[None, :] * 0'}"]


def _start(given: _Attention) -> list[str]:
    """The largest score and the sum so far: those of the sink, if there is one."""
    if not given.form.sink:
        return [
            'top = tl.full((ROWS,), float("-inf"), tl.float32)',
            "total = tl.zeros((ROWS,), tl.float32)",
        ]
    row = given.along("sink", "row", "row.to(tl.int64)") or " + row * 0"
    factor = f" * {_number(given.form.sink_factor)}" if given.form.sink_factor != 1.0 else ""
    return [
        f"sink_at = {given.place('sink')}{row}",
        f"top = tl.load(sink_at, mask=row < queries, other=0.0).to(tl.float32){factor}",
        "total = tl.full((ROWS,), 1.0, tl.float32)",
    ]


def _loops(given: _Attention) -> list[str]:
    """The passes over the keys: first those that every row of the block sees whole."""
    if not given.form.causal:
        return ["for start in range(0, keys, KEYS):", *indented(_step(given, "edge"))]
    end = "tl.minimum(keys, at * ROWS + ROWS)" if given.blocks.skips else "keys"
    return [
        "seen = tl.minimum(keys, at * ROWS) // KEYS * KEYS",
        "for start in range(0, seen, KEYS):",
        *indented(_step(given, "inside")),
        f"for start in range(seen, {end}, KEYS):",
        *indented(_step(given, "diagonal")),
    ]


def _step(given: _Attention, where: Literal["inside", "edge", "diagonal"]) -> list[str]:
    """One block of keys. `inside` all are there and seen; at an `edge` some may not be there."""
    in_key = "" if where == "inside" else "in_key"
    precision = f', input_precision="{given.blocks.precision}"' if given.blocks.is_float32 else ""
    lines = [] if where == "inside" else ["in_key = start + key < keys"]
    k_mask = "(deep < depth)[:, None]" + (" & in_key[None, :]" if in_key else "")
    v_mask = "(col < width)[None, :]" + (" & in_key[:, None]" if in_key else "")
    lines += [
        f"y = tl.load(k_at, mask={k_mask}, other=0.0)",
        f"scores = tl.dot(x, y{precision})",
        *_masked(given),
    ]
    if in_key:
        seen = "in_key[None, :]"
        if where == "diagonal":
            seen += " & (start + key[None, :] <= row[:, None])"
        lines.append(f'scores = tl.where({seen}, scores, float("-inf"))')
    lines += [
        "new = tl.maximum(top, tl.max(scores, axis=1))",
        # A row that has seen no key yet: minus infinity less itself would be NaN.
        'safe = tl.where(new == float("-inf"), 0.0, new)',
        *_exponentials(given),
        "total = total * shrink + tl.sum(part, axis=1)",
        f"z = tl.load(v_at, mask={v_mask}, other=0.0)",
        f"acc = tl.dot(part.to(z.dtype), z, acc * shrink[:, None]{precision})",
        "top = new",
        "k_at += KEYS * k_row",
        "v_at += KEYS * v_row",
    ]
    steps = [f"mask{number}" for number in range(len(given.form.masks))]
    steps = [name for name in steps if f"{name}_column" in given.strides]
    return [*lines, *(f"{name}_at += KEYS * {name}_column" for name in steps)]


def _exponentials(given: _Attention) -> list[str]:
    """The weights of this block, and by how much those so far shrink, by powers of two."""
    base = f"{LOG2_E}" if not given.folds_scale else f"{given.factor} * {LOG2_E}"
    if given.folds_scale and given.form.factor is not None:
        base = repr(given.form.factor * LOG2_E)
    lines = [f"shrink = tl.exp2((top - safe) * ({base}))"]
    if given.blocks.is_float32:
        # The difference first: where it is small, nothing of it is lost.
        return [*lines, f"part = tl.exp2((scores - safe[:, None]) * ({base}))"]
    return [*lines, f"part = tl.exp2(scores * ({base}) - (safe * ({base}))[:, None])"]


def _masked(given: _Attention) -> list[str]:
    """Scores scaled, capped and masked, as far as the exponent does not see to it."""
    form = given.form
    lines = [] if given.folds_scale else [f"scores = scores * {given.factor}"]
    if form.cap is not None:
        # cap * tanh(x) = cap - 2 cap / (exp(2 x) + 1).
        cap, twice = _number(form.cap), _number(2.0 * form.cap)
        lines.append(f"scores = {cap} - {twice} / (tl.exp2(scores * {2.0 * LOG2_E}) + 1.0)")
    for number, mask in enumerate(form.masks):
        lines += _one_mask(f"mask{number}", mask)
    return lines


def _one_mask(name: str, mask: Mask) -> list[str]:
    other = "1" if mask.kind == "keep" else "0"
    line = f"hides = tl.load({name}_at, mask=in_row & in_key[None, :], other={other})"
    if mask.kind == "add":
        factor = f"{_number(mask.factor)} * " if mask.factor != 1.0 else ""
        return [line, f"scores += {factor}hides.to(tl.float32)"]
    if mask.kind == "keep":
        hidden = 'scores - float("inf")'
        return [line, f"scores = tl.where(hides != 0, scores, {hidden})"]
    there, fill = ("!= 0" if mask.where else "== 0"), _number(mask.fill)
    return [line, f"scores = tl.where(hides {there}, {fill}, scores)"]


def _ending(given: _Attention) -> list[str]:
    lines = ["result = acc / total[:, None]"]
    if given.form.empty_is_zero:
        # No key seen leaves no weight; a weight of NaN is not 0.
        lines.append("result = tl.where((total == 0.0)[:, None], 0.0, result)")
    return [
        *lines,
        f"out_at = {given.place('out')} + row_at * out_row + col[None, :] * out_column",
        "tl.store(out_at, result, mask=in_row & (col < width)[None, :])",
    ]


def _launcher(given: _Attention, name: str, note: str) -> list[str]:
    blocks = given.blocks
    steps = dense_steps(given.form.order, _COUNTS)
    scale = ["depth**-0.5"] if given.form.factor is None else []
    arguments = [
        *given.tensors, *SIZES[1:], *given.strides, *steps, *scale, f"ROWS={blocks.rows}",
        f"KEYS={blocks.keys}", f"DEPTH={blocks.depth}", f"WIDTH={blocks.width}",
        f"num_warps={blocks.warps}", f"num_stages={blocks.stages}",
    ]  # fmt: skip
    grid = f"batches * kv_heads * groups * triton.cdiv(queries, {blocks.rows})"
    body = [f'"""{note}."""', *call_lines(f"{name}_kernel[({grid},)]", arguments, "")]
    numbers = [*SIZES, *given.strides]
    return [*call_lines(f"def _{name}", [*given.tensors, *numbers], ":"), *indented(body)]


def _number(value: float) -> str:
    if isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return repr(value)

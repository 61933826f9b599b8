"""Prints attention in one pass over the keys as Triton: scores live in registers alone.

A program has a block of queries of one head. Sizes that are no powers of two are padded by masks.
"""

from dataclasses import dataclass
from math import isinf
from typing import Literal

from knowledge.loops.spelling import indented
from knowledge.loops.triton import call_lines
from knowledge.loops.triton_tail import jit_function
from knowledge.patterns.attention.code import Form

LOG2_E = 1.4426950408889634
SIZES = ("batches", "heads", "kv_heads", "queries", "keys", "depth", "width")
STRIDES = tuple(
    f"{operand}_{step}" for operand in "qkv" for step in ("batch", "head", "row", "column")
)
MASK_STRIDES = ("mask_batch", "mask_head", "mask_row", "mask_column")
OUT_STRIDES = ("out_batch", "out_head", "out_row")


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

    @property
    def has_mask(self) -> bool:
        """Whether a tensor says what is hidden."""
        return self.form.mask in ("add", "fill", "keep")

    @property
    def folds_scale(self) -> bool:
        """Whether scores are compared as they come, and scaled in the exponent."""
        plain = self.form.mask in ("none", "causal", "keep")
        return plain and (self.form.factor is None or self.form.factor > 0)

    @property
    def numbers(self) -> list[str]:
        """Parameters of the kernel that are sizes and strides."""
        return [*SIZES[1:], *STRIDES, *(MASK_STRIDES if self.has_mask else ()), *OUT_STRIDES]

    @property
    def factor(self) -> str:
        """The factor of the scores."""
        return "factor" if self.form.factor is None else _number(self.form.factor)


def print_attention(form: Form, blocks: Blocks, name: str, note: str) -> str:
    """The kernel of an attention and what launches it, on q, k, v, the mask if any, and out."""
    given = _Attention(form, blocks)
    tensors = ["q", "k", "v", *(["mask"] if given.has_mask else []), "out"]
    scale = ["factor"] if form.factor is None else []
    constants = ["ROWS", "KEYS", "DEPTH", "WIDTH"]
    parameters = [*tensors, *given.numbers, *scale, *constants]
    kernel = jit_function(f"{name}_kernel", parameters, _kernel(given))
    return "\n".join([*kernel, *_launcher(given, name, note, tensors)]) + "\n"


def _kernel(given: _Attention) -> list[str]:
    """The body of the kernel."""
    causal = given.form.mask == "causal"
    # Of causal attention the last rows have the most keys: they go first.
    at = "blocks - 1 - task % blocks" if causal else "task % blocks"
    lines = [
        "task = tl.program_id(0)",
        "blocks = tl.cdiv(queries, ROWS)",
        f"at = {at}",
        "head = (task // blocks % heads).to(tl.int64)",
        "batch = (task // blocks // heads).to(tl.int64)",
        "kv_head = head // (heads // kv_heads)",
        "row = at * ROWS + tl.arange(0, ROWS)",
        "key = tl.arange(0, KEYS)",
        "deep = tl.arange(0, DEPTH)",
        "col = tl.arange(0, WIDTH)",
        "in_row = (row < queries)[:, None]",
        "row_at = row.to(tl.int64)[:, None]",
        "q_at = q + batch * q_batch + head * q_head + row_at * q_row + deep[None, :] * q_column",
        "x = tl.load(q_at, mask=in_row & (deep < depth)[None, :], other=0.0)",
        "k_at = k + batch * k_batch + kv_head * k_head + deep[:, None] * k_column",
        "k_at += key.to(tl.int64)[None, :] * k_row",
        "v_at = v + batch * v_batch + kv_head * v_head + col[None, :] * v_column",
        "v_at += key.to(tl.int64)[:, None] * v_row",
    ]
    if given.has_mask:
        lines += [
            "mask_at = mask + batch * mask_batch + head * mask_head + row_at * mask_row",
            "mask_at += key.to(tl.int64)[None, :] * mask_column",
        ]
    lines += [
        'top = tl.full((ROWS,), float("-inf"), tl.float32)',
        "total = tl.zeros((ROWS,), tl.float32)",
        "acc = tl.zeros((ROWS, WIDTH), tl.float32)",
        *_loops(given),
        *_ending(given),
    ]
    return lines


def _loops(given: _Attention) -> list[str]:
    """The passes over the keys: first those that every row of the block sees whole."""
    if given.form.mask != "causal":
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
    return [*lines, *(["mask_at += KEYS * mask_column"] if given.has_mask else [])]


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
    """Scores scaled and masked, as far as the exponent does not see to it."""
    form = given.form
    lines = [] if given.folds_scale else [f"scores = scores * {given.factor}"]
    if not given.has_mask:
        return lines
    other = "1" if form.mask == "keep" else "0"
    lines.append(f"hides = tl.load(mask_at, mask=in_row & in_key[None, :], other={other})")
    if form.mask == "add":
        factor = f"{_number(form.mask_factor)} * " if form.mask_factor != 1.0 else ""
        return [*lines, f"scores += {factor}hides.to(tl.float32)"]
    if form.mask == "keep":
        hidden = 'scores - float("inf")'
        return [*lines, f"scores = tl.where(hides != 0, scores, {hidden})"]
    there, fill = ("!= 0" if form.fill_where else "== 0"), _number(form.fill)
    return [*lines, f"scores = tl.where(hides {there}, {fill}, scores)"]


def _ending(given: _Attention) -> list[str]:
    lines = ["result = acc / total[:, None]"]
    if given.form.empty_is_zero:
        # No key seen leaves no weight; a weight of NaN is not 0.
        lines.append("result = tl.where((total == 0.0)[:, None], 0.0, result)")
    return [
        *lines,
        "out_at = out + batch * out_batch + head * out_head + row_at * out_row + col[None, :]",
        "tl.store(out_at, result, mask=in_row & (col < width)[None, :])",
    ]


def _launcher(given: _Attention, name: str, note: str, tensors: list[str]) -> list[str]:
    blocks = given.blocks
    strides = {
        True: ("queries * heads * width", "width", "heads * width"),
        False: ("heads * queries * width", "queries * width", "width"),
    }[given.form.rows_first]
    numbers = [*SIZES, *given.numbers[len(SIZES) - 1 : -len(OUT_STRIDES)]]
    scale = ["depth**-0.5"] if given.form.factor is None else []
    arguments = [
        *tensors, *given.numbers[: -len(OUT_STRIDES)], *strides, *scale, f"ROWS={blocks.rows}",
        f"KEYS={blocks.keys}", f"DEPTH={blocks.depth}", f"WIDTH={blocks.width}",
        f"num_warps={blocks.warps}", f"num_stages={blocks.stages}",
    ]  # fmt: skip
    grid = f"batches * heads * triton.cdiv(queries, {blocks.rows})"
    body = [f'"""{note}."""', *call_lines(f"{name}_kernel[({grid},)]", arguments, "")]
    return [*call_lines(f"def _{name}", [*tensors, *numbers], ":"), *indented(body)]


def _number(value: float) -> str:
    if isinf(value):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return repr(value)

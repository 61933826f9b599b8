"""The C++ of attention in one pass over the keys: no matrix of scores ever leaves the cache.

Flash attention (Dao et al., 2022) with the softmax of Milakov and Gimelshein (2018), which keeps a
running maximum and sum. Scores are held transposed, a vector of queries for each key, so that
maxima, sums and both products run along whole vectors.
"""

from dataclasses import dataclass
from math import inf, isinf
from typing import Literal

from knowledge.loops.mathematics import helpers
from knowledge.patterns.attention.cpp import BODY, CAUSAL, INCLUDES, NO_MASK, TENSOR
from knowledge.tiles import INTRINSICS, tile_cpp

Masking = Literal["none", "causal", "add", "fill", "keep"]


@dataclass(frozen=True)
class Form:
    """What is compiled in of an attention.

    `mask` says what stands between products and softmax: nothing; `causal`, later keys hidden; an
    `add`ed tensor, times `mask_factor`; `fill`, the value `fill` where a boolean tensor equals
    `fill_where`; or `keep`, minus infinity added where a boolean tensor is false. `factor` scales
    the product; None stands for one over the root of the depth. `empty_is_zero`: a query that sees
    no key gives zeros, not NaN. `rows_first`: results lie as (batch, row, head, column).
    `key_tiles` times the tile's rows are the keys of one step.
    """

    mask: Masking = "none"
    factor: float | None = 1.0
    mask_factor: float = 1.0
    fill: float = -inf
    fill_where: bool = True
    empty_is_zero: bool = False
    rows_first: bool = False
    key_tiles: int = 8
    dtype: str = "float32"


_MAGNITUDES = "std::isfinite(step.value_size) && step.key_size * s.q_size * p.depth < 1e38f"


def source(form: Form, name: str) -> str:
    """The translation unit; its function takes q, k, v, the mask if any, out, sizes, strides."""
    has_tensor = form.mask in ("add", "fill", "keep")
    kind = "element" if form.mask == "add" else "uint8_t"
    rows_first = "width, heads * width" if form.rows_first else "queries * width, width"
    values = {
        "MASKING": _masking(form),
        "KEY_TILES": str(form.key_tiles),
        "NAME": name,
        "MASK_PARAMETER": f"const {kind}* mask, " if has_tensor else "",
        "MASK_STRIDES": _MASK_STRIDES if has_tensor else "",
        "MASK_FIELDS": _MASK_FIELDS if has_tensor else "",
        "MASK_TYPE": kind,
        "MASK_VALUE": f"value_of({_MASK_PLACE})" if form.mask == "add" else f"*({_MASK_PLACE})",
        "OUT_STRIDES": rows_first,
        "SCALE": "1.0f / std::sqrt(static_cast<float>(depth))"
        if form.factor is None else literal(form.factor),
    }  # fmt: skip
    flag = f"constexpr bool EMPTY_IS_ZERO = {str(form.empty_is_zero).lower()};"
    text = f"{tile_cpp(form.dtype)}{flag}{BODY}"
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    includes = INCLUDES + (INTRINSICS if form.dtype == "float16" else "")
    return includes + helpers(text, inline=True) + text


_MASK_PLACE = "mask + i * p.at_mask.row + j * p.at_mask.column"
_MASK_STRIDES = """,
        int64_t mask_batch, int64_t mask_head, int64_t mask_row, int64_t mask_column"""
_MASK_FIELDS = """    p.mask = mask;
    p.at_mask = {mask_batch, mask_head, mask_row, mask_column};
"""


def _masking(form: Form) -> str:
    if form.mask in ("none", "causal"):
        return NO_MASK if form.mask == "none" else CAUSAL
    truth = "row[j] != 0"
    nothing, everything, hide = {
        "add": (
            "value_of(row + j) == 0.0f", "value_of(row + j) == -INFINITY",
            f"score += {literal(form.mask_factor)} * m;",
        ),
        "fill": (
            f"({truth}) == {str(not form.fill_where).lower()}",
            f"({truth}) == {str(form.fill_where).lower()}",
            f"if ((m != 0) == {str(form.fill_where).lower()}) score = {literal(form.fill)};",
        ),
        "keep": (truth, f"!({truth})", "if (m == 0) score -= INFINITY;"),
    }[form.mask]  # fmt: skip
    can_skip = _MAGNITUDES
    if form.mask == "fill":
        can_skip = "std::isfinite(step.value_size)" if form.fill == -inf else "false"
    elif form.mask == "add" and form.mask_factor <= 0:
        can_skip = "false"
    parts = {
        "HIDES_NOTHING": nothing, "HIDES_ALL": everything, "HIDE": hide, "CAN_SKIP": can_skip,
    }  # fmt: skip
    text = TENSOR
    for key, value in parts.items():
        text = text.replace(f"@{key}@", value)
    return text


def literal(value: float) -> str:
    """A number as a C++ float."""
    if isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!r}f" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0f"

"""The C++ of attention in one pass over the keys: no matrix of scores ever leaves the cache.

Flash attention (Dao et al., 2022) with the softmax of Milakov and Gimelshein (2018), which keeps a
running maximum and sum. Scores are held transposed, a vector of queries for each key, so that
maxima, sums and both products run along whole vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isinf
from typing import Literal

from knowledge.loops.mathematics import helpers
from knowledge.loops.spelling import STORAGE, loaded
from knowledge.patterns.attention.axes import RESULT
from knowledge.patterns.attention.cpp import BODY, CAUSAL, INCLUDES, MASKED, NO_MASK, TENSOR
from knowledge.tiles import INTRINSICS, TRANSPOSE_CPP, tile_cpp


@dataclass(frozen=True)
class Mask:
    """A tensor that says what becomes of scores.

    `add`ed, times `factor`; `fill`, the value `fill` where it equals `where`; or `keep`, minus
    infinity added where it is false.
    """

    kind: Literal["add", "fill", "keep"]
    dtype: str = "bool"
    factor: float = 1.0
    fill: float = -inf
    where: bool = True

    def scaled(self, factor: float) -> "Mask":
        """The same mask, if scores are scaled after it."""
        return replace(self, factor=self.factor * factor, fill=self.fill * factor)


@dataclass(frozen=True)
class Form:
    """What is compiled in of an attention.

    `factor` scales the product; None stands for one over the root of the depth. With a `cap` it is
    then cap * tanh(product). `causal` hides later keys; `masks` follow one another. A `sink` of
    this type, times `sink_factor`, is one more score for each query, whose value is zero.
    `empty_is_zero`: a query that sees no key gives zeros, not NaN. `order` has the axes of the
    result as they lie. `key_tiles` times the tile's rows are the keys of one step.
    """

    factor: float | None = 1.0
    cap: float | None = None
    causal: bool = False
    masks: tuple[Mask, ...] = ()
    sink: str = ""
    sink_factor: float = 1.0
    empty_is_zero: bool = False
    order: tuple[str, ...] = RESULT
    key_tiles: int = 8
    dtype: str = "float32"


SIZES = ("batches", "windows", "kv_heads", "groups", "queries", "keys", "depth", "width")
STEPS = ("batch", "window", "head", "group", "row", "column")
# How many there are of each axis of a result, and which step along it is meant.
_COUNTS = {
    "outer": "(batches / windows)", "window": "windows", "head": "kv_heads", "group": "groups",
    "query": "queries", "width": "width",
}  # fmt: skip


def source(form: Form, name: str, strides: Sequence[str]) -> str:
    """The translation unit; its function takes q, k, v, masks, the sink if any, out, and sizes.

    `strides` are the names of those sizes that come after the problem's own.
    """
    operands = [f"mask{number}" for number in range(len(form.masks))]
    types = [_type(mask.dtype, form.dtype) for mask in form.masks]
    operands += ["sink"] if form.sink else []
    types += [_type(form.sink, form.dtype)] if form.sink else []
    fields = list(zip(operands, types, strict=True))
    values = {
        "MASKING": _masking(form),
        "KEY_TILES": str(form.key_tiles),
        "NAME": name,
        "PARAMETERS": "".join(f"const {kind}* {operand}, " for operand, kind in fields),
        "STRIDES": ", ".join(f"int64_t {one}" for one in strides),
        "MEMBERS": "".join(f"    const {kind}* {operand};\n" for operand, kind in fields),
        "PLACES": "".join(f", at_{operand}" for operand in operands),
        "GIVEN": "".join(f"    p.{operand} = {operand};\n" for operand in operands)
        + "".join(_place(one, strides) for one in ("q", "k", "v", *operands))
        + f"    p.at_out = {{{', '.join(dense_steps(form.order, _COUNTS))}}};\n",
        "CAP": _CAP.format(cap=literal(form.cap)) if form.cap is not None else "",
        "SINK": _sink(form),
        "SCALE": "1.0f / std::sqrt(static_cast<float>(depth))"
        if form.factor is None else literal(form.factor),
    }  # fmt: skip
    flag = f"constexpr bool EMPTY_IS_ZERO = {str(form.empty_is_zero).lower()};"
    text = filled(f"{tile_cpp(form.dtype)}{TRANSPOSE_CPP}{flag}{BODY}", values)
    is_half = "float16" in (form.dtype, form.sink, *(mask.dtype for mask in form.masks))
    return INCLUDES + (INTRINSICS if is_half else "") + helpers(text, inline=True) + text


def dense_steps(order: Sequence[str], counts: dict[str, str]) -> list[str]:
    """The steps along each axis of a dense result, as products of the counts of those inside it."""
    steps = []
    for axis in RESULT:
        inner = [counts[one] for one in order[order.index(axis) + 1 :]]
        steps.append(" * ".join(inner) or "1")
    return steps


def _type(dtype: str, own: str) -> str:
    return "element" if dtype == own else STORAGE[dtype]


def _place(operand: str, strides: Sequence[str]) -> str:
    names = [f"{operand}_{step}" for step in STEPS]
    given = ", ".join(name if name in strides else "0" for name in names)
    return f"    p.at_{operand} = {{{given}}};\n"


_CAP = """    for (int64_t i = 0; i < count * QUERIES; ++i)
        scores[i] = {cap} * vector_tanh(scores[i]);
"""
_SINK = """    const @TYPE@* sink =
        p.sink + place(p, p.at_sink, batch, head) + first * p.at_sink.row;
    for (int64_t i = 0; i < rows; ++i) {
        s.largest[i] = @FACTOR@ * @VALUE@;
        s.sum[i] = 1.0f;
    }
"""


def _sink(form: Form) -> str:
    """Where sums start: the sink is as a key whose values are zero."""
    if not form.sink:
        return ""
    text = _SINK.replace("@TYPE@", _type(form.sink, form.dtype))
    text = text.replace("@VALUE@", loaded(form.sink, "sink[i * p.at_sink.row]"))
    return text.replace("@FACTOR@", literal(form.sink_factor))


_SEEN = """                const auto* from@NUMBER@ =
                    mask@NUMBER@ + first_row * p.at_mask@NUMBER@.row + done;
                for (int64_t i = 0; i < VECTOR; ++i)
                    seen[@NUMBER@][i] = i < held
                        ? numbers@NUMBER@(from@NUMBER@ + i * p.at_mask@NUMBER@.row) : vector_t{};
                transpose(seen[@NUMBER@]);
"""


def _masking(form: Form) -> str:
    """What hides scores: functions for each mask, and those that call them in order."""
    if not form.masks:
        return CAUSAL if form.causal else NO_MASK
    text, looks, places, apply, seen, apply_seen = "", "", "", "", "", ""
    for number, mask in enumerate(form.masks):
        text += _one_mask(form, number, mask)
        looks += (
            f"    const Hidden by{number} =\n"
            f"        look{number}(p, batch, head, first, rows, key, count);\n"
            f"    if (by{number} == Hidden::all && {_can_skip(form, number)}) return Hidden::all;\n"
        )
        kind, at = _type(mask.dtype, form.dtype), f"p.at_mask{number}"
        places += f"    const {kind}* mask{number} = mask_at{number}(p, batch, head, first, key);\n"
        apply += (
            f"                {{ const auto m = mask{number}[i * {at}.row + j * {at}.column];"
            f" {_hidden(mask)} }}\n"
        )
        seen += _SEEN.replace("@NUMBER@", str(number))
        apply_seen += (
            f"                        {{ const float m = ((const float*)&seen[{number}][k])[i];"
            f" {_hidden(replace(mask, dtype='float32'))} }}\n"
        )
    numbers = range(len(form.masks))
    parts = {
        "LOOKS": looks, "PLACES": places, "APPLY": apply, "SEEN": seen, "APPLY_SEEN": apply_seen,
        "COUNT": str(len(form.masks)),
        "NEIGHBOURS": " && ".join(f"p.at_mask{n}.column == 1" for n in numbers),
        "SOME": " || ".join(f"by{n} != Hidden::nothing" for n in numbers),
        "SAME": " && ".join(f"p.at_mask{n}.row == 0" for n in numbers),
    }  # fmt: skip
    return text + filled(MASKED, parts)


def _one_mask(form: Form, number: int, mask: Mask) -> str:
    truth = "row[j] != 0"
    where = str(mask.where).lower()
    value = loaded(mask.dtype, "row[j]")
    nothing, everything = {
        "add": (f"{value} == 0.0f", f"{value} == -INFINITY"),
        "fill": (f"({truth}) == {str(not mask.where).lower()}", f"({truth}) == {where}"),
        "keep": (truth, f"!({truth})"),
    }[mask.kind]
    parts = {
        "HIDES_NOTHING": nothing, "HIDES_ALL": everything, "NUMBER": str(number),
        "MASK_TYPE": _type(mask.dtype, form.dtype),
        "NUMBER_OF": "row[j]" if mask.dtype == "bool" else value,
        "BELOW": f"{literal(mask.factor)} * {value} < INFINITY" if mask.kind == "add" else "true",
    }  # fmt: skip
    return filled(TENSOR, parts)


def _hidden(mask: Mask) -> str:
    """What becomes of a score where the mask is m."""
    if mask.kind == "add":
        return f"score += {literal(mask.factor)} * {loaded(mask.dtype, 'm')};"
    if mask.kind == "keep":
        return "if (m == 0) score -= INFINITY;"
    where = str(mask.where).lower()
    return f"score = (m != 0) == {where} ? {literal(mask.fill)} : score;"


def filled(text: str, parts: dict[str, str]) -> str:
    """A text with what is compiled in put in its places."""
    for key, found in parts.items():
        text = text.replace(f"@{key}@", found)
    return text


def _can_skip(form: Form, number: int) -> str:
    """When a step that a mask hides whole adds nothing, whatever the other masks do.

    Zero times infinity is not a number, nor is what is added to minus infinity if that is infinite.
    """
    mask = form.masks[number]
    before, after = form.masks[:number], form.masks[number + 1 :]
    if (mask.kind == "fill" and mask.fill != -inf) or (mask.kind == "add" and mask.factor <= 0):
        return "false"
    if any(other.kind == "fill" and other.fill != -inf for other in after):
        return "false"
    values = "std::isfinite(step.value_size)"
    conditions = [values]
    if mask.kind != "fill":
        if any(other.kind == "fill" and other.fill == inf for other in before):
            return "false"
        conditions.append("step.key_size * s.q_size * p.depth < 1e38f")
    others = enumerate(form.masks) if mask.kind != "fill" else enumerate(after, number + 1)
    conditions += [
        f"stays_below{place}(p, batch, head, first, rows, key, count)"
        for place, other in others if other.kind == "add" and place != number
    ]  # fmt: skip
    return " && ".join(conditions)


def literal(value: float) -> str:
    """A number as a C++ float."""
    if isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!r}f" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0f"

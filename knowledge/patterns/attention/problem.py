"""The sizes of an attention as Python expressions, what must hold of them, and what they cost."""

from math import prod

from knowledge.opgraph import OpGraph
from knowledge.patterns.attention.axes import RESULT, Label, Laid
from knowledge.patterns.attention.code import Form
from knowledge.patterns.attention.match import Anchor
from knowledge.program import Check, Size, variable

# What a stride is called, and the axes that it may be along: keys are rows of keys and values.
_ROLES: dict[str, dict[str, str]] = {
    "q": {"row": "query", "column": "depth"},
    "k": {"row": "key", "column": "depth"},
    "v": {"row": "key", "column": "width"},
    "mask": {"row": "query", "column": "key"},
    "sink": {"row": "query"},
}
_LEADING = {"batch": "outer", "window": "window", "head": "head", "group": "group"}


def described(form: Form) -> str:
    """What stands between products and softmax, in words."""
    words = {
        "add": "a mask added to the scores", "fill": "scores filled where a mask says so",
        "keep": "keys kept where a mask says so",
    }  # fmt: skip
    found = ["later keys hidden"] if form.causal else []
    found += ["scores capped"] if form.cap is not None else []
    found += dict.fromkeys(words[mask.kind] for mask in form.masks)
    found += ["a sink beside the keys"] if form.sink else []
    return ", ".join(found) or "every key seen by every query"


def named_operands(anchor: Anchor) -> list[tuple[str, Laid]]:
    """What is read, by the names that the kernel has for it."""
    named = [("q", anchor.q), ("k", anchor.k), ("v", anchor.v)]
    named += [(f"mask{number}", mask) for number, mask in enumerate(anchor.masks)]
    return [*named, *([("sink", anchor.sink)] if anchor.sink else [])]


class _Expressions:
    """Python for the size of each axis: of the first tensor that tells."""

    def __init__(self, anchor: Anchor) -> None:
        self.anchor = anchor
        self.tensors = (anchor.q, anchor.k, anchor.v)

    def _dim(self, label: Label) -> str | None:
        for laid in self.tensors:
            if label in laid.labels:
                return f"{variable(laid.ref)}.shape[{laid.labels.index(label)}]"
        return None

    def axis(self, axis: str) -> str:
        """The size of one axis."""
        if axis not in self.anchor.sizes:
            return "1"
        if found := self._dim((axis,)):
            return found
        whole = self._dim(("head", "group")) if axis == "group" else self._dim(("outer", "window"))
        if axis == "group" and whole:
            return f"{whole} // {self.axis('head')}"
        if axis == "outer" and whole:
            return f"{whole} // {self.anchor.sizes['window']}"
        # Nothing but a view tells how many windows there are.
        return str(self.anchor.sizes[axis])

    def label(self, label: Label) -> str:
        """The size of a dimension that spans some axes."""
        if len(label) > 1 and (found := self._dim(label)):
            return found
        parts = [self.axis(axis) for axis in label]
        if len(parts) == 1:
            return parts[0]
        return " * ".join(f"({part})" if "/" in part else part for part in parts) or "1"


def sizes(anchor: Anchor) -> tuple[Size, ...]:
    """The problem's sizes, then the strides of each operand along what it has of the axes."""
    python = _Expressions(anchor)
    named = {
        "batches": python.label(("outer", "window")), "windows": python.axis("window"),
        "kv_heads": python.axis("head"), "groups": python.axis("group"),
        "queries": python.axis("query"), "keys": python.axis("key"),
        "depth": python.axis("depth"), "width": python.axis("width"),
    }  # fmt: skip
    if "window" not in anchor.sizes:
        named["batches"] = python.axis("outer")
    found = [Size(name=name, expression=expression) for name, expression in named.items()]
    for name, laid in named_operands(anchor):
        for role, axis in (*_LEADING.items(), *_ROLES[name.rstrip("0123456789")].items()):
            stride = _stride(python, laid, axis, is_broadcast=name not in "qkv")
            if stride is not None:
                found.append(Size(name=f"{name}_{role}", expression=stride))
    return tuple(found)


def _stride(python: _Expressions, laid: Laid, axis: str, is_broadcast: bool) -> str | None:
    """Python for the step from one element to the next along an axis; None where there is none."""
    dim = laid.dim(axis)
    if dim is None:
        return None
    name, label = variable(laid.ref), laid.labels[dim]
    stride = f"{name}.stride({dim})"
    inner = label[label.index(axis) + 1 :]
    if inner:
        stride += f" * ({python.label(inner)})"
    return f"({stride} if {name}.shape[{dim}] != 1 else 0)" if is_broadcast else stride


def checks(graph: OpGraph, anchor: Anchor) -> tuple[Check, ...]:
    """That keys, values and masks go with the queries, whatever the sizes are by then."""
    python = _Expressions(anchor)
    q, k, v = (variable(laid.ref) for laid in (anchor.q, anchor.k, anchor.v))
    found = [
        _whole(python, anchor.k, f"the keys {k} do not go with the queries {q}"),
        _whole(python, anchor.v, f"the values {v} do not go with the keys {k}"),
    ]
    for label in anchor.q.labels:
        if len(label) > 1:
            inner = python.axis("head" if label[0] == "head" else label[-1])
            told = "heads" if label[0] == "head" else "batches"
            of = f"those of {k}" if told == "heads" else "the windows"
            found.append(
                Check(
                    left=f"{python.label(label)} % {inner}", right="0",
                    sentence=f"the {told} of {q} are no multiple of {of}",
                )
            )  # fmt: skip
    order = {axis for label in anchor.labels for axis in label}
    found += [
        Check(left=python.axis(axis), right="1", sentence=f"{q} has more than one {axis}")
        for axis in RESULT if axis in anchor.sizes and axis not in order
    ]  # fmt: skip
    others = [*anchor.masks, *([anchor.sink] if anchor.sink else [])]
    return (*found, *(_broadcasts(python, graph, laid) for laid in others))


def _whole(python: _Expressions, laid: Laid, sentence: str) -> Check:
    shape = ", ".join(python.label(label) for label in laid.labels)
    return Check(
        left=f"{variable(laid.ref)}.shape", right=f"torch.Size(({shape}))", sentence=sentence
    )


def _broadcasts(python: _Expressions, graph: OpGraph, laid: Laid) -> Check:
    name = variable(laid.ref)
    fits = [
        f"{name}.shape[{dim}] in (1, {python.label(label)})"
        if label
        else f"{name}.shape[{dim}] == 1"
        for dim, label in reversed(list(enumerate(laid.labels)))
    ]
    return Check(
        left=f"({' and '.join(fits) or 'True'})", right="True",
        sentence=f"the mask {name} can't be broadcast to the scores",
    )  # fmt: skip


def result_shape(anchor: Anchor) -> str:
    """Python for the shape of what is written."""
    python = _Expressions(anchor)
    return f"({', '.join(python.label(label) for label in anchor.labels)})"


def scores(anchor: Anchor) -> int:
    """Scores that are computed at the traced sizes: of a causal attention about half."""
    axes = ("outer", "window", "head", "group", "query", "key")
    seen = prod(anchor.size(axis) for axis in axes)
    return seen // 2 if anchor.form.causal else seen


def flops(anchor: Anchor) -> int:
    """Multiply-adds of both products, as two each."""
    return 2 * scores(anchor) * (anchor.size("depth") + anchor.size("width"))

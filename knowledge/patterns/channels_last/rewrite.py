"""Rewrites the image part of a network for channels-last memory.

Values are brought into this form where a convolution wants one, and out of it where something else
reads them; `layouts.py` has the forms.
"""

from collections.abc import Callable

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import argument, dense, operator
from knowledge.patterns.channels_last.layouts import POINTWISE, Layouts, stem
from knowledge.patterns.channels_last.permutes import PERMUTES, permuted
from knowledge.patterns.column_statistics.columns import BatchNorm, batch_norm_of, statistics
from knowledge.patterns.convolution.window import Call, Window, read_call
from knowledge.patterns.pooling.windows import Pool, pool_of

FOLDED_NORM = "kernelwright.folded_norm.default"
LAYER = "kernelwright.conv_channels_last.default"
POOL = "kernelwright.pool_channels_last.default"

_RESIZED = ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
_OPERANDS = ((1, "weight"), (2, "bias"))


def is_layer(graph: OpGraph, node: Node) -> bool:
    """Whether a call is a convolution of images that can be done in channels-last memory."""
    if operator(node) != "conv2d" or not isinstance(node.result, TensorSpec):
        return False
    specs = [graph.spec_of(ref) for ref in node.refs]
    return (
        all(spec.dtype == "float32" for spec in specs)
        and len(specs[0].shape) == 4
        and 0 not in (*specs[0].shape, *node.spec.shape)
        and specs[0].contiguous
    )


class Rewriter:
    """One pass over a graph, in which the layers named in `layers` become channels-last.

    Those named in `own` too are to be computed by kernels of our own.
    """

    def __init__(
        self, graph: OpGraph, layers: frozenset[str], own: frozenset[str] = frozenset()
    ) -> None:
        self._graph = graph
        self._layers = layers
        self._own = own
        self._layouts = Layouts(graph)
        self.norms: dict[str, BatchNorm] = {}
        self.folded: dict[str, float] = {}
        self.pools: dict[str, Pool] = {}
        self.windows: dict[str, Window] = {}

    def run(self) -> OpGraph:
        """The rewritten graph; its new calls are told about in `norms`, `folded`, ..."""
        for node in self._graph.nodes:
            if node.kind != "call" or not self._turned(node):
                self._layouts.keep(node)
        return self._layouts.rewritten()

    def _turned(self, node: Node) -> bool:
        """Whether a call could be written for channels-last memory, and was."""
        name = operator(node)
        if node.name in self._layers:
            self._layer(node)
            return True
        source = node.args[0] if node.args else None
        if name in _RESIZED and isinstance(source, Ref) and self._wanted(node):
            self._layouts.turn(source)
        if name == "cat":
            return self._join(node)
        if name in POINTWISE:
            return self._pointwise(node)
        if name in PERMUTES and isinstance(source, Ref):
            return permuted(self._layouts, self._layers, node, source)
        if not isinstance(source, Ref) or source not in self._layouts.last:
            return False
        by_name: dict[str, Callable[[Node, Ref], bool]] = {
            "_native_batch_norm_legit_functional": self._trained_norm,
            "_native_batch_norm_legit_no_training": self._fixed_norm,
            "mean": self._mean,
            "dropout": self._nothing,
            **dict.fromkeys(_RESIZED, self._resized),
        }
        if "_pool2d" in name:
            return self._pool(node)
        return name in by_name and by_name[name](node, source)

    def _wanted(self, node: Node) -> bool:
        """Whether only layers want what a call makes, so that it had better be made for them."""
        users = self._graph.users[node.name]
        read = any(ref.ref == node.name for ref in self._graph.outputs)
        return bool(users) and not read and all(self._leads_on(user) for user in users)

    def _leads_on(self, user: Node) -> bool:
        if user.name in self._layers:
            return True
        moved = operator(user) in _RESIZED or (
            operator(user) == "cat" and argument(user, 1, "dim", 0) in (1, -3)
        )
        return moved and self._wanted(user)

    # What kinds of calls become.

    def _layer(self, node: Node) -> None:
        source = node.args[0]
        assert isinstance(source, Ref)
        last = self._layouts.turn(source)
        read = read_call(self._graph, node)
        if node.name in self._own and isinstance(read, Call):
            given = (self._layouts.plain(ref) for ref in node.refs[1:])
            self._layouts.done(node, LAYER, (last, *given))
            self.windows[node.name] = read.window
            return
        if self._is_product(node):
            self._product(node, last)
            return
        rest = tuple(self._layouts.plain_argument(one) for one in node.args[1:])
        self._layouts.by_library(node, last, rest)

    def _is_product(self, node: Node) -> bool:
        """Whether a convolution is a product of pixels and filters: 1x1, one group, no stride."""
        weight = node.args[1]
        assert isinstance(weight, Ref)
        shape = self._graph.spec_of(weight).shape
        numbers = [argument(node, 3, "stride", 1), argument(node, 4, "padding", 0)]
        stride, padding = (one if isinstance(one, list) else [one] for one in numbers)
        return (
            shape[2:] == (1, 1)
            and argument(node, 6, "groups", 1) == 1
            and set(stride) == {1}
            and set(padding) <= {0, "valid"}
        )

    def _product(self, node: Node, last: Ref) -> None:
        given = [argument(node, at, key) for at, key in _OPERANDS]
        weight, bias = map(self._layouts.plain_argument, given)
        spec = self._layouts.spec_of(weight)
        matrix = TensorSpec(shape=spec.shape[:2], dtype=spec.dtype, strides=spec.strides[:2])
        name = f"{node.name}_matrix"
        flat = self._layouts.emit(name, "aten.squeeze.dims", (weight, [2, 3]), matrix)
        self._layouts.done(node, "aten.linear.default", (last, flat, bias))

    def _nothing(self, node: Node, source: Ref) -> bool:
        """Dropout that drops nothing."""
        if len(node.args) > 2 and node.args[2] is False:
            self._layouts.last[Ref(ref=node.name)] = self._layouts.last[source]
            return True
        return False

    def _pointwise(self, node: Node) -> bool:
        if not isinstance(node.result, TensorSpec) or node.spec.dtype != "float32":
            return False
        shape = node.spec.shape
        whole = [ref for ref in node.refs if self._graph.spec_of(ref).shape == shape]
        if len(shape) != 4 or not any(ref in self._layouts.last for ref in whole):
            return False
        if not all(isinstance(one, Ref | bool | int | float | None) for one in node.args):
            return False
        if not all(self._aligns(ref) for ref in node.refs):
            return False
        args = tuple(self._operand(one) if isinstance(one, Ref) else one for one in node.args)
        self._layouts.done(node, node.target, args, node.kwargs)
        return True

    def _aligns(self, ref: Ref) -> bool:
        """Whether an operand broadcasts to channels-last values after a mere view."""
        spec = self._graph.spec_of(ref)
        kind = {"float32", "float64", "int64", "bool"}
        if spec.dtype not in kind or (len(spec.shape) == 4 and spec.dtype != "float32"):
            return False
        return len(spec.shape) in (0, 4) or (len(spec.shape) == 3 and spec.shape[1:] == (1, 1))

    def _operand(self, ref: Ref) -> Ref:
        spec = self._graph.spec_of(ref)
        if len(spec.shape) == 4:
            return self._layouts.turn(ref)
        plain = self._layouts.plain(ref)
        if not spec.shape:
            return plain
        name = f"{stem(ref)}_channels{len(self._layouts.nodes)}"
        return self._layouts.emit(
            name, "aten.squeeze.dims", (plain, [1, 2]), dense(spec.shape[:1], spec.dtype)
        )

    def _join(self, node: Node) -> bool:
        given, dim = node.args[0], argument(node, 1, "dim", 0)
        assert isinstance(given, list)
        refs = [one for one in given if isinstance(one, Ref)]
        specs = [self._graph.spec_of(ref) for ref in refs]
        if dim not in (1, -3) or any(len(spec.shape) != 4 for spec in specs):
            return False
        if not all(spec.dtype == "float32" for spec in specs):
            return False
        last = self._layouts.last
        ready = sum(spec.numel for ref, spec in zip(refs, specs, strict=True) if ref in last)
        if 2 * ready < node.spec.numel and not self._wanted(node):
            return False
        self._layouts.done(node, "aten.cat.default", ([self._layouts.turn(ref) for ref in refs], 3))
        return True

    def _resized(self, node: Node, source: Ref) -> bool:
        self._layouts.by_library(node, self._layouts.last[source], node.args[1:])
        return True

    def _pool(self, node: Node) -> bool:
        pool = pool_of(self._graph, node)
        if not isinstance(pool, Pool) or pool.dims != 2 or pool.divisor:
            return False
        self._layouts.done(node, POOL, (self._layouts.last[pool.source],))
        self.pools[node.name] = pool
        return True

    def _mean(self, node: Node, source: Ref) -> bool:
        """The mean of every channel of every image."""
        dims = argument(node, 1, "dim")
        spec = self._graph.spec_of(source)
        if not isinstance(dims, list) or {int(str(dim)) % 4 for dim in dims} != {2, 3}:
            return False
        if node.spec.dtype != spec.dtype:
            return False
        shape = (spec.shape[0], 1, 1, spec.shape[1])
        kept = len(node.spec.shape) == 4
        name = node.name if kept else f"{node.name}_kept"
        made = self._layouts.emit(
            name, POOL, (self._layouts.last[source],), dense(shape, spec.dtype)
        )
        self.pools[name] = Pool(
            node=name, source=source, made=made, kind="avg", dims=2, dtype=spec.dtype, adaptive=True
        )
        if kept:
            self._layouts.last[Ref(ref=node.name)] = made
        else:
            self._layouts.emit(node.name, "aten.squeeze.dims", (made, [1, 2]), node.spec)
        return True

    def _trained_norm(self, node: Node, source: Ref) -> bool:
        norm = batch_norm_of(self._graph, node)
        if not isinstance(norm, BatchNorm):
            return False
        last = self._layouts.last[source]
        # A kernel's name that starts with two underscores is another one inside a class.
        name = f"{node.name.strip('_')}_stats"
        made = statistics(self._graph, norm, name, last, self._layouts.spec_of(last).shape[3:])
        self._layouts.emit_several(made)
        self.norms[name] = norm
        first = 2 + (norm.bias is not None)
        for at in (0, 1) if norm.running else ():
            was = Ref(ref=node.name, index=3 + at)
            self._layouts.renamed[was] = Ref(ref=name, index=first + at)
        spec = self._layouts.spec_of(last)
        centred = self._layouts.emit(
            f"{node.name}_centred", "aten.sub.Tensor", (last, Ref(ref=name, index=0)), spec
        )
        target = node.name if norm.bias is None else f"{node.name}_scaled"
        y = self._layouts.emit(target, "aten.mul.Tensor", (centred, Ref(ref=name, index=1)), spec)
        if norm.bias is not None:
            y = self._layouts.emit(node.name, "aten.add.Tensor", (y, Ref(ref=name, index=2)), spec)
        self._layouts.last[Ref(ref=node.name, index=0)] = y
        return True

    def _fixed_norm(self, node: Node, source: Ref) -> bool:
        """A batch norm with given statistics: x * scale + shift for every channel."""
        weight, bias, mean, variance = (node.args[at] for at in (1, 2, 3, 4))
        given = [one for one in (mean, variance, weight, bias) if isinstance(one, Ref)]
        epsilon = node.args[6]
        if any(self._graph.spec_of(ref).dtype != "float32" for ref in given):
            return False
        if not isinstance(epsilon, float) or len(given) != 2 + (weight is not None) * 2:
            return False
        channels = self._graph.spec_of(source).shape[1]
        one = dense((channels,), "float32")
        name = f"{node.name}_folded"
        self._layouts.emit_several(
            Node(name=name, kind="call", target=FOLDED_NORM, result=(one, one),
                 args=tuple(self._layouts.plain(ref) for ref in given))
        )  # fmt: skip
        self.folded[name] = epsilon
        spec = self._layouts.spec_of(self._layouts.last[source])
        scaled = self._layouts.emit(
            f"{node.name}_scaled", "aten.mul.Tensor",
            (self._layouts.last[source], Ref(ref=name, index=0)), spec,
        )  # fmt: skip
        y = self._layouts.emit(node.name, "aten.add.Tensor", (scaled, Ref(ref=name, index=1)), spec)
        self._layouts.last[Ref(ref=node.name, index=0)] = y
        return True

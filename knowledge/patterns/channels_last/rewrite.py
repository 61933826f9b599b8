"""Rewrites the image part of a network for channels-last memory.

A value in channels-last memory is, in the rewritten graph, a row-major tensor of shape
(N, H, W, C): fused loops need to know nothing of layouts. What the library computes reads it
through a view of shape (N, C, H, W), and its result is seen through the view back. Values are
brought into this form where a convolution wants one, and out of it where something else reads them.
"""

from collections.abc import Callable
from typing import Any

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import argument, dense, operator, without_dead
from knowledge.patterns.column_statistics.columns import BatchNorm, batch_norm_of, statistics
from knowledge.patterns.convolution.window import Call, Window, read_call
from knowledge.patterns.pooling.windows import Pool, pool_of

TO_CHANNELS_LAST = "kernelwright.to_channels_last.default"
TO_ROW_MAJOR = "kernelwright.to_row_major.default"
FOLDED_NORM = "kernelwright.folded_norm.default"
LAYER = "kernelwright.conv_channels_last.default"
POOL = "kernelwright.pool_channels_last.default"

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_POINTWISE = (
    "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "exp", "log", "sqrt",
    "rsqrt", "square", "pow", "tanh", "sigmoid", "relu", "relu_", "relu6", "hardtanh",
    "hardtanh_", "hardsigmoid", "hardsigmoid_", "hardswish", "hardswish_", "silu", "silu_",
    "gelu", "elu", "elu_", "mish", "leaky_relu", "leaky_relu_", "softplus", "clamp",
    "clamp_min", "clamp_max", "clamp_min_", "clamp_", "add_", "mul_", "sub_", "div_",
)  # fmt: skip
_RESIZED = ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")


def turned(spec: TensorSpec, order: tuple[int, ...]) -> TensorSpec:
    """A tensor seen with its dimensions in another order."""
    shape, strides = (tuple(one[dim] for dim in order) for one in (spec.shape, spec.strides))
    return TensorSpec(shape=shape, dtype=spec.dtype, strides=strides)


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
        self._nodes: list[Node] = []
        self._specs: dict[Ref, TensorSpec] = {}
        # By values of the graph as it was: in channels-last form, as they were, and renamed.
        self._last: dict[Ref, Ref] = {}
        self._first: dict[Ref, Ref] = {}
        self._renamed: dict[Ref, Ref] = {}
        self.norms: dict[str, BatchNorm] = {}
        self.folded: dict[str, float] = {}
        self.pools: dict[str, Pool] = {}
        self.windows: dict[str, Window] = {}

    def run(self) -> OpGraph:
        """The rewritten graph; its new calls are told about in `norms`, `folded`, ..."""
        graph = self._graph
        for node in graph.nodes:
            if node.kind != "call" or not self._turned(node):
                self._keep(node)
        outputs = tuple(self._plain(ref) for ref in graph.outputs)
        mutations = {path: _text(self._plain(_ref(text))) for path, text in graph.mutations.items()}
        return without_dead(
            OpGraph(
                nodes=tuple(self._nodes), outputs=outputs, returns=graph.returns,
                mutations=mutations, training=graph.training,
            )
        )  # fmt: skip

    def _turned(self, node: Node) -> bool:
        """Whether a call could be written for channels-last memory, and was."""
        name = operator(node)
        if node.name in self._layers:
            self._layer(node)
            return True
        source = node.args[0] if node.args else None
        if name in _RESIZED and isinstance(source, Ref) and self._wanted(node):
            self._turn(source)
        if name == "cat":
            return self._join(node)
        if name in _POINTWISE:
            return self._pointwise(node)
        if name in ("permute", "transpose") and isinstance(source, Ref):
            return self._permuted(node, source)
        if not isinstance(source, Ref) or source not in self._last:
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

    # What makes nodes.

    def _emit(
        self, name: str, target: str, args: tuple[Argument, ...], spec: TensorSpec,
        kwargs: dict[str, Argument] | None = None,
    ) -> Ref:  # fmt: skip
        node = Node(
            name=name, kind="call", target=target, args=args, kwargs=kwargs or {}, result=spec
        )
        self._nodes.append(node)
        self._specs[Ref(ref=name)] = spec
        return Ref(ref=name)

    def _spec(self, ref: Ref) -> TensorSpec:
        return self._specs[ref] if ref in self._specs else self._graph.spec_of(ref)

    def _keep(self, node: Node) -> None:
        args = tuple(self._plain_argument(one) for one in node.args)
        kwargs = {key: self._plain_argument(one) for key, one in node.kwargs.items()}
        self._nodes.append(node.model_copy(update={"args": args, "kwargs": kwargs}))

    def _plain_argument(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._plain(value)
        return [self._plain_argument(one) for one in value] if isinstance(value, list) else value

    def _plain(self, ref: Ref) -> Ref:
        """A value as everything outside reads it: (N, C, H, W), row-major."""
        if ref in self._renamed:
            return self._renamed[ref]
        if ref not in self._last or ref in self._first:
            return self._first.get(ref, ref)
        last, spec = self._last[ref], self._graph.spec_of(ref)
        name = f"{_stem(ref)}_rows"
        if _flat(spec):
            made = self._emit(name, "aten.permute.default", (last, list(TO_FIRST)), spec)
        else:
            made = self._emit(name, TO_ROW_MAJOR, (last,), dense(spec.shape, spec.dtype))
        self._first[ref] = made
        return made

    def _turn(self, ref: Ref) -> Ref:
        """A value of four dimensions in channels-last form."""
        if ref not in self._last:
            spec = self._graph.spec_of(ref)
            made = turned(spec, TO_LAST)
            name = f"{_stem(ref)}_last"
            if _flat(spec):
                args: tuple[Argument, ...] = (self._plain(ref), list(TO_LAST))
                self._last[ref] = self._emit(name, "aten.permute.default", args, made)
            else:
                given = (self._plain(ref),)
                self._last[ref] = self._emit(
                    name, TO_CHANNELS_LAST, given, dense(made.shape, spec.dtype)
                )
        return self._last[ref]

    def _seen(self, ref: Ref, name: str) -> Ref:
        """A channels-last value as (N, C, H, W), for the library."""
        args: tuple[Argument, ...] = (ref, list(TO_FIRST))
        return self._emit(name, "aten.permute.default", args, turned(self._spec(ref), TO_FIRST))

    def _by_library(self, node: Node, ref: Ref, rest: tuple[Argument, ...]) -> None:
        """The call as it was, on a view of a channels-last value; its result seen back."""
        source = self._seen(ref, f"{node.name}_from")
        shape = node.spec.shape
        channels_last = turned(
            dense(tuple(shape[dim] for dim in TO_LAST), node.spec.dtype), TO_FIRST
        )
        kwargs = {key: self._plain_argument(one) for key, one in node.kwargs.items()}
        made = self._emit(
            f"{node.name}_library", node.target, (source, *rest), channels_last, kwargs
        )
        args: tuple[Argument, ...] = (made, list(TO_LAST))
        own = Ref(ref=node.name)
        self._last[own] = self._emit(
            node.name, "aten.permute.default", args, turned(channels_last, TO_LAST)
        )

    # What kinds of calls become.

    def _layer(self, node: Node) -> None:
        source = node.args[0]
        assert isinstance(source, Ref)
        last = self._turn(source)
        read = read_call(self._graph, node)
        if node.name in self._own and isinstance(read, Call):
            given = (self._plain(ref) for ref in node.refs[1:])
            self._done(node, LAYER, (last, *given))
            self.windows[node.name] = read.window
            return
        if self._is_product(node):
            self._product(node, last)
            return
        rest = tuple(self._plain_argument(one) for one in node.args[1:])
        self._by_library(node, last, rest)

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
        weight, bias = (self._plain_argument(argument(node, at, key)) for at, key in _OPERANDS)
        spec = self._spec(weight)
        matrix = TensorSpec(shape=spec.shape[:2], dtype=spec.dtype, strides=spec.strides[:2])
        flat = self._emit(f"{node.name}_matrix", "aten.squeeze.dims", (weight, [2, 3]), matrix)
        self._done(node, "aten.linear.default", (last, flat, bias))

    def _done(
        self, node: Node, target: str, args: tuple[Argument, ...],
        kwargs: dict[str, Argument] | None = None,
    ) -> None:  # fmt: skip
        """A call on channels-last values that makes one, under the name of the call it replaces."""
        spec = self._graph.spec_of(_made(node))
        shape = tuple(spec.shape[dim] for dim in TO_LAST)
        made = self._emit(node.name, target, args, dense(shape, spec.dtype), kwargs)
        self._last[_made(node)] = made

    def _nothing(self, node: Node, source: Ref) -> bool:
        """Dropout that drops nothing."""
        if len(node.args) > 2 and node.args[2] is False:
            self._last[Ref(ref=node.name)] = self._last[source]
            return True
        return False

    def _pointwise(self, node: Node) -> bool:
        if not isinstance(node.result, TensorSpec) or node.spec.dtype != "float32":
            return False
        shape = node.spec.shape
        whole = [ref for ref in node.refs if self._graph.spec_of(ref).shape == shape]
        if len(shape) != 4 or not any(ref in self._last for ref in whole):
            return False
        if not all(isinstance(one, Ref | bool | int | float | None) for one in node.args):
            return False
        if not all(self._aligns(ref) for ref in node.refs):
            return False
        args = tuple(self._operand(one) if isinstance(one, Ref) else one for one in node.args)
        self._done(node, node.target, args, node.kwargs)
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
            return self._turn(ref)
        plain = self._plain(ref)
        if not spec.shape:
            return plain
        name = f"{_stem(ref)}_channels{len(self._nodes)}"
        return self._emit(
            name, "aten.squeeze.dims", (plain, [1, 2]), dense(spec.shape[:1], spec.dtype)
        )

    def _permuted(self, node: Node, source: Ref) -> bool:
        """What a model turns itself, for a norm over channels, say, is there in that form."""
        order = _order(self._graph, node, source)
        if order == TO_FIRST and self._meets_images(node, source):
            self._keep(node)
            own = Ref(ref=node.name)
            self._last[own], self._first[own] = self._plain(source), own
            return True
        if not self._read_as_rows(node):
            return False
        if order == TO_LAST and source in self._last:
            self._renamed[Ref(ref=node.name)] = self._last[source]
            return True
        image = self._flattened(source)
        if order != (0, 2, 1) or image is None:
            return False
        shape = node.spec.shape
        args: tuple[Argument, ...] = (self._last[image], list(shape))
        spec = dense(shape, node.spec.dtype)
        self._renamed[Ref(ref=node.name)] = self._emit(
            f"{node.name}_pixels", "aten.view.default", args, spec
        )
        return True

    def _meets_images(self, node: Node, source: Ref) -> bool:
        """Whether a row-major value is seen as images by what has some in this form already."""
        spec = self._graph.spec_of(source)
        return (spec.contiguous and spec.dtype == "float32") and any(
            user.name in self._layers
            or (operator(user) in _POINTWISE and any(ref in self._last for ref in user.refs))
            for user in self._graph.users[node.name]
        )

    def _read_as_rows(self, node: Node) -> bool:
        """Whether nothing that is made of a value takes its strides over, which will be others."""
        users = self._graph.users[node.name]
        read = any(ref.ref == node.name for ref in self._graph.outputs)
        return not read and all(
            isinstance(made, TensorSpec) and made.contiguous
            for user in users
            for made in (user.result if isinstance(user.result, tuple) else (user.result,))
        )

    def _flattened(self, ref: Ref) -> Ref | None:
        """The image whose pixels a value of shape (N, C, H * W) has, if it is channels-last."""
        node = self._graph.by_name[ref.ref]
        source = node.args[0] if node.args else None
        if operator(node) not in ("flatten", "view", "reshape", "_unsafe_view"):
            return None
        if not isinstance(source, Ref) or source not in self._last:
            return None
        images, channels, *pixels = self._graph.spec_of(source).shape
        whole = (images, channels, pixels[0] * pixels[1])
        return source if self._graph.spec_of(ref).shape == whole else None

    def _join(self, node: Node) -> bool:
        given, dim = node.args[0], argument(node, 1, "dim", 0)
        assert isinstance(given, list)
        refs = [one for one in given if isinstance(one, Ref)]
        specs = [self._graph.spec_of(ref) for ref in refs]
        if dim not in (1, -3) or any(len(spec.shape) != 4 for spec in specs):
            return False
        if not all(spec.dtype == "float32" for spec in specs):
            return False
        ready = sum(spec.numel for ref, spec in zip(refs, specs, strict=True) if ref in self._last)
        if 2 * ready < node.spec.numel and not self._wanted(node):
            return False
        self._done(node, "aten.cat.default", ([self._turn(ref) for ref in refs], 3))
        return True

    def _resized(self, node: Node, source: Ref) -> bool:
        self._by_library(node, self._last[source], node.args[1:])
        return True

    def _pool(self, node: Node) -> bool:
        pool = pool_of(self._graph, node)
        if not isinstance(pool, Pool) or pool.dims != 2 or pool.divisor:
            return False
        self._done(node, POOL, (self._last[pool.source],))
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
        made = self._emit(name, POOL, (self._last[source],), dense(shape, spec.dtype))
        self.pools[name] = Pool(
            node=name, source=source, made=made, kind="avg", dims=2, dtype=spec.dtype, adaptive=True
        )
        if kept:
            self._last[Ref(ref=node.name)] = made
        else:
            self._emit(node.name, "aten.squeeze.dims", (made, [1, 2]), node.spec)
        return True

    def _trained_norm(self, node: Node, source: Ref) -> bool:
        norm = batch_norm_of(self._graph, node)
        if not isinstance(norm, BatchNorm):
            return False
        last = self._last[source]
        # A kernel's name that starts with two underscores is another one inside a class.
        name = f"{node.name.strip('_')}_stats"
        made = statistics(self._graph, norm, name, last, self._spec(last).shape[3:])
        self._nodes.append(made)
        assert isinstance(made.result, tuple)
        for at, spec in enumerate(made.result):
            assert spec is not None
            self._specs[Ref(ref=name, index=at)] = spec
        self.norms[name] = norm
        first = 2 + (norm.bias is not None)
        for at in (0, 1) if norm.running else ():
            self._renamed[Ref(ref=node.name, index=3 + at)] = Ref(ref=name, index=first + at)
        spec = self._spec(last)
        centred = self._emit(
            f"{node.name}_centred", "aten.sub.Tensor", (last, Ref(ref=name, index=0)), spec
        )
        target = node.name if norm.bias is None else f"{node.name}_scaled"
        y = self._emit(target, "aten.mul.Tensor", (centred, Ref(ref=name, index=1)), spec)
        if norm.bias is not None:
            y = self._emit(node.name, "aten.add.Tensor", (y, Ref(ref=name, index=2)), spec)
        self._last[Ref(ref=node.name, index=0)] = y
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
        self._nodes.append(
            Node(name=name, kind="call", target=FOLDED_NORM, result=(one, one),
                 args=tuple(self._plain(ref) for ref in given))
        )  # fmt: skip
        self.folded[name] = epsilon
        spec = self._spec(self._last[source])
        scaled = self._emit(
            f"{node.name}_scaled", "aten.mul.Tensor",
            (self._last[source], Ref(ref=name, index=0)), spec,
        )  # fmt: skip
        y = self._emit(node.name, "aten.add.Tensor", (scaled, Ref(ref=name, index=1)), spec)
        self._last[Ref(ref=node.name, index=0)] = y
        return True


_OPERANDS = ((1, "weight"), (2, "bias"))


def _order(graph: OpGraph, node: Node, source: Ref) -> tuple[int, ...]:
    """The order of the source's dimensions in which a call sees them."""
    dims = len(graph.spec_of(source).shape)
    if operator(node) == "permute":
        given = argument(node, 1, "dims")
        return tuple(int(str(dim)) % dims for dim in given) if isinstance(given, list) else ()
    pair = [int(str(argument(node, at, f"dim{at - 1}", 0))) % dims for at in (1, 2)]
    order = list(range(dims))
    order[pair[0]], order[pair[1]] = order[pair[1]], order[pair[0]]
    return tuple(order)


def _made(node: Node) -> Ref:
    return Ref(ref=node.name, index=0 if isinstance(node.result, tuple) else None)


def _flat(spec: TensorSpec) -> bool:
    """Whether bringing channels last moves nothing: one channel, or one pixel."""
    return spec.shape[1] == 1 or spec.shape[2] * spec.shape[3] == 1


def _stem(ref: Ref) -> str:
    return ref.ref if ref.index is None else f"{ref.ref}_{ref.index}"


def _ref(text: str) -> Ref:
    name, _, index = text.partition("[")
    return Ref(ref=name, index=int(index[:-1]) if index else None)


def _text(ref: Ref) -> str:
    return ref.ref if ref.index is None else f"{ref.ref}[{ref.index}]"

"""The values of a graph while its image part is rewritten: row-major, channels last, or both.

A value in channels-last memory is, in the rewritten graph, a row-major tensor of shape
(N, H, W, C): fused loops need to know nothing of layouts. What the library computes reads it
through a view of shape (N, C, H, W), and its result is seen through the view back.
"""

from typing import Any

from knowledge.opgraph import Argument, Node, OpGraph, Ref, TensorSpec
from knowledge.patterns.algebra.edit import dense, without_dead

TO_CHANNELS_LAST = "kernelwright.to_channels_last.default"
TO_ROW_MAJOR = "kernelwright.to_row_major.default"

TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
# Operators that do the same in any layout, element by element.
POINTWISE = (
    "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "exp", "log", "sqrt",
    "rsqrt", "square", "pow", "tanh", "sigmoid", "relu", "relu_", "relu6", "hardtanh",
    "hardtanh_", "hardsigmoid", "hardsigmoid_", "hardswish", "hardswish_", "silu", "silu_",
    "gelu", "elu", "elu_", "mish", "leaky_relu", "leaky_relu_", "softplus", "clamp",
    "clamp_min", "clamp_max", "clamp_min_", "clamp_", "add_", "mul_", "sub_", "div_",
)  # fmt: skip


def turned(spec: TensorSpec, order: tuple[int, ...]) -> TensorSpec:
    """A tensor seen with its dimensions in another order."""
    shape, strides = (tuple(one[dim] for dim in order) for one in (spec.shape, spec.strides))
    return TensorSpec(shape=shape, dtype=spec.dtype, strides=strides)


class Layouts:
    """The calls written so far, and where each value of the graph as it was is found among them.

    Attributes:
        graph: as it was.
        nodes: the calls, and what else enters the graph, in order.
        last: values in channels-last form.
        first: values brought back from it, as everything outside reads them.
        renamed: values that others stand for.
    """

    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.last: dict[Ref, Ref] = {}
        self.first: dict[Ref, Ref] = {}
        self.renamed: dict[Ref, Ref] = {}
        self._specs: dict[Ref, TensorSpec] = {}

    def rewritten(self) -> OpGraph:
        """The graph of the calls written, without those that nothing reads."""
        graph = self.graph
        outputs = tuple(self.plain(ref) for ref in graph.outputs)
        mutations = {path: _text(self.plain(_ref(text))) for path, text in graph.mutations.items()}
        return without_dead(
            OpGraph(
                nodes=tuple(self.nodes), outputs=outputs, returns=graph.returns,
                mutations=mutations, training=graph.training,
            )
        )  # fmt: skip

    def emit(
        self, name: str, target: str, args: tuple[Argument, ...], spec: TensorSpec,
        kwargs: dict[str, Argument] | None = None,
    ) -> Ref:  # fmt: skip
        """A new call that makes one tensor."""
        node = Node(
            name=name, kind="call", target=target, args=args, kwargs=kwargs or {}, result=spec
        )
        self.nodes.append(node)
        self._specs[Ref(ref=name)] = spec
        return Ref(ref=name)

    def emit_several(self, node: Node) -> None:
        """A new call that makes several tensors."""
        self.nodes.append(node)
        assert isinstance(node.result, tuple)
        for at, spec in enumerate(node.result):
            assert spec is not None
            self._specs[Ref(ref=node.name, index=at)] = spec

    def spec_of(self, ref: Ref) -> TensorSpec:
        """What a value is, one that was written or one of the graph as it was."""
        return self._specs[ref] if ref in self._specs else self.graph.spec_of(ref)

    def keep(self, node: Node) -> None:
        """A call as it was."""
        args = tuple(self.plain_argument(one) for one in node.args)
        kwargs = {key: self.plain_argument(one) for key, one in node.kwargs.items()}
        self.nodes.append(node.model_copy(update={"args": args, "kwargs": kwargs}))

    def plain_argument(self, value: Any) -> Any:
        """An argument, with every value in it as everything outside reads it."""
        if isinstance(value, Ref):
            return self.plain(value)
        return [self.plain_argument(one) for one in value] if isinstance(value, list) else value

    def plain(self, ref: Ref) -> Ref:
        """A value as everything outside reads it: (N, C, H, W), row-major."""
        if ref in self.renamed:
            return self.renamed[ref]
        if ref not in self.last or ref in self.first:
            return self.first.get(ref, ref)
        last, spec = self.last[ref], self.graph.spec_of(ref)
        name = f"{stem(ref)}_rows"
        if _flat(spec):
            made = self.emit(name, "aten.permute.default", (last, list(TO_FIRST)), spec)
        else:
            made = self.emit(name, TO_ROW_MAJOR, (last,), dense(spec.shape, spec.dtype))
        self.first[ref] = made
        return made

    def turn(self, ref: Ref) -> Ref:
        """A value of four dimensions in channels-last form."""
        if ref not in self.last:
            spec = self.graph.spec_of(ref)
            made = turned(spec, TO_LAST)
            name = f"{stem(ref)}_last"
            if _flat(spec):
                args: tuple[Argument, ...] = (self.plain(ref), list(TO_LAST))
                self.last[ref] = self.emit(name, "aten.permute.default", args, made)
            else:
                given = (self.plain(ref),)
                self.last[ref] = self.emit(
                    name, TO_CHANNELS_LAST, given, dense(made.shape, spec.dtype)
                )
        return self.last[ref]

    def done(
        self, node: Node, target: str, args: tuple[Argument, ...],
        kwargs: dict[str, Argument] | None = None,
    ) -> None:  # fmt: skip
        """A call on channels-last values that makes one, under the name of the call it replaces."""
        own = Ref(ref=node.name, index=0 if isinstance(node.result, tuple) else None)
        spec = self.graph.spec_of(own)
        shape = tuple(spec.shape[dim] for dim in TO_LAST)
        self.last[own] = self.emit(node.name, target, args, dense(shape, spec.dtype), kwargs)

    def by_library(self, node: Node, ref: Ref, rest: tuple[Argument, ...]) -> None:
        """The call as it was, on a view of a channels-last value; its result seen back."""
        source = self._seen(ref, f"{node.name}_from")
        shape = node.spec.shape
        channels_last = turned(
            dense(tuple(shape[dim] for dim in TO_LAST), node.spec.dtype), TO_FIRST
        )
        kwargs = {key: self.plain_argument(one) for key, one in node.kwargs.items()}
        made = self.emit(
            f"{node.name}_library", node.target, (source, *rest), channels_last, kwargs
        )
        args: tuple[Argument, ...] = (made, list(TO_LAST))
        own = Ref(ref=node.name)
        self.last[own] = self.emit(
            node.name, "aten.permute.default", args, turned(channels_last, TO_LAST)
        )

    def _seen(self, ref: Ref, name: str) -> Ref:
        """A channels-last value as (N, C, H, W), for the library."""
        args: tuple[Argument, ...] = (ref, list(TO_FIRST))
        return self.emit(name, "aten.permute.default", args, turned(self.spec_of(ref), TO_FIRST))


def stem(ref: Ref) -> str:
    """What names of a value's other forms begin with."""
    return ref.ref if ref.index is None else f"{ref.ref}_{ref.index}"


def _flat(spec: TensorSpec) -> bool:
    """Whether bringing channels last moves nothing: one channel, or one pixel."""
    return spec.shape[1] == 1 or spec.shape[2] * spec.shape[3] == 1


def _ref(text: str) -> Ref:
    name, _, index = text.partition("[")
    return Ref(ref=name, index=int(index[:-1]) if index else None)


def _text(ref: Ref) -> str:
    return ref.ref if ref.index is None else f"{ref.ref}[{ref.index}]"

"""How forward packs the tensors that it returns, in the words of `OpGraph.returns`."""

from collections import namedtuple
from collections.abc import Iterator

from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, OutputKind
from torch.utils._pytree import TreeSpec


class NotPacked(Exception):
    """Results are in something that can't be written down; the message is a sentence on it."""


def packing_of(program: ExportedProgram) -> str:
    """The packing of an exported forward.

    Raises:
        NotPacked: it returns more than tensors and None in tuples, lists and dicts.
    """
    spec = program.call_spec.out_spec
    if spec is None or spec.is_leaf():
        return "tensor"
    returned = [
        "None" if is_none(one.arg) else "{}"
        for one in program.graph_signature.output_specs
        if one.kind is OutputKind.USER_OUTPUT
    ]
    places = ["{}"] * len(returned)
    words = {_written(tuple, places): "tuple", _written(list, places): "list"}
    template = _template(spec, iter(returned))
    return words.get(template, template)


def _template(spec: TreeSpec, leaves: Iterator[str]) -> str:
    """Python for nested results, from the texts of their leaves."""
    if spec.is_leaf():
        return next(leaves)
    inside = [_template(child, leaves) for child in spec.children()]
    if spec.type is dict and all(isinstance(key, str | int) for key in spec.context):
        # Braces that are no places are doubled.
        keys = [repr(key).replace("{", "{{").replace("}", "}}") for key in spec.context]
        pairs = [f"{key}: {value}" for key, value in zip(keys, inside, strict=True)]
        return f"{{{{{', '.join(pairs)}}}}}"
    if spec.type is list:
        return _written(list, inside)
    # A named tuple, which is what torch.topk and its like return, is a tuple to whoever unpacks it.
    named = isinstance(spec.type, type) and issubclass(spec.type, tuple)
    if named or spec.type in (tuple, namedtuple):
        return _written(tuple, inside)
    raise NotPacked("forward returns something else than tensors in tuples, lists and dicts")


def _written(kind: type, inside: list[str]) -> str:
    listed = ", ".join(inside)
    if kind is list:
        return f"[{listed}]"
    return f"({listed}{',' if len(inside) == 1 else ''})"


def is_none(argument: object) -> bool:
    """Whether this is returned as None, where others are tensors."""
    return isinstance(argument, ConstantArgument) and argument.value is None

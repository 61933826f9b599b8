"""Advice on what a candidate leans on, from its text alone.

Static checks only ever advise, since comments, strings and `getattr` fool them; what decides is
what runs.
"""

import ast
import builtins
import functools

import torch

# Calling these is no sign of leaning on the framework for the op itself: they move or make data.
PLUMBING = frozenset({
    "empty", "empty_like", "zeros", "zeros_like", "ones", "full", "view", "reshape", "contiguous",
    "transpose", "permute", "t", "expand", "clone", "detach", "to", "size", "numel", "stride",
    "squeeze", "unsqueeze", "flatten", "arange", "copy_", "slice", "select", "split", "chunk",
    "narrow", "unbind", "item", "float", "type_as", "alias",
})  # fmt: skip
SPELLINGS = {
    "mm": "matmul",
    "bmm": "matmul",
    "addmm": "linear",
    "cross_entropy_loss": "cross_entropy",
}

NOT_THE_OP = ("get_inputs", "get_init_inputs")


def provenance_labels(source: str, reference: str) -> tuple[str, ...]:
    """Labels that a reader should see: the framework's operators, called for the very op.

    Both are compared as text, so that no graph is needed: what the reference calls by name, the
    candidate may call by the same name, by its function or by its module.
    """
    wanted = _called_operators(ast.parse(reference)) - PLUMBING
    called = _called_operators(ast.parse(source))
    return tuple(f"calls torch's own {name}" for name in sorted(wanted & called & _operators()))


@functools.cache
def _operators() -> frozenset[str]:
    """The names of torch's operators: a candidate's own methods are not taken for them."""
    names = {*dir(torch), *dir(torch.nn.functional), *dir(torch.Tensor)}
    return frozenset(name for name in names if not name.startswith("_"))


def _called_operators(tree: ast.Module) -> set[str]:
    called: set[str] = set()
    parts = [node for node in tree.body if getattr(node, "name", "") not in NOT_THE_OP]
    nodes = [inner for part in parts for inner in ast.walk(part)]
    idle = {inner for node in nodes for inner in _preparations(node)}
    for node in nodes:
        match node:
            case ast.Call() if node in idle:
                pass
            case ast.Call(func=ast.Name(id=name)) if hasattr(builtins, name):
                pass  # Python's own max, sum or range.
            case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
                called.add(SPELLINGS.get(name, name))
                called.add(_snake(name))
            case ast.BinOp(op=ast.MatMult()):
                called.add("matmul")
            case _:
                pass
    return called


def _preparations(node: ast.AST) -> set[ast.Call]:
    """Of a class's constructor the calls that are no part of the op.

    What draws a weight or fills a table is none. Nor is a module that is there for its weights: of
    an attribute of which other methods use `self.linear.weight` and the like, and no more.
    """
    if not isinstance(node, ast.ClassDef):
        return set()
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    others = [one for one in methods if one.name != "__init__"]
    whole = {name for method in others for name in _used_whole(method)}
    found: set[ast.Call] = set()
    for made in (inner for one in methods if one.name == "__init__" for inner in ast.walk(one)):
        match made:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)]):
                if name not in whole:
                    found |= {inner for inner in ast.walk(made) if isinstance(inner, ast.Call)}
            case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
                if not name[:1].isupper():
                    found.add(made)
            case _:
                pass
    return found


def _used_whole(method: ast.FunctionDef) -> set[str]:
    """The attributes of `self` that a method calls, or does anything with but take parts of."""
    parts = {
        inner.value
        for inner in ast.walk(method)
        if isinstance(inner, ast.Attribute) and inner.attr != "forward"
    }
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and node not in parts
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def _snake(name: str) -> str:
    """`LayerNorm` as `layer_norm`: modules are operators too."""
    made = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    return made.removeprefix("_")

"""Several modules as one: each workload's own forward, chosen by the shapes and dtypes it is given.

The modules are candidates for the same reference, so their constructors are the same text; where
they are not, they can't be joined. What two modules define alike stands once in the result.
"""

import ast
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from knowledge.emit_parts import apart
from knowledge.opgraph import TensorSpec
from knowledge.reference_source import renamed

# The table of a joined module that says which forward is for which inputs.
MADE_FOR = "_MADE_FOR"
_LOOKUP = '''def _signature(values, first):
    """Shape, from its `first` dimension on, and dtype of every tensor that forward is given."""
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return tuple((tuple(tensor.shape[first:]), tensor.dtype) for tensor in tensors)'''


@dataclass(frozen=True)
class Variant:
    """A candidate's module, and the workload that it is for: its name, and forward's tensors."""

    workload: str
    inputs: tuple[TensorSpec, ...]
    source: str


@dataclass(frozen=True)
class _Read:
    """A module taken apart; its class without `forward`, as a tree, and forward's own text."""

    docstring: str
    imports: tuple[str, ...]
    helpers: tuple[str, ...]
    model: str


def join(variants: Sequence[Variant]) -> str:
    """One module for all workloads; the source itself where they all have the same.

    Inputs that no variant was made for go to one that was made for the same but for the first
    dimension, else to the first variant.

    Raises:
        ValueError: the modules' classes differ in more than forward.
    """
    sources = list(dict.fromkeys(variant.source for variant in variants))
    if len(sources) == 1:
        return sources[0]
    known: dict[str, str] = {}
    imports: list[str] = []
    helpers: list[str] = []
    models: list[str] = []
    told: list[str] = []
    for source in sources:
        read = _read(source)
        imports += [line for line in read.imports if line not in imports]
        *own, model = apart([*read.helpers, _without_name(read.model)], known)
        # The class itself is not a definition that others could be mistaken for.
        known.pop("_Variant", None)
        helpers += [text for text in own if text not in helpers]
        models.append(model)
        served = [one.workload for one in variants if one.source == source]
        told.append(f"{'; '.join(served)}: {read.docstring}")
    sections = [
        *helpers,
        _LOOKUP,
        _model(models),
        *_tables(variants, sources),
    ]
    docstring = "\n".join(["A drop-in for Model that dispatches by its inputs.", "", *told])
    escaped = docstring.replace("\\", "\\\\").replace('"""', "'''")
    if "import torch" not in imports:
        imports.append("import torch")
    imports.sort(key=lambda line: not line.startswith("from __future__"))
    module = "\n\n\n".join([f'"""{escaped}\n"""\n\n' + "\n".join(imports), *sections]) + "\n"
    compile(module, "candidate", "exec")
    return module


def left_as_given(
    module: str, reference: str, workloads: Mapping[str, Sequence[TensorSpec]]
) -> tuple[str, ...] | None:
    """On which workloads a joined module runs the reference's own forward.

    Args:
        module: its text.
        reference: the text that holds `Model`.
        workloads: forward's tensors on each, by its name.

    Returns:
        Their names; None where the text is no joined module's, and so doesn't tell.
    """
    body = ast.parse(module).body
    tables = [one.value for one in body if isinstance(one, ast.Assign) and _names(one, MADE_FOR)]
    made = _methods(body, "ModelNew")
    given = _methods(ast.parse(reference).body, "Model").get("forward")
    if len(tables) != 1 or not isinstance(tables[0], ast.Dict) or given is None:
        return None
    chosen = {
        ast.unparse(key): ast.unparse(value).removeprefix("ModelNew.")
        for key, value in zip(tables[0].keys, tables[0].values, strict=True)
        if key is not None
    }
    as_given = [ast.dump(statement) for statement in given.body]
    left: list[str] = []
    for name, inputs in workloads.items():
        forward = made.get(chosen.get(ast.unparse(ast.parse(_key(inputs, 0))), ""))
        if forward is None:
            return None
        if [ast.dump(statement) for statement in forward.body] == as_given:
            left.append(name)
    return tuple(left)


def _names(assignment: ast.Assign, name: str) -> bool:
    return [ast.unparse(target) for target in assignment.targets] == [name]


def _methods(body: Sequence[ast.stmt], name: str) -> dict[str, ast.FunctionDef]:
    """The methods of the class of that name, by theirs."""
    return {
        method.name: method
        for one in body
        if isinstance(one, ast.ClassDef) and one.name == name
        for method in one.body
        if isinstance(method, ast.FunctionDef)
    }


def _read(source: str) -> _Read:
    module, lines = ast.parse(source), source.splitlines()
    imports: list[str] = []
    helpers: list[str] = []
    model = ""
    docstring = ast.get_docstring(module) or "the op as the library does it"
    end = 0
    for statement in module.body:
        # A statement's comments stand above it.
        text = "\n".join(lines[end : statement.end_lineno]).strip("\n")
        end = statement.end_lineno or end
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports.append(ast.unparse(statement))
        elif isinstance(statement, ast.ClassDef) and statement.name == "ModelNew":
            model = text
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            helpers.append(text)
    if not model:
        raise ValueError("a module has no class ModelNew")
    return _Read(docstring.splitlines()[0], tuple(imports), tuple(helpers), model)


def _without_name(model: str) -> str:
    return renamed(model, "ModelNew", "_Variant").rstrip("\n")


def _model(models: Sequence[str]) -> str:
    """The class: the first one's, with every variant's forward under a name of its own."""
    parsed = [_class_of(model) for model in models]
    rests = {ast.dump(_without_forward(node)) for node in parsed}
    if len(rests) > 1:
        raise ValueError("the workloads' modules differ in more than forward")
    forwards = [_forward_of(node) for node in parsed]
    first = forwards[0]
    if first.args.vararg or first.args.kwarg or first.args.kwonlyargs:
        raise ValueError("forward takes *args, **kwargs or keyword-only arguments")
    lines = models[0].splitlines()
    indent = " " * first.col_offset
    methods = []
    for number, (model, forward) in enumerate(zip(models, forwards, strict=True), start=1):
        text = "\n".join(model.splitlines()[forward.lineno - 1 : forward.end_lineno])
        text = textwrap.dedent(text).replace("def forward(", f"def _forward_{number}(", 1)
        methods.append(textwrap.indent(text, indent))
    names = [one.arg for one in (*first.args.posonlyargs, *first.args.args)][1:]
    given = ", ".join(names)
    dispatch = textwrap.indent(
        "\n".join([
            f"def forward({ast.unparse(first.args)}):",
            f"    given = ({given},)",
            f"    made_for = {MADE_FOR}.get(_signature(given, 0))",
            "    if made_for is None:",
            "        made_for = _ALIKE.get(_signature(given, 1), ModelNew._forward_1)",
            "    return made_for(self, *given)",
        ]),
        indent,
    )  # fmt: skip
    before = lines[: first.lineno - 1]
    after = lines[first.end_lineno :]
    text = "\n".join([*before, "\n\n".join([*methods, dispatch]), *after])
    return renamed(text, "_Variant", "ModelNew").rstrip("\n")


def _class_of(model: str) -> ast.ClassDef:
    return next(node for node in ast.parse(model).body if isinstance(node, ast.ClassDef))


def _forward_of(node: ast.ClassDef) -> ast.FunctionDef:
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "forward" and not one.decorator_list:
            return one
    raise ValueError("ModelNew has no plain forward of its own")


def _without_forward(node: ast.ClassDef) -> ast.ClassDef:
    forward = _forward_of(node)
    kept = [one for one in node.body if one is not forward]
    return ast.ClassDef(
        name=node.name, bases=node.bases, keywords=node.keywords, body=kept,
        decorator_list=node.decorator_list,
    )  # fmt: skip


def _tables(variants: Sequence[Variant], sources: Sequence[str]) -> list[str]:
    """Which forward is for which inputs, exactly, and but for the first dimension."""
    exact: dict[str, str] = {}
    alike: dict[str, str] = {}
    for variant in variants:
        method = f"ModelNew._forward_{sources.index(variant.source) + 1}"
        exact.setdefault(_key(variant.inputs, 0), method)
        alike.setdefault(_key(variant.inputs, 1), method)
    return [
        "\n".join(
            [f"{name} = {{", *(f"    {key}: {method}," for key, method in table.items()), "}"]
        )
        for name, table in ((MADE_FOR, exact), ("_ALIKE", alike))
    ]


def _key(inputs: Sequence[TensorSpec], first: int) -> str:
    parts = [f"({spec.shape[first:]!r}, torch.{spec.dtype})" for spec in inputs]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

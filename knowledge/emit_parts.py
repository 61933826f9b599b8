"""Prints an op that has no graph as a module: its own Python, over parts that are made fast.

Each kind of part becomes a subclass with a forward of its own. What that was not made for (another
shape, dtype or mode) goes to the class's own forward, so nothing that the op can do is lost.
"""

import ast
from collections.abc import Sequence
from dataclasses import replace

from knowledge.emit import AS_GIVEN, assembled, definitions
from knowledge.emit_forward import body_of
from knowledge.parts import Part
from knowledge.program import Program
from knowledge.reference_source import Reference, read_reference, renamed

_TAKEN_OVER = f'''class ModelNew({AS_GIVEN}):
    """The op's own forward, over faster parts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for path, faster in _PARTS.items():
            part = self.get_submodule(path)
            if type(part) is faster.__base__:
                part.__class__ = faster'''


def emit_parts(source: str, made: Sequence[tuple[Part, Program]]) -> str:
    """The module's source.

    Args:
        source: the reference's text.
        made: parts with what they have become.

    Raises:
        Unemittable: as `knowledge.emit.emit`.
        ValueError: as `knowledge.emit.emit`.
    """
    reference = read_reference(source, AS_GIVEN)
    known: dict[str, str] = dict.fromkeys(reference.defined, "")
    sections = [*reference.helpers, reference.model]
    table: list[str] = []
    told: list[str] = []
    for number, (part, program) in enumerate(made, start=1):
        name = f"Fast{part.kind.rpartition('.')[2]}{number}"
        own = apart([*definitions(program), _class(name, part, program, reference)], known)
        sections += [text for text in own if text not in sections]
        table += [f'    "{path}": {name},' for path in part.paths]
        told.append(f"{part.title} ({'; '.join(program.steps)})")
    sections += ["\n".join(["_PARTS = {", *table, "}"]), _TAKEN_OVER]
    words = f'"""A drop-in for Model: its own forward, with faster parts.\n\n{_lines(told)}\n"""'
    return assembled(words, reference, sections)


def _lines(told: list[str]) -> str:
    return "\n".join(f"{text[:1].upper()}{text[1:]}." for text in told)


def _class(name: str, part: Part, program: Program, reference: Reference) -> str:
    """The part's class with a forward of its own."""
    otherwise = f"return super().forward({', '.join(part.arguments)})"
    tensors = [argument for argument in part.arguments if argument not in part.constants]
    fits = [
        f"self.training is {part.graph.training}",
        *(f"isinstance({argument}, torch.Tensor)" for argument in tensors),
        *(_is_constant(argument, value) for argument, value in part.constants.items()),
    ]
    lines = [
        f"if not ({' and '.join(fits)}):",
        f"    {otherwise}",
        *body_of(program, replace(reference, arguments=part.arguments), otherwise),
    ]
    given = [
        f"{argument}={part.defaults[argument]!r}" if argument in part.defaults else argument
        for argument in part.arguments
    ]
    kernels = len(program.kernels)
    return "\n".join([
        f"class {name}({part.kind}):",
        f'    """{part.kind} with {kernels} kernel{"s" if kernels != 1 else ""} of its own."""',
        "",
        f"    def forward(self, {', '.join(given)}):",
        *(f"        {line}" for line in lines),
    ])  # fmt: skip


def _is_constant(argument: str, value: bool | int | float | str | None) -> str:
    if value is None:
        return f"{argument} is None"
    return f"type({argument}) is {type(value).__name__} and {argument} == {value!r}"


def apart(sections: list[str], known: dict[str, str]) -> list[str]:
    """A part's sections, with other names for what means something else in the module already.

    `known` has every name with the section that defines it, and learns the new ones.
    """
    text = "\n".join(sections)
    for section in sections:
        for name in defined_in(section):
            if known.get(name, section) != section:
                number = 2
                while f"{name}_{number}" in known or f"{name}_{number}" in text:
                    number += 1
                sections = [renamed(one, name, f"{name}_{number}").rstrip("\n") for one in sections]
                return apart(sections, known)
    for section in sections:
        known |= dict.fromkeys(defined_in(section), section)
    return sections


def defined_in(section: str) -> list[str]:
    """The names that a section binds at the top of the module."""
    names: list[str] = []
    for statement in ast.parse(section).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign):
            targets = [node for target in statement.targets for node in ast.walk(target)]
            names += [node.id for node in targets if isinstance(node, ast.Name)]
    return names

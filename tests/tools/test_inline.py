"""Texts put together mean what they meant apart, whatever names the candidate uses."""

import ast
from pathlib import Path

import pytest
import torch

from tests.tools.shipping import KERNEL, shipment, shipped
from tools.candidate import Candidate
from tools.inline import (
    PARTS,
    drop_in_text,
    give_way,
    literal,
    part_text,
    renamed,
    stand_alone,
)

# Names of the drop-in's own parts and imports, for things of the candidate's own.
CLASHING = """
Row = "mine"
try:
    import math as functools
except ImportError:
    pass
pytree = 3
VERIFIED = "nothing"


def ship():
    return Row


def types():
    return pytree
"""


def test_the_drop_in_works_beside_a_candidate_that_uses_its_names(tmp_path: Path) -> None:
    kernel = shipped(
        tmp_path, shipment(candidate=Candidate(source=KERNEL + CLASHING, backend="cpp"))
    )
    assert kernel.ModelNew(5).takes_kernel(torch.randn(9, 5))
    assert (kernel.ship(), kernel.types(), kernel.VERIFIED) == ("mine", 3, "nothing")
    assert kernel.functools.pi > 3


def test_the_parts_are_one_text_that_imports_nothing_of_ours() -> None:
    tree = ast.parse(drop_in_text())
    modules = [
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert "torch" in modules
    assert not [name for name in modules if name.startswith(("tools", "knowledge"))]
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"Row", "Twins", "Operator", "Dispatch"} <= defined


def test_no_name_means_two_things_in_two_parts() -> None:
    seen: dict[str, str] = {}
    for part in PARTS:
        for node in ast.parse(part_text(part)).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert seen.setdefault(node.name, part) == part, node.name


def test_a_name_gives_way_everywhere_but_in_attributes() -> None:
    text = (
        "import types\nfrom a import (\n    b,\n    c,\n)\n\ndef d():\n    return x.types(types, c)"
    )
    made = give_way(
        text, ast.parse("def types(): ...\nfrom z import c\nfrom a import b"), "p_", set()
    )
    assert "import types as p_types" in made
    assert "    c as p_c," in made
    assert "    b," in made
    assert "return x.types(p_types, p_c)" in made


def test_a_name_gives_way_in_fields_of_strings_and_not_in_texts() -> None:
    text = (
        "from typing import Callable\n\nTEXT = r'''from typing import Callable'''\n"
        "def told(x: Callable) -> str:\n    return f'Callable {Callable.__name__} of {x}'\n"
    )
    made = give_way(text, ast.parse("from collections.abc import Callable"), "p_", set())
    assert made.startswith("from typing import Callable as p_Callable\n")
    assert "r'''from typing import Callable'''" in made
    assert "def told(x: p_Callable)" in made
    assert "f'Callable {p_Callable.__name__} of {x}'" in made


def test_a_line_ends_where_python_ends_it() -> None:
    source = "x = 'a\x0cb\u2028c'; A = 1\nB = A\n"
    assert renamed(source, "A", "Z") == "x = 'a\x0cb\u2028c'; Z = 1\nB = Z\n"
    assert "x = 'a\x0cb\u2028c'; A = 1\nB = A" in stand_alone(source, "It.")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("class A(B):\n    def f(self):\n        super(A, self).f()\n",
         "class Z(B):\n    def f(self):\n        super(Z, self).f()\n"),
        ("A = x.A + A\n", "Z = x.A + Z\n"),
        ('s = "A"  # A\nAB = A\n', 's = "A"  # A\nAB = Z\n'),
    ],
)  # fmt: skip
def test_a_class_is_renamed_where_it_is_named(source: str, expected: str) -> None:
    assert renamed(source, "A", "Z") == expected


@pytest.mark.parametrize("text", ["a\\n\n", 'x = """a"""', "it's '''", "ends\\", "ends'", "a\r\nb"])
def test_a_text_comes_back_from_its_literal(text: str) -> None:
    assert ast.literal_eval(literal(text)) == text

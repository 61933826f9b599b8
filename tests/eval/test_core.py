import ast
from collections import Counter
from pathlib import Path

import pytest

from eval.problem import Problem
from eval.suite import open_suite

SUITE = Path(__file__).parents[2] / "eval" / "suites" / "core.yaml"
HELD_OUT = SUITE.parent / "core" / "holdout"


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return open_suite(SUITE).problems


def reference(problem: Problem) -> Path:
    assert problem.task.reference is not None
    return problem.task.reference


def test_the_core_suite_is_large_and_a_third_of_it_is_held_out(problems: list[Problem]) -> None:
    held_out = sum(problem.labels.holdout for problem in problems)
    assert len(problems) >= 60
    assert held_out * 3 == len(problems)


def test_each_family_and_each_kind_has_both_parts(problems: list[Problem]) -> None:
    assert all(problem.labels.family and problem.labels.kind for problem in problems)
    for label in ("family", "kind"):
        whole = Counter(getattr(problem.labels, label) for problem in problems)
        held_out = Counter(
            getattr(problem.labels, label) for problem in problems if problem.labels.holdout
        )
        assert all(0.25 <= held_out[name] / count <= 0.4 for name, count in whole.items())


def test_every_file_of_the_core_suite_is_one_problem_named_like_it(
    problems: list[Problem],
) -> None:
    named = {reference(problem): problem.task.name for problem in problems}
    assert len(named) == len(problems)
    assert set(named) == set((SUITE.parent / "core").rglob("*.py"))
    assert all(file.stem == name for file, name in named.items())


def test_what_is_held_out_lies_apart(problems: list[Problem]) -> None:
    for problem in problems:
        assert (reference(problem).parent == HELD_OUT) == problem.labels.holdout


def test_every_problem_is_in_the_convention_with_its_sizes_as_constants(
    problems: list[Problem],
) -> None:
    for problem in problems:
        tree = ast.parse(reference(problem).read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), problem.task.name
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        methods = [n.name for n in classes["Model"].body if isinstance(n, ast.FunctionDef)]
        assert "forward" in methods, problem.task.name
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert functions == {"get_inputs", "get_init_inputs"}, problem.task.name
        assert _constants(tree), problem.task.name


def _constants(tree: ast.Module) -> list[str]:
    names = [
        node.id
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Name)
    ]
    return [name for name in names if name.isupper()]

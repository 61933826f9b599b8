"""A program's schedule: kernels and calls in an order in which nothing is read too early."""

import pytest

from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.program import Kernel, Program, variable

SPEC = TensorSpec(shape=(4,), dtype="float32", strides=(1,))


def call(name: str, *reads: str) -> Node:
    refs = tuple(Ref(ref=read) for read in reads)
    return Node(name=name, kind="call", target="aten.sin.default", args=refs, result=SPEC)


def kernel(name: str, nodes: tuple[str, ...], *reads: str) -> Kernel:
    refs = tuple(Ref(ref=read) for read in reads)
    return Kernel(name=name, source="", signature="", nodes=nodes, reads=refs, writes=())


GRAPH = OpGraph(
    nodes=(
        Node(name="x", kind="input", target="0", result=SPEC),
        call("a", "x"),
        call("b", "a"),
        call("c", "x"),
        call("d", "b", "c"),
    ),
    outputs=(Ref(ref="d"),),
)


def names(program: Program) -> list[str]:
    return [unit.name for unit in program.schedule()]


def test_without_kernels_calls_run_in_the_graph_s_order() -> None:
    program = Program.of(GRAPH, "")
    assert names(program) == ["a", "b", "c", "d"]
    assert [node.name for node in program.library_calls] == ["a", "b", "c", "d"]


def test_a_kernel_waits_for_all_it_reads() -> None:
    program = Program.of(GRAPH, "").changed(kernels=(kernel("k", ("a", "d"), "x", "b", "c"),))
    with pytest.raises(ValueError, match="wait for each other"):
        names(program)
    program = Program.of(GRAPH, "").changed(kernels=(kernel("k", ("c", "d"), "x", "b"),))
    assert names(program) == ["a", "b", "k"]


def test_a_changed_program_forgets_what_was_cached() -> None:
    program = Program.of(GRAPH, "")
    assert program.kernel_of == {}
    changed = program.changed(kernels=(kernel("k", ("a", "b"), "x"),))
    assert set(changed.kernel_of) == {"a", "b"}
    assert program.kernels == ()


def test_a_variable_names_one_of_several_results() -> None:
    assert variable(Ref(ref="max_1")) == "max_1"
    assert variable(Ref(ref="max_1", index=0)) == "max_1_0"


def test_a_program_travels_as_json() -> None:
    program = Program.of(GRAPH, "x = 1").changed(kernels=(kernel("k", ("a",), "x"),))
    assert Program.model_validate_json(program.model_dump_json()) == program

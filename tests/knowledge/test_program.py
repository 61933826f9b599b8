"""A program's schedule: kernels and calls in an order in which nothing is read too early."""

from collections.abc import Callable

import pytest

from knowledge.loops.islands import find_islands
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


def steps(number: int) -> OpGraph:
    """A net of so many steps, each of which is a library's call and two that go into a loop."""
    nodes = [Node(name="x", kind="input", target="0", result=SPEC)]
    for _ in range(number):
        for target in ("aten.cumsum.default", "aten.sin.default", "aten.cos.default"):
            args = (Ref(ref=nodes[-1].name), *([0] if "cumsum" in target else []))
            name = f"v{len(nodes)}"
            nodes.append(Node(name=name, kind="call", target=target, args=args, result=SPEC))
    return OpGraph(nodes=tuple(nodes), outputs=(Ref(ref=nodes[-1].name),))


def counted(monkeypatch: pytest.MonkeyPatch, look: Callable[[OpGraph], object]) -> float:
    """How much more often a node's arguments are looked at in twice the steps."""
    seen: list[int] = []
    refs = Node.__dict__["refs"]
    for number in (30, 60):
        looks = [0]

        def look_once(node: Node, looks: list[int] = looks) -> tuple[Ref, ...]:
            looks[0] += 1
            made: tuple[Ref, ...] = refs.func(node)
            return made

        graph = steps(number)
        monkeypatch.setattr(Node, "refs", property(look_once))
        look(graph)
        monkeypatch.setattr(Node, "refs", refs)
        seen += looks
    return seen[1] / seen[0]


def test_islands_of_twice_the_steps_take_twice_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(monkeypatch, find_islands) < 2.5


def test_a_schedule_compares_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = tuple(
        kernel(f"k{n}", (f"v{3 * n + 2}", f"v{3 * n + 3}"), f"v{3 * n + 1}") for n in range(30)
    )
    program = Program.of(steps(30), "").changed(kernels=kernels)

    def refuse(one: Kernel, other: object) -> bool:
        raise AssertionError(f"{one.name} was compared")

    monkeypatch.setattr(Kernel, "__eq__", refuse)
    assert names(program)[:4] == ["v1", "k0", "v4", "k1"]


def test_a_loop_is_not_made_around_a_call_that_it_reads_again() -> None:
    graph = OpGraph(
        nodes=(
            *GRAPH.nodes[:2],
            Node(name="b", kind="call", target="aten.cumsum.default",
                 args=(Ref(ref="a"), 0), result=SPEC),
            Node(name="d", kind="call", target="aten.add.Tensor",
                 args=(Ref(ref="a"), Ref(ref="b")), result=SPEC),
        ),
        outputs=(Ref(ref="d"),),
    )  # fmt: skip
    assert [island.nodes for island in find_islands(graph)[0]] == [("a",), ("d",)]
    assert [island.nodes for island in find_islands(graph, (("b",),))[0]] == [("a",), ("d",)]


def test_a_copy_looks_up_what_it_changes() -> None:
    assert GRAPH.calls
    assert GRAPH.by_name["a"].refs
    moved = GRAPH.by_name["a"].model_copy(update={"args": (Ref(ref="c"),)})
    assert moved.refs == (Ref(ref="c"),)
    assert GRAPH.model_copy(update={"nodes": GRAPH.nodes[:1]}).calls == ()


@pytest.mark.parametrize("taken", [(), ("b",), ("b", "c")])
def test_calls_run_as_one_unless_another_must_come_between(taken: tuple[str, ...]) -> None:
    nodes = (*GRAPH.nodes[:4], call("d", "b"), call("e", "c"))
    graph = OpGraph(nodes=nodes, outputs=(Ref(ref="d"), Ref(ref="e")))
    kernels = (kernel("k", taken, "a", "x"),) if taken else ()
    program = Program.of(graph, "").changed(kernels=kernels)
    assert program.runs_as_one(("d", "e"))
    assert not program.runs_as_one(("a", "d"))
    # Only together with b does c wait for a.
    assert program.runs_as_one(("a", "e")) is (taken != ("b", "c"))

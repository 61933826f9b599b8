"""Lessons: which ops are the same, which are alike, and that nothing learned is lost."""

from math import prod
from pathlib import Path

import pytest

from knowledge.experience import (
    Lesson,
    append_lesson,
    fingerprint,
    plain_op,
    read_lessons,
    signature,
)
from knowledge.opgraph import Node, OpGraph, Ref, TensorSpec
from knowledge.pattern import Step
from knowledge.store import Library


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    strides = tuple(prod(shape[place + 1 :]) for place in range(len(shape)))
    return TensorSpec(shape=shape, dtype=dtype, strides=strides)


def graph(
    x: str = "x", y: str = "y", rows: int = 4, dtype: str = "float32", dim: int = -1
) -> OpGraph:
    given = spec(rows, 8, dtype=dtype)
    return OpGraph(
        nodes=(
            Node(name=x, kind="input", target="0", result=given),
            Node(
                name=y, kind="call", target="aten.softmax.int", args=(Ref(ref=x), dim), result=given
            ),
            Node(
                name="z",
                kind="call",
                target="aten.mul.Tensor",
                args=(Ref(ref=y), 2.0),
                result=given,
            ),
        ),
        outputs=(Ref(ref="z"),),
    )


def lesson(**changes: object) -> Lesson:
    values: dict[str, object] = {
        "fingerprint": "f", "signature": "softmax mul", "device": "cpu-2c", "title": "fused rows",
        "steps": (Step(pattern="row_loop", parameters={"threads": 2}),), "verdict": "correct",
        "speedup": 2.0, "low": 1.9, "high": 2.1, "confirmed": True, "run_id": "r1",
        "when": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Lesson.model_validate(values | changes)


def test_names_do_not_change_a_fingerprint() -> None:
    assert fingerprint(graph()) == fingerprint(graph(x="arg0_1", y="softmax"))


@pytest.mark.parametrize("changed", [graph(rows=5), graph(dtype="float64"), graph(dim=0)])
def test_shapes_dtypes_and_arguments_do(changed: OpGraph) -> None:
    assert fingerprint(changed) != fingerprint(graph())


def test_a_parameters_path_does_not_change_a_fingerprint_but_its_use_does() -> None:
    def linear(path: str, first: str, second: str) -> OpGraph:
        square = spec(8, 8)
        return OpGraph(
            nodes=(
                Node(name="w", kind="parameter", target=path, result=square),
                Node(name="x", kind="input", target="0", result=square),
                Node(name="y", kind="call", target="aten.mm.default",
                     args=(Ref(ref=first), Ref(ref=second)), result=square),
            ),
            outputs=(Ref(ref="y"),),
        )  # fmt: skip

    assert fingerprint(linear("a.weight", "x", "w")) == fingerprint(linear("b.weight", "x", "w"))
    assert fingerprint(linear("a.weight", "x", "w")) != fingerprint(linear("a.weight", "w", "x"))


def test_a_signature_is_the_operators_in_words() -> None:
    assert signature(graph()) == "softmax mul"


@pytest.mark.parametrize(
    ("target", "plain"),
    [("aten.softmax.int", "softmax"), ("aten.relu_.default", "relu"), ("softmax", "softmax"),
     ("aten.cross_entropy_loss.default", "cross_entropy_loss")],
)  # fmt: skip
def test_an_operators_bare_name(target: str, plain: str) -> None:
    assert plain_op(target) == plain


def test_lessons_come_back_whole(library: Library) -> None:
    library.remember(lesson())
    assert library.lessons_like("softmax mul", "cpu-2c") == [lesson()]


def test_only_confirmed_lessons_are_told_unless_asked(library: Library) -> None:
    library.remember(lesson(confirmed=False, title="a guess"))
    assert library.lessons_like("softmax", "cpu-2c") == []
    assert [one.title for one in library.lessons_like("softmax", "cpu-2c", unconfirmed=True)] == [
        "a guess"
    ]


def test_another_devices_lessons_stay_there(library: Library) -> None:
    library.remember(lesson(device="cpu-64c"))
    assert library.lessons_like("softmax mul", "cpu-2c") == []


def test_the_most_alike_op_comes_first(library: Library) -> None:
    for name in ("conv2d relu", "layer_norm", "softmax mul add", "linear sum"):
        library.remember(lesson(signature=name, fingerprint=name))
    assert library.lessons_like("softmax mul", "cpu-2c", k=2)[0].signature == "softmax mul add"
    assert library.lessons_like("layer_norm", "cpu-2c", k=1)[0].signature == "layer_norm"


def test_a_repetition_replaces_the_earlier_figure(library: Library) -> None:
    library.remember(lesson(speedup=2.0))
    library.remember(lesson(speedup=3.0, run_id="r2"))
    assert [one.speedup for one in library.lessons_like("softmax mul", "cpu-2c")] == [3.0]


def test_lessons_survive_the_loss_of_the_shelf(library: Library) -> None:
    library.remember(lesson())
    library.close()
    (library.folder / "catalogue.json").write_text("torn {")
    assert library.lessons_like("softmax mul", "cpu-2c") == [lesson()]


def test_a_line_torn_by_a_kill_loses_no_other_lesson(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    append_lesson(path, lesson(run_id="one"))
    with path.open("a") as file:
        file.write('{"fingerprint": "half')
    append_lesson(path, lesson(run_id="two"))
    assert [one.run_id for one in read_lessons(path)] == ["one", "two"]

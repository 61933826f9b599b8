"""The debugger's rules: the smallest change that could mend the failure."""

import pytest

from agents.playbook.debugger import ways_out
from agents.playbook.mends import mends_for
from knowledge.pattern import Step
from tools.verdict import (
    BuildFailed,
    CaseResult,
    Cheated,
    ContractBroken,
    Correct,
    Crashed,
    Implausible,
    JudgeError,
    TimedOut,
    TimerMismatch,
    Verdict,
    WrongOutput,
)

LOOP = Step(
    pattern="row_loop", parameters={"exp": "inline", "accumulate": "float", "streaming": True}
)
PAGES = Step(pattern="output_pages")
MISS = WrongOutput(detail="17 of 64 elements")


def test_a_numeric_miss_widens_the_sums_first() -> None:
    steps, sentence = next(ways_out((LOOP, PAGES), miss(3.0)))
    assert steps[0].parameters == {"exp": "inline", "accumulate": "double", "streaming": True}
    assert steps[1] == PAGES
    assert "double" in sentence


def miss(worst: float, got: str = "0.51", wanted: str = "0.5", case: str = "") -> WrongOutput:
    detail = f"{case}3 of 64 elements are wrong; the worst is element 5 (row-major): "
    return WrongOutput(
        detail=f"{detail}{got} instead of {wanted}",
        cases=(CaseResult(name="ordinary 1", passed=False, worst=worst),),
    )


def first(steps: tuple[Step, ...], verdict: Verdict) -> tuple[Step, ...]:
    return next(iter(ways_out(steps, verdict)))[0]


def precautions(steps: tuple[Step, ...]) -> dict[str, object]:
    return next((dict(step.parameters) for step in steps if step.pattern == "precautions"), {})


def test_mends_add_up_until_nothing_is_left_to_change() -> None:
    ways = [steps for steps, _ in ways_out((LOOP,), miss(30.0))]
    assert ways[1][0].parameters == {"exp": "libm", "accumulate": "double", "streaming": True}
    assert precautions(ways[2]) == {"plain_math": True}
    assert ways[-1][0].parameters == {"exp": "libm", "accumulate": "double", "streaming": False}
    assert precautions(ways[-1]) == {"plain_math": True, "one_thread": True}


def test_a_near_miss_is_no_race() -> None:
    ways = [steps for steps, _ in ways_out((LOOP,), miss(3.0))]
    assert ways == [steps for steps, _ in ways_out((LOOP,), miss(30.0))][: len(ways)]
    assert all(steps[0].parameters["streaming"] for steps in ways)
    assert precautions(ways[-1]) == {"plain_math": True}


def test_winograds_products_go_first_where_bits_are_lost() -> None:
    layers = Step(pattern="channels_last", parameters={"only": "", "own": "winograd"})
    ways = [steps for steps, _ in ways_out((layers, LOOP), miss(1.3))]
    assert ways[0] == (layers.model_copy(update={"parameters": {"only": "", "own": "few"}}), LOOP)
    assert ways[1][1].parameters["accumulate"] == "double"
    direct = layers.model_copy(update={"parameters": {"only": "", "own": "all"}})
    assert first((direct,), miss(1.3))[0].parameters["own"] == "direct"
    # Nothing is left to make safer there, so the loop is next.
    few = layers.model_copy(update={"parameters": {"only": "", "own": "few"}})
    assert first((few, LOOP), miss(1.3))[1].parameters["accumulate"] == "double"


def test_a_result_that_is_far_off_is_no_rounding() -> None:
    assert first((LOOP,), miss(1e6))[0].parameters["streaming"] is False
    assert first((LOOP,), miss(1e6))[0].parameters["accumulate"] == "float"


def test_a_nan_is_not_looked_for_among_lost_bits() -> None:
    for got, wanted in (("nan", "0.5"), ("inf", "0.5"), ("0.5", "nan"), ("nan", "inf")):
        changed = first((LOOP,), miss(float("inf"), got, wanted))[0]
        assert (changed.parameters["exp"], changed.parameters["accumulate"]) == ("libm", "float")


@pytest.mark.parametrize(
    ("case", "taken"),
    [
        ("another batch size: ", "traced_shapes"),
        ("a batch of one more: ", "traced_shapes"),
        ("another second dimension: ", "traced_shapes"),
        ("not contiguous: ", "dense_inputs"),
        ("at an odd address: ", "dense_inputs"),
    ],
)
def test_a_failure_in_one_unusual_case_alone_leaves_the_arithmetic_as_it_is(
    case: str, taken: str
) -> None:
    for verdict in (miss(1e6, case=case), Crashed(log=f"{case}died of signal 11")):
        changed = first((LOOP,), verdict)
        assert (changed[0], precautions(changed)) == (LOOP, {taken: True})


def test_each_other_failure_begins_with_what_rules_it_out() -> None:
    alias = ContractBroken(detail="the output is the memory of an input, which ...")
    writes = ContractBroken(detail="forward writes to its input, which ...")
    assert precautions(first((LOOP,), alias)) == {"fresh_outputs": True}
    assert precautions(first((LOOP,), writes)) == {"dense_inputs": True}
    assert precautions(first((PAGES,), TimedOut(deadline_s=1.0))) == {"one_thread": True}
    reuse = Cheated(check="output reuse", detail="")
    assert precautions(first((LOOP,), reuse)) == {"fresh_outputs": True}
    raced = Cheated(check="timed output", detail="")
    assert precautions(first((LOOP,), raced)) == {"one_thread": True}
    late = TimerMismatch(detail="0.8 ms of work was left for after a call of 0.2 ms")
    assert first((LOOP,), late)[0].parameters["streaming"] is False
    vector = BuildFailed(log="undefined symbol: _ZGVeN16v_expf")
    assert precautions(first((LOOP,), vector)) == {"plain_math": True}


def test_too_fast_to_be_true_leaves_the_algebra_out_first() -> None:
    steps = (Step(pattern="algebra"), LOOP, PAGES)
    assert first(steps, Implausible(candidate_ms=1.0, floor_ms=2.0)) == (LOOP, PAGES)


def test_a_crash_takes_the_smallest_tiles_that_the_pattern_knows() -> None:
    scan = Step(pattern="scan", parameters={"strip": 1024, "only": ""})
    assert first((scan,), Crashed(log="signal 11"))[0].parameters["strip"] == 64


def test_precautions_are_taken_for_each_part_of_an_op_without_a_graph() -> None:
    parts = tuple(LOOP.model_copy(update={"part": name}) for name in ("stem", "head"))
    changed = first(parts, ContractBroken(detail=""))
    assert [(step.part, step.pattern) for step in changed] == [
        ("stem", "row_loop"), ("stem", "precautions"), ("head", "row_loop"), ("head", "precautions")
    ]  # fmt: skip
    left = [steps for steps, told in ways_out(parts, MISS) if told == "left head as it is"]
    assert left == [parts[:1]]


def test_steps_are_left_out_one_at_a_time_the_newest_first() -> None:
    matmul = Step(pattern="matmul", parameters={})
    ways = [steps for steps, _ in ways_out((matmul, PAGES), Crashed(log=""))]
    assert ways[-2:] == [(matmul,), (PAGES,)]


def test_a_step_that_the_compiler_named_is_left_out_first() -> None:
    matmul = Step(pattern="matmul", parameters={})
    failed = BuildFailed(log='The C++ of "matmul_0", loaded on line 12, does not compile.')
    assert first((matmul, PAGES), failed) == (PAGES,)


def test_an_anchor_is_tried_without_what_follows_it() -> None:
    anchor = Step(pattern="convolution", parameters={"epilogue": True, "only": ""})
    sentences = [told for steps, told in ways_out((anchor,), MISS) if steps != (anchor,)]
    assert "loop of its own" in sentences[0]


REJECTIONS: list[Verdict] = [
    BuildFailed(log=""),
    Crashed(log=""),
    TimedOut(deadline_s=1.0),
    MISS,
    ContractBroken(detail=""),
    Cheated(check="", detail=""),
    Implausible(candidate_ms=1.0, floor_ms=2.0),
    TimerMismatch(detail=""),
]


@pytest.mark.parametrize("verdict", REJECTIONS, ids=lambda verdict: str(verdict.kind))
def test_every_rejection_of_several_steps_has_a_way_out(verdict: Verdict) -> None:
    assert list(ways_out((LOOP, PAGES), verdict))


@pytest.mark.parametrize(
    "verdict", [Correct(), JudgeError(log="")], ids=lambda verdict: str(verdict.kind)
)
def test_what_says_nothing_against_the_candidate_asks_for_no_change(verdict: Verdict) -> None:
    assert mends_for(verdict) == ()

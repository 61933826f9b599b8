"""Loops over time whose steps are linear in the last one, or extremes: one kernel, and exact."""

import pytest
import torch

from knowledge.pattern import Refusal, Step, load_pattern
from tests.patterns.workshop import SITUATION, Built, build, complaints, reference

SCAN = (Step(pattern="scan"),)


def loop(step: str, returned: str = "torch.stack(ys, 1)", start: str = "h") -> str:
    """A reference with a loop of nine steps over x and a, which are (23, 9, 24); h is (23, 24)."""
    return reference(
        f"""    def forward(self, x, a, h):
        h = {start}
        ys = []
        for t in range(9):
            {step}
            ys.append(h)
        return {returned}""",
        "torch.randn(23, 9, 24), torch.rand(23, 9, 24), torch.randn(23, 24)",
    )


LINEAR = "h = a[:, t] * h + x[:, t]"
LOOPS = [
    (LINEAR, "torch.stack(ys, 1)", "h"),
    (LINEAR, "torch.stack(ys), h", "h"),
    (LINEAR, "torch.stack(ys, 2)", "x[:, 3]"),
    (LINEAR, "torch.cat([y.unsqueeze(1) for y in ys], 1)", "torch.zeros_like(h)"),
    ("h = a[:, 8 - t] * h + x[:, 8 - t]", "torch.stack(ys[::-1], 1)", "h"),
    ("h = h * 0.9 + x[:, t] * 0.1", "torch.stack(ys, 1), h", "h"),
    ("h = h + 0.3 * (x[:, t] - h)", "torch.stack(ys, 1)", "h"),
    ("h = 0.5 * h + 0.5 * x[:, t] if t else x[:, 0]", "torch.stack(ys, 1)", "h"),
    ("h = torch.maximum(h, x[:, t]) if t else x[:, 0]", "torch.stack(ys)", "h"),
    ("h = torch.minimum(x[:, t], h)", "torch.stack(ys, 1)", "h"),
    ("h = h + x[:, t]", "torch.stack(ys, 1)", "h"),
    ("h = h * a[:, t]", "torch.stack(ys, 1)", "h"),
]


def scanned(source: str) -> Built:
    """The reference with its loop in a kernel, of which nothing else is left."""
    built = build(source, SCAN)
    assert len(built.program.kernels) == 1
    left = {call.target.split(".")[1] for call in built.program.library_calls}
    assert left <= {"zeros_like", "select", "slice"}
    assert len(built.program.library_calls) < 3
    return built


@pytest.mark.parametrize(("step", "returned", "start"), LOOPS)
def test_a_loop_is_one_kernel_as_right_as_the_reference(
    step: str, returned: str, start: str
) -> None:
    assert complaints(scanned(loop(step, returned, start))) == []


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_types_are_computed_wide(dtype: str) -> None:
    source = loop(LINEAR).replace("24)", f"24, dtype=torch.{dtype})")
    assert complaints(scanned(source)) == []


@pytest.mark.parametrize("step", [LINEAR, "h = torch.maximum(h, x[:, t])"])
def test_nan_and_infinity_go_on_as_in_the_loop(step: str) -> None:
    built = scanned(loop(step))
    x, a, h = (value.clone() for value in built.inputs)
    x[0, 2, 3], x[1, 4, 5], h[2, 6], a[3, 1, 7] = float("nan"), float("inf"), float("nan"), 0.0
    assert complaints(built, [x, a, h]) == []


def test_a_batch_other_than_the_traced_one_is_taken() -> None:
    built = scanned(loop(LINEAR))
    x, a, h = torch.randn(70, 9, 24), torch.rand(70, 9, 24), torch.randn(70, 24)
    assert complaints(built, [x, a, h]) == []


@pytest.mark.parametrize(
    ("step", "returned"),
    [
        ("h = a[:, t] * h + torch.sin(h)", "torch.stack(ys, 1)"),
        ("h = h * h + x[:, t]", "torch.stack(ys, 1)"),
        ("h = a[:, t] * h + x[:, (t * 2) % 9]", "torch.stack(ys, 1)"),
        (LINEAR, "torch.stack(ys, 1), ys[3]"),
    ],
)
def test_what_is_no_such_loop_is_left_alone(step: str, returned: str) -> None:
    program = build(loop(step, returned), ()).program
    answer = load_pattern("scan").propose(program, SITUATION)
    assert isinstance(answer, Refusal)


ADVANTAGES = """    def forward(self, r, v, done):
        made = torch.zeros_like(r)
        last = torch.zeros(r.shape[1])
        for t in reversed(range(r.shape[0])):
            after = v[t + 1] if t + 1 < v.shape[0] else torch.zeros_like(last)
            going = 1.0 - done[t]
            last = r[t] + 0.99 * after * going - v[t] + 0.9 * going * last
            made[t] = last
        return made, made + v"""
FROM_THE_STATE = """    def forward(self, x, a, h):
        ys = []
        for t in range(9):
            h = torch.sigmoid(h + a[:, t]) * h + x[:, t]
            ys.append(h)
        return torch.stack(ys, 1)"""


def planned(source: str) -> Built:
    """The reference with algebra done, and then scans."""
    return build(source, (Step(pattern="algebra"), *SCAN))


def test_what_steps_work_out_and_assign_one_by_one_is_one_scan() -> None:
    inputs = "torch.randn(9, 40), torch.randn(9, 40), (torch.rand(9, 40) > 0.8).float()"
    built = planned(reference(ADVANTAGES, inputs))
    assert len(built.program.kernels) == 1
    assert len(built.program.library_calls) < 20
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("step", "made"),
    [
        ("h = torch.exp(-a[:, t]) * h + x[:, t] * a[:, t]", "out[:, t] = h"),
        ("h = torch.sigmoid(a[:, t]) * h + (x[:, t] if t else a[:, 0] * 2)", "out[:, t] = h"),
        ("h = 0.5 * h + torch.tanh(x[:, 8 - t])", "out[..., 8 - t, :] = h"),
    ],
)
def test_factors_made_step_by_step_are_made_at_once(step: str, made: str) -> None:
    body = f"""    def forward(self, x, a, h):
        out = torch.empty_like(x)
        for t in range(9):
            {step}
            {made}
        return out"""
    built = planned(
        reference(body, "torch.randn(23, 9, 24), torch.rand(23, 9, 24), torch.zeros(23, 24)")
    )
    assert len(built.program.kernels) == 1
    assert complaints(built) == []


def test_a_tensor_of_which_not_every_part_is_assigned_stays_as_it_is() -> None:
    body = """    def forward(self, x, h):
        out = torch.ones_like(x)
        for t in range(8):
            h = 0.9 * h + torch.exp(x[:, t])
            out[:, t] = h
        return out"""
    graph = build(reference(body, "torch.randn(23, 9, 24), torch.zeros(23, 24)")).program.graph
    assert not any("stack" in call.target for call in graph.calls)


def test_factors_that_follow_from_the_state_stay_where_they_are() -> None:
    inputs = "torch.randn(23, 9, 24), torch.rand(23, 9, 24), torch.zeros(23, 24)"
    with pytest.raises(ValueError, match=r"nothing to scan|no rewrite"):
        planned(reference(FROM_THE_STATE, inputs))

"""A plan of what was fastest on each workload: when it is made, and of what."""

import math

import torch

from agents.brief import Brief, Plan
from agents.playbook.assembly import assemble
from agents.playbook.coder import PlaybookCoder
from knowledge.pattern import Step
from tests.graph import builders
from tests.patterns.workshop import load, reference
from tools.examine import examine
from tools.facts import WorkloadFacts
from tools.judge.combine import combined_timing
from tools.reference import load as load_reference
from tools.task import Task
from tools.verdict import Correct, Trial, WorkloadTiming

NAMES = ("long", "short")
LOOP, OTHER = (Step(pattern="row_loop"),), (Step(pattern="row_loop", parameters={"sweeps": 3}),)
TASK = Task.model_validate(
    {
        "name": "softmax",
        "op": "torch.softmax",
        "workloads": [{"name": name, "inputs": [{"shape": [8, 8]}]} for name in NAMES],
    }
)


def plan(identity: str, steps: tuple[Step, ...], **elsewhere: tuple[Step, ...]) -> Plan:
    return builders.plan(1, identity).model_copy(
        update={"id": identity, "steps": steps, "elsewhere": elsewhere, "labels": (identity,)}
    )


def measured(number: int, plan: Plan, *speedups: float) -> Trial:
    """A right trial, so much faster than torch.compile on each workload."""
    timings = [
        WorkloadTiming(
            name=name,
            timing=builders.timing(builders.COMPILE_MS / speedup, eager_ms=99.0),
        )
        for name, speedup in zip(NAMES, speedups, strict=True)
    ]
    return builders.trial(number, Correct(timing=combined_timing(timings)), plan=plan.id)


def brief(plans: tuple[Plan, ...], trials: tuple[Trial, ...]) -> Brief:
    workloads = tuple(
        WorkloadFacts(
            name=name,
            facts=builders.facts(),
            baselines=builders.baselines(),
            roofline=builders.roofline(),
        )
        for name in NAMES
    )
    return Brief(
        task=TASK, device=builders.device(), facts=builders.facts(),
        baselines=builders.baselines(), roofline=builders.roofline(), plans=plans, trials=trials,
        workloads=workloads, trials_left=10, seconds_left=100.0,
    )  # fmt: skip


def test_each_workload_is_given_the_steps_that_won_there() -> None:
    first, second = plan("p1", LOOP), plan("p2", OTHER)
    trials = (measured(1, first, 3.0, 1.5), measured(2, second, 1.5, 2.0))
    made = assemble(brief((first, second), trials), "p3")
    assert made is not None
    assert (made.id, made.steps, made.elsewhere) == ("p3", LOOP, {"short": OTHER})
    assert math.isclose(made.expected_speedup, math.sqrt(6.0))
    assert made.labels == ("p1", "p2")
    assert "short: trial 2, 2.00x" in made.arithmetic


def test_where_nothing_was_faster_the_library_keeps_the_work() -> None:
    first = plan("p1", LOOP)
    made = assemble(brief((first,), (measured(1, first, 3.0, 0.5),)), "p2")
    assert made is not None
    assert (made.steps, made.elsewhere) == (LOOP, {"short": ()})
    assert "short: the library, 0.78x" in made.arithmetic


def test_what_was_assembled_can_be_taken_apart_again() -> None:
    first, second = plan("p1", LOOP, short=OTHER), plan("p2", OTHER)
    trials = (measured(1, first, 1.5, 4.0), measured(2, second, 2.0, 1.0))
    # The short one's best came with steps of its own, which are those of the second plan.
    assert assemble(brief((first, second), trials), "p3") is None
    third = plan("p3", (Step(pattern="output_pages"),))
    more = (*trials, measured(3, third, 3.0, 1.0))
    made = assemble(brief((first, second, third), more), "p4")
    assert made is not None
    assert (made.steps, made.elsewhere) == (third.steps, {"short": OTHER})


def test_nothing_is_assembled_twice_or_for_little() -> None:
    first, second = plan("p1", LOOP), plan("p2", OTHER)
    trials = (measured(1, first, 3.0, 1.5), measured(2, second, 1.5, 2.0))
    made = assemble(brief((first, second), trials), "p3")
    assert made is not None
    assert assemble(brief((first, second, made), trials), "p4") is None
    close = (measured(1, first, 3.0, 1.99), measured(2, second, 1.5, 2.0))
    assert assemble(brief((first, second), close), "p3") is None


def test_one_workload_or_no_timing_leaves_nothing_to_assemble() -> None:
    first = plan("p1", LOOP)
    alone = brief((first,), ()).model_copy(update={"workloads": ()})
    assert assemble(alone, "p2") is None
    assert assemble(brief((first,), ()), "p2") is None


def facts_at(shape: str) -> WorkloadFacts:
    source = reference(
        "    def forward(self, x):\n        return torch.softmax(x * 0.5, -1) * x.tanh()",
        f"torch.randn({shape})",
    )
    facts = examine(load_reference(source, "t"), TASK.at(TASK.workloads[0]))
    return WorkloadFacts(
        name=shape, facts=facts, baselines=builders.baselines(), roofline=builders.roofline()
    )


def test_the_coder_writes_one_module_for_all_workloads() -> None:
    workloads = tuple(map(facts_at, ("6, 48", "4, 6, 80")))
    told = brief((), ()).model_copy(update={"workloads": workloads, "facts": workloads[0].facts})
    joined = PlaybookCoder().write(told, plan("p1", LOOP))
    assert joined.backend == "cpp"
    model = load(joined.source).ModelNew()
    library = PlaybookCoder().write(told, plan("p1", LOOP, **{"4, 6, 80": ()}))
    assert "_forward_2" in library.source
    for candidate in (model, load(library.source).ModelNew()):
        for shape in ((6, 48), (4, 6, 80)):
            x = torch.randn(shape)
            assert torch.allclose(candidate(x), torch.softmax(x * 0.5, -1) * x.tanh(), atol=1e-6)

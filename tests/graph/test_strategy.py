"""Strategies choose parents from measured trials alone."""

from pathlib import Path
from typing import Literal

import pytest

from agents.brief import Diagnosis
from graph.strategy import Beam, Evolve, Greedy, elites_of, ranked, strategy_for
from tools.candidate import Candidate
from tools.task import parse_task
from tools.verdict import Comparison, Correct, Timing, Trial, Verdict, WrongOutput


def timed(speedup: float) -> Correct:
    comparison = Comparison(
        baseline="eager",
        baseline_ms=speedup,
        candidate_ms=1.0,
        speedup=speedup,
        low=speedup * 0.99,
        high=speedup * 1.01,
        blocks=8,
    )
    return Correct(
        timing=Timing(
            candidate_ms=1.0,
            comparisons=(comparison,),
            noise=0.01,
            page_faults=0.0,
            checked_outputs=3,
        )
    )


def trial(number: int, pattern: str, verdict: Verdict) -> Trial:
    return Trial(
        number=number,
        plan=f"p{number}",
        pattern=pattern,
        title=pattern,
        parent=None,
        repair=0,
        candidate=Candidate(source=str(number), backend="cpp"),
        verdict=verdict,
        seconds=1.0,
    )


TRIALS = [
    trial(1, "row_loop", timed(2.0)),
    trial(2, "row_loop", timed(3.0)),
    trial(3, "algebra", timed(1.5)),
    trial(4, "algebra", WrongOutput(detail="all of it")),
    trial(5, "output_pages", timed(1.2)),
]


def test_a_rejected_trial_is_never_ranked() -> None:
    assert [t.number for t in ranked(TRIALS)] == [2, 1, 3, 5]


def test_greedy_builds_on_the_fastest_alone() -> None:
    assert Greedy().parents(TRIALS, (), width=3) == (2,)


@pytest.mark.parametrize(("width", "expected"), [(1, (2,)), (2, (2, 3)), (9, (2, 3, 5))])
def test_beam_keeps_the_best_of_each_pattern(width: int, expected: tuple[int, ...]) -> None:
    assert Beam().parents(TRIALS, (), width) == expected


def test_without_a_timed_trial_there_is_nothing_to_build_on() -> None:
    assert Beam().parents([TRIALS[3]], (), width=2) == ()


def diagnosis(number: int, bottleneck: Literal["memory", "compute", "latency"]) -> Diagnosis:
    return Diagnosis(trial=number, bottleneck=bottleneck, headroom=2.0, evidence=())


# Three first trials, each on an island of its own; 4 to 6 descend from the first.
LINEAGES = [
    trial(1, "row_loop", timed(2.0)),
    trial(2, "algebra", timed(1.5)),
    trial(3, "output_pages", timed(1.1)),
    trial(4, "row_loop", timed(3.0)).model_copy(update={"parent": 1}),
    trial(5, "row_loop", timed(2.5)).model_copy(update={"parent": 4}),
]
DIAGNOSES = (diagnosis(1, "memory"), diagnosis(4, "memory"), diagnosis(5, "latency"))


def test_a_cell_of_the_grid_keeps_its_fastest_trial() -> None:
    elites = elites_of([LINEAGES[0], LINEAGES[3], LINEAGES[4]], DIAGNOSES)
    assert [one.number for one in elites] == [4, 5]


def test_evolution_builds_on_the_best_and_on_every_island() -> None:
    for seed in range(20):
        parents = Evolve(seed).parents(LINEAGES, DIAGNOSES, width=4)
        assert parents[0] == 4
        assert {2, 3} <= set(parents)
        assert set(parents) <= {2, 3, 4, 5}


def test_evolution_takes_other_elites_by_chance_and_the_same_under_the_same_seed() -> None:
    found = {seed: Evolve(seed).parents(LINEAGES, DIAGNOSES, width=4) for seed in range(20)}
    assert any(5 in parents for parents in found.values())
    assert any(5 not in parents for parents in found.values())
    again = {seed: Evolve(seed).parents(LINEAGES, DIAGNOSES, width=4) for seed in range(20)}
    assert again == found


def test_the_island_that_lags_is_given_up_when_it_is_time_to_migrate() -> None:
    sixth = trial(6, "row_loop", timed(2.8)).model_copy(update={"parent": 4})
    parents = Evolve(0).parents([*LINEAGES, sixth], DIAGNOSES, width=4)
    assert 3 not in parents
    assert {2, 4} <= set(parents)


def test_evolution_names_no_more_parents_than_are_asked_for() -> None:
    assert Evolve(0).parents(LINEAGES, DIAGNOSES, width=1) == (4,)
    assert Evolve(0).parents([], (), width=2) == ()


@pytest.mark.parametrize(("name", "kind"), [("greedy", Greedy), ("beam", Beam), ("evolve", Evolve)])
def test_a_task_names_its_strategy(name: str, kind: type) -> None:
    raw = {"op": "torch.relu", "inputs": [{"shape": [2]}], "strategy": name}
    assert isinstance(strategy_for(parse_task(raw, "task", Path())), kind)

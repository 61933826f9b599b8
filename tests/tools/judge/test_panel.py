"""A panel of judges: right only if right everywhere, and no more judges open than memory allows."""

from pathlib import Path

import pytest

from knowledge.errors import BadInput
from tools.candidate import Candidate
from tools.facts import Baseline, Baselines, ReferenceFacts, Roofline
from tools.judge.panel import LEAST_OPEN, MEMORY_EACH, Panel
from tools.task import Task
from tools.verdict import (
    BuildFailed,
    CaseResult,
    Comparison,
    Correct,
    JudgeError,
    Profile,
    Timing,
    Verdict,
    WrongOutput,
)

SIZES = (4, 8, 16)
CANDIDATE = Candidate(source="class ModelNew: ...", backend="torch")
TASK = Task.model_validate(
    {"name": "t", "op": "torch.relu", "workloads": [{"inputs": [{"shape": [n]}]} for n in SIZES]}
)
# By workload: eager is the fastest for the first, torch.compile for the others.
TIMES = {4: (1.0, 2.0), 8: (3.0, 2.0), 16: (6.0, 5.0)}


class Scripted:
    """A judge of one workload that knows its answers."""

    def __init__(self, panel: "Bench", size: int) -> None:
        self.panel, self.size = panel, size
        panel.open.append(size)

    def examine(self) -> ReferenceFacts:
        if self.size in self.panel.unfit:
            raise BadInput("op.py", "forward raises.", "Mend it.")
        cautions = ("blind",) if self.size == 8 else ()
        return ReferenceFacts(
            source="", digest="", graph=None, inputs=(), outputs=(), flops=1, moved_bytes=1,
            cautions=cautions,
        )  # fmt: skip

    def cautions(self) -> tuple[str, ...]:
        return self.examine().cautions

    def survey(self) -> tuple[Baselines, Roofline]:
        eager, compiled = TIMES[self.size]
        rows = (
            Baseline(name="eager", median_ms=eager),
            Baseline(name="compile", median_ms=compiled),
        )
        roofline = Roofline(
            bandwidth_gbps=1.0, peak_gflops=1.0, moved_bytes=1, flops=1, fault_us=0.0, measured=""
        )
        return Baselines(rows=rows, noise=0.01), roofline

    def build(self, candidate: Candidate) -> BuildFailed | None:
        return None

    def verify(self, candidate: Candidate) -> Verdict:
        self.panel.asked.append(self.size)
        if (verdict := self.panel.verdicts.get(self.size)) is not None:
            return verdict
        return Correct(cases=(CaseResult(name="ordinary 1", passed=True, worst=0.1),))

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        self.panel.asked.append((self.size, against))
        times = dict(zip(("eager", "compile"), TIMES[self.size], strict=True))
        rows = tuple(
            Comparison(
                baseline=name, baseline_ms=times[name], candidate_ms=1.0, speedup=times[name],
                low=times[name], high=times[name], blocks=9,
            )
            for name in against
        )  # fmt: skip
        timing = Timing(
            candidate_ms=1.0, comparisons=rows, noise=0.01, page_faults=0.0, checked_outputs=1
        )
        return Correct(timing=timing)

    def profile(self, candidate: Candidate) -> Profile | None:
        self.panel.asked.append(("profile", self.size))
        return None

    def confirm(self, candidate: Candidate) -> Verdict:
        return self.measure(candidate, ("eager", "compile"))

    def close(self) -> None:
        self.panel.open.remove(self.size)


class Bench(Panel):
    """A panel of scripted judges that writes down what is asked of them."""

    def __init__(self, folder: Path, most_open: int | None = 8) -> None:
        self.open: list[int] = []
        self.asked: list[object] = []
        self.verdicts: dict[int, Verdict] = {}
        self.unfit: set[int] = set()
        super().__init__(TASK, folder, self.scripted)
        self._most_open = most_open or self._most_open

    def scripted(self, task: Task, folder: Path) -> Scripted:
        (workload,) = task.workloads
        return Scripted(self, workload.inputs[0].shape[0])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_right_everywhere_is_right_and_every_case_says_where(bench: Bench) -> None:
    verdict = bench.verify(CANDIDATE)
    assert isinstance(verdict, Correct)
    assert [case.name for case in verdict.cases] == [f"{size}: ordinary 1" for size in SIZES]


def test_wrong_on_one_workload_is_wrong_and_says_on_which(bench: Bench) -> None:
    bench.verdicts[8] = WrongOutput(detail="off by 3")
    verdict = bench.verify(CANDIDATE)
    assert isinstance(verdict, WrongOutput)
    assert verdict.labels == ("rejected on the workload 8",)
    assert bench.asked == [4, 8]


def test_an_error_of_the_judge_on_one_workload_is_no_pass(bench: Bench) -> None:
    bench.verdicts[16] = JudgeError(log="no memory")
    assert isinstance(bench.verify(CANDIDATE), JudgeError)


def test_each_workload_is_timed_against_its_own_fastest_baseline(bench: Bench) -> None:
    verdict = bench.measure(CANDIDATE, ("eager",), to_beat=100.0)
    assert bench.asked == [(4, ("eager",)), (8, ("compile",)), (16, ("compile",))]
    assert isinstance(verdict, Correct)
    assert verdict.timing is not None
    assert [one.timing.against_best.speedup for one in verdict.timing.workloads] == [1.0, 2.0, 5.0]
    assert verdict.timing.against_best.speedup == pytest.approx(10 ** (1 / 3))


def test_a_confirmation_is_of_every_workload(bench: Bench) -> None:
    verdict = bench.confirm(CANDIDATE)
    assert isinstance(verdict, Correct)
    assert verdict.timing is not None
    assert [row.baseline for row in verdict.timing.comparisons] == ["eager", "compile", "fastest"]


def test_the_facts_are_the_first_ones_with_the_cautions_of_all(bench: Bench) -> None:
    assert bench.examine().cautions == ("on 8: blind",)
    assert bench.cautions() == ("on 8: blind",)
    assert [one.name for one in bench.workloads] == ["4", "8", "16"]


def test_a_reference_that_fails_on_one_workload_is_refused_by_name(bench: Bench) -> None:
    bench.unfit.add(16)
    with pytest.raises(BadInput, match=r"op\.py: workload 16: forward raises\. Mend it\."):
        bench.examine()


def test_no_more_judges_stay_open_than_there_is_memory_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LEAST_OPEN)
    bench.examine()
    bench.measure(CANDIDATE, ("eager",))
    # The leading one stays: it profiles what it measured.
    assert sorted(bench.open) == [4, 16]
    bench.profile(CANDIDATE)
    assert bench.asked[-1] == ("profile", 4)
    bench.close()
    bench.close()
    assert bench.open == []


def test_how_much_memory_there_is_the_control_group_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.judge.panel.memory_bytes", lambda: 2 * MEMORY_EACH)
    bench = Bench(tmp_path, most_open=None)
    bench.examine()
    assert len(bench.open) == 2

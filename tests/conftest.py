"""What judging tests share: one judge per reference, started on first use and kept."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.judge.wire import JudgeLimits
from tools.task import parse_task
from tools.verdict import Correct, Verdict

# How long an example takes says nothing on a machine that runs other tests beside it. The same
# examples every time: what fails once fails again.
settings.register_profile(
    "shared", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared")
REFERENCES = Path(__file__).parent / "references"
LIMITS = JudgeLimits(
    call_s=10, first_call_s=15, load_s=60, compile_s=120, preparation_s=30, timing_s=0.3
)
# A kernel's first call compiles it, launcher and all.
GPU_LIMITS = LIMITS.model_copy(update={"first_call_s": 30})

Judges = Callable[[str], Judge]


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    """A judge by the name of its reference."""
    started: dict[str, Judge] = {}

    def judge_of(name: str) -> Judge:
        if name not in started:
            raw = {"name": name, "reference": f"{name}.py", "target": "cpu"}
            task = parse_task(raw, f"{name}.yaml", REFERENCES)
            started[name] = Judge(task, tmp_path_factory.mktemp(name), LIMITS)
        return started[name]

    yield judge_of
    for judge in started.values():
        judge.close()


@pytest.fixture(scope="session")
def judge_fully(judges: Judges) -> Callable[[str, str, bool], Verdict]:
    """Verify a source against a reference by name and, where that passes, time it."""

    def judge(reference: str, source: str, timed: bool) -> Verdict:
        candidate = Candidate(source=source, backend="torch")
        verdict = judges(reference).verify(candidate)
        if isinstance(verdict, Correct) and timed:
            return judges(reference).measure(candidate, ("eager",))
        return verdict

    return judge


@pytest.fixture(scope="session")
def judge_on_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Verdict]]:
    """As `judge_fully`, on the CUDA device of this machine; skips where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    started: dict[str, Judge] = {}

    def judge(reference: str, source: str, timed: bool = True) -> Verdict:
        if reference not in started:
            raw = {"name": reference, "reference": f"{reference}.py", "target": "cuda"}
            task = parse_task(raw, f"{reference}.yaml", REFERENCES)
            folder = tmp_path_factory.mktemp(reference.replace("/", "-"))
            started[reference] = Judge(task, folder, GPU_LIMITS)
        candidate = Candidate(source=source, backend="torch")
        verdict = started[reference].verify(candidate)
        if isinstance(verdict, Correct) and timed:
            return started[reference].measure(candidate, ("eager",))
        return verdict

    yield judge
    for one in started.values():
        one.close()

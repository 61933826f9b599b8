"""The judge under a training loop: episodes, judges that die, and one real episode."""

import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from knowledge.errors import BadInput
from tests.graph import builders
from tests.tools.judge.timed import timed
from tools.candidate import Candidate
from tools.facts import BLIND, CONSTANT, Baselines, ReferenceFacts, Roofline
from tools.judge import Environment
from tools.judge.client import JudgeClosed
from tools.judge.environment import TRIES, JudgeLost
from tools.judge.reward import CHEATED, reward_of
from tools.judge.seats import Seats
from tools.judge.turns import Turns
from tools.judge.wire import JudgeLimits
from tools.task import Task, parse_task
from tools.verdict import (
    BuildFailed,
    Cheated,
    Correct,
    Crashed,
    JudgeError,
    TimedOut,
    Verdict,
    WrongOutput,
)

ROOT = Path(__file__).parents[3]
TASK = Task.model_validate({"name": "relu", "op": "torch.relu", "inputs": [{"shape": [64, 64]}],
                            "target": "cpu"})  # fmt: skip
HEAD = (
    "import torch\nclass {name}(torch.nn.Module):\n    def forward(self, x):\n        return {x}\n"
)
FOOT = (
    "def get_inputs():\n    return [torch.randn(16, 32)]\ndef get_init_inputs():\n    return []\n"
)
RIGHT_KERNEL = HEAD.format(name="ModelNew", x="x * 2")


# Episodes, by judges that know their answers


class Scripted:
    """A judge whose answers are written down; an exception is raised, and a number is slept."""

    def __init__(self, bench: "Bench") -> None:
        self.bench, self.ended = bench, threading.Event()
        bench.opened += 1

    def examine(self) -> ReferenceFacts:
        self.bench.asked.append("examine")
        return builders.facts(self.bench.cautions)

    def survey(self) -> tuple[Baselines, Roofline]:
        return builders.baselines(), builders.roofline()

    def verify(self, candidate: Candidate) -> Verdict:
        return self._next("verify")

    def measure(self, candidate: Candidate, against: Sequence[str]) -> Verdict:
        assert against == ("eager", "compile")
        return self._next("measure")

    def confirm(self, candidate: Candidate) -> Verdict:
        return self._next("confirm")

    def _next(self, what: str) -> Verdict:
        self.bench.asked.append(what)
        answer = self.bench.answers.pop(0)
        if isinstance(answer, float):
            self.ended.wait(answer)
            raise JudgeClosed
        return answer

    def close(self) -> None:
        self.bench.closed += 1

    def abandon(self) -> None:
        self.ended.set()


class Bench(Environment):
    """An environment whose judges are scripted; everything else is as it is."""

    def __init__(self, folder: Path, *answers: Verdict | float, **settings: object) -> None:
        settings = {"turns": Turns(folder / "turns")} | settings
        super().__init__(folder, **settings)  # type: ignore[arg-type]
        self.answers = list(answers)
        self.asked: list[str] = []
        self.cautions: tuple[str, ...] = ()
        self.opened = self.closed = 0

    def _new_judge(self):  # type: ignore[no-untyped-def]
        return Scripted(self)


def test_another_op_under_the_same_path_has_another_judge(tmp_path: Path) -> None:
    file = tmp_path / "op.py"
    source = (Path(__file__).parents[2] / "references" / "rows.py").read_text()
    file.write_text(source)
    with Bench(tmp_path / "bench") as env:
        for text, opened in (
            (source, 1),
            (f"{source}\n# another\n", 2),
            (f"{source}\n# another\n", 2),
        ):
            file.write_text(text)
            env.reset(file)
            assert env.opened == opened


RIGHT_SO_FAR, WRONG = Correct(), WrongOutput(detail="3 of 64 elements are wrong")
LOST = JudgeError(log="the judge's process ended")


def test_an_episode_is_rewarded_by_verdicts_and_ends_with_its_steps(tmp_path: Path) -> None:
    confirmed = timed(3.0)
    with Bench(
        tmp_path, WRONG, RIGHT_SO_FAR, timed(0.5), RIGHT_SO_FAR, timed(5.0), confirmed, steps=3
    ) as env:
        begun = env.reset(TASK)
        assert "class Model" in begun.text
        assert begun.verdict is None
        observation, reward, done = env.step("a")
        assert (reward, done, observation.step) == (0.0, False, 1)
        assert "3 of 64 elements" in observation.text
        _, reward, done = env.step("b")
        assert (reward, done) == (pytest.approx(0.05), False)
        observation, reward, done = env.step("c")
        # What was read first is not paid: what stood when it was read again is.
        assert (reward, done) == (pytest.approx(0.1 + math.log(3)), True)
        assert observation.verdict is not None
        assert observation.verdict.kind == "correct"
        with pytest.raises(RuntimeError, match="over"):
            env.step("d")
        assert (env.opened, env.closed) == (1, 0)
        env.reset(TASK)
        assert env.opened == 1
    assert env.closed == 1
    with pytest.raises(RuntimeError, match="closed"):
        env.reset(TASK)
    env.close()


def test_a_win_that_falls_when_it_is_judged_again_earns_what_it_is(tmp_path: Path) -> None:
    cheat = Cheated(check="timed outputs", detail="one of 32 is wrong")
    with Bench(tmp_path, RIGHT_SO_FAR, timed(5.0), cheat) as env:
        env.reset(TASK)
        _, reward, done = env.step("a")
        assert (reward, done) == (CHEATED, True)


def test_a_lost_judge_is_a_step_that_is_tried_again_and_never_a_reward(tmp_path: Path) -> None:
    with Bench(tmp_path, LOST, WRONG, *[LOST] * TRIES, RIGHT_SO_FAR, timed(0.5)) as env:
        env.reset(TASK)
        assert env.step("a").reward == 0.0
        assert (env.opened, env.closed) == (2, 1)
        with pytest.raises(JudgeLost):
            env.step("b")
        observation, reward, _ = env.step("b")
        assert (observation.step, reward) == (2, pytest.approx(0.05))


def test_a_judge_that_does_not_answer_is_given_up_on(tmp_path: Path) -> None:
    with Bench(tmp_path, 60.0, WRONG, deadline_s=0.1) as env:
        env.reset(TASK)
        began = time.monotonic()
        assert env.step("a").reward == 0.0
        assert time.monotonic() - began < 30
        assert env.opened == 2


def test_a_deadline_missed_beside_others_is_tried_again_alone(tmp_path: Path) -> None:
    late = TimedOut(deadline_s=1.0)
    with Bench(tmp_path, late, RIGHT_SO_FAR, timed(0.5), late, late) as env:
        env.reset(TASK)
        assert env.step("a").reward > 0
        assert env.step("b").reward == 0.0
        assert env.asked.count("verify") == 4


def test_a_judge_that_gave_way_is_opened_anew_within_the_episode(tmp_path: Path) -> None:
    seats = Seats(1)
    with (
        Bench(tmp_path / "1", WRONG, seats=seats) as first,
        Bench(tmp_path / "2", WRONG, seats=seats) as second,
    ):
        first.reset(TASK)
        second.reset(TASK)
        assert (first.opened, first.closed) == (1, 1)
        assert first.step("a").reward == 0.0
        assert (first.opened, second.closed) == (2, 1)


def test_environments_in_threads_time_one_at_a_time_and_open_no_more_than_their_seats(
    tmp_path: Path,
) -> None:
    seats, turns, lock = Seats(2), Turns(tmp_path / "turns"), threading.Lock()
    at_work = {"verify": 0, "measure": 0}
    opened, clashes, rewards = [0], [], []

    class Busy(Scripted):
        def __init__(self, bench: Bench) -> None:
            super().__init__(bench)
            opened[0] += 1
            clashes.extend(["too many open"] if opened[0] > 2 else [])

        def _next(self, what: str) -> Verdict:
            with lock:
                at_work[what] += 1
                if at_work["measure"] and sum(at_work.values()) > 1:
                    clashes.append(f"{what} beside another")
            time.sleep(0.005)
            with lock:
                at_work[what] -= 1
            return super()._next(what)

        def close(self) -> None:
            opened[0] -= 1
            super().close()

    class Threaded(Bench):
        def _new_judge(self):  # type: ignore[no-untyped-def]
            return Busy(self)

    def train(number: int) -> None:
        answers = [RIGHT_SO_FAR, timed(0.5)] * 4
        folder = tmp_path / str(number)
        with Threaded(folder, *answers, seats=seats, turns=turns, steps=4) as env:
            env.reset(TASK)
            rewards.extend(env.step("a").reward for _ in range(4))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not clashes
    assert rewards == pytest.approx([0.05] * 20)


@pytest.mark.parametrize("caution", [BLIND.format(what="zeros"), CONSTANT, f"on b: {CONSTANT}"])
def test_a_task_that_tells_nothing_earns_no_rewards(caution: str, tmp_path: Path) -> None:
    with Bench(tmp_path) as env:
        env.cautions = (caution,)
        with pytest.raises(BadInput, match="Leave it out"):
            env.reset(TASK)
        with pytest.raises(RuntimeError, match="reset"):
            env.step("a")


def test_a_device_that_is_not_here_is_told_at_once(tmp_path: Path) -> None:
    away = TASK.model_copy(update={"target": "cuda:h200-sxm"})
    with Bench(tmp_path) as env, pytest.raises(BadInput, match="is not here"):
        env.reset(away)
    assert env.opened == 0


@pytest.mark.parametrize("source", ["x" * (2 << 20), "bad \ud800 text"])
def test_what_the_judge_could_not_even_be_sent_is_rejected(source: str, tmp_path: Path) -> None:
    with Bench(tmp_path) as env:
        env.reset(TASK)
        observation, reward, _ = env.step(source)
        assert reward == 0.0
        assert isinstance(observation.verdict, BuildFailed)


def test_the_package_is_light_and_so_is_the_environment() -> None:
    told = (
        "import sys; import tools.judge; light = 'tools.judge.environment' not in sys.modules\n"
        "from tools.judge import Environment\n"
        "print(light, 'torch' in sys.modules, Environment.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["True", "False", "Environment"]


# The real judge


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Environment, Task]]:
    folder = tmp_path_factory.mktemp("double")
    (folder / "double.py").write_text(HEAD.format(name="Model", x="x * 2") + FOOT)
    raw = {"name": "double", "reference": "double.py", "target": "cpu"}
    limits = JudgeLimits(preparation_s=1, timing_s=0.3, call_s=5, first_call_s=10)
    with Environment(limits=limits, turns=Turns(folder / "turns"), seats=Seats(1)) as env:
        yield env, parse_task(raw, "double.yaml", folder)


def newest(matching: Callable[[psutil.Process], bool]) -> psutil.Process:
    found = [one for one in psutil.Process().children() if matching(one)]
    return max(found, key=lambda one: one.create_time())


@pytest.mark.slow
def test_the_real_judge_rewards_right_kernels_alone_and_survives_its_death(
    double: tuple[Environment, Task],
) -> None:
    env, task = double
    begun = env.reset(task)
    assert "return x * 2" in begun.text
    wrong = env.step(RIGHT_KERNEL.replace("* 2", "* 3"))
    assert isinstance(wrong.observation.verdict, WrongOutput)
    assert wrong.reward == 0.0
    crashed = env.step(RIGHT_KERNEL.replace("return", "import os; os._exit(0); return"))
    assert isinstance(crashed.observation.verdict, Crashed)
    assert crashed.reward == 0.0
    newest(lambda one: "tools.judge.service" in one.cmdline()).send_signal(signal.SIGKILL)
    right = env.step(RIGHT_KERNEL)
    verdict = right.observation.verdict
    assert isinstance(verdict, Correct), verdict
    assert verdict.timing is not None
    assert right.reward == reward_of(verdict)
    assert right.reward > 0
    assert not right.done

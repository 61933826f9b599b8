"""The judge under a training loop: rewards, turns, seats, judges that die, and one real episode."""

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
from tools.candidate import Candidate
from tools.facts import BLIND, CONSTANT, Baselines, ReferenceFacts, Roofline
from tools.judge import Environment
from tools.judge.client import JudgeClosed
from tools.judge.environment import TRIES, JudgeLost
from tools.judge.reward import CHEATED, RIGHT, reward_of
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
    Timing,
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


def timed(low: float, speedup: float | None = None, noise: float = 0.02) -> Correct:
    row = builders.comparison("eager", 1.0, 1.0)
    row = row.model_copy(update={"speedup": speedup or low * 1.02, "low": low, "high": low * 1.05})
    return Correct(
        timing=Timing(
            candidate_ms=9.0, comparisons=(row,), noise=noise, page_faults=0, checked_outputs=8
        )
    )


# Rewards


def test_a_wrong_kernel_earns_nothing_and_a_cheat_less() -> None:
    for verdict in builders.every_verdict():
        if not isinstance(verdict, Correct | Cheated | JudgeError) and verdict.kind != "compiled":
            assert reward_of(verdict) == 0.0
    assert reward_of(Cheated(check="poison", detail="")) == CHEATED < 0


def test_a_slow_kernel_earns_little_and_more_the_less_slow_it_is() -> None:
    rewards = [reward_of(timed(low)) for low in (0.1, 0.5, 0.99)]
    assert rewards == pytest.approx([0.1 * RIGHT, 0.5 * RIGHT, 0.99 * RIGHT])
    # Faster, but by no more than the same code against itself may read.
    assert reward_of(timed(1.01)) == RIGHT


def test_a_win_earns_the_logarithm_of_what_it_has_for_certain() -> None:
    assert reward_of(timed(2.0, speedup=9.0)) == pytest.approx(RIGHT + math.log(2))
    assert reward_of(timed(4.0)) - reward_of(timed(2.0)) == pytest.approx(math.log(2))  # type: ignore[operator]


def test_what_the_judge_did_not_find_out_has_no_reward() -> None:
    for verdict in (JudgeError(log=""), Correct(), builders.every_verdict()[-1]):
        if isinstance(verdict, JudgeError | Correct) and getattr(verdict, "timing", None) is None:
            assert reward_of(verdict) is None


# Turns and seats


def test_who_times_has_the_machine_alone_and_who_judges_shares_it(tmp_path: Path) -> None:
    turns, at_work, seen, together = Turns(tmp_path), [0, 0], [], threading.Barrier(2, timeout=20)

    def judge() -> None:
        with turns.judging():
            at_work[0] += 1
            together.wait()
            seen.append(at_work[1])
            time.sleep(0.02)
            at_work[0] -= 1

    def measure() -> None:
        with turns.timing():
            at_work[1] += 1
            time.sleep(0.02)
            seen.append(at_work[0] + at_work[1] - 1)
            at_work[1] -= 1

    threads = [threading.Thread(target=work) for work in (measure, judge, judge, measure)]
    for thread in threads[1:3] + threads[:1] + threads[3:]:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(20)
    assert seen == [0, 0, 0, 0]


def test_a_turn_holds_for_other_processes_and_goes_with_its_own(tmp_path: Path) -> None:
    held = (
        "import sys, time; from pathlib import Path; from tools.judge.turns import Turns\n"
        "with Turns(Path(sys.argv[1])).timing():\n    print('mine', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert other.stdout is not None
    other.stdout.readline()
    got = threading.Event()

    def wait() -> None:
        with Turns(tmp_path).judging():
            got.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not got.wait(0.3)
    other.kill()
    other.wait()
    assert got.wait(20)
    waiting.join()
    other.stdout.close()


class Somebody:
    """Has a judge open, until asked to give way."""

    def __init__(self) -> None:
        self.gave_way = 0

    def give_way(self) -> None:
        self.gave_way += 1


def test_the_judge_that_was_asked_longest_ago_gives_way() -> None:
    seats, (first, second, third) = Seats(2), (Somebody(), Somebody(), Somebody())
    for one in (first, second, first, third):
        with seats.taken(one):
            pass
    assert [one.gave_way for one in (first, second, third)] == [0, 1, 0]
    with seats.taken(second, weight=9):
        assert (first.gave_way, third.gave_way) == (1, 1)


def test_where_all_judges_are_at_work_the_next_one_waits() -> None:
    seats, (first, second), got = Seats(1), (Somebody(), Somebody()), threading.Event()

    def take() -> None:
        with seats.taken(second):
            got.set()

    with seats.taken(first):
        waiting = threading.Thread(target=take)
        waiting.start()
        assert not got.wait(0.2)
        assert first.gave_way == 0
    assert got.wait(20)
    waiting.join()
    assert first.gave_way == 1
    with pytest.raises(ValueError, match="too few"):
        Seats(0)


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

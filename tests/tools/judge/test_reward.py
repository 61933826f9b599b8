"""Rewards: what a verdict is worth to a training loop."""

import math

import pytest

from tests.graph import builders
from tests.tools.judge.timed import timed
from tools.judge.reward import CHEATED, RIGHT, reward_of
from tools.verdict import Cheated, Correct, JudgeError


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

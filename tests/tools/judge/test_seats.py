"""Seats: which judge is closed where another one is wanted, and who waits."""

import threading

import pytest

from tools.judge.panel import MEMORY_EACH
from tools.judge.seats import Seats


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


def test_there_are_no_more_seats_than_memory_and_cores_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tools.judge.seats.memory_bytes", lambda: 3 * MEMORY_EACH)
    for cores, most in ((64, 3), (2, 2)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert Seats().most == most

"""Turns at a device that runs of several processes share."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from graph.meter import TIMING, Meter, MeteredJudge, Queue
from tools.judge.client import Judge
from tools.judge.turns import VARIABLE, Turns, turns_of_process


@contextmanager
def held_elsewhere(turn: AbstractContextManager[None]) -> Iterator[threading.Event]:
    """While somebody else has a turn, until the event is set."""
    held, free = threading.Event(), threading.Event()

    def somebody_else() -> None:
        with turn:
            held.set()
            free.wait(10)

    other = threading.Thread(target=somebody_else)
    other.start()
    held.wait(10)
    yield free
    other.join()


def test_whoever_times_is_alone_and_waiting_is_no_work(tmp_path: Path) -> None:
    whole = time.monotonic()
    meter = Meter(tmp_path / "spent.jsonl")
    queue = Queue(Turns(tmp_path), meter, on_cpu=True)
    with held_elsewhere(Turns(tmp_path).judging()) as free:
        with queue.turn("verify"):
            pass  # two may judge at once
        began = time.monotonic()
        threading.Timer(0.5, free.set).start()
        with queue.turn("measure"):
            assert free.is_set()
            waited = time.monotonic() - began
    assert waited > 0.4
    assert meter.wall_seconds <= time.monotonic() - whole - 0.4


def test_reading_instruments_waits_for_who_times(tmp_path: Path, relu_judge: Judge) -> None:
    meter = Meter(tmp_path / "spent.jsonl")
    judge = MeteredJudge(relu_judge, meter, queue=Queue(Turns(tmp_path), meter, on_cpu=True))
    with held_elsewhere(Turns(tmp_path).timing()) as free:
        threading.Timer(0.3, free.set).start()
        with judge.alone():
            assert free.is_set()


@pytest.mark.parametrize("what", TIMING)
def test_compiling_waits_for_who_times_on_the_cpu_and_not_for_who_times_on_a_gpu(
    tmp_path: Path, what: str
) -> None:
    meter = Meter(tmp_path / "spent.jsonl")
    on_gpu = Queue(Turns(tmp_path), meter, on_cpu=False)
    on_cpu = Queue(Turns(tmp_path), meter, on_cpu=True)
    built: list[str] = []

    def build(queue: Queue, name: str) -> None:
        with queue.turn("build"):
            built.append(name)

    with on_gpu.turn(what):
        build(on_gpu, "gpu")
        late = threading.Thread(target=build, args=(on_cpu, "cpu"))
        late.start()
        late.join(0.3)
        assert built == ["gpu"]
    late.join(10)
    assert built == ["gpu", "cpu"]


def test_a_process_takes_turns_where_it_was_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert turns_of_process() is None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "turns"))
    turns = turns_of_process()
    assert turns is not None
    with turns.timing():
        assert (tmp_path / "turns" / "lane").exists()

"""The desk at which a run waits for whoever writes its kernels."""

import threading
from concurrent.futures import Future

import pytest

from graph.guest import Busy, Desk, Finish, Given, Submission, check_guest
from graph.workbench import Stopping
from knowledge.errors import BadInput
from tools.task import Models, Task

KERNEL = Submission(source="class ModelNew: ...", title="one")


def waiting(desk: Desk) -> "Future[Given]":
    """A run's thread that waits at the desk."""
    done: Future[Given] = Future()

    def wait() -> None:
        try:
            done.set_result(desk.wait())
        except Stopping as stop:
            done.set_exception(stop)

    threading.Thread(target=wait, daemon=True).start()
    return done


def test_what_is_handed_in_is_what_the_run_gets() -> None:
    desk = Desk(10)
    turn, run = desk.next_turn(), waiting(desk)
    turn.result(5)
    assert desk.waits
    after = desk.hand_in(KERNEL)
    assert run.result(5) == KERNEL
    assert not after.done()
    waiting(desk)
    after.result(5)


def test_nothing_is_taken_while_the_run_is_at_work() -> None:
    desk = Desk(10)
    with pytest.raises(Busy):
        desk.hand_in(KERNEL)
    turn, run = desk.next_turn(), waiting(desk)
    turn.result(5)
    desk.hand_in(Finish())
    with pytest.raises(Busy):
        desk.hand_in(KERNEL)
    assert run.result(5) == Finish()


def test_a_desk_that_nobody_comes_to_stops_the_run() -> None:
    run = waiting(Desk(0.05))
    with pytest.raises(Stopping, match="nothing was handed in"):
        run.result(5)


def test_a_desk_that_is_left_stops_the_run_and_tells_who_waits() -> None:
    desk = Desk(10)
    run = waiting(desk)
    desk.next_turn().result(5)
    desk.leave("the server was shut down")
    with pytest.raises(Stopping, match="shut down"):
        run.result(5)
    other = Desk(10)
    turn = other.next_turn()
    other.close()
    assert turn.result(5) is None


def test_a_task_that_names_a_model_has_no_room_for_a_guest() -> None:
    task = Task(name="x", op="torch.relu", inputs=({"shape": (2,)},), model=Models(default="a:b"))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="you write the kernels yourself"):
        check_guest(task)

"""A run on a thread of its own: to be followed, awaited and stopped from other threads."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from graph.drive import Audience, Interrupted, carry_out
from graph.events import Event
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.state import RunInput
from graph.workbench import Stopping, Workbenches
from tools.task import Task

Listener = Callable[[Event], None]


class Nobody:
    """An audience that watches nothing and is never asked."""

    def handle(self, event: Event) -> None:
        """Nothing."""

    def answer(self, asked: Any) -> Any:
        """Refuse.

        Raises:
            Stopping: always: the run asked for a word that nobody here can give.
        """
        raise Stopping("it asked for a person's word, and nobody was there to give it")


class Background:
    """One run, begun with `start`.

    Args:
        folder: of the run.
        task: what is done in it.
        entry: starts the run; None goes on where it stopped.
        benches: its tools, its own.
        audience: answers what it asks.
    """

    def __init__(
        self,
        folder: RunFolder,
        task: Task,
        entry: RunInput | None,
        benches: Workbenches,
        audience: Audience | None = None,
    ) -> None:
        self.folder = folder
        self.task = task
        self.ended: Future[RunRecord] = Future()
        self._entry = entry
        self._benches = benches
        self._audience: Audience = audience or Nobody()
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        name = f"run-{folder.path.name}"
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)

    def start(self) -> "Background":
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End it now, with the processes that it started; it can be resumed."""
        self._benches.abandon()

    def join(self, seconds: float) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener, on the run's thread, of every event from now on; call to end that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return end

    def handle(self, event: Event) -> None:
        """Pass an event on."""
        self._audience.handle(event)
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener(event)

    def answer(self, asked: Any) -> Any:
        """Pass a question on."""
        return self._audience.answer(asked)

    def _go(self) -> None:
        # Whoever awaits the run gets whatever it raised; on a thread it would be lost.
        try:
            record = carry_out(self.folder, self.task, self._entry, self._benches, self)
        except BaseException as error:  # noqa: BLE001
            self.ended.set_exception(error)
        else:
            self.ended.set_result(record)


def why_it_stopped(error: BaseException) -> str:
    """A clause on why a run that was interrupted is."""
    return error.why if isinstance(error, Interrupted) else str(error)

"""Runs a run again from its exchanges: `python -m graph.replay RUN_DIR`, no network and no model.

A question is answered by its key. Prompts quote what was measured, and the judge measures anew, so
most keys differ: then the answer is the next one that the same role gave for the same plan. A
question for which none is left ends the replay with one clear line.
"""

import threading
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agents.llm.exchange import Exchange
from graph.build import RUNS
from graph.drive import Interrupted, exchanges_in, work
from graph.folder import RunFolder
from graph.journal import Answers, PriceOf, RunJournal, present_place
from graph.run import BAD_INPUT, INTERRUPTED, hand_over, say
from graph.state import RunInput
from graph.workbench import Thinking, Workbenches, replayed_crew
from knowledge.errors import BadInput
from tools.task import Budget

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Recording:
    """The exchanges of a run, each to be used once; thread-safe.

    Args:
        exchanges: in the order in which they were answered.
    """

    def __init__(self, exchanges: tuple[Exchange, ...]) -> None:
        self._left = list(exchanges)
        self._lock = threading.Lock()
        self.by_key = 0
        self.by_place = 0

    def take(self, key: str) -> Exchange:
        """The answer to a question, by its key, else by who asks for what.

        Raises:
            BadInput: none is left.
        """
        place = present_place()
        with self._lock:
            for exchange in self._left:
                if exchange.key == key:
                    self._left.remove(exchange)
                    self.by_key += 1
                    return exchange
            for exchange in self._left:
                if place is not None and (exchange.role, exchange.plan) == place[:2]:
                    self._left.remove(exchange)
                    self.by_place += 1
                    return exchange
        asks = f"the {place.role} asks" if place is not None else "a role asks"
        what = f" for plan {place.plan}" if place is not None and place.plan else ""
        raise BadInput(
            "replay",
            f"{asks} something{what} that the run has no answer to.",
            "The judge found otherwise than it did then; go on with python -m graph.run --resume.",
        )


class ReplayJournal(RunJournal):
    """A journal that answers from a recording, and lets no call through."""

    def __init__(
        self,
        recording: Recording,
        folder: RunFolder,
        budget: Budget,
        price_of: PriceOf,
        answers: Answers | None,
    ) -> None:
        super().__init__(folder, budget, price_of, None)
        self._recording = recording

    def _from_elsewhere(self, key: str) -> Exchange | None:
        return self._recording.take(key)


@app.command()
def main(
    run_dir: Annotated[Path, typer.Argument(help="the folder of a run", metavar="RUN_DIR")],
    out: Annotated[
        Path, typer.Option("--out", help="folder in which the replay's own folder is made")
    ] = RUNS,
    as_json: Annotated[
        bool, typer.Option("--json", help="one JSON document on standard output")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Run the graph again from a run's exchanges; exit codes are those of graph.run."""
    try:
        source, task = RunFolder.reopen(run_dir)
        recording = Recording(exchanges_in(source))
        folder = RunFolder.create(out, task)
        record = work(
            folder,
            task,
            RunInput(task=task, run_dir=str(folder.path)),
            quiet=quiet,
            benches=Workbenches(
                thinking=Thinking(
                    journal_of=partial(ReplayJournal, recording), crew_of=replayed_crew
                )
            ),
        )
    except BadInput as error:
        say(str(error))
        raise typer.Exit(BAD_INPUT) from error
    except Interrupted as stop:
        say(f"{stop.why}; what there is so far lies in {stop.folder.path}")
        raise typer.Exit(INTERRUPTED) from stop
    say(
        f"answers used again: {recording.by_key} by their question, {recording.by_place} by their "
        "place, as figures in the question differ"
    )
    hand_over(record, as_json=as_json)


if __name__ == "__main__":
    app()

"""An evaluation on the disk while it goes on: each row at once, the whole as often as is cheap.

The whole grows with the suite, and machines by the hundred end a problem many times a second. So a
row is first written into its problem's folder, whence `--resume` has it, and `results.json` and the
page follow when writing them takes a small part of the time.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from eval.one import folder_of
from eval.page import write_page
from eval.problem import Problem
from eval.results import Results, save
from eval.rows import ROW, Row, is_outage
from graph.folder import write_whole

FILE = "row.json"
# Of the time, for writing what is written again and again.
SHARE = 0.05


class Keeper:
    """Writes down what an evaluation has.

    Args:
        folder: the evaluation's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._due = 0.0

    def keep(self, problem: Problem, row: Row, results: Results) -> None:
        """One more row, which the results hold already."""
        home = folder_of(problem, self._folder)
        home.mkdir(parents=True, exist_ok=True)
        write_whole(home / FILE, ROW.dump_json(row, indent=2).decode() + "\n")
        if time.monotonic() >= self._due:
            self.write(results)

    def write(self, results: Results) -> None:
        """The whole: `results.json` and the page."""
        began = time.monotonic()
        save(results, self._folder)
        write_page(results, self._folder)
        now = time.monotonic()
        self._due = now + (now - began) / SHARE


def with_kept_rows(results: Results, problems: Sequence[Problem], folder: Path) -> Results:
    """What is known of a stopped evaluation: rows it had not yet told too, no row of an outage."""
    results = results.without_outages()
    done = {row.name for row in results.rows}
    for problem in problems:
        if problem.task.name in done:
            continue
        try:
            row = ROW.validate_json((folder_of(problem, folder) / FILE).read_bytes())
        except (OSError, ValidationError):
            continue
        if row.name == problem.task.name and not is_outage(row):
            results = results.with_row(row)
    return results

"""An evaluation's results as a file, written whole after every problem."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from eval.problem import NotAProblem
from eval.provenance import Provenance
from eval.rows import Finished, Row, is_outage
from eval.score import Breakdown, Summary, break_down, summarize
from graph.folder import write_whole
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen

SCHEMA = 5
FILE = "results.json"


class Rules(Frozen):
    """What a command says, beside the settings of tasks, that changes rows."""

    scale_inputs: bool = False
    memory: bool = False
    memory_gib: float | None = None
    wall_minutes: float | None = None


class Results(Frozen):
    """The rows of a suite so far, and what they were measured with."""

    schema_version: int = SCHEMA
    suite: str
    started: str = Field(description="ISO 8601, UTC")
    versions: dict[str, str]
    overrides: tuple[str, ...] = Field(
        (), description="what --set said, the same for every problem"
    )
    problems: tuple[str, ...] = Field(description="names of all problems, finished or not")
    shard: str = Field("", description="i/n, where these are one of n parts of the suite")
    candidates: str = Field("", description="the folder of kernels that were judged")
    rules: Rules | None = Field(None, description="None in older results")
    provenance: Provenance = Provenance()
    others: tuple[NotAProblem, ...] = Field(
        (), description="files of the suite's folder that are no problem"
    )
    unmatched: tuple[NotAProblem, ...] = Field(
        (), description="files of --candidates that are for no problem"
    )
    rows: tuple[Row, ...] = ()

    @property
    def device(self) -> str:
        """The device that the first finished run names; empty before."""
        return next((row.document.device for row in self.rows if isinstance(row, Finished)), "")

    @property
    def summary(self) -> Summary:
        """The scores of the rows so far."""
        return summarize(self.rows)

    @property
    def breakdown(self) -> Breakdown:
        """The scores of the suite's parts so far."""
        return break_down(self.rows)

    def with_row(self, row: Row) -> "Results":
        """These results and one more row; rows stand in the suite's order, however they came."""
        place = {name: number for number, name in enumerate(self.problems)}
        rows = sorted((*self.rows, row), key=lambda one: place.get(one.name, len(place)))
        return self.model_copy(update={"rows": tuple(rows)})

    def without_outages(self) -> "Results":
        """These results without rows that say nothing of their problems, to run those again."""
        rows = tuple(row for row in self.rows if not is_outage(row))
        return self.model_copy(update={"rows": rows})

    @property
    def left(self) -> int:
        """How many problems have no row yet."""
        return len(self.problems) - len(self.rows)

    def document(self) -> dict[str, Any]:
        """The whole as JSON values, with the figures that other readers would have to derive."""
        derived = {
            "device": self.device,
            "summary": self.summary.model_dump(mode="json"),
            "breakdown": self.breakdown.model_dump(mode="json"),
            "sol": {row.name: row.sol for row in self.rows if isinstance(row, Finished)},
        }
        return self.model_dump(mode="json") | derived


_DERIVED = ("device", "summary", "breakdown", "sol")


def save(results: Results, folder: Path) -> None:
    """Write `results.json`; a reader sees the old one or the whole new one."""
    write_whole(folder / FILE, json.dumps(results.document(), indent=2) + "\n")


def load(path: Path) -> Results:
    """Read results from their file or the folder it lies in.

    Raises:
        BadInput: no such file, or not such a file.
    """
    file = path / FILE if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("schema_version", 1) > SCHEMA:
            newer = f"was written by a newer version (schema {raw['schema_version']})."
            raise BadInput(str(file), newer, "Update Kernelwright to read it.")
        stored = {key: value for key, value in raw.items() if key not in _DERIVED}
        return Results.model_validate_json(json.dumps(stored))
    except OSError as error:
        raise BadInput(
            str(file), f"cannot be read ({error.strerror}).", "Give a results.json of eval.run."
        ) from error
    except (ValueError, AttributeError) as error:
        raise BadInput(
            str(file), "is not the results of an evaluation.", "Give a results.json of eval.run."
        ) from error

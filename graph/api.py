"""From Python: `optimize(function_or_module, inputs)` and its async twin.

Both work where an event loop runs already, as in a notebook, and from any thread. However a call is
interrupted, it names the run's folder, and `resume` with that goes on.
"""

import asyncio
import contextlib
import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.llm.models import check_models
from graph.background import Background
from graph.build import RUNS
from graph.drive import way_on, work
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.result import Result
from graph.screen import Screen
from graph.state import RunInput
from graph.workbench import Workbenches
from knowledge.errors import BadInput
from tools.capture import is_taken_of, name_of, positional, take
from tools.materialise import materialise
from tools.reference import load
from tools.task import Budget, Task, device_of, language_of, load_task, parse_task

WHERE = "optimize"
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Job:
    """A run that is about to begin, or to go on, and what its result is made of."""

    folder: RunFolder
    task: Task
    subject: Any
    arguments: tuple[Any, ...]
    built_with: tuple[Any, ...] = ()
    fresh: bool = True

    @property
    def entry(self) -> RunInput | None:
        """What the graph is started with; None where it goes on."""
        return None if not self.fresh else RunInput(task=self.task, run_dir=str(self.folder.path))

    def result(self, record: RunRecord) -> Result:
        """The result, once it has ended."""
        return Result(record, self.subject, self.arguments, self.built_with)


def optimize(
    subject: Any = None,
    inputs: Any = None,
    *,
    resume: Path | str | None = None,
    out: Path | str = RUNS,
    quiet: bool = False,
    library: Path | str | None = None,
    **settings: Any,
) -> Result:
    """Make an op faster, and prove it.

    Args:
        subject: a function, a lambda, or an instance of a torch.nn.Module in the mode that it is
            used in; or the path of a task file or of a reference.
        inputs: what it is called with: a tensor, a list of arguments, or a mapping by name. The
            judge draws others like them. Left out for a path.
        resume: the folder of a run that stopped, which goes on by its own task: no settings then.
            With the function or module that it was begun with, the result is in the place of that;
            without, in the place of the run's own reference.
        out: the folder in which the run's own folder is made.
        quiet: show no progress.
        library: the library's folder; None for the user's own.
        settings: keys of a task file, e.g. `target="cpu"`, `model="openai:gpt-5"`; the keys of its
            budget may stand beside them: `trials=4, minutes=2`.

    Raises:
        BadInput: the op can't be taken, or a setting is wrong; the message is one line.
        Interrupted: it was interrupted; its `folder.path` is what to resume.
    """
    job = prepare(subject, inputs, Path(out), settings, resume)
    return job.result(work(job.folder, job.task, job.entry, quiet=quiet, benches=_benches(library)))


async def aoptimize(
    subject: Any = None,
    inputs: Any = None,
    *,
    resume: Path | str | None = None,
    out: Path | str = RUNS,
    quiet: bool = False,
    library: Path | str | None = None,
    **settings: Any,
) -> Result:
    """As `optimize`, while the event loop goes on; cancelling it ends the run's processes too.

    The `CancelledError` has a note that names the run's folder.

    Raises:
        BadInput: as `optimize`.
        Interrupted: as `optimize`.
    """
    job = await asyncio.to_thread(prepare, subject, inputs, Path(out), settings, resume)
    run = Background(job.folder, job.task, job.entry, _benches(library))
    with Screen(job.task, quiet) as screen:
        run.listen(screen.handle)
        run.start()
        ended = asyncio.wrap_future(run.ended)
        # What a cancelled call no longer waits for is not to be told as an error that was lost.
        ended.add_done_callback(lambda it: it.cancelled() or it.exception())
        try:
            record = await asyncio.shield(ended)
        except asyncio.CancelledError as cancelled:
            cancelled.add_note(f"the run was stopped; {way_on(job.folder)}")
            run.stop()
            # A second cancel leaves the run to end by itself, which it does.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.to_thread(run.join, STOP_SECONDS)
            raise
    return job.result(record)


def _benches(library: Path | str | None) -> Workbenches:
    return Workbenches(Path(library) if library is not None else None, instruments=True)


def prepare(
    subject: Any,
    inputs: Any,
    out: Path,
    settings: Mapping[str, Any],
    resume: Path | str | None = None,
) -> Job:
    """The run's folder and task, with the subject written down; of one that goes on, as they are.

    Raises:
        BadInput: as `optimize`.
    """
    if resume is not None:
        return _going_on(Path(resume), subject, inputs, settings)
    if subject is None:
        raise BadInput("subject", "is missing.", "Give a function, a module or a path.")
    raw = _sorted_out(settings)
    if isinstance(subject, str | Path):
        return _of_file(Path(subject), inputs, out, raw)
    _check_given(inputs)
    folder = RunFolder.named(out, str(raw.get("name") or name_of(subject)))
    try:
        taken = take(subject, inputs, folder.taken)
        raw = {"name": taken.name, **raw, "reference": str(taken.reference)}
        task = _checked(parse_task(raw, WHERE, Path.cwd()))
        folder.adopt(task)
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return Job(folder, task, subject, positional(subject, inputs))


def _check_given(inputs: Any) -> None:
    if inputs is None:
        raise BadInput("inputs", "are missing.", "Give what the op is called with: optimize(f, x).")


def _of_file(path: Path, inputs: Any, out: Path, raw: dict[str, Any]) -> Job:
    if inputs is not None:
        raise BadInput("inputs", f"belong to a function or a module; {path} brings its own.")
    if path.suffix == ".py":
        task = parse_task({"name": path.stem, **raw, "reference": str(path)}, WHERE, Path.cwd())
    else:
        overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in _flat(raw).items()]
        task = load_task(path, tuple(overrides))
    subject, arguments, given = _read(_checked(task), str(path))
    return Job(RunFolder.create(out, task), task, subject, arguments, given)


def _read(task: Task, origin: str) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """A task's reference as a module, what it is called with, and what it is constructed with."""
    loaded = load(materialise(task), origin)
    given, named = loaded.init_arguments(0)
    if named:
        given = inspect.signature(loaded.module.Model).bind(*given, **named).args
    return loaded.build(0), loaded.inputs(0), given


def _going_on(path: Path, subject: Any, inputs: Any, settings: Mapping[str, Any]) -> Job:
    """An earlier run, as it was left.

    Raises:
        BadInput: there is none, it is another op's, or it is told anew what to do.
    """
    if settings or isinstance(subject, str | Path):
        extra = "path" if isinstance(subject, str | Path) else ", ".join(settings)
        raise BadInput(
            "resume",
            "goes by the run's own task.",
            f"Leave out: {extra}, as in optimize(resume=...).",
        )
    folder, task = RunFolder.reopen(path, "resume")
    _checked(task)
    if subject is None:
        return Job(folder, task, *_read(task, str(folder.task_file)), fresh=False)
    _check_given(inputs)
    kept = folder.taken / "reference.py"
    if not (kept.is_file() and is_taken_of(kept, subject, inputs)):
        raise BadInput(
            f"resume {path}", f"is not a run on {name_of(subject)} with inputs of these shapes.",
            "Without a subject it goes on all the same: optimize(resume=...).",
        )  # fmt: skip
    return Job(folder, task, subject, positional(subject, inputs), fresh=False)


def _sorted_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a task file has them: the budget's keys in their section."""
    budget = {key: settings[key] for key in settings if key in Budget.model_fields}
    raw = {key: value for key, value in settings.items() if key not in budget}
    given = raw.get("budget") or {}
    if not isinstance(given, Mapping):
        raise BadInput("budget", "is a section.", "Give its keys: optimize(f, x, trials=4).")
    if budget:
        raw["budget"] = {**given, **budget}
    return raw


def _flat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The budget's keys one by one, so that a file's others stay as they are."""
    budget = raw.get("budget") or {}
    rest = {key: value for key, value in raw.items() if key != "budget"}
    return {**rest, **{f"budget.{key}": value for key, value in budget.items()}}


def _checked(task: Task) -> Task:
    """The task, if nothing ends its run at once.

    Raises:
        BadInput: its device or language is unknown, or a model lacks its key.
    """
    language_of(task, device_of(task, f"{WHERE}: target"), WHERE)
    check_models(task, WHERE)
    return task

"""What a run's folder holds for whoever trains a model: each trial's prompt, reply and verdict.

A model's trial has the conversation that made it. A rule's trial was made by no prompt: it is given
the one that a model in that role would have been asked, rendered from the run's record.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from agents.brief import Brief, Plan
from agents.llm.exchange import Exchange
from agents.llm.prompts import ENVIRONMENT, common, for_coder, for_debugger
from agents.llm.views import Page
from graph.folder import RunFolder
from graph.journal import legible_exchanges
from graph.record import BASELINE_PLAN, RunRecord
from graph.report.load import load_record
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.facts import telling_nothing
from tools.judge.reward import reward_of
from tools.task import PLAYBOOK
from tools.verdict import Compiled, Correct, JudgeError, Trial, Verdict

UNKNOWN = "unknown"
ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool"}
_SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+()-]+(?:\s+(?:AND|OR|WITH)\s+[\w.+()-]+)*)")

# A message as training libraries take it: `role`, `content`, of a call `tool_calls`.
Message = dict[str, Any]
Asked = Literal["asked", "rendered"]


class Trajectory(Frozen):
    """One kernel: what was asked, what was answered, and what the judge said in the end.

    `reward` is None where that is not settled: the kernel was right, and nobody measured it again.
    `task_prompt` says nothing of plans and earlier trials, so that it is one for all kernels of an
    op on a device.
    """

    run: str
    trial: int
    task: str
    author: str
    role: Literal["coder", "debugger"]
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    prompt_is: Asked
    task_prompt: tuple[Message, ...]
    kernel: str
    digest: str = Field(description="SHA-256 of the kernel")
    reference: str = Field(description="SHA-256 of the reference")
    device: str
    licence: str = Field(description="of the reference, as an SPDX id, or unknown")
    verdict: str
    reward: float | None
    faster: bool
    speedup: float | None = Field(description="confirmed, over the fastest baseline")
    interval: tuple[float, float] | None
    judge: str = Field(description="SHA-256 of the judge that said so; empty: not known")
    versions: dict[str, str]


class LeftOut(NamedTuple):
    """A run that gave nothing, and why."""

    run: str
    reason: str


def run_folders(places: Sequence[Path]) -> list[Path]:
    """Every run's folder in these places, at any depth; an evaluation's folder has many.

    Raises:
        BadInput: a place is no folder, or there is no run in any.
    """
    found: dict[Path, None] = {}
    for place in places:
        if not place.is_dir():
            raise BadInput(str(place), "is not a folder.", "Give folders of runs or evaluations.")
        for root, folders, files in os.walk(place):
            if "task.yaml" in files and "trials" in folders:
                found[Path(root).resolve()] = None
                # Nothing in a run is another run.
                folders.clear()
            folders.sort()
    if not found:
        raise BadInput(
            " ".join(map(str, places)), "holds no run.", "Give folders of runs or evaluations."
        )
    return list(found)


def trajectories(folder: Path) -> Iterator[Trajectory | LeftOut]:
    """All trials of a run that are kernels of its own, or why there are none."""
    try:
        record = load_record(folder).record
    except BadInput as error:
        yield LeftOut(folder.name, error.what)
        return
    if caution := telling_nothing(record.facts.cautions):
        yield LeftOut(folder.name, caution)
        return
    said = legible_exchanges(RunFolder(folder).exchanges)
    task_prompt = _task_prompt(record)
    for trial in record.trials:
        if trial.plan != BASELINE_PLAN:
            yield _trajectory(record, trial, said, task_prompt)


def settled(record: RunRecord, trial: Trial) -> Verdict | None:
    """The verdict that stands: the confirmation of the winner, or a rejection.

    None for what was right and measured once, for what was only compiled, and where the judge
    failed.
    """
    if trial.number == record.winner:
        return record.confirmation
    unsettled = isinstance(trial.verdict, Correct | Compiled | JudgeError)
    return None if unsettled else trial.verdict


def licence_of(record: RunRecord) -> str:
    """The licence of a reference: its file's own word, else the task's, else unknown."""
    named = _SPDX.search(record.facts.source)
    return named.group(1).strip() if named else record.task.licence or UNKNOWN


def in_a_block(kernel: str) -> str:
    """A module as an answer."""
    return f"```python\n{kernel.strip()}\n```"


def _trajectory(
    record: RunRecord, trial: Trial, said: Sequence[Exchange], task_prompt: tuple[Message, ...]
) -> Trajectory:
    verdict = settled(record, trial)
    exchange = _made_by(record, trial, said)
    if exchange is not None:
        prompt, completion = _conversation(exchange)
    else:
        prompt, completion = _rendered(record, trial)
    timing = verdict.timing if isinstance(verdict, Correct) else None
    best = timing.against_best if timing is not None else None
    hashes = (verdict or trial.verdict).hashes
    return Trajectory(
        run=record.run_id,
        trial=trial.number,
        task=record.task.name,
        author=trial.candidate.author,
        role="debugger" if trial.repair else "coder",
        prompt=prompt,
        completion=completion,
        prompt_is="rendered" if exchange is None else "asked",
        task_prompt=task_prompt,
        kernel=trial.candidate.source,
        digest=trial.candidate.digest,
        reference=record.facts.digest,
        device=record.device.name,
        licence=licence_of(record),
        verdict=(verdict or trial.verdict).kind,
        reward=reward_of(verdict) if verdict is not None else None,
        faster=timing is not None and timing.faster,
        speedup=best.speedup if best else None,
        interval=(best.low, best.high) if best else None,
        judge=hashes.judge if hashes is not None else "",
        versions=record.versions,
    )


def _made_by(record: RunRecord, trial: Trial, said: Sequence[Exchange]) -> Exchange | None:
    """The last exchange of the turn that wrote a trial, which quotes all of that turn."""
    if trial.candidate.author == PLAYBOOK:
        return None
    role, plan = "coder", trial.plan
    if trial.repair and trial.parent is not None:
        role, plan = "debugger", record.trial(trial.parent).plan
    mine = [one for one in said if one.role == role and one.plan == plan]
    return mine[-1] if mine else None


def _conversation(exchange: Exchange) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """What the model was given, and all that came after, tools' answers and its last reply too."""
    messages = [_message(one) for one in (*exchange.messages, exchange.reply)]
    roles = [message["role"] for message in messages]
    first = roles.index("assistant")
    return tuple(messages[:first]), tuple(messages[first:])


def _message(stored: dict[str, Any]) -> Message:
    """One message of LangChain's dictionary form in the form of chat templates."""
    data = stored.get("data", {})
    told: Message = {
        "role": ROLES.get(stored.get("type", ""), "user"),
        "content": _text(data.get("content", "")),
    }
    if calls := data.get("tool_calls"):
        told["tool_calls"] = [
            {
                "type": "function",
                "id": call.get("id") or "",
                "function": {"name": call.get("name", ""), "arguments": call.get("args", {})},
            }
            for call in calls
        ]
    if told["role"] == "tool":
        told["tool_call_id"] = data.get("tool_call_id", "")
    return told


def _text(content: str | Sequence[Any]) -> str:
    if isinstance(content, str):
        return content
    parts = [block if isinstance(block, str) else str(block.get("text", "")) for block in content]
    return "\n".join(part for part in parts if part)


def _rendered(record: RunRecord, trial: Trial) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The prompt that a model would have been asked for this kernel, and the kernel in its form."""
    brief, plan = _brief_at(record, trial), record.plan(trial.plan)
    pages = [
        Page(number=number, title=one.title, text=one.passage, citation=one)
        for number, one in enumerate(plan.citations, 1)
    ]
    answer = in_a_block(trial.candidate.source)
    if trial.repair and trial.parent is not None:
        failed = record.trial(trial.parent)
        asked = for_debugger(brief, record.plan(failed.plan), failed, pages)
        changes = {repair.failed_trial: repair.action for repair in record.repairs}
        answer = f"Change: {changes.get(failed.number, trial.title)}\n\n{answer}"
    else:
        asked = for_coder(brief, plan, pages)
    labels = [f"Label: {label}" for label in trial.candidate.labels]
    answer = "\n".join([answer, *([""] if labels else []), *labels])
    prompt = tuple({"role": ROLES[one.type], "content": str(one.content)} for one in asked)
    return prompt, ({"role": "assistant", "content": answer},)


def _brief_at(record: RunRecord, trial: Trial | None) -> Brief:
    """What was known when a trial was asked for, by the trials' numbers; None: at the start.

    Nobody who reads a rendered prompt has tools.
    """
    task = record.task
    settings = task.model_settings.model_copy(update={"tool_calls": 0})
    known = tuple(one for one in record.trials if trial is not None and one.number < trial.number)
    numbers = {one.number for one in known}
    return Brief(
        task=task.model_copy(update={"model_settings": settings}),
        device=record.device,
        facts=record.facts,
        baselines=record.baselines,
        roofline=record.roofline,
        plans=record.plans,
        trials=known,
        diagnoses=tuple(one for one in record.diagnoses if one.trial in numbers),
        trials_left=max(1, task.budget.trials - len(known)),
        seconds_left=task.budget.minutes * 60,
    )


def _task_prompt(record: RunRecord) -> tuple[Message, ...]:
    """What the op is and what a kernel must be like, and no word of what was tried."""
    brief = _brief_at(record, None)
    nothing = Plan(id="", title="", steps=(), expected_speedup=1.0, arithmetic="")
    system = for_coder(brief, nothing, [])[0]
    op = ENVIRONMENT.get_template("_op.md.j2").render(**common(brief)).strip()
    return (
        {"role": "system", "content": str(system.content)},
        {"role": "user", "content": f"{op}\n\nWrite the fastest right module that you can."},
    )

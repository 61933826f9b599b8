"""What the playbook would try on the GPU problems, written without a GPU.

The op is traced on tensors without data, so problems of gigabytes take a second each and no
memory. Nothing runs, and nothing is timed: which candidate is right and fast the judge finds out.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from pydantic import Field

from agents.brief import Brief
from agents.playbook.recipes import cook, enumerate_recipes, situation_of
from knowledge.device import Device
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen
from tools.ahead import ABSENT, roofline_of
from tools.backends.triton import compile as triton
from tools.examine import examine
from tools.facts import Baseline, Baselines
from tools.reference import load
from tools.runner.jail import PROJECT
from tools.task import parse_task

SUITE = PROJECT / "eval" / "suites" / "gpu.yaml"
ROOMS = ("agents/playbook", "knowledge", "benchmarks")
META = torch.device("meta")
WIDTH = 2
SECONDS_EACH = 30.0


class Tried(Frozen):
    """One candidate of the playbook's, and what it promises over eager."""

    title: str
    source: str
    backend: str
    promised: float
    refused: str = Field("", description="what the compiler said, where it was asked")


class Prepared(Frozen):
    """A problem with its candidates, most promising first; `failed` says why there are none."""

    name: str
    family: str
    reference: str
    moved_bytes: int = 0
    flops: int = 0
    candidates: tuple[Tried, ...] = ()
    failed: str = ""


class Preparation(Frozen):
    """All problems, prepared for one device; `stamp` changes with whatever could change them."""

    device: str
    stamp: str
    problems: tuple[Prepared, ...]


def stamp() -> str:
    """A hash over the playbook, what it knows, and the problems."""
    digest = hashlib.sha256()
    texts = [path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py"))]
    for path in (*texts, SUITE, *sorted(SUITE.with_suffix("").glob("*.py"))):
        digest.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def entries(suite: Path = SUITE) -> list[dict[str, str]]:
    """The suite's problems as it lists them."""
    listed: list[dict[str, str]] = yaml.safe_load(suite.read_text(encoding="utf-8"))
    return listed


def prepare_one(
    entry: dict[str, str], device: Device, folder: Path, width: int = WIDTH
) -> Prepared:
    """The candidates of one problem."""
    path = folder / entry["reference"]
    found = Prepared(name=entry["name"], family=entry["family"], reference=entry["reference"])
    raw = {"name": entry["name"], "reference": str(path), "target": f"cuda:{device.name}"}
    task = parse_task(raw, entry["name"], folder)
    try:
        facts = examine(load(path.read_text(encoding="utf-8"), str(path), META), task)
    except BadInput as error:
        return found.model_copy(update={"failed": str(error)})
    found = found.model_copy(update={"moved_bytes": facts.moved_bytes, "flops": facts.flops})
    if facts.graph is None:
        return found.model_copy(update={"failed": facts.untraceable})
    rows = tuple(Baseline(name=name, median_ms=None, failed=ABSENT) for name in ("eager",))
    brief = Brief(
        task=task, device=device, facts=facts, baselines=Baselines(rows=rows, noise=0.0),
        roofline=roofline_of(device, facts), trials_left=width, seconds_left=1.0,
    )  # fmt: skip
    recipes, refused = enumerate_recipes(facts.graph, facts.source, situation_of(brief))
    tried: dict[str, Tried] = {}
    for recipe in recipes:
        source = cook(facts.graph, facts.source, recipe.steps, "triton")
        backend = "triton" if "@triton.jit" in source else "torch"
        one = Tried(title=recipe.title, source=source, backend=backend, promised=recipe.speedup)
        tried.setdefault(source, one)
        if len(tried) == width:
            break
    failed = "" if tried else "; ".join(one.reason for one in refused)[:400] or "no pattern applies"
    return found.model_copy(update={"candidates": tuple(tried.values()), "failed": failed})


def prepare(
    device: Device,
    names: Sequence[str] = (),
    say: Callable[[str], object] = lambda _: None,
    width: int = WIDTH,
) -> Preparation:
    """All problems of the suite, or those of these names; what breaks the planner has failed."""
    made = []
    for entry in entries():
        if not names or entry["name"] in names:
            made.append(_prepared(entry, device, width))
            say(f"{entry['name']}: {len(made[-1].candidates)} candidates {made[-1].failed}")
    return Preparation(device=device.name, stamp=stamp(), problems=tuple(made))


def _prepared(entry: dict[str, str], device: Device, width: int) -> Prepared:
    try:
        return prepare_one(entry, device, SUITE.parent, width)
    except Exception as error:  # noqa: BLE001 - the other problems must be measured all the same
        failed = f"{type(error).__name__}: {error}"[:400]
        return Prepared(
            name=entry["name"], family=entry["family"], reference=entry["reference"], failed=failed
        )


def compile_all(preparation: Preparation, device: Device) -> Preparation:
    """The same, and of each Triton candidate what the compiler refuses; no device is needed."""
    sources = {
        one.source: (SUITE.parent / problem.reference).read_text(encoding="utf-8")
        for problem in preparation.problems
        for one in problem.candidates
        if one.backend == "triton"
    }
    seconds = SECONDS_EACH * max(1, len(sources))
    answers = triton.compile_candidates(list(sources.items()), [device], seconds)
    refused = {
        source: answer.told("kernel.py")
        for source, answer in zip(sources, answers, strict=True)
        if isinstance(answer, triton.CompileError)
    }

    def marked(problem: Prepared) -> Prepared:
        tried = tuple(
            one.model_copy(update={"refused": refused.get(one.source, "")})
            for one in problem.candidates
        )
        return problem.model_copy(update={"candidates": tried})

    problems = tuple(map(marked, preparation.problems))
    return preparation.model_copy(update={"problems": problems})


def read(path: Path) -> Preparation | None:
    """What was prepared before, unless something has changed since."""
    try:
        found = Preparation.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.stamp == stamp() else None


def write(preparation: Preparation, path: Path) -> None:
    """Keep it for `read`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(preparation.model_dump(mode="json"), indent=1), encoding="utf-8")

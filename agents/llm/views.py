"""The state of a run in the words of a prompt: short, and the same whenever it is asked again.

No clock time, no path and no environment value gets in here: a run that goes on after a restart
must put the very question that it put before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.brief import Brief, Citation, Plan
from agents.playbook.planner import best_trial
from knowledge.experience import signature
from knowledge.experience.tried import Tried, tallies
from knowledge.opgraph import TensorSpec
from knowledge.pattern import load_cards
from knowledge.store import Library, Passage
from tools.facts import Roofline
from tools.task import language_of
from tools.told import told_to_agents
from tools.verdict import Compiled, Correct, Trial

LANGUAGES = {
    "cpp": "C++ with OpenMP, through cpp_kernel",
    "triton": "Triton",
    "cuda": "CUDA C++, through cuda_kernel",
}
PRECISIONS = {
    "strict": "the reference's own accuracy class; no lower precision inside",
    "tf32": "TensorFloat-32 products are allowed",
    "half": "half precision inside is allowed",
}
SOURCE_LIMIT, GRAPH_NODES, CALLS = 12_000, 60, 12
TRIALS, EARLIER, PAGES, PAGE_WORDS = 24, 8, 4, 130
# Of the lines on earlier runs, so many are kept for what they gave.
MOST_WORTH = 4
TOLD_LIMIT = 400
# What decides how a GPU's kernel is laid out.
GPU_CACHES = ("l2", "shared_per_sm", "shared_per_block", "registers_per_sm")


@dataclass(frozen=True)
class TrialView:
    """A trial as prompts show it; `told` is a line or a few, quoted where a program printed it."""

    number: int
    parent: int | None
    author: str
    title: str
    told: str
    diagnosis: str


@dataclass(frozen=True)
class Page:
    """A retrieved passage under the number by which a plan cites it."""

    number: int
    title: str
    text: str
    citation: Citation


def figure(value: float) -> str:
    """Three significant digits: what is measured is not known better."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    raise AssertionError("the last unit returns")


def device_lines(brief: Brief, *, everything: bool = False) -> list[str]:
    """What of the device decides how a kernel is written, and what was measured of it."""
    device, roof = brief.device, brief.roofline
    what = "cores" if device.kind == "cpu" else "multiprocessors"
    lines = [f"{device.title} ({device.architecture}), {device.cores} {what}"]
    if device.vector_bits:
        lines.append(f"vectors of {device.vector_bits} bits")
    if device.features:
        lines.append(f"features: {', '.join(device.features)}")
    shown = (
        device.caches
        if everything or device.kind == "cpu"
        else {name: device.caches[name] for name in GPU_CACHES if name in device.caches}
    )
    lines += [f"{name}: {size(count)}" for name, count in shown.items()]
    lines.append(
        f"{figure(roof.bandwidth_gbps)} GB/s and {figure(roof.peak_gflops)} GFLOP/s "
        f"({roof.measured})"
    )
    if roof.cold_gbps is not None:
        lines.append(f"{figure(roof.cold_gbps)} GB/s of data that the caches have lost")
    if device.kind == "cpu":
        lines.append(
            f"a first touch of 4 KiB of new memory costs {figure(roof.fault_us)} us while all "
            "threads do so"
        )
    if everything:
        lines += [f"{name}: {one.value:g} {one.unit}" for name, one in device.figures.items()]
    return lines


def tensor_lines(specs: Iterable[TensorSpec]) -> list[str]:
    """Shape, dtype and, where it is not dense, strides of each tensor."""
    return [
        f"{spec.dtype}{list(spec.shape)}"
        + ("" if spec.contiguous else f" with strides {list(spec.strides)}")
        for spec in specs
    ]


def roofline_lines(roof: Roofline) -> list[str]:
    """The bound on the op's time, as arithmetic."""
    return [
        f"{size(roof.moved_bytes)} moved at least, {figure(roof.flops)} operations as written, "
        "where an exp, log, tanh or erf counts as one and takes about as long as 13",
        f"memory {figure(roof.memory_ms)} ms, arithmetic {figure(roof.compute_ms)} ms: "
        f"the floor is {figure(roof.floor_ms)} ms, {roof.bound} bound",
    ]


def baseline_lines(brief: Brief) -> list[str]:
    """What is to be beaten, and how far above the floor that is."""
    lines: list[str] = []
    for row in brief.baselines.rows:
        if row.median_ms is None:
            lines.append(f"{row.name}: not measured ({row.failed[:TOLD_LIMIT]})")
        else:
            above = row.median_ms / brief.roofline.floor_ms
            lines.append(f"{row.name}: {figure(row.median_ms)} ms, {figure(above)} times the floor")
    return lines


def call_lines(brief: Brief) -> list[str]:
    """The calls that take longest in eager, where they were timed."""
    timed = sorted(brief.facts.call_ms.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"{name}: {figure(took)} ms" for name, took in timed[:CALLS]]


def graph_text(brief: Brief) -> str:
    """The traced graph, or why there is none."""
    if brief.facts.graph is not None:
        return brief.facts.graph.render(GRAPH_NODES)
    why = brief.facts.untraceable or "unknown"
    return f"The op could not be traced as a whole ({why[:TOLD_LIMIT]})."


def cut(text: str, most: int) -> str:
    """A source as far as there is room for it."""
    text = text.strip()
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}\n# {left:,} more characters are left out"


def step_lines(plan: Plan) -> list[str]:
    """The steps of a plan of the rules, with what the library calls each."""
    cards, lines = load_cards(), []
    for step in plan.steps:
        of = f" of {step.part}" if step.part else ""
        settings = ", ".join(f"{name}={value}" for name, value in step.parameters.items())
        title = f": {cards[step.pattern].title}" if step.pattern in cards else ""
        lines.append(f"{step.pattern}{of}{' with ' if settings else ''}{settings}{title}")
    return lines


def standing_lines(brief: Brief, trial: Trial | None) -> list[str]:
    """How far a trial is from the roofline and what holds it there, as far as that was read."""
    read = next((one for one in brief.diagnoses if trial and one.trial == trial.number), None)
    if read is None:
        return []
    return [diagnosis_line(read.bottleneck, read.headroom, ()), *read.evidence]


def trial_views(brief: Brief) -> list[TrialView]:
    """The latest trials in their order; of more than there is room for, the best one stays."""
    diagnoses = {one.trial: one for one in brief.diagnoses}
    trials = sorted(brief.trials, key=lambda trial: trial.number)
    best = best_trial(brief)
    kept = trials[-TRIALS:]
    if best is not None and best not in kept:
        kept = [best, *kept[1:]]
    views: list[TrialView] = []
    for trial in kept:
        read = diagnoses.get(trial.number)
        views.append(
            TrialView(
                number=trial.number,
                parent=trial.parent,
                author=trial.candidate.author,
                title=trial.title,
                told=told_to_agents(trial.verdict)[:TOLD_LIMIT],
                diagnosis=diagnosis_line(read.bottleneck, read.headroom, read.moves)
                if read
                else "",
            )
        )
    return views


def diagnosis_line(bottleneck: str, headroom: float, moves: Sequence[str]) -> str:
    """A diagnosis in one line."""
    told = f"{bottleneck} bound, {figure(headroom)} times the roofline"
    return f"{told}; next: {'; '.join(moves)}" if moves else told


def parent_of(brief: Brief, plan: Plan | None = None) -> Trial | None:
    """The trial to start from: the plan's own, else the strategy's first, the best, the latest."""
    by_number = {trial.number: trial for trial in brief.trials}
    if plan is not None:
        return by_number.get(plan.parent) if plan.parent is not None else None
    for number in brief.parents:
        if number in by_number:
            return by_number[number]
    best = best_trial(brief)
    if best is not None:
        return best
    right = [trial for trial in brief.trials if isinstance(trial.verdict, Correct | Compiled)]
    return right[-1] if right else None


def earlier_lines(brief: Brief, library: Library) -> list[str]:
    """What earlier runs tried on this op and its like, on this device, and what it gave.

    Of more than there is room for, those stay that gave most, and the latest of the others.
    """
    if brief.facts.graph is None:
        return []
    told = library.memory.like(signature(brief.facts.graph), device=brief.device.name)
    found = [
        (f"{' + '.join(recipe)}: {tally.words()}", tally.best or 0.0)
        for recipe, tally in tallies(one for one in told if one.steps).items()
    ]
    found += [(_won_line(one), one.speedup or 0.0) for one in told if not one.steps and one.won]
    places = range(len(found))
    best = sorted(places, key=lambda place: -found[place][1])[:MOST_WORTH]
    latest = [place for place in places if place not in best][len(best) - EARLIER :]
    return [found[place][0] for place in sorted((*best, *latest))]


def _won_line(one: Tried) -> str:
    return f"{one.title}: won at {figure(one.speedup or 0.0)}x on {one.signature}"


def pages_for(brief: Brief, library: Library, query: str) -> list[Page]:
    """What the library has to say, numbered from 1."""
    language = language_of(brief.task, brief.device, "task")
    found = library.search(query, PAGES, device=brief.device.name, language=language)
    return [
        Page(
            number=number,
            title=one.title,
            text=words_of(one.text, PAGE_WORDS),
            citation=_cited(one),
        )
        for number, one in enumerate(found, 1)
    ]


def query_of(brief: Brief) -> str:
    """What to search the library for: the op, its bound, and the last diagnosis."""
    graph = brief.facts.graph
    ops = signature(graph) if graph is not None else " ".join(p.title for p in brief.facts.parts)
    language = language_of(brief.task, brief.device, "task")
    said = f"{ops} {brief.roofline.bound} bound {language}"
    best = best_trial(brief)
    read = next((one for one in brief.diagnoses if best and one.trial == best.number), None)
    return f"{said} {read.bottleneck} {' '.join(read.moves)}" if read else said


def _cited(passage: Passage) -> Citation:
    return Citation(
        source=passage.source,
        title=passage.title,
        passage=words_of(passage.text, 60),
        score=passage.score,
    )


def words_of(text: str, most: int) -> str:
    """The text's beginning; line breaks stay, since tables and code need them."""
    kept: list[str] = []
    left = most
    for line in text.splitlines():
        words = len(line.split())
        if words > left:
            # A line that is cut says something else; a long one has to be.
            cut = " ".join([*line.split()[:left], "..."]) if left > most // 2 else "..."
            return "\n".join([*kept, cut])
        kept.append(line)
        left -= words
    return "\n".join(kept)


def workload_lines(brief: Brief) -> list[str]:
    """Each workload's inputs and fastest baseline; none where there is only one."""
    found = []
    for one in brief.workloads:
        best = one.baselines.best
        told = f", {best.name} {best.median_ms:.4g} ms" if best and best.median_ms else ""
        found.append(f"{one.name}: {'; '.join(tensor_lines(one.facts.inputs))}{told}")
    return found

"""Recipes: sequences of pattern steps that apply to an op, with what each should be worth.

Patterns compose in a fixed order: first change the algorithm, then take the anchors (products,
convolutions, recurrences, ...) with what follows them, then fuse what is left, then place outputs.
"""

from dataclasses import dataclass

from agents.brief import Brief
from knowledge.emit import emit
from knowledge.loops.cost import Machine, matmul_flops, program_ms
from knowledge.opgraph import OpGraph, line_of
from knowledge.pattern import Proposal, Refusal, Situation, Step, load_cards, load_pattern
from knowledge.program import Backend, Program
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.task import language_of

FIRST, LAST = ("algebra",), ("row_loop", "output_pages")
# A step that the arithmetic calls slower than this is left out of every recipe.
HOPELESS = 0.5
# So many programs are carried from one pattern to the next, the fastest by arithmetic.
CARRIED = 16
# How far below the truth a measured peak is believed to be, where a call reached more than it:
# what came of a call that does less than it seems to (Winograd's products) is no peak.
MOST_OFF = 2.25
# Figures of a device's page that are peaks of its tensor cores.
TENSOR_CORES = ("tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Recipe:
    """Steps that apply one after the other; times in ms, by arithmetic and as measured."""

    proposals: tuple[Proposal, ...]
    expected_ms: float
    best_ms: float

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps alone: a recipe's identity."""
        return tuple(proposal.step for proposal in self.proposals)

    @property
    def speedup(self) -> float:
        """Expected over the fastest baseline."""
        return self.best_ms / self.expected_ms

    @property
    def title(self) -> str:
        """Its steps in words."""
        return "; ".join(proposal.title for proposal in self.proposals)

    @property
    def arithmetic(self) -> str:
        """How each step's gain was reckoned, and the whole."""
        told = " ".join(proposal.arithmetic for proposal in self.proposals)
        return (
            f"{told} In all {self.expected_ms:.3f} ms against {self.best_ms:.3f} ms of the fastest "
            f"baseline: {self.speedup:.2f}x."
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """What its steps assume."""
        return tuple(label for proposal in self.proposals for label in proposal.labels)


@dataclass(frozen=True)
class _Open:
    """A program under way, what it should take, and the proposals that led to it."""

    program: Program
    expected_ms: float
    proposals: tuple[Proposal, ...] = ()


def situation_of(brief: Brief) -> Situation:
    """The figures that patterns reckon with, from what `prepare` measured."""
    huge = brief.task.pages == "huge"
    language = language_of(brief.task, brief.device, "task")
    measured = situation_from(
        brief.facts, brief.baselines, brief.roofline, brief.device.cores, huge, language
    )
    if brief.device.kind == "cpu":
        return measured
    peaks = {name: one.value * 1e3 for name, one in brief.device.figures.items()}
    tensor = {name: peaks[name] for name in TENSOR_CORES if name in peaks}
    return measured.model_copy(update={"peak_gflops": peaks["fp32"], "tensor_gflops": tensor})


def situation_from(
    facts: ReferenceFacts,
    baselines: Baselines,
    roofline: Roofline,
    cores: int,
    huge_pages: bool,
    language: Backend = "cpp",
) -> Situation:
    """The figures that patterns reckon with.

    Calls are taken to take their shares of what eager takes as a whole: timed one by one, in
    another process, they may all have been slower. What a product reached in its call, the peak is
    at least: measured beside other work, it can be half of what it was while the op ran.
    """
    best = baselines.best
    eager = next((row.median_ms for row in baselines.rows if row.name == "eager"), None)
    calls = situation_of_calls(facts.graph, facts.call_ms, eager) if facts.graph else {}
    reached = reached_gflops(facts.graph, calls) if facts.graph else 0.0
    own = roofline.product_gflops or roofline.peak_gflops
    situation = Situation(
        best_ms=best.median_ms if best is not None and best.median_ms else roofline.floor_ms,
        bandwidth_gbps=roofline.bandwidth_gbps,
        peak_gflops=max(roofline.peak_gflops, min(reached, MOST_OFF * roofline.peak_gflops)),
        fault_us=roofline.fault_us,
        cores=cores,
        huge_pages=huge_pages,
        language=language,
        call_ms=calls,
        product_share=min(1.0, own / roofline.peak_gflops),
    )
    if best is not None or facts.graph is None:
        return situation
    reckoned = program_ms(Program.of(facts.graph, facts.source), Machine.of(situation))
    return situation.model_copy(update={"best_ms": reckoned})


def situation_of_calls(
    graph: OpGraph, call_ms: dict[str, float], whole_ms: float | None
) -> dict[str, float]:
    """Milliseconds by a call's line, from those by its name: its share of the whole's time."""
    timed = sum(call_ms.values())
    factor = whole_ms / timed if whole_ms is not None and timed > 0 else 1.0
    return {
        line_of(node): call_ms[node.name] * factor for node in graph.calls if node.name in call_ms
    }


def reached_gflops(graph: OpGraph, call_ms: dict[str, float]) -> float:
    """The most operations a second that a product or convolution of the op was seen to do."""
    rates = [
        matmul_flops(graph, node) / (took * 1e6)
        for node in graph.calls
        if (took := call_ms.get(line_of(node), 0.0)) > 0
    ]
    return max(rates, default=0.0)


def pattern_order() -> tuple[str, ...]:
    """Known patterns in the order in which they compose: those that are anchors in the middle.

    What only mends is not among them.
    """
    names = [name for name, card in load_cards().items() if not card.mends]
    middle = [name for name in names if name not in FIRST + LAST]
    return tuple(name for name in (*FIRST, *middle, *LAST) if name in names)


def enumerate_recipes(
    graph: OpGraph, source: str, situation: Situation
) -> tuple[list[Recipe], list[Refusal]]:
    """Recipes for the op, most promising first, and the refusals of the op as it stands.

    Each pattern is taken with its first tunables or left out; other tunables are for `variants`.
    """
    refusals: list[Refusal] = []
    machine = Machine.of(situation)
    given = Program.of(graph, source, situation.language)
    open_recipes = [_Open(given, program_ms(given, machine))]
    for name in pattern_order():
        pattern = load_pattern(name)
        able = [one for one in open_recipes if one.program.backend in load_cards()[name].backends]
        for one in able:
            answer = pattern.propose(one.program, situation)
            if isinstance(answer, Refusal):
                refusals += [] if one.proposals else [answer]
            elif answer[0].speedup >= HOPELESS:
                program = pattern.apply(one.program, answer[0].step)
                taken = (*one.proposals, answer[0])
                open_recipes.append(_Open(program, program_ms(program, machine), taken))
        open_recipes.sort(key=lambda one: one.expected_ms)
        open_recipes = open_recipes[:CARRIED]
    recipes = [
        Recipe(one.proposals, one.expected_ms, situation.best_ms)
        for one in open_recipes
        if one.proposals
    ]
    applied = {step.pattern for recipe in recipes for step in recipe.steps}
    return recipes, [refusal for refusal in refusals if refusal.pattern not in applied]


def variants(
    graph: OpGraph, source: str, situation: Situation, parent: tuple[Step, ...]
) -> list[Recipe]:
    """The parent's steps with a tunable of one of them changed, as its pattern proposes it."""
    machine = Machine.of(situation)
    program = Program.of(graph, source, situation.language)
    answers: list[list[Proposal]] = []
    stages: list[Program] = []
    for step in parent:
        answer = load_pattern(step.pattern).propose(program, situation)
        answers.append([] if isinstance(answer, Refusal) else answer)
        stages.append(program)
        program = load_pattern(step.pattern).apply(program, step)
    expected = program_ms(program, machine)
    firsts = [_first(answer, step) for answer, step in zip(answers, parent, strict=True)]
    found: list[Recipe] = []
    for at, answer in enumerate(answers):
        for other in answer[1:]:
            changed = other.model_copy(
                update={"step": _merged(answer[0].step, other.step, parent[at])}
            )
            if changed.step == parent[at]:
                continue
            slower = answer[0].speedup / other.speedup
            rest = _that_apply(stages[at], (changed, *firsts[at + 1 :]))
            if changed in rest:
                proposals = (*firsts[:at], *rest)
                found.append(Recipe(proposals, expected * slower, situation.best_ms))
    return found


def _that_apply(program: Program, proposals: tuple[Proposal, ...]) -> tuple[Proposal, ...]:
    """Those of some proposals that fit one after the other; a change may leave the next nothing."""
    kept: list[Proposal] = []
    for proposal in proposals:
        try:
            program = load_pattern(proposal.step.pattern).apply(program, proposal.step)
        except ValueError:
            continue
        kept.append(proposal)
    return tuple(kept)


def _first(answer: list[Proposal], step: Step) -> Proposal:
    """The proposal of a step that was taken, with the tunables it was taken with."""
    if not answer:
        return Proposal(step=step, title=step.pattern, speedup=1.0, arithmetic="")
    return answer[0].model_copy(update={"step": step})


def _merged(default: Step, other: Step, taken: Step) -> Step:
    """What `other` changes of `default`, changed in the step that was taken."""
    changed = {
        name: value
        for name, value in other.parameters.items()
        if default.parameters.get(name) != value
    }
    return taken.model_copy(update={"parameters": {**taken.parameters, **changed}})


def cook(graph: OpGraph, source: str, steps: tuple[Step, ...], language: Backend = "cpp") -> str:
    """The source of the candidate that the steps lead to, its kernels in this language.

    Raises:
        ValueError: a step does not fit the op.
    """
    program = Program.of(graph, source, language)
    for step in steps:
        program = load_pattern(step.pattern).apply(program, step)
    return emit(program)

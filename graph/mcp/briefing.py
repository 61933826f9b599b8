"""What a guest is told: the brief to begin with, then what judge and rules say of each kernel."""

from agents.brief import GUEST, Brief
from agents.llm.prompts import common, words
from agents.llm.views import Page, earlier_lines, pages_for, query_of, standing_lines
from agents.playbook.planner import PlaybookPlanner, best_trial
from graph.mcp.hall import Guest, Hall
from graph.mcp.replies import (
    Diagnosed,
    Judged,
    Outcome,
    PageReply,
    Standing,
    Started,
    Submitted,
    baselines_of,
    best_in,
    minutes_left,
    page_uri,
)
from graph.record import RunRecord
from knowledge.errors import BadInput
from knowledge.store import Library
from tools.task import language_of
from tools.told import told_to_agents
from tools.verdict import Correct, Trial

IDEAS = 3
ADVICE_PAGES = 2
PARENT_CHARACTERS = 60_000


def standing(guest: Guest) -> Standing:
    """How a guest's task stands; of a candidate that is being judged nothing is known yet."""
    brief = guest.desk.brief
    state = "waiting" if guest.desk.waits else "working"
    state = "stopped" if guest.run.ended.done() else state
    trials = brief.trials if brief is not None else ()
    trials = tuple(sorted(trials, key=lambda trial: trial.number))
    return Standing(
        task=guest.name,
        state=state,
        trials=tuple(_line(one) for one in trials),
        best=best_in(trials),
        trials_left=brief.trials_left if brief is not None else guest.run.task.budget.trials,
        minutes_left=minutes_left(brief) if brief is not None else 0.0,
    )


def _line(trial: Trial) -> str:
    return f"trial {trial.number}, {trial.title}: {told_to_agents(trial.verdict).splitlines()[0]}"


def started(hall: Hall, guest: Guest, brief: Brief) -> Started:
    """What whoever writes kernels for this op wants to know."""
    with_library = hall.with_library
    pages = with_library(lambda library: pages_for(brief, library, query_of(brief)))
    best = best_in(brief.trials)
    return Started(
        task=guest.name,
        op=brief.task.name,
        device=brief.device.title,
        floor_ms=brief.roofline.floor_ms,
        bound=brief.roofline.bound,
        baselines=baselines_of(brief.baselines),
        noise=brief.baselines.noise,
        brief=with_library(lambda library: brief_in_words(brief, library, pages)),
        pages=tuple(_page(one) for one in pages),
        parent=best,
        trials_left=brief.trials_left,
        minutes_left=minutes_left(brief),
    )


def brief_in_words(brief: Brief, library: Library, pages: list[Page]) -> str:
    """The brief as a page to read: the contract, the op, the device, what was tried, the parent."""
    parent = best_trial(brief)
    return words(
        "guest.md",
        **common(brief),
        earlier=earlier_lines(brief, library),
        ideas=_ideas(brief, library),
        pages=pages,
        parent=parent.number if parent is not None else None,
        standing=standing_lines(brief, parent),
        parent_source=parent.candidate.source[:PARENT_CHARACTERS] if parent is not None else "",
        trials_left=brief.trials_left,
    )


def _ideas(brief: Brief, library: Library) -> list[str]:
    """What the playbook would plan for the op as it stands, best first."""
    fresh = brief.model_copy(update={"plans": (), "trials": (), "diagnoses": (), "parents": ()})
    return [
        f"{plan.title}, expected {plan.expected_speedup:.2g}x: {plan.arithmetic}"
        for plan in PlaybookPlanner(library).plan(fresh).plans[:IDEAS]
        if plan.steps
    ]


def _page(page: Page) -> PageReply:
    source = page.citation.source
    return PageReply(
        title=page.title,
        uri=page_uri(source),
        source=source,
        text=page.text,
        score=round(page.citation.score, 3),
    )


def submitted(hall: Hall, guest: Guest, brief: Brief, known: set[int]) -> Submitted:
    """What the judge and the rules say of the trial that is new."""
    trial = max(
        (one for one in brief.trials if one.number not in known), key=lambda one: one.number
    )
    diagnosis = next((one for one in brief.diagnoses if one.trial == trial.number), None)
    verdict = Judged.of(trial.verdict, trial.candidate.digest)
    moves = diagnosis.moves if diagnosis is not None else verdict.try_next
    query = _advice_query(trial, *(diagnosis.moves if diagnosis is not None else ()))
    return Submitted(
        task=guest.name,
        trial=trial.number,
        verdict=verdict,
        diagnosis=Diagnosed.of(diagnosis) if diagnosis is not None else None,
        try_next=moves,
        pages=_advice(hall, query, brief),
        best=best_in(brief.trials),
        trials_left=brief.trials_left,
        minutes_left=minutes_left(brief),
    )


def last_submitted(record: RunRecord, known: set[int], guest: Guest) -> Submitted:
    """As `submitted`, where the budget ended the run with this trial."""
    new = [
        one for one in record.trials if one.number not in known and one.candidate.author == GUEST
    ]
    if not new:
        raise BadInput(guest.name, f"ended before the candidate was judged: {record.ended}.")
    trial = new[0]
    diagnosis = next((one for one in record.diagnoses if one.trial == trial.number), None)
    return Submitted(
        task=guest.name,
        trial=trial.number,
        verdict=Judged.of(trial.verdict, trial.candidate.digest),
        diagnosis=Diagnosed.of(diagnosis) if diagnosis is not None else None,
        best=best_in(record.trials),
        trials_left=0,
        minutes_left=0.0,
        outcome=Outcome.of(record),
    )


def _advice_query(trial: Trial, *moves: str) -> str:
    """What to ask the library after this verdict."""
    if isinstance(trial.verdict, Correct):
        return " ".join(moves)
    return told_to_agents(trial.verdict)[:400]


def _advice(hall: Hall, query: str, brief: Brief) -> tuple[PageReply, ...]:
    language = language_of(brief.task, brief.device, "task")
    try:
        found = hall.search(query, ADVICE_PAGES, device=brief.device.name, language=language)
    except BadInput:
        # The verdict is paid for; it is told without advice.
        return ()
    return tuple(PageReply.of(one) for one in found)

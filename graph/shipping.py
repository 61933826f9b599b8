"""What a run hands over: its winner, and what the judge found out about it."""

from typing import get_args

from graph.record import RunRecord
from tools.construction import ways
from tools.export import Packing, Shipment
from tools.facts import MUTATES
from tools.signature import Signature, signatures_of
from tools.verdict import CaseResult, Compiled, Correct


def shipment_of(record: RunRecord) -> Shipment | None:
    """The winner of a run, ready to be written; None where it found no correct kernel."""
    if record.winner is None:
        return None
    trial = record.trial(record.winner)
    verdict = record.confirmation or trial.verdict
    if not isinstance(verdict, Correct | Compiled):
        return None
    if isinstance(verdict, Correct) and isinstance(trial.verdict, Correct):
        # Two exams of one kernel; on a slow op, each has time for some of the cases only.
        cases = (*verdict.cases, *trial.verdict.cases)
        verdict = verdict.model_copy(update={"cases": cases})
    facts, graph = record.facts, record.facts.graph
    workloads = _references(record)
    # A record of before doesn't say how its workloads are constructed.
    places = ways([*workloads.values()]) or [0] * len(record.workloads)
    return Shipment(
        candidate=trial.candidate,
        reference=facts.source,
        verdict=verdict,
        subject=record.task.name,
        origin=str(record.task.reference or ""),
        device=record.device.title,
        signatures=_signatures(record, verdict, places) if isinstance(verdict, Correct) else (),
        gains=_gains(record, verdict),
        workloads=workloads,
        built=tuple(
            [*workloads][places.index(way)] for way in range(1, max(places, default=0) + 1)
        ),
        returns=_packing(graph.returns) if graph is not None else None,
        updates=tuple(graph.mutations) if graph is not None else None,
        in_place=any(MUTATES in caution for caution in facts.cautions),
    )


def _packing(returns: str) -> Packing | None:
    """How results are packed, if in one of the plain ways; the drop-in finds others out."""
    return next((plain for plain in get_args(Packing) if plain == returns), None)


def _signatures(record: RunRecord, verdict: Correct, places: list[int]) -> tuple[Signature, ...]:
    """For which calls it was verified: those of each workload, where there are several.

    `places` says of each workload which way it is constructed.
    """
    if not record.workloads:
        return signatures_of(record.facts, verdict.cases, record.device)
    return tuple(
        signature.model_copy(update={"built": way})
        for workload, way in zip(record.workloads, places, strict=True)
        for signature in signatures_of(workload, _cases_of(workload.name, verdict), record.device)
    )


def _cases_of(workload: str, verdict: Correct) -> list[CaseResult]:
    """The cases that were judged on one workload, under the names that they have with one alone."""
    prefix = f"{workload}: "
    return [
        case.model_copy(update={"name": case.name.removeprefix(prefix)})
        for case in verdict.cases
        if case.name.startswith(prefix)
    ]


def _references(record: RunRecord) -> dict[str, str]:
    """The reference's text on each of several workloads; none where the record has them not."""
    found = {one.name: one.source for one in record.workloads}
    return found if all(found.values()) else {}


def _gains(record: RunRecord, verdict: Correct | Compiled) -> tuple[str, ...]:
    """A line for each of several workloads: its inputs, and what is gained there."""
    timing = verdict.timing if isinstance(verdict, Correct) else None
    rows = {one.name: one.timing.against_best for one in timing.workloads} if timing else {}
    return tuple(
        f"{one.name}: {one.sizes}"
        + (f": {row.speedup:.2f}x over {row.baseline}" if (row := rows.get(one.name)) else "")
        for one in record.workloads
    )

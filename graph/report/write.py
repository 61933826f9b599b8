"""Writes a run's report: `report.html` for people, `report.json` for programs."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from graph.folder import write_whole
from graph.record import RunRecord
from graph.report import (
    attempts,
    costs,
    deciding,
    plots,
    profiled,
    reproduce,
    story,
    views,
    workloads,
)
from graph.report.elapsed import judged_at
from graph.report.kin import bases_of
from graph.report.limits import LARGEST, LEVELS, Limits
from graph.report.pages import CITED, Pages, dump, pages_of
from graph.report.source import highlight_module
from graph.report.words import headline
from tools.secrets import redact

HERE = Path(__file__).parent


class Drawn(NamedTuple):
    """The plots, which take longest to make."""

    speedup: Markup | None
    roofline: Markup | None


def write_report(record: RunRecord, folder: Path) -> None:
    """Write `report.html` and `report.json` into `folder`; a reader never sees half a file.

    The pages that plans cite are kept beside them, in `cited.json`.
    """
    write_whole(folder / "report.json", redact(record.model_dump_json(indent=2)))
    pages = pages_of(record, folder)
    if pages:
        write_whole(folder / CITED, redact(dump(pages)))
    write_page(record, folder, pages)


def write_page(record: RunRecord, folder: Path, pages: Pages) -> Path:
    """Write `report.html` alone, from what is known already."""
    page = folder / "report.html"
    events = folder / "events.jsonl"
    write_whole(page, redact(render_page(record, pages, judged_at(events))))
    return page


def render_page(
    record: RunRecord, pages: Pages | None = None, when: dict[int, float] | None = None
) -> str:
    """The report as one self-contained HTML page: no network, no script but its own.

    What there is too much of for a megabyte is cut, and the page says so.

    Args:
        record: of the run.
        pages: cited pages, by label; those of this installation if not given.
        when: seconds of work until each trial was judged, as far as that is known.
    """
    pages = pages_of(record) if pages is None else pages
    drawn = Drawn(plots.speedup_plot(record, when), plots.roofline_plot(record))
    html = ""
    for limits in LEVELS:
        html = _rendered(record, pages, when or {}, limits, drawn)
        if len(html.encode()) <= LARGEST:
            break
    return html


def environment() -> Environment:
    """Templates of this folder: everything that they are given is escaped."""
    return Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def style() -> str:
    """The style of the report, and of the list of runs."""
    return (HERE / "report.css").read_text(encoding="utf-8")


@cache
def script() -> str:
    """The only script that a report runs; without it everything but its buttons works."""
    return (HERE / "report.js.j2").read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """What a content security policy names a script or a style by."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _rendered(
    record: RunRecord, pages: Pages, when: dict[int, float], limits: Limits, drawn: Drawn
) -> str:
    graph, bases = record.facts.graph, bases_of(record)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            record=record,
            limits=limits,
            headline=headline(record),
            tone=views.tone_of(record),
            winner=record.trial(record.winner) if record.winner is not None else None,
            views=views,
            costs=costs,
            profiled=profiled,
            workloads=workloads,
            reproduce=reproduce,
            chapters=story.chapters(record, bases),
            belief=story.belief(record),
            deciding=deciding.deciding(record, bases),
            attempts=attempts.attempts(record, bases, limits, when),
            cited=views.cited(record, pages, limits),
            timed=bool(when),
            speedup_plot=drawn.speedup,
            roofline_plot=drawn.roofline,
            reference=highlight_module(record.facts.source, limits.reference),
            op_graph=graph.render() if graph is not None else None,
            style=Markup(style()),
            script=Markup(script()),
            script_hash=hash_of(script()),
        )
    )

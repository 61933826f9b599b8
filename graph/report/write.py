"""Writes a run's report: `report.html` for people, `report.json` for programs."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from graph.folder import write_whole
from graph.record import RunRecord
from graph.report import costs, plots, views
from graph.report.source import highlight_module
from graph.report.words import headline
from tools.secrets import redact

HERE = Path(__file__).parent
REFERENCE_LIMIT = 20_000


def write_report(record: RunRecord, folder: Path) -> None:
    """Write `report.html` and `report.json` into `folder`; a reader never sees half a file."""
    write_whole(folder / "report.json", redact(record.model_dump_json(indent=2)))
    write_whole(folder / "report.html", redact(render_page(record)))


def render_page(record: RunRecord) -> str:
    """The report as one self-contained HTML page: no network, no script but its own."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "copy.js.j2").read_text(encoding="utf-8")
    graph = record.facts.graph
    return environment.get_template("report.html.j2").render(
        record=record,
        headline=headline(record),
        tone=views.tone_of(record),
        winner=record.trial(record.winner) if record.winner is not None else None,
        views=views,
        costs=costs,
        speedup_plot=plots.speedup_plot(record),
        roofline_plot=plots.roofline_plot(record),
        reference=highlight_module(record.facts.source, REFERENCE_LIMIT),
        op_graph=graph.render() if graph is not None else None,
        style=Markup(style),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )

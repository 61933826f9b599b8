from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.merge import app as merge_app
from eval.merge import merge
from eval.page import cells, columns, headings, plot, render
from eval.problem import Labels, NotAProblem
from eval.provenance import provenance
from eval.results import Results, Rules, save
from eval.rows import Row, Skipped
from knowledge.errors import BadInput
from tests.eval.test_score import broken, finished, timed
from tools.facts import CONSTANT

ODD = "level1/3_<script>alert(1)</script> & co"


class Reader(HTMLParser):
    """Collects texts, links, and what is left open."""

    VOID = ("meta", "circle", "line", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def results(*rows: Row) -> Results:
    return Results(
        suite="my ops",
        started="2026-11-28T22:00:00+00:00",
        versions={"torch": "2.13.0"},
        overrides=("pages=huge",),
        problems=(*(row.name for row in rows), "to come"),
        rows=rows,
        others=(NotAProblem(file="notes.md", reason="neither"),),
        provenance=provenance(("suite.yaml", "--limit", "3")),
    )


ROWS: tuple[Row, ...] = (
    finished(ODD, "faster", 2.5).model_copy(update={"labels": Labels(level=1, family="rows")}),
    timed(4.0, 1.0, eager=3.0, compile=1.0).model_copy(update={"name": "timed"}),
    finished("constant", "faster", 900.0, cautions=(CONSTANT,)),
    broken("crash"),
    Skipped(name="huge", seconds=2.0, error="judging it takes about 900 GiB"),
)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_the_page_is_whole_says_everything_and_needs_nothing_else(tmp_path: Path) -> None:
    page = render(results(*ROWS), tmp_path)
    reader = read(page)
    assert reader.open == []
    assert reader.addresses == []
    assert "://" not in page
    text = " ".join(reader.texts)
    for told in (
        "2.50×", "timed", "crash", "no memory", "900 GiB", "skipped: too large", "notes.md",
        "level 1", "rows", "pages=huge", "torch 2.13.0", "1 problem is still to be run",
        "Constants, whose output hangs on no input: constant", "fast_1.05",
    ):  # fmt: skip
        assert told in text, told


def test_a_name_is_text_and_never_markup(tmp_path: Path) -> None:
    page = render(results(*ROWS), tmp_path)
    assert ODD in " ".join(read(page).texts)
    assert "<script>alert" not in page


def test_an_evaluation_without_a_row_has_a_page_too(tmp_path: Path) -> None:
    page = render(results(), tmp_path)
    assert read(page).open == []
    assert "No problem was judged yet" in page


def test_the_columns_are_those_that_some_row_has() -> None:
    plain = headings(columns([finished("x", "faster", 2.0)]))
    assert "level" not in plain
    assert plain[2:5] == ["over the fastest", "over eager", "over torch.compile"]
    tuned = timed(4.0, 1.0, **{"eager": 3.0, "max-autotune": 1.0})
    assert "over torch.compile, tuned" in headings(columns([tuned]))
    assert "level" in headings(columns(ROWS))


def test_every_row_has_a_cell_under_every_heading(tmp_path: Path) -> None:
    row = finished("paid", "faster", 2.0)
    document = row.document.model_copy(update={"usage": {"tokens": 1200, "usd": 0.5}})
    paid = row.model_copy(update={"document": document})
    lost = broken("lost").model_copy(update={"tokens": 1200, "usd": 0.5})
    for rows in (ROWS, (*ROWS, paid), (*ROWS, lost)):
        shown = columns(rows)
        heads = headings(shown)
        assert ("tokens" in heads) == (rows != ROWS)
        if rows != ROWS:
            told = [cell.text for cell in cells(rows[-1], shown, tmp_path)]
            assert told[-2:] == ["1,200", "0.500"]
        assert {len(cells(one, shown, tmp_path)) for one in rows} == {len(heads)}


def test_dots_lie_in_order_and_within_the_plot() -> None:
    rows = [finished(str(n), "faster", 0.5 * n) for n in range(1, 8)]
    dots, lines = plot(rows[::-1])
    assert [dot.x for dot in dots] == sorted(dot.x for dot in dots)
    assert [dot.y for dot in dots] == sorted((dot.y for dot in dots), reverse=True)
    assert all(0 <= y <= 240 for dot in dots for y in (dot.y, dot.low, dot.high))
    assert any(line.strong for line in lines)
    assert plot(rows[:1]) == ([], [])


def test_shards_become_one_result_again() -> None:
    parts = [results(row).model_copy(update={"problems": (row.name,)}) for row in ROWS[:3]]
    whole = merge(parts)
    assert whole.rows == ROWS[:3]
    assert whole.problems == tuple(row.name for row in ROWS[:3])
    with pytest.raises(BadInput, match="in two of the results"):
        merge([parts[0], parts[0]])
    rules = Rules(memory=True)
    with pytest.raises(BadInput, match="other options"):
        merge([parts[0], parts[1].model_copy(update={"rules": rules})])
    with pytest.raises(BadInput, match="other settings"):
        merge([parts[0], parts[1].model_copy(update={"overrides": ()})])


def test_some_of_the_shards_are_not_called_the_whole() -> None:
    parts = [
        results(row).model_copy(update={"problems": (row.name,), "shard": f"{number}/3"})
        for number, row in enumerate(ROWS[:3], start=1)
    ]
    assert merge(parts).shard == ""
    assert merge([parts[2], parts[0]]).shard == "1/3, 3/3"


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ("part", "already holds results"),
        ("part/results.json", "cannot be written"),
        ("part/results.json/whole", "cannot be written"),
    ],
)
def test_a_place_that_takes_no_results_is_one_clear_line(
    tmp_path: Path, out: str, complaint: str
) -> None:
    part = tmp_path / "part"
    part.mkdir()
    save(results(*ROWS), part)
    done = CliRunner().invoke(merge_app, [str(part), "--out", str(tmp_path / out)])
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1

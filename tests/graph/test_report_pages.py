"""Cited pages open inside the report, whatever is left of the library."""

import re
from pathlib import Path

import pytest

from agents.brief import Citation
from graph.report.pages import CITED, Page, Section, html_of, missing, pages_of
from graph.report.write import render_page, write_report
from tests.graph import builders, stories
from tests.graph.test_report import Outline, page_of, visible

OWN = Citation(
    source="docs/cpu/vectorised-math.md#what exists",
    title="Vectorised libm",
    passage="glibc 2.36 on x86-64 has vector versions",
    score=0.8,
)


def cited(source: str) -> Citation:
    return Citation(source=source, title="A page", passage="words", score=0.5)


def test_a_page_of_the_project_can_be_opened_and_its_cited_section_is_marked() -> None:
    record = stories.citing(builders.a_win(), OWN)
    page = render_page(record.model_copy(update={"plans": record.plans[:1]}))
    quoted = re.findall(r'<div class="quoted">(.*?)</div>', page, re.DOTALL)
    assert len(quoted) == 1
    assert "<h4>What exists</h4>" in quoted[0]
    assert "The flags that get it" in visible(page)
    assert "sources: [" not in visible(page)


def test_a_page_with_tables_code_and_links_fetches_nothing() -> None:
    text = (
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n```cpp\nint x;\n```\n\n"
        "[a](https://example.org) ![b](https://example.org/i.png) <https://example.org> "
        "<script>alert(1)</script> <img src=https://example.org/x>\n\n[a]: https://example.org\n"
    )
    page = Page(title="t", sections=(Section(heading="<b>h", text=text),))
    html = html_of(page, set(), 10_000)
    assert "<table>" in html
    assert "<code" in html
    outline = Outline(html)
    assert outline.open == []
    assert outline.fetched == []
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;b&gt;h" in html


def test_a_users_file_is_read_where_it_lies_and_kept_for_later(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n\nKeep rows in L1.\n\n## Traps\n\nMind the tail.\n")
    record = stories.citing(builders.a_win(), cited(f"{notes}#traps"))
    folder = tmp_path / "run"
    folder.mkdir()
    write_report(record, folder)
    notes.unlink()
    pages = pages_of(record, folder)
    assert "Mind the tail." in html_of(pages[str(notes)], {"traps"}, 1000)
    assert missing(record, pages) == []
    assert (folder / CITED).is_file()


@pytest.mark.parametrize(
    "source", ["/nowhere/notes.md#x", "../../etc/passwd", "host:notes.md", "docs/../../setup.py"]
)
def test_what_is_not_at_hand_is_said_so(source: str) -> None:
    record = stories.citing(builders.a_win(), cited(source))
    record = record.model_copy(update={"plans": record.plans[:1]})
    assert missing(record, pages_of(record)) == [source.partition("#")[0]]
    assert "The page itself is not at hand." in visible(render_page(record))


def test_a_copy_that_was_kept_goes_before_the_page_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / CITED).write_text(
        '{"docs/cpu/vectorised-math.md": '
        '{"title": "t", "sections": [{"heading": "", "text": "as it was then"}]}}'
    )
    pages = pages_of(stories.citing(builders.a_win(), OWN), tmp_path)
    assert pages["docs/cpu/vectorised-math.md"].sections[0].text == "as it was then"


def test_a_broken_copy_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / CITED).write_text('{"docs')
    pages = pages_of(stories.citing(builders.a_win(), OWN), tmp_path)
    assert pages["docs/cpu/vectorised-math.md"].title.startswith("Vectorised libm")


def test_of_a_long_page_the_cited_section_is_shown_first_and_the_cut_is_stated() -> None:
    sections = tuple(Section(heading=f"Part {n}", text=f"text {n} " * 50) for n in range(20))
    html = html_of(Page(title="t", sections=sections), {"part 17"}, 600)
    assert "text 17" in html
    assert "text 9" not in html
    assert "left out here" in html
    assert len(html) < 2000


def test_a_page_cited_by_several_plans_is_on_the_page_once() -> None:
    page = page_of("a win")
    assert page.count("<code>patterns/row_loop/notes.md</code>") == 1

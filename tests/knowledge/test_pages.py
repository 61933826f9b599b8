"""Reading documents: nothing that was written is lost, and what cannot be read says why."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.documents import _sound
from knowledge.pages import (
    PASSAGE_CHARACTERS,
    Page,
    Unreadable,
    find_files,
    load_bytes,
    parse,
    project_files,
)
from knowledge.store import PROJECT

OWN = dict(project_files(PROJECT))
BOTTLENECKS = {"memory", "compute", "latency", "pages"}


def read(text: str, name: str = "page.md") -> Page:
    page = parse(f"docs/{name}", Path(name), text.encode())
    assert isinstance(page, Page), page
    return page


def test_a_page_is_cut_along_its_headings() -> None:
    page = read("# Title\nopening\n\n## First\none\n## Second\ntwo\n")
    assert page.title == "Title"
    assert [(chunk.heading, chunk.text) for chunk in page.chunks] == [
        ("", "opening"), ("First", "one"), ("Second", "two"),
    ]  # fmt: skip


def test_a_comment_inside_a_code_fence_is_no_heading() -> None:
    page = read("# T\n```sh\n# not a heading\nmake\n```\n")
    assert [chunk.heading for chunk in page.chunks] == [""]
    assert "# not a heading" in page.chunks[0].text


def test_front_matter_gives_title_kind_and_tags() -> None:
    page = read("---\ntitle: T\nkind: profile\nops: [sum, mean]\ndevices: cpu\nown: 1\n---\nbody\n")
    assert (page.title, page.kind, page.ops, page.devices) == (
        "T",
        "profile",
        ("sum", "mean"),
        ("cpu",),
    )


def test_an_unknown_kind_becomes_a_document() -> None:
    assert read("---\nkind: recipe\n---\nbody").kind == "document"


def test_rules_with_prose_between_them_are_no_front_matter() -> None:
    assert "just prose" in read("---\njust prose\n---\nbody").chunks[0].text


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=4000),
        max_size=6,
    )
)
def test_no_word_is_lost_and_no_passage_is_too_long(paragraphs: list[str]) -> None:
    text = "\n\n".join(paragraphs)
    page = parse("/a/b.txt", Path("b.txt"), text.encode())
    if isinstance(page, Unreadable):
        assert page.reason == "holds no text"
        return
    joined = "".join(chunk.text for chunk in page.chunks)
    assert re.sub(r"\s", "", joined) == re.sub(r"\s", "", text.removeprefix("\ufeff"))
    assert all(len(chunk.text) <= 2 * PASSAGE_CHARACTERS for chunk in page.chunks)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.md", b"\xff\xfe\x00bad", "not UTF-8 text"),
        ("a.txt", b"text\x00more", "binary, not text"),
        ("a.pdf", b"%PDF-1.7", "cannot be read"),
        ("a.docx", b"PK", "only"),
        ("a.html", b"<hr><p>a: [</p><hr>", "not YAML"),
        ("a.html", b"<html><script>x</script></html>", "without text"),
        ("a.md", b"  \n\n ", "holds no text"),
        ("a.md", b"---\ntitle: [\n---\nbody", "not YAML"),
        ("a.md", b"---\ndate: 2023-02-31\n---\nbody", "not YAML"),
        ("a.md", b"---\ncount: !!int ''\n---\nbody", "not YAML"),
        ("a.html", b"<div>" * 3000 + b"x", "cannot be read (RecursionError)"),
        ("a.html", b"<![x]]", "ParserRejectedMarkup"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: bytes, reason: str) -> None:
    bad = parse(f"/home/{name}", Path(name), content)
    assert isinstance(bad, Unreadable)
    assert reason in bad.reason


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    told = load_bytes(tmp_path / "pipe.md")
    assert isinstance(told, Unreadable)
    assert told.reason == "no regular file"


def test_half_a_character_in_a_pdf_is_replaced() -> None:
    assert _sound("a\ud83d\ude00b\ud83dc") == "a\U0001f600b\ufffdc"


def test_a_folder_is_searched_without_hidden_and_built_things(tmp_path: Path) -> None:
    for name in ("a.md", "sub/b.cpp", ".git/c.md", "__pycache__/d.py", "e.bin", "sub/.f.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [item for item in find_files(tmp_path) if isinstance(item, Path)]
    assert [item.relative_to(tmp_path).as_posix() for item in found] == ["a.md", "sub/b.cpp"]


def test_a_link_to_its_own_folder_does_not_loop(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(list(find_files(tmp_path))) == 1


@pytest.mark.parametrize("label", OWN)
def test_each_page_of_the_project_is_complete(label: str) -> None:
    path = OWN[label]
    page = parse(label, path, path.read_bytes())
    assert isinstance(page, Page), page
    assert page.title
    assert set(page.bottlenecks) <= BOTTLENECKS
    if label.startswith(("docs/", "repairs/")):
        assert page.sources
        assert page.kind == "repair" or label.startswith("docs/")
        assert sum(len(chunk.text) for chunk in page.chunks) > 400


def test_the_library_is_not_small() -> None:
    pages = [label for label in OWN if label.startswith(("docs/", "repairs/"))]
    assert len(pages) >= 150
    assert sum(label.startswith("repairs/") for label in pages) >= 40
    assert sum(label.startswith("docs/optimisation/") for label in pages) >= 25


@pytest.mark.parametrize("label", [one for one in OWN if one.startswith("docs/optimisation/")])
def test_a_page_on_an_optimisation_has_code_to_start_from_and_its_traps(label: str) -> None:
    text = OWN[label].read_text(encoding="utf-8")
    assert "## Traps\n" in text
    assert re.search(r"^```(cpp|cuda|python)$", text, re.MULTILINE)


def test_each_pattern_has_a_card_and_notes() -> None:
    folders = {label.rpartition("/")[0] for label in OWN if label.startswith("patterns/")}
    assert {path.parent.name for path in PROJECT.glob("patterns/*/pattern.py")} == {
        folder.removeprefix("patterns/") for folder in folders
    }
    for folder in folders:
        assert {f"{folder}/card.toml", f"{folder}/notes.md"} <= OWN.keys()

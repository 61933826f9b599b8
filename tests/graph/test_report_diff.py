"""What a trial changed: exactly the lines that differ, escaped, coloured and bounded."""

import re
from html import unescape

from hypothesis import given
from hypothesis import strategies as st

from graph.report.diff import changes
from tests.graph import builders, stories
from tests.graph.test_report import page_of


def lines(html: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return [unescape(re.sub(r"<[^>]+>", "", one)) for one in found]


def test_the_lines_that_differ_are_shown_with_their_signs() -> None:
    found = changes(builders.KERNEL, stories.CHANGED, 10_000)
    assert (found.added, found.removed) == (3, 3)
    assert len(lines(found.html, "ins")) == 3
    assert all(line.startswith("+ ") for line in lines(found.html, "ins"))
    assert any("0.125f * in[i]" in line for line in lines(found.html, "ins"))
    assert any("in[i] * 0.125f" in line for line in lines(found.html, "del"))
    assert '<span class="n">largest</span>' in found.html


def test_equal_sources_have_nothing_to_show() -> None:
    assert changes(builders.KERNEL, builders.KERNEL, 1000) == (0, 0, "")


def test_what_does_not_fit_is_counted() -> None:
    found = changes("a\n" * 50, "b\n" * 50, 60)
    shown = len(lines(found.html, "ins")) + len(lines(found.html, "del"))
    assert f"… {100 - shown} more lines differ …" in found.html
    assert shown < 40


def test_markup_in_a_source_is_text() -> None:
    found = changes("x = 1\n", "x = '<script>alert(1)</script>'\n", 1000)
    assert "<script" not in found.html
    assert "<script>alert(1)</script>" in lines(found.html, "ins")[0]


WORDS = st.lists(st.sampled_from(["a = 1", "b", '"""', "#include <x>", "", "\tc", "é\u2028f"]))


@given(WORDS, WORDS)
def test_what_came_and_went_leads_from_one_source_to_the_other(
    before: list[str], after: list[str]
) -> None:
    old, new = "\n".join(before), "\n".join(after)
    found = changes(old, new, 100_000)
    came = [line[2:] for line in lines(found.html, "ins")]
    went = [line[2:] for line in lines(found.html, "del")]
    assert (len(came), len(went)) == (found.added, found.removed)
    left = old.split("\n")
    for line in went:
        left.remove(line)
    assert sorted(left + came) == sorted(new.split("\n"))


def test_each_attempt_is_compared_with_its_parent() -> None:
    page = page_of("by models")
    assert "Changed, trial 3" in page
    assert "<ins>+ " in page
    assert "Its source is the same as trial 1's, line for line." in page

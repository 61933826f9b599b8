"""How the page looks: contrast of its colours, its headings, and its layout in a real browser."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from itertools import pairwise
from pathlib import Path

import pytest

from graph.report.index import render_index
from graph.report.listing import Wanted, list_runs
from graph.report.write import render_page, style, write_report
from tests.graph import builders, stories
from tests.graph.test_report import page_of

# What WCAG 2 asks for at level AA of text, and of lines and marks that carry meaning.
TEXT, MARKS = 4.5, 3.0
PAIRS = (
    *(
        (ink, ground, TEXT)
        for ink in ("ink", "muted", "accent", "good", "bad", "warn")
        for ground in ("page", "card", "opened")
    ),
    *((tone, f"{tone}-soft", TEXT) for tone in ("good", "bad", "warn")),
    ("ink", "plain-soft", TEXT),
    ("ink", "warn-soft", TEXT),
    *(
        (token, ground, TEXT)
        for token in ("keyword", "string", "number", "comment", "name", "ink")
        for ground in ("page", "add", "drop")
    ),
    *((mark, "card", MARKS) for mark in ("accent", "bad", "muted")),
)


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_can_be_told_from_what_lies_behind_them(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)[:2]
    known = colours(light) | (colours(dark) if scheme == "dark" else {})
    weak = [
        f"{ink} on {ground}: {contrast(known[ink], known[ground]):.2f}"
        for ink, ground, least in PAIRS
        if contrast(known[ink], known[ground]) < least
    ]
    assert not weak


def test_headings_go_down_one_level_at_a_time() -> None:
    for record in (builders.a_win(), stories.by_models(), builders.all_failed()):
        page = re.sub(r'<div class="prose".*?</details>', "", render_page(record), flags=re.DOTALL)
        levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_drawings_say_in_words_what_they_show() -> None:
    page = page_of("a win")
    for drawing in re.findall(r"<svg[^>]*>", page):
        assert 'aria-hidden="true"' in drawing or 'role="img"' in drawing
    told = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert any("the best is trial 6 with 2.31×" in text for text in told)
    assert any("torch.compile 9.64 ms" in text for text in told)


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=8000", "--window-size=1400,900", "--dump-dom",
)  # fmt: skip
# In frames as wide as a phone and a desktop, since a window can't be made as narrow as a phone.
HARNESS = Path(__file__).parent / "layout.html"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to lay the page out")
def test_nothing_needs_sideways_scrolling_on_a_phone_or_a_desktop(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "20261120-193000-softmax-1a2b").mkdir(parents=True)
    write_report(builders.a_win(), runs / "20261120-193000-softmax-1a2b")
    rows = list_runs([runs])
    pages = {
        "by models": page_of("by models"),
        "every verdict": page_of("one of each"),
        "thirty trials": page_of("thirty trials"),
        "compiled": page_of("compiled only"),
        "list": render_index(rows, Wanted(), {row.run_dir: "name" for row in rows}),
    }
    frames = "".join(
        f'<iframe title="{name}, {opened}" data-opened="{opened}" style="border:0;height:800px;'
        f'width:{width}px" srcdoc="{escape(page)}"></iframe>'
        for name, page in pages.items()
        for width in (390, 1280)
        for opened in ("no", "yes")
    )
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.read_text().replace("FRAMES", frames), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", harness.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert told is not None
    found = json.loads(unescape(told[1]))
    assert len(found) == 20
    for one in found:
        where = f"{one['name']} at {one['width']}"
        assert one["width"] in (390, 1280)
        assert one["scrolls"] <= one["width"], where
        assert one["out"] == [], where
        assert one["short"] == 0, where
    plots = {one["name"]: one["plots"] for one in found}
    assert plots["by models, no"] == 2
    assert plots["compiled, no"] == 1

import json
import re
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.record import RunRecord, Share, Unspent, Usage
from graph.report.costs import added_by_maker
from graph.report.plots import roofline_plot, speedup_plot
from graph.report.source import highlight_module
from graph.report.words import bound_of, clip, describe, duration, headline, milliseconds, times
from graph.report.write import render_page, write_report
from tests.graph import builders, stories
from tools.verdict import BuildFailed, Correct, Crashed, Verdict

RECORDS = {
    "a win": builders.a_win,
    "nothing faster": builders.nothing_faster,
    "all failed": builders.all_failed,
    "one of each": builders.one_of_each,
    "no trials": builders.record,
    "compiled only": stories.compiled_only,
    "by models": stories.by_models,
    "kept baseline": stories.kept_baseline,
    "stopped": stories.stopped,
    "thirty trials": lambda: stories.long_run(30),
}
VOID = {"meta", "br", "img", "hr", "link", "input"}


class Outline(HTMLParser):
    """Checks that elements nest, and gathers ids and everything that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if (
                name in ("src", "href", "xlink:href", "data", "action")
                and value
                and value[0] != "#"
            ):
                self.fetched.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@cache
def page_of(name: str) -> str:
    """The page of one of these records; plots take a second to draw."""
    return render_page(RECORDS[name]())


def visible(page: str) -> str:
    body = re.sub(r"<(script|style)>.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.mark.parametrize("name", RECORDS)
def test_every_kind_of_run_makes_a_well_formed_page_that_fetches_nothing(name: str) -> None:
    page = page_of(name)
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.fetched == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert headline(RECORDS[name]()).title in visible(page)


@pytest.mark.parametrize("name", ["a win", "by models", "one of each"])
def test_two_renderings_of_one_record_are_the_same_bytes(name: str) -> None:
    assert render_page(RECORDS[name]()) == page_of(name)


def test_report_json_is_the_record(tmp_path: Path) -> None:
    record = builders.a_win()
    write_report(record, tmp_path)
    written = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert RunRecord.model_validate_json(written) == record
    assert json.loads(written)["schema_version"] == 1
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["cited.json", "report.html", "report.json"]


def test_a_win_is_told_with_its_interval_its_rival_and_its_confirmation() -> None:
    found = headline(builders.a_win())
    assert found.title == "2.30× faster than torch.compile, the faster baseline"
    assert "2.26–2.34" in found.sentence
    assert "confirmed in a new process with new inputs" in found.sentence
    assert "83% of this machine's roofline" in found.sentence


def test_an_unconfirmed_win_is_not_called_confirmed() -> None:
    record = builders.a_win().model_copy(
        update={"confirmation": builders.correct(builders.timing(4.19))}
    )
    assert "not confirmed" in headline(record).sentence


def test_a_single_baseline_is_not_called_the_faster_one() -> None:
    only_eager = builders.timing(4.19, compile_ms=None, confirmed=True)
    record = builders.a_win().model_copy(update={"confirmation": builders.correct(only_eager)})
    assert headline(record).title == (
        "2.94× faster than eager, the only baseline that could be measured"
    )


@pytest.mark.parametrize(
    ("candidate_ms", "spread", "expected"),
    [
        (12.0, 0.02, "was slower"),
        (9.55, 0.02, "no difference that could be measured"),
        (9.55, 0.001, "within this machine's own noise"),
    ],
)
def test_what_is_not_faster_is_never_dressed_as_a_win(
    candidate_ms: float, spread: float, expected: str
) -> None:
    figures = builders.timing(candidate_ms, spread=spread, confirmed=True)
    trials = (builders.trial(1, builders.correct(figures)),)
    record = builders.record(trials, winner=1, confirmation=builders.correct(figures))
    found = headline(record)
    assert record.status == "correct"
    assert found.title == "No faster kernel was found"
    assert expected in found.sentence
    assert "faster than" not in visible(render_page(record))


def test_a_failed_run_counts_how_its_candidates_failed() -> None:
    found = headline(builders.all_failed())
    assert found.title == "No correct kernel was found"
    assert "Of 9 candidates judged" in found.sentence
    assert "1 gave wrong output" in found.sentence


def test_a_judge_that_failed_throughout_is_not_held_against_the_candidates() -> None:
    error = builders.every_verdict()[-1]
    record = builders.record((builders.trial(1, error), builders.trial(2, error)))
    assert headline(record).title == "The judge could not do its work"


def test_a_citation_names_the_trials_that_leaned_on_it() -> None:
    page = visible(page_of("a win"))
    assert "patterns/row_loop/notes.md for trials 1, 2, 3, 4, 5, 6" in page


def test_a_trial_that_fell_in_confirmation_does_not_count() -> None:
    record = builders.record((builders.trial(1, builders.correct(builders.timing(3.0))),))
    assert headline(record).title == "No kernel was confirmed"


def test_a_win_by_rewriting_is_held_against_the_memory_roof() -> None:
    record = builders.a_win()
    heavy = record.roofline.model_copy(update={"flops": 10**12})
    record = record.model_copy(update={"roofline": heavy})
    bound = bound_of(record)
    assert bound.rewritten
    assert bound.kind == "memory"
    assert bound.fraction is not None
    assert bound.fraction <= 1
    assert "rewritten away" in headline(record).sentence


def test_each_kind_of_verdict_has_words_of_its_own() -> None:
    verdicts = builders.every_verdict()
    kinds = get_args(get_args(Verdict)[0])
    assert {type(verdict) for verdict in verdicts} == set(kinds)
    assert len({describe(verdict).label for verdict in verdicts}) == len(kinds)
    page = visible(page_of("one of each"))
    for verdict in verdicts:
        assert describe(verdict).sentence in page


def test_markup_from_a_compiler_or_a_model_is_text_on_the_page() -> None:
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    trials = (
        builders.trial(1, BuildFailed(log=evil), title=evil, source=evil),
        builders.trial(2, Crashed(log=evil), source=f'S = """#include <x>\n{evil}"""'),
    )
    record = builders.record(trials, ended=evil, cautions=(evil,))
    page = render_page(record)
    assert Outline(page).open == []
    assert page.count("<script>") == 1
    assert "<img" not in page


def test_a_long_run_with_long_sources_and_logs_stays_under_a_megabyte() -> None:
    source = builders.KERNEL * 40
    log = "error: no\n" * 100_000
    trials = tuple(
        builders.trial(number, BuildFailed(log=log), source=source) for number in range(1, 60)
    )
    winner = builders.trial(
        60, builders.correct(builders.timing(4.0, confirmed=True)), source=source
    )
    record = builders.record((*trials, winner), winner=60, confirmation=winner.verdict)
    page = render_page(record)
    assert len(page.encode()) < 1_000_000
    assert "This page is kept under a megabyte" in page


def test_a_log_keeps_its_beginning_and_its_end_and_loses_control_characters() -> None:
    clipped = clip("first\x1b[31m" + "x" * 100_000 + "last")
    assert clipped.startswith("first[31m")
    assert clipped.endswith("last")
    assert "characters left out" in clipped
    assert len(clipped) < 5000


def test_the_plots_leave_text_as_text_and_colours_to_the_page() -> None:
    record = builders.a_win()
    for plot in (speedup_plot(record), roofline_plot(record)):
        assert plot is not None
        assert "<text" in plot
        assert "var(--ink)" in plot
        assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(href|url\()="?#[^")]*', "", plot))
        assert "metadata" not in plot


def test_without_a_timed_trial_there_is_no_speedup_plot() -> None:
    assert speedup_plot(builders.all_failed()) is None


def test_an_op_without_arithmetic_has_no_place_on_the_roofline_plot() -> None:
    record = builders.a_win()
    copy_only = record.roofline.model_copy(update={"flops": 0})
    record = record.model_copy(update={"roofline": copy_only})
    assert roofline_plot(record) is None
    assert "only bandwidth bounds it" in visible(render_page(record))


def test_speedups_far_apart_are_drawn_on_a_logarithmic_axis() -> None:
    trials = (
        builders.trial(1, builders.correct(builders.timing(9.0))),
        builders.trial(2, builders.correct(builders.timing(0.05))),
    )
    plot = speedup_plot(builders.record(trials))
    assert plot is not None
    assert ">100×<" in plot


def test_the_source_on_the_page_is_the_source_character_for_character() -> None:
    html = highlight_module(builders.KERNEL, 100_000)
    assert unescape(re.sub(r"<[^>]+>", "", html)) == builders.KERNEL


def test_cpp_inside_a_python_string_is_highlighted_as_cpp() -> None:
    html = highlight_module(builders.KERNEL, 100_000)
    assert '<span class="cp">#include</span>' in html
    assert '<span class="kt">int64_t</span>' in html
    assert '<span class="kn">import</span>' in html


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_source_is_altered_by_highlighting(before: str, native: str) -> None:
    text = before.replace("\r", "")
    source = f'{text}\nS = r"""\n#include <x>{native}"""\n'.replace("\r", "")
    html = highlight_module(source, 10_000)
    assert unescape(re.sub(r"<[^>]+>", "", html)) == source


def test_a_cut_source_says_how_much_is_missing() -> None:
    html = highlight_module("x = 1\n" * 100, 60)
    assert "90 more lines" in html


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0421, "42.1 µs"), (0.1, "0.10 ms"), (9.64, "9.64 ms"), (123.4, "123 ms"), (1500, "1.50 s")],
)
def test_times_are_shown_in_the_unit_a_person_would_choose(value: float, shown: str) -> None:
    assert milliseconds(value) == shown


def test_speedups_and_durations_read_naturally() -> None:
    assert [times(value) for value in (0.97, 2.3, 14.26, 231.4)] == [
        "0.97×",
        "2.30×",
        "14.3×",
        "231×",
    ]
    assert [duration(value) for value in (7, 94, 3725)] == ["0:07", "1:34", "1:02:05"]


def test_a_correct_trial_that_was_not_timed_says_so() -> None:
    assert describe(Correct()).label == "correct, not timed"


def test_the_report_tells_what_models_took_and_what_each_mind_added() -> None:
    won = builders.a_win()
    plans = (won.plans[0], won.plans[1].model_copy(update={"maker": "test:<b>model"}))
    share = Share(
        role="coder",
        model="test:<b>model",
        calls=3,
        input_tokens=9000,
        output_tokens=1200,
        usd=0.125,
        seconds=31.0,
    )
    usage = Usage(tokens=10_200, usd=0.125, shares=(share,))
    record = won.model_copy(update={"plans": plans, "usage": usage})
    page = render_page(record)
    assert "test:&lt;b&gt;model" in page
    assert "9,000 in, 1,200 out" in page
    assert "$0.12" in page
    playbook, model = added_by_maker(record)
    assert (playbook.maker, playbook.best, playbook.gain) == ("playbook", "1.55×", "–")
    assert (model.trials, model.correct, model.best, model.gain) == (3, 2, "2.31×", "1.49×")


def test_a_run_without_models_says_nothing_of_models() -> None:
    assert 'id="models"' not in page_of("a win")


def test_a_plan_that_was_not_carried_out_is_in_the_report_with_its_reason() -> None:
    record = builders.a_win().model_copy(
        update={"unspent": (Unspent(plan="plan-2", reason="it was <refused> by hand"),)}
    )
    page = render_page(record)
    assert "Not carried out" in page
    assert "it was &lt;refused&gt; by hand" in page


def test_an_unfinished_run_claims_nothing() -> None:
    won = builders.a_win()
    record = won.model_copy(
        update={"finished": False, "winner": None, "confirmation": None, "ended": "interrupted"}
    )
    assert headline(record).title == "Not finished"
    assert "trial 6, which read 2.31× and is not confirmed" in headline(record).sentence
    assert "Not finished" in render_page(record)

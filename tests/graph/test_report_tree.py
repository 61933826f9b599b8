"""The attempt tree: what stands below what, and that its lines join."""

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from graph.record import RunRecord
from graph.report.attempts import attempts
from graph.report.kin import Base, bases_of, lineage, tree
from graph.report.limits import Limits
from graph.report.tree import WIDEST, Lines
from graph.report.write import render_page
from tests.graph import builders, stories
from tests.graph.test_report import page_of


def rows_of(record: RunRecord) -> dict[int, tuple[int, int | None]]:
    """Lane, and the lane it turns off from, by trial."""
    found = attempts(record, bases_of(record), Limits(), {})
    assert len(found.rows) == len(record.trials)
    leader = record.winner
    return {row.number: (row.lane, row.branch) for row in tree(bases_of(record), leader)}


def test_the_way_to_the_winner_is_the_first_lane() -> None:
    record = builders.a_win()
    rows = rows_of(record)
    way = lineage(bases_of(record), 6)
    assert way[-1] == 6
    assert [rows[number][0] for number in way] == [0] * len(way)
    assert rows[4] == (1, 0)
    assert rows[5] == (1, 0)


def test_a_recorded_parent_goes_before_one_with_near_steps() -> None:
    bases = bases_of(builders.a_win())
    assert bases[1] is None
    assert bases[3] == Base(1, recorded=True)


def test_a_trial_without_a_parent_stands_by_the_one_with_the_nearest_steps() -> None:
    timed = builders.correct(builders.timing(6.0))
    record = builders.record(tuple(builders.trial(number, timed) for number in (1, 2, 3)))
    record = stories.with_steps(record, 1, sweeps=2, exp="inline")
    record = stories.with_steps(record, 2, sweeps=8, exp="libm")
    record = stories.with_steps(record, 3, sweeps=8, exp="libm", block=64)
    assert bases_of(record)[3] == Base(2, recorded=False)
    assert bases_of(record)[1] is None


def test_a_parent_that_is_not_there_or_comes_later_is_no_parent() -> None:
    wrong = builders.every_verdict()[0]
    plain = builders.trial(1, wrong, parent=7, plan="gone")
    record = builders.record((plain, builders.trial(2, wrong, parent=2, plan="gone")))
    assert bases_of(record) == {1: None, 2: None}
    assert 'id="trial-2"' in render_page(record)


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(0, 40))
def test_every_trial_has_one_row_below_its_base_and_lanes_stay_few(
    picks: list[int], leader: int
) -> None:
    bases = {
        number: Base(1 + pick % (number - 1), recorded=True) if number > 1 and pick % 5 else None
        for number, pick in enumerate(picks, 1)
    }
    rows = tree(bases, leader if leader in bases else None)
    order = [row.number for row in rows]
    assert order[0] == 0
    assert sorted(order) == list(range(len(picks) + 1))
    at = {number: place for place, number in enumerate(order)}
    for number, base in bases.items():
        assert at[base.number if base else 0] < at[number]
    for above, below in pairwise(rows):
        # A line that leaves a row at its bottom enters the next at its top, and the other way.
        leaving = {*above.through, *([above.lane] if above.down else [])}
        entering = {*below.through, *([below.lane] if below.up else [])}
        assert leaving == entering
    assert not rows[-1].down
    assert max(row.lane for row in rows) <= 7
    assert Lines(rows, set(), None).width <= WIDEST + 8


def test_the_thick_line_ends_where_it_leads_to() -> None:
    timed = builders.correct(builders.timing(6.0))
    fast = builders.correct(builders.timing(4.0))
    trials = (
        builders.trial(1, timed),
        builders.trial(2, fast, parent=1),
        builders.trial(3, timed, parent=2),
        builders.trial(4, timed, parent=2),
        builders.trial(5, timed, parent=4),
    )
    record = builders.record(trials, winner=2, confirmation=fast)
    found = attempts(record, bases_of(record), Limits(), {})
    thick = {row.trial.number: row.lines.count("wire led") for row in found.rows}
    assert found.root.count("wire led") == 1
    assert thick == {1: 2, 2: 1, 3: 0, 4: 0, 5: 0}


def test_shapes_tell_outcomes_apart_without_colour() -> None:
    page = page_of("a win")
    assert page.count('class="mark won"') == 1
    assert page.count('class="mark cross"') == 2
    assert page.count('class="mark root"') == 1


def test_a_row_tells_on_hover_and_on_focus_what_happened() -> None:
    record = builders.a_win()
    page = render_page(record, when={6: 71.0})
    tips = re.findall(r'<span class="tip"[^>]*>(.*?)</summary>', page, re.DOTALL)
    assert len(tips) == 6
    sixth = next(tip for tip in tips if "judged at 1:11" in tip)
    for told in ("2.31×, 95% 2.27–2.36", "against trial 3", "83% of the roofline"):
        assert told in sixth
    style = page[page.index("<style>") : page.index("</style>")]
    assert "summary:focus-visible > .tip" in style
    assert "summary:hover > .tip" in style

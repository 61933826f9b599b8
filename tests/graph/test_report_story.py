"""The story at the top: what the op is, what won, and whether to believe it."""

import pytest

from graph.record import RunRecord
from graph.report.kin import bases_of
from graph.report.limits import LARGEST, Limits
from graph.report.story import Chapter, belief, chapters, leader_of
from graph.report.write import render_page
from tests.graph import builders, stories
from tests.graph.test_report import visible
from tools.verdict import Correct


def story_of(record: RunRecord) -> dict[str, Chapter]:
    return {chapter.about: chapter for chapter in chapters(record, bases_of(record))}


def test_the_story_goes_from_the_op_to_the_winner() -> None:
    story = story_of(builders.a_win())
    assert list(story) == ["The op", "On", "To beat", "Tried", "Won"]
    assert story["The op"].line == "softmax: mul → softmax"
    assert "2048×4096 float32 → 2048×4096 float32" in story["The op"].detail
    assert "67.1 MB moved, 50.3 million operations" in story["The op"].detail
    assert story["To beat"].line == "torch.compile 9.64 ms"
    assert "eager 12.3 ms" in story["To beat"].detail
    assert story["Tried"].line == (
        "6 of 12 trials in 1:34: 4 right, 1 gave wrong output, 1 did not build"
    )
    assert "By rules alone" in story["Tried"].detail
    assert story["Won"].line.endswith("4.19 ms, 2.30× (2.26–2.34)")
    assert story["Won"].detail == "reference → trial 1 1.55× → trial 3 2.24× → trial 6 2.31×"


def test_a_confirmed_win_is_to_be_believed_and_each_reason_has_its_figure() -> None:
    found = belief(builders.a_win())
    assert found.answer == "Yes"
    told = " ".join(check.text for check in found.checks)
    assert "8 cases pass" in told
    assert "the worst error is 24% of what is allowed" in told
    assert "Measured again in a new process on new inputs: 2.30×" in told
    assert "2.26× over torch.compile, clears this machine's noise of 1.2%" in told
    assert "24 outputs of timed calls" in told
    assert builders.ISOLATION in told


def test_a_wide_interval_is_pointed_out() -> None:
    busy = builders.correct(builders.timing(4.19, spread=0.2, confirmed=True))
    found = belief(builders.a_win().model_copy(update={"confirmation": busy}))
    assert any(check.tone == "warn" and "1.84–2.76" in check.text for check in found.checks)
    assert found.answer == "Yes, with the notes given here"


def test_a_win_with_a_caution_is_believed_with_notes() -> None:
    record = builders.a_win()
    facts = record.facts.model_copy(update={"cautions": ("one input is not used",)})
    found = belief(record.model_copy(update={"facts": facts}))
    assert found.answer == "Yes, with the notes given here"


def test_a_kernel_above_the_roof_is_pointed_out() -> None:
    record = builders.a_win()
    slow = record.roofline.model_copy(update={"bandwidth_gbps": 5.0})
    found = belief(record.model_copy(update={"roofline": slow}))
    assert any(
        check.tone == "warn" and "of the memory roof" in check.text for check in found.checks
    )
    assert found.answer != "Yes"


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (builders.nothing_faster(), "No gain is claimed"),
        (builders.all_failed(), "Nothing is claimed"),
        (builders.record(), "Nothing is claimed"),
        (stories.compiled_only(), "No speed is claimed"),
        (stories.kept_baseline(), "No gain is claimed"),
        (stories.stopped(), "Not yet"),
    ],
)
def test_what_is_no_win_is_never_answered_with_yes(record: RunRecord, answer: str) -> None:
    assert belief(record).answer == answer
    assert "Believe it? " + answer in visible(render_page(record))


def test_a_win_that_was_measured_once_is_believed_no_further_than_that() -> None:
    once = builders.correct(builders.timing(4.19))
    record = builders.a_win().model_copy(update={"confirmation": once})
    assert belief(record).answer == "Only as far as one measurement goes"


def test_of_a_run_for_an_absent_device_nothing_is_said_to_have_been_measured() -> None:
    story = story_of(stories.compiled_only())
    assert "by its data sheet" in story["On"].detail
    assert story["To beat"].line == "Nothing could be timed"
    assert story["Tried"].line.endswith("2 compiled, 1 crashed")
    assert story["Chosen"].detail == "By arithmetic alone: it was not timed."


def test_a_kept_baseline_is_not_called_a_trial_that_won() -> None:
    record = stories.kept_baseline()
    story = story_of(record)
    assert story["Won"].line == "Nothing; handed over is the op under torch.compile"
    assert story["Tried"].line.startswith("2 of 12 trials")
    assert leader_of(record) == 2


def test_who_thought_and_what_that_cost_is_in_the_story() -> None:
    tried = story_of(stories.by_models())["Tried"]
    assert f"By rules and {stories.MODEL}, ollama:qwen3, $0.37" in tried.detail
    assert "price of ollama:qwen3 unknown" in tried.detail


def test_an_op_without_a_graph_says_so() -> None:
    record = builders.a_win()
    facts = record.facts.model_copy(update={"graph": None, "untraceable": "it branches on data"})
    page = render_page(record.model_copy(update={"facts": facts}))
    assert "softmax: no graph as a whole" in visible(page)


def test_thirty_trials_of_usual_size_are_all_there_and_uncut() -> None:
    record = stories.long_run(30)
    page = render_page(record)
    assert len(page.encode()) < LARGEST
    assert Limits().note(30) == ""
    assert "kept under a megabyte" not in page
    for number in range(1, 31):
        assert f'id="trial-{number}"' in page


def test_thirty_trials_with_sources_of_fifty_kilobytes_stay_under_a_megabyte() -> None:
    record = stories.long_run(30, source=builders.KERNEL * 35)
    page = render_page(record)
    assert len(page.encode()) < LARGEST
    assert page.count('<details class="attempt"') == 30


def test_three_hundred_trials_are_all_rows_though_not_all_can_be_opened() -> None:
    record = stories.long_run(300, source=builders.KERNEL * 10)
    page = render_page(record)
    assert len(page.encode()) < LARGEST
    assert page.count('class="attempt closed"') + page.count('<details class="attempt"') == 300
    assert "what lies behind all but" in page
    assert isinstance(record.trial(300).verdict, Correct)
    assert 'id="trial-300"' in page


def test_a_run_of_a_thousand_trials_is_a_page_that_can_be_mailed() -> None:
    record = stories.long_run(1000)
    plan = record.plans[0]
    record = record.model_copy(
        update={
            "plans": tuple(
                plan.model_copy(update={"id": f"q{number}", "arithmetic": "because " * 250})
                for number in range(1000)
            )
        }
    )
    page = render_page(record)
    assert len(page.encode()) <= LARGEST
    assert "all but 200 attempts" in page
    assert 'id="trial-1000"' in page or "trial 1000" in page

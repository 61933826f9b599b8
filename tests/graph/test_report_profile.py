"""Which metric decided, as the report shows it."""

from agents.brief import Diagnosis
from graph.record import RunRecord
from graph.report.deciding import deciding
from graph.report.kin import bases_of
from graph.report.write import render_page
from tests.graph import builders, stories
from tools.verdict import CounterReadings, KernelCounters

DRAM = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"


def explained(bottleneck: str, cause: str = "", **profile: object) -> RunRecord:
    record = builders.a_win()
    found = Diagnosis(
        trial=6,
        bottleneck=bottleneck,
        cause=cause,
        headroom=1.2,
        evidence=("4.17 ms against a roofline of 3.46 ms",),
        moves=("move fewer bytes",),
    )
    trials = tuple(
        trial.model_copy(update={"profile": trial.profile.model_copy(update=profile)})
        if trial.number == 6 and trial.profile
        else trial
        for trial in record.trials
    )
    return record.model_copy(update={"diagnoses": (found,), "trials": trials})


def test_the_row_of_the_bottleneck_is_the_one_that_decided() -> None:
    for bottleneck, name in (
        ("memory", "Memory bandwidth"),
        ("compute", "Arithmetic"),
        ("pages", "Page faults"),
        ("latency", "Time"),
        ("none", "Of the roofline"),
    ):
        record = explained(bottleneck)
        found = deciding(record, bases_of(record))
        assert found is not None
        assert [gauge.name for gauge in found.gauges if gauge.decided] == [name]
    assert 'class="decided"' in render_page(explained("pages"))


def test_a_counter_that_shows_the_cause_decides_before_the_judges_figures() -> None:
    kernel = KernelCounters(
        function="softmax_kernel", launches=2, block="128", grid="2048", metrics={DRAM: 91.0}
    )
    counted = CounterReadings(tool="Nsight Compute 2026.1", kernels=(kernel,))
    record = explained("memory", "bandwidth", readings=counted)
    found = deciding(record, bases_of(record))
    assert found is not None
    (decided,) = [gauge for gauge in found.gauges if gauge.decided]
    assert (decided.name, decided.value, decided.share) == ("DRAM busy", "91%", 91.0)


def test_the_way_to_the_winner_shows_the_metric_move() -> None:
    record = explained("pages")
    found = deciding(record, bases_of(record))
    assert found is not None
    assert found.journey is not None
    assert found.journey.trials == [1, 3, 6]
    times = next(values for name, values, _ in found.journey.rows if name == "Time")
    assert times == ["6.20 ms", "4.31 ms", "4.17 ms"]
    assert [name for name, _, decided in found.journey.rows if decided] == ["Page faults"]


def test_a_figure_above_its_limit_fills_the_bar_and_no_more() -> None:
    record = explained("none", achieved_gbps=90.0, roofline_fraction=1.49)
    found = deciding(record, bases_of(record))
    assert found is not None
    assert max(gauge.share or 0.0 for gauge in found.gauges) == 100.0


def test_where_nothing_was_timed_there_is_no_profile() -> None:
    for record in (builders.all_failed(), builders.record(), stories.compiled_only()):
        assert deciding(record, bases_of(record)) is None
        assert 'id="profile"' not in render_page(record)

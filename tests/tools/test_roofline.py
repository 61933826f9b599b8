"""The roofline: ceilings measured on this machine, and measured times held against them."""

import pytest

from tools.facts import ReferenceFacts, Roofline
from tools.profile.roofline import measure_roofline, profile_from
from tools.verdict import Timing


def facts(moved_bytes: int, flops: int) -> ReferenceFacts:
    return ReferenceFacts(
        source="", digest="", graph=None, inputs=(), outputs=(), flops=flops,
        moved_bytes=moved_bytes,
    )  # fmt: skip


def roofline(moved_bytes: int = 100_000_000, flops: int = 1_000_000) -> Roofline:
    return Roofline(
        bandwidth_gbps=50, peak_gflops=100, moved_bytes=moved_bytes, flops=flops, fault_us=0.5,
        measured="given",
    )  # fmt: skip


def timing(candidate_ms: float, page_faults: float = 0.0) -> Timing:
    return Timing(
        candidate_ms=candidate_ms, comparisons=(), noise=0.01, page_faults=page_faults,
        checked_outputs=1,
    )  # fmt: skip


def test_the_ceilings_of_this_machine_are_of_a_plausible_size() -> None:
    """Bounds that no machine able to run this test leaves, however busy it is."""
    measured = measure_roofline(facts(1 << 20, 1))
    assert 0.05 < measured.bandwidth_gbps < 50_000
    assert 0.05 < measured.peak_gflops < 1_000_000
    assert measured.product_gflops is not None
    assert 0.05 < measured.product_gflops <= measured.peak_gflops
    assert 0 <= measured.fault_us < 10_000
    assert "MiB" in measured.measured
    assert measured.cold_gbps is not None
    assert 0.05 < measured.cold_gbps < 50_000


def test_a_kernel_at_the_bandwidth_is_at_the_bound() -> None:
    profile = profile_from(timing(4.0), roofline())
    assert profile.roofline_fraction == pytest.approx(0.5)
    assert profile.achieved_gbps == pytest.approx(25)
    assert profile.achieved_gflops == pytest.approx(0.25)
    assert profile.bound == "memory"


def test_arithmetic_bounds_a_kernel_that_does_it_all() -> None:
    profile = profile_from(timing(200.0), roofline(flops=10_000_000_000))
    assert profile.bound == "compute"
    assert profile.roofline_fraction == pytest.approx(0.5)
    assert any("Arithmetic bounds it" in note for note in profile.notes)


def test_a_kernel_that_rewrote_the_arithmetic_away_is_held_against_memory() -> None:
    profile = profile_from(timing(4.0), roofline(flops=10_000_000_000))
    assert profile.bound == "memory"
    assert profile.roofline_fraction == pytest.approx(0.5)
    assert any("fewer operations" in note for note in profile.notes)


def test_page_faults_are_named_with_their_share() -> None:
    profile = profile_from(timing(10.0, page_faults=16_000), roofline())
    assert profile.page_fault_ms == pytest.approx(8.0)
    assert any("80% of its time" in note for note in profile.notes)
    assert not any("fault" in note for note in profile_from(timing(10.0, 10), roofline()).notes)

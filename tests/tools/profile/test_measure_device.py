"""Measuring this machine: figures of a plausible size, kept as a page that detection finds."""

from pathlib import Path

import pytest

from knowledge.device import detect, keep
from tools.profile.measure_device import measure_cpu


def test_a_measured_cpu_is_a_page_with_a_source_for_each_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds that no machine able to run this test leaves, however busy it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    device = measure_cpu(detect())
    figures = device.figures
    assert 0.05 < figures["copy_bandwidth"].value < 50_000
    assert 0.05 < figures["read_bandwidth"].value < 50_000
    assert 0.0005 < figures["fp32_fma"].value < 1_000
    assert 0.0005 < figures["fp32_matmul"].value < 1_000
    assert all(figure.source for figure in figures.values())
    keep(device)
    assert detect().figures["fp32_fma"] == figures["fp32_fma"]

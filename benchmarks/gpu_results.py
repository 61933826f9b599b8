"""What `benchmarks.gpu` found on a device: a file that is written whole after each step, a table.

A row holds what was measured and by which clock; shares of a ceiling are derived, never stored.
"""

import statistics
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from knowledge.opgraph import Frozen
from tools.verdict import Comparison, DeviceReading, Timing

SCHEMA = 1
# What makes a fused row loop: the families whose kernels move each byte once.
ROW_FAMILIES = ("pointwise", "reduction", "normalisation", "softmax")
PRODUCTS = ("square_product", "wide_product")


class Ceilings(Frozen):
    """What the device did at best, by CUDA's events: bytes a nanosecond, and GFLOP/s."""

    copy_gbps: float
    sum_gbps: float
    fp32_gflops: float
    tf32_gflops: float
    bf16_gflops: float


class SuiteRun(Frozen):
    """How the GPU tests of one file ended, by pytest's own last line."""

    file: str
    status: int
    summary: str
    seconds: float


class Row(Frozen):
    """One problem: the best of its candidates, or how the first one failed."""

    name: str
    family: str
    moved_bytes: int
    flops: int
    outcome: str = Field(description="the verdict's kind, or `unprepared`, `bad_input`")
    detail: str = ""
    title: str = ""
    digest: str = ""
    timing: Timing | None = None
    labels: tuple[str, ...] = ()
    isolation: str = ""
    tried: int = 0
    seconds: float = 0.0

    @property
    def against_best(self) -> Comparison | None:
        """The comparison with the strongest baseline."""
        return self.timing.against_best if self.timing is not None else None

    def gbps(self) -> float | None:
        """Bytes that must move over the judge's own time."""
        if self.timing is None:
            return None
        return self.moved_bytes / (self.timing.candidate_ms * 1e6)

    def over(self, baseline: str) -> float | None:
        """The speedup over one baseline; None where it was not measured."""
        rows = self.timing.comparisons if self.timing is not None else ()
        return next((row.speedup for row in rows if row.baseline == baseline), None)


class Results(Frozen):
    """All that was found so far on one device."""

    schema_version: int = SCHEMA
    device: str
    driver: str
    versions: dict[str, str]
    started: str
    ceilings: Ceilings | None = None
    tests: tuple[SuiteRun, ...] = ()
    rows: tuple[Row, ...] = ()

    def done(self) -> set[str]:
        """The steps that need not be taken again."""
        found = {row.name for row in self.rows} | {f"test:{run.file}" for run in self.tests}
        return found | ({"ceilings"} if self.ceilings is not None else set())

    def with_row(self, row: Row) -> "Results":
        """These and one more."""
        return self.model_copy(update={"rows": (*self.rows, row)})

    def with_test(self, run: SuiteRun) -> "Results":
        """These and one more."""
        return self.model_copy(update={"tests": (*self.tests, run)})


def last_words(results: Results, step: str) -> str:
    """What became of the step that was taken last."""
    if step == "ceilings":
        return "measured"
    if step.startswith("test:"):
        return results.tests[-1].summary
    row = results.rows[-1]
    best = row.against_best
    if row.timing is None or best is None:
        return f"{row.outcome} {row.detail[:200]}".strip()
    after = f"; {reading_words(row.timing.readings[-1])}" if row.timing.readings else ""
    return f"{row.timing.candidate_ms:.3f} ms, {best.speedup:.2f}x over {best.baseline}{after}"


def slug(name: str) -> str:
    """A device's name as a file's."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def default_path(folder: Path, device: str) -> Path:
    """`<device>-<date>.json`; a part that is run later the same day goes on with it."""
    return folder / f"{slug(device)}-{datetime.now(UTC):%Y-%m-%d}.json"


def read(path: Path) -> Results | None:
    """Earlier results; None where there are none that can be read."""
    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write(results: Results, path: Path) -> None:
    """The file, whole or not at all, and the table beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for place, text in (
        (path, results.model_dump_json(indent=1)),
        (_table_of(path), table(results)),
    ):
        fresh = place.with_suffix(place.suffix + ".part")
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(place)


def _table_of(path: Path) -> Path:
    return path.with_suffix(".md")


def table(results: Results) -> str:
    """The results as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    lines = [f"# {results.device}", "", f"Driver {results.driver}; {versions}. {results.started}."]
    if (top := results.ceilings) is not None:
        lines += [
            "",
            f"Measured ceilings: copy {top.copy_gbps:.0f} GB/s, sum {top.sum_gbps:.0f} GB/s; "
            f"products float32 {top.fp32_gflops / 1e3:.1f}, TF32 {top.tf32_gflops / 1e3:.0f}, "
            f"bfloat16 {top.bf16_gflops / 1e3:.0f} TFLOP/s.",
        ]
    lines += ["", *_test_lines(results), *_rows(results), "", *_claims(results)]
    return "\n".join(lines)


def _test_lines(results: Results) -> list[str]:
    if not results.tests:
        return ["The GPU tests were not run.", ""]
    rows = [
        f"- {'passed' if run.status == 0 else f'FAILED ({run.status})'}: {run.file}: {run.summary}"
        for run in results.tests
    ]
    return ["GPU tests:", "", *rows, ""]


def _rows(results: Results) -> list[str]:
    copy = results.ceilings.copy_gbps if results.ceilings is not None else None
    lines = [
        "| problem | family | verdict | ms | by events | over eager | over compile "
        "| 95% against the best | GB/s | of copy |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in results.rows:
        timing, best = row.timing, row.against_best
        if timing is None or best is None:
            lines.append(f"| {row.name} | {row.family} | {row.outcome} | | | | | | | |")
            continue
        rate = row.gbps() or 0.0
        word = "faster" if timing.faster else "correct"
        events = f"{timing.device_ms:.3f}" if timing.device_ms is not None else ""
        share = f"{rate / copy:.0%}" if copy else ""
        lines.append(
            f"| {row.name} | {row.family} | {word} | {timing.candidate_ms:.3f} | {events} "
            f"| {_times(row.over('eager'))} | {_times(row.over('compile'))} "
            f"| {best.low:.2f} to {best.high:.2f} | {rate:.0f} | {share} |"
        )
    return lines


def _times(value: float | None) -> str:
    return f"{value:.2f}x" if value is not None else ""


def _claims(results: Results) -> list[str]:
    """What the aims of the project say of these rows; only what was measured is counted."""
    timed = [row for row in results.rows if row.timing is not None]
    lines = [f"{len(timed)} of {len(results.rows)} problems have a correct kernel that was timed."]
    best = [row.against_best.speedup for row in timed if row.against_best is not None]
    if best:
        lines.append(f"Median over the strongest baseline: {statistics.median(best):.2f}x.")
    if results.ceilings is not None:
        shares = [
            (row.gbps() or 0.0) / results.ceilings.copy_gbps
            for row in timed
            if row.family in ROW_FAMILIES
        ]
        reached = sum(share >= 0.9 for share in shares)
        lines.append(f"Fused row loops at 90% or more of the copy: {reached} of {len(shares)}.")
    for row in timed:
        if row.name in PRODUCTS and (speedup := row.over("eager")) is not None:
            lines.append(f"{row.name}, float32-accurate, over eager's float32: {speedup:.2f}x.")
    return [*lines, *_held_back(timed)]


def _held_back(rows: list[Row]) -> list[str]:
    """A device that was throttled says less; so it is said."""
    held = {
        reason
        for row in rows
        if row.timing is not None
        for reading in row.timing.readings
        for reason in reading.throttled
    }
    if held:
        return [f"The device was held back at times: {', '.join(sorted(held))}."]
    read_at_all = any(row.timing.readings for row in rows if row.timing is not None)
    if rows and not read_at_all:
        return [
            "Clocks and throttling were not read: neither nvidia-ml-py nor nvidia-smi answered."
        ]
    return []


def reading_words(reading: DeviceReading) -> str:
    """A reading in one line."""
    held = f", held back by {', '.join(reading.throttled)}" if reading.throttled else ""
    return (
        f"{reading.sm_mhz:.0f} MHz, memory {reading.memory_mhz:.0f} MHz, {reading.celsius:.0f} C, "
        f"{reading.watts:.0f} W{held}"
    )

"""The table of kernels compiled ahead of time: what it says, and where it is put."""

from pathlib import Path

import pytest

from benchmarks.ahead import Row, put_into, table
from knowledge.errors import BadInput
from tools.verdict import KernelUse

USE = KernelUse(
    function="rows_kernel", architecture="sm_90", registers=40, stack_bytes=0, spilled_bytes=0,
    shared_bytes=1024, threads=128, occupancy=0.75,
)  # fmt: skip


def rows(*registers: int) -> list[Row]:
    uses = [USE.model_copy(update={"registers": count}) for count in registers]
    return [Row("softmax", "h100-sxm5", "row_loop", use) for use in uses]


def test_candidates_with_the_same_kernel_are_one_line_with_least_and_most() -> None:
    last = table(rows(40, 96, 64)).strip().splitlines()[-1]
    assert last == ("| softmax | sm_90 | `rows_kernel` | 3 | 128 | 40 to 96 | 0 | 1 | 0 | 75% |")


def test_a_candidate_that_does_not_compile_is_no_line() -> None:
    failed = Row("softmax", "h100-sxm5", "row_loop", None, "no")
    assert table([failed, *rows(40)]) == table(rows(40))


def test_a_pages_table_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ahead: begin -->\nold\n<!-- ahead: end -->\nafter\n")
    for _ in range(2):
        put_into(page, rows(40))
    text = page.read_text()
    assert text.startswith("before\n<!-- ahead: begin -->\n| op |")
    assert text.endswith("<!-- ahead: end -->\nafter\n")
    assert "old" not in text
    assert text.count("rows_kernel") == 1


def test_a_page_without_a_place_for_it_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    with pytest.raises(BadInput, match="no place for the table"):
        put_into(page, rows(40))
    assert page.read_text() == "before\n"

"""Every known way to cheat a judge of kernels has a kernel that tries it, or a test."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
KERNELS = [
    path
    for folder in ("kernels", "gainless", "gpu")
    for path in sorted((Path(__file__).parent / folder).glob("*.py"))
]
CATALOGUE = {
    1: "stale memory returned from an uninitialised buffer",
    2: "the answer stolen from the harness's frames, garbage collector, modules or processes",
    3: "the reference's class called or aliased",
    4: "the reference or the input generator patched",
    5: "the comparator patched, by attribute or by its code",
    6: "a forged verdict: printed, written to a pipe, or an early and successful exit",
    7: "a tensor subclass that computes when somebody looks",
    8: "zeros where magnitudes are below an absolute tolerance",
    9: "statistical constants",
    10: "output that does not depend on inputs or weights",
    11: "a task whose result is constant",
    12: "part of the work, scaled",
    13: "precision lowered in silence",
    14: "NaN or infinity masked",
    15: "wrong dtype or shape, repeated elements, missing or further outputs, no memory",
    16: "the same buffer returned on every call, or an input",
    17: "shapes, strides or alignment hard-coded",
    18: "a known seed replayed",
    19: "a quick path for the structure of sampled inputs",
    20: "inputs changed",
    21: "a branch on gradient or training mode",
    22: "races, accesses out of bounds, uninitialised memory",
    23: "a cache by address",
    24: "a cache by content",
    25: "derived weights kept after the weights have changed",
    26: "timed calls told from checked ones",
    27: "a CUDA graph replayed over stale inputs",
    28: "answers kept on disk or in the environment between runs",
    29: "one launch that does the work of a whole batch of calls",
    30: "work on a side stream",
    31: "work in threads or processes that nobody waits for",
    32: "work put off until the clock has stopped",
    33: "timers patched",
    34: "the timing function's code swapped",
    35: "abuse of the aggregate",
    36: "work outside the spans that are measured",
    37: "inputs kept in, or fetched into, a cache that was flushed",
    38: "sabotage of the baseline",
    39: "a kernel that outlives its call",
    40: "games with the machine's clock or power",
    41: "an early stop of the timing gamed",
    42: "a fallback to the framework where the kernel fails",
    43: "a library's operator, wrapped",
    44: "a decoy beside the framework's own work",
    45: "static checks evaded by comments or strings",
    46: "an oracle without outputs",
    47: "attacks at build time, or on the shared folder of compiled kernels",
    48: "contamination of the next candidate",
    49: "hangs, and bombs of processes, memory or disk",
    50: "orders to the reader, hidden in what a program prints",
}
# What can be no kernel of its own, by file and test.
ELSEWHERE = {
    11: ("evil/test_tasks.py", "test_a_task_on_which_no_work_would_pass_gets_a_caution"),
    35: ("eval/test_score.py", "test_hundreds_of_tiny_ratios_do_not_underflow"),
    42: ("evil/test_tasks.py", "test_leaning_on_the_framework_is_labelled"),
    43: ("evil/test_tasks.py", "test_leaning_on_the_framework_is_labelled"),
    44: ("evil/test_tasks.py", "test_leaning_on_the_framework_is_labelled"),
    45: ("evil/test_tasks.py", "test_comments_and_strings_neither_convict_nor_acquit"),
    46: ("evil/test_tasks.py", "test_a_task_without_outputs_is_refused"),
    48: ("evil/test_traces.py", "test_what_a_candidate_leaves_behind_no_later_one_finds"),
    50: (
        "evil/test_tasks.py",
        "test_what_a_candidate_says_is_bounded_and_shown_without_control_characters",
    ),
}


def entries(path: Path) -> set[int]:
    """The numbers that a kernel's docstring ends with."""
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    found = re.search(r"\((\d+(?:, \d+)*)\)\.$", told)
    assert found, f"{path.name} names no entry of the catalogue"
    return {int(number) for number in found[1].split(", ")}


@pytest.mark.parametrize("number", CATALOGUE, ids=str)
def test_each_way_to_cheat_is_tried(number):
    tried = any(number in entries(path) for path in KERNELS)
    if number in ELSEWHERE:
        file, name = ELSEWHERE[number]
        tried = tried or f"def {name}(" in (TESTS / file).read_text()
    assert tried, CATALOGUE[number]


def test_no_kernel_names_an_entry_that_does_not_exist():
    assert all(entries(path) <= set(CATALOGUE) for path in KERNELS)

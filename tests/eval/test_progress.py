import io

from rich.console import Console

from eval.problem import Problem
from eval.progress import Screen
from eval.results import Results
from eval.rows import Row, Skipped
from tests.eval.test_score import broken, finished
from tools.task import Task

ROWS: tuple[Row, ...] = (
    finished("level1/3_sum[int] [red]x[/red]", "faster", 2.5),
    broken("crash"),
    Skipped(name="huge", seconds=2.0, error="takes 900 GiB"),
)


def show(*, terminal: bool, quiet: bool = False) -> str:
    """What a person, or a file, sees of three problems."""
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=terminal, width=100)
    names = tuple(row.name for row in ROWS)
    results = Results(suite="s", started="2026-11-28", versions={}, problems=(*names, "left"))
    with Screen(console, results, quiet=quiet) as screen:
        for row in ROWS:
            screen.begin(Problem(Task(name=row.name, op="torch.relu", inputs=({"shape": (2,)},))))
            results = results.with_row(row)
            screen.end(row, results)
    return seen.getvalue()


def test_in_a_file_each_problem_is_one_plain_line() -> None:
    lines = show(terminal=False).splitlines()
    assert len(lines) == 3
    assert lines[0] == "[1/4] level1/3_sum[int] [red]x[/red]: faster 2.50×, 1:01"
    assert lines[1] == "[2/4] crash: crashed (exit 1: no memory), 0:01"
    assert lines[2].startswith("[3/4] huge: skipped: too large (takes 900 GiB)")
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_there_is_a_bar_with_the_scores_so_far() -> None:
    seen = show(terminal=True)
    assert "3/4" in seen
    assert "1 of 2 correct" in seen
    assert "geomean 1.58×" in seen
    assert "[red]x[/red]" in seen


def test_quiet_means_nothing() -> None:
    assert show(terminal=False, quiet=True) == ""
    assert show(terminal=True, quiet=True) == ""

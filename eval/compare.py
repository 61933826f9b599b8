"""Results as Markdown: `python -m eval.compare A [B]`, one evaluation, or two side by side."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from eval.pairs import Comparison, Overall, Pair, compare
from eval.results import Results, load
from eval.rows import Broken, Row, Skipped
from eval.tables import PART_HEADINGS, in_brief, markdown_line, part_cells
from graph.report.words import percent, times
from knowledge.errors import BadInput

BAD_INPUT = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def main(
    first: Annotated[Path, typer.Argument(metavar="RESULTS", help="a results.json, or its folder")],
    second: Annotated[Path | None, typer.Argument(metavar="[RESULTS]", help="another one")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="of two: pairs and intervals as one JSON document")
    ] = False,
) -> None:
    """Print one or two evaluations as Markdown. Exit code 0; 2 for bad input.

    Of two, what got better and worse is said first: the ratios of the second's speedups to the
    first's, with their 95% intervals.
    """
    try:
        if as_json and second is None:
            raise BadInput("--json", "needs two results to compare.", "One is JSON already.")
        evaluations = [load(path) for path in (first, second) if path is not None]
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(BAD_INPUT) from error
    if as_json:
        sys.stdout.write(json.dumps(document(compare(*evaluations)), indent=2) + "\n")
        return
    changes = f"{changed(*evaluations)}\n" if len(evaluations) == 2 else ""
    sys.stdout.write(changes + markdown(evaluations))


def document(found: Comparison) -> dict[str, object]:
    """A comparison as JSON values."""
    return {
        "overall": found.overall._asdict() if found.overall is not None else None,
        "pairs": [pair._asdict() for pair in found.pairs],
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
        "set_aside": list(found.aside),
    }


def changed(first: Results, second: Results) -> str:
    """What got better and what worse, in Markdown."""
    found = compare(first, second)
    lines = [_overall_text(found.overall)]
    if (first.device, first.versions) != (second.device, second.versions):
        lines.append(
            "They were not measured alike (device or versions differ): each speedup is over its own"
            " baselines."
        )
    named = (
        ("better", found.of("better")),
        ("worse", found.of("worse")),
        ("correct now, and not before", found.of("mended")),
        ("not correct any more", found.of("broken")),
    )
    lines += [f"- {what}: {', '.join(map(_pair_text, pairs))}" for what, pairs in named if pairs]
    same = len(found.of("same"))
    if same:
        lines.append(f"- no difference that the intervals show: {same}")
    lists = (
        ("failed in both", tuple(pair.name for pair in found.of("both failed"))),
        ("in the first alone", found.only_first),
        ("in the second alone", found.only_second),
        ("canaries and constants, left out", found.aside),
    )
    lines += [f"- {what}: {', '.join(names)}" for what, names in lists if names]
    return "\n".join([lines[0], "", *lines[1:], ""])


def _overall_text(found: Overall | None) -> str:
    if found is None:
        return "No problem was judged in both."
    bounds = f" ({found.low:.3f}–{found.high:.3f})" if found.low and found.high else ""
    p = f", p = {found.p:.2g} by Wilcoxon's signed-rank test" if found.p is not None else ""
    return (
        f"The second over the first, {found.pairs} problems: **{found.ratio:.3f}×**{bounds} in the"
        f" geomean{p}."
    )


def _pair_text(pair: Pair) -> str:
    bounds = f" ({pair.low:.2f}–{pair.high:.2f})" if pair.low and pair.high else ""
    return f"{pair.name} {times(pair.ratio)}{bounds}"


def markdown(evaluations: list[Results]) -> str:
    """A row a problem, a block of columns an evaluation, the scores of parts, and of the whole."""
    names = dict.fromkeys(name for results in evaluations for name in results.problems)
    heads = ["problem"]
    for results in evaluations:
        prefix = f"{called(results, evaluations)}: " if len(evaluations) > 1 else ""
        heads += [
            f"{prefix}over eager",
            "over torch.compile",
            "over the faster (95%)",
            "of the roofline",
        ]
    lines = [markdown_line(heads), markdown_line(["---", *["--:"] * (len(heads) - 1)])]
    for name in names:
        cells = [name]
        for results in evaluations:
            cells += _cells(next((row for row in results.rows if row.name == name), None))
        lines.append(markdown_line(cells))
    notes = [f"{called(results, evaluations)}: {_scores(results)}" for results in evaluations]
    parts = _parts(evaluations)
    return "\n".join([*lines, "", *parts, *(f"- {note}" for note in notes)]) + "\n"


def _parts(evaluations: list[Results]) -> list[str]:
    """A row a part, family or kind, and an empty line; nothing where no problem has a label."""
    if not any(results.breakdown.named for results in evaluations):
        return []
    named = [{"all": results.summary, **results.breakdown.named} for results in evaluations]
    names = dict.fromkeys(name for parts in named for name in parts)
    heads = ["part"]
    for results in evaluations:
        prefix = f"{called(results, evaluations)}: " if len(evaluations) > 1 else ""
        heads += [f"{prefix}{PART_HEADINGS[0]}", *PART_HEADINGS[1:]]
    lines = [markdown_line(heads), markdown_line(["---", *["--:"] * (len(heads) - 1)])]
    for name in names:
        cells = [name]
        for parts in named:
            missing = ["not run", *[""] * (len(PART_HEADINGS) - 1)]
            cells += part_cells(parts[name]) if name in parts else missing
        lines.append(markdown_line(cells))
    return [*lines, ""]


def called(results: Results, evaluations: list[Results]) -> str:
    """What sets one of these evaluations apart; its place, where nothing else does."""
    name = settings(results)
    if sum(settings(one) == name for one in evaluations) == 1 or len(evaluations) == 1:
        return name
    place = next(at for at, one in enumerate(evaluations) if one is results)
    return f"{name}, {('first', 'second')[place]}"


def settings(results: Results) -> str:
    """What sets an evaluation apart: whose kernels, its --set options, or that it had none."""
    whose = [f"kernels of {Path(results.candidates).name}"] if results.candidates else []
    return ", ".join([*whose, *results.overrides]) or "as the tasks say"


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["not run", "", "", ""]
    if isinstance(row, Broken | Skipped):
        return [in_brief(row), "", "", ""]
    speedup, fraction = row.document.speedup, row.document.roofline_fraction
    if row.document.status in ("failed", "compiled"):
        known = "compiled, not timed" if row.document.status == "compiled" else "no correct kernel"
        return [known, "", "", ""]
    best = times(speedup.best_baseline) if speedup.best_baseline is not None else "–"
    bounds = f" ({speedup.interval[0]:.2f}–{speedup.interval[1]:.2f})" if speedup.interval else ""
    # Only a confirmed win is set in bold.
    shown = f"**{best}**{bounds}" if row.document.status == "faster" else f"{best}{bounds}"
    ratios = [
        times(value) if value is not None else "–" for value in (speedup.eager, speedup.compile)
    ]
    return [*ratios, shown, percent(fraction) if fraction is not None else "–"]


def _scores(results: Results) -> str:
    summary = results.summary
    fast = ", ".join(f"fast_{p} {percent(share)}" for p, share in summary.fast.items())
    middle = f"geomean {times(summary.geomean)}, " if summary.geomean is not None else ""
    aside = (
        f"; kept out of the speed scores: {', '.join(summary.set_aside)}"
        if summary.set_aside
        else ""
    )
    failed = f"; failed, counted as 1.0: {', '.join(summary.failed)}" if summary.failed else ""
    if summary.set_aside and summary.geomean_of_all is not None:
        aside += f" (with them {times(summary.geomean_of_all)})"
    skipped = f"; skipped, in no score: {', '.join(summary.skipped)}" if summary.skipped else ""
    sol = f"SOL score {summary.sol:.2f}, " if summary.sol is not None else ""
    passed = f"pass@1 {percent(summary.pass_at_1)}, " if summary.pass_at_1 is not None else ""
    device = results.device or "no device"
    told = f"{percent(summary.correct)} correct, {passed}{middle}{sol}{fast}, on {device}"
    return f"{told}{failed}{aside}{skipped}"


if __name__ == "__main__":
    app()

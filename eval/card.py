"""The data card beside exported examples: what they are, how they were made, what they are not."""

import inspect
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, median

from eval.examples import MOST_PAIRS, Census, Form
from tools.judge import reward

USES: dict[Form, str] = {
    "sft": "supervised fine-tuning: `prompt` and `completion`, of kernels that were confirmed as "
    "faster than every baseline, and of no others",
    "preference": "preference learning: `prompt`, `chosen` and `rejected`. The prompt is of the op "
    "alone. `chosen` was confirmed; `rejected` was rejected by the judge, or confirmed as slower "
    f"beyond both intervals. At most {MOST_PAIRS} pairs for one chosen kernel",
    "rl": "learning from rewards: `prompt`, `completion` and `reward`, of every kernel whose "
    "verdict is settled, cheats too",
}
LIMITS = (
    "A reward is of one device, one judge and these versions: on another machine the same kernel "
    "may be slower than a baseline.",
    "Prompts marked `rendered` were never asked: a rule made the kernel, and the prompt is what a "
    "model in its role would have been asked, from the run's record. Trials of one round ran side "
    "by side, so a rendered prompt may quote a trial that was not yet known, and of a task with "
    "several workloads it shows the means.",
    "A kernel that a rule wrote is derived from its reference and from this project's patterns; "
    "one that a model wrote is under that model's terms too (`author`), which may not allow "
    "training on it. The licence given is the reference's: `unknown` is no permission.",
    "Figures in prompts were measured, and so differ from run to run; kernels are the same where "
    "their text is, and prompts where they differ in figures alone.",
    "Values of this machine's secret variables were taken out; what else somebody wrote into a "
    "reference or a hint is in here as it was.",
    "An op that is in here should not be in what a model is measured on. `reference` is the hash "
    "to look for.",
)


def card(form: Form, census: Census, name: str, command: Sequence[str], written: str) -> str:
    """The card in Markdown.

    Args:
        form: of the examples.
        census: what was counted.
        name: of the file.
        command: what made it.
        written: when, ISO 8601, UTC.
    """
    lines = [
        f"# {name}",
        "",
        f"For {USES[form]}. One JSON object a line; `meta` says of each where it comes from.",
        "",
        f"Made {written} by `python -m eval.export {' '.join(command)}`.",
        "",
        "## Counts",
        "",
        "| | |",
        "| --- | --: |",
        f"| runs with a trial | {census.runs} |",
        f"| runs that gave nothing | {len(census.left_out)} |",
        f"| trials | {census.trials} |",
        *(f"| left out: {reason} | {count} |" for reason, count in census.dropped.items()),
        f"| {'chosen kernels' if form == 'preference' else 'examples'} | {census.examples} |",
        "",
    ]
    for what, counts in census.of.items():
        lines += [f"By {what}: {_counted(counts)}.", ""]
    if census.rewards:
        lines += [f"Rewards: {_spread(census.rewards)}.", ""]
    if census.left_out:
        reasons = Counter(one.reason for one in census.left_out)
        lines += [f"Runs that gave nothing: {_counted(reasons)}.", ""]
    lines += [
        "## Rewards",
        "",
        "Only settled verdicts have one: a second, independent measurement of the winner, in a new "
        "process under new seeds, or a rejection. Ops on which the judge can't tell right from "
        "wrong, or whose output is the same for every input, are left out whole.",
        "",
        inspect.cleandoc(reward.__doc__ or ""),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in LIMITS),
    ]
    return "\n".join(lines) + "\n"


def _counted(counts: Counter[str]) -> str:
    return "; ".join(f"{name} {count}" for name, count in counts.most_common())


def _spread(rewards: Sequence[float]) -> str:
    return (
        f"{min(rewards):.3f} to {max(rewards):.3f}, median {median(rewards):.3f}, "
        f"mean {fmean(rewards):.3f}"
    )

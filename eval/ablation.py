"""What an ablation found: each variant held against the whole, problem by problem."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from scipy import stats

from eval.alike import differences
from eval.pairs import Overall, compare, overall
from eval.results import FILE, Results
from eval.rows import Finished, Row, Skipped
from eval.score import has_own_kernel, summarize
from eval.tables import cost_text, markdown_line
from eval.variant import AGAIN, WHOLE, Variant
from graph.folder import write_whole
from graph.report.words import percent
from knowledge.errors import BadInput
from knowledge.opgraph import Frozen

SCHEMA, KIND = 2, "ablation"
TABLE = "results.md"


class Ablation(Frozen):
    """A suite run by several variants; `results` are by a variant's name, the whole among them."""

    schema_version: int = SCHEMA
    kind: str = KIND
    suite: str
    started: str = Field(description="ISO 8601, UTC")
    library: str = Field("", description="what each variant's library is a copy of; empty: none")
    memory_bytes: int | None = Field(None, description="that one problem may take")
    variants: tuple[Variant, ...]
    results: dict[str, Results]

    def with_results(self, name: str, results: Results) -> "Ablation":
        """The same with a variant's results replaced."""
        return self.model_copy(update={"results": {**self.results, name: results}})

    def differences(self, fresh: "Ablation") -> list[str]:
        """What keeps this one from going on as the other, in words."""
        told = ["other --variants"] if self.variants != fresh.variants else []
        told += ["another --library"] if self.library != fresh.library else []
        return [*told, *differences(self.results[WHOLE], fresh.results[WHOLE])]

    @property
    def effects(self) -> tuple["Effect", ...]:
        """Each variant but the whole, against it."""
        others = [variant for variant in self.variants if variant.name != WHOLE]
        return tuple(effect_of(one, self.results[WHOLE], self.results[one.name]) for one in others)

    def document(self) -> dict[str, Any]:
        """The whole as JSON values, with what was reckoned."""
        summaries = {
            name: results.summary.model_dump(mode="json") for name, results in self.results.items()
        }
        return self.model_dump(mode="json") | {
            "summaries": summaries,
            "effects": [effect.model_dump(mode="json") for effect in self.effects],
        }


class Ratio(Frozen):
    """A geomean of paired ratios, its 95% interval (bootstrap over problems), and a paired test."""

    pairs: int
    ratio: float
    low: float | None
    high: float | None
    p: float | None


class Effect(Frozen):
    """A variant over the whole, on the problems that both have judged.

    Ratios are the variant's over the whole's: a `speedup` below 1 means that what was switched off
    made kernels faster, a `seconds` below 1 that it took time. `lost` and `found` are problems with
    a right kernel of the run's own in the whole alone, and in the variant alone; `p_correct` is of
    the exact McNemar test that neither is the likelier. `otherwise` is the problems on which the
    two did not try the same kernels in the same order, as far as both came: where there are none
    the part changed nothing, and the ratios are chance. None in results that don't tell.
    """

    variant: str
    speedup: Ratio | None = Field(description="without canaries and constants; a failure is 1.0")
    seconds: Ratio | None
    own_whole: float = Field(description="the share of these problems with a right kernel, whole")
    own_variant: float
    lost: tuple[str, ...]
    found: tuple[str, ...]
    p_correct: float | None
    otherwise: tuple[str, ...] | None = None


def effect_of(variant: Variant, whole: Results, other: Results) -> Effect:
    """One variant against the whole."""
    before, after = _judged(whole), _judged(other)
    both = [name for name in before if name in after]
    own_before = {name for name in both if has_own_kernel(before[name])}
    own_after = {name for name in both if has_own_kernel(after[name])}
    lost = tuple(name for name in both if name in own_before - own_after)
    found = tuple(name for name in both if name in own_after - own_before)
    took = [after[name].seconds / before[name].seconds for name in both]
    changed = len(lost) + len(found)
    return Effect(
        variant=variant.name,
        speedup=_ratio(compare(whole, other).overall),
        seconds=_ratio(overall([ratio for ratio in took if math.isfinite(ratio) and ratio > 0])),
        own_whole=len(own_before) / len(both) if both else 0.0,
        own_variant=len(own_after) / len(both) if both else 0.0,
        lost=lost,
        found=found,
        p_correct=float(stats.binomtest(len(lost), changed).pvalue) if changed else None,
        otherwise=_otherwise([(before[name], after[name]) for name in both]),
    )


def _otherwise(pairs: Sequence[tuple[Row, Row]]) -> tuple[str, ...] | None:
    """The problems on which two variants parted; a budget of minutes may end one the sooner."""
    told = [
        (one.name, list(zip(one.tried, other.tried, strict=False)))
        for one, other in pairs
        if isinstance(one, Finished) and isinstance(other, Finished)
    ]
    if not any(steps for _, steps in told):
        return None
    return tuple(name for name, steps in told if any(mine != its for mine, its in steps))


def _judged(results: Results) -> dict[str, Row]:
    return {
        row.name: row for row in results.rows if not isinstance(row, Skipped) and row.seconds > 0
    }


def _ratio(found: Overall | None) -> Ratio | None:
    return Ratio(**found._asdict()) if found is not None else None


def save_ablation(ablation: Ablation, folder: Path) -> None:
    """Write `results.json` and `results.md`; a reader sees the old ones or whole new ones."""
    write_whole(folder / FILE, json.dumps(ablation.document(), indent=2) + "\n")
    write_whole(folder / TABLE, markdown(ablation))


def load_ablation(folder: Path) -> Ablation:
    """The ablation that a folder holds.

    Raises:
        BadInput: it holds something else.
    """
    file = folder / FILE
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("kind") != KIND:
            raise BadInput(str(file), "is not of an ablation.", "Give another --out.")
        if raw["schema_version"] > SCHEMA:
            newer = f"was written by a newer version (schema {raw['schema_version']})."
            raise BadInput(str(file), newer, "Update Kernelwright to read it.")
        stored = {key: value for key, value in raw.items() if key in Ablation.model_fields}
        return Ablation.model_validate_json(json.dumps(stored))
    except OSError as error:
        raise BadInput(str(file), f"cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(str(file), "is not of an ablation.", "Give another --out.") from error


HEADINGS = (
    "variant", "problems", "own right kernel", "lost / found", "tried otherwise", "geomean",
    "speedup, of the whole's", "p", "time, of the whole's", "a problem",
)  # fmt: skip


def markdown(ablation: Ablation) -> str:
    """A row a variant, and how to read it."""
    effects = {effect.variant: effect for effect in ablation.effects}
    lines = [markdown_line(HEADINGS), markdown_line(["---", *["--:"] * (len(HEADINGS) - 1)])]
    for variant in ablation.variants:
        results = ablation.results[variant.name]
        lines.append(markdown_line(_cells(variant, results, effects.get(variant.name))))
    whole = ablation.results[WHOLE]
    origin = whole.provenance
    settings = f", with {', '.join(whole.overrides)}" if whole.overrides else ""
    begun = f"a copy of {ablation.library}" if ablation.library else "an empty library"
    told = [
        f"{ablation.suite}{settings}, on {whole.device or 'no device yet'} ({origin.host}), "
        f"commit {origin.commit or 'unknown'}, judge {origin.judge[:12] or 'unknown'}. "
        f"Each variant began with {begun} and kept what it learned to itself.",
        "Ratios are a variant's over the whole's, paired by problem, with 95% intervals (bootstrap "
        "over problems): a speedup below 1 is what the part was worth. p is of Wilcoxon's "
        "signed-rank test. A failure counts as 1.0.",
    ]
    if AGAIN in effects:
        told.append(
            "`again` changes nothing: what it reads is chance, and a part whose ratio is no "
            "further from 1 was worth nothing that could be seen."
        )
    if any(effect.otherwise is not None for effect in effects.values()):
        told.append(
            "Tried otherwise: problems on which the variant did not try the same kernels in the "
            "same order, as far as both came. Without any, its ratios are chance."
        )
    for effect in effects.values():
        told += _changes(effect)
    return "\n".join([*lines, "", *(f"- {one}" for one in told)]) + "\n"


def _cells(variant: Variant, results: Results, effect: Effect | None) -> list[str]:
    summary = summarize(results.rows)
    own = [has_own_kernel(row) for row in results.rows if not isinstance(row, Skipped)]
    share = percent(sum(own) / len(own)) if own else "–"
    name = f"{variant.title} (`{variant.name}`)" if variant.title != variant.name else variant.title
    geomean = f"{summary.geomean:.3f}×" if summary.geomean is not None else "–"
    cost = cost_text(summary) if own else "–"
    if effect is None:
        return [name, str(len(own)), share, "", "", geomean, "1", "", "1", cost]
    p = effect.speedup.p if effect.speedup is not None else None
    return [
        name,
        str(len(own)),
        share,
        f"{len(effect.lost)} / {len(effect.found)}",
        str(len(effect.otherwise)) if effect.otherwise is not None else "–",
        geomean,
        _interval(effect.speedup),
        f"{p:.2g}" if p is not None else "–",
        _interval(effect.seconds),
        cost,
    ]


def _changes(effect: Effect) -> Iterable[str]:
    p = f" (p = {effect.p_correct:.2g}, McNemar)" if effect.p_correct is not None else ""
    if effect.lost:
        yield f"{effect.variant}, no right kernel any more{p}: {', '.join(effect.lost)}"
    if effect.found:
        found = ", ".join(effect.found)
        yield f"{effect.variant}, a right kernel where the whole had none: {found}"


def _interval(found: Ratio | None) -> str:
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.ratio:.3f}"
    return f"{found.ratio:.3f} ({found.low:.3f}–{found.high:.3f})"

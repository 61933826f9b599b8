"""More built runs: compiled only, by models, kept baseline, stopped, and a long one."""

from agents.brief import Citation, Diagnosis, Plan
from graph.record import BASELINE_PLAN, Estimate, Repair, RunRecord, Share, Unspent, Usage
from knowledge.device import Device
from knowledge.pattern import Step
from tests.graph import builders
from tools.facts import Baseline, Baselines
from tools.task import Budget, Models
from tools.verdict import Compiled, Crashed, Trial

MODEL = "anthropic:claude-sonnet-4-5"
CHANGED = builders.KERNEL.replace("in[i] * 0.125f", "0.125f * in[i]").replace(
    "// one division a row, not one an element", "// hoisted"
)


def with_steps(record: RunRecord, number: int, **parameters: bool | int | str) -> RunRecord:
    """The record with a plan of its own for one trial."""
    plan = Plan(
        id=f"own-{number}",
        title=f"Fused rows, setting {number}",
        steps=(Step(pattern="row_loop", parameters=parameters),),
        expected_speedup=2.0,
        arithmetic="As before.",
    )
    trials = tuple(
        trial.model_copy(update={"plan": plan.id}) if trial.number == number else trial
        for trial in record.trials
    )
    return record.model_copy(update={"plans": (*record.plans, plan), "trials": trials})


def long_run(count: int, source: str = builders.KERNEL) -> RunRecord:
    """A run of many trials, of which a third is rejected and a chain of mends leads to the winner.

    No two sources are the same.
    """
    trials: list[Trial] = []
    for number in range(1, count + 1):
        text = source.replace("0.125f", f"0.125f + {number}e-9f", 1)
        parent = None if number == 1 else (number - 1 if number % 4 else max(1, number - 7))
        if number % 3 == 0 and number != count:
            verdict = builders.every_verdict()[(number // 3) % 8]
        else:
            verdict = builders.correct(builders.timing(9.0 * 0.97**number))
        trials.append(
            builders.trial(
                number, verdict, parent=parent, source=text, title=f"Fused rows, variant {number}"
            )
        )
    last = trials[-1].timing
    assert last is not None
    return builders.record(
        tuple(trials),
        winner=count,
        confirmation=builders.correct(builders.timing(last.candidate_ms * 1.01, confirmed=True)),
        ended=f"the budget of {count} trials is spent",
    )


def compiled_only() -> RunRecord:
    """A run for a GPU that was not here: two kernels compiled, nothing timed."""
    verdict = next(one for one in builders.every_verdict() if isinstance(one, Compiled))
    trials = (
        builders.trial(1, verdict),
        builders.trial(2, Crashed(log="the interpreter raised IndexError"), plan="plan-2"),
        builders.trial(3, verdict, plan="plan-2", parent=2, repair=1, source=CHANGED),
    )
    record = builders.record(trials, winner=3, ended="nothing worth trying is left")
    gpu = Device(
        name="h200-sxm",
        title="NVIDIA H200 SXM",
        kind="cuda",
        architecture="sm_90",
        cores=132,
        memory_gib=141,
        caches={"l2": 52428800},
    )
    absent = "the device is not here"
    return record.model_copy(
        update={
            "device": gpu,
            "baselines": Baselines(
                rows=(
                    Baseline(name="eager", median_ms=None, failed=absent),
                    Baseline(name="compile", median_ms=None, failed=absent),
                ),
                noise=0.0,
            ),
            "roofline": record.roofline.model_copy(
                update={
                    "bandwidth_gbps": 4800.0,
                    "peak_gflops": 67_000.0,
                    "fault_us": 0.0,
                    "measured": "the device's data sheet",
                }
            ),
            "diagnoses": (),
        }
    )


def by_models() -> RunRecord:
    """A hybrid crew: the rules went first, a model with a known price and one without after it."""
    won = builders.a_win()
    model = won.plans[1].model_copy(
        update={
            "maker": MODEL,
            "steps": (),
            "technique": "online softmax",
            "instructions": "Keep a running maximum, so that one sweep is enough.",
            "note": "mind the tail",
        }
    )
    trials = tuple(
        trial.model_copy(
            update={
                "candidate": trial.candidate.model_copy(
                    update={
                        "author": MODEL,
                        "source": CHANGED if trial.number > 3 else trial.candidate.source,
                    }
                )
            }
        )
        for trial in won.trials
    )
    shares = (
        Share(role="coder", model=MODEL, calls=4, input_tokens=38_400, output_tokens=11_200,
              usd=0.283, seconds=71.0),
        Share(role="planner", model=MODEL, calls=2, input_tokens=17_900, output_tokens=2_100,
              usd=0.085, seconds=24.0),
        Share(role="profiler", model="ollama:qwen3", calls=4, input_tokens=9_000,
              output_tokens=900, usd=None, seconds=102.0),
    )  # fmt: skip
    usage = Usage(
        tokens=79_500,
        usd=0.368,
        unpriced=("ollama:qwen3",),
        shares=shares,
        device_seconds=41.0,
        estimate=Estimate(calls=30, tokens=390_000, usd=1.62, unpriced=("ollama:qwen3",)),
    )
    task = won.task.model_copy(
        update={
            "model": Models(default=MODEL, profiler="ollama:qwen3"),
            "budget": Budget(device_seconds=120.0),
        }
    )
    explained = Diagnosis(
        trial=6,
        bottleneck="memory",
        cause="bandwidth",
        headroom=1.2,
        evidence=("4.17 ms against a roofline of 3.46 ms (83% of it)", "16.1 of 19.4 GB/s"),
        moves=("move fewer bytes: fuse what still goes through memory",),
    )
    return won.model_copy(
        update={
            "diagnoses": (*won.diagnoses, explained),
            "plans": (won.plans[0], model),
            "trials": trials,
            "usage": usage,
            "task": task,
            "unspent": (Unspent(plan="plan-2", reason="it was refused by hand"),),
            "hints": ("try the online maximum",),
        }
    )


def kept_baseline() -> RunRecord:
    """Nothing was faster, so torch.compile itself is handed over."""
    slow = builders.nothing_faster()
    label = "the reference under torch.compile, unchanged"
    plan = Plan(
        id=BASELINE_PLAN,
        title="the op under torch.compile",
        steps=(),
        expected_speedup=1.0,
        arithmetic="Nothing that was tried is faster than this, so it is what is handed over.",
        labels=(label,),
    )
    figures = builders.timing(builders.COMPILE_MS, confirmed=True)
    verdict = builders.correct(figures, labels=(label,)).model_copy(update={"cases": ()})
    kept = builders.trial(3, verdict, plan=BASELINE_PLAN, title=plan.title)
    kept = kept.model_copy(update={"pattern": "library", "profile": None})
    return slow.model_copy(
        update={
            "plans": (*slow.plans, plan),
            "trials": (*slow.trials, kept),
            "winner": 3,
            "confirmation": verdict,
            "ended": "nothing worth trying is left; trial 2 is not faster when measured again",
        }
    )


def stopped() -> RunRecord:
    """A run that was interrupted after its third trial."""
    won = builders.a_win()
    return won.model_copy(
        update={
            "trials": won.trials[:3],
            "repairs": (Repair(failed_trial=2, action="Gave the remainder loop its own bound."),),
            "winner": None,
            "confirmation": None,
            "finished": False,
            "ended": "interrupted",
        }
    )


def citing(record: RunRecord, *citations: Citation) -> RunRecord:
    """The record, its first plan citing these."""
    first = record.plans[0].model_copy(update={"citations": citations})
    return record.model_copy(update={"plans": (first, *record.plans[1:])})

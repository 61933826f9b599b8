"""`python -m benchmarks.gpu`: everything that only a GPU can tell, in one command.

`run` takes the GPU tests, the cheats that need a GPU, and the playbook's kernels for the problems
of `eval/suites/gpu.yaml`, step by step; it keeps what it found after each, and goes on there. It
needs torch, triton and what `wheels` fetches, and no network.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from knowledge.errors import BadInput

# What a bare GPU machine may lack; everything that `tools` and the playbook import besides torch
# and triton. The last two are large, and are in every image that has torch.
SMALL = (
    "pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions",
    "psutil", "PyYAML",
)  # fmt: skip
LARGE = ("numpy", "scipy")
# For the tests and the cheats alone.
TESTING = ("pytest", "iniconfig", "pluggy", "packaging", "Pygments", "hypothesis",
           "sortedcontainers")  # fmt: skip
NEEDED_BY_TESTS = ("pytest", "hypothesis")
MODULES = {"PyYAML": "yaml"}
BAD_INPUT, UNFINISHED = 2, 3
# A problem is begun while so much is left: a judge, torch.compile, two candidates. The tests of a
# file take longer, and are of no use by half.
STEP_SECONDS, LEAST_TEST_SECONDS = 120.0, 300.0
TESTS = (
    "tests/tools/judge/test_gpu.py", "tests/tools/backends/test_on_gpu.py",
    "tests/tools/backends/test_cuda.py", "tests/tools/drop_in/test_on_gpu.py",
    "tests/evil/test_gpu.py",
)  # fmt: skip
TEST_SECONDS = 540.0
# Of pytest: all passed, some failed. What else it says is that they were not run.
PASSED, FAILED, LATE = 0, 1, 124
# The strongest that there is, then by name.
JAILS = ("", "unshare", "rlimits")
PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "eval" / "results"
# On manylinux of these ages wheels are published; pip takes each literally.
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_27_x86_64",
             "manylinux_2_28_x86_64", "manylinux1_x86_64")  # fmt: skip


class CannotStart(Exception):
    """Something that every step needs is missing; one line."""


def missing() -> list[str]:
    """The packages that are not here."""
    names = {name: MODULES.get(name, name.replace("-", "_")) for name in (*SMALL, *LARGE)}
    return [name for name, module in names.items() if importlib.util.find_spec(module) is None]


def part_of(steps: Sequence[str], part: str) -> list[str]:
    """The steps of part `2/3`: every third one, so that families are spread evenly.

    Raises:
        CannotStart: it is no such part.
    """
    number, slash, count = part.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise CannotStart(f"--part {part}: is not a part, such as 1/3.")
    return list(steps[int(number) - 1 :: int(count)])


def take(
    steps: Sequence[str],
    done: set[str],
    seconds: float,
    work: Callable[[str], bool],
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Take every step that was not taken yet while there is time; those that are left.

    `work` says whether a step is done with.
    """
    deadline = clock() + seconds
    left = [step for step in steps if step not in done]
    unfinished = []
    while left:
        room = deadline - clock()
        step = next((step for step in left if seconds_of(step) < room), None)
        if step is None:
            break
        left.remove(step)
        if not work(step):
            unfinished.append(step)
    return [*unfinished, *left]


def seconds_of(step: str) -> float:
    """So much has to be left for a step to be begun."""
    return LEAST_TEST_SECONDS if step.startswith("test:") else STEP_SECONDS


def check_machine() -> None:
    """Find out whether anything can be measured here.

    Raises:
        CannotStart: it cannot.
    """
    lacking = missing()
    if lacking:
        raise CannotStart(
            f"these packages are missing: {', '.join(lacking)}. Where there is a network, "
            "`make gpu-wheels` fetches them into gpu-wheels/; here, put that folder on the path."
        )
    torch = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise CannotStart("torch finds no CUDA device here: run `make gpu` on a machine with one.")
    if importlib.util.find_spec("triton") is None:
        raise CannotStart("triton is missing, in which the playbook writes for GPUs.")


def find_jail(choices: Sequence[str] = JAILS) -> None:
    """Settle for the strongest jail in which a runner can use the device.

    Raises:
        CannotStart: it can't in any; the judge's own words.
    """
    told = ""
    for choice in choices:
        environment = {**os.environ, **({"KERNELWRIGHT_JAIL": choice} if choice else {})}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", "probe"], cwd=PROJECT, env=environment,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode == 0:
            if choice:
                os.environ["KERNELWRIGHT_JAIL"] = choice
                say(f"no runner can use the GPU in the strongest jail; {choice} is used: {told}")
            return
        told = " ".join(f" {done.stdout[-600:]} {done.stderr[-600:]}".split())
    raise CannotStart(f"no runner can use the GPU: {told}")


def probe(_: argparse.Namespace) -> int:
    """Judge an honest kernel, untimed, and print the verdict; 0 where it is right."""
    verdict = importlib.import_module("benchmarks.gpu_steps").probe()
    sys.stdout.write(f"{verdict.kind} ({verdict.isolation}) {getattr(verdict, 'log', '')}\n")
    return int(verdict.kind != "correct")


def run(given: argparse.Namespace) -> int:
    """The steps of a part, each kept when it is done; the exit status."""
    started = time.monotonic()
    check_machine()
    tests = [f"test:{name}" for name in TESTS] if not (given.no_tests or given.only) else []
    lacking = [name for name in NEEDED_BY_TESTS if importlib.util.find_spec(name) is None]
    if tests and lacking:
        raise CannotStart(
            f"{' and '.join(lacking)} missing, which the GPU tests and the cheats need; `make "
            'gpu-wheels` fetches what is. Without them: make gpu GPU="--no-tests".'
        )
    if not os.environ.get("KERNELWRIGHT_JAIL"):
        find_jail()
    # Only now, since a bare machine may lack what these import.
    results_module = importlib.import_module("benchmarks.gpu_results")
    steps_module = importlib.import_module("benchmarks.gpu_steps")
    bench = steps_module.Bench(given.prepared, given.autotune, given.candidates, given.confirm)
    path = given.out or results_module.default_path(RESULTS, bench.device)
    results = results_module.read(path) or bench.started(datetime.now(UTC))
    chosen = [name for name in bench.names() if not given.only or name in given.only]
    # Ceilings first, in each part: every row is held against them.
    steps = ["ceilings", *part_of([*tests, *chosen], given.part)]

    def left_s() -> float:
        return 60 * float(given.minutes) - (time.monotonic() - started)

    def work(step: str) -> bool:
        nonlocal results
        began = time.monotonic()
        if step.startswith("test:"):
            seconds = min(TEST_SECONDS, left_s())
            tested = run_tests(step.removeprefix("test:"), results_module, seconds)
            if tested.status == LATE and seconds < TEST_SECONDS:
                say(f"{step}: was not through when time was up; it is begun anew")
                return False
            results = results.with_test(tested)
        elif step == "ceilings":
            results = results.model_copy(update={"ceilings": ceilings(results_module)})
        else:
            results = results.with_row(bench.row(step))
        results_module.write(results, path)
        say(f"{step}: {results_module.last_words(results, step)} "
            f"({time.monotonic() - began:.0f} s)")  # fmt: skip
        return True

    left = take(steps, results.done(), left_s(), work)
    say(f"written: {path} and {path.with_suffix('.md')}")
    if left:
        say(f"time is up with {len(left)} steps left; the same command goes on: {', '.join(left)}")
        return UNFINISHED
    return 0


def run_tests(file: str, results_module: Any, seconds: float = TEST_SECONDS) -> Any:
    """The GPU tests of one file, in a process of their own that has so many seconds.

    Raises:
        CannotStart: pytest could not run them.
    """
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x", "--tb=short", file]
    if "evil" in file:
        command.remove("-x")
    search = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": search}, capture_output=True,
            text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip
        status, told = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as late:
        said = late.stdout or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        status, told = LATE, f"{said}\nended by its deadline of {seconds:.0f} s"
    if status:
        say(told[-6000:])
    if status not in (PASSED, FAILED, LATE):
        raise CannotStart(
            f"{file} can't be run (pytest ended with {status}; it is told above). Without the "
            'tests: make gpu GPU="--no-tests".'
        )
    lines = [line.strip("= ") for line in told.strip().splitlines() if line.strip()]
    return results_module.SuiteRun(
        file=file, status=status, summary=lines[-1][:200] if lines else "",
        seconds=time.monotonic() - began,
    )  # fmt: skip


def ceilings(results_module: object) -> object:
    """What the device does at best, measured in a process that then leaves it alone.

    Raises:
        CannotStart: that process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "ceilings"], cwd=PROJECT, capture_output=True,
        text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(
            [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])},
    )  # fmt: skip
    if done.returncode:
        raise CannotStart(f"the device can't be measured: {done.stderr.strip()[-600:]}")
    return results_module.Ceilings.model_validate_json(done.stdout)  # type: ignore[attr-defined]


def print_ceilings(_: argparse.Namespace) -> int:
    """Measure the device's ceilings and print them as JSON."""
    check_machine()
    torch = importlib.import_module("torch")
    measured = importlib.import_module("tools.judge.ceilings")
    device = torch.device("cuda", torch.cuda.current_device())
    copied, summed = measured.bandwidth_gbps(4 << 30, device)
    plain = measured.product_gflops(torch.float32, device, 8192)
    torch.set_float32_matmul_precision("high")
    rates = {
        "copy_gbps": copied, "sum_gbps": summed, "fp32_gflops": plain,
        "tf32_gflops": measured.product_gflops(torch.float32, device, 8192),
        "bf16_gflops": measured.product_gflops(torch.bfloat16, device, 8192),
    }  # fmt: skip
    sys.stdout.write(json.dumps(rates) + "\n")
    return 0


def prepare(given: argparse.Namespace) -> int:
    """Write what the playbook would try, on any machine."""
    lacking = missing()
    if lacking:
        raise CannotStart(f"these packages are missing: {', '.join(lacking)}.")
    module = importlib.import_module("benchmarks.gpu_prepare")
    device = importlib.import_module("knowledge.device").load_devices().get(given.device)
    if device is None or device.kind != "cuda":
        raise CannotStart(f"--device {given.device}: is no GPU of knowledge/devices.")
    made = module.prepare(device, given.only, say, given.candidates)
    if given.compile:
        made = module.compile_all(made, device)
    module.write(made, given.out)
    refused = [
        f"{problem.name}: {one.title}: {one.refused}"
        for problem in made.problems for one in problem.candidates if one.refused
    ]  # fmt: skip
    for told in refused:
        say(told)
    say(f"written: {given.out}")
    return int(bool(refused))


def print_table(given: argparse.Namespace) -> int:
    """The table of a results file."""
    module = importlib.import_module("benchmarks.gpu_results")
    results = module.read(given.results)
    if results is None:
        raise CannotStart(f"{given.results}: is no results file of this benchmark.")
    sys.stdout.write(module.table(results) + "\n")
    return 0


def wheels(given: argparse.Namespace) -> int:
    """Fetch what a bare GPU machine may lack, at the versions that are installed here."""
    names = (*SMALL, *TESTING, *(LARGE if given.all else ()))
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in names]
    platforms = [option for one in PLATFORMS for option in ("--platform", one)]
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--python-version", given.python, "--implementation", "cp", *platforms,
        "--dest", str(given.to), *wanted,
    ]  # fmt: skip
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        say(
            f"Copy {given.to}/ to the GPU machine with this repository, and there: python3 -m pip "
            f"install --no-index --no-deps --target {tempfile.gettempdir()}/site {given.to}/*.whl; "
            f"PYTHONPATH={tempfile.gettempdir()}/site make gpu"
        )
    return status


def say(text: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = top.add_subparsers(required=True)
    one = commands.add_parser("run", help="tests, cheats and problems on this machine's GPU")
    one.add_argument("--part", default="1/1", help="for example 2/3: every third step")
    one.add_argument("--minutes", type=float, default=9.5, help="end within these")
    one.add_argument("--out", type=Path, help="the results file; gone on with if it is there")
    one.add_argument("--prepared", type=Path, help="what `prepare` wrote")
    one.add_argument("--only", nargs="*", default=[], help="these problems alone, and no tests")
    one.add_argument("--no-tests", action="store_true")
    one.add_argument("--candidates", type=int, default=2, help="to try on each problem")
    one.add_argument("--autotune", action="store_true", help="max-autotune as a baseline too")
    one.add_argument("--confirm", action="store_true", help="winners again, under new seeds")
    one.set_defaults(act=run)
    two = commands.add_parser("prepare", help="write the candidates beforehand, on any machine")
    two.add_argument("--device", default="h200-sxm")
    two.add_argument("--out", type=Path, default=PROJECT / "build" / "gpu" / "prepared.json")
    two.add_argument("--only", nargs="*", default=[])
    two.add_argument("--candidates", type=int, default=2)
    two.add_argument("--compile", action="store_true", help="each for the device, without it")
    two.set_defaults(act=prepare)
    three = commands.add_parser("table", help="a results file as Markdown")
    three.add_argument("results", type=Path)
    three.set_defaults(act=print_table)
    four = commands.add_parser("wheels", help="fetch what a bare GPU machine may lack")
    four.add_argument("--to", type=Path, default=Path("gpu-wheels"))
    four.add_argument("--python", default="3.12")
    four.add_argument("--all", action="store_true", help="numpy and scipy as well, 55 MB")
    four.set_defaults(act=wheels)
    commands.add_parser("probe", help="can a runner use the GPU?").set_defaults(act=probe)
    commands.add_parser("ceilings", help="copy and product rates").set_defaults(act=print_ceilings)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    given = parser().parse_args(arguments)
    try:
        status: int = given.act(given)
    except (CannotStart, BadInput) as error:
        say(f"benchmarks.gpu: {error}")
        return BAD_INPUT
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Lanes: what the machines of a fleet offer to be timed on, and what a task asks for.

A lane is a Ray resource with one unit for each device, so that no more problems are at a device
than it is to hold. A CPU is one lane, `lane:cpu`, with all its cores: whoever times on some of them
hears the others. A GPU is one, `lane:cuda`. Each also goes by the name of its device, for tasks
that ask for that one.
"""

from collections import Counter
from collections.abc import Mapping

from knowledge.device import detect, gpu_names, known_devices, resolve
from knowledge.errors import BadInput
from tools.profile.present import ensure_described
from tools.task import Task

PREFIX = "lane:"
CPU, GPU = f"{PREFIX}cpu", f"{PREFIX}cuda"

Lanes = Mapping[str, float]


def lanes_here(*, cpu: bool = False) -> dict[str, float]:
    """The lanes that this machine offers: its GPUs, or its CPU where it has none.

    A CPU that serves GPUs is busy compiling for them, and no place to time on.

    Args:
        cpu: offer the CPU also where there are GPUs.
    """
    names = tuple(gpu_names())
    lanes: Counter[str] = Counter()
    if names:
        ensure_described("cuda")
        pages = {told: name for name, page in known_devices().items() for told in page.detected_as}
        lanes[GPU] = len(names)
        lanes.update(f"{PREFIX}{pages[name]}" for name in names if name in pages)
    if cpu or not names:
        lanes[CPU] = 1
        lanes[f"{PREFIX}{detect().name}"] = 1
    return {name: float(count) for name, count in lanes.items()}


def lanes_of(task: Task, offered: Lanes) -> tuple[str, ...]:
    """The lanes that a task's problem must hold, all of one device.

    `auto` is a GPU where any machine has one: all problems of a suite are then timed on GPUs. A
    GPU that no machine has is compiled for, which takes a CPU.

    Args:
        task: asks for a device by its target.
        offered: by all machines together.

    Raises:
        BadInput: no machine offers what it asks for.
    """
    target = task.target.strip().lower()
    if task.backend == "cpp" and target == "auto":
        target = "cpu"
    if target == "auto":
        target = "cuda" if GPU in offered else "cpu"
    if target in ("cpu", "cuda"):
        wanted: tuple[str, ...] = (f"{PREFIX}{target}",)
    elif (own := f"{PREFIX}{target.removeprefix('cuda:')}") in offered:
        is_gpu = target.removeprefix("cuda:") in known_devices()
        wanted = (GPU if is_gpu else CPU, own)
    else:
        # Known, or this is where it is complained of.
        resolve(target, f"{task.name}: target")
        wanted = (CPU,) if CPU in offered else (GPU,)
    if missing := [lane for lane in wanted if lane not in offered]:
        have = ", ".join(sorted(offered)) or "none"
        raise BadInput(
            f"{task.name}: target {task.target}",
            f"no machine of the fleet offers {missing[0]} (offered: {have}).",
            "Start machines with python -m eval.join.",
        )
    return wanted

from pathlib import Path

import pytest

from eval.fleet.lanes import lanes_here, lanes_of
from knowledge.device import detect
from knowledge.errors import BadInput
from tools.task import Task

CPU_NODE = {"lane:cpu": 1.0, "lane:amd-epyc": 1.0}
H200_NODE = {"lane:cuda": 8.0, "lane:h200-sxm": 8.0}
L4_NODE = {"lane:cuda": 1.0, "lane:l4": 1.0}


def task(target: str, backend: str = "auto") -> Task:
    return Task.model_validate(
        {"name": "op", "reference": Path("op.py"), "target": target, "backend": backend}
    )


@pytest.mark.parametrize(
    ("target", "offered", "lanes"),
    [
        ("auto", CPU_NODE, ("lane:cpu",)),
        ("auto", CPU_NODE | H200_NODE, ("lane:cuda",)),
        ("cpu", CPU_NODE | H200_NODE, ("lane:cpu",)),
        ("cuda", CPU_NODE | L4_NODE, ("lane:cuda",)),
        ("cuda:h200-sxm", CPU_NODE | H200_NODE, ("lane:cuda", "lane:h200-sxm")),
        ("l4", H200_NODE | L4_NODE, ("lane:cuda", "lane:l4")),
        ("amd-epyc", CPU_NODE, ("lane:cpu", "lane:amd-epyc")),
    ],
)
def test_a_task_goes_to_the_device_it_asks_for(
    target: str, offered: dict[str, float], lanes: tuple[str, ...]
) -> None:
    assert lanes_of(task(target), offered) == lanes


def test_a_gpu_that_no_machine_has_is_compiled_for_wherever_there_is_a_cpu() -> None:
    assert lanes_of(task("cuda:b200"), CPU_NODE | L4_NODE) == ("lane:cpu",)
    assert lanes_of(task("cuda:b200"), L4_NODE) == ("lane:cuda",)


def test_kernels_in_cpp_are_the_cpus_also_in_a_fleet_with_gpus() -> None:
    assert lanes_of(task("auto", "cpp"), CPU_NODE | L4_NODE) == ("lane:cpu",)


@pytest.mark.parametrize("target", ["cuda", "no-such-device"])
def test_what_no_machine_offers_is_said_before_anything_runs(target: str) -> None:
    with pytest.raises(BadInput) as raised:
        lanes_of(task(target), CPU_NODE)
    assert target in str(raised.value)


def test_this_machine_offers_its_cpu_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.fleet.lanes.gpu_names", lambda: iter(()))
    assert lanes_here() == {"lane:cpu": 1.0, f"lane:{detect().name}": 1.0}


def test_a_machine_with_gpus_offers_those_and_its_cpu_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("NVIDIA H200", "NVIDIA H200", "NVIDIA L4")
    monkeypatch.setattr("eval.fleet.lanes.gpu_names", lambda: iter(names))
    monkeypatch.setattr("eval.fleet.lanes.ensure_described", lambda target: "")
    assert lanes_here() == {"lane:cuda": 3.0, "lane:h200-sxm": 2.0, "lane:l4": 1.0}
    assert lanes_here(cpu=True)["lane:cpu"] == 1.0

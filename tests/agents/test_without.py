"""What stands in for a part that is switched off says nothing, and breaks nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from agents.playbook.profiler import PlaybookProfiler
from agents.without import FiguresAlone
from graph.conclude import remember
from graph.workbench import Workbench, Workbenches
from knowledge.errors import BadInput
from knowledge.experience import signature
from knowledge.store import Library
from tests.agents.llm.scripted import brief
from tests.graph import builders
from tools.task import InputSpec, Task, parse_task
from tools.verdict import KernelTime, TimeReadings

OP = {"op": "torch.relu", "inputs": [{"shape": [64, 64]}]}
OPS, DEVICE = signature(builders.graph()), builders.device().name


def bench_of(folder: Path, *without: str) -> Workbench:
    """The tools of a run of the playbook's; its judge is not asked anything."""
    task = Task.model_validate({"name": "relu", **OP, "without": without})
    benches = Workbenches(folder / "library", instruments=True)
    return benches.of(str(folder / "-".join(("run", *without))), task)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose library remembers a finished run; built once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("learned")
    library = Library.open(folder / "library")
    remember(SimpleNamespace(library=library), builders.a_win())
    library.close()
    return folder


def test_a_whole_run_finds_pages_and_experience(learned: Path) -> None:
    bench = bench_of(learned)
    assert bench.library.search("softmax of rows")
    assert bench.library.lessons_like(OPS, DEVICE)
    assert bench.library.memory.like(OPS)
    assert bench.instruments


def test_without_a_library_no_page_is_found_and_experience_stays(learned: Path) -> None:
    bench = bench_of(learned, "library")
    assert bench.library.search("softmax of rows") == []
    assert bench.library.lessons_like(OPS, DEVICE)


def test_without_experience_pages_stay_and_nothing_is_known_nor_kept(learned: Path) -> None:
    bench = bench_of(learned, "experience")
    assert bench.library.search("softmax of rows")
    assert bench.library.lessons_like(OPS, DEVICE) == []
    assert bench.library.memory.like(OPS) == []
    before = Library.open(learned / "library").memory.entries()
    remember(bench, builders.nothing_faster())
    assert Library.open(learned / "library").memory.entries() == before


def test_without_both_neither_is_there(learned: Path) -> None:
    bench = bench_of(learned, "library", "experience")
    assert bench.library.search("softmax of rows") == []
    assert bench.library.memory.like(OPS) == []


def test_without_a_debugger_nothing_is_mended(learned: Path) -> None:
    bench = bench_of(learned, "debugger")
    record = builders.a_win()
    assert bench.crew.debugger.repair(brief(), record.plans[1], record.trials[1]) is None
    assert isinstance(bench.crew.profiler, PlaybookProfiler)


def test_without_a_profiler_there_are_figures_and_no_diagnosis(learned: Path) -> None:
    bench = bench_of(learned, "profiler")
    assert not bench.instruments
    (kernel,) = (KernelTime(name="aten::softmax", calls=1, self_us=9, share=1.0),)
    trial = builders.a_win().trials[0]
    assert trial.profile is not None
    readings = TimeReadings(forward_us=9.0, kernels=(kernel,))
    profile = trial.profile.model_copy(update={"readings": readings, "page_fault_ms": 3.0})
    trial = trial.model_copy(update={"profile": profile})
    told, read = (one.explain(brief(), trial) for one in (FiguresAlone(), PlaybookProfiler()))
    assert isinstance(bench.crew.profiler, FiguresAlone)
    assert (told.bottleneck, told.cause, told.moves) == ("none", "", ())
    assert read.moves
    assert told.headroom == read.headroom
    assert told.evidence == read.evidence[: len(told.evidence)]
    assert len(told.evidence) < len(read.evidence)


def test_a_part_that_there_is_not_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        parse_task({**OP, "without": ["judge"]}, "t.yaml", tmp_path)
    assert "without" in str(caught.value)
    assert "debugger" in str(caught.value)
    one = parse_task({**OP}, "t.yaml", tmp_path, ("without=debugger",))
    assert one.without == ("debugger",)
    assert Task(name="r", op="torch.relu", inputs=(InputSpec(shape=(2,)),)).without == ()

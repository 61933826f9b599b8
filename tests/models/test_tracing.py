"""LangSmith's traces: of a role's talk and of a whole run; without keys; never in the way."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from langchain_openai import ChatOpenAI
from langsmith import utils

from agents.llm.coder import ModelCoder
from agents.llm.talk import Talk
from graph.drive import work
from graph.events import Note, read_events
from graph.folder import RunFolder
from graph.record import RunRecord
from graph.state import RunInput
from graph.tracing import traced
from graph.workbench import Workbenches
from knowledge.store import Library
from tests.agents.llm.scripted import MemoryJournal, brief, model, model_plan
from tests.agents.llm.test_tools import Bench
from tests.graph import builders
from tests.models.minds import Able, Knowledge, fenced, plan_form, was_told, was_tried
from tests.models.script import Answer, Question, Refuses, Says
from tests.models.server import MODELS, ModelServer, serving
from tests.models.trace_server import TraceServer, taking_traces
from tools.candidate import Candidate
from tools.facts import Baselines, ReferenceFacts, Roofline
from tools.task import Task, parse_task
from tools.verdict import BuildFailed, Correct, Profile

MODEL_KEY = "sk-planted-model-6d20f4b7c1"
TRACE_KEY = "lsv2-planted-trace-93ab50e2f8"
OTHER_KEY = "planted-other-value-17c4d9"
PLANTED = {"OPENAI_API_KEY": MODEL_KEY, "LANGSMITH_API_KEY": TRACE_KEY, "SOME_TOKEN": OTHER_KEY}
SOFTMAX = Knowledge(
    op="softmax",
    sign="torch.softmax(x",
    title="Two sweeps of each row while it lies in L1",
    instructions="Sweep a row for its maximum and its sum, then scale it.",
    speedup=2.4,
)


class OnSoftmax(Able):
    """Plans one kernel for the builders' op; its server quotes keys when it is first asked."""

    def __init__(self) -> None:
        self.quoted = False

    def answer(self, question: Question) -> Answer:
        if not self.quoted:
            self.quoted = True
            return Refuses(400, f"{MODEL_KEY} may not use tools, nor may {OTHER_KEY}")
        return super().answer(question)

    def plans(self, question: Question) -> list[dict[str, object]]:
        return [] if was_tried(question, SOFTMAX.title) else [plan_form(SOFTMAX)]

    def write(self, question: Question) -> Answer:
        if question.tool("verify") and not was_told(question):
            return Says(fenced(builders.KERNEL), calls=(("verify", {}),))
        return Says(fenced(builders.KERNEL))


class ReadyJudge:
    """Knows the builders' op, and finds every kernel right and fast."""

    def examine(self) -> ReferenceFacts:
        return builders.facts()

    def survey(self) -> tuple[Baselines, Roofline]:
        return builders.baselines(), builders.roofline()

    def build(self, candidate: Candidate) -> BuildFailed | None:
        return None

    def verify(self, candidate: Candidate) -> Correct:
        return builders.correct(None)

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Correct:
        return builders.correct(builders.timing(4.0))

    def profile(self, candidate: Candidate) -> Profile | None:
        return builders.profile(4.0)

    def confirm(self, candidate: Candidate) -> Correct:
        return builders.correct(builders.timing(4.1, confirmed=True))

    def abandon(self) -> None:
        """It has no process."""

    close = abandon


class ReadyBenches(Workbenches):
    def judge_of(self, task: Task, folder: RunFolder) -> ReadyJudge:  # type: ignore[override]
        return ReadyJudge()


Env = Callable[[str], None]


@pytest.fixture
def trace_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    """Sets LangSmith's variables; its client reads them once in a process, so that is undone."""

    def forget() -> None:
        utils.get_env_var.cache_clear()
        utils.get_tracer_project.cache_clear()

    def set_variables(address: str, tracing: str = "true") -> None:
        for name, value in PLANTED.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LANGSMITH_ENDPOINT", address)
        monkeypatch.setenv("LANGSMITH_TRACING", tracing)
        forget()

    yield set_variables
    monkeypatch.undo()
    forget()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared") / "library"


@pytest.fixture
def mind() -> Iterator[ModelServer]:
    with serving(OnSoftmax(), MODEL_KEY) as server:
        yield server


def written_by_a_coder(mind: ModelServer, folder: Path) -> Candidate:
    chat = ChatOpenAI(model=MODELS[0], base_url=f"{mind.address}/v1", max_retries=0)
    talk = Talk(model(chat, id=f"openai:{MODELS[0]}"), "coder", MemoryJournal())
    return ModelCoder(talk, Library.open(folder), Bench()).write(brief(), model_plan())


def whole_run(mind: ModelServer, base: Path, library: Path) -> tuple[RunRecord, RunFolder]:
    raw = {
        "name": "softmax",
        "op": "torch.softmax",
        "inputs": [{"shape": [builders.ROWS, builders.COLUMNS]}],
        "target": "cpu",
        "model": f"openai:{MODELS[0]}",
        "base_url": f"{mind.address}/v1",
        "crew": "model",
        "width": 1,
    }
    task = parse_task(raw, "softmax.yaml", base)
    folder = RunFolder.create(base / "runs", task)
    entry = RunInput(task=task, run_dir=str(folder.path))
    return work(folder, task, entry, quiet=True, benches=ReadyBenches(library)), folder


def check_no_key(server: TraceServer) -> None:
    assert server.bodies
    for body in server.bodies:
        for key in PLANTED.values():
            assert key.encode() not in body


@pytest.mark.parametrize("compressed", [True, False], ids=["zstd", "plain"])
def test_a_roles_talk_is_traced_under_its_name_and_without_keys(
    compressed: bool, trace_to: Env, mind: ModelServer, tmp_path: Path
) -> None:
    with taking_traces(compressed) as server:
        trace_to(server.address)
        with traced() as complaint:
            written_by_a_coder(mind, tmp_path)
        assert complaint == ""
        refused, written = sorted(server.named("coder"), key=lambda run: run["dotted_order"])
        assert refused["extra"]["metadata"]["plan"] == written["extra"]["metadata"]["plan"] == "m1"
        assert written["run_type"] == "llm"
        assert "scaled_softmax" in str(written["outputs"])
        assert "[redacted] may not use tools" in refused["error"]
        check_no_key(server)


def test_a_whole_run_is_traced_by_its_nodes_and_roles_without_keys(
    trace_to: Env, mind: ModelServer, tmp_path: Path, library: Path
) -> None:
    with taking_traces() as server:
        trace_to(server.address)
        record, folder = whole_run(mind, tmp_path, library)
        assert record.winner is not None
        (root,) = server.named(folder.path.name)
        assert root["end_time"]
        nodes = ["prepare", "plan", "attempt", "code", "compile", "verify", "measure", "profile"]
        for name in (*nodes, "select", "confirm", "conclude"):
            assert server.named(name), name
        assert {run["trace_id"] for run in server.runs.values()} == {root["id"]}
        places = {"planner": "plan", "coder": "code", "profiler": "profile"}
        for role, node in places.items():
            found = server.named(role)
            assert found, role
            assert {server.parent_of(run)["name"] for run in found} == {node}
        check_no_key(server)


def test_without_its_variables_nothing_is_posted(
    trace_to: Env, mind: ModelServer, tmp_path: Path, library: Path
) -> None:
    with taking_traces() as server:
        trace_to(server.address, tracing="")
        record, _ = whole_run(mind, tmp_path, library)
        assert record.winner is not None
        assert server.requests == []


def test_a_server_that_takes_nothing_is_complained_of_once(
    trace_to: Env,
    mind: ModelServer,
    tmp_path: Path,
    library: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with taking_traces() as server:
        server.status = 500
        trace_to(server.address)
        record, _ = whole_run(mind, tmp_path, library)
        assert record.winner is not None
        assert server.requests.count("POST /runs/multipart") > 1
    lost = [one.getMessage() for one in caplog.records if one.name.startswith("langsmith")]
    assert sum("trace are lost" in text for text in lost) == 1
    assert not [key for key in PLANTED.values() if key in caplog.text]


def test_a_server_that_is_not_langsmiths_is_said_to_be_none(
    trace_to: Env, mind: ModelServer
) -> None:
    with taking_traces() as server:
        server.info = ["something else"]
        trace_to(server.address)
        with traced() as complaint:
            assert "does not answer as LangSmith does" in complaint
    trace_to(mind.address)
    with traced() as complaint:
        assert "is not traced" in complaint


def test_an_endpoint_out_of_reach_is_said_once_and_the_run_goes_on(
    trace_to: Env,
    mind: ModelServer,
    tmp_path: Path,
    library: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as nobody:
        # Bound and not listening: whoever connects is refused.
        nobody.bind(("127.0.0.1", 0))
        trace_to(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        before = set(threading.enumerate())
        record, folder = whole_run(mind, tmp_path, library)
    assert record.winner is not None
    told = [one.text for one in read_events(folder.events) if isinstance(one, Note)]
    assert sum("is not traced" in text for text in told) == 1
    assert capfd.readouterr().err == ""
    # Nothing is left behind that would go on trying, and keep the process from its end.
    assert not [one for one in threading.enumerate() if one not in before and not one.daemon]

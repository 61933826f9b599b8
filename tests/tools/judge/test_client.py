"""The judge as the house uses it: bad references, deaths in the middle, what is left behind."""

import gc
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from knowledge.errors import BadInput
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.judge.subject import Subject
from tools.judge.wire import JudgeLimits
from tools.task import parse_task
from tools.verdict import BuildFailed, Correct, JudgeError, WrongOutput

LIMITS = JudgeLimits(preparation_s=2, timing_s=0.3)
HEAD = "import torch\nclass Model(torch.nn.Module):\n"
FOOT = (
    "def get_inputs():\n    return [torch.randn(16, 32)]\ndef get_init_inputs():\n    return []\n"
)
DOUBLE = HEAD + "    def forward(self, x):\n        return x * 2\n" + FOOT
RIGHT = DOUBLE.replace("Model(", "ModelNew(")
WRONG = RIGHT.replace("* 2", "* 3")


def judge_of(source: str, folder: Path, limits: JudgeLimits = LIMITS) -> Judge:
    (folder / "reference.py").write_text(source)
    task = parse_task({"name": "t", "reference": "reference.py"}, "t.yaml", folder)
    return Judge(task, folder / "scratch", limits)


def with_body(body: str) -> str:
    return HEAD + f"    def forward(self, x):\n        {body}\n" + FOOT


def candidate(source: str) -> Candidate:
    return Candidate(source=source, backend="torch")


def descendants() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
    ]


def newest_child() -> psutil.Process:
    """The process of the judge that was started last; other tests may keep theirs."""
    return max(psutil.Process().children(), key=lambda process: process.create_time())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return x @ x", "mat1 and mat2|size mismatch|must match|cannot be multiplied"),
        ("return torch.rand_like(x)", "random"),
        ("return torch.nn.functional.dropout(x)", "random"),
        ("return x.shape[0]", "returns no tensor"),
        ("return x, 3", "int"),
        ("self.n = getattr(self, 'n', 0) + 1; return x * self.n", "called again"),
    ],
)
def test_a_reference_that_cannot_be_judged_is_refused_in_one_line(body, told, tmp_path):
    (tmp_path / "reference.py").write_text(with_body(body))
    with pytest.raises(BadInput) as caught:
        Subject(parse_task({"name": "t", "reference": "reference.py"}, "t.yaml", tmp_path))
    assert re.search(told, caught.value.what)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return torch.rand_like(x)", "random"),
        ("import os; os._exit(3)", "ended while it ran the reference"),
    ],
)
def test_a_refusal_comes_from_the_judges_process_as_one_line(body, told, tmp_path):
    with judge_of(with_body(body), tmp_path) as judge, pytest.raises(BadInput) as caught:
        judge.examine()
    assert told in caught.value.what
    assert "\n" not in str(caught.value)


def test_what_a_reference_prints_disturbs_nobody(tmp_path):
    source = DOUBLE.replace("return x * 2", "print('{}' * 99); return x * 2")
    with judge_of(source, tmp_path) as judge:
        assert isinstance(judge.verify(candidate(RIGHT)), Correct)


def test_a_task_whose_answer_is_constant_gets_a_caution(tmp_path):
    source = DOUBLE.replace("x * 2", "torch.softmax(x.sum(dim=1, keepdim=True), dim=1)")
    with judge_of(source, tmp_path) as judge:
        assert any("does not depend on the input" in text for text in judge.examine().cautions)


CHOLESKY = """
import torch
class {name}(torch.nn.Module):
    def forward(self, x):
        return torch.linalg.cholesky(x)
"""
CHOLESKY_INPUTS = """
def get_inputs():
    x = torch.randn(24, 24)
    return [x @ x.T + torch.eye(24)]
def get_init_inputs():
    return []
"""


def test_inputs_whose_elements_cannot_change_places_are_drawn_anew(tmp_path):
    reference = CHOLESKY.format(name="Model") + CHOLESKY_INPUTS
    with judge_of(reference, tmp_path) as judge:
        honest = candidate(CHOLESKY.format(name="ModelNew"))
        assert isinstance(judge.verify(honest), Correct)
        verdict = judge.measure(honest, ("eager",))
        assert isinstance(verdict, Correct), verdict
        cached = candidate(
            CHOLESKY.format(name="ModelNew").replace(
                "return",
                "key = x.data_ptr()\n"
                "        self.calls = getattr(self, 'calls', 0) + 1\n"
                "        if self.calls > 10:\n"
                "            return self.known.get(key, torch.zeros_like(x)).clone()\n"
                "        self.known = getattr(self, 'known', {})\n"
                "        self.known[key] =",
            )
            + "        return self.known[key]\n"
        )
        assert not isinstance(judge.measure(cached, ("eager",)), Correct)


def test_an_op_that_changes_its_input_is_judged_on_private_copies(tmp_path):
    source = DOUBLE.replace("x * 2", "x.mul_(2)")
    with judge_of(source, tmp_path) as judge:
        assert any("changes its own inputs" in text for text in judge.cautions())
        mutating = candidate(RIGHT.replace("x * 2", "x.add_(x)"))
        assert isinstance(judge.verify(mutating), Correct)
        assert isinstance(judge.measure(mutating, ("eager",)), Correct)
        assert isinstance(judge.verify(candidate(WRONG)), WrongOutput)


def test_an_op_that_writes_what_was_there_changes_its_input_all_the_same(tmp_path):
    # Where all are positive, a ReLU in place leaves every value as it is.
    source = DOUBLE.replace("x * 2", "x.relu_() * 2").replace("randn", "rand")
    with judge_of(source, tmp_path) as judge:
        assert any("changes its own inputs" in text for text in judge.cautions())
        writes = candidate(RIGHT.replace("x * 2", "x.relu_() * 2"))
        assert isinstance(judge.verify(writes), Correct)


def test_a_judge_that_is_killed_is_started_again_and_asked_again(tmp_path):
    with judge_of(DOUBLE, tmp_path) as judge:
        assert isinstance(judge.verify(candidate(RIGHT)), Correct)
        service = newest_child()
        service.send_signal(signal.SIGKILL)
        assert isinstance(judge.verify(candidate(WRONG)), WrongOutput)
        assert isinstance(judge.verify(candidate(RIGHT)), Correct)


def test_a_zygote_that_is_killed_is_replaced(tmp_path):
    with judge_of(DOUBLE, tmp_path) as judge:
        assert isinstance(judge.measure(candidate(RIGHT), ("eager",)), Correct)
        service = newest_child()
        for process in service.children():
            process.kill()
        time.sleep(0.2)
        assert isinstance(judge.verify(candidate(WRONG)), WrongOutput)
        assert isinstance(judge.measure(candidate(RIGHT), ("eager",)), Correct)


def test_a_judge_that_cannot_work_says_so_and_passes_nothing(tmp_path):
    with judge_of(DOUBLE, tmp_path) as judge:
        judge.examine()
        (tmp_path / "reference.py").write_text("import os; os._exit(9)")
        service = newest_child()
        service.kill()
        assert isinstance(judge.verify(candidate(RIGHT)), JudgeError)


def test_nothing_is_left_behind(tmp_path):
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    before = {process.pid for process in descendants()}
    with judge_of(DOUBLE, tmp_path) as judge:
        for source in (RIGHT, WRONG, RIGHT.replace("return", "import os; os._exit(0)")):
            judge.verify(candidate(source))
        judge.measure(candidate(RIGHT), ("eager",))
        assert len(descendants()) > len(before)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and {p.pid for p in descendants()} - before:
        time.sleep(0.05)
    assert not {process.pid for process in descendants()} - before
    # What an earlier test had opened may be closed meanwhile.
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # noqa: PTH208
    assert not list((tmp_path / "scratch" / "jail").glob("runner-*"))


def test_a_candidate_without_model_new_or_with_a_syntax_error_fails_to_build(tmp_path):
    with judge_of(DOUBLE, tmp_path) as judge:
        assert "no class ModelNew" in judge.build(candidate(DOUBLE)).log
        assert "line 1" in judge.build(candidate("x = (")).log
        assert isinstance(judge.verify(candidate("x = (")), BuildFailed)
        assert judge.build(candidate(RIGHT)) is None


def test_a_candidates_cpp_is_compiled_in_the_jail_and_its_errors_are_told(tmp_path):
    source = (
        "import torch\nfrom tools.backends.cpp.loader import cpp_kernel\n"
        "run = cpp_kernel('nonsense', 'run', 'pp')\nclass ModelNew(torch.nn.Module):\n    pass\n"
    )
    with judge_of(DOUBLE, tmp_path) as judge:
        failed = judge.build(candidate(source))
    assert isinstance(failed, BuildFailed)
    assert "nonsense" in failed.log
    assert failed.isolation


def test_survey_confirm_and_profile_agree_with_each_other(tmp_path):
    impatient = LIMITS.model_copy(update={"call_s": 1.0, "compile_s": 0.2})
    with judge_of(DOUBLE, tmp_path, impatient) as judge:
        baselines, roofline = judge.survey()
        eager, compiled = baselines.rows
        assert (eager.name, compiled.name) == ("eager", "compile")
        assert eager.median_ms > 0
        assert compiled.median_ms is None
        assert "no reply in 1 s" in compiled.failed
        assert baselines.noise >= 0
        assert roofline.floor_ms > 0
        assert judge.profile(candidate(RIGHT)) is None
        confirmed = judge.confirm(candidate(RIGHT))
        assert isinstance(confirmed, Correct)
        assert confirmed.timing is not None
        assert confirmed.timing.confirmed
        assert len(confirmed.cases) >= 3
        profile = judge.profile(candidate(RIGHT))
        assert profile is not None
        assert profile.median_ms == confirmed.timing.candidate_ms
        for row in confirmed.timing.comparisons:
            assert row.low <= row.speedup <= row.high
        assert isinstance(judge.confirm(candidate(WRONG)), WrongOutput)


def test_a_single_number_that_depends_on_its_input_gets_no_caution(judges):
    assert judges("loss").cautions() == ()

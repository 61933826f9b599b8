"""On a device a reference may end whoever runs it on inputs that its author did not draw."""

import pytest
import torch

from tests.tools.judge.test_device_lane import LIMITS, StandIn
from tools.candidate import Candidate
from tools.judge.oracle import Oracle
from tools.judge.session import Session
from tools.judge.zygote import Zygote
from tools.reference import load
from tools.runner.jail import strongest_jail
from tools.task import parse_task
from tools.verdict import Correct

# As an index out of range does on a GPU: another batch size ends the process, a NaN its context.
BRITTLE = """import os
import torch
class Model(torch.nn.Module):
    def forward(self, x):
        if x.shape[0] != 24:
            os._exit(1)
        if x.isnan().any():
            raise RuntimeError("CUDA error: device-side assert triggered")
        return torch.softmax(x, dim=-1)
def get_inputs():
    return [torch.randn(24, 96)]
def get_init_inputs():
    return []
"""


@pytest.fixture
def session(tmp_path):
    (tmp_path / "brittle.py").write_text(BRITTLE)
    (tmp_path / "jail").mkdir()
    zygote = Zygote(strongest_jail(), tmp_path / "jail")
    task = parse_task({"name": "brittle", "reference": "brittle.py"}, "t.yaml", tmp_path)
    opened = Session(task, tmp_path, LIMITS, zygote, StandIn())
    yield opened
    opened.close()
    zygote.close()


def test_what_ends_a_process_ends_a_runner_and_no_judge(session):
    source = BRITTLE.replace("class Model(", "class ModelNew(")
    verdict = session.verify(Candidate(source=source, backend="torch"))
    assert isinstance(verdict, Correct), verdict
    names = {case.name for case in session.exam.cases}
    assert {"large", "not contiguous", "mixed rows"} <= names
    assert not names & {"another batch size", "a batch of one", "a NaN in the input"}


def test_where_the_device_has_no_room_the_reference_has_not_refused():
    loaded = load(BRITTLE, "brittle.py")
    oracle, model, inputs = Oracle(loaded), loaded.build(1), loaded.inputs(1)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        oracle.answer(model, inputs)
    assert not oracle.caution

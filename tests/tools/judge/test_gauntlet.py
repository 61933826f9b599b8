"""What the exam asks beyond ordinary inputs, and what a kernel may answer."""

import pytest

from tools.candidate import Candidate
from tools.verdict import ContractBroken, Correct, Crashed, WrongOutput

SOFTMAX = """
import torch
class ModelNew(torch.nn.Module):
    def forward(self, x):
        {first}
        return torch.softmax(x, dim=-1)
"""
NORM = """
import torch
class ModelNew(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)
    def forward(self, x):
        y = torch.relu(self.norm(x))
        {last}
        return y
"""


def softmax(first: str) -> str:
    return SOFTMAX.format(first=first)


@pytest.mark.parametrize(
    "first",
    [
        "if x.shape[0] != 256: raise ValueError(f'made for 256 rows, not {x.shape[0]}')",
        "assert x.shape[0] == 256, 'made for 256 rows'",
    ],
)
def test_a_kernel_may_refuse_other_shapes_and_is_labelled(judge_fully, first):
    verdict = judge_fully("softmax", softmax(first), False)
    assert isinstance(verdict, Correct), verdict
    assert any("given shapes only" in label and "256" in label for label in verdict.labels)


def test_a_shape_that_breaks_a_kernel_by_accident_rejects_it(judge_fully):
    verdict = judge_fully("softmax", softmax("x = torch.cat([x[:128], x[128:256]])"), False)
    assert isinstance(verdict, ContractBroken), verdict
    verdict = judge_fully("softmax", softmax("x = x - torch.zeros(256, 1)[:, : len(x)]"), False)
    assert isinstance(verdict, Crashed | ContractBroken), verdict


def test_a_kernel_may_raise_on_inputs_that_are_not_contiguous(judge_fully):
    verdict = judge_fully("softmax", softmax("x.view(-1)"), False)
    assert isinstance(verdict, Correct), verdict
    assert any("contiguous inputs only" in label for label in verdict.labels)


def test_a_kernel_that_takes_every_layout_gets_no_label_for_it(judge_fully):
    verdict = judge_fully("softmax", softmax("pass"), False)
    assert isinstance(verdict, Correct)
    assert not any("only" in label for label in verdict.labels)
    names = {case.name for case in verdict.cases}
    assert {"another batch size", "not contiguous", "at an odd address"} <= names
    assert "a NaN in the input" in names


def test_where_the_op_compares_a_nan_that_is_lost_is_a_label(judge_fully):
    verdict = judge_fully("norm", NORM.format(last="y = y.nan_to_num()"), False)
    assert isinstance(verdict, Correct), verdict
    assert any("a NaN in the input" in label for label in verdict.labels)


@pytest.mark.parametrize(
    ("last", "name"),
    [
        ("self.norm.running_var.fill_(1)", "running_var"),
        ("self.norm.num_batches_tracked.zero_()", "num_batches_tracked"),
    ],
)
def test_what_forward_leaves_behind_must_be_right(judge_fully, last, name):
    verdict = judge_fully("norm", NORM.format(last=last), False)
    assert isinstance(verdict, WrongOutput), verdict
    assert name in verdict.detail


def test_a_verdict_carries_the_hashes_of_all_three(judge_fully):
    one = judge_fully("softmax", softmax("pass"), False)
    other = judge_fully("softmax", softmax("x = x + 1"), False)
    assert one.hashes.judge == other.hashes.judge
    assert one.hashes.reference == other.hashes.reference
    assert one.hashes.source != other.hashes.source
    assert all(len(digest) == 64 for digest in one.hashes.model_dump().values())


def test_a_candidate_behind_another_is_let_go_early(judges):
    from_torch = softmax("for _ in range(8): torch.softmax(x, dim=-1)")
    judge = judges("softmax")
    candidate = Candidate(source=from_torch, backend="torch")
    assert isinstance(judge.verify(candidate), Correct)
    # A crowded machine may widen one measurement's interval until its time is up.
    verdicts = (judge.measure(candidate, ("eager",), to_beat=1.0) for _ in range(3))
    assert any(
        isinstance(verdict, Correct) and verdict.timing.stopped_early for verdict in verdicts
    )
    assert not judge.measure(candidate, ("eager",)).timing.stopped_early

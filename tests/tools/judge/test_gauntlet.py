"""What the exam asks beyond ordinary inputs, and what a kernel may answer."""

from pathlib import Path

import pytest

from knowledge.device import resolve
from knowledge.opgraph import TensorSpec
from tools.candidate import Candidate
from tools.export import Shipment, kernel_text
from tools.facts import ReferenceFacts
from tools.signature import signatures_of
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


SHIPPED = """
import torch
class ModelNew(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(channels)
    def forward(self, x):
        return self.norm(x).clamp(min=0)
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


def test_what_is_shipped_stands_before_the_judge_as_its_kernel_did(judge_fully):
    verdict = judge_fully("norm", SHIPPED, False)
    assert isinstance(verdict, Correct), verdict
    # On a crowded machine an exam has time for some of these only.
    resized = {"another batch size", "a batch of one more", "another second dimension"}
    for case in verdict.cases:
        assert bool(case.shapes) is (case.name in resized)
        assert case.shapes != ((128, 24),)
    reference = Path(__file__).parents[2] / "references" / "norm.py"
    spec = TensorSpec(shape=(128, 24), dtype="float32", strides=(24, 1))
    facts = ReferenceFacts(
        source=reference.read_text(encoding="utf-8"), digest="", graph=None, inputs=(spec,),
        outputs=(spec,), flops=1, moved_bytes=1,
    )  # fmt: skip
    shipment = Shipment(
        candidate=Candidate(source=SHIPPED, backend="torch"),
        reference=facts.source,
        verdict=verdict,
        signatures=signatures_of(facts, verdict.cases, resolve("cpu", "test")),
        returns="tensor",
        updates=("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    )
    assert "ship(OPERATOR" in kernel_text(shipment)
    again = judge_fully("norm", kernel_text(shipment), False)
    assert isinstance(again, Correct), again


def test_a_candidate_behind_another_is_let_go_early(judges):
    from_torch = softmax("for _ in range(8): torch.softmax(x, dim=-1)")
    judge = judges("softmax")
    candidate = Candidate(source=from_torch, backend="torch")
    assert isinstance(judge.verify(candidate), Correct)
    # A crowded machine may widen one measurement's interval until its time is up.
    verdicts = (judge.measure(candidate, ("eager",), to_beat=1.0) for _ in range(20))
    assert any(
        isinstance(verdict, Correct) and verdict.timing.stopped_early for verdict in verdicts
    )
    assert not judge.measure(candidate, ("eager",)).timing.stopped_early

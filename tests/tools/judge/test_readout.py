"""Results are read out of a runner that is stopped, wherever and however they lie in its memory."""

import os
from pathlib import Path

import pytest
import torch

from tools.candidate import Candidate
from tools.judge.lane import READ_OUT
from tools.judge.peek import MOST_PIECES, Unreadable, Witness
from tools.judge.readout import Rows, read_out
from tools.judge.session import Session
from tools.judge.wire import JudgeLimits
from tools.judge.zygote import Zygote
from tools.runner.handover import where
from tools.runner.jail import strongest_jail
from tools.task import parse_task
from tools.verdict import Cheated, Correct, TimerMismatch

TESTS = Path(__file__).parents[2]
LIMITS = JudgeLimits(preparation_s=2, timing_s=0.2)
HONEST = "import torch\nclass ModelNew(torch.nn.Module):\n    def forward(self, x, y):\n"
HONEST += "        for _ in range(4):\n            x = torch.tanh(x @ y)\n        return x\n"


def base(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


def ways() -> dict[str, torch.Tensor]:
    """Results as forward may return them."""
    turned = torch.complex(base(4, 5), -base(4, 5))
    return {
        "dense": base(3, 4, 5),
        "no dimensions": torch.tensor(7.0),
        "no elements": torch.empty(0, 3),
        "booleans": base(2, 9) > 4,
        "halves": base(33).bfloat16(),
        "transposed": base(6, 7).T,
        "permuted": base(2, 3, 4, 5).permute(3, 1, 0, 2),
        "a dimension of one, with any stride": base(4, 5).as_strided((4, 1, 5), (5, 999, 1)),
        "beginning further on": base(100)[13:57],
        "some columns": base(50, 64)[:, 3:9],
        "the last of many steps": base(8, 500, 6)[:, -1],
        "one element of each row": base(3 * MOST_PIECES + 5, 40)[:, 17],
        "one element of each row of many": base(9, 11, 300)[:, :, 200],
        "every other": base(12, 30)[:, ::2],
        "every third, transposed": base(12, 30)[::3, ::3].T,
        "real parts": turned.real,
        "imaginary parts of a conjugate": turned.conj().imag,
        "a conjugate": turned.conj(),
        "repeated": base(5).expand(4, 5),
        "repeated and transposed": base(5, 1).expand(5, 6).T,
        "overlapping": base(20).unfold(0, 5, 2),
    }


@pytest.mark.parametrize("way", ways())
def test_a_result_is_read_as_it_lies(way: str) -> None:
    result = ways()[way]
    place = torch.empty(result.shape, dtype=result.dtype)
    read_out(os.getpid(), [where(result)], [place])
    assert torch.equal(place, result.resolve_conj().resolve_neg())


def test_gaps_are_not_read_where_they_are_long() -> None:
    assert Rows((8, 6), (3000, 1)).count == 8
    assert Rows((12, 15), (30, 2)).count == 1
    assert Rows((4, 5), (5, 1)).are_dense
    assert not Rows((5, 4), (1, 5)).are_dense


@pytest.mark.parametrize(
    "told",
    [
        None, [], [None], [[]], ["here"], [[4096, [1], False]], [["4096", [1], False, False]],
        [[-8, [1], False, False]], [[1 << 70, [1], False, False]], [[4096, [-1], False, False]],
        [[4096, ["1"], False, False]], [[4096, [1 << 70], False, False]],
        [[4096, [1, 1], False, False]], [[4096, [1], 0, 0]], [[4096, [1], False, False]] * 2,
        # Addresses at which nothing is, or that end before the result does.
        [[8, [1], False, False]], [[0, [1], False, False]], [[8, [1 << 61], False, False]],
        [[8, [0], True, False]],
    ],
)  # fmt: skip
def test_what_leads_to_no_result_is_told(told: object) -> None:
    with pytest.raises(Unreadable):
        read_out(os.getpid(), told, [torch.empty(10)])


def test_a_witness_is_believed_only_if_it_is_there() -> None:
    held = torch.arange(16, dtype=torch.uint8)
    told = bytes(held.tolist()).hex()
    assert Witness(held.data_ptr(), told).seen_in(os.getpid())
    assert not Witness(held.data_ptr(), "ff" * 16).seen_in(os.getpid())
    assert not Witness(8, told).seen_in(os.getpid())


@pytest.fixture(params=[True, False], ids=["read by the judge", "copied by the runner"])
def session(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if not request.param:
        monkeypatch.setattr(Witness, "seen_in", lambda *_: False)
    (tmp_path / "jail").mkdir()
    zygote = Zygote(strongest_jail(), tmp_path / "jail")
    raw = {"name": "heavy", "reference": "heavy.py", "target": "cpu"}
    opened = Session(parse_task(raw, "heavy.yaml", TESTS / "references"), tmp_path, LIMITS, zygote)
    yield opened
    opened.close()
    zygote.close()


def judged(session: Session, source: str):
    candidate = Candidate(source=source, backend="torch")
    assert isinstance(session.verify(candidate), Correct)
    return session.measure(candidate, ("eager",))


def test_work_that_is_left_for_the_copy_is_found_either_way(session: Session) -> None:
    verdict = judged(session, (TESTS / "evil" / "kernels" / "work_deferred.py").read_text())
    if READ_OUT in verdict.isolation:
        assert isinstance(verdict, Cheated)
        assert verdict.check == "timed output"
    else:
        assert isinstance(verdict, TimerMismatch)
        assert "left for after" in verdict.detail
    honest = judged(session, HONEST)
    assert isinstance(honest, Correct)
    assert honest.timing.checked_outputs > 0

"""An op that can't be judged in the memory that there is, is refused before that is gone."""

from pathlib import Path

import pytest
import torch

from knowledge.errors import BadInput
from tools.judge.room import BASE_BYTES, least_needed
from tools.judge.site import Host
from tools.judge.subject import Subject
from tools.task import parse_task

REFERENCES = Path(__file__).parents[2] / "references"
NAMES = {"name": "softmax", "reference": "softmax.py"}


class Cramped(Host):
    """So many bytes are free."""

    def __init__(self, free: int) -> None:
        self._free = free

    def free(self) -> int:
        return self._free


def needed() -> int:
    one = Subject(parse_task(NAMES, "t.yaml", REFERENCES))
    inputs = [torch.empty(one.input_bytes, dtype=torch.uint8)]
    return least_needed(inputs, (), one.outputs)


def test_what_fits_is_judged_and_what_does_not_is_one_line() -> None:
    task, least = parse_task(NAMES, "t.yaml", REFERENCES), needed()
    assert least > BASE_BYTES
    Subject(task, Cramped(least))
    with pytest.raises(BadInput, match=r"at least 1 GiB \(inputs .* outputs .* 1 GiB are free"):
        Subject(task, Cramped(least - 1))


def test_inputs_alone_may_be_too_much_and_forward_is_not_run(monkeypatch) -> None:
    def forward(*_: object) -> None:
        raise AssertionError("it was run")

    monkeypatch.setattr("tools.reference.LoadedReference.run", forward)
    with pytest.raises(BadInput, match="several copies of each"):
        Subject(parse_task(NAMES, "t.yaml", REFERENCES), Cramped(BASE_BYTES))


def test_a_truth_has_eight_bytes_an_element_whatever_the_output_has() -> None:
    half, whole = torch.empty(100, dtype=torch.bfloat16), torch.empty(100)
    counts = torch.empty(100, dtype=torch.int32)
    sizes = [least_needed((), (), [one]) - BASE_BYTES for one in (half, whole, counts)]
    assert sizes == [7 * 200 + 1000, 7 * 400 + 1200, 7 * 400 + 800]

"""Sizes that no machine here could hold, reckoned without holding them."""

from pathlib import Path

import pytest

from tools.estimate import BASE_BYTES, Estimate
from tools.footprint import estimate, footprint_of
from tools.reference import load
from tools.scaling import constants, rewrite
from tools.task import parse_task

GIB = 1 << 30
HUGE = '''"""A layer at the size of ÿ machine."""
import torch
from torch import nn

BATCH, WIDTH = 1 << 3, 4096
batch_size = 8388608
HIDDEN = 256
EPSILON = 1e-5
AGAIN = 1
AGAIN = 2


class Model(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.linear = nn.Linear(hidden, 2 * hidden)

    def forward(self, x):
        return torch.relu(self.linear(x))


def get_inputs():
    return [torch.randn(batch_size, HIDDEN)]


def get_init_inputs():
    return [HIDDEN]
'''


def look(folder: Path, source: str, limit: int | None = None, *, scale: bool = False) -> Estimate:
    (folder / "op.py").write_text(source)
    task = parse_task({"name": "op", "reference": "op.py"}, "op.yaml", folder)
    return estimate(task, limit, scale=scale)


def test_tensors_of_any_size_are_counted_without_being_made() -> None:
    found = footprint_of(load(HUGE, "op"))
    rows, hidden = 8388608, 256
    assert found.inputs == rows * hidden * 4
    assert found.weights == (2 * hidden * hidden + 2 * hidden) * 4
    assert found.outputs == rows * 2 * hidden * 4
    # The product lives until relu has read it.
    assert found.working == rows * 2 * hidden * 4


def test_views_and_in_place_results_take_nothing_more() -> None:
    source = HUGE.replace(
        "return torch.relu(self.linear(x))", "return self.linear(x).view(-1).relu_().view(-1, 8)"
    )
    found = footprint_of(load(source, "op"))
    assert found.working == 0


def test_what_is_needed_grows_with_every_part_and_has_a_base(tmp_path: Path) -> None:
    small = look(tmp_path, HUGE.replace("8388608", "16"))
    large = look(tmp_path, HUGE)
    assert small.needed is not None
    assert large.needed is not None
    assert BASE_BYTES < small.needed < BASE_BYTES + GIB
    assert large.needed > 200 * GIB


def test_a_batch_is_made_smaller_before_the_sizes_of_the_layer(tmp_path: Path) -> None:
    found = look(tmp_path, HUGE, 16 * GIB, scale=True)
    assert found.needed is not None
    assert found.needed <= 16 * GIB
    assert [one.name for one in found.scaled] == ["batch_size"]
    assert found.scaled[0].given == 8388608
    assert found.source is not None
    assert f"batch_size = {found.scaled[0].used}\n" in found.source
    assert found.source.replace(str(found.scaled[0].used), "8388608") == HUGE


def test_what_fits_or_has_no_size_of_its_own_is_left_as_it_is(tmp_path: Path) -> None:
    assert look(tmp_path, HUGE, 1000 * GIB, scale=True).source is None
    fixed = HUGE.replace("torch.randn(batch_size, HIDDEN)", "torch.randn(8388608, 256)")
    found = look(tmp_path, fixed.replace("[HIDDEN]", "[256]"), 16 * GIB, scale=True)
    assert (found.source, found.scaled) == (None, ())
    assert found.needed is not None


def test_an_op_that_reads_values_is_not_known_in_advance(tmp_path: Path) -> None:
    source = HUGE.replace(
        "return torch.relu(self.linear(x))", "return x * float(x.sum().item())"
    ).replace("8388608", "16")
    found = look(tmp_path, source)
    assert found.footprint is None
    assert found.unknown


def test_constants_are_those_that_inputs_hang_on_and_are_bound_once() -> None:
    found = {one.name: one for one in constants(HUGE)}
    assert set(found) == {"batch_size", "HIDDEN"}
    assert found["batch_size"].inputs_only
    assert not found["HIDDEN"].inputs_only
    assert rewrite(HUGE, found["HIDDEN"], 7) == HUGE.replace("HIDDEN = 256", "HIDDEN = 7")


def test_a_constant_behind_another_is_found_and_a_tuple_is_taken_apart() -> None:
    source = (
        "A, B = 64, 32\nC: int = 16\nSHAPE = (A, C)\n\n\nclass Model:\n    width = B\n\n\n"
        "def get_inputs():\n    return [make(SHAPE, B)]\n"
    )
    found = {one.name: (one.value, one.inputs_only) for one in constants(source)}
    assert found == {"A": (64, True), "B": (32, False), "C": (16, True)}
    assert constants("not python (") == []


@pytest.mark.parametrize("value", [31, 32])
def test_small_sizes_are_never_halved(tmp_path: Path, value: int) -> None:
    source = HUGE.replace("8388608", str(value))
    found = look(tmp_path, source, 1, scale=True)
    assert found.source is None

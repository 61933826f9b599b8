"""Modules joined into one: each workload gets its own forward, and all else is as it was."""

import pytest
import torch

from knowledge.emit import emit_as_given
from knowledge.emit_dispatch import Variant, join, left_as_given
from knowledge.opgraph import TensorSpec
from tests.patterns.workshop import FUSED, build, load, reference
from tools.trace import spec_of

SCALED = '''\
"""Scaled by {factor}."""

import torch

FACTOR = {factor}


def scaled(x):
    return x * FACTOR


class ModelNew(torch.nn.Module):
    def __init__(self, by=1.0):
        super(ModelNew, self).__init__()
        self.shift = torch.nn.Parameter(torch.tensor(float(by)))

    def forward(self, x, more=0.0):
        if x.dim() != {rank}:
            raise ValueError("made for {rank} dimensions")
        return scaled(x) + self.shift + more

    def extra_repr(self):
        return "scaled"
'''


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(shape=shape, dtype=dtype, strides=tuple(torch.empty(shape).stride()))


def variant(name: str, factor: float, *shape: int) -> Variant:
    return Variant(name, (spec(*shape),), SCALED.format(factor=factor, rank=len(shape)))


def test_each_workload_gets_its_own_forward() -> None:
    source = join([variant("small", 2.0, 4, 8), variant("large", 3.0, 64, 8)])
    model = load(source).ModelNew(by=0.5)
    for rows, factor in ((4, 2.0), (64, 3.0)):
        x = torch.randn(rows, 8)
        assert torch.equal(model(x), x * factor + 0.5)
        assert torch.equal(model(x, more=1.0), x * factor + 0.5 + 1.0)
    assert "small: Scaled by 2.0." in source
    assert "large: Scaled by 3.0." in source


def test_constructor_weights_and_other_methods_are_those_of_one_module() -> None:
    model = load(join([variant("a", 2.0, 4, 8), variant("b", 3.0, 5, 9)])).ModelNew(by=2.0)
    assert list(model.state_dict()) == ["shift"]
    assert model.extra_repr() == "scaled"
    assert type(model).__mro__[1] is torch.nn.Module


def test_another_first_dimension_goes_to_what_is_alike_otherwise() -> None:
    model = load(join([variant("a", 2.0, 4, 8), variant("b", 3.0, 4, 9)])).ModelNew(by=0.0)
    x = torch.randn(7, 9)
    assert torch.equal(model(x), x * 3.0)


def test_what_none_was_made_for_goes_to_the_first() -> None:
    model = load(join([variant("a", 2.0, 4, 8), variant("b", 3.0, 4, 9)])).ModelNew(by=0.0)
    x = torch.randn(4, 10)
    assert torch.equal(model(x), x * 2.0)
    doubles = torch.randn(4, 9, dtype=torch.float64)
    assert torch.equal(model(doubles), doubles * 2.0)
    with pytest.raises(ValueError, match="made for 2 dimensions"):
        model(torch.randn(3))


def test_three_workloads_of_which_two_share_a_module_have_two_forwards() -> None:
    same = variant("a", 2.0, 4, 8).source
    variants = [
        Variant("a", (spec(4, 8),), same),
        variant("b", 3.0, 4, 9),
        Variant("c", (spec(16, 8),), same),
    ]
    source = join(variants)
    assert source.count("def _forward_") == 2
    assert "a; c: Scaled by 2.0." in source
    assert source.count("def scaled") == 2


GIVEN = """\
import torch


def halved(x):
    return x / 2


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.relu(halved(x))
"""


def test_a_joined_module_tells_where_the_references_own_forward_runs() -> None:
    fast = emit_as_given(GIVEN).replace("torch.relu(halved(x))", "halved(x).clamp_(min=0)")
    variants = [
        Variant("a", (spec(4, 8),), fast),
        Variant("b", (spec(4, 9),), emit_as_given(GIVEN)),
    ]
    inputs = {one.workload: one.inputs for one in variants}
    assert left_as_given(join(variants), GIVEN, inputs) == ("b",)
    assert left_as_given(join(variants[::-1]), GIVEN, inputs) == ("b",)


def test_another_forward_than_the_references_is_not_taken_for_it() -> None:
    given = SCALED.format(factor=2.0, rank=2).replace("ModelNew", "Model")
    variants = [variant("a", 3.0, 4, 8), variant("b", 2.0, 4, 9, 1)]
    inputs = {one.workload: one.inputs for one in variants}
    changed = given.replace("+ more", "- more")
    assert left_as_given(join(variants), changed, inputs) == ()


def test_what_is_no_joined_module_does_not_tell() -> None:
    one = variant("a", 2.0, 4, 8)
    given = one.source.replace("ModelNew", "Model")
    assert left_as_given(one.source, given, {"a": one.inputs}) is None
    joined = join([one, variant("b", 3.0, 4, 9)])
    assert left_as_given(joined, given, {"c": (spec(5, 5),)}) is None


def test_one_module_for_all_stays_as_it_is() -> None:
    one = variant("a", 2.0, 4, 8)
    assert join([one, Variant("b", (spec(9, 8),), one.source)]) == one.source


def test_what_modules_share_stands_once() -> None:
    one = variant("a", 2.0, 4, 8)
    other = Variant("b", (spec(4, 8, 1),), one.source.replace("!= 2", "!= 3"))
    source = join([one, other])
    assert source.count("FACTOR = 2.0") == 1
    assert source.count("def scaled") == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("float(by)", "float(by) + 1.0", "differ in more than forward"),
        ("def extra_repr", "def other_repr", "differ in more than forward"),
        ("def forward(self, x, more=0.0)", "def forward(self, x, *more)", r"\*args"),
        ("class ModelNew", "class Other", "no class ModelNew"),
    ],
)
def test_modules_that_differ_in_more_than_forward_are_not_joined(
    old: str, new: str, said: str
) -> None:
    one, other = variant("a", 2.0, 4, 8), variant("b", 3.0, 4, 9)
    changed = [one.source.replace(old, new), other.source.replace(old, new)]
    if said.startswith("differ"):
        changed[0] = one.source
    with pytest.raises(ValueError, match=said):
        join([Variant("a", one.inputs, changed[0]), Variant("b", other.inputs, changed[1])])


SOFT = "    def forward(self, x):\n        return torch.softmax(x * {scale}, -1) * x.tanh()"


def test_kernels_and_the_librarys_own_way_are_joined_and_right() -> None:
    one = build(reference(SOFT.format(scale=0.5), "torch.randn(6, 48)"), FUSED)
    other = build(reference(SOFT.format(scale=0.5), "torch.randn(4, 6, 80)"), FUSED)
    as_given = emit_as_given(reference(SOFT.format(scale=0.5), "torch.randn(9)"))
    source = join([
        Variant("matrix", tuple(map(spec_of, one.inputs)), one.source),
        Variant("batch", tuple(map(spec_of, other.inputs)), other.source),
        Variant("row", (spec(9),), as_given),
    ])  # fmt: skip
    model = load(source).ModelNew()
    for inputs in (one.inputs, other.inputs, [torch.randn(9)]):
        expected = one.model(*inputs)
        assert torch.allclose(model(*inputs), expected, atol=1e-6)

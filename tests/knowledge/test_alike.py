"""Kernels that are another one under other names, and those that only look like it."""

from dataclasses import dataclass

import pytest

from knowledge.alike import Alike
from knowledge.opgraph import Ref, TensorSpec
from knowledge.pattern import Step
from knowledge.program import Kernel, Written
from tests.patterns.workshop import build, complaints, reference

SPEC = TensorSpec(shape=(8,), dtype="float32", strides=(1,))
LAYERS = reference(
    """    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(40, 40) for _ in range(4)])
        self.last = nn.Linear(40, 40)

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return torch.tanh(self.last(x))""",
    "torch.randn(90, 40)",
)


@dataclass(frozen=True)
class Names:
    """What a kernel calls itself, what it reads, and its result."""

    kernel: str
    reads: tuple[str, ...]
    result: str


def kernel(text: str, names: Names) -> Kernel:
    return Kernel(
        name=names.kernel, source=text, signature="pppi", nodes=(names.result,),
        reads=tuple(Ref(ref=name) for name in names.reads),
        writes=(Written(ref=Ref(ref=names.result), shape="(8,)", spec=SPEC),),
    )  # fmt: skip


FIRST = Names("k_1", ("x", "max"), "add")
SECOND = Names("k_22", ("add", "min"), "add_1")
BODY = "void {k}(float* {a}, float* {b}, float* out_{c}) {{ float* {a}_row = {a}; {what} }}"


def printed(names: Names, what: str) -> Kernel:
    a, b = names.reads
    given = {"k": names.kernel, "a": a, "b": b, "c": names.result}
    return kernel(BODY.format(**given, what=what.format(**given)), names)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("out_{c}[0] = {a}_row[0] - {b}[1];", "out_{c}[0] = {a}_row[0] - {b}[1];", True),
        ("out_{c}[0] = {a}_row[0] - {b}[1];", "out_{c}[0] = {a}_row[0] - {b}[2];", False),
        ("out_{c}[0] = {a}[0] - {b}[0];", "out_{c}[0] = {b}[0] - {a}[0];", False),
        ("out_{c}[0] = {a}[0] - {b}[0];", "out_{c}[0] = {a}[0] - {a}[0];", False),
        # A function, or something in a namespace, that is called as a tensor is.
        ("out_{c}[0] = nan_max({a}[0]);", "out_{c}[0] = nan_min({a}[0]);", False),
        ("out_{c}[0] = std::max;", "out_{c}[0] = std::min;", False),
        ("const float v0 = 1; out_{c}[0] = v0;", "const float v1 = 1; out_{c}[0] = v1;", False),
    ],
)
def test_kernels_that_differ_in_the_names_of_tensors_alone(
    first: str, second: str, alike: bool
) -> None:
    found = Alike()
    one, two = printed(FIRST, first), printed(SECOND, second)
    assert found.first(one) is one
    assert (found.first(two) is one) == alike


def test_another_signature_is_another_kernel() -> None:
    found = Alike()
    one = printed(FIRST, "")
    found.first(one)
    two = printed(SECOND, "").model_copy(update={"signature": "ppdi"})
    assert found.first(two) is two


def test_the_blocks_of_a_net_share_a_kernel() -> None:
    made = build(LAYERS, (Step(pattern="matmul"),))
    assert len(made.program.kernels) == 5
    assert made.source.count(" = cpp_kernel(") == 2
    assert "_matmul_3 = _matmul_0\n" in made.source
    assert complaints(made) == []

"""Image networks in channels-last memory: exact on random layers and nets, and what stays plain."""

import copy

import pytest
import torch

from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.patterns.channels_last.layouts import TO_CHANNELS_LAST, TO_ROW_MAJOR
from knowledge.patterns.channels_last.rewrite import POOL
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, Built, build, complaints, reference

NAME = "channels_last"


def rewritten(source: str, **parameters: str) -> Built:
    """The op in channels-last memory, with what is left over fused where there is any."""
    alone = (Step(pattern=NAME, parameters={**parameters}),)
    found = build(source, alone)
    rest = load_pattern("row_loop").propose(found.program, SITUATION)
    if isinstance(rest, Refusal):
        return found
    return build(source, (*alone, Step(pattern="row_loop")))


def net(layers: str, forward: str, inputs: str, evaluated: bool = True) -> str:
    """A network: statements that make its layers, its forward as one expression of x."""
    mode = "        self.eval()\n" if evaluated else ""
    made = "".join(f"        {line}\n" for line in layers.split("; "))
    return reference(
        f"    def __init__(self):\n        super().__init__()\n{made}{mode}\n"
        f"    def forward(self, x):\n        return {forward}",
        inputs,
    )


STEM = net(
    "self.c = nn.Conv2d(3, 20, 5, 2, 2, bias=False); self.n = nn.BatchNorm2d(20); "
    "self.n.running_mean.normal_(); self.n.running_var.uniform_(0.5, 2)",
    "F.max_pool2d(F.relu(self.n(self.c(x))), 3, 2, 1)",
    "torch.randn(3, 3, 23, 30)",
)
RESIDUAL = net(
    "self.a = nn.Conv2d(17, 17, 3, padding=1); self.b = nn.Conv2d(17, 17, 1); "
    "self.n = nn.BatchNorm2d(17)",
    "F.relu(self.n(self.b(F.silu(self.a(x)))) + x).mean((2, 3))",
    "torch.randn(4, 17, 9, 11)",
)
TRAINED = net(
    "self.a = nn.Conv2d(8, 24, 1, bias=False); self.n = nn.BatchNorm2d(24); "
    "self.d = nn.Conv2d(24, 24, 3, 2, 1, groups=24, bias=False); "
    "self.m = nn.BatchNorm2d(24, momentum=0.3, affine=False)",
    "self.m(self.d(F.relu6(self.n(self.a(x)))))",
    "torch.randn(5, 8, 12, 10)",
    evaluated=False,
)
JOINED = reference(
    """    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(6, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 8, 3, padding=1)
        self.s = nn.Conv2d(20, 20, 1)
        self.eval()

    def forward(self, x):
        y = F.hardswish(self.a(x))
        z = torch.cat([y, self.b(y)], 1)
        z = z * torch.sigmoid(self.s(F.adaptive_avg_pool2d(z, 1)))
        return F.interpolate(F.avg_pool2d(z, 2), scale_factor=2.0)""",
    "torch.randn(2, 6, 14, 12)",
)


CONVNEXT = reference(
    """    def __init__(self):
        super().__init__()
        self.d = nn.Conv2d(24, 24, 7, padding=3, groups=24)
        self.n = nn.LayerNorm(24)
        self.up = nn.Linear(24, 96)
        self.down = nn.Linear(96, 24)
        self.gain = nn.Parameter(torch.rand(24))
        self.e = nn.Conv2d(24, 8, 3)

    def forward(self, x):
        y = self.n(self.d(x).permute(0, 2, 3, 1))
        y = self.gain * self.down(F.gelu(self.up(y)))
        return self.e(x + y.permute(0, 3, 1, 2))""",
    "torch.randn(2, 24, 11, 13)",
)
PATCHES = reference(
    """    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 32, 4, 4)
        self.n = nn.LayerNorm(32)

    def forward(self, x):
        return self.n(self.c(x).flatten(2).transpose(1, 2))""",
    "torch.randn(2, 3, 24, 32)",
)


@pytest.mark.parametrize(("source", "moves"), [(CONVNEXT, 1), (PATCHES, 1)])
def test_what_a_model_turns_itself_is_not_turned_back(source: str, moves: int) -> None:
    built = rewritten(source, own="none")
    assert complaints(built) == []
    targets = [node.target for node in built.program.graph.calls]
    # What comes in and, of the first one, what goes out.
    assert targets.count(TO_CHANNELS_LAST) <= 1
    assert targets.count(TO_ROW_MAJOR) <= moves


@pytest.mark.parametrize(
    ("source", "own"),
    [
        (STEM, "winograd"),
        (RESIDUAL, "direct"),
        (RESIDUAL, "none"),
        (TRAINED, "few"),
        (JOINED, "none"),
    ],
)
def test_a_network_is_exact_for_every_batch_and_layout(source: str, own: str) -> None:
    built = rewritten(source, own=own)
    assert complaints(built) == []
    (x,) = built.inputs
    assert complaints(built, [torch.randn(1 + x.shape[0], *x.shape[1:])]) == []
    assert complaints(built, [x.transpose(2, 3).contiguous().transpose(2, 3)]) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_come_out_where_they_should(value: float) -> None:
    built = rewritten(STEM, own="winograd")
    x = built.inputs[0].clone()
    x[0, 0, 4, 5] = value
    assert complaints(built, [x]) == []


def test_results_are_row_major_as_the_reference_returns_them() -> None:
    built = rewritten(STEM)
    with torch.no_grad():
        ours, theirs = built.candidate()(*built.inputs), built.model(*built.inputs)
    assert ours.stride() == theirs.stride()


def test_weights_may_change_between_calls() -> None:
    built = rewritten(STEM)
    changed = copy.deepcopy(built.model)
    with torch.no_grad():
        for tensor in changed.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    candidate = built.candidate()
    with torch.no_grad():
        candidate(*built.inputs)
        for mine, other in zip(
            candidate.state_dict().values(), changed.state_dict().values(), strict=True
        ):
            mine.copy_(other)
        ours, theirs = candidate(*built.inputs), changed(*built.inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


DENSE = net(
    "self.a = nn.Conv2d(32, 48, 3, padding=2); self.b = nn.Conv2d(48, 33, 3, bias=False)",
    "F.relu(self.b(F.relu(self.a(x))))",
    "torch.randn(2, 32, 11, 14)",
)


@pytest.mark.parametrize("own", ["winograd", "direct"])
def test_layers_of_our_own_are_exact(own: str) -> None:
    built = rewritten(DENSE, own=own)
    assert complaints(built) == []
    shape = built.inputs[0].shape
    assert complaints(built, [1e3 + torch.randn(shape)]) == []
    assert complaints(built, [torch.randn(shape).exp() * 1e-20]) == []


@pytest.mark.parametrize(
    ("layer", "own"),
    [("32, 48, 3", "winograd"), ("32, 48, 3", "direct"), ("32, 32, 3, groups=32", "direct")],
)
def test_a_bias_is_rounded_to_once(layer: str, own: str) -> None:
    """What a norm leaves where the bias is large and products are tiny hangs on their low bits."""
    source = net(f"self.a = nn.Conv2d({layer})", "F.relu(self.a(x))", "torch.randn(2, 32, 11, 14)")
    built = rewritten(source, own=own)
    assert not built.program.library_calls
    image = 1e-6 * built.inputs[0]
    with torch.no_grad():
        ours = built.candidate()(image).double()
        exact = built.model.double()(image.double())
    assert ((ours - exact).abs() <= 2.0**-24 * exact.abs() + 1e-11).all()


def test_channels_filtered_on_their_own_are_exact() -> None:
    source = net(
        "self.a = nn.Conv2d(21, 21, 5, 2, 2, groups=21); "
        "self.b = nn.Conv2d(21, 21, (2, 3), (1, 2), (0, 1), groups=21, bias=False); "
        "self.c = nn.Conv2d(21, 21, 3, padding='same', dilation=2, groups=21)",
        "self.c(F.relu6(self.b(F.hardswish(self.a(x)))))",
        "torch.randn(2, 21, 19, 23)",
    )
    built = rewritten(source)
    assert len(built.program.library_calls) == 0
    assert complaints(built) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_winograd_keeps_values_that_are_not_finite_where_they_belong(value: float) -> None:
    built = rewritten(DENSE, own="winograd")
    x = built.inputs[0].clone()
    x[1, 3, 5, 6] = value
    assert complaints(built, [x]) == []
    with torch.no_grad():
        weight = built.model.get_parameter("b.weight")
        kept = weight.clone()
        weight[3, 2, 1, 1] = value
        found = complaints(built)
        weight.copy_(kept)
    assert found == []


POOLS = (
    "F.max_pool2d(y, (3, 2), (2, 1), (1, 0), (2, 3))",
    "F.max_pool2d(y, 3, 2, 1, ceil_mode=True)",
    "F.avg_pool2d(y, (3, 4), 2, (1, 2))",
    "F.avg_pool2d(y, 3, 2, 1, ceil_mode=True, count_include_pad=False)",
    "F.adaptive_avg_pool2d(y, (3, 5))",
    "F.adaptive_max_pool2d(y, 4)",
    "y.mean((2, 3), keepdim=True)",
)


def test_pooling_is_exact() -> None:
    source = reference(
        "    def __init__(self):\n        super().__init__()\n"
        "        self.c = nn.Conv2d(3, 37, 2)\n\n"
        "    def forward(self, x):\n        y = self.c(x)\n"
        f"        return {', '.join(POOLS)}",
        "torch.randn(2, 3, 12, 15)",
    )
    built = rewritten(source)
    assert _targets(built).count(POOL) == len(POOLS)
    assert complaints(built) == []


def _targets(built: Built) -> list[str]:
    return [node.target for node in built.program.graph.calls]


def test_what_layers_alone_want_is_made_for_them() -> None:
    source = net(
        "self.c = nn.Conv2d(9, 4, 3)",
        "self.c(torch.cat([F.interpolate(x, scale_factor=2, mode='bilinear'), y], 1))",
        "torch.randn(2, 6, 5, 4), torch.randn(2, 3, 10, 8)",
    ).replace("self, x)", "self, x, y)")
    built = rewritten(source)
    moved = [node for node in built.program.graph.calls if node.target == TO_CHANNELS_LAST]
    assert [node.spec.shape for node in moved] == [(2, 5, 4, 6), (2, 10, 8, 3)]
    assert complaints(built) == []


def test_layers_that_follow_each_other_move_their_images_once() -> None:
    targets = _targets(rewritten(RESIDUAL))
    assert targets.count(TO_CHANNELS_LAST) == 1
    assert TO_ROW_MAJOR not in targets


def test_a_layer_named_alone_leaves_the_others_as_they_are() -> None:
    built = rewritten(JOINED, only="conv2d")
    assert complaints(built) == []
    assert TO_ROW_MAJOR in _targets(built)


@pytest.mark.parametrize("layer", ["nn.Conv1d(9, 4, 3)", "nn.Conv2d(3, 4, 3)"])
def test_what_holds_no_image_layer_is_refused(layer: str) -> None:
    source = net(f"self.c = {layer}", "self.c(x)", "torch.randn(3, 9, 9)")
    graph = build(source, ()).graph
    answer = load_pattern(NAME).propose(Program.of(graph, source), SITUATION)
    assert isinstance(answer, Refusal)


def test_an_unknown_tunable_is_an_error() -> None:
    program = Program.of(rewritten(STEM).graph, STEM)
    with pytest.raises(ValueError, match="unknown tunables"):
        load_pattern("channels_last").apply(program, Step(pattern=NAME, parameters={"x": 1}))

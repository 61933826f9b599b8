"""Convolutions of every shape through own kernels, with what follows them, against float64."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.opgraph import line_of
from knowledge.pattern import Refusal, Situation, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, Built, build, complaints, function, reference
from tools.backends.cpp.loader import cpp_kernel

OWN = (Step(pattern="convolution"),)
FAST = settings(max_examples=6, suppress_health_check=list(HealthCheck))
# Rank, filters, channels of a group, window, and further arguments.
WINDOWS = {
    "3x3": (2, 30, 5, (3, 3), "padding=1"),
    "valid": (2, 16, 3, (3, 2), ""),
    "1x1": (2, 20, 40, (1, 1), ""),
    "strided": (2, 13, 3, (7, 7), "stride=2, padding=3"),
    "strided_1x1": (2, 9, 6, (1, 1), "stride=2"),
    "same": (2, 6, 4, (4, 3), "padding='same', dilation=(1, 2)"),
    "grouped": (2, 12, 4, (3, 3), "padding=1, groups=3"),
    "deep": (2, 7, 200, (3, 3), "padding=1"),
    "uneven": (2, 5, 2, (5, 3), "stride=(1, 3), padding=(0, 4), dilation=(2, 3)"),
    "depthwise": (2, 7, 1, (3, 3), "padding=1, groups=7"),
    "depthwise_strided": (2, 10, 1, (5, 3), "stride=2, padding=2, groups=5"),
    "1d": (1, 17, 6, (15,), "padding=7"),
    "1d_depthwise": (1, 4, 1, (4,), "padding='same', groups=4"),
    "3d": (3, 8, 3, (3, 3, 3), "padding=1, stride=(1, 2, 1)"),
    "3d_depthwise": (3, 4, 1, (2, 3, 3), "padding=(0, 1, 1), groups=4"),
}
TAILS = {
    "pointwise": "F.gelu(y * 1.5) + 0.25",
    "residual": "torch.relu(y) + x",
    "instance_norm": "F.instance_norm(torch.tanh(y))",
    "group_norm": "F.group_norm(F.silu(y), 3)",
    "softmax": "torch.softmax(y, 1)",
    "pool": "torch.sigmoid(y).mean((2, 3), keepdim=True)",
    "gate": "y * torch.sigmoid(y.mean((2, 3), keepdim=True))",
    "kept": "(torch.relu(y), y)",
}


def windowed(name: str) -> str:
    """A reference that convolves, with weight and bias as inputs, so that sizes are free."""
    rank, filters, channels, window, more = WINDOWS[name]
    groups = int(more.rpartition("groups=")[2]) if "groups" in more else 1
    image = (7, groups * channels, *(23, 19, 21)[:rank])
    inputs = (
        f"torch.randn{image}, torch.randn{(filters, channels, *window)}, torch.randn({filters})"
    )
    return function("x, w, b", f"F.conv{rank}d(x, w, b, {more})", inputs)


def followed(name: str, groups: int = 1, size: tuple[int, ...] = (7, 12, 17, 19)) -> str:
    """A layer of 12 filters and what is done to its result."""
    body = f"""    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 3, padding=1, groups={groups})

    def forward(self, x):
        y = self.conv(x)
        return {TAILS[name]}"""
    return reference(body, f"torch.randn{size}")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Every kernel, compiled side by side."""
    sources = [windowed(name) for name in WINDOWS]
    sources += [followed(name, groups) for name in TAILS for groups in (1, 12)]
    kernels = [kernel for one in sources for kernel in build(one, OWN).program.kernels]
    flags = ("-fno-unsafe-math-optimizations", "-fno-trapping-math", "-fno-thread-jumps")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda k: cpp_kernel(k.source, k.name, k.signature, flags), kernels))


def laid_out(shape: tuple[int, ...], layout: str) -> torch.Tensor:
    """Random numbers of a shape, dense or not."""
    if layout == "transposed":
        return torch.randn(*shape[:-2], shape[-1], shape[-2]).transpose(-1, -2)
    if layout == "sliced":
        return torch.randn(*shape[:-1], 2 * shape[-1] + 1)[..., 1::2]
    return torch.randn(shape)


@pytest.mark.parametrize("name", WINDOWS)
@FAST
@given(
    st.integers(1, 9), st.tuples(*[st.integers(14, 40)] * 2),
    st.sampled_from(["dense", "transposed", "sliced"]),
)  # fmt: skip
def test_convolution_is_as_right_as_the_library(
    name: str, batch: int, sizes: tuple[int, int], layout: str
) -> None:
    built = build(windowed(name), OWN)
    image, weight, bias = built.inputs
    rank = image.dim() - 2
    shape = (batch, image.shape[1], *(5, *sizes)[3 - rank :])
    assert complaints(built, [laid_out(shape, layout), weight, bias]) == []
    assert not built.program.library_calls


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("3x3", (1, 1)), ("valid", (3, 2)), ("1x1", (1, 1)), ("strided_1x1", (1, 2)), ("1x1", (7, 7)),
     ("depthwise", (1, 40)), ("depthwise", (5, 9)), ("depthwise", (9, 7)),
     ("3d_depthwise", (3, 6, 35)), ("same", (2, 1)), ("strided", (1, 1)), ("valid", (3, 300))],
)  # fmt: skip
def test_images_smaller_than_a_register_tile(name: str, sizes: tuple[int, ...]) -> None:
    built = build(windowed(name), OWN)
    image = torch.randn(2, built.inputs[0].shape[1], *sizes)
    assert complaints(built, [image, *built.inputs[1:]]) == []


@pytest.mark.parametrize("batch", [7, 1])
@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize("name", TAILS)
def test_what_follows_is_done_by_the_same_kernel(name: str, groups: int, batch: int) -> None:
    built = build(followed(name, groups), OWN)
    (kernel,) = built.program.kernels
    assert len(kernel.nodes) > 1
    assert not built.program.library_calls
    assert complaints(built, [torch.randn(batch, 12, 17, 19)]) == []


@pytest.mark.parametrize("name", ["3x3", "strided", "1x1", "depthwise", "deep"])
def test_nan_and_infinity_come_out_where_the_library_has_them(name: str) -> None:
    built = build(windowed(name), OWN)
    image = torch.randn_like(built.inputs[0])
    image[0, 0, 0, 0], image[1, 1, 5, 18], image[2, -1, 22, 3] = float("nan"), float("inf"), -1e38
    assert complaints(built, [image, *built.inputs[1:]]) == []


@pytest.mark.parametrize("name", WINDOWS)
def test_a_bias_is_rounded_to_once(name: str) -> None:
    """What a norm leaves where the bias is large and products are tiny hangs on their low bits."""
    built = build(windowed(name), OWN)
    given = [1e-6 * built.inputs[0], *built.inputs[1:]]
    with torch.no_grad():
        ours = built.candidate()(*given).double()
        exact = built.model.double()(*(tensor.double() for tensor in given))
    assert ((ours - exact).abs() <= 2.0**-24 * exact.abs() + 1e-11).all()


def test_an_empty_batch_makes_an_empty_result() -> None:
    built = build(windowed("3x3"), OWN)
    assert complaints(built, [torch.randn(0, 5, 9, 9), *built.inputs[1:]]) == []


# Images that are cut into blocks: whole slices, some rows of one, some columns of one.
LARGE = {
    "3x3": ((1, 5, 300, 310), (40, 5, 90, 80), (3, 5, 2, 9000)),
    "valid": ((1, 3, 121, 130), (2, 3, 3, 5000)),
    "1x1": ((2, 40, 61, 67), (1, 40, 4000, 1)),
    "strided": ((1, 3, 230, 251),),
    "strided_1x1": ((1, 6, 255, 121),),
    "uneven": ((1, 2, 130, 1000),),
    "grouped": ((1, 12, 83, 190),),
    "deep": ((1, 200, 41, 33),),
    "1d": ((2, 6, 30001),),
    "3d": ((1, 3, 9, 61, 72), (1, 3, 40, 7, 9)),
    "depthwise": ((1, 7, 200, 210),),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_images_are_cut_and_taken_a_few_at_a_time(name: str) -> None:
    built = build(windowed(name), OWN)
    for shape in LARGE[name]:
        assert complaints(built, [torch.randn(shape), *built.inputs[1:]]) == []


@pytest.mark.parametrize("name", TAILS)
def test_what_follows_is_done_to_images_that_are_cut(name: str) -> None:
    built = build(followed(name, size=(3, 12, 130, 120)), OWN)
    for batch in (1, 4):
        assert complaints(built, [torch.randn(batch, 12, 130, 120)]) == []


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_results_are_the_same_to_the_bit_whatever_the_number_of_threads() -> None:
    built = build(followed("group_norm"), OWN)
    candidate, results = built.candidate(), set()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        with torch.no_grad():
            results.add(candidate(built.inputs[0]).sum().item())
    assert len(results) == 1


def test_weights_that_change_after_construction_change_the_result() -> None:
    built = build(followed("pointwise"), OWN)
    candidate = built.candidate()
    with torch.no_grad():
        before = candidate(*built.inputs)
        candidate.get_parameter("conv.weight").zero_()
        after = candidate(*built.inputs)
    assert not torch.equal(before, after)
    assert after.std(dim=(0, 2, 3)).max() < 1e-6


def test_sizes_that_a_kernel_was_not_made_for_are_refused_in_a_sentence() -> None:
    candidate = build(windowed("valid"), OWN).candidate()
    weight, bias = torch.randn(16, 3, 3, 2), torch.randn(16)
    with pytest.raises(ValueError, match="larger than the padded image"):
        candidate(torch.randn(1, 3, 2, 9), weight, bias)
    with pytest.raises(ValueError, match="takes 3 channels"):
        candidate(torch.randn(1, 4, 9, 9), weight, bias)
    with pytest.raises(ValueError, match="a weight of shape"):
        candidate(torch.randn(1, 3, 9, 9), torch.randn(16, 3, 2, 2), bias)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (function("x", "torch.relu(x)", "torch.randn(3)"), "has no convolution"),
        (
            function("x, w", "F.conv2d(x, w)", "torch.randn(3, 9, 9), torch.randn(2, 3, 3, 3)"),
            "has no batch dimension",
        ),
        (
            function(
                "x, w", "F.conv1d(x, w)",
                "torch.randn(2, 3, 9).double(), torch.randn(2, 3, 3).double()",
            ),
            "is not in float32",
        ),
        (
            function(
                "x, w", "F.conv_transpose2d(x, w)",
                "torch.randn(2, 3, 9, 9), torch.randn(3, 2, 3, 3)",
            ),
            "has no convolution",
        ),
    ],
)  # fmt: skip
def test_what_it_can_not_take_is_refused_with_the_reason(source: str, words: str) -> None:
    program = build(source, ()).program
    answer = load_pattern("convolution").propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    assert words in answer.reason
    with pytest.raises(ValueError, match="no convolution to take"):
        load_pattern("convolution").apply(program, OWN[0])


TWO = reference(
    """    def __init__(self):
        super().__init__()
        self.few = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.many = nn.Conv2d(3, 512, 3, padding=1)
        self.more = nn.Conv2d(512, 512, 3, stride=4, padding=1)

    def forward(self, x):
        return F.relu(self.more(torch.relu(self.many(self.few(x)))))""",
    "torch.randn(4, 3, 32, 32)",
)


def proposals_of(built: Built, situation: Situation = SITUATION) -> list[Program]:
    answer = load_pattern("convolution").propose(built.program, situation)
    assert isinstance(answer, list)
    return [load_pattern("convolution").apply(built.program, one.step) for one in answer]


def test_the_library_keeps_what_it_does_faster_in_the_first_proposal_alone() -> None:
    built = build(TWO, ())
    calls = [node for node in built.graph.calls if "conv" in node.target]
    times = {line_of(node): 1e-6 if node.name == "conv2d_2" else 100.0 for node in calls}
    situation = SITUATION.model_copy(update={"call_ms": times})
    some, every, apart = proposals_of(built, situation)
    assert [node.name for node in some.library_calls if "conv" in node.target] == ["conv2d_2"]
    assert not [node for node in every.library_calls if "conv" in node.target]
    assert all(len(kernel.nodes) == 1 for kernel in apart.kernels)


def test_convolutions_of_a_network_follow_each_other() -> None:
    built = build(TWO, OWN)
    assert [len(kernel.nodes) for kernel in built.program.kernels] == [1, 2, 2]
    assert complaints(built) == []


def test_convolutions_are_taken_once_and_by_name() -> None:
    program = build(TWO, ()).program
    pattern = load_pattern("convolution")
    first = pattern.apply(
        program, Step(pattern="convolution", parameters={"only": "conv2d_1,conv2d_2"})
    )
    assert [kernel.nodes[0] for kernel in first.kernels] == ["conv2d_1", "conv2d_2"]
    second = pattern.apply(first, OWN[0])
    assert [kernel.nodes[0] for kernel in second.kernels] == ["conv2d_1", "conv2d_2", "conv2d"]
    assert len({kernel.name for kernel in second.kernels}) == 3
    with pytest.raises(ValueError, match="no convolution to take"):
        pattern.apply(second, OWN[0])


def test_unknown_tunable_is_an_error() -> None:
    step = Step(pattern="convolution", parameters={"engine": "magic"})
    with pytest.raises(ValueError, match="unknown tunables"):
        load_pattern("convolution").apply(build(TWO, ()).program, step)

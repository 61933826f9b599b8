"""Convolutions printed as Triton: interpreted against float64, and compiled for three generations."""

import pytest

from knowledge.device import load_devices
from knowledge.emit import emit
from knowledge.pattern import Parameter, Refusal, Situation, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, build, function, reference
from tools.backends.triton.compile import Compiled, CompiledKernel, compile_candidates
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

pytest.importorskip("triton")

DEVICES = [load_devices()[name] for name in ("a100-sxm4-80gb", "h100-sxm5", "b200")]
# Rank, batch, image, filters, channels of a group, window, further arguments; a path each.
WINDOWS = {
    "by_channels": (2, 2, (9, 7), 40, 32, (3, 3), "padding=1"),
    "by_channels_uneven": (2, 3, (6, 5), 70, 72, (2, 3), "padding='same', dilation=(2, 1)"),
    "plain": (2, 2, (5, 7), 20, 40, (1, 1), ""),
    "plain_strided": (2, 2, (5, 7), 17, 33, (1, 1), "stride=2"),
    "stem": (2, 2, (17, 19), 64, 3, (7, 7), "stride=2, padding=3"),
    "stride_3": (2, 3, (16, 13), 16, 5, (5, 3), "stride=(1, 3), padding=(0, 4), dilation=(2, 3)"),
    "grouped": (2, 2, (9, 11), 6, 4, (3, 3), "padding=1, groups=3"),
    "grouped_dense": (2, 2, (6, 6), 64, 32, (3, 3), "padding=1, groups=2"),
    "depthwise": (2, 2, (15, 10), 7, 1, (3, 3), "padding=1, groups=7"),
    "depthwise_large": (2, 1, (12, 12), 10, 1, (9, 8), "padding=4, groups=5"),
    "1d": (1, 3, (50,), 17, 6, (15,), "padding=7"),
    "1d_long": (1, 1, (400,), 4, 1, (4,), "padding='same', groups=4"),
    "3d": (3, 1, (5, 6, 7), 8, 3, (3, 3, 3), "padding=1, stride=(1, 2, 1)"),
    "3d_channels": (3, 1, (4, 5, 6), 16, 16, (2, 3, 1), "padding=(1, 0, 0)"),
}
TAILS = {
    "scaled": "x + 0.1 * F.gelu(y)",
    "channelwise": "torch.clamp(y * self.scale, -1, 1) * x[:, :1] + x.mean((2, 3), keepdim=True)",
    "kept": "(torch.relu(y), y)",
    "batch_norm": "F.relu6(self.norm(y))",
    "softmax_after": "torch.softmax(torch.tanh(y), 1)",
    "positions": "F.hardswish(y) + self.place",
}


def windowed(name: str, kind: str = "") -> str:
    """A reference that convolves, with weight and bias as inputs."""
    rank, batch, image, filters, channels, window, more = WINDOWS[name]
    groups = int(more.rpartition("groups=")[2]) if "groups" in more else 1
    depth = channels * int(__import__("math").prod(window))
    made = f"torch.randn{(batch, groups * channels, *image)}"
    inputs = ", ".join(
        f"({one}){kind}"
        for one in (
            made, f"torch.randn{(filters, channels, *window)} / {depth ** 0.5}",
            f"torch.randn({filters})",
        )
    )  # fmt: skip
    return function("x, w, b", f"F.conv{rank}d(x, w, b, {more})", inputs)


def followed(name: str) -> str:
    """A layer and what is done to its result."""
    body = f"""    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16).eval()
        self.scale = nn.Parameter(torch.randn(16, 1, 1))
        self.place = nn.Parameter(torch.randn(9, 11))

    def forward(self, x):
        y = self.conv(x)
        return {TAILS[name]}"""
    return reference(body, "torch.randn(2, 16, 9, 11)")


def in_triton(source: str, parameters: dict[str, Parameter] | None = None) -> str:
    """A reference whose convolutions, and what is left of it, are Triton."""
    graph = build(source, ()).graph
    program = Program.of(graph, source, "triton")
    step = Step(pattern="convolution", parameters=parameters or {})
    program = load_pattern("convolution").apply(program, step)
    assert {kernel.language for kernel in program.kernels} == {"triton"}
    if program.library_calls:
        program = load_pattern("row_loop").apply(program, Step(pattern="row_loop"))
    assert not program.library_calls
    return emit(program)


def checked(given: dict[str, tuple[str, dict[str, Parameter]]]) -> dict[str, object]:
    """What is wrong with each candidate; all run in one interpreter."""
    pairs = [
        Candidate(candidate=in_triton(source, parameters), reference=source)
        for source, parameters in given.values()
    ]
    answers = interpret(pairs, 500.0)
    return {
        name: answer
        for name, answer in zip(given, answers, strict=True)
        if answer != Interpreted(complaints=())
    }


def test_windows_of_every_form_and_shape_equal_float64() -> None:
    assert checked({name: (windowed(name), {}) for name in WINDOWS}) == {}

"""Convolutions printed as Triton, and what follows them: interpreted against float64."""

from math import prod

import pytest

from knowledge.pattern import Parameter
from tests.patterns.triton_workshop import complaints, in_triton
from tests.patterns.workshop import function, reference

pytest.importorskip("triton")

NAME = "convolution"
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
MANY_GROUPS = function(
    "x, w", "F.conv2d(x, w, groups=65536)", "torch.ones(1, 65536, 2, 2), torch.ones(65536, 1, 1, 1)"
)
# A form and a kind of index each; `slow` runs the rest.
TELLING = ("by_channels_uneven", "plain_strided", "stride_3", "grouped", "depthwise", "3d")
SETTINGS: tuple[dict[str, Parameter], ...] = (
    {"form": "direct"},
    {"form": "window", "depth": 16, "precision": "ieee"},
    {"form": "channels", "filters": 64, "places": 32, "warps": 8, "stages": 2},
)
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
    depth = channels * prod(window)
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


def test_windows_of_every_form_equal_float64() -> None:
    assert complaints({name: windowed(name) for name in TELLING}, NAME) == {}


@pytest.mark.slow
def test_windows_of_every_shape_equal_float64() -> None:
    sources = {name: windowed(name) for name in WINDOWS if name not in TELLING}
    sources |= {f"{name}_half": windowed(name, ".half()") for name in ("by_channels", "depthwise")}
    assert complaints(sources, NAME) == {}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_tunable_keeps_the_result(settings: dict[str, Parameter]) -> None:
    names = ("by_channels", "stride_3", "grouped")
    assert complaints({name: windowed(name) for name in names}, NAME, settings) == {}


def test_what_follows_is_done_on_the_tile() -> None:
    assert complaints({name: followed(name) for name in TAILS}, NAME) == {}


def test_more_groups_than_a_grid_has_across_are_counted_along_it() -> None:
    text = in_triton(MANY_GROUPS, NAME)
    assert "group = tl.program_id(0) % 65536" in text
    assert "tl.program_id(1)" not in text
    assert "* 65536,)](" in text

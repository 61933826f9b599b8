"""Transposed convolutions printed as Triton: interpreted against float64."""

import pytest

from tests.patterns.triton_workshop import complaints
from tests.patterns.workshop import function, reference

pytest.importorskip("triton")

NAME = "transposed_convolution"
# Rank, channels and filters of a group, groups, window, further arguments.
WINDOWS = {
    "stride 2": (2, 32, 20, 1, (3, 3), "stride=2, padding=1, output_padding=1"),
    "groups": (2, 16, 5, 2, (4, 4), "stride=2, padding=1"),
    "stride 3x1": (2, 18, 17, 1, (2, 5), "stride=(3, 1), padding=(0, 7), dilation=(2, 3)"),
    "common factor": (2, 24, 16, 1, (3, 2), "stride=(4, 2), padding=2, dilation=2"),
    "few channels": (2, 3, 5, 1, (4, 4), "stride=2, padding=1"),
    "line": (1, 40, 6, 1, (9,), "stride=4, padding=3, output_padding=2"),
    "gaps": (1, 2, 3, 3, (2,), "stride=5, output_padding=4"),
    "volume": (3, 6, 5, 1, (3, 2, 4), "stride=(2, 1, 3), padding=(1, 0, 2)"),
}


def windowed(name: str) -> str:
    """A reference whose weight and bias are inputs."""
    rank, channels, filters, groups, window, more = WINDOWS[name]
    spatial = (4, 5, 3)[:rank] if rank > 1 else (11,)
    inputs = (
        f"torch.randn{(2, channels * groups, *spatial)}, "
        f"torch.randn{(channels * groups, filters, *window)}, torch.randn({filters * groups})"
    )
    call = f"F.conv_transpose{rank}d(x, w, b, {more}, groups={groups})"
    return function("x, w, b", call, inputs)


def followed(tail: str) -> str:
    """An upsampling layer and what is done to its result."""
    body = f"""    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1)
        self.bias = nn.Parameter(torch.randn(16, 1, 1))

    def forward(self, x, skip):
        y = self.up(x)
        return {tail}"""
    return reference(body, "torch.randn(2, 32, 5, 6), torch.randn(2, 16, 10, 12)")


def test_windows_of_every_phase_equal_float64() -> None:
    sources = {name: windowed(name) for name in WINDOWS}
    sources["skip"] = followed("F.silu(y * 2 + self.bias) + skip")
    sources["softmax"] = followed("torch.softmax(torch.tanh(y), 1) + skip")
    assert complaints(sources, NAME) == {}

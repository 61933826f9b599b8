"""What is assigned to a part of a tensor, or where a mask says, is fused with what is around it."""

import pytest

from tests.patterns.workshop import FUSED, build, complaints, reference

BODY = """\
    def forward(self, x, y):
        {lines}
        return {result}"""
SMALL = "torch.randn(6, 20), torch.randn(6, 20)"

# What is assigned, what is returned, and the inputs.
ASSIGNED = {
    "a part of zeros": (
        "out = torch.zeros_like(x); out[:, :7] = torch.exp(x[:, :7])", "out * y", SMALL,
    ),
    "all parts of what was empty": (
        "out = torch.empty_like(x); out[:, :7] = y[:, 13:]; out[:, 7:] = x[:, 7:] * 2", "out",
        SMALL,
    ),
    "a new tensor": (
        "out = torch.empty(6, 20); out[:2] = y[:2] + 1; out[2:] = x[2:]", "out", SMALL,
    ),
    "a number in a part": ("z = x * 2; z[:, 3:5] = 0.0", "z + y", SMALL),
    "a row, broadcast": ("z = torch.exp(x); z[1:4] = y[0]", "z", SMALL),
    "one row": ("z = torch.exp(x); z[2] = y[3] * 2", "z", SMALL),
    "another type": (
        "z = torch.exp(x); z[:, :4] = y[:, :4].long()", "z",
        "torch.randn(6, 20), torch.randn(6, 20) * 9",
    ),
    "halves that are rounded": (
        "z = x * 2; z[:, :4] = y[:, :4].float().exp()", "z.float() * 3",
        "torch.randn(6, 20).half(), torch.randn(6, 20).half()",
    ),
    "a mask": ("s = x * 2; s[y > 0] = -1e9", "torch.softmax(s, -1)", SMALL),
    "a mask over rows": ("s = x * 2; s[y[:, 0] > 0] = 5", "s.exp()", SMALL),
    "a mask behind a dimension": (
        "s = x * 2; s[:, y[0] > 0] = 5", "s.exp()",
        "torch.randn(4, 6, 20), torch.randn(4, 6, 20)",
    ),
    "a mask that is given": (
        "s = x * 2; s[y] = 0", "torch.softmax(s, -1)", "torch.randn(6, 20), torch.randn(6, 20) > 0",
    ),
    "whole numbers": (
        "s = x + 1; s[y > 3] = 0", "s * 2",
        "torch.arange(120).reshape(6, 20), torch.arange(120).reshape(6, 20) % 7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASSIGNED)
def test_an_assignment_is_one_loop_with_what_is_around_it(name: str) -> None:
    lines, result, inputs = ASSIGNED[name]
    lines = lines.replace("; ", "\n        ")
    built = build(reference(BODY.format(lines=lines, result=result), inputs), FUSED)
    assert complaints(built) == []
    assert len(built.program.kernels) == 1
    views = ("slice", "select", "lift")
    left = [node.target for node in built.program.library_calls]
    assert [target for target in left if not any(view in target for view in views)] == []


def test_numbers_written_by_an_index_are_the_librarys() -> None:
    body = BODY.format(lines="z = torch.exp(x); z[y] = 0.0".replace("; ", "\n        "), result="z")
    built = build(reference(body, "torch.randn(6, 20), torch.tensor([1, 4])"), FUSED)
    assert [node.target.split(".")[1] for node in built.program.library_calls][-1:] == ["index_put"]
    assert complaints(built) == []

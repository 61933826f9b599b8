"""A worn kernel is at work where it was verified, and out of the way for any other call."""

from pathlib import Path

import torch

from tests.tools.wear.kernels import DOUBLE, Head, calls
from tools.wear import load_kernel, wear


def double(x: torch.Tensor, factor: int = 2) -> torch.Tensor:
    """Documented."""
    return x * factor


def test_elsewhere_the_original_does_the_work(worn: tuple[Head, Head, torch.nn.Module]) -> None:
    fast, head, kernel = worn
    with torch.no_grad():
        for x in (torch.randn(7, 4), torch.randn(4, 8).t(), torch.randn(8, 4)[None]):
            torch.testing.assert_close(fast(x), head(x))
        fast.eval()
        fast(torch.randn(8, 4))
    assert calls(kernel) == 0


def test_a_function_keeps_its_name_and_its_ways_of_being_called(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE)
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.randn(4)
    fast = wear(double, kernel, (x, 2))
    assert (fast.__name__, fast.__doc__) == ("double", "Documented.")
    assert torch.equal(fast(x, 2), x * 2)
    assert torch.equal(fast(x=x, factor=2), x * 2)
    assert torch.equal(fast(factor=2, x=x), x * 2)
    assert calls(kernel) == 3
    # A number is part of what was verified: with another one the original works.
    assert torch.equal(fast(x, 3), x * 3)
    assert torch.equal(fast(x), x * 2)
    assert calls(kernel) == 3


def test_two_kernels_of_one_file_are_apart(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE)
    one, other = load_kernel(tmp_path / "kernel.py"), load_kernel(tmp_path / "kernel.py")
    one(torch.ones(2), 2)
    assert (calls(one), calls(other)) == (1, 0)


def test_an_argument_that_was_left_out_when_verified_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE.replace("x, factor", "x").replace("factor", "2"))
    kernel, x = load_kernel(tmp_path / "kernel.py"), torch.randn(4)
    fast = wear(double, kernel, (x,))
    assert torch.equal(fast(x), x * 2)
    assert torch.equal(fast(x, factor=3), x * 3)
    assert torch.equal(fast(x=x), x * 2)
    assert calls(kernel) == 2


def test_what_is_yet_to_be_negated_is_the_originals(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(DOUBLE.replace("x, factor", "x").replace("factor", "2"))
    kernel = load_kernel(tmp_path / "kernel.py")
    z = torch.randn(4, dtype=torch.complex64)
    for given in (z.conj(), z.conj().imag):
        x = given.resolve_conj().resolve_neg().contiguous()
        fast = wear(
            lambda x: x * 2, kernel, (torch.empty_strided(x.shape, given.stride(), dtype=x.dtype),)
        )
        before = calls(kernel)
        assert torch.equal(fast(given), x * 2)
        assert calls(kernel) == before


def test_arguments_that_are_packed_otherwise_are_the_originals(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(
        "import torch\n\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, a, b):\n"
        "        ModelNew.calls = getattr(ModelNew, 'calls', 0) + 1\n        return sum(a) - b\n"
    )

    def subtract(a: object, b: object) -> torch.Tensor:
        one = sum(a) if isinstance(a, list) else a
        other = sum(b) if isinstance(b, list) else b
        return one - other  # type: ignore[no-any-return, operator]

    kernel = load_kernel(tmp_path / "kernel.py")
    x, y, z = torch.randn(3, 4)
    fast = wear(subtract, kernel, ([x, y], z))
    assert torch.equal(fast([x, y], z), x + y - z)
    assert calls(kernel) == 1
    assert torch.equal(fast(x, [y, z]), x - (y + z))
    assert calls(kernel) == 1

"""A worn kernel and those who watch calls, compilers and transforms: they see the original."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tools.wear.kernels import LINEAR, Head, calls
from tools.wear import load_kernel, wear

PICKY = LINEAR.replace(
    "        return",
    "        assert x.data_ptr() and self.linear.weight.data_ptr()\n        return",
)


@pytest.fixture
def picky(tmp_path: Path) -> tuple[Head, Head, torch.nn.Module]:
    """Its kernel reads memory."""
    (tmp_path / "picky.py").write_text(PICKY)
    kernel, head = load_kernel(tmp_path / "picky.py"), Head()
    return wear(head, kernel, (torch.randn(8, 4),)), head, kernel


def traced(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.jit.trace(module, (x,), check_trace=False)(x)


def exported(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.export.export(module, (x,)).module()(x)
    return made


def compiled(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    return made


def compiled_around(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    def around(x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = module(x * 2).relu()
        return made

    made: torch.Tensor = torch.compile(around, fullgraph=True, backend="aot_eager")(x)
    return made


def counted(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with FlopCounterMode(display=False) as counter:
        made: torch.Tensor = module(x)
    assert counter.get_total_flops()
    return made


def cast(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made: torch.Tensor = module(x)
    assert made.dtype == torch.bfloat16
    return made


class Marked(torch.Tensor):
    """A tensor of a class of its own."""


def of_another_class(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    made = module(x.as_subclass(Marked))
    assert type(made) is Marked
    return made.as_subclass(torch.Tensor)


WATCHED: dict[str, Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]] = {
    "vmap": lambda module, x: torch.vmap(module)(x.expand(2, 8, 4)),
    "grad": lambda module, x: torch.func.grad(lambda x: module(x).sum())(x),
    "jacrev": lambda module, x: torch.func.jacrev(module)(x),
    "jvp": lambda module, x: torch.func.jvp(module, (x,), (torch.ones_like(x),))[1],
    "functional call": lambda module, x: torch.vmap(
        lambda weight: torch.func.functional_call(module, {"linear.weight": weight}, (x,))
    )(torch.arange(24.0).view(2, 3, 4)),
    "compiled": compiled,
    "compiled around": compiled_around,
    "exported": exported,
    "traced": traced,
    "counted": counted,
    "cast": cast,
    "of another class": of_another_class,
}


# Of torch's own making, when it loads its compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("watch", WATCHED.values(), ids=WATCHED.keys())
@pytest.mark.parametrize("gradients", [False, True])
def test_who_watches_the_calls_sees_the_original(
    picky: tuple[Head, Head, torch.nn.Module],
    watch: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor],
    gradients: bool,
) -> None:
    fast, head, kernel = picky
    x = torch.randn(8, 4)
    with torch.set_grad_enabled(gradients):
        made, expected = watch(fast, x), watch(head, x)
        assert calls(kernel) == 0
        torch.testing.assert_close(made, expected)
        fast(x)
    assert calls(kernel) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("watch", ["vmap", "grad", "jvp", "compiled", "compiled around", "counted"])
def test_who_watches_a_function_sees_the_original(tmp_path: Path, watch: str) -> None:
    (tmp_path / "kernel.py").write_text(
        "import torch\n\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x):\n"
        "        assert x.data_ptr()\n        return x.detach() @ torch.ones(4, 4)\n"
    )
    x, function = torch.randn(8, 4), lambda x: x @ torch.ones(4, 4)
    fast = wear(function, load_kernel(tmp_path / "kernel.py"), (x,))
    torch.testing.assert_close(WATCHED[watch](fast, x), WATCHED[watch](function, x))

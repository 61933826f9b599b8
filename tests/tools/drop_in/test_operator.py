"""The kernel as torch sees it: its gradients, compiled or exported as part of something larger."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools.drop_in.pairs import NormModel, calls, pair


def test_gradients_are_the_references(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)
    for one in (model, new):
        given = x.clone().requires_grad_()
        (one(given) ** 2).sum().backward()
        one.grads = [given.grad, one.shift.grad]
    for made, expected in zip(new.grads, model.grads, strict=True):
        torch.testing.assert_close(made, expected)


def test_the_forward_of_a_training_step_is_the_kernels(kernel: ModuleType) -> None:
    _, new = pair(kernel)
    number, made = calls(kernel, lambda: new(torch.randn(9, 5)))
    assert number == 1
    assert made.requires_grad
    new.recompute = False
    number, made = calls(kernel, lambda: new(torch.randn(9, 5)))
    assert number == 0
    assert new.takes_kernel(torch.randn(9, 5))


def test_gradients_have_gradients(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)
    found = []
    for one in (model, new):
        given = x.clone().requires_grad_()
        (first,) = torch.autograd.grad((one(given) ** 3).sum(), given, create_graph=True)
        found.append(torch.autograd.grad(first.sum(), [given, one.shift]))
    for made, expected in zip(*found, strict=True):
        torch.testing.assert_close(made, expected)


def test_training_with_it_ends_where_training_without_it_does(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x, target = torch.randn(9, 5), torch.randn(9, 5)
    for one in (model, new):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            ((one(x) - target) ** 2).mean().backward()
            optimizer.step()
    torch.testing.assert_close(new.shift, model.shift)


def test_opcheck_finds_nothing(kernel: ModuleType, norm: ModuleType) -> None:
    for module, features, x in ((kernel, 5, torch.randn(9, 5)), (norm, 4, torch.randn(8, 4))):
        new = module.ModelNew(features)
        state = [new.get_parameter(n) if n in dict(new.named_parameters()) else new.get_buffer(n)
                 for n in sorted(new.state_dict())]  # fmt: skip
        operator = getattr(torch.ops.kernelwright, module.OPERATOR["name"]).default
        torch.library.opcheck(operator, ([x], [t.detach().clone() for t in state]))
        torch.library.opcheck(operator, ([x.requires_grad_()], state))


# Of torch's own making, when it loads its compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_compiled_as_part_of_a_model_it_is_one_operator(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    graphs: list[torch.fx.GraphModule] = []

    class Around(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.first, self.inner = torch.nn.Linear(5, 5), inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(self.first(x))).sum(dim=1)

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph

    around, plain = Around(new), Around(model)
    plain.first.load_state_dict(around.first.state_dict())
    x = torch.randn(9, 5)
    torch.compile(around, fullgraph=True, backend=keep)(x)
    operator = getattr(torch.ops.kernelwright, kernel.OPERATOR["name"]).default
    assert [node.target for node in graphs[0].graph.nodes].count(operator) == 1
    compiled = torch.compile(around, fullgraph=True)
    number, made = calls(kernel, lambda: compiled(x))
    assert number == 1
    torch.testing.assert_close(made, plain(x))
    made.sum().backward()
    plain(x).sum().backward()
    torch.testing.assert_close(around.first.weight.grad, plain.first.weight.grad)
    torch.testing.assert_close(new.shift.grad, model.shift.grad)


def test_compiled_outside_of_what_was_verified_it_is_plain_torch(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(20, 5)
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    number, made = calls(kernel, lambda: compiled(x))
    assert number == 0
    torch.testing.assert_close(made, model(x))


def test_exported_it_is_one_operator_for_every_verified_size(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    rows = torch.export.Dim("rows", min=2, max=10)
    program = torch.export.export(new, (torch.randn(9, 5),), dynamic_shapes=({0: rows},))
    operator = getattr(torch.ops.kernelwright, kernel.OPERATOR["name"]).default
    assert [node.target for node in program.graph.nodes].count(operator) == 1
    x = torch.randn(4, 5)
    torch.testing.assert_close(program.module()(x), model(x))


def test_gradients_through_changing_buffers(norm: ModuleType) -> None:
    model, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    for one in (model, new):
        one(x)[0].square().sum().backward()
    for made, expected in zip(new.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(made.grad, expected.grad)


def test_compiled_with_a_changed_part_it_is_plain_torch(norm: ModuleType) -> None:
    _, new = pair(norm, NormModel, 4)
    new.norm.eps = 1.0
    compiled = torch.compile(new, backend="eager", fullgraph=True)
    x = torch.randn(8, 4)
    with torch.no_grad():
        number, made = calls(norm, lambda: compiled(x))
    assert number == 0
    expected = (x - x.mean(0)) * torch.rsqrt(x.var(0, correction=0) + 1.0)
    torch.testing.assert_close(made[0], expected.clamp(min=0))


COMPILED_WITHIN: dict[str, Callable[[Any], Callable[[torch.Tensor], Any]]] = {
    "vmap": lambda module: torch.vmap(module),
    "grad": lambda module: torch.func.grad(lambda x: module(x).sum()),
    "jvp": lambda module: lambda x: torch.func.jvp(module, (x,), (torch.ones_like(x),))[1],
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("within", COMPILED_WITHIN)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_transforms_that_are_compiled_see_the_reference(
    kernel: ModuleType, within: str, backend: str
) -> None:
    model, new = pair(kernel)
    x = torch.randn(3, 9, 5) if within == "vmap" else torch.randn(9, 5)
    transform = COMPILED_WITHIN[within]
    with torch.no_grad():
        compiled = torch.compile(transform(new), fullgraph=True, backend=backend)
        number, made = calls(kernel, lambda: compiled(x))
        torch.testing.assert_close(made, transform(model)(x))
        assert number == 0
    assert new.takes_kernel(torch.randn(9, 5))

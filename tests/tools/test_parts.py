"""Parts of an op that has no graph: what is found, and what is left alone."""

from collections.abc import Callable

import torch
from torch import nn

from knowledge.parts import Part
from tools.parts import find_parts


class Held(nn.Module):
    """Calls a module inside it, and goes one way or another."""

    def __init__(self, inner: nn.Module, call: Callable[..., torch.Tensor] | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.call = call or (lambda inner, x: inner(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.call(self.inner, x)
        return y if float(y.sum()) > 0 else -y


class Branches(nn.Module):
    """Has no graph itself; its own parts have."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            if x[0, 0].item() < 1e9:
                x = block(x)
        return x


class Features(nn.Module):
    """Keeps one tensor as a plain attribute, and makes another at its first call."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = torch.randn(64, 80)
        self.made: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.made is None:
            self.made = torch.linspace(0, 1, 80)
        return torch.sin(x @ self.kept) * self.made


class Echo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.softmax(x, -1)
        return x.view(-1)


def found(model: nn.Module, x: torch.Tensor) -> tuple[Part, ...]:
    """All parts, however small their share of the time and however slow the machine."""
    return find_parts(model, (x,), __name__, least_share=0.0, seconds=600.0)


def paths(model: nn.Module, x: torch.Tensor) -> set[str]:
    return {path for part in found(model, x) for path in part.paths}


def test_what_has_no_graph_is_looked_into() -> None:
    (part,) = found(Held(Branches()), torch.randn(512, 64))
    assert part.paths == ("inner.blocks.0", "inner.blocks.1")
    assert part.calls == 2
    assert 0.0 < part.share <= 1.0
    assert part.call_ms


def test_a_part_reads_the_attributes_that_its_constructor_made_and_no_others() -> None:
    (part,) = found(Held(Features()), torch.randn(512, 64))
    entering = {node.kind: node.target for node in part.graph.nodes if node.kind != "call"}
    assert entering == {"input": "0", "buffer": "kept", "constant": "made"}


def test_a_result_that_shares_memory_with_what_went_in_is_no_part() -> None:
    assert paths(Held(Echo()), torch.randn(512, 64)) == set()


class Exported(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (2.0 if torch.compiler.is_exporting() else 3.0)


def test_what_does_something_else_when_it_is_exported_is_no_part() -> None:
    assert paths(Held(Exported(64, 64)), torch.randn(512, 64)) == set()


def test_a_hooked_module_is_no_part_but_what_is_inside_is() -> None:
    inner = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    inner.register_forward_hook(lambda module, args, made: made + 1)
    assert paths(Held(inner), torch.randn(512, 64)) == {"inner.0", "inner.1"}


def test_of_several_shapes_the_one_that_takes_most_time_is_planned() -> None:
    def twice(inner: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return inner(x).sum() + inner(x[:8])  # type: ignore[no-any-return]

    (part,) = found(Held(nn.Linear(64, 512), twice), torch.randn(32768, 64))
    assert part.graph.inputs[0].spec.shape == (32768, 64)
    assert part.calls == 1


def test_what_takes_too_little_of_the_time_is_not_traced() -> None:
    model, x = Held(nn.Linear(64, 64)), torch.randn(512, 64)
    assert find_parts(model, (x,), __name__, least_share=1e9) == ()


def test_the_op_is_left_as_it_is() -> None:
    model = Held(nn.BatchNorm1d(64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found(model, torch.randn(512, 64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())

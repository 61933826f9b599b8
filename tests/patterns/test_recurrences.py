"""Loops over time, traced step by step: as one recurrent net, exact, whatever they return."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from knowledge.opgraph import Node
from knowledge.pattern import Step
from knowledge.patterns.algebra.pattern import rewrite
from tests.patterns.test_algebra import rewritten
from tests.patterns.workshop import build, complaints, load, reference
from tools.trace import trace

STEPS = (Step(pattern="algebra"), Step(pattern="recurrent"))
SIZES = "torch.randn(5, 9, 16), torch.randn(5, 24), torch.randn(5, 24)"


def loop(layers: str, step: str, returned: str, read: str = "x[:, t]", steps: str = "9") -> str:
    """A reference with a loop of so many steps, each of which reads part of x and changes h."""
    made = "\n".join(f"        self.{line}" for line in layers.split("; "))
    return reference(
        f"""    def __init__(self):
        super().__init__()
{made}

    def forward(self, x, h, c):
        ys, xs = [], []
        for t in range({steps}):
            v = {read}
            {step}
            ys.append(h)
        return {returned}""",
        SIZES,
    )


LSTM = "i, f, g, o = {}; c = f.sigmoid() * c + i.sigmoid() * g.tanh(); h = o.sigmoid() * c.tanh()"
GRU = "r, z, n = {a}.chunk(3, 1); s, y, m = {b}.chunk(3, 1); z = torch.sigmoid(z + y); "
NETS = {
    "gru cells": ("w = nn.GRUCell(16, 24)", "h = self.w(v, h)"),
    "lstm cells": ("w = nn.LSTMCell(16, 24)", "h, c = self.w(v, (h, c))"),
    "cells without bias": ("w = nn.GRUCell(16, 24, bias=False)", "h = self.w(v, h)"),
    "tanh cells": ("w = nn.RNNCell(16, 24)", "h = self.w(v, h)"),
    "relu cells": ("w = nn.RNNCell(16, 24, nonlinearity='relu')", "h = self.w(v, h)"),
    "two layers": (
        "w = nn.Linear(16, 24); u = nn.Linear(24, 24)", "h = torch.tanh(self.w(v) + self.u(h))"
    ),
    "one layer": ("w = nn.Linear(40, 24)", "h = torch.tanh(self.w(torch.cat([v, h], 1)))"),
    "matrices": (
        "w = nn.Parameter(torch.randn(16, 24)); u = nn.Parameter(torch.randn(24, 24) / 5); "
        "b = nn.Parameter(torch.randn(24))",
        "h = torch.relu(v @ self.w + h @ self.u.t() + self.b)",
    ),
    "lstm by hand": (
        "w = nn.Linear(16, 96); u = nn.Linear(24, 96)",
        LSTM.format("(self.w(v) + self.u(h)).chunk(4, 1)"),
    ),
    "lstm in another order": (
        "w = nn.Linear(40, 96)",
        LSTM.replace("i, f, g, o", "g, o, i, f").format(
            "self.w(torch.cat([h, v], 1)).split(24, 1)"
        ),
    ),
    "lstm of four layers": (
        "; ".join(f"{name} = nn.Linear(40, 24)" for name in "pqrs"),
        "v = torch.cat([v, h], 1); "
        + LSTM.format("self.p(v), self.q(v), self.r(v), self.s(v)"),
    ),
    "gru by hand": (
        "w = nn.Linear(16, 72); u = nn.Linear(24, 72)",
        GRU.format(a="self.w(v)", b="self.u(h)")
        + "n = torch.tanh(n + torch.sigmoid(r + s) * m); h = (1 - z) * n + z * h",
    ),
    "gru the other way round": (
        "w = nn.Linear(16, 72); u = nn.Linear(24, 72)",
        GRU.format(a="self.w(v)", b="self.u(h)")
        + "n = torch.tanh(n + torch.sigmoid(r + s) * m); h = h + z * (n - h)",
    ),
}  # fmt: skip


def check(source: str, net: str = "") -> None:
    """The loop is one net, of this kind if it is named, to float64's last digits."""
    done, _, expected, made, _ = rewritten(source)
    assert any("steps of a loop over time are one" in one and net in one for one in done), done
    pairs = zip(_all(made), _all(expected), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def _all(made: Any) -> list[torch.Tensor]:
    return list(made) if isinstance(made, tuple | list) else [made]


@pytest.mark.parametrize("name", NETS)
def test_steps_of_every_kind_are_one_net(name: str) -> None:
    layers, step = NETS[name]
    check(loop(layers, step, "torch.stack(ys, 1), h"))


@pytest.mark.parametrize("name", ["gru cells", "lstm by hand", "two layers"])
def test_the_net_and_what_is_read_of_it_is_one_kernel(name: str) -> None:
    layers, step = NETS[name]
    built = build(loop(layers, step, "torch.stack(ys, 1), h + 1"), STEPS)
    assert len(built.program.kernels) == 1
    assert not any("stack" in call.target for call in built.program.library_calls)
    assert complaints(built) == []


@pytest.mark.parametrize(
    ("read", "returned"),
    [
        ("x[:, t]", "h"),
        ("x[:, t]", "torch.stack(ys)"),
        ("x[:, t]", "torch.cat([y.unsqueeze(1) for y in ys], dim=1)"),
        ("x[:, t]", "torch.cat(ys, dim=1)"),
        ("x[:, 8 - t]", "torch.stack(ys[::-1], 1)"),
        ("x.unbind(1)[t]", "torch.stack(ys, 1), ys[3]"),
        ("x[:, t : t + 1].squeeze(1)", "torch.stack(ys, 2)"),
        ("x.transpose(0, 1)[t]", "ys[-1], ys[0]"),
        ("torch.sin(x[:, t])", "torch.stack(ys, 1)"),
        ("x.permute(0, 2, 1)[:, :, t]", "torch.stack(ys, 1)"),
    ],
)
def test_however_its_input_is_read_and_its_output_laid_out(read: str, returned: str) -> None:
    check(loop(*NETS["gru cells"], returned, read), "gru")


def test_only_some_of_the_sequence_may_be_read() -> None:
    check(loop(*NETS["two layers"], "torch.stack(ys, 1)", "x[:, t + 1]", "8"), "rnn_tanh")


def test_an_lstm_gives_out_its_last_cell_state() -> None:
    check(loop(*NETS["lstm cells"], "torch.stack(ys, 1), h, c"), "lstm")


def test_the_input_may_be_projected_before_the_loop() -> None:
    source = loop(
        "w = nn.Linear(16, 24); u = nn.Linear(24, 24)", "h = torch.tanh(v + self.u(h))",
        "torch.stack(ys, 1)", "self.w(x)[:, t]",
    )  # fmt: skip
    check(source, "rnn_tanh")


def test_layers_above_each_other_are_nets_above_each_other() -> None:
    layers = "w = nn.GRUCell(16, 24); u = nn.LSTMCell(24, 24); o = nn.Linear(24, 3)"
    step = "d = self.w(v, d) if t else self.w(v, h); h, c = self.u(d, (h, c))"
    source = loop(layers, step, "torch.stack([torch.tanh(self.o(y)) for y in ys], 1)")
    done, *_ = rewritten(source)
    assert sum("loop over time" in one for one in done) == 2
    assert any("many calls of linear are one" in one for one in done)
    check(source)


@pytest.mark.parametrize(
    ("step", "returned"),
    [
        ("h = torch.tanh(self.w(v) + self.u(h)) * 0.5", "h"),
        ("h = torch.tanh(self.w(v + self.o(h)) + self.u(h))", "h"),
        ("h = torch.tanh(self.w(v) + (self.u(h) if t % 2 else self.o(h)))", "h"),
        ("h = torch.tanh(self.w(x[:, 0]) + self.u(h))", "h"),
        ("h = torch.tanh(self.w(v) * self.u(h))", "h"),
    ],
)
def test_what_is_no_such_net_is_left_as_it_is(step: str, returned: str) -> None:
    layers = "w = nn.Linear(16, 24); u = nn.Linear(24, 24); o = nn.Linear(24, 16)"
    if "% 2" in step:
        layers = layers.replace("nn.Linear(24, 16)", "nn.Linear(24, 24)")
    done, _, expected, made, _ = rewritten(loop(layers, step, returned))
    assert not any("loop over time" in one for one in done)
    torch.testing.assert_close(made, expected, rtol=1e-11, atol=1e-11)


def test_cell_states_that_are_read_between_the_steps_keep_the_loop() -> None:
    layers, step = NETS["lstm cells"]
    done, *_ = rewritten(loop(layers, f"{step}; xs.append(c)", "torch.stack(xs, 1)"))
    assert not any("loop over time" in one for one in done)


def looks(monkeypatch: pytest.MonkeyPatch, look: Callable[[], object]) -> int:
    """How often a node's arguments are looked at."""
    seen, refs = [0], Node.__dict__["refs"]

    def look_once(node: Node) -> Any:
        seen[0] += 1
        return refs.func(node)

    monkeypatch.setattr(Node, "refs", property(look_once))
    look()
    monkeypatch.setattr(Node, "refs", refs)
    return seen[0]


@pytest.mark.parametrize("name", ["gru cells", "lstm by hand"])
def test_a_loop_of_four_times_the_steps_takes_some_four_times_the_looks(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[int] = []
    for steps in (16, 64):
        source = loop(*NETS[name], "torch.stack(ys, 1)", steps=str(steps))
        module = load(source.replace("(5, 9, 16)", f"(5, {steps}, 16)"))
        graph = trace(module.Model(), tuple(module.get_inputs()))
        seen.append(looks(monkeypatch, partial(rewrite, graph)))
    assert seen[1] < 6 * seen[0]

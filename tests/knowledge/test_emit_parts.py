"""An op without a graph, printed over faster parts: the same answers, names and freedom."""

import copy
import io

import pytest
import torch

from agents.playbook.piecewise import Piecewise, cook_parts
from knowledge.emit_parts import emit_parts
from knowledge.parts import Part
from knowledge.pattern import Refusal
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, load
from tools.parts import find_parts

ROUTED = '''
import torch
from torch import nn


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gain = nn.Parameter(torch.rand(width))

    def forward(self, x, scale=2.0):
        return torch.softmax(self.norm(x) * self.gain * scale, -1) - x.tanh()


class Model(nn.Module):
    def __init__(self):
        super(Model, self).__init__()
        self.experts = nn.ModuleList([Expert(96) for _ in range(2)])
        self.tail = nn.Sequential(nn.BatchNorm1d(96), nn.GELU(), nn.Tanh())

    def forward(self, x):
        """Rows go to one expert or the other."""
        first = x[:, 0] > 0
        out = torch.zeros_like(x)
        for mine, expert in ((first, self.experts[0]), (~first, self.experts[1])):
            if mine.any():
                out[mine] = expert(x[mine])
        return self.tail(out)


def get_inputs():
    return [torch.randn(301, 96)]
'''


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = load(ROUTED).Model()
    return model


@pytest.fixture(scope="module")
def parts(reference: torch.nn.Module) -> tuple[Part, ...]:
    torch.manual_seed(1)
    x, home = torch.randn(301, 96), type(reference).__module__
    found = find_parts(reference, (x,), home, least_share=0.0, seconds=600.0)
    # What is planned must not hang on how busy the machine is.
    return tuple(part.model_copy(update={"share": 0.3}) for part in found)


@pytest.fixture(scope="module")
def source(parts: tuple[Part, ...]) -> str:
    recipes, _ = Piecewise(parts, ROUTED, 10.0, SITUATION).recipes()
    return cook_parts(parts, ROUTED, recipes[0].steps)


def made(source: str, reference: torch.nn.Module) -> torch.nn.Module:
    model: torch.nn.Module = load(source).ModelNew()
    model.load_state_dict(reference.state_dict())
    return model


def test_modules_inside_are_found_with_what_they_are_given(parts: tuple[Part, ...]) -> None:
    found = {path: part for part in parts for path in part.paths}
    assert set(found) == {"experts.0", "experts.1", "tail"}
    assert found["tail"].kind == "torch.nn.Sequential"
    assert found["experts.0"].kind == "Expert"
    assert found["experts.0"].constants == {"scale": 2.0}


def test_parts_take_over_and_the_answers_are_the_same(
    source: str, reference: torch.nn.Module
) -> None:
    model = made(source, reference)
    assert "cpp_kernel(" in source
    for rows in (301, 64, 7):
        theirs, oracle = copy.deepcopy(reference), copy.deepcopy(reference).double()
        ours = made(source, reference)
        x = torch.randn(rows, 96)
        with torch.no_grad():
            exact = oracle(x.double())
            allowed = 8 * (theirs(x).double() - exact).abs().max() + 1e-6
            assert (ours(x).double() - exact).abs().max() <= allowed
        for (name, mine), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
            assert torch.allclose(mine.double(), other.double(), rtol=1e-5, atol=1e-6), name
    assert list(model.state_dict()) == list(reference.state_dict())


def test_what_a_part_was_not_made_for_goes_to_the_class_s_own_forward(
    source: str, reference: torch.nn.Module
) -> None:
    expert, given = made(source, reference).experts[0], copy.deepcopy(reference.experts[0])  # type: ignore[index]
    assert type(expert) is not type(given)
    x = torch.randn(5, 96)
    with torch.no_grad():
        for arguments in ((x, 3.0), (x.double().to(torch.float32)[None],), (x[:, None],)):
            assert torch.allclose(expert(*arguments), given(*arguments), rtol=1e-4, atol=1e-5)
        assert torch.allclose(expert.double()(x.double()), given.double()(x.double()))


RECURRENT = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(24, 16)
        self.attention = torch.nn.MultiheadAttention(16, 2)

    def forward(self, x):
        out, (h, _) = self.lstm(x)
        more, weights = self.attention(out, out, out, need_weights=False)
        assert weights is None
        return out + more if float(h.sum()) < 1e9 else out
"""


def test_parts_may_return_more_than_a_tensor() -> None:
    module = load(RECURRENT)
    torch.manual_seed(0)
    model, x = module.Model(), torch.randn(40, 24)
    found = find_parts(model, (x,), module.__name__, least_share=0.0, seconds=600.0)
    assert {part.name: part.graph.returns for part in found} == {
        "lstm": "({}, ({}, {}))", "attention": "({}, None)",
    }  # fmt: skip
    ours = made(emit_parts(RECURRENT, [(p, Program.of(p.graph, RECURRENT)) for p in found]), model)
    assert type(ours.lstm) is not torch.nn.LSTM
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x))


def test_a_mode_that_it_was_not_traced_in_goes_there_too(
    source: str, reference: torch.nn.Module
) -> None:
    ours, theirs = made(source, reference).eval(), copy.deepcopy(reference).eval()
    x = torch.randn(301, 96)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_the_module_can_be_copied_and_its_weights_saved(
    source: str, reference: torch.nn.Module
) -> None:
    ours = made(source, reference)
    other = copy.deepcopy(ours)
    kept = io.BytesIO()
    torch.save(ours.state_dict(), kept)
    kept.seek(0)
    other.load_state_dict(torch.load(kept))
    with torch.no_grad():
        other.experts[0].gain.zero_()  # type: ignore[index, union-attr]
        x = torch.randn(301, 96)
        assert not torch.equal(ours(x), other(x))


def test_a_step_for_a_part_that_is_not_there_does_not_fit(parts: tuple[Part, ...]) -> None:
    recipes, refused = Piecewise(parts, ROUTED, 10.0, SITUATION).recipes()
    assert all(isinstance(one, Refusal) for one in refused)
    with pytest.raises(ValueError, match="no part"):
        cook_parts(parts[:1], ROUTED, recipes[0].steps)


def test_variants_change_one_tunable_of_one_part(parts: tuple[Part, ...]) -> None:
    piecewise = Piecewise(parts, ROUTED, 10.0, SITUATION)
    parent = piecewise.recipes()[0][0].steps
    found = piecewise.variants(parent)
    assert found
    for one in found:
        changed = [(a, b) for a, b in zip(one.steps, parent, strict=True) if a != b]
        assert len(changed) == 1
        assert changed[0][0].part == changed[0][1].part

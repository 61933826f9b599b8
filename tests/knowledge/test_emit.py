"""The emitted module: what it keeps of the reference, what it refuses, what can't be emitted."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tools.reference
from knowledge.emit import Unemittable, emit, emit_as_given
from knowledge.opgraph import Node, Ref
from knowledge.pattern import load_pattern
from knowledge.program import Kernel, Program, Size, Written
from knowledge.reference_source import read_reference
from tests.patterns.workshop import FUSED, build, complaints, function, load, reference
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.trace import trace
from tools.verdict import Correct

SPOKEN = '''"""Made for a test."""
import torch
import torch.nn as nn
from math import pi, sqrt


# Doubles what it is given.
def twice(value):
    return 2 * value


def unused():
    return 0


SCALE = twice(pi)
BATCH = 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4) * SCALE)


class Model(nn.Module):
    """Übung: a scaled copy, by a class that names Model itself."""

    kind = "Model"

    def __init__(self, offset=1.0):
        super(Model, self).__init__()
        self.blocks = nn.ModuleList([Block()])
        self.offset = offset  # read by forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift."""
        # the old body
        return x * self.blocks[0].weight + self.offset

    def extra_repr(self):
        return f"offset={self.offset}"


def get_inputs():
    return [torch.randn(BATCH, 4)]


def get_init_inputs():
    return []


if __name__ == "__main__":
    print(Model())
'''


def test_everything_but_forward_is_the_reference_s_own_text() -> None:
    source = build(SPOKEN, FUSED).source
    for kept in ("# Doubles what it is given.\ndef twice(value):", "SCALE = twice(pi)",
                 "class Block(nn.Module):",
                 "super(ModelNew, self).__init__()", "# read by forward", '"""Scale and shift."""',
                 'kind = "Model"', "def forward(self, x: torch.Tensor) -> torch.Tensor:",
                 'return f"offset={self.offset}"', "Übung"):  # fmt: skip
        assert kept in source
    for gone in ("get_inputs", "BATCH", "__main__", "unused", "# the old body", "class Model("):
        assert gone not in source


@pytest.mark.parametrize(
    "forward",
    [
        "def forward(self, x): return torch.relu(x) * 2",
        "def forward(self, x): y = torch.relu(x); return y * 2",
        "def forward(\n        self, x\n    ): return torch.relu(x) * 2",
    ],
)
def test_a_forward_on_one_line_is_written_anew_below_its_signature(forward: str) -> None:
    built = build(reference(f"    {forward}", "torch.randn(3, 5)"), FUSED)
    assert "return" not in next(line for line in built.source.splitlines() if "):" in line)
    assert complaints(built) == []


REFERENCES = Path(__file__).parents[1] / "references"
FOURIER = REFERENCES / "fourier_features.py"


@pytest.mark.parametrize("features", [96, 2000])
def test_tensors_kept_as_plain_attributes_are_those_of_the_candidate_itself(features: int) -> None:
    text = FOURIER.read_text(encoding="utf-8").replace(
        "self, features", f"self, features={features}"
    )
    built = build(text, FUSED)
    made = []
    for kind in (load(text).Model, load(built.source).ModelNew):
        torch.manual_seed(7)
        made.append(kind()(built.inputs[0]))
    torch.testing.assert_close(made[0], made[1])


@pytest.mark.parametrize("name", ["fourier_features", "nested"])
def test_the_judge_accepts_kernels_of_kept_tensors_and_of_nested_results(
    name: str, judges: Callable[[str], Judge]
) -> None:
    text = (REFERENCES / f"{name}.py").read_text(encoding="utf-8")
    loaded = tools.reference.load(text, f"{name}.py")
    graph = trace(loaded.build(0), loaded.inputs(0))
    program = load_pattern("row_loop").apply(Program.of(graph, text), FUSED[0])
    assert program.kernels
    verdict = judges(name).verify(Candidate(source=emit(program), backend="cpp"))
    assert isinstance(verdict, Correct), verdict


def _doubling(node: Node, text: str) -> Kernel:
    written = Written(ref=Ref(ref=node.name), shape="(30,)", spec=node.spec)
    return Kernel(
        name=f"double_{node.name}", source=f"#include <cstdint>{text}", signature="ppi",
        nodes=(node.name,), reads=node.refs, writes=(written,),
        sizes=(Size(name="n", expression="30"),),
    )  # fmt: skip


def test_kernels_that_differ_in_name_alone_are_printed_once() -> None:
    source = """
extern "C" void {0}(const float* x, float* out, int64_t n) {{
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * 2;
}}
"""
    built = build(function("x", "(x * 2).cumsum(0) * 2", "torch.randn(30)"), ())
    calls = [node for node in built.graph.calls if node.target.startswith("aten.mul")]
    kernels = tuple(_doubling(node, source.format(f"double_{node.name}")) for node in calls)
    assert len(kernels) == 2
    built.program = built.program.changed(kernels=kernels)
    built.source = emit(built.program)
    assert built.source.count("cpp_kernel(") == 1
    assert complaints(built) == []


def test_parameters_are_read_by_their_path_on_every_call() -> None:
    built = build(SPOKEN, FUSED)
    assert "self.blocks[0].weight" in built.source
    candidate = built.candidate()
    with torch.no_grad():
        first = candidate(*built.inputs)
        dict(candidate.named_parameters())["blocks.0.weight"].mul_(3)
        assert not torch.allclose(first, candidate(*built.inputs))


def test_the_reference_as_given_is_a_candidate_too() -> None:
    module = load(emit_as_given(SPOKEN))
    assert module.ModelNew()(torch.ones(2, 4)).shape == (2, 4)
    assert not hasattr(module, "Model")


@pytest.mark.parametrize("mode", [None, "max-autotune-no-cudagraphs"])
def test_the_reference_under_torch_compile_says_in_which_mode(mode: str | None) -> None:
    text = emit_as_given(SPOKEN, compiled=True, mode=mode)
    assert f"self.compile({'' if mode is None else f'mode={mode!r}'})" in text
    assert issubclass(load(text).ModelNew, torch.nn.Module)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (torch.randn(3, 4, dtype=torch.float64), "torch.float64"),
        (torch.randn(4), "(4,)"),
        (torch.randn(3, 5), "(3, 5)"),
    ],
)
def test_inputs_it_was_not_made_for_raise_one_sentence(values: torch.Tensor, told: str) -> None:
    candidate = build(SPOKEN, FUSED).candidate()
    with pytest.raises(ValueError, match="this kernel was made for float32 of shape") as raised:
        candidate(values)
    assert told in str(raised.value)


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_the_batch_may_differ_from_the_traced_one(batch: int) -> None:
    assert complaints(build(SPOKEN, FUSED), [torch.randn(batch, 4)]) == []


def test_a_batch_size_that_the_graph_took_for_a_constant_is_insisted_on() -> None:
    built = build(function("x", "x.sum(1) / x.size(0)", "torch.randn(6, 5)"), FUSED)
    with pytest.raises(ValueError, match=r"made for float32 of shape \[6, 5\]"):
        built.candidate()(torch.randn(3, 5))
    assert complaints(built) == []


def test_a_batch_size_of_which_a_tensor_is_made_is_insisted_on() -> None:
    call = "torch.sigmoid(torch.zeros(x.shape[0], 8).scatter_add(1, i, x))"
    built = build(function("i, x", call, "torch.randint(0, 8, (64, 4)), torch.randn(64, 4)"), ())
    with pytest.raises(ValueError, match=r"made for float32 of shape \[64, 4\]"):
        built.candidate()(built.inputs[0], torch.randn(10, 4))
    with pytest.raises(ValueError, match=r"made for int64 of shape \[64, 4\]"):
        built.candidate()(built.inputs[0][:10], built.inputs[1][:10])
    call = "x[:, :1] + torch.zeros(x.shape[0], 8) * 2 + w"
    fused = build(function("x, w", call, "torch.randn(64, 4), torch.randn(8)"), FUSED)
    given = [torch.randn(10, 4), fused.inputs[1]]
    assert complaints(fused, given) == []
    positions = build(function("x", "x + torch.arange(33)", "torch.randn(6, 33)"), ())
    assert complaints(positions, [torch.randn(10, 33)]) == []


def test_what_is_made_or_kept_for_a_gpu_is_where_the_first_input_is() -> None:
    call = "torch.cumsum(x[:, torch.tensor([2, 0, 1])] + torch.arange(3) * x.flip(1).sum(), 1)"
    source = function("x", call, "torch.randn(7, 3)")
    graph = build(source, ()).graph
    text = emit(Program.of(graph, source, "triton"))
    assert "torch.ops.aten.arange.default(3, device=x.device)" in text
    assert re.search(r"_on_device\(_C_LIFTED\w*, x\.device\)", text)
    assert "cpu" not in text
    assert "pin_memory" not in text
    values = torch.randn(5, 3)
    module = load(text)
    expected = load(source).Model()(values)
    for _ in range(2):
        assert torch.equal(module.ModelNew()(values), expected)
    assert len(module._ON_DEVICES) == 1
    assert "_on_device" not in emit(Program.of(graph, source, "cpp"))


def test_a_count_of_rows_that_algebra_put_in_is_insisted_on() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x):
        return self.linear(x).sum((0, 1))"""
    built = build(reference(body, "torch.randn(6, 3, 4)"))
    assert complaints(built) == []
    with pytest.raises(ValueError, match=r"made for float32 of shape \[6, 3, 4\]"):
        built.candidate()(torch.randn(2, 3, 4))


def test_a_view_by_batch_size_follows_the_batch() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, x):
        return self.linear(x.view(x.size(0), -1))"""
    built = build(reference(body, "torch.randn(5, 3, 4)"), ())
    assert complaints(built, [torch.randn(7, 3, 4)]) == []


@pytest.mark.parametrize(
    "values",
    [torch.randn(4, 3).t(), torch.randn(3, 8)[:, ::2], torch.randn(1, 4).expand(3, 4),
     torch.randn(7, 4)[2:5], torch.randn(13)[1:].view(3, 4)],
)  # fmt: skip
def test_strided_and_offset_inputs_give_the_right_result(values: torch.Tensor) -> None:
    assert complaints(build(SPOKEN, FUSED), [values]) == []


def test_tensors_that_don_t_go_together_raise() -> None:
    source = function("x, y", "(x + y).sum(-1)", "torch.randn(6, 5), torch.randn(6, 5)")
    with pytest.raises(ValueError, match="y does not go with the other tensors"):
        build(source, FUSED).candidate()(torch.randn(6, 5), torch.randn(2, 5))


def test_running_statistics_are_written_back() -> None:
    body = """    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return torch.relu(self.norm(x))"""
    built = build(reference(body, "torch.randn(6, 5) + 3"), FUSED)
    candidate = built.candidate()
    candidate(*built.inputs)
    buffers = dict(candidate.named_buffers())
    assert buffers["norm.num_batches_tracked"].item() == 1
    assert buffers["norm.running_mean"].mean().item() > 0.2
    assert complaints(built) == []


def test_numbers_that_forward_is_given_stay_arguments() -> None:
    source = function("x, factor", "x * factor", "torch.randn(3, 4), 2.5")
    assert complaints(build(source, FUSED)) == []


def test_names_in_the_graph_hide_nothing() -> None:
    source = function("mul, relu", "torch.relu(mul * relu) + torch.relu(relu)",
                      "torch.randn(3, 4), torch.randn(3, 4)")  # fmt: skip
    assert complaints(build(source, FUSED)) == []
    assert complaints(build(source, ())) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def f(:", "does not parse"),
        ("class Other:\n    pass\n", "no class Model"),
        ("class Base: ...\n\n\nclass Model(Base): ...\n", "does not define forward itself"),
        ("class Model:\n    def forward(self, *x):\n        return x\n", "takes \\*args"),
    ],
)  # fmt: skip
def test_a_reference_that_has_no_plain_form_says_why(source: str, why: str) -> None:
    with pytest.raises(Unemittable, match=why):
        read_reference(source)


def test_tensors_in_a_list_can_t_be_emitted() -> None:
    built = build(function("x", "x + 1", "torch.randn(3)"), ())
    nested = SPOKEN.replace("self, x: torch.Tensor", "self").replace("x * ", "")
    with pytest.raises(Unemittable, match="in lists or by keyword alone"):
        emit(Program.of(built.graph, nested))


def test_the_knowledge_room_does_not_load_torch() -> None:
    code = (
        "import sys, knowledge.emit, knowledge.loops.islands\n"
        "from knowledge.pattern import load_cards, load_pattern\n"
        "[load_pattern(name) for name in load_cards()]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Two products and what lies between them: 200 KB each, or 20 KB.
CHAIN = """    def __init__(self):
        super().__init__()
        self.one = nn.Linear(64, 128)
        self.two = nn.Linear(64, 64)

    def forward(self, x):
        left, right = self.one(x).chunk(2, -1)
        y = self.two(left * right.sigmoid())
        return y.tanh(), x.shape[0] * y"""


def test_what_is_large_is_freed_once_nothing_reads_it() -> None:
    built = build(reference(CHAIN, "torch.randn(800, 64)"), FUSED)
    lines = [line.strip() for line in built.source.splitlines()]
    freed = {name for line in lines if line.startswith("del ") for name in line[4:].split(", ")}
    (product,) = [line.split(" = ")[0] for line in lines if "one_weight, p_one_bias)" in line]
    assert product in freed
    returned = set(lines[-1].removeprefix("return ").strip("()").split(", "))
    assert len(returned) == 2
    assert not freed & returned
    for name in freed:
        at = next(at for at, line in enumerate(lines) if name in line and "del " in line)
        assert not any(name in line.replace(",", " ").split() for line in lines[at + 1 :])
    assert complaints(built) == []


def test_small_tensors_are_not_worth_a_line() -> None:
    assert "del " not in build(reference(CHAIN, "torch.randn(80, 64)"), FUSED).source

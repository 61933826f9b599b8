"""Windows as Triton, compiled for three generations: tensor cores, no spills; and composed."""

import pytest

from knowledge.emit import emit
from knowledge.pattern import Parameter, Refusal, Step, load_cards, load_pattern
from knowledge.program import Program
from tests.patterns.triton_workshop import compiled, in_triton, spilled
from tests.patterns.workshop import SITUATION, build, function, reference
from tools.backends.triton.interpret import Candidate, Interpreted, interpret

pytest.importorskip("triton")

HALF = ".half()"


def layer(image: tuple[int, ...], weight: tuple[int, ...], more: str, kind: str = "") -> str:
    """A convolution with bias and GELU; the values are of no matter."""
    made = f"torch.ones{image}{kind}, torch.ones{weight}{kind}, torch.ones({weight[0]}){kind}"
    return function("x, w, b", f"F.gelu(F.conv2d(x, w, b, {more}))", made)


UP = function(
    "x, w", "torch.relu(F.conv_transpose2d(x, w, None, 2, 1))",
    "torch.ones(8, 128, 16, 16).half(), torch.ones(128, 64, 4, 4).half()",
)  # fmt: skip
BLOCK = reference(
    """    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x):
        y = F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return y.mean((2, 3)) * 2 * 3""",
    "torch.randn(2, 3, 8, 10)",
)
# A form each, with its pattern and its tunables; those with a product use tensor cores.
PRODUCTS: dict[str, tuple[str, str, dict[str, Parameter]]] = {
    "by channels": (layer((16, 64, 56, 56), (64, 64, 3, 3), "padding=1"), "convolution", {}),
    "in bfloat16": (
        layer((16, 64, 56, 56), (64, 64, 3, 3), "padding=1"),
        "convolution",
        {"precision": "bf16x3"},
    ),
    "places first": (layer((8, 32, 56, 56), (32, 32, 3, 3), "", HALF), "convolution", {}),
    "up": (UP, "transposed_convolution", {}),
}
OTHERS: dict[str, tuple[str, str, dict[str, Parameter]]] = {
    "depthwise": (
        layer((8, 128, 56, 56), (128, 1, 3, 3), "padding=1, groups=128"), "convolution", {}
    ),
    "pool": (function("x", "F.max_pool2d(x, 7, 1, 3)", "torch.ones(8, 64, 56, 56)"), "pooling", {}),
    "statistics": (
        function("x", "x.var((0, 2, 3))", "torch.ones(8, 64, 56, 56)"), "column_statistics", {}
    ),
}  # fmt: skip


def compiles(names: tuple[str, ...]) -> None:
    """Every kernel without spills, and with tensor cores where there is a product."""
    cases = {name: {**PRODUCTS, **OTHERS}[name] for name in names}
    made = compiled({name: (in_triton(*case), case[0]) for name, case in cases.items()})
    assert spilled(made) == set()
    for name in set(names) & set(PRODUCTS):
        cores = {kernel.capability: kernel.tensor_core for kernel in made[name]}
        assert (cores[80].mma > 0, cores[90].wgmma > 0, cores[100].tcgen05 > 0) == (True,) * 3, name


def test_kernels_compile_for_three_generations_without_spills_and_with_tensor_cores() -> None:
    compiles(("by channels", "pool"))


@pytest.mark.exhaustive
def test_kernels_of_every_form_compile_for_three_generations_without_spills() -> None:
    compiles(tuple(name for name in (*PRODUCTS, *OTHERS) if name not in ("by channels", "pool")))


def test_patterns_compose_to_a_network_that_equals_float64() -> None:
    program = Program.of(build(BLOCK, ()).graph, BLOCK, "triton")
    for name in ("algebra", "convolution", "column_statistics", "pooling", "row_loop"):
        answer = load_pattern(name).propose(program, SITUATION)
        if not isinstance(answer, Refusal):
            program = load_pattern(name).apply(program, answer[0].step)
    assert {kernel.language for kernel in program.kernels} == {"triton"}
    assert len(program.steps) == 5
    (answer,) = interpret([Candidate(candidate=emit(program), reference=BLOCK)])
    assert answer == Interpreted(complaints=())
    pages = load_pattern("output_pages")
    refusal = pages.propose(program, SITUATION)
    assert isinstance(refusal, Refusal)
    assert "GPU" in refusal.reason
    with pytest.raises(ValueError, match="GPU"):
        pages.apply(program, Step(pattern="output_pages"))


@pytest.mark.parametrize("name", ["by channels", "up", "pool", "statistics"])
def test_proposals_are_priced_and_can_all_be_applied(name: str) -> None:
    source, pattern, _ = {**PRODUCTS, **OTHERS}[name]
    program = Program.of(build(source, ()).graph, source, "triton")
    proposals = load_pattern(pattern).propose(program, SITUATION)
    assert not isinstance(proposals, Refusal)
    known = load_cards()[pattern].tunables
    for proposal in proposals:
        assert proposal.speedup > 0
        assert load_pattern(pattern).apply(program, proposal.step).kernels
        for tunable, value in proposal.step.parameters.items():
            assert value in known[tunable], tunable


@pytest.mark.parametrize("pattern", ["convolution", "transposed_convolution", "pooling"])
def test_unknown_tunables_are_errors_and_those_of_another_backend_too(pattern: str) -> None:
    wrong: list[dict[str, Parameter]] = [{"warps": 3}, {"strip": 512}, {"panels": 4}]
    source = next(s for s, of, _ in {**PRODUCTS, **OTHERS}.values() if of == pattern)
    for parameters in wrong:
        with pytest.raises(ValueError, match="unknown tunables"):
            in_triton(source, pattern, parameters)
    program = Program.of(build(source, ()).graph, source)
    with pytest.raises(ValueError, match=r"unknown tunables|a strip"):
        load_pattern(pattern).apply(
            program, Step(pattern=pattern, parameters={"warps": 4, "panels": 3, "strip": "a"})
        )


def test_what_stays_with_the_library_is_told_why() -> None:
    cases = {
        "convolution": ("F.conv2d(x.double(), w.double())", "not in float32"),
        "transposed_convolution": ("F.conv_transpose2d(x.double(), w.double())", "not float64"),
    }
    for pattern, (call, why) in cases.items():
        source = function("x, w", call, "torch.randn(1, 3, 5, 5), torch.randn(3, 3, 2, 2)")
        program = Program.of(build(source, ()).graph, source, "triton")
        answer = load_pattern(pattern).propose(program, SITUATION)
        assert isinstance(answer, Refusal)
        assert why in answer.reason

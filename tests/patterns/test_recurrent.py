"""Recurrent nets through the persistent kernel, against float64; and what it leaves alone."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.opgraph import line_of
from knowledge.pattern import Refusal, Step, load_pattern
from knowledge.program import Program
from tests.patterns.workshop import SITUATION, Built, build, complaints, reference
from tools.trace import trace

BODY = """    def __init__(self):
        super().__init__()
        self.net = nn.{net}

    def forward(self, {arguments}):
        {body}"""
PATTERN = load_pattern("recurrent")
FAST = settings(max_examples=6, suppress_health_check=list(HealthCheck))
NETS = {
    "lstm": ("LSTM(9, 37)", "x", "return self.net(x)[0]"),
    "lstm_deep": (
        "LSTM(9, 20, num_layers=3, bidirectional=True, batch_first=True)", "x, h, c",
        "o, (h, c) = self.net(x, (h, c)); return o, h, c",
    ),
    "gru": ("GRU(9, 37, batch_first=True)", "x", "return self.net(x)[0]"),
    "gru_deep": (
        "GRU(9, 20, num_layers=2, bias=False, bidirectional=True)", "x, h", "return self.net(x, h)"
    ),
    "tanh": ("RNN(9, 37, num_layers=2)", "x, h", "return self.net(x, h)[1]"),
    "relu": ("RNN(9, 37, nonlinearity='relu')", "x", "return self.net(x)[0].flip(0)"),
}  # fmt: skip
STATES = {"lstm_deep": (2, 6, 20), "gru_deep": (1, 4, 20), "tanh": (1, 2, 37)}


def net(name: str, split: str = "auto", batch: int = 5, time: int = 4) -> Built:
    """One of the nets, built for a batch and a number of time steps."""
    module, arguments, body = NETS[name]
    shapes = [(batch, time, 9) if "batch_first" in module else (time, batch, 9)]
    count, layers, units = STATES.get(name, (0, 0, 0))
    shapes += [(layers, batch, units)] * count
    inputs = ", ".join(f"torch.randn({shape})" for shape in shapes)
    source = reference(BODY.format(net=module, arguments=arguments, body=body), inputs)
    return build(source, (Step(pattern="recurrent", parameters={"split": split}),))


@pytest.mark.parametrize("name", NETS)
def test_net_is_one_kernel_and_as_right_as_the_reference(name: str) -> None:
    built = net(name)
    assert len(built.program.kernels) == 1
    assert not any("zeros" in call.target for call in built.program.library_calls)
    assert complaints(built) == []


@FAST
@given(st.sampled_from(["gru", "gru_deep", "lstm"]), st.integers(1, 40), st.integers(1, 130))
def test_sizes_come_at_run_time(name: str, batch: int, time: int) -> None:
    assert complaints(net(name, batch=batch, time=time)) == []


@pytest.mark.parametrize("split", ["units", "rows"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_however_threads_divide_the_work_the_result_is_right(split: str, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert complaints(net("lstm_deep", split, batch=7)) == []
        assert complaints(net("lstm", split, batch=7)) == []
    finally:
        torch.set_num_threads(before)


def test_a_batch_other_than_the_traced_one_is_taken() -> None:
    built = net("gru")
    assert complaints(built, [torch.randn(11, 4, 9)]) == []


def test_inputs_need_not_be_contiguous() -> None:
    assert complaints(net("gru"), [torch.randn(4, 5, 18)[..., ::2].transpose(0, 1)]) == []


@pytest.mark.parametrize("name", ["lstm", "gru", "relu"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_are_not_finite_come_out_where_they_should(name: str, value: float) -> None:
    built = net(name)
    x = built.inputs[0].clone()
    x[1, 2, 3] = value
    assert complaints(built, [x]) == []


def test_a_long_sequence_stays_as_exact_as_the_reference() -> None:
    assert complaints(net("tanh", batch=2, time=700)) == []


def test_a_state_of_another_shape_is_refused_when_it_runs() -> None:
    built = net("gru_deep")
    with pytest.raises(ValueError, match=r"made for|does not have the shape"):
        built.candidate()(built.inputs[0], torch.randn(4, 3, 20))


def _refusal(module: str, inputs: str = "torch.randn(3, 4, 8)", double: bool = False) -> str:
    body = BODY.format(net=module, arguments="x", body="return self.net(x)[0]")
    built = build(reference(body, inputs), ())
    program = built.program
    if double:
        graph = trace(built.model.double(), tuple(x.double() for x in built.inputs))
        program = Program.of(graph, built.program.reference_source)
    answer = PATTERN.propose(program, SITUATION)
    assert isinstance(answer, Refusal)
    with pytest.raises(ValueError, match="no recurrent call"):
        PATTERN.apply(program, Step(pattern="recurrent"))
    return answer.reason


def test_what_it_cannot_do_is_refused_with_a_sentence() -> None:
    assert "proj_size" in _refusal("LSTM(8, 6, proj_size=3)")
    assert "at random" in _refusal("LSTM(8, 6, num_layers=2, dropout=0.5)")
    assert "float64" in _refusal("GRU(8, 7)", double=True)
    assert "no recurrent call" in _refusal("Linear(8, 7)")


def test_proposals_hold_the_kernel_against_the_measured_call() -> None:
    program = net("lstm").program
    plain = Program.of(program.graph, program.reference_source)
    call = next(node for node in plain.graph.calls if node.target == "aten.lstm.input")
    situation = SITUATION.model_copy(update={"call_ms": {line_of(call): 5.0}})
    proposals = PATTERN.propose(plain, situation)
    assert isinstance(proposals, list)
    assert [p.step.parameters["split"] for p in proposals] == ["auto", "units", "rows"]
    assert proposals[0].speedup > 10
    assert "GFLOP" in proposals[0].arithmetic


def test_an_unknown_split_is_an_error() -> None:
    program = build(net("lstm").program.reference_source, ()).program
    with pytest.raises(ValueError, match="unknown split"):
        PATTERN.apply(program, Step(pattern="recurrent", parameters={"split": "time"}))

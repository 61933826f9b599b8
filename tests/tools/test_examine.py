"""Facts of a reference: operations, traffic, shapes."""

import pytest

from knowledge.opgraph import TensorSpec
from tools.examine import distinct_bytes, examine
from tools.facts import ReferenceFacts
from tools.reference import load
from tools.task import InputSpec, Task

HEAD = "import torch\nimport torch.nn.functional as F\n\nclass Model(torch.nn.Module):\n"
TASK = Task(name="t", op="torch.relu", inputs=(InputSpec(shape=(1,)),))


def facts_of(expression: str, inputs: str, init: str = "pass") -> ReferenceFacts:
    source = (
        f"{HEAD}    def __init__(self):\n        super().__init__()\n        {init}\n\n"
        f"    def forward(self, x, *more):\n        {expression}\n\n"
        f"def get_inputs():\n    return [{inputs}]\n"
    )
    return examine(load(source, "op.py"), TASK)


def test_a_pointwise_op_does_one_operation_an_element_and_moves_both_tensors() -> None:
    facts = facts_of("return torch.relu(x)", "torch.randn(8, 16)")
    assert facts.flops == 128
    assert facts.moved_bytes == 2 * 128 * 4
    assert facts.inputs[0].shape == facts.outputs[0].shape == (8, 16)
    assert facts.graph is not None


def test_a_reduction_counts_what_it_reads() -> None:
    facts = facts_of("return x.sum(-1)", "torch.randn(8, 16)")
    assert facts.flops == 128
    assert facts.moved_bytes == 128 * 4 + 8 * 4


def test_a_matrix_product_counts_multiply_adds_as_two_and_its_weights_once() -> None:
    facts = facts_of(
        "return torch.relu(self.a(x))", "torch.randn(8, 16)", "self.a = torch.nn.Linear(16, 4)"
    )
    assert facts.flops == 2 * 8 * 16 * 4 + 8 * 4
    assert facts.moved_bytes == 4 * (8 * 16 + 4 * 16 + 4 + 8 * 4)


def test_views_and_copies_of_the_shape_alone_cost_nothing() -> None:
    facts = facts_of("return x.reshape(16, 8).t() + torch.zeros_like(x)", "torch.randn(8, 16)")
    assert facts.flops == 128
    assert facts.moved_bytes == 2 * 128 * 4


def test_a_lookup_counts_the_rows_it_reads_and_not_the_table() -> None:
    facts = facts_of(
        "return self.table(x)", "torch.zeros(5, dtype=torch.int64)",
        "self.table = torch.nn.Embedding(1000, 8)",
    )  # fmt: skip
    assert facts.moved_bytes == 5 * 8 + 2 * 5 * 8 * 4


def test_a_slice_counts_what_it_takes() -> None:
    assert facts_of("return x[:2] * 2", "torch.randn(100, 4)").moved_bytes == 2 * 8 * 4


def test_a_tensor_that_is_sliced_here_and_read_whole_there_counts_once() -> None:
    facts = facts_of("return x[:2] * 2, x + 1", "torch.randn(100, 4)")
    assert facts.moved_bytes == 4 * (400 + 8 + 400)


def test_an_argument_that_is_never_read_costs_nothing() -> None:
    facts = facts_of("return x + 1", "torch.randn(4), torch.randn(1000)")
    assert facts.moved_bytes == 32
    assert len(facts.inputs) == 2


def test_an_expanded_dimension_is_read_once() -> None:
    expanded = TensorSpec(shape=(8, 1000), dtype="float32", strides=(1, 0))
    assert distinct_bytes(expanded) == 32
    assert distinct_bytes(TensorSpec(shape=(), dtype="float64", strides=())) == 8
    assert distinct_bytes(TensorSpec(shape=(0, 3), dtype="int8", strides=(3, 1))) == 0


def test_an_op_without_a_graph_still_has_facts_and_a_reason() -> None:
    facts = facts_of("return x * 2 if x.sum() > -1e9 else x", "torch.randn(8, 16)")
    assert facts.graph is None
    assert "\n" not in facts.untraceable
    assert facts.untraceable
    assert facts.moved_bytes == 2 * 128 * 4


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_that_packs_away_its_padding_has_no_graph() -> None:
    facts = facts_of(
        "return self.encoder(x, src_key_padding_mask=more[0])",
        "torch.randn(2, 5, 8), torch.arange(5).expand(2, 5) > 2",
        "layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True); "
        "self.encoder = torch.nn.TransformerEncoder(layer, 2); self.eval()",
    )
    assert facts.graph is None
    assert "something else" in facts.untraceable


def test_the_digest_is_that_of_the_source() -> None:
    first, second = (facts_of(f"return x + {n}", "torch.randn(4)") for n in (1, 2))
    assert first.digest != second.digest
    assert len(first.digest) == 64


def test_what_forward_itself_keeps_is_no_attribute_that_a_kernel_will_find() -> None:
    facts = facts_of(
        "self.kept = torch.ones(4) if self.kept is None else self.kept; return x * self.kept",
        "torch.randn(8, 4)", "self.kept = None",
    )  # fmt: skip
    assert facts.graph is not None
    assert "buffer" not in {node.kind for node in facts.graph.nodes}

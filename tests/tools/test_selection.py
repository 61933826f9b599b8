"""What a mask selects has a graph of fixed shapes where it ends in a sum; elsewhere it has none."""

import re
from collections.abc import Callable

import pytest
import torch

from tests.patterns.workshop import build, complaints, function, load
from tools.calls import replay
from tools.trace import Untraceable, trace

Graph = Callable[[list[torch.Tensor]], list[torch.Tensor]]
TWO = "torch.randn(7, 9), torch.rand(7, 9) > 0.4"
THREE = "torch.rand(7, 9), torch.rand(7, 9), torch.rand(7, 9) > 0.4"
ROWS = "torch.randn(7, 9), torch.rand(7) > 0.4"
LABELS = "torch.randn(4, 6, 50), torch.randint(0, 50, (4, 6)), torch.rand(4, 6) > 0.4"
SUMMED = {
    "a mean": ("x, m", "x[m].mean()", TWO),
    "a sum in another type": ("x, m", "x[m].sum(dtype=torch.float64)", TWO),
    "halves": ("x, m", "x.bfloat16()[m].mean()", TWO),
    "masked_select": ("x, m", "torch.masked_select(x * x, m).mean()", TWO),
    "what is not selected too": ("x, m", "x[m].exp().mean() - (x[~m] ** 2).sum() / m.sum()", TWO),
    "two of one mask": ("x, y, m", "((x[m] - y[m]).abs() / 3).mean()", THREE),
    "two masks": ("x, y, m", "x[m].sum() - y[y > 0.5].mean()", THREE),
    "rows, along them first": ("x, m", "F.log_softmax(x[m] * 2, dim=-1).sum(-1).mean()", ROWS),
    "columns": ("x, m", "x[m].mean(0), x[m].sum(dim=0, keepdim=True)", ROWS),
    "classes": ("x, t, m", "F.cross_entropy(x[m], t[m])", LABELS),
    "smoothed classes": ("x, t, m", "F.cross_entropy(x[m], t[m], label_smoothing=0.1)", LABELS),
    "ignored classes": ("x, t, m", "F.cross_entropy(x[m], t[m], ignore_index=3)", LABELS),
    "squares": ("x, y, m", "F.mse_loss(x[m], y[m])", THREE),
    "probabilities": ("x, y, m", "F.binary_cross_entropy(x[m], y[m], reduction='sum')", THREE),
    "divergence": ("x, y, m", "F.kl_div(x[m].log(), y[m], reduction='batchmean')", THREE),
}
REFUSED = {
    "returned": ("x, m", "x[m]", TWO),
    "sorted": ("x, m", "x[m].sort()[0].mean()", TWO),
    "counted": ("x, m", "x[m].sum() / x[m].shape[0]", TWO),
    "changed": ("x, m", "x[m].add_(1).mean()", TWO),
    "of two masks at once": ("x, y, m", "(x[m] * y[(y > 2) | m]).sum()", THREE),
    "along the rows": ("x, m", "torch.softmax(x[m], 0).sum()", ROWS),
    "weighted classes": ("x, t, m", "F.cross_entropy(x[m], t[m], weight=x[0, 0].exp())", LABELS),
    "median": ("x, m", "x[m].median()", TWO),
}


def traced(case: tuple[str, str, str]) -> tuple[torch.nn.Module, list[torch.Tensor], Graph]:
    """A model, its inputs, and a function that computes its graph."""
    module = load(function(*case))
    torch.manual_seed(0)
    model, inputs = module.Model(), module.get_inputs()
    graph = trace(model, tuple(inputs), [tuple(module.get_inputs()) for _ in range(2)])
    return model, inputs, lambda given: replay(graph, model, tuple(given))


@pytest.mark.parametrize("name", SUMMED)
def test_a_selection_that_is_summed_up_is_a_masked_sum(name: str) -> None:
    model, inputs, graph = traced(SUMMED[name])
    *others, mask = inputs
    nothing = torch.zeros_like(mask)
    for given in (inputs, [*others, ~mask], [*others, torch.ones_like(mask)], [*others, nothing]):
        expected = model(*given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(graph(given), expected, strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("name", ["a mean", "two of one mask", "squares", "probabilities"])
def test_what_was_not_selected_does_not_matter(name: str) -> None:
    model, inputs, graph = traced(SUMMED[name])
    *others, mask = inputs
    marred = [torch.where(mask, x, float("nan")) for x in others]
    torch.testing.assert_close(graph([*marred, mask])[0], model(*inputs))


def test_a_label_that_was_not_selected_may_be_no_class() -> None:
    model, (x, t, mask), graph = traced(SUMMED["classes"])
    torch.testing.assert_close(graph([x, torch.where(mask, t, 999), mask])[0], model(x, t, mask))


@pytest.mark.parametrize("name", REFUSED)
def test_other_selections_have_no_graph_and_the_sentence_says_why(name: str) -> None:
    with pytest.raises(Untraceable, match="values"):
        traced(REFUSED[name])


@pytest.mark.parametrize("name", ["a mean", "classes", "rows, along them first", "squares"])
def test_a_kernel_is_made_of_it(name: str) -> None:
    built = build(function(*SUMMED[name]), None)
    assert built.program.kernels
    assert complaints(built) == []


GUARD = re.compile(r"^ +if \(!?v\d+_\w+\) \{$", re.MULTILINE)


@pytest.mark.parametrize(
    ("expression", "guarded"),
    [
        ("F.cross_entropy(x[m], t[m])", True),
        ("torch.where(m, x.logsumexp(-1), 0).sum()", True),
        ("x.square().mean(-1).masked_fill(m, 2.0)", True),
        ("torch.where(m, x.logsumexp(-1), 0).sum() + x.amax()", False),
        ("torch.where(m[..., None], x, 0)", False),
    ],
)
def test_rows_that_count_for_nothing_are_not_swept(expression: str, guarded: bool) -> None:
    built = build(function("x, t, m", expression, LABELS), None)
    assert bool(GUARD.search(built.source)) == guarded
    x, t, mask = built.inputs
    for given in (mask, ~mask, torch.ones_like(mask)):
        assert complaints(built, [x, t, given]) == []

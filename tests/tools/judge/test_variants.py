import math

import torch

from tools.judge.inputs import generator
from tools.judge.variants import offset, other_sizes, turned, with_special


def draw():
    return (torch.randn(8, 5, 6), torch.randn(8), torch.randn(3, 3))


def batches(which):
    return [[tuple(t.shape)[:1] for t in inputs] for inputs in other_sizes(draw, 0, which)]


def test_the_batch_is_varied_in_every_tensor_that_has_it_and_nowhere_else():
    one, *_ = other_sizes(draw, 0, "one")
    assert [tuple(tensor.shape) for tensor in one] == [(1, 5, 6), (1,), (3, 3)]


def test_a_single_row_is_never_asked_of_one_tensor_alone_since_that_could_broadcast():
    assert batches("one") == [[(1,), (1,), (3,)]]
    assert any(first != (8,) and second == (8,) for first, second, _ in batches("fewer"))


def test_a_smaller_batch_is_a_prime_that_nobody_can_foresee():
    firsts = {batches("fewer")[0][0] for _ in range(40)}
    assert firsts == {(3,), (5,), (7,)}


def test_an_odd_size_is_one_more_where_memory_allows_and_else_one_less():
    first, *_ = other_sizes(draw, 0, "beside")
    assert first[0].shape[0] == 9
    big = (torch.empty(64, 1 << 20),)
    only, *_ = other_sizes(lambda: big, 0, "beside")
    assert only[0].shape[0] == 63


def test_turned_and_offset_inputs_hold_the_same_values_in_other_places():
    given = draw()
    for made in (turned(given), offset(given)):
        assert all(torch.equal(a, b) for a, b in zip(made, given, strict=True))
    assert not any(tensor.is_contiguous() for tensor in turned(given))
    assert all(tensor.is_contiguous() for tensor in offset(given))
    assert all(tensor.storage_offset() == 1 for tensor in offset(given))


def test_only_the_first_floating_tensor_gets_a_nan():
    made = with_special((torch.arange(4), *draw()), math.nan, generator())
    assert [bool(tensor.isnan().any()) for tensor in made] == [False, True, False, False]
    assert with_special((torch.arange(4),), math.nan, generator()) is None

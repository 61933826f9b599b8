"""Whatever forward returns is copied out as it is, or not at all."""

import pytest
import torch

from tools.runner.handover import Owed, spread

RESULTS = {
    "plain": torch.randn(4, 6),
    "transposed": torch.randn(6, 4).T,
    "with gaps": torch.randn(4, 12)[:, ::2],
    "repeated": torch.randn(6).expand(4, 6),
    "negated when it is read": torch.complex(torch.zeros(4, 6), torch.randn(4, 6)).conj().imag,
    "a parameter": torch.nn.Parameter(torch.randn(4, 6)),
}
MISFITS = {
    "another shape": torch.randn(6, 4),
    "another dtype": torch.randn(4, 6, dtype=torch.float64),
    "elsewhere": torch.empty(4, 6, device="meta"),
    "two of them": (torch.randn(4, 6), torch.randn(4, 6)),
    "none": None,
    "no tensor": "right",
}


@pytest.mark.parametrize("how", RESULTS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_tensor_is_copied_however_it_lies(how, packed):
    place = torch.full((4, 6), 7.0)
    assert Owed([place]).take([RESULTS[how]] if packed else RESULTS[how])
    assert torch.equal(place, RESULTS[how].detach().resolve_neg())


@pytest.mark.parametrize("how", MISFITS)
def test_what_is_not_owed_is_not_copied(how):
    place = torch.full((4, 6), 7.0)
    assert not Owed([place]).take(MISFITS[how])
    assert bool((place == 7.0).all())


def test_several_results_go_to_their_places_and_none_stays_none():
    places = [torch.zeros(3), torch.zeros(2, dtype=torch.int64)]
    owed = Owed(spread(places, (1,)))
    assert not owed.take((torch.ones(3), torch.ones(2, dtype=torch.int64)))
    assert owed.take({"a": torch.ones(3), "b": None, "c": torch.ones(2, dtype=torch.int64)})
    assert all(bool((place == 1).all()) for place in places)


def test_inputs_that_were_written_to_follow_the_results():
    places = [torch.zeros(3), torch.zeros(2)]
    assert Owed(places).take(torch.ones(3), [torch.full((2,), 2.0)])
    assert places[1].tolist() == [2.0, 2.0]
    # A single place and an input written to: that is owed, and forward returns nothing.
    assert Owed(places[:1]).take((), [torch.full((3,), 3.0)])
    assert places[0].tolist() == [3.0, 3.0, 3.0]
    assert not Owed(places[:1]).take(torch.ones(3), [torch.ones(3)])

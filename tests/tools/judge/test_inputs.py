import torch

from tools.judge.inputs import (
    DISTRIBUTIONS,
    Perturbation,
    changed,
    generator,
    redraw_weights,
)


def test_a_perturbation_keeps_the_distribution_and_changes_the_answer():
    values = torch.randn(100, 100)
    before = values.clone()
    Perturbation([values], values.numel()).touch()
    different = int((values != before).sum())
    assert 0 < different <= 48
    assert set(values.flatten().tolist()) <= set(before.flatten().tolist())


def test_no_element_stays_where_it_was_when_a_set_is_renewed():
    values = torch.randn(64, 80)
    before = values.clone()
    perturbation = Perturbation([values], values.numel())
    for _ in range(3):
        earlier = values.clone()
        perturbation.renew()
        assert float((values != earlier).float().mean()) > 0.99
        assert torch.equal(values.flatten().sort().values, before.flatten().sort().values)


def test_a_set_whose_order_is_part_of_the_op_stays_as_it_was_drawn():
    values = torch.randn(64)
    before = values.clone()
    perturbation = Perturbation([values], 1, fragile=True)
    perturbation.renew()
    perturbation.touch()
    assert torch.equal(values, before)


def test_where_an_op_folds_much_into_little_the_result_still_changes():
    values = torch.rand(1 << 16)
    perturbation = Perturbation([values], 1)
    mean = values.double().mean()
    perturbation.touch()
    assert abs(values.double().mean() - mean) > 1e-4
    large = values.max()
    for _ in range(5):
        perturbation.renew()
        perturbation.touch()
    assert int((values > 2).sum()) == 1
    assert large > 2


def test_sorted_integers_stay_sorted():
    offsets = torch.arange(0, 1000, 10)
    perturbation = Perturbation([offsets], 10)
    perturbation.renew()
    perturbation.touch()
    assert torch.equal(offsets, torch.arange(0, 1000, 10))


def test_integers_are_left_alone_by_changes_of_scale():
    floats, integers = torch.ones(4), torch.arange(4)
    made = changed((floats, [integers], 3), lambda tensor, _: tensor * 32, generator())
    assert torch.equal(made[0], torch.full((4,), 32.0))
    assert torch.equal(made[1][0], integers)
    assert made[2] == 3


def test_numbers_of_one_sign_are_given_both_and_others_stay():
    (signed,) = [one for one in DISTRIBUTIONS if one.name == "signed"]
    drawn, mixed = torch.rand(64, 9) + 0.1, torch.randn(64, 9)
    repeated = torch.rand(9).expand(64, 9)
    for given in (drawn, -drawn):
        (made,) = changed((given,), signed.change, generator())
        assert torch.equal(made.abs(), drawn)
        assert 0.3 < float((made > 0).float().mean()) < 0.7
    for given in (mixed, torch.zeros(4), repeated, torch.empty(0)):
        assert changed((given,), signed.change, generator())[0] is given


def test_constant_weights_get_a_spread_when_they_are_drawn_anew():
    norm = torch.nn.LayerNorm(64)
    redraw_weights(norm, generator())
    assert norm.weight.std() > 0.05
    assert norm.bias.std() > 0.05
    assert abs(norm.weight.mean() - 1) < 0.1


def test_a_permutation_stays_one_whatever_is_exchanged():
    places = torch.randperm(50)
    change = Perturbation([places], 50)
    for _ in range(200):
        change.renew()
        before = places.clone()
        change.touch()
        assert not torch.equal(places, before)
        assert places.sort().values.tolist() == list(range(50))

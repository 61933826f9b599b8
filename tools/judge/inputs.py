"""What forward is given: other values in every case, and fresh ones in every timed call.

Seeds come from the operating system's own generator and leave the judge's process in no form but
the tensors themselves.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

SWAPS = 24
# Where many elements are folded into few, a swap changes nothing that shows; one large element
# does.
FOLDING = 4096
Change = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def secret_seed() -> int:
    """A seed that nobody can guess."""
    return secrets.randbits(63)


def generator(seed: int | None = None) -> torch.Generator:
    """A generator of the judge's own, apart from the global one that references draw from."""
    return torch.Generator().manual_seed(secret_seed() if seed is None else seed)


def _constant_row(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    if tensor.dim() < 2 or not tensor.shape[0] or 0 in tensor.stride():
        return tensor
    made = tensor.clone()
    row = int(torch.randint(tensor.shape[0], (1,), generator=chance))
    made[row] = made[row].reshape(-1)[0]
    return made


# In the order of what they find; a task with a slow reference gets the first ones only.
CHANGES: tuple[tuple[str, Change], ...] = (
    ("large", lambda tensor, _: tensor * 32),
    ("shifted", lambda tensor, _: tensor + 3),
    ("tiny", lambda tensor, _: tensor * 1e-3),
    ("a constant row", _constant_row),
)


def changed(inputs: tuple[Any, ...], change: Change, chance: torch.Generator) -> tuple[Any, ...]:
    """The same inputs with every floating tensor changed; integers and flags stay what they are."""
    made: tuple[Any, ...] = pytree.tree_map_only(
        torch.Tensor,
        lambda tensor: change(tensor, chance) if tensor.is_floating_point() else tensor,
        inputs,
    )
    return made


def has_floats(inputs: tuple[Any, ...]) -> bool:
    """Whether any input can be changed by `changed`."""
    return any(
        isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        for leaf in pytree.tree_leaves(inputs)
    )


def redraw_weights(model: torch.nn.Module, chance: torch.Generator) -> None:
    """New values for every floating parameter, with the mean and spread that it had.

    A parameter that starts out constant (a norm's ones, a bias of zeros) gets a spread of a tenth,
    so that a kernel which left it out is found.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            values = parameter.double()
            mean = values.mean()
            spread = values.std(correction=0)
            if spread < 1e-6 * mean.abs().clamp(min=1e-6):
                spread = 0.1 * torch.where(mean == 0, 1.0, mean.abs())
            noise = torch.randn(parameter.shape, generator=chance, dtype=torch.float64)
            parameter.copy_(mean + spread * noise)


class Perturbation:
    """Small changes that keep a distribution, written into a set right before a timed call.

    Swapping a few elements leaves pointers, sums and every sampled fingerprint but the values at
    those places as they were, which is what a cached answer would be found by.

    Args:
        tensors: the judge's writable views of the set.
        output_elements: how many elements the op returns in all.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], output_elements: int) -> None:
        self._chance = generator()
        self._flat = [storage(tensor) for tensor in tensors if tensor.numel() > 1]
        self._flat = [flat for flat in self._flat if not _ordered(flat)]
        total = sum(flat.numel() for flat in self._flat)
        self._folding = total > FOLDING * max(1, output_elements)
        self._before: list[tuple[torch.Tensor, int, torch.Tensor]] = []

    def apply(self) -> None:
        """Change the set, and undo the one outstanding element of the last change."""
        for flat, place, value in self._before:
            flat[place] = value
        self._before.clear()
        for flat in self._flat:
            count = min(SWAPS, flat.numel() // 2)
            places = torch.randint(flat.numel(), (2, count), generator=self._chance)
            taken = flat[places[0]]
            flat[places[0]] = flat[places[1]]
            flat[places[1]] = taken
            if self._folding and flat.is_floating_point():
                self._enlarge(flat)

    def _enlarge(self, flat: torch.Tensor) -> None:
        place = int(torch.randint(flat.numel(), (1,), generator=self._chance))
        self._before.append((flat, place, flat[place].clone()))
        sample = flat[:: max(1, flat.numel() // 1024)]
        flat[place] = float(sample.float().abs().mean()) * flat.numel() ** 0.5 / 4


def storage(tensor: torch.Tensor) -> torch.Tensor:
    """Every element that the tensor's span holds, in memory order."""
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((span,), (1,))


def _ordered(flat: torch.Tensor) -> bool:
    """Whether these are sorted integers (offsets, lengths), whose order is part of the op."""
    if flat.is_floating_point() or flat.is_complex() or flat.dtype is torch.bool:
        return False
    return bool((flat[1:] >= flat[:-1]).all()) and bool(flat[0] != flat[-1])

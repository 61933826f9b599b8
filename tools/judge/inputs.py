"""What forward is given: other values in every case, and fresh ones in every timed call.

Seeds come from the operating system's own generator and leave the judge's process in no form but
the tensors themselves.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

SWAPS = 24
# From so many inputs an output on, rolling and swapping may leave the result as it was.
FOLDING = 256
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


def _mixed_rows(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Rows of zeros, of small, of ordinary and of large values, side by side."""
    if tensor.dim() < 2 or 0 in tensor.stride():
        return tensor
    sizes = torch.tensor([0.0, 1e-3, 1.0, 64.0])
    which = torch.randint(len(sizes), (tensor.shape[0],), generator=chance)
    scale = sizes[which].reshape(-1, *[1] * (tensor.dim() - 1))
    return tensor * scale.to(tensor)


def _signed(tensor: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Of both signs, where all have the same: a kernel may not count on what merely was drawn."""
    if 0 in tensor.stride() or bool((tensor > 0).any()) == bool((tensor < 0).any()):
        return tensor
    signs = 1 - 2 * torch.randint(2, tensor.shape, generator=chance)
    return tensor * signs.to(tensor)


def _denormal(tensor: torch.Tensor, _: torch.Generator) -> torch.Tensor:
    return tensor * (torch.finfo(tensor.dtype).tiny / 16)


@dataclass(frozen=True)
class Distribution:
    """A way of changing ordinary values; of use where this share of the results stays finite.

    What is scaled up is looked at for overflow, not for its last bits: the relative error of exp(x)
    is that of x times x, so `slack` widens the tolerance with the scale. `ties`: equal values are
    made, among which an op that chooses may choose any.
    """

    name: str
    change: Change
    finite_share: float = 0.5
    slack: float = 1.0
    ties: bool = False


# In the order of what they find; a task with a slow reference gets the first ones only.
DISTRIBUTIONS = (
    Distribution("large", lambda tensor, _: tensor * 32, slack=4.0),
    # Where that makes anything NaN, as a root does, the other sign is none of the op's. What is
    # left of a sum whose terms cancel is small beside what was rounded on the way.
    Distribution("signed", _signed, finite_share=1.0, slack=4.0),
    Distribution("mixed rows", _mixed_rows, slack=8.0, ties=True),
    Distribution("tiny", lambda tensor, _: tensor * 1e-3),
    Distribution("shifted", lambda tensor, _: tensor + 3),
    Distribution("huge", lambda tensor, _: tensor * 1024, finite_share=1.0, slack=1024.0),
    # Equal terms are all rounded in one direction, so a long plain sum strays further than usual.
    Distribution("a constant row", _constant_row, slack=16.0, ties=True),
    Distribution("denormal", _denormal, finite_share=1.0, slack=1024.0),
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
            parameter.copy_(mean + spread * noise.to(parameter.device))


class Perturbation:
    """New values for a set before every timed call, from the very numbers that it was drawn with.

    `renew` rolls every tensor by a secret distance, so that no element stays where it was and
    nothing that was computed for an earlier call is of use. `touch` swaps a few elements, in the
    microseconds before the call: a kernel that had begun early would miss those.

    Args:
        tensors: the judge's writable views of the set.
        output_elements: how many elements the op returns in all.
        fragile: the op does not take its inputs' elements in another order: they stay as drawn.
    """

    def __init__(
        self, tensors: Sequence[torch.Tensor], output_elements: int, fragile: bool = False
    ) -> None:
        self._chance = generator()
        flats = [] if fragile else [storage(tensor) for tensor in tensors if tensor.numel() > 1]
        self._flat = [flat for flat in flats if not _ordered(flat)]
        self._drawn = [flat.clone() for flat in self._flat]
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._rolled = [0] * len(self._flat)
        total = sum(flat.numel() for flat in self._flat)
        self._folding = total > FOLDING * max(1, output_elements)

    @property
    def changes(self) -> bool:
        """Whether it changes anything: not where the order matters, nor single numbers."""
        return bool(self._flat)

    def renew(self) -> None:
        """Roll every tensor of the set by a distance of its own."""
        for number, (flat, drawn) in enumerate(zip(self._flat, self._drawn, strict=True)):
            # By any distance but the last one.
            further = int(torch.randint(flat.numel() - 1, (1,), generator=self._chance))
            by = self._rolled[number] = (self._rolled[number] + 1 + further) % flat.numel()
            flat[by:].copy_(drawn[: flat.numel() - by])
            flat[:by].copy_(drawn[flat.numel() - by :])
        # Drawn now, since a runner is awake when they are exchanged.
        self._pairs = [self._pair(flat) for flat in self._flat]

    def touch(self) -> None:
        """Swap a few elements; where an op folds very many into one, also make one element large.

        There a swap changes nothing that shows.
        """
        pairs, self._pairs = self._pairs or [self._pair(flat) for flat in self._flat], []
        for flat, (one, other) in zip(self._flat, pairs, strict=True):
            taken = flat[one]
            flat[one] = flat[other]
            flat[other] = taken
            if self._folding and flat.is_floating_point():
                self._enlarge(flat)

    def _pair(self, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places to be exchanged.

        None is there twice: of a permutation's numbers two would then be the same.
        """
        drawn = torch.unique(torch.randint(flat.numel(), (2 * SWAPS,), generator=self._chance))
        drawn = drawn[torch.randperm(len(drawn), generator=self._chance)].to(flat.device)
        half = len(drawn) // 2
        return drawn[:half], drawn[half : 2 * half]

    def _enlarge(self, flat: torch.Tensor) -> None:
        place = int(torch.randint(flat.numel(), (1,), generator=self._chance))
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

"""The subject: a task's reference, loaded, and what the judge finds out about it first.

Before any kernel is judged the task itself is: an op whose result is random, or remembered from
call to call, cannot be judged and is refused; one on which a wrong answer would pass gets a
caution.
"""

import copy
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from knowledge.errors import BadInput
from tools.facts import BLIND, CONSTANT, MUTATES
from tools.judge.buffers import InputSets
from tools.judge.case import Case
from tools.judge.compare import EXACT, compare, expect, relative_errors, typical_error
from tools.judge.inputs import secret_seed
from tools.judge.lane import Program
from tools.judge.oracle import Oracle, own, written_of
from tools.judge.room import least_needed
from tools.judge.site import Host, Site
from tools.materialise import materialise, packages_of
from tools.reference import load, named_tensors, tensors_of
from tools.runner.handover import Place, absent_from, leaves_of, spread
from tools.runner.values import CannotTravel, encode
from tools.task import Task

QUICK_SECONDS, QUICK_CALLS = 0.05, 20
# Of the whole numbers that an op returns, so many may hang on the order in which threads add.
FEW = 0.01


class Subject:
    """A loaded reference.

    Args:
        task: what is judged.
        site: where.

    Attributes:
        device: where its tensors are.
        reference_s: what one call takes, roughly; deadlines scale with it.
        input_bytes: size of one set of inputs.
        spare_bytes: of the memory, what judging does not need and may use.
        outputs: one set of outputs, for their shapes and dtypes; behind them what is left in the
            inputs that are written to.
        absent: places among what forward returns at which it returns None.
        aliases: for each output, whether it shares an input's memory in the reference.
        expanded: for each output, whether the reference returns it with a repeated dimension.
        written: places, among the tensors of the inputs, of those that the reference writes to.
        private: there are such.
        updated: names of the buffers and parameters that a call of forward changes.
        packages: paths of the user's own package, which a kernel may import as well: its class is
            derived from one in there.

    Raises:
        BadInput: the reference cannot be loaded or run, or not be judged.
    """

    def __init__(self, task: Task, site: Site | None = None) -> None:
        self.task = task
        self.site = site or Host()
        self.device = self.site.device
        self.origin = str(task.reference or task.definition or task.name)
        self.loaded = load(materialise(task), self.origin, self.device)
        self.packages = packages_of(task)
        self.oracle = Oracle(self.loaded)
        self.seed = secret_seed()
        self._free = self.site.free()
        self.model = self.loaded.build(self.seed)
        self._check_travel()
        self._first_look()

    def constructor(self, seed: int) -> tuple[Any, ...]:
        """What the module is constructed with: positional and named arguments."""
        return self.loaded.init_arguments(seed)

    def program(self, compile_it: bool, mode: str | None = None) -> Program:
        """The reference as a baseline runner loads it."""
        beside = (str(Path(self.origin).parent),) if self.task.reference is not None else ()
        return Program(self.loaded.source, "Model", compile_it, beside, mode, self.packages)

    def _check_travel(self) -> None:
        given = {
            "get_init_inputs()": self.constructor(self.seed),
            "get_inputs()": self.loaded.inputs(self.seed),
        }
        for part, values in given.items():
            try:
                encode(values, [])
            except CannotTravel as error:
                raise BadInput(
                    self.origin, f"{part} returns a {error}, which cannot be handed to a kernel.",
                    "Tensors, numbers, strings, lists and dicts can.",
                ) from error  # fmt: skip

    def _check_room(self, inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor]) -> None:
        """Refuse what can't be judged in the memory that there is, before it is gone."""
        weights = named_tensors(self.model).values()
        least = least_needed(inputs, weights, outputs)
        self.spare_bytes = max(0, self._free - least)
        if least > self._free:
            parts = [sum(t.nbytes for t in tensors) for tensors in (inputs, weights, outputs)]
            told = ", ".join(
                f"{name} {size / 2**30:.1f}"
                for name, size in zip(("inputs", "weights", "outputs"), parts, strict=True)
                if size
            )
            raise BadInput(
                self.origin,
                f"judging it takes at least {least / 2**30:.0f} GiB ({told}, several copies of "
                f"each), and {self._free / 2**30:.0f} GiB are free here.",
                "Make its sizes smaller; `python -m eval.run --scale-inputs` does so by itself.",
            )

    def _first_look(self) -> None:
        drawn = self.loaded.inputs(secret_seed())
        self._check_room(tensors_of(drawn), ())
        # As a runner gets them: tensors that share memory are two of them there.
        inputs = own(drawn)
        del drawn
        given = own(inputs)
        leaves = tensors_of(inputs)
        self.input_bytes = sum(leaf.nbytes for leaf in leaves)
        versions = [_version_of(leaf) for leaf in leaves]
        state = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.site.synchronise()
        began = time.perf_counter()
        returned = self.loaded.run(self.model, inputs, seed=0)
        self.site.synchronise()
        self.reference_s = time.perf_counter() - began
        self.updated = _differing(state, self.model)
        self.written = self.oracle.written = _written(given, inputs, versions)
        self.private = bool(self.written)
        self._check_plain(returned)
        self._check_room(leaves, tensors_of(returned))
        self.absent = self.oracle.absent = absent_from(returned)
        outputs = (*tensors_of(returned), *written_of(inputs, self.written))
        starts = [_extent(leaf) for leaf in leaves]
        self.aliases = tuple(any(a <= t.data_ptr() < b for a, b in starts) for t in outputs)
        self.expanded = tuple(_is_expanded(tensor) for tensor in outputs)
        self.outputs = tuple(tensor.detach().clone() for tensor in outputs)
        fresh = own(given)
        self.site.synchronise()
        began = time.perf_counter()
        again = self.loaded.run(self.model, fresh, seed=0)
        self.site.synchronise()
        self.reference_s = min(self.reference_s, time.perf_counter() - began)
        results = (*tensors_of(again), *written_of(fresh, self.written))
        if absent_from(again) != self.absent or not self._alike(results, FEW):
            raise BadInput(
                self.origin,
                "forward gives another result when it is called again on the same inputs.",
                "An op that remembers earlier calls can't be judged.",
            )  # fmt: skip
        self.model.load_state_dict(state)
        wavers = any(
            first.dtype in EXACT and not torch.equal(first, second)
            for first, second in zip(self.outputs, results, strict=True)
        )
        fresh = own(given)
        other = self.loaded.run(self.model, fresh, seed=1)
        results = (*tensors_of(other), *written_of(fresh, self.written))
        few = FEW if wavers else 0.0
        # Of what is the same whenever it is called, another seed must not change one element.
        if absent_from(other) != self.absent or not self._alike(results, few):
            raise BadInput(
                self.origin,
                "forward draws random numbers, and random outputs can't be judged yet.",
                "If it has dropout, call self.eval() in the constructor.",
            )  # fmt: skip
        self.model.load_state_dict(state)

    def share(self, sets: Sequence[tuple[Any, ...]]) -> InputSets:
        """Sets of inputs in memory that lanes may map."""
        return InputSets(sets, self.private, self.written)

    def name_of(self, place: int) -> str:
        """One of the outputs in words: among several, and where an input is what was written to."""
        owed = self.owed
        return self.name_at([at for at, one in enumerate(owed) if one is not None][place])

    def name_at(self, place: int) -> str:
        """As `name_of`, for a place among all that is owed."""
        returned = len(self.owed) - len(self.written)
        if place >= returned:
            return f"input {self.written[place - returned]}, as forward leaves it"
        return f"output {place}" if returned > 1 else "the output"

    @property
    def owed(self) -> list[Place]:
        """What a call has to return, and None at its places; behind it the inputs written to."""
        return spread(self.outputs, self.absent)

    @functools.cached_property
    def quick_s(self) -> float:
        """What one call of the reference takes at its best, roughly."""
        best = self.reference_s
        if best < QUICK_SECONDS:
            # A first call is several times slower than what is timed later.
            model, inputs = copy.deepcopy(self.model), self.loaded.inputs(secret_seed())
            with torch.no_grad():
                for _ in range(QUICK_CALLS):
                    began = time.perf_counter()
                    model(*inputs)
                    self.site.synchronise()
                    best = min(best, time.perf_counter() - began)
        return best

    def _check_plain(self, returned: Any) -> None:
        for leaf in leaves_of(returned):
            if leaf is None:
                continue
            if not isinstance(leaf, torch.Tensor):
                raise BadInput(
                    self.origin, f"forward returns a {type(leaf).__name__} among its outputs.",
                    "Return tensors, or None beside them.",
                )  # fmt: skip
            here = leaf.device.type == self.device.type
            if leaf.layout is not torch.strided or leaf.is_quantized or not here:
                raise BadInput(
                    self.origin, f"forward returns a {leaf.layout} tensor on {leaf.device.type}.",
                    f"Dense tensors on {self.device.type} can be judged here.",
                )  # fmt: skip

    def _alike(self, outputs: tuple[torch.Tensor, ...], few: float) -> bool:
        """Whether outputs equal the first ones up to a thousand roundings: threads may reorder.

        Whole numbers, such as the place of a maximum, may hang on these in a `few` elements, as a
        share of all.
        """
        if [t.shape for t in outputs] != [t.shape for t in self.outputs]:
            return False
        loose = self.task.tolerance.model_copy(update={"epsilons": 1000.0})
        matches = [
            compare(made.detach().contiguous(), expect(first, first), 0.0, loose, "strict")
            for made, first in zip(outputs, self.outputs, strict=True)
        ]
        return all(
            match.wrong <= (few * match.total if first.dtype in EXACT else 0)
            for match, first in zip(matches, self.outputs, strict=True)
        )

    def cautions(self, ordinary: Sequence[Case]) -> tuple[str, ...]:
        """What a reader of any verdict on this task must know; the canaries among them.

        Args:
            ordinary: two cases with ordinary inputs and the same weights.
        """
        found = [MUTATES] if self.private else []
        if self.oracle.caution:
            found.append(self.oracle.caution)
        earlier, later = ordinary
        blind: set[str] = set()
        constant = True
        task = self.task
        # Of the earlier truth just this is needed beside the later one: both may be large.
        answers, spread = earlier.truth.reference, [*map(relative_errors, earlier.expected)]
        for which, (answer, expected) in enumerate(zip(answers, later.expected, strict=True)):
            typical = typical_error([spread[which], relative_errors(expected)])
            passing = {
                name for name, wrong in _canaries(later.inputs, answer, later.truth.like[which])
                if compare(wrong, expected, typical, task.tolerance, task.precision).passed
            }  # fmt: skip
            blind = passing if which == 0 else blind & passing
            constant = constant and "the answer to another input" in passing
        if constant:
            return (*found, CONSTANT)
        return (*found, *(BLIND.format(what=what) for what in sorted(blind)))


def _canaries(
    inputs: tuple[Any, ...], earlier: torch.Tensor, output: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Wrong answers of the right shape, one at a time: what a lazy kernel would return.

    Args:
        inputs: of the case.
        earlier: the answer to another one.
        output: the shape and dtype of what is due.
    """
    yield "the answer to another input", earlier.contiguous()
    zeros = torch.zeros(output.shape, dtype=output.dtype, device=earlier.device)
    yield "all zeros", zeros
    if output.dtype.is_floating_point and output.numel():
        # Of the other answer: the mean of a single element is that element, and no lazy guess.
        yield "a constant", zeros.fill_(earlier.mean(dtype=torch.float64).item())
    for leaf in pytree.tree_leaves(inputs):
        if _is_tensor(leaf) and leaf.shape == output.shape and leaf.dtype == output.dtype:
            yield "an echo of the input", leaf.contiguous()
            break


def _differing(before: dict[str, torch.Tensor], model: torch.nn.Module) -> tuple[str, ...]:
    after = model.state_dict()
    return tuple(
        name for name, value in before.items()
        if not torch.equal(value.nan_to_num(), after[name].nan_to_num())
    )  # fmt: skip


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    start = tensor.untyped_storage().data_ptr()
    return start, start + tensor.untyped_storage().nbytes()


def _is_expanded(tensor: torch.Tensor) -> bool:
    return any(s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True))


def _written(
    before: tuple[Any, ...], after: tuple[Any, ...], versions: Sequence[int]
) -> tuple[int, ...]:
    """Places of the tensors that differ, or that torch wrote to.

    It may have written what was there, as a ReLU in place does to inputs that are all positive.
    """
    pairs = zip(tensors_of(before), tensors_of(after), versions, strict=True)
    return tuple(
        place for place, (a, b, version) in enumerate(pairs)
        if _version_of(b) != version or not torch.equal(a.nan_to_num(), b.nan_to_num())
    )  # fmt: skip


def _version_of(tensor: torch.Tensor) -> int:
    """How often torch wrote to it; of a tensor made in inference mode nobody counts that."""
    return 0 if tensor.is_inference() else tensor._version

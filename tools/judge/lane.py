"""A lane: one runner, the buffers it reads and writes, and the judge's calls through them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tools.judge.runners import Runner, RunnerForged
from tools.judge.wire import JudgeLimits
from tools.runner.device_memory import DeviceBundle, cuda_driver
from tools.runner.memory import Bundle, Layout, lay_out
from tools.runner.values import Encoded, encode

# All ones is NaN in every floating type; the second pattern is an ordinary number in all of them.
POISONS = (0xFF, 0x5A)
# Conversions to bfloat16, and GPUs, make a NaN of all ones; a run of this is a row of numbers so
# odd that no result holds it.
MARK, MARKED_BYTES = 0xA5, 8
SPARSE_POISON = 32
LATEST_NS = 1 << 62
# After a stop a process needs a moment to run again; much longer, and its worker threads give up
# spinning and go to sleep, whose waking then costs a short op several times its own time.
SETTLE_SECONDS = 0.0003
REFERENCE_MULTIPLE = 50.0
UNFIT = "a timed call returned something else than the checked ones"
CPU = torch.device("cpu")

Then = Literal["keep", "copy", "drop", "consume"]


@dataclass(frozen=True)
class Program:
    """What a runner is to load.

    `compile` has torch.compile wrap it, in a `mode` of its own; `search` are folders that its
    imports are looked up in, `packages` what it may import beside: paths of the user's own.
    """

    source: str
    class_name: str
    compile: bool = False
    search: tuple[str, ...] = ()
    mode: str | None = None
    packages: tuple[str, ...] = ()

    @property
    def visible(self) -> tuple[Path, ...]:
        """What its runner must be able to read."""
        return tuple(map(Path, (*self.search, *self.packages)))

    @property
    def path(self) -> tuple[str, ...]:
        """Where its imports are looked up."""
        return (*self.search, *(str(Path(package).parent) for package in self.packages))


@dataclass(frozen=True)
class Sample:
    """A timed burst of so many `calls`; what follows is for one of them, in ns by the judge.

    `claimed_ns` is the runner's own word, `copy_ns` what copying out the results took, `faults` are
    page faults. `waited_ns` is how long its threads stood in line for a processor, in the burst.
    On a device, `device_ns` is what its events say by the runner's word, and `after_ns` what the
    least work of the judge's took there when all was over.
    """

    calls: int
    call_ns: float
    copy_ns: float
    claimed_ns: float
    faults: float
    waited_ns: float
    device_ns: float = 0.0
    after_ns: float = 0.0


def shared_memory(
    name: str, layouts: Sequence[Layout], sealed: bool, device: torch.device
) -> Bundle | DeviceBundle:
    """Memory that the judge owns and a runner maps, where the tensors are."""
    if device.type == "cpu":
        return Bundle(name, layouts, sealed)
    return DeviceBundle(layouts, cuda_driver())


class InputSets:
    """Several sets of arguments of forward, in sealed shared memory that every lane may map.

    Args:
        sets: the arguments, all of the same shapes.
        private: lanes map them copy-on-write, for what may write to its inputs.
        written: places of those that the op writes to, which come back with its outputs.
    """

    def __init__(
        self, sets: Sequence[tuple[Any, ...]], private: bool, written: Sequence[int] = ()
    ) -> None:
        self.private = private
        self.written = tuple(written)
        self.bundles: list[Bundle | DeviceBundle] = []
        self.arguments: list[Encoded] = []
        for values in sets:
            tensors: list[torch.Tensor] = []
            self.arguments.append(encode(values, tensors))
            device = tensors[0].device if tensors else CPU
            bundle = shared_memory("inputs", lay_out(tensors), True, device)
            bundle.fill(tensors)
            self.bundles.append(bundle)

    def rewrite(self, index: int, values: tuple[Any, ...]) -> bool:
        """Put other values into a set's buffers.

        False where arguments that are no tensors differ, so that the set must be bound anew.
        """
        tensors: list[torch.Tensor] = []
        arguments = encode(values, tensors)
        self.bundles[index].fill(tensors)
        same = bool(arguments == self.arguments[index])
        self.arguments[index] = arguments
        return same

    def redraw(self, index: int, values: tuple[Any, ...]) -> None:
        """Put other tensors into a set's buffers, unless what is no tensor differs too."""
        if encode(values, []) == self.arguments[index]:
            self.rewrite(index, values)

    def holds(self, index: int, values: tuple[Any, ...]) -> bool:
        """Whether a set's buffers still hold these values, bit for bit."""
        tensors: list[torch.Tensor] = []
        encode(values, tensors)
        pairs = zip(self.bundles[index].tensors, tensors, strict=True)
        return all(same_bits(place, value) for place, value in pairs)

    def close(self) -> None:
        """Free the memory."""
        for bundle in self.bundles:
            bundle.close()


class Buffers:
    """Output buffers for the results of several calls, side by side in one memory file.

    Args:
        like: the outputs of one call, whose shapes and dtypes the buffers take.
        groups: how many calls.
        device: where they are.
    """

    def __init__(
        self, like: Sequence[torch.Tensor], groups: int, device: torch.device = CPU
    ) -> None:
        self.groups = groups
        layouts = lay_out([*like] * groups, dense=True)
        self.bundle = shared_memory("outputs", layouts, False, device)
        self._bytes = self.bundle.flat()
        places: dict[int, list[torch.Tensor]] = {}
        for layout in self.bundle.layouts:
            if layout.span and layout.torch_dtype.is_floating_point:
                size = layout.torch_dtype.itemsize
                run = min(layout.span, max(1, MARKED_BYTES // size))
                starts = torch.linspace(
                    0, layout.span - run, min(SPARSE_POISON, layout.span), dtype=torch.float64
                ).long()
                rows = layout.offset + starts[:, None] * size + torch.arange(run * size)
                places.setdefault(run * size, []).append(rows)
        self._sparse = [torch.cat(rows).to(device) for rows in places.values()]

    def of(self, group: int) -> tuple[torch.Tensor, ...]:
        """The judge's view of one call's outputs."""
        size = len(self.bundle.tensors) // self.groups
        return self.bundle.tensors[group * size : (group + 1) * size]

    def poison(self, pattern: int) -> None:
        """Overwrite everything, so that no earlier call's output passes for this one's."""
        self._bytes.fill_(POISONS[pattern % len(POISONS)])

    def poison_sparsely(self) -> None:
        """Overwrite a few short runs of every floating output, from end to end."""
        for rows in self._sparse:
            self._bytes[rows] = MARK

    def poison_left(self) -> bool:
        """Whether a run of these is still there as a whole."""
        return any(bool((self._bytes[rows] == MARK).all(dim=1).any()) for rows in self._sparse)

    def close(self) -> None:
        """Free the memory."""
        self._sparse.clear()
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self.bundle.close()


class Lane:
    """One runner, loaded and bound.

    Args:
        runner: the process; the lane ends it on `close`.
        limits: deadlines.
        reference_s: what one call of the reference takes.
    """

    def __init__(self, runner: Runner, limits: JudgeLimits, reference_s: float) -> None:
        self.runner = runner
        self._limits = limits
        self._call_s = max(limits.call_s, REFERENCE_MULTIPLE * reference_s)
        self._buffers: Buffers | None = None
        self.address: dict[str, str] = {"device": "cpu"}

    @property
    def deadline_s(self) -> float:
        """How long a call may take."""
        return self._call_s

    @property
    def outputs(self) -> tuple[torch.Tensor, ...]:
        """The judge's view of the first call's output buffers."""
        return self.buffers.of(0)

    @property
    def buffers(self) -> Buffers:
        """The output buffers; `expect` has been called."""
        assert self._buffers is not None
        return self._buffers

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.runner.ended

    def load(
        self, program: Program, arguments: tuple[Any, ...], seed: int, wait: bool = True
    ) -> None:
        """Import and construct; the constructor is given `(positional, named)`.

        Without `wait`, whatever is asked of the lane next waits for it.
        """
        path = self.runner.folder / "kernel.py"
        path.write_text(program.source, encoding="utf-8")
        # Whatever the judge's own files are like, the runner's user must be able to read this one.
        path.chmod(0o644)
        tensors: list[torch.Tensor] = []
        encoded = encode(list(arguments), tensors)
        bundle = Bundle("arguments", lay_out(tensors), sealed=True)
        bundle.fill(tensors)
        message = {
            "op": "load", "path": str(path), "name": program.class_name, "arguments": encoded,
            "seed": seed, "compile": program.compile, "mode": program.mode,
            "search": list(program.path), **self.address,
            "layouts": [layout.to_json() for layout in bundle.layouts],
        }  # fmt: skip
        try:
            descriptors = (bundle.descriptor,) if tensors else ()
            tell = self.runner.ask if wait else self.runner.post
            tell(message, self._limits.load_s, descriptors)
        finally:
            bundle.close()

    def begin(
        self, program: Program, arguments: tuple[Any, ...], seed: int, sets: InputSets
    ) -> None:
        """Have it load, and compile in a first call, without waiting for either.

        Args:
            program: what is loaded.
            arguments: of the constructor, `(positional, named)`.
            seed: for the constructor.
            sets: the first of them is given to that call; what it returns is dropped.
        """
        self.load(program, arguments, seed, wait=False)
        self.runner.post(_binding(sets, 0, 0), self._limits.load_s, (sets.bundles[0].descriptor,))
        go = {"op": "go", "sets": [0], "slot": 0, "then": "drop"}
        self.runner.post(go, max(self._call_s, self._limits.first_call_s))

    def give_weights(self, weights: dict[str, torch.Tensor]) -> tuple[str, ...]:
        """Copy weights in by name; returns those that found no place."""
        if not weights:
            return ()
        values = [tensor.detach() for tensor in weights.values()]
        bundle = Bundle("weights", lay_out(values), sealed=True)
        bundle.fill(values)
        message = {
            "op": "weights", "names": list(weights),
            "layouts": [layout.to_json() for layout in bundle.layouts],
        }  # fmt: skip
        try:
            reply = self.runner.ask(message, self._limits.load_s, (bundle.descriptor,))
        finally:
            bundle.close()
        return _names(reply, "homeless")

    def bind(self, sets: InputSets, only: int | None = None, first: int = 0) -> None:
        """Give the runner the input sets (or one of them), numbered from `first`."""
        for index, bundle in enumerate(sets.bundles):
            if only is None or index == only:
                message = _binding(sets, index, first + index)
                self.runner.ask(message, self._limits.load_s, (bundle.descriptor,))

    def expect(self, like: Sequence[torch.Tensor], groups: int = 1) -> None:
        """Make new output buffers for the results of so many calls, and give them to the runner."""
        self.give(Buffers(like, groups))

    def give(self, buffers: Buffers) -> None:
        """Have the runner fill these buffers from now on, in place of others."""
        if self._buffers is not None:
            self._buffers.close()
        self._buffers = buffers
        bundle = self._buffers.bundle
        message = {
            "op": "outputs", "set": 0,
            "layouts": [layout.to_json() for layout in bundle.layouts],
        }  # fmt: skip
        self.runner.ask(message, self._limits.load_s, (bundle.descriptor,))

    def consume(self, place: int) -> bool:
        """Run forward once, its result kept; whether it was copied out at once besides."""
        self.call([place])
        return False

    def call(self, sets: Sequence[int], slot: int = 0, then: Then = "keep") -> tuple[int, int]:
        """Run forward on these sets; nanoseconds by the judge's clock and by the runner's word.

        What comes out is kept from `slot` on, copied into the buffers call by call, or dropped; or
        copied and kept.
        """
        reply, took = self.ask_to_go(sets, slot, then)
        return took, reply["took_ns"]

    def ask_to_go(self, sets: Sequence[int], slot: int, then: Then) -> tuple[dict[str, Any], int]:
        """As `call`: the reply, in which the runner's clock is a number, and the judge's clock."""
        deadline = self._call_s
        if not self.runner.first_call_done:
            deadline = max(deadline, self._limits.first_call_s)
        message = {"op": "go", "sets": list(sets), "slot": slot, "then": then}
        reply, took = self.runner.ask_timed(message, deadline)
        self.runner.first_call_done = True
        took_ns = reply.get("took_ns")
        if not isinstance(took_ns, int) or abs(took_ns) > LATEST_NS:
            raise RunnerForged("a reply lacks the runner's clock")
        if reply.get("fits") is not True:
            raise RunnerForged(UNFIT)
        return reply, took

    def collect(
        self, slot: int = 0, claims: bool = False, watch: bool = False
    ) -> tuple[dict[str, Any], int]:
        """Have a slot's outputs copied into the buffers; the reply, and the judge's nanoseconds."""
        message = {
            "op": "copy", "slot": slot, "groups": self.buffers.groups, "claims": claims,
            "watch": watch,
        }  # fmt: skip
        return self.runner.ask_timed(message, self._call_s)

    def state(self, names: Sequence[str]) -> tuple[str, ...]:
        """Have parameters and buffers copied into the buffers; returns those it does not have."""
        reply = self.runner.ask({"op": "state", "names": list(names)}, self._call_s)
        return _names(reply, "missing")

    def sample(
        self, sets: Sequence[int], finish: Callable[[], None], warm: Sequence[int] = ()
    ) -> Sample:
        """A timed burst with its copies; then the process is stopped, and disturbs no other.

        Args:
            sets: the sets to call forward on, one after the other.
            finish: makes the last changes to them, when the process is awake already: nothing that
                it did since it woke is of any use.
            warm: sets to call forward on first, untimed.
        """
        self.buffers.poison_sparsely()
        self.runner.thaw()
        if warm:
            self.call(warm, then="drop")
        else:
            time.sleep(SETTLE_SECONDS)
        faults, waited = self.runner.minor_faults(), self.runner.waited_ns()
        finish()
        n = len(sets)
        call_ns, claimed_ns = self.call(sets, then="keep" if n == 1 else "copy")
        faults = self.runner.minor_faults() - faults
        waited = self.runner.waited_ns() - waited
        copy_ns = self._collect_timed() if n == 1 else 0
        if self.buffers.poison_left():
            raise RunnerForged("an output buffer was not filled when the runner said so")
        self.runner.freeze()
        return Sample(n, call_ns / n, copy_ns, claimed_ns / n, faults / n, max(0, waited))

    def _collect_timed(self) -> int:
        reply, copy_ns = self.collect()
        if reply.get("fits") is not True:
            raise RunnerForged(UNFIT)
        return copy_ns

    def handshake_ns(self) -> int:
        """What a request that does nothing takes."""
        self.runner.thaw()
        time.sleep(SETTLE_SECONDS)
        return self.runner.ask_timed({"op": "noop"}, self._limits.call_s)[1]

    def close(self) -> None:
        """End the runner and free its buffers."""
        self.runner.close()
        if self._buffers is not None:
            self._buffers.close()
            self._buffers = None


def _binding(sets: InputSets, index: int, number: int) -> dict[str, Any]:
    """The request to map a set under a number."""
    return {
        "op": "inputs", "set": number, "private": sets.private, "written": list(sets.written),
        "arguments": sets.arguments[index],
        "layouts": [layout.to_json() for layout in sets.bundles[index].layouts],
    }  # fmt: skip


def same_bits(place: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype hold the same bits, NaN or not."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if value.is_complex():
        place, value = torch.view_as_real(place), torch.view_as_real(value)
    kind = kinds[value.element_size()]
    return torch.equal(place.view(kind), value.detach().view(kind))


def _names(reply: dict[str, Any], key: str) -> tuple[str, ...]:
    """The names that a reply lists."""
    found = reply.get(key, [])
    if not isinstance(found, list):
        raise RunnerForged("a reply holds no list where there should be one")
    return tuple(str(name) for name in found)

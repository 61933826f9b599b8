"""A lane: one runner, the buffers it reads and writes, and the judge's calls through them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tools.judge.buffers import Buffers, InputSets
from tools.judge.peek import Unreadable
from tools.judge.readout import read_out
from tools.judge.runners import Runner, RunnerForged
from tools.judge.wire import JudgeLimits
from tools.runner.handover import Place
from tools.runner.memory import Bundle, lay_out
from tools.runner.values import encode

LATEST_NS = 1 << 62
# After a stop a process needs a moment to run again; much longer, and its worker threads give up
# spinning and go to sleep, whose waking then costs a short op several times its own time.
SETTLE_SECONDS = 0.0003
REFERENCE_MULTIPLE = 50.0
READ_OUT = "results read while stopped"
UNFIT = "a timed call returned something else than the checked ones"

Then = Literal["keep", "copy", "drop", "consume", "show"]


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
        # Whether it still has a result that was read out of its memory.
        self._shown = False

    @property
    def deadline_s(self) -> float:
        """How long a call may take."""
        return self._call_s

    @property
    def in_force(self) -> list[str]:
        """What holds a candidate to the rules here, as verdicts show it."""
        return [*self.runner.in_force, *([READ_OUT] if self.runner.readable else [])]

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

    def expect(self, like: Sequence[Place], groups: int = 1) -> None:
        """Make new output buffers for the results of so many calls, and give them to the runner."""
        self.give(Buffers(like, groups))

    def give(self, buffers: Buffers) -> None:
        """Have the runner fill these buffers from now on, in place of others."""
        if self._buffers is not None:
            self._buffers.close()
        self._buffers = buffers
        bundle = buffers.bundle
        message = {
            "op": "outputs", "set": 0, "absent": list(buffers.absent),
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

    def ask_to_go(
        self,
        sets: Sequence[int],
        slot: int,
        then: Then,
        meanwhile: Callable[[], None] | None = None,
    ) -> tuple[dict[str, Any], int]:
        """As `call`: the reply, in which the runner's clock is a number, and the judge's clock.

        With `show` a result is kept, and the process is stopped when the clock is read.
        """
        deadline = self._call_s
        if not self.runner.first_call_done:
            deadline = max(deadline, self._limits.first_call_s)
        show = then == "show"
        message: dict[str, Any] = {"op": "go", "sets": list(sets), "slot": slot, "then": then}
        if show:
            message["groups"] = self.buffers.groups
        reply, took = self.runner.ask_timed(
            message, deadline, then_stop=show, meanwhile=meanwhile
        )  # fmt: skip
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
        self._awake(warm)
        faults, waited = self.runner.minor_faults(), self.runner.waited_ns()
        finish()
        n = len(sets)
        alone: Then = "show" if self.runner.readable else "keep"
        reply, call_ns = self.ask_to_go(sets, 0, alone if n == 1 else "copy")
        faults = self.runner.minor_faults() - faults
        waited = self.runner.waited_ns() - waited
        copy_ns = self._take_out(reply) if n == 1 else 0
        self._come_to_rest()
        claimed_ns = reply["took_ns"] / n
        return Sample(n, call_ns / n, copy_ns, claimed_ns, faults / n, max(0, waited))

    def disturbed(
        self,
        sets: Sequence[int],
        finish: Callable[[], None],
        meanwhile: Callable[[], None],
        warm: Sequence[int] = (),
    ) -> None:
        """A burst as `sample` has it, untimed: `meanwhile` is called while it is under way."""
        self._awake(warm)
        finish()
        self.ask_to_go(sets, 0, "copy", meanwhile)
        self._come_to_rest()

    def _awake(self, warm: Sequence[int]) -> None:
        self.buffers.poison_sparsely()
        self._let_go()
        if warm:
            self.call(warm, then="drop")
        else:
            time.sleep(SETTLE_SECONDS)

    def _come_to_rest(self) -> None:
        if self.buffers.poison_left():
            raise RunnerForged("an output buffer was not filled when the runner said so")
        self.runner.freeze()

    def _take_out(self, reply: dict[str, Any]) -> int:
        """A timed call's results into the buffers; the nanoseconds in which the runner did it.

        0 where the judge reads them itself, and the runner is stopped meanwhile.
        """
        if self.runner.readable:
            self.runner.freeze()
            self._shown = True
            try:
                read_out(self.runner.pid, reply.get("at"), self.buffers.of(0))
            except Unreadable as error:
                raise RunnerForged(f"{UNFIT}: {error}") from error
            return 0
        copied, copy_ns = self.collect()
        if copied.get("fits") is not True:
            raise RunnerForged(UNFIT)
        return copy_ns

    def _let_go(self) -> None:
        """Have it run again, without the result that was read when it was stopped."""
        self.runner.thaw()
        if self._shown:
            self._shown = False
            self.runner.ask({"op": "release", "slot": 0}, self._call_s)

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


def _names(reply: dict[str, Any], key: str) -> tuple[str, ...]:
    """The names that a reply lists."""
    found = reply.get(key, [])
    if not isinstance(found, list):
        raise RunnerForged("a reply holds no list where there should be one")
    return tuple(str(name) for name in found)

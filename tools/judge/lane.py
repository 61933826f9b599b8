"""A lane: one runner, the buffers it reads and writes, and the judge's calls through them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tools.judge.runners import Runner, RunnerForged
from tools.judge.wire import JudgeLimits
from tools.runner.memory import Bundle, as_bytes, lay_out
from tools.runner.values import Encoded, encode

# All ones is NaN in every floating type; the second pattern is an ordinary number in all of them.
POISONS = (0xFF, 0x5A)
SPARSE_POISON = 32
# After a stop a process needs a moment to run again; much longer, and its worker threads give up
# spinning and go to sleep, whose waking then costs a short op several times its own time.
SETTLE_SECONDS = 0.0003
REFERENCE_MULTIPLE = 50.0


@dataclass(frozen=True)
class Program:
    """What a runner is to load.

    `compile` has torch.compile wrap it; `search` are folders that its imports are looked up in.
    """

    source: str
    class_name: str
    compile: bool = False
    search: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One timed call, in nanoseconds by the judge; `claimed_ns` is the runner's own word.

    `waited_ns` is how long its threads stood in line for a processor meanwhile, by the kernel.
    """

    call_ns: int
    copy_ns: int
    claimed_ns: int
    faults: int
    waited_ns: int


class InputSets:
    """Several sets of arguments of forward, in sealed shared memory that every lane may map.

    Args:
        sets: the arguments, all of the same shapes.
        private: the op writes to its inputs, so lanes map them copy-on-write.
    """

    def __init__(self, sets: Sequence[tuple[Any, ...]], private: bool) -> None:
        self.private = private
        self.bundles: list[Bundle] = []
        self.arguments: list[Encoded] = []
        for values in sets:
            tensors: list[torch.Tensor] = []
            self.arguments.append(encode(values, tensors))
            bundle = Bundle("inputs", lay_out(tensors), sealed=True)
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

    def close(self) -> None:
        """Free the memory."""
        for bundle in self.bundles:
            bundle.close()


class Lane:
    """One runner, loaded and bound.

    Args:
        runner: the process; the lane ends it on `close`.
        like: the reference's outputs, whose shapes and dtypes the buffers take.
        limits: deadlines.
        reference_s: what one call of the reference takes.
    """

    def __init__(
        self, runner: Runner, like: Sequence[torch.Tensor], limits: JudgeLimits, reference_s: float
    ) -> None:
        self.runner = runner
        self._limits = limits
        self._call_s = max(limits.call_s, REFERENCE_MULTIPLE * reference_s)
        self._bundle = Bundle("outputs", lay_out(like, dense=True), sealed=False)
        filled = [tensor for tensor in self._bundle.tensors if tensor.numel()]
        self._flat = [as_bytes(tensor) for tensor in filled]
        self._sparse = [_spread(tensor) for tensor in filled if tensor.dtype.is_floating_point]

    @property
    def outputs(self) -> tuple[torch.Tensor, ...]:
        """The judge's view of the output buffers."""
        return self._bundle.tensors

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.runner.ended

    def load(self, program: Program, arguments: tuple[Any, ...], seed: int) -> None:
        """Import and construct; the constructor is given `(positional, named)`."""
        path = self.runner.folder / "kernel.py"
        path.write_text(program.source, encoding="utf-8")
        tensors: list[torch.Tensor] = []
        encoded = encode(list(arguments), tensors)
        bundle = Bundle("arguments", lay_out(tensors), sealed=True)
        bundle.fill(tensors)
        message = {
            "op": "load", "path": str(path), "name": program.class_name, "arguments": encoded,
            "seed": seed, "compile": program.compile, "search": list(program.search),
            "layouts": [layout.to_json() for layout in bundle.layouts],
        }  # fmt: skip
        try:
            descriptors = (bundle.descriptor,) if tensors else ()
            self.runner.ask(message, self._limits.load_s, descriptors)
        finally:
            bundle.close()

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
        return tuple(str(name) for name in reply.get("homeless", ()))

    def bind(self, sets: InputSets, only: int | None = None) -> None:
        """Give the runner the input sets (or one of them), and its own output buffers."""
        for index, bundle in enumerate(sets.bundles):
            if only is None or index == only:
                message = {
                    "op": "inputs", "set": index, "private": sets.private,
                    "arguments": sets.arguments[index],
                    "layouts": [layout.to_json() for layout in bundle.layouts],
                }  # fmt: skip
                self.runner.ask(message, self._limits.load_s, (bundle.descriptor,))
        message = {
            "op": "outputs", "set": 0,
            "layouts": [layout.to_json() for layout in self._bundle.layouts],
        }  # fmt: skip
        self.runner.ask(message, self._limits.load_s, (self._bundle.descriptor,))

    def call(self, index: int, slot: int = 0) -> tuple[int, int]:
        """Run forward on a set; nanoseconds by the judge's clock and by the runner's word."""
        deadline = self._call_s
        if not self.runner.first_call_done:
            deadline = max(deadline, self._limits.first_call_s)
        message = {"op": "go", "set": index, "slot": slot}
        reply, took = self.runner.ask_timed(message, deadline)
        self.runner.first_call_done = True
        claimed = reply.get("took_ns")
        if not isinstance(claimed, int):
            raise RunnerForged("a reply lacks the runner's clock")
        return took, claimed

    def collect(
        self, slot: int = 0, claims: bool = False, watch: bool = False
    ) -> tuple[dict[str, Any], int]:
        """Have a slot's outputs copied into the buffers; the reply, and the judge's nanoseconds."""
        message = {"op": "copy", "slot": slot, "into": 0, "claims": claims, "watch": watch}
        return self.runner.ask_timed(message, self._call_s)

    def poison(self, pattern: int) -> None:
        """Overwrite the output buffers, so that no earlier call's output passes for this one's."""
        for flat in self._flat:
            flat.fill_(POISONS[pattern % len(POISONS)])

    def sample(self, index: int, wake_s: float = SETTLE_SECONDS) -> Sample:
        """One timed call with its copy; then the process is stopped, and disturbs no other."""
        self._poison_sparsely()
        self.runner.thaw()
        time.sleep(wake_s)
        faults, waited = self.runner.minor_faults(), self.runner.waited_ns()
        call_ns, claimed_ns = self.call(index)
        faults = self.runner.minor_faults() - faults
        waited = self.runner.waited_ns() - waited
        reply, copy_ns = self.collect()
        if reply.get("fits") is not True:
            raise RunnerForged("a timed call returned something else than the checked ones")
        if self._poison_left():
            raise RunnerForged("an output buffer was not filled when the runner said so")
        self.runner.freeze()
        return Sample(call_ns, copy_ns, claimed_ns, faults, max(0, waited))

    def handshake_ns(self) -> int:
        """What a request that does nothing takes."""
        self.runner.thaw()
        time.sleep(SETTLE_SECONDS)
        return self.runner.ask_timed({"op": "noop"}, self._limits.call_s)[1]

    def _poison_sparsely(self) -> None:
        for rows, places in self._sparse:
            rows[places] = POISONS[0]

    def _poison_left(self) -> bool:
        """Whether a poisoned float is still there: no operation makes a NaN with every bit set."""
        return any(
            bool((rows[places] == POISONS[0]).all(dim=1).any()) for rows, places in self._sparse
        )

    def close(self) -> None:
        """End the runner and free its buffers."""
        self.runner.close()
        self._flat.clear()
        self._sparse.clear()
        self._bundle.close()


def _spread(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The elements' bytes, one row each, and the numbers of a few rows from end to end."""
    rows = tensor.reshape(-1, 1).view(torch.uint8)
    places = torch.linspace(0, rows.shape[0] - 1, min(SPARSE_POISON, rows.shape[0])).long()
    return rows, places

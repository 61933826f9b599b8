"""A runner: a forked process that loads one module, calls it, and copies out what it returned.

From `load` on the candidate's code shares this process, so nothing said here is believed: the judge
looks at its own clock and at the bytes in its own buffers. What a reply claims can only ever speak
against the candidate.
"""

import ast
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as pytree

from tools import importing
from tools.reference import moved, named_tensors, seed_generators
from tools.runner import confine
from tools.runner.accelerator import Accelerator
from tools.runner.channel import Channel, ChannelClosed
from tools.runner.device_memory import DeviceMapping, cuda_driver
from tools.runner.handover import Owed, Place, copy_all, fit, leaves_of, spread, where
from tools.runner.memory import Access, Layout, Mapping
from tools.runner.values import decode

LOG_LIMIT = 6000
MODULE = "kernel"
# The mode of torch.compile whose results lie in a CUDA graph's own memory.
GRAPHED = "max-autotune"
MOST_DESCRIPTORS = 1 << 20
# Bytes that the judge looks for, to find out if it may read a runner's memory.
WITNESS_BYTES = 16
_witness = ctypes.create_string_buffer(os.urandom(WITNESS_BYTES), WITNESS_BYTES)
Memory = Mapping | DeviceMapping


def main(request: dict[str, Any], descriptors: list[int], own_namespaces: bool) -> NoReturn:
    """Confine this process, then serve the judge until it hangs up."""
    end, log = descriptors
    os.setsid()
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, end)
    os.closerange(end + 1, MOST_DESCRIPTORS)
    in_force = _confine(request, own_namespaces)
    faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = Channel(socket.socket(fileno=end))
    _introduce(channel, in_force)
    try:
        Runner(channel, request["environment"]).serve()
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201
    finally:
        # In good order, taking down what torch has built up takes a second.
        os._exit(0)


def _introduce(channel: Channel, in_force: list[str]) -> None:
    """Say what is in force and, where processes are its own, hand over the list of them."""
    witness = {"address": ctypes.addressof(_witness), "held": _witness.raw.hex()}
    message = {"ready": True, "in_force": in_force, "witness": witness}
    if confine.OWN_PROCESSES not in in_force:
        channel.send(message)
        return
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    channel.send(message, (processes,))
    os.close(processes)


def _compiled(model: torch.nn.Module, mode: str | None) -> Callable[..., Any]:
    """The module compiled in one of torch's modes, with what this machine has ready for that.

    Imported here, since no candidate needs it and it takes a second.
    """
    furnishing = importlib.import_module("tools.runner.furnish")
    if made := os.environ.get(furnishing.ENVIRONMENT):
        # Without it, torch.compile takes longer, and no more.
        with contextlib.suppress(OSError):
            furnishing.furnish(Path(made))
    compiled: Callable[..., Any] = torch.compile(model, mode=mode)
    if mode != GRAPHED:
        return compiled

    def kept(*arguments: Any) -> Any:
        """What the next call would overwrite, for whoever goes on using it."""
        return pytree.tree_map_only(torch.Tensor, torch.clone, compiled(*arguments))

    return kept


def _confine(request: dict[str, Any], own_namespaces: bool) -> list[str]:
    room = confine.Room(**request["room"])
    in_force = confine.confine(
        room, request["user"], confine.Limits(**request["limits"]), own_namespaces
    )
    os.chdir(room.scratch)
    os.environ["HOME"] = os.environ["TMPDIR"] = room.scratch
    os.environ["XDG_CACHE_HOME"] = f"{room.scratch}/.cache"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{room.scratch}/inductor"
    os.environ["TRITON_CACHE_DIR"] = f"{room.scratch}/triton"
    return in_force


class Failed(Exception):
    """Something the candidate did wrong; `stage` says when, the message is its log."""

    def __init__(self, stage: str, log: str) -> None:
        self.stage = stage
        super().__init__(log)


class Runner:
    """What one runner holds between messages."""

    def __init__(self, channel: Channel, environment: dict[str, str]) -> None:
        self.channel = channel
        self.model: torch.nn.Module | None = None
        self.forward: Callable[..., Any] | None = None
        self.accelerator: Accelerator | None = None
        self.inputs: dict[int, tuple[Memory, tuple[Any, ...]]] = {}
        self.written: dict[int, list[torch.Tensor]] = {}
        self.outputs: dict[int, Memory] = {}
        self.absent: tuple[int, ...] = ()
        self.owed: dict[int, list[Owed]] = {}
        self.held: dict[int, tuple[int, list[Any]]] = {}
        os.environ.update(environment)

    def serve(self) -> None:
        """Answer messages until the judge hangs up; a reply repeats its message's nonce."""
        handlers: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "load": self.load, "weights": self.weights, "inputs": self.bind_inputs,
            "outputs": self.bind_outputs, "go": self.go, "copy": self.copy, "state": self.state,
            "noop": self.noop, "gather": self.gather, "release": self.release,
        }  # fmt: skip
        while True:
            try:
                message, descriptors, _ = self.channel.receive_all()
            except ChannelClosed:
                return
            try:
                reply = handlers[message["op"]](message, descriptors)
            except Failed as failure:
                reply = {"failed": failure.stage, "log": str(failure)[-LOG_LIMIT:]}
            for descriptor in descriptors:
                os.close(descriptor)
            self.channel.send({"nonce": message["nonce"], **reply})

    def load(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Import a source file and construct its module under a seed."""
        if message.get("device") == "cuda":
            self.accelerator = _guarded("device", lambda: Accelerator(message["precision"]))
        sys.path[:0] = message["search"]
        module_class = _guarded("import", lambda: _import_class(message["path"], message["name"]))
        tensors: tuple[torch.Tensor, ...] = ()
        if descriptors:
            layouts = [Layout.from_json(x) for x in message["layouts"]]
            tensors = tuple(t.clone() for t in Mapping(descriptors[0], layouts, "read").tensors)
        positional, named = decode(message["arguments"], tensors)
        seed_generators(message["seed"])
        model = _guarded("construct", lambda: module_class(*positional, **named))
        if not isinstance(model, torch.nn.Module):
            raise Failed("construct", f"{message['name']} is not a torch.nn.Module")
        if self.accelerator is not None:
            device = self.accelerator.device
            model = _guarded("construct", lambda: moved(model, device))
        self.model = model
        self.forward = _compiled(model, message["mode"]) if message["compile"] else model
        gc.collect()
        gc.freeze()
        return {"training": model.training}

    def weights(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Copy the reference's parameters and buffers in by name; tells which found no place."""
        layouts = [Layout.from_json(x) for x in message["layouts"]]
        mapping = Mapping(descriptors[0], layouts, "read")
        model = self._loaded()
        places = _guarded("construct", lambda: named_tensors(model))
        homeless = []
        with torch.no_grad():
            for name, value in zip(message["names"], mapping.tensors, strict=True):
                place = places.get(name)
                if place is None or place.shape != value.shape or place.dtype != value.dtype:
                    homeless.append(name)
                else:
                    place.copy_(value)
        mapping.close()
        return {"homeless": homeless}

    def bind_inputs(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Map one set of inputs."""
        mapping = self._map(message, descriptors, "private" if message["private"] else "read")
        if message["set"] in self.inputs:
            self.inputs.pop(message["set"])[0].retire()
        self.inputs[message["set"]] = (mapping, decode(message["arguments"], mapping.tensors))
        # Tensors of our own: those that forward is given may be pointed elsewhere.
        self.written[message["set"]] = [
            mapping.tensors[place].detach() for place in message["written"]
        ]
        return {}

    def _results(self, number: int, returned: Any) -> list[Any]:
        """What forward returned, and the inputs of this set that it is to have written to."""
        return [*leaves_of(returned), *self.written[number]]

    def bind_outputs(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Map one set of output buffers; `absent` are the places at which a call returns None."""
        self.owed.clear()
        if message["set"] in self.outputs:
            self.outputs[message["set"]].close()
        self.outputs[message["set"]] = self._map(message, descriptors, "write")
        self.absent = tuple(message["absent"])
        return {}

    def _map(self, message: dict[str, Any], descriptors: list[int], access: Access) -> Memory:
        layouts = [Layout.from_json(x) for x in message["layouts"]]
        if self.accelerator is None:
            return Mapping(descriptors[0], layouts, access)
        mapping: DeviceMapping = _guarded(
            "device", lambda: DeviceMapping(descriptors[0], layouts, access, cuda_driver())
        )
        return mapping

    def go(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Call forward on each of these input sets; keep, copy out or drop what it returns.

        Or copy it out at once and keep it too: so does whoever consumes a result on the same
        stream, without waiting for the device. Or keep it and show where it lies.
        """
        calls = [self.inputs[number][1] for number in message["sets"]]
        forward = self.forward
        assert forward is not None
        copied, accelerator = message["then"] in ("copy", "consume"), self.accelerator
        kept = message["then"] != "copy"
        owed = self._owed(len(calls)) if copied else []
        returned: list[Any] = []
        fits = True
        try:
            with torch.no_grad():
                self._ready(message["sets"])
                began = time.perf_counter_ns()
                for place, arguments in enumerate(calls):
                    value = forward(*arguments)
                    if copied:
                        # Held, the results of a burst would change what the allocator does.
                        written = self.written[message["sets"][place]]
                        fits = fits and owed[place].take(value, written)
                    if kept:
                        returned.append(value)
                if accelerator is not None:
                    accelerator.end()
                took = time.perf_counter_ns() - began
        except BaseException as error:
            raise Failed("refusal" if _is_refusal(error) else "forward", _told(error)) from error
        self._dispose(message, returned)
        device_ns = 0 if accelerator is None else accelerator.elapsed_ns()
        # What an untimed result is, its copy will tell.
        reply = {"took_ns": took, "device_ns": device_ns, "fits": fits or kept}
        return reply | (self._shown(message) if message["then"] == "show" else {})

    def _shown(self, message: dict[str, Any]) -> dict[str, Any]:
        """Whether a slot's tensors are what is owed, and where they lie."""
        leaves = self.held[message["slot"]][1]
        if not fit(leaves, self._owed(message["groups"])[0].places):
            return {"fits": False}
        given = [leaf for leaf in leaves if leaf is not None]
        return {"at": _guarded("forward", lambda: [where(leaf) for leaf in given])}

    def release(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Let a slot's tensors go."""
        if (held := self.held.pop(message["slot"], None)) is not None:
            self.inputs[held[0]][0].restore()
        return {}

    def _ready(self, sets: list[int]) -> None:
        """On a device, wait until all is still there, private copies of inputs included."""
        if self.accelerator is not None:
            for number in sets:
                self.inputs[number][0].restore()
            self.accelerator.begin()

    def _dispose(self, message: dict[str, Any], returned: list[Any]) -> None:
        """Hold what is to be kept, slot by slot."""
        if message["then"] in ("copy", "drop"):
            for number in message["sets"]:
                self.inputs[number][0].restore()
            return
        for place, (number, value) in enumerate(zip(message["sets"], returned, strict=True)):
            self.held[message["slot"] + place] = (number, self._results(number, value))

    def _owed(self, count: int) -> list[Owed]:
        """What is owed of so many calls: output buffers, and None at its places."""
        if count not in self.owed:
            every = self.outputs[0].tensors
            size = len(every) // count
            self.owed[count] = [
                Owed(spread(every[group * size : (group + 1) * size], self.absent))
                for group in range(count)
            ]
        return self.owed[count]

    def copy(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Copy a slot's tensors into the first output buffers, and tell what they were."""
        came_from, leaves = self.held.pop(message["slot"])
        mapping = self.inputs[came_from][0]
        places = self._owed(message["groups"])[0].places
        fits = fit(leaves, places)
        claims = [_claim(leaf, mapping) for leaf in leaves] if message["claims"] or not fits else []
        if fits:
            _guarded("forward", lambda: self._copy_and_wait(leaves, places))
        changed = False
        if mapping.access == "private":
            if message["watch"]:
                leaves.clear()
                changed = _differs(mapping)
            mapping.restore()
        return {"fits": fits, "claims": claims, "changed": changed}

    def _copy_and_wait(self, leaves: list[Any], places: Sequence[Place]) -> None:
        copy_all(leaves, places)
        if self.accelerator is not None:
            self.accelerator.wait()

    def gather(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Copy the tensors of the first so many slots out, each into buffers of its own."""
        fits = True
        for slot, owed in enumerate(self._owed(message["groups"])[: message["count"]]):
            came_from, leaves = self.held.pop(slot)
            if fits := fits and fit(leaves, owed.places):
                _guarded("forward", lambda: copy_all(leaves, owed.places))  # noqa: B023
            self.inputs[came_from][0].restore()
        if self.accelerator is not None:
            _guarded("forward", self.accelerator.wait)
        return {"fits": fits}

    def state(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Copy parameters and buffers into the output buffers; tells which are not there."""
        model = self._loaded()
        held = named_tensors(model)
        missing = []
        for name, place in zip(message["names"], self.outputs[0].tensors, strict=True):
            value = held.get(name)
            if value is None or value.shape != place.shape or value.dtype != place.dtype:
                missing.append(name)
            else:
                _guarded("forward", lambda: self._copy_and_wait([value], (place,)))  # noqa: B023
        return {"missing": missing}

    def noop(self, _message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """What a message costs, and the least that a device can do."""
        if self.accelerator is not None:
            _guarded("forward", self.accelerator.spark)
        return {}

    def _loaded(self) -> torch.nn.Module:
        if self.model is None:
            raise Failed("construct", "nothing is loaded")
        return self.model


def _differs(mapping: Memory) -> bool:
    """Whether this process wrote to its private copy of the inputs."""
    mine = [tensor.clone() for tensor in mapping.tensors]
    mapping.restore()
    pairs = zip(mine, mapping.tensors, strict=True)
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _import_class(path: str, name: str) -> Callable[..., Any]:
    module = importing.import_file(Path(path), MODULE)
    found: Callable[..., Any] = getattr(module, name)
    return found


def _guarded(stage: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BaseException as error:
        raise Failed(stage, _told(error)) from error


def _told(error: BaseException) -> str:
    """The traceback from the candidate's own first line on."""
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename in (__file__, importing.__file__):
        own = own.tb_next
    return "".join(traceback.format_exception(type(error), error, own, limit=-8))


def _is_refusal(error: BaseException) -> bool:
    """Whether the kernel itself said no: a `raise` or `assert` of its own, not an accident."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    module = sys.modules.get(MODULE)
    if at is None or module is None or at.tb_frame.f_code.co_filename != module.__file__:
        return False
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Raise | ast.Assert)
        and node.lineno <= at.tb_lineno <= (node.end_lineno or node.lineno)
        for node in ast.walk(tree)
    )


def _claim(leaf: Any, inputs: Memory) -> dict[str, Any]:
    if not isinstance(leaf, torch.Tensor):
        return {"type": type(leaf).__name__}
    plain = type(leaf) in (torch.Tensor, torch.nn.Parameter)
    dense = plain and leaf.layout is torch.strided
    steps = zip(leaf.stride(), leaf.shape, strict=True) if dense else ()
    return {
        "type": "Tensor" if plain else type(leaf).__name__,
        "shape": list(leaf.shape),
        "dtype": str(leaf.dtype).removeprefix("torch."),
        "device": leaf.device.type,
        "expanded": any(stride == 0 and size > 1 for stride, size in steps),
        "aliases": dense and leaf.numel() > 0 and inputs.contains(leaf.data_ptr()),
    }  # fmt: skip

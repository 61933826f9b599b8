"""A runner: a forked process that loads one module, calls it, and copies out what it returned.

From `load` on the candidate's code shares this process, so nothing said here is believed: the judge
looks at its own clock and at the bytes in its own buffers. What a reply claims can only ever speak
against the candidate.
"""

import ctypes
import faulthandler
import gc
import importlib.util
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils import _pytree as pytree

from tools.reference import seed_generators
from tools.runner import confine
from tools.runner.channel import Channel, ChannelClosed
from tools.runner.memory import Layout, Mapping
from tools.runner.values import decode

LOG_LIMIT = 6000
MODULE = "kernel"


def main(request: dict[str, Any], descriptors: list[int], own_namespaces: bool) -> NoReturn:
    """Confine this process, then serve the judge until it hangs up."""
    end, log = descriptors
    os.setsid()
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, end)
    os.closerange(end + 1, 256 if end < 256 else end + 2)
    in_force = _confine(request, own_namespaces)
    faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    channel = Channel(socket.socket(fileno=end))
    channel.send({"ready": True, "in_force": in_force})
    Runner(channel, request["environment"]).serve()
    os._exit(0)


def _confine(request: dict[str, Any], own_namespaces: bool) -> list[str]:
    folder = Path(request["folder"])
    hidden = own_namespaces and confine.hide_the_others(folder)
    nobody = confine.become_nobody(request["number"], folder)
    if not nobody:
        confine.drop_capabilities()
    confine.apply_limits(confine.Limits(**request["limits"]))
    confine.die_with_parent()
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / ".cache")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    names = {"own processes": own_namespaces, "own folder": hidden, "own user": nobody}
    return [name for name, given in names.items() if given] + ["limits"]


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
        self.inputs: dict[int, tuple[Mapping, tuple[Any, ...]]] = {}
        self.outputs: dict[int, Mapping] = {}
        self.held: dict[int, tuple[int, list[Any]]] = {}
        os.environ.update(environment)

    def serve(self) -> None:
        """Answer messages until the judge hangs up; a reply repeats its message's nonce."""
        handlers: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "load": self.load, "weights": self.weights, "inputs": self.bind_inputs,
            "outputs": self.bind_outputs, "go": self.go, "copy": self.copy, "noop": self.noop,
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
        self.model = model
        self.forward = torch.compile(model) if message["compile"] else model
        gc.collect()
        gc.freeze()
        return {"training": model.training}

    def weights(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Copy the reference's parameters and buffers in by name; tells which found no place."""
        layouts = [Layout.from_json(x) for x in message["layouts"]]
        mapping = Mapping(descriptors[0], layouts, "read")
        model = self._loaded()
        places = _guarded(
            "construct", lambda: {**dict(model.named_parameters()), **dict(model.named_buffers())}
        )
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
        layouts = [Layout.from_json(x) for x in message["layouts"]]
        mapping = Mapping(descriptors[0], layouts, "private" if message["private"] else "read")
        if message["set"] in self.inputs:
            self.inputs[message["set"]][0].close()
        self.inputs[message["set"]] = (mapping, decode(message["arguments"], mapping.tensors))
        return {}

    def bind_outputs(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """Map one set of output buffers."""
        layouts = [Layout.from_json(x) for x in message["layouts"]]
        if message["set"] in self.outputs:
            self.outputs[message["set"]].close()
        self.outputs[message["set"]] = Mapping(descriptors[0], layouts, "write")
        return {}

    def go(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Call forward on one set of inputs and keep what it returns in a slot."""
        arguments = self.inputs[message["set"]][1]
        forward = self.forward
        assert forward is not None
        try:
            with torch.no_grad():
                began = time.perf_counter_ns()
                returned = forward(*arguments)
                took = time.perf_counter_ns() - began
        except BaseException as error:
            raise Failed("forward", _told(error)) from error
        leaves = [returned] if type(returned) is torch.Tensor else pytree.tree_leaves(returned)
        self.held[message["slot"]] = (message["set"], leaves)
        return {"took_ns": took}

    def copy(self, message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """Copy a slot's tensors into output buffers, and tell what they were."""
        came_from, leaves = self.held.pop(message["slot"])
        mapping = self.inputs[came_from][0]
        places = self.outputs[message["into"]].tensors
        fits = len(leaves) == len(places) and all(
            isinstance(leaf, torch.Tensor)
            and leaf.shape == place.shape
            and leaf.dtype == place.dtype
            for leaf, place in zip(leaves, places, strict=True)
        )
        claims = [_claim(leaf, mapping) for leaf in leaves] if message["claims"] or not fits else []
        if fits:
            try:
                with torch.no_grad():
                    for leaf, place in zip(leaves, places, strict=True):
                        _copy_into(place, leaf)
            except BaseException as error:
                raise Failed("forward", _told(error)) from error
        changed = False
        if mapping.access == "private":
            if message["watch"]:
                leaves.clear()
                changed = _differs(mapping)
            mapping.restore()
        return {"fits": fits, "claims": claims, "changed": changed}

    def noop(self, _message: dict[str, Any], _descriptors: list[int]) -> dict[str, Any]:
        """What a message costs."""
        return {}

    def _loaded(self) -> torch.nn.Module:
        if self.model is None:
            raise Failed("construct", "nothing is loaded")
        return self.model


def _copy_into(place: torch.Tensor, leaf: torch.Tensor) -> None:
    """Copy on this thread alone where the memory is dense.

    torch would use all cores, and waiting for one that is busy elsewhere would look like work that
    was put off until now.
    """
    if (
        type(leaf) is torch.Tensor
        and leaf.is_contiguous()
        and not (leaf.is_conj() or leaf.is_neg())
    ):
        ctypes.memmove(place.data_ptr(), leaf.data_ptr(), place.nbytes)
    else:
        place.copy_(leaf)


def _differs(mapping: Mapping) -> bool:
    """Whether this process wrote to its private copy of the inputs."""
    mine = [tensor.clone() for tensor in mapping.tensors]
    mapping.restore()
    pairs = zip(mine, mapping.tensors, strict=True)
    return any(not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def _import_class(path: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
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
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next
    return "".join(traceback.format_exception(type(error), error, own, limit=-8))


def _claim(leaf: Any, inputs: Mapping) -> dict[str, Any]:
    if not isinstance(leaf, torch.Tensor):
        return {"type": type(leaf).__name__}
    plain = type(leaf) in (torch.Tensor, torch.nn.Parameter)
    dense = plain and leaf.layout is torch.strided
    steps = zip(leaf.stride(), leaf.shape, strict=True) if dense else ()
    return {
        "type": "Tensor" if plain else type(leaf).__name__,
        "shape": list(leaf.shape),
        "dtype": str(leaf.dtype).removeprefix("torch."),
        "expanded": any(stride == 0 and size > 1 for stride, size in steps),
        "aliases": dense and leaf.numel() > 0 and inputs.contains(leaf.data_ptr()),
    }  # fmt: skip

"""How long each call of a traced op takes, as the library does it: where a gain would count.

Runs in the judge's process, on the reference's own graph. The times are for planning alone, by
Amdahl's law; nothing that is reported as a speedup comes from here.
"""

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch

from knowledge.opgraph import OpGraph, Ref

CPU = torch.device("cpu")
ROUNDS = 3
# A graph is walked again only while all rounds together stay below this.
BUDGET_SECONDS = 2.0


class NotRunnable(Exception):
    """A graph that can't be walked call by call; the message says where it stopped."""


def call_times(graph: OpGraph, model: torch.nn.Module, inputs: Sequence[Any]) -> dict[str, float]:
    """Milliseconds of each call by its node's name, the least of a few rounds.

    Args:
        graph: what `tools.trace.trace` made of `model`.
        model: holds the weights; its buffers are not changed, the graph being functional.
        inputs: arguments of forward, of the traced shapes.

    Raises:
        NotRunnable: a call failed, or a value it needs is not in the graph.
    """
    best: dict[str, float] = {}
    began = time.perf_counter()
    for done in range(1, ROUNDS + 1):
        took, _ = _walk(graph, model, inputs)
        for name, took_ms in took.items():
            best[name] = min(took_ms, best.get(name, took_ms))
        spent = time.perf_counter() - began
        if spent / done * (done + 1) > BUDGET_SECONDS:
            break
    return best


def replay(
    graph: OpGraph, model: torch.nn.Module, inputs: Sequence[Any]
) -> tuple[torch.Tensor, ...]:
    """What the graph's outputs are on these inputs; the model is left as it is.

    Raises:
        NotRunnable: as `call_times`.
    """
    return _walk(graph, model, inputs)[1]


def _walk(
    graph: OpGraph, model: torch.nn.Module, inputs: Sequence[Any]
) -> tuple[dict[str, float], tuple[torch.Tensor, ...]]:
    held: dict[str, Any] = {}
    tensors = (*inputs, *model.parameters(), *model.buffers())
    device = next((one.device for one in tensors if isinstance(one, torch.Tensor)), CPU)
    last_reader = {ref.ref: node.name for node in graph.nodes for ref in node.refs}
    last_reader |= {ref.ref: "" for ref in graph.outputs}
    took: dict[str, float] = {}
    with torch.no_grad():
        for node in graph.nodes:
            if node.kind == "input":
                held[node.name] = inputs[int(node.target)]
            elif node.kind in ("parameter", "buffer"):
                held[node.name] = attrgetter(node.target)(model)
            elif node.kind == "constant":
                dtype = getattr(torch, node.spec.dtype)
                data = torch.tensor(node.data, dtype=dtype, device=device)
                held[node.name] = data.reshape(node.spec.shape)
            else:
                try:
                    call = attrgetter(node.target)(torch.ops)
                    args = [_argument(value, held) for value in node.args]
                    kwargs = {key: _argument(value, held) for key, value in node.kwargs.items()}
                    began = time.perf_counter_ns()
                    held[node.name] = call(*args, **kwargs)
                    _finish(device)
                    took[node.name] = (time.perf_counter_ns() - began) / 1e6
                except (RuntimeError, TypeError, AttributeError, KeyError, ValueError) as error:
                    told = " ".join(str(error).split())[:200]
                    raise NotRunnable(f"{node.name} ({node.target}): {told}") from error
                args.clear()
                kwargs.clear()
            for ref in node.refs:
                if last_reader[ref.ref] == node.name:
                    held.pop(ref.ref, None)
    return took, tuple(_argument(ref, held) for ref in graph.outputs)


def _finish(device: torch.device) -> None:
    """Wait until a call is over, where it may return before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _argument(value: Any, held: dict[str, Any]) -> Any:
    if isinstance(value, Ref):
        return held[value.ref] if value.index is None else held[value.ref][value.index]
    if isinstance(value, list):
        return [_argument(item, held) for item in value]
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return value

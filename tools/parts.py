"""Finds the parts of an op that has no graph: submodules that can be traced as they are called.

The op runs as it is, in the judge's process, while hooks take down who is called, with what, and
for how long. From the outermost modules inwards, whatever can be traced is a part; what can't be is
looked into.
"""

import contextlib
import copy
import inspect
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree

from knowledge.parts import Part
from tools.calls import NotRunnable, call_times
from tools.reference import plain_tensors
from tools.trace import Untraceable, trace

# By Amdahl's law nothing less is worth a trace of half a second.
LEAST_SHARE = 0.04
ROUNDS = 5
# Rounds are added only while all together stay below this.
BUDGET_SECONDS = 2.0
TRACING_SECONDS = 12.0
Plain = bool | int | float | str | None
Signature = tuple[tuple[str, Any], ...]


@dataclass
class _Called:
    """What the hooks took down of one module: milliseconds of its calls, and one of each kind."""

    spent_ms: dict[Signature, list[float]] = field(default_factory=lambda: defaultdict(list))
    examples: dict[Signature, dict[str, Any]] = field(default_factory=dict)
    aliases: bool = False


def find_parts(
    model: torch.nn.Module,
    inputs: tuple[Any, ...],
    home: str,
    least_share: float = LEAST_SHARE,
    seconds: float = TRACING_SECONDS,
    constructed: Mapping[str, torch.Tensor] | None = None,
) -> tuple[Part, ...]:
    """The parts of a module that can't be traced as a whole, those that take most time first.

    Args:
        model: the op; it is left as it is.
        inputs: what its forward is given.
        home: name of the Python module in which the op's own classes stand.
        least_share: of the op's time, that a part must take.
        seconds: after which no further module is traced.
        constructed: the plain attributes that the op's constructor made; None where no forward has
            run yet.
    """
    model = copy.deepcopy(model)
    attributes = plain_tensors(model) if constructed is None else constructed
    state = copy.deepcopy(model.state_dict())
    whole_ms, spent = _times(model, inputs)
    deadline = time.monotonic() + seconds
    found: list[Part] = []
    frontier = _inside("", model)
    while frontier:
        wanted = {
            path: module
            for path, module in frontier.items()
            if path in spent and spent[path] >= least_share * whole_ms
        }
        model.load_state_dict(state)
        called = _record(model, inputs, wanted)
        frontier = {}
        for path, module in sorted(wanted.items(), key=lambda pair: -spent[pair[0]]):
            if time.monotonic() > deadline:
                return _merged(found)
            made = _below(path, attributes)
            part = _part_of(path, module, called[path], whole_ms, home, made)
            if part is None:
                frontier |= _inside(path, module)
            elif part.share >= least_share:
                found.append(part)
    return _merged(found)


def _inside(path: str, module: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules right inside one by their paths; those of lists and dicts, which nobody calls."""
    inside: dict[str, torch.nn.Module] = {}
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if isinstance(child, torch.nn.ModuleList | torch.nn.ModuleDict):
            inside |= _inside(below, child)
        else:
            inside[below] = child
    return inside


def _below(path: str, attributes: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The attributes of a module and of what is inside it, by the names that they have there."""
    inside = f"{path}."
    return {
        name.removeprefix(inside): tensor
        for name, tensor in attributes.items()
        if name.startswith(inside)
    }


def _times(model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[float, dict[str, float]]:
    """Milliseconds of a whole forward, and of each module's calls in it, at their quickest.

    Each on its own: whatever else the machine does may fall on the one or the other.
    """
    best_ms, best = float("inf"), dict[str, float]()
    began = time.perf_counter()
    for done in range(1, ROUNDS + 1):
        spent: dict[str, float] = defaultdict(float)
        with contextlib.ExitStack() as hooks:
            for path, module in model.named_modules():
                if path:
                    hooks.enter_context(_timed(module, _adder(spent, path)))
            best_ms = min(best_ms, _run(model, inputs))
        for path, took_ms in spent.items():
            best[path] = min(took_ms, best.get(path, took_ms))
        if (time.perf_counter() - began) / done * (done + 1) > BUDGET_SECONDS:
            break
    return best_ms, best


def _adder(spent: dict[str, float], path: str) -> Callable[..., None]:
    def add(took_ms: float, *_: Any) -> None:
        spent[path] += took_ms

    return add


def _run(model: torch.nn.Module, inputs: tuple[Any, ...]) -> float:
    given = copy.deepcopy(inputs)
    with torch.no_grad():
        began = time.perf_counter()
        model(*given)
        return (time.perf_counter() - began) * 1e3


@contextlib.contextmanager
def _timed(module: torch.nn.Module, tell: Callable[..., None]) -> Iterator[None]:
    """Tell of each call of a module: its milliseconds, arguments, named arguments and result."""
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.perf_counter())

    def after(_: torch.nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        tell((time.perf_counter() - began.pop()) * 1e3, args, kwargs, returned)

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _record(
    model: torch.nn.Module, inputs: tuple[Any, ...], wanted: dict[str, torch.nn.Module]
) -> dict[str, _Called]:
    """What one forward of the op gives to each of these modules."""
    called = {path: _Called() for path in wanted}
    with contextlib.ExitStack() as hooks:
        for path, module in wanted.items():
            hooks.enter_context(_timed(module, _taker(called[path], module)))
        _run(model, inputs)
    return called


def _taker(called: _Called, module: torch.nn.Module) -> Callable[..., None]:
    def take(took_ms: float, args: Any, kwargs: Any, returned: Any) -> None:
        given = _by_name(module, args, kwargs)
        if given is None:
            return
        signature = tuple((name, _kind_of(value)) for name, value in given.items())
        called.spent_ms[signature].append(took_ms)
        called.examples.setdefault(signature, given)
        # Whoever writes to what comes out would write to what went in.
        entered = {*_storages(given), *_storages([*module.parameters(), *module.buffers()])}
        called.aliases |= not entered.isdisjoint(_storages(returned))

    return take


def _by_name(module: torch.nn.Module, args: Any, kwargs: Any) -> dict[str, Any] | None:
    """What each argument of a module's forward is; None where it takes them in another way."""
    signature = inspect.signature(type(module).forward)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if not kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}:
        return None
    bound = signature.bind(module, *args, **kwargs)
    bound.apply_defaults()
    given = dict(list(bound.arguments.items())[1:])
    return given if all(map(_is_plain, given.values())) else None


def _is_plain(value: Any) -> bool:
    """Whether a part can be given this: a tensor in rows and columns, or a plain value."""
    if isinstance(value, torch.Tensor):
        return value.layout is torch.strided and not value.is_nested
    return isinstance(value, Plain)


def _kind_of(value: Any) -> Any:
    """What must be alike for two arguments to lead to the same graph."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape)
    return type(value).__name__, value


def _storages(values: Any) -> set[int]:
    leaves = pytree.tree_leaves(values)
    return {t.untyped_storage().data_ptr() for t in leaves if isinstance(t, torch.Tensor)}


def _part_of(
    path: str,
    module: torch.nn.Module,
    called: _Called,
    whole_ms: float,
    home: str,
    constructed: Mapping[str, torch.Tensor],
) -> Part | None:
    """A module as a part, at the shapes that take most of its time; None where it can't be one."""
    kind = _written(type(module), home)
    if kind is None or called.aliases or not called.spent_ms or _is_hooked(module):
        return None
    spent = {signature: sum(times) for signature, times in called.spent_ms.items()}
    signature = max(spent, key=lambda one: spent[one])
    given = called.examples[signature]
    defaults = _defaults(module)
    tensors = tuple(given.values())
    if defaults is None or not any(isinstance(value, torch.Tensor) for value in tensors):
        return None
    try:
        with torch.no_grad():
            returned = module(*tensors)
        graph = trace(module, tensors, constructed=constructed, returned=returned)
        call_ms = call_times(graph, module, tensors)
    except (Untraceable, NotRunnable):
        return None
    return Part(
        paths=(path,),
        kind=kind,
        arguments=tuple(given),
        defaults=defaults,
        constants={k: v for k, v in given.items() if not isinstance(v, torch.Tensor)},
        graph=graph,
        share=min(1.0, spent[signature] / whole_ms),
        calls=len(called.spent_ms[signature]),
        call_ms=call_ms,
    )


def _written(kind: type, home: str) -> str | None:
    """A class as the op's own file would write it: torch's own, or one at the top of that file."""
    if getattr(torch.nn, kind.__name__, None) is kind:
        return f"torch.nn.{kind.__name__}"
    return kind.__name__ if kind.__module__ == home and "." not in kind.__qualname__ else None


def _is_hooked(module: torch.nn.Module) -> bool:
    """Whether a call does more, or other things, than the class's forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _defaults(module: torch.nn.Module) -> dict[str, Plain] | None:
    """What forward's arguments are where they are not given; None where that can't be written."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    given = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return given if all(isinstance(value, Plain) for value in given.values()) else None


def _merged(found: Iterable[Part]) -> tuple[Part, ...]:
    """Parts with equal graphs as one, which is planned once and stands in for all of them."""
    alike: list[Part] = []
    for part in found:
        for at, other in enumerate(alike):
            same = (part.kind, part.constants, part.graph) == (
                other.kind,
                other.constants,
                other.graph,
            )
            if same:
                alike[at] = other.model_copy(
                    update={
                        "paths": tuple(sorted((*other.paths, *part.paths), key=_in_order)),
                        "share": min(1.0, other.share + part.share),
                        "calls": other.calls + part.calls,
                    }
                )
                break
        else:
            alike.append(part)
    return tuple(sorted(alike, key=lambda part: -part.share))


def _in_order(path: str) -> list[tuple[int, str]]:
    """Blocks by their numbers, as a reader counts them."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.split(".")]

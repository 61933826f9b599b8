"""What of a live function or module a kernel has in its code, and whether that is still so.

A kernel is made of a subject as it was one day. It shares the tensors of a module; all else that
the subject reads it has by value: parts, numbers, hooks, and tensors that no state_dict has.
"""

import copy
import functools
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

import torch

from tools.capture.written import names_read
from tools.drop_in.modules import Parts, is_same, listened_to

# What functions of installed packages read is theirs, and stays as it is.
INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


class Snapshot:
    """A subject as it is now.

    Args:
        subject: a function, or a module. The parameters and buffers of a module don't count.

    Attributes:
        heard: a hook was on a part, so that a kernel may do what that does.
        tensors: those that a kernel has by value.
    """

    def __init__(self, subject: Any) -> None:
        self.heard = False
        self.tensors: list[torch.Tensor] = []
        self._versions: list[tuple[torch.Tensor, int]] = []
        self._parts: list[Parts] = []
        # Where each value stands: under a name in a dict, in an object, in a closure, in a row.
        self._named: dict[tuple[int, str], tuple[dict[str, Any], str, Any]] = {}
        self._attributes: list[tuple[Any, str, Any]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._rows: list[tuple[Any, list[Any]]] = []
        self._seen: dict[int, Any] = {}
        if isinstance(subject, torch.nn.Module):
            parts = list(subject.modules())
            # A hook on the module itself is called around whatever takes its place.
            self._look_at(parts, parts[1:])
        else:
            self._walk([subject])
        self._seen.clear()

    def same(self) -> bool:
        """Whether nothing of it has changed, hooks apart."""
        for parts in self._parts:
            if not (parts.same_parts() and parts.same_modes() and parts.same_values()):
                return False
        for tensor, version in self._versions:
            if tensor._version != version:
                return False
        for now, then in self._read_again():
            if now is not then and not is_same(now, then):
                return False
        return True

    def _read_again(self) -> Iterator[tuple[Any, Any]]:
        """What stands in each place now, and what stood there."""
        for held, name, value in self._named.values():
            yield held.get(name, ...), value
        for holder, name, value in self._attributes:
            yield holder.__dict__.get(name, ...), value
        for cell, value in self._cells:
            yield _content(cell), value
        for row, values in self._rows:
            yield len(row), len(values)
            yield from zip(_values(row), values, strict=False)

    def unheard(self) -> bool:
        """Whether no hook is on a part."""
        for parts in self._parts:  # noqa: SIM110 - as above
            if not parts.unheard():
                return False
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> "Snapshot":
        """Of a module's copy: what functions read is the same for both."""
        copied = copy.copy(self)
        copied._parts = copy.deepcopy(self._parts, memo)
        copied._attributes = copy.deepcopy(self._attributes, memo)
        own = {id(value) for _, _, value in self._attributes}
        apart = {
            id(one): copy.deepcopy(one, memo) if id(one) in own else one for one in self.tensors
        }
        copied.tensors = list(apart.values())
        copied._versions = [
            # What was written to before it was copied stays so.
            (apart[id(one)], apart[id(one)]._version if one._version == version else -1)
            for one, version in self._versions
        ]
        return copied

    def _look_at(self, parts: list[torch.nn.Module], heard: list[torch.nn.Module]) -> None:
        """Note a module's parts, its tensors that are plain attributes, and what forwards read."""
        self.heard = self.heard or any(map(listened_to, heard))
        self._parts.append(Parts(parts, heard, valued=parts))
        for part in parts:
            held = vars(part)
            tensors = {name: one for name, one in held.items() if isinstance(one, torch.Tensor)}
            self._attributes += [(part, name, one) for name, one in tensors.items()]
            self._walk([*tensors.values(), held.get("forward", type(part).forward)])

    def _walk(self, left: list[Any]) -> None:
        """Note values, and all that can be reached from them."""
        while left:
            value = left.pop()
            if id(value) not in self._seen:
                self._seen[id(value)] = value
                left += self._reached(value)

    def _reached(self, value: Any) -> Iterator[Any]:
        """Note one value, and tell what is reached from it."""
        match value:
            case torch.Tensor():
                self.tensors.append(value)
                if not value.is_inference():
                    self._versions.append((value, value._version))
            case torch.nn.Module():
                yield from self._called(value)
            case types.FunctionType():
                yield from self._read(value)
            case types.MethodType():
                yield value.__func__
                yield from self._hold(value.__self__, value.__func__)
            case functools.partial():
                yield from (value.func, *value.args, *value.keywords.values())
            case tuple():
                yield from value
            case list() | dict():
                self._rows.append((value, [*_values(value)]))
                yield from _values(value)
            case _ if callable(value) and isinstance(type(value).__call__, types.FunctionType):
                yield from self._hold(value, type(value).__call__)
            case _:
                pass

    def _called(self, module: torch.nn.Module) -> Iterator[Any]:
        """Note a module that a function calls, whose tensors it therefore reads."""
        parts = list(module.modules())
        self._look_at(parts, parts)
        for part in parts:
            yield from self._name(part._parameters, part._parameters)
            yield from self._name(part._buffers, part._buffers)

    def _read(self, function: types.FunctionType) -> Iterator[Any]:
        """Note what a function has in its closure, and reads of its file."""
        for cell in function.__closure__ or ():
            self._cells.append((cell, _content(cell)))
            yield _content(cell)
        yield from function.__defaults__ or ()
        if _is_users(function):
            yield from self._name(function.__globals__, names_read(function))

    def _name(self, held: dict[str, Any], names: Any) -> list[Any]:
        """Note what stands under names in a dict, apart from Python's modules."""
        found = {
            name: held[name]
            for name in names
            if name in held and not isinstance(held[name], types.ModuleType)
        }
        self._named |= {(id(held), name): (held, name, value) for name, value in found.items()}
        return list(found.values())

    def _hold(self, holder: Any, method: Any) -> Iterator[Any]:
        """Note what an object holds that is called by one of its methods."""
        if isinstance(holder, torch.nn.Module):
            yield holder
        elif isinstance(method, types.FunctionType) and _is_users(method):
            held = {} if isinstance(holder, type) else getattr(holder, "__dict__", {})
            self._attributes += [(holder, name, value) for name, value in held.items()]
            yield from (method, *held.values())


def _is_users(function: types.FunctionType) -> bool:
    return not function.__code__.co_filename.startswith(INSTALLED)


def _content(cell: types.CellType) -> Any:
    """What a closure has in a cell; an ellipsis for nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return ...


def _values(row: Any) -> Any:
    return row.values() if isinstance(row, dict) else row

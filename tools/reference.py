"""The reference: a task's op as source text in the field's convention, and that text loaded.

The convention is `class Model`, `get_inputs()` and `get_init_inputs()`. It is the user's own code
and runs in the judge's process; whatever it does wrong becomes one `BadInput` line.
"""

import contextlib
import inspect
import io
import itertools
import random
import shutil
import sys
import tempfile
import traceback
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import torch
from torch.utils import _pytree as pytree

from knowledge.errors import BadInput
from tools.elementary import resolve
from tools.importing import import_file

CONVENTION = "A reference defines class Model(torch.nn.Module), get_inputs() and get_init_inputs()."

CPU = torch.device("cpu")

_serial = itertools.count()


@dataclass(frozen=True, eq=False)
class LoadedReference:
    """A reference that was executed as a real, registered module, so that it can be traced.

    `device` is where its models and inputs are put.
    """

    source: str
    origin: str
    module: ModuleType
    device: torch.device = CPU

    @property
    def digest(self) -> str:
        """SHA-256 of the source."""
        return sha256(self.source.encode()).hexdigest()

    def init_arguments(self, seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What `Model` is constructed with.

        The field writes a list of arguments, a dict of keyword arguments, or a pair of both; a
        pair is taken as such wherever the constructor accepts it so.

        Raises:
            BadInput: get_init_inputs() raises or returns something else.
        """
        if not hasattr(self.module, "get_init_inputs"):
            return (), {}
        with self._blaming("get_init_inputs()"):
            seed_generators(seed)
            given = self.module.get_init_inputs()
        if isinstance(given, dict):
            return (), given
        if not isinstance(given, list | tuple):
            kind = type(given).__name__
            raise BadInput(self.origin, f"get_init_inputs() returns a {kind}.", "Return a list.")
        if len(given) == 2 and isinstance(given[0], list | tuple) and isinstance(given[1], dict):
            positional, named = tuple(given[0]), given[1]
            if not positional or _accepts(self.module.Model, positional, named):
                return positional, named
        return tuple(given), {}

    def build(self, seed: int) -> torch.nn.Module:
        """A fresh model, its weights drawn from `seed`, in the mode its constructor leaves it in.

        Raises:
            BadInput: the constructor raises.
        """
        positional, named = self.init_arguments(seed)
        with self._blaming("Model's constructor"):
            seed_generators(seed)
            model: torch.nn.Module = self.module.Model(*positional, **named)
            return moved(model, self.device)

    def inputs(self, seed: int) -> tuple[Any, ...]:
        """The arguments of forward, drawn from `seed`.

        Raises:
            BadInput: get_inputs() raises or returns no arguments.
        """
        with self._blaming("get_inputs()"):
            given = self._drawn(seed)
        if isinstance(given, torch.Tensor):
            return (given,)
        if not isinstance(given, list | tuple) or not given:
            raise BadInput(self.origin, "get_inputs() returns no list of inputs.", CONVENTION)
        return tuple(given)

    def _drawn(self, seed: int) -> Any:
        """What get_inputs() returns: made on the device itself where it lets itself be."""
        seed_generators(seed)
        if self.device.type == "cpu":
            return self.module.get_inputs()
        try:
            with self.device:
                given = self.module.get_inputs()
        except (RuntimeError, TypeError):
            # It hands numbers to NumPy, say, or brings a generator of the CPU's.
            seed_generators(seed)
            given = self.module.get_inputs()
        return on_device(given, self.device)

    def run(self, model: torch.nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> Any:
        """What forward returns, without gradients; randomness inside it is drawn from `seed`.

        Raises:
            BadInput: forward raises, or returns no tensor with an element in it.
        """
        with self._blaming("forward on what get_inputs() returns"), torch.no_grad():
            seed_generators(seed)
            returned = model(*inputs)
        if not any(tensor.numel() for tensor in tensors_of(returned)):
            raise BadInput(self.origin, "forward returns no tensor, or only empty ones.")
        return returned

    @contextlib.contextmanager
    def _blaming(self, part: str) -> Iterator[None]:
        with _quiet(), _as_bad_input(self.origin, part, str(self.module.__file__)):
            yield


def load(source: str, origin: str, device: torch.device = CPU) -> LoadedReference:
    """Execute a reference.

    Args:
        source: Python text in the convention.
        origin: what messages call it, usually the user's file name.
        device: where its models and inputs are put.

    Raises:
        BadInput: it does not parse, raises when imported, or lacks Model or get_inputs.
    """
    resolve()
    folder = Path(tempfile.mkdtemp(prefix="reference-"))
    name = f"loaded_reference_{next(_serial)}"
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    try:
        with (
            _quiet(),
            _neighbours_importable(origin),
            _as_bad_input(origin, "import", str(path)),
        ):
            module = import_file(path, name)
        _require_convention(module, origin)
    except BaseException:
        sys.modules.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # inspect reads the file for as long as the module is there.
    weakref.finalize(module, shutil.rmtree, folder, ignore_errors=True)
    return LoadedReference(source, origin, module, device)


def tensors_of(packed: Any) -> tuple[torch.Tensor, ...]:
    """The tensors in what forward takes or returns, in order, however they are packed."""
    return tuple(leaf for leaf in pytree.tree_leaves(packed) if isinstance(leaf, torch.Tensor))


def on_device(packed: Any, device: torch.device) -> Any:
    """The same values with every tensor on the device."""
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), packed)


def moved(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model on the device, with the tensors that it keeps as plain attributes."""
    if device.type == "cpu":
        return model
    model = model.to(device)
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):
                setattr(module, name, value.to(device))
    return model


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A module's parameters and buffers by name, those that are not saved included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def plain_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a module keeps as plain attributes, by name: no state_dict has them."""
    return {
        f"{path}.{name}" if path else name: value
        for path, part in model.named_modules(remove_duplicate=False)
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    }


def seed_generators(seed: int) -> None:
    """Restart every random generator that references are known to draw from."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Standard output carries results only, so what a reference prints goes nowhere."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def _neighbours_importable(origin: str) -> Iterator[None]:
    """A reference that is a file may import what lies beside it, as a script may."""
    folder = [str(Path(origin).resolve().parent)] if Path(origin).is_file() else []
    sys.path[:0] = folder
    try:
        yield
    finally:
        for entry in folder:
            sys.path.remove(entry)


@contextlib.contextmanager
def _as_bad_input(origin: str, part: str, path: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that names the line of her file."""
    try:
        yield
    except SyntaxError as error:
        place = f" on line {error.lineno}" if error.filename == path else ""
        raise BadInput(origin, f"is not Python: {error.msg}{place}.") from error
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        place = f" on line {frames[-1].lineno}" if frames else ""
        message = " ".join(str(error).split())[:300]
        said = f"{type(error).__name__}{': ' + message if message else ''}"
        raise BadInput(origin, f"{part} raises{place}: {said}") from error


def _require_convention(module: ModuleType, origin: str) -> None:
    if not inspect.isclass(getattr(module, "Model", None)):
        classes = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value)
            and issubclass(value, torch.nn.Module)
            and value.__module__ == module.__name__
        ]
        mend = f"Rename class {classes[-1]} to Model." if classes else CONVENTION
        raise BadInput(origin, "has no class Model.", mend)
    if not issubclass(module.Model, torch.nn.Module):
        raise BadInput(origin, "class Model is not a torch.nn.Module.", CONVENTION)
    if not callable(getattr(module, "get_inputs", None)):
        raise BadInput(origin, "has no get_inputs().", CONVENTION)


def _accepts(model: type, positional: tuple[Any, ...], named: dict[str, Any]) -> bool:
    try:
        inspect.signature(model).bind(*positional, **named)
    except TypeError:
        return False
    return True

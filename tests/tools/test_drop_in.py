"""The drop-in goes to its kernel where that was verified, and is the reference everywhere else."""

import copy
import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools.shipping import NORM_REFERENCE, REFERENCE, norm_shipment, shipment, shipped
from tools.candidate import Candidate
from tools.signature import Signature, Slot


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return shipped(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="module")
def norm(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return shipped(tmp_path_factory.mktemp("norm"), norm_shipment())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def reference_of(source: str) -> Any:
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102 - the test's own text
    return namespace["Model"]


Model, NormModel = reference_of(REFERENCE), reference_of(NORM_REFERENCE)


def pair(kernel: ModuleType, old: Any = Model, features: int = 5) -> tuple[Any, Any]:
    """Reference and drop-in with the same weights."""
    model, new = old(features), kernel.ModelNew(features)
    new.load_state_dict(model.state_dict())
    return model, new


def calls(kernel: ModuleType, call: Callable[[], Any]) -> tuple[int, Any]:
    """How often the kernel was called meanwhile, and what came of it."""
    before = len(kernel.CALLS)
    made = call()
    return len(kernel.CALLS) - before, made


@pytest.mark.parametrize("rows", [1, 9, 10])
def test_a_verified_call_goes_to_the_kernel(kernel: ModuleType, rows: int) -> None:
    model, new = pair(kernel)
    x = torch.randn(rows, 5)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
        assert number == 1
        torch.testing.assert_close(made, model(x))
        assert calls(kernel, lambda: new(x=x))[0] == 1


@pytest.mark.parametrize(
    ("what", "x"),
    [
        ("more rows", torch.randn(11, 5)),
        ("more dimensions", torch.randn(2, 9, 5)),
        ("another layout", torch.randn(5, 9).t()),
        ("another width", torch.randn(9, 1)),
        ("another dtype", torch.randn(9, 5, dtype=torch.float64)),
    ],
)
def test_any_other_call_goes_to_the_reference(kernel: ModuleType, what: str, x: Any) -> None:
    model, new = pair(kernel)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
        assert number == 0, what
        assert torch.equal(made, model(x))
    assert not new.takes_kernel(x)


def test_an_odd_address_goes_to_the_reference_unless_one_was_tried(tmp_path: Path) -> None:
    aligned = tuple(one.model_copy(update={"aligned": True}) for one in shipment().signatures)
    kernel = shipped(tmp_path, shipment(signatures=aligned))
    new = kernel.ModelNew(5)
    odd = torch.randn(46)[1:].view(9, 5)
    assert not new.takes_kernel(odd)
    assert new.takes_kernel(odd.clone())


def test_constructed_otherwise_it_is_the_reference(kernel: ModuleType) -> None:
    # The kernel has the factor 3 in its code.
    new = kernel.ModelNew(5, by=2.0)
    x = torch.randn(9, 5)
    with torch.no_grad():
        number, made = calls(kernel, lambda: new(x))
    assert number == 0
    assert torch.equal(made, x * 2.0 + new.shift)
    assert kernel.ModelNew(5, by=3.0).takes_kernel(x)
    assert not kernel.ModelNew(5).double().takes_kernel(x)


def test_changed_since_it_is_the_reference(kernel: ModuleType) -> None:
    new = kernel.ModelNew(5)
    new.by = 2.0
    x = torch.randn(9, 5)
    torch.testing.assert_close(new(x), x * 2.0 + new.shift)
    assert not new.takes_kernel(x)


def test_its_weights_are_drawn_as_the_references_are(kernel: ModuleType) -> None:
    torch.manual_seed(7)
    expected = [Model(5).shift, torch.rand(3)]
    torch.manual_seed(7)
    made = [kernel.ModelNew(5).shift, torch.rand(3)]
    assert all(map(torch.equal, made, expected))


def test_new_weights_reach_the_kernel_however_they_come(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)

    def agree() -> None:
        with torch.no_grad():
            number, made = calls(kernel, lambda: new(x))
            assert number == 1
            torch.testing.assert_close(made, x * 3.0 + new.shift)

    agree()
    with torch.no_grad():
        new.shift.add_(1.0)
    agree()
    new.load_state_dict(Model(5).state_dict())
    agree()
    new.shift = torch.nn.Parameter(torch.randn(5))
    agree()
    new.to(torch.float64).to(torch.float32)
    agree()
    assert list(new.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("copied", ["deepcopy", "file"])
def test_a_copy_has_weights_of_its_own(kernel: ModuleType, copied: str) -> None:
    new = kernel.ModelNew(5)
    x = torch.randn(9, 5)
    with torch.no_grad():
        before = new(x)
    if copied == "deepcopy":
        other = copy.deepcopy(new)
    else:
        file = io.BytesIO()
        torch.save(new, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    with torch.no_grad():
        other.shift.zero_()
        number, made = calls(kernel, lambda: other(x))
        assert number == 1
        torch.testing.assert_close(made, x * 3.0)
        torch.testing.assert_close(new(x), before)


def test_gradients_are_the_references(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)
    for one in (model, new):
        given = x.clone().requires_grad_()
        (one(given) ** 2).sum().backward()
        one.grads = [given.grad, one.shift.grad]
    for made, expected in zip(new.grads, model.grads, strict=True):
        torch.testing.assert_close(made, expected)


def test_the_forward_of_a_training_step_is_the_kernels(kernel: ModuleType) -> None:
    _, new = pair(kernel)
    number, made = calls(kernel, lambda: new(torch.randn(9, 5)))
    assert number == 1
    assert made.requires_grad
    new.recompute = False
    number, made = calls(kernel, lambda: new(torch.randn(9, 5)))
    assert number == 0
    assert new.takes_kernel(torch.randn(9, 5))


def test_gradients_have_gradients(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(9, 5)
    found = []
    for one in (model, new):
        given = x.clone().requires_grad_()
        (first,) = torch.autograd.grad((one(given) ** 3).sum(), given, create_graph=True)
        found.append(torch.autograd.grad(first.sum(), [given, one.shift]))
    for made, expected in zip(*found, strict=True):
        torch.testing.assert_close(made, expected)


def test_training_with_it_ends_where_training_without_it_does(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x, target = torch.randn(9, 5), torch.randn(9, 5)
    for one in (model, new):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            ((one(x) - target) ** 2).mean().backward()
            optimizer.step()
    torch.testing.assert_close(new.shift, model.shift)


def test_opcheck_finds_nothing(kernel: ModuleType, norm: ModuleType) -> None:
    for module, features, x in ((kernel, 5, torch.randn(9, 5)), (norm, 4, torch.randn(8, 4))):
        new = module.ModelNew(features)
        state = [new.get_parameter(n) if n in dict(new.named_parameters()) else new.get_buffer(n)
                 for n in sorted(new.state_dict())]  # fmt: skip
        operator = getattr(torch.ops.kernelwright, module.OPERATOR["name"]).default
        torch.library.opcheck(operator, ([x], [t.detach().clone() for t in state]))
        torch.library.opcheck(operator, ([x.requires_grad_()], state))


# Of torch's own making, when it loads its compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_compiled_as_part_of_a_model_it_is_one_operator(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    graphs: list[torch.fx.GraphModule] = []

    class Around(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.first, self.inner = torch.nn.Linear(5, 5), inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.inner(self.first(x))).sum(dim=1)

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph

    around, plain = Around(new), Around(model)
    plain.first.load_state_dict(around.first.state_dict())
    x = torch.randn(9, 5)
    torch.compile(around, fullgraph=True, backend=keep)(x)
    operator = getattr(torch.ops.kernelwright, kernel.OPERATOR["name"]).default
    assert [node.target for node in graphs[0].graph.nodes].count(operator) == 1
    compiled = torch.compile(around, fullgraph=True)
    number, made = calls(kernel, lambda: compiled(x))
    assert number == 1
    torch.testing.assert_close(made, plain(x))
    made.sum().backward()
    plain(x).sum().backward()
    torch.testing.assert_close(around.first.weight.grad, plain.first.weight.grad)
    torch.testing.assert_close(new.shift.grad, model.shift.grad)


def test_compiled_outside_of_what_was_verified_it_is_plain_torch(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(20, 5)
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    number, made = calls(kernel, lambda: compiled(x))
    assert number == 0
    torch.testing.assert_close(made, model(x))


def test_exported_it_is_one_operator_for_every_verified_size(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    rows = torch.export.Dim("rows", min=2, max=10)
    program = torch.export.export(new, (torch.randn(9, 5),), dynamic_shapes=({0: rows},))
    operator = getattr(torch.ops.kernelwright, kernel.OPERATOR["name"]).default
    assert [node.target for node in program.graph.nodes].count(operator) == 1
    x = torch.randn(4, 5)
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("way", ["kernel", "gradients", "compiled"])
def test_what_forward_changes_in_its_module_changes(norm: ModuleType, way: str) -> None:
    model, new = pair(norm, NormModel, 4)
    call = torch.compile(new, fullgraph=True, backend="aot_eager") if way == "compiled" else new
    for _ in range(3):
        x = torch.randn(8, 4)
        with torch.set_grad_enabled(way == "gradients"):
            number, made = calls(norm, lambda x=x: call(x))
            assert number == 1
            for one, other in zip(made, model(x), strict=True):
                torch.testing.assert_close(one, other)
        if way == "gradients":
            made[0].square().sum().backward()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(new.state_dict()[name], value)


def test_gradients_through_changing_buffers(norm: ModuleType) -> None:
    model, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    for one in (model, new):
        one(x)[0].square().sum().backward()
    for made, expected in zip(new.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(made.grad, expected.grad)


def test_in_another_mode_it_is_the_reference_where_that_matters(
    norm: ModuleType, kernel: ModuleType
) -> None:
    model, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    model.eval(), new.eval()
    with torch.no_grad():
        number, made = calls(norm, lambda: new(x))
        assert number == 0
        assert torch.equal(made[0], model(x)[0])
    assert new.train().takes_kernel(x)
    new.norm.eval()
    assert not new.takes_kernel(x)
    assert kernel.ModelNew(5).eval().takes_kernel(torch.randn(9, 5))


def test_a_part_that_was_exchanged_or_is_listened_to_is_called(norm: ModuleType) -> None:
    _, new = pair(norm, NormModel, 4)
    x = torch.randn(8, 4)
    assert new.takes_kernel(x)
    heard: list[Any] = []
    hook = new.norm.register_forward_hook(lambda *args: heard.append(args))
    new(x)
    assert len(heard) == 1
    hook.remove()
    assert new.takes_kernel(x)
    new._modules["norm"] = torch.nn.Identity()
    assert torch.equal(new(x)[0], x.clamp(min=0))


def test_a_part_that_was_changed_before_anybody_called_is_seen(norm: ModuleType) -> None:
    x = torch.randn(8, 4)
    _, new = pair(norm, NormModel, 4)
    new.norm = torch.nn.Identity()
    assert torch.equal(new(x)[0], x.clamp(min=0))
    _, new = pair(norm, NormModel, 4)
    assert new.takes_kernel(x)
    new.norm.eps = 1.0
    number, made = calls(norm, lambda: new(x))
    assert number == 0
    expected = (x - x.mean(0)) * torch.rsqrt(x.var(0, correction=0) + 1.0)
    torch.testing.assert_close(made[0], expected.clamp(min=0))
    assert not copy.deepcopy(new).takes_kernel(x)
    new.norm.eps = 1e-5
    assert new.takes_kernel(x)
    hook = new.norm.register_full_backward_hook(lambda *_: None)
    assert not new.takes_kernel(x)
    hook.remove()
    assert new.takes_kernel(x)


def test_compiled_with_a_changed_part_it_is_plain_torch(norm: ModuleType) -> None:
    _, new = pair(norm, NormModel, 4)
    new.norm.eps = 1.0
    compiled = torch.compile(new, backend="eager", fullgraph=True)
    x = torch.randn(8, 4)
    with torch.no_grad():
        number, made = calls(norm, lambda: compiled(x))
    assert number == 0
    expected = (x - x.mean(0)) * torch.rsqrt(x.var(0, correction=0) + 1.0)
    torch.testing.assert_close(made[0], expected.clamp(min=0))


def test_a_weight_that_lies_otherwise_is_the_references(tmp_path: Path) -> None:
    reference = REFERENCE.replace("torch.randn(features)", "torch.randn(features, 2)[:, 0]")
    assert reference != REFERENCE
    kernel = shipped(tmp_path, shipment(reference=reference))
    new = kernel.ModelNew(5)
    assert new.shift.stride() != (1,)
    assert not new.takes_kernel(torch.randn(9, 5))


def test_first_calls_of_many_threads_have_the_weights(kernel: ModuleType) -> None:
    x = torch.randn(9, 5)
    for _ in range(30):
        model, new = pair(kernel)
        expected = model(x).detach()
        gate = threading.Barrier(4)

        def call(_: int, new: Any = new, gate: Any = gate) -> torch.Tensor:
            gate.wait()
            with torch.no_grad():
                made: torch.Tensor = new(x)
            return made

        with ThreadPoolExecutor(4) as pool:
            for made in pool.map(call, range(4)):
                torch.testing.assert_close(made, expected)


def test_constructing_one_leaves_others_random_numbers_alone(kernel: ModuleType) -> None:
    random.seed(1)
    expected = random.random()
    random.seed(1)
    kernel.ModelNew(5)
    assert random.random() == expected


def test_transforms_and_autocast_see_the_reference(kernel: ModuleType) -> None:
    model, new = pair(kernel)
    x = torch.randn(3, 9, 5)
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(new)(x), torch.vmap(model)(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not new.takes_kernel(x[0])
    weights = {"shift": torch.zeros(5)}
    made = torch.func.functional_call(new, weights, (x[0],))
    torch.testing.assert_close(made, x[0] * 3.0)
    jacobian = torch.func.jacrev(new)(x[0])
    torch.testing.assert_close(jacobian, torch.func.jacrev(model)(x[0]))


def test_a_parametrized_weight_is_seen(kernel: ModuleType) -> None:
    new = kernel.ModelNew(5)
    x = torch.randn(9, 5)
    assert new.takes_kernel(x)

    class Doubled(torch.nn.Module):
        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value * 2

    shift = new.shift.detach().clone()
    torch.nn.utils.parametrize.register_parametrization(new, "shift", Doubled())
    torch.testing.assert_close(new(x), x * 3.0 + 2 * shift)


def test_two_versions_live_in_one_process(kernel: ModuleType, tmp_path: Path) -> None:
    other = shipment().candidate.source.replace("One pass", "Another pass")
    second = shipped(tmp_path, shipment(candidate=Candidate(source=other, backend="cpp")))
    again = shipped(tmp_path / "again")
    assert second.OPERATOR["name"] != kernel.OPERATOR["name"] == again.OPERATOR["name"]
    x = torch.randn(9, 5)
    for module in (kernel, second, again):
        assert module.ModelNew(5).takes_kernel(x)


PAIR_REFERENCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, parts, by, more=None):
        return [parts[0] * by, parts[1] + by]

def get_inputs():
    return [[torch.randn(4), torch.randn(6)], 2.0]
"""
PAIR_KERNEL = PAIR_REFERENCE.replace("Model(", "ModelNew(").replace(
    "        return", "        CALLS.append(by)\n        return"
) + "CALLS = []\n"  # fmt: skip


def test_what_is_no_tensor_has_to_be_as_it_was_verified(tmp_path: Path) -> None:
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=PAIR_KERNEL, backend="torch"), reference=PAIR_REFERENCE,
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    new = kernel.ModelNew()
    parts = [torch.randn(4), torch.randn(6)]
    assert calls(kernel, lambda: new(parts, 2.0))[0] == 1
    assert calls(kernel, lambda: new(parts, by=2.0))[0] == 1
    assert calls(kernel, lambda: new(parts, 3.0))[0] == 0
    assert calls(kernel, lambda: new(parts, 2.0, more=1))[0] == 0
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    number, made = calls(kernel, lambda: compiled(parts, 2.0))
    assert number == 1
    assert isinstance(made, list)
    torch.testing.assert_close(made, [parts[0] * 2, parts[1] + 2])


def test_results_may_be_nested(tmp_path: Path) -> None:
    nested = "return {'times': parts[0] * by, 'more': ([parts[1] + by],)}"
    flat = "return [parts[0] * by, parts[1] + by]"
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=PAIR_KERNEL.replace(flat, nested), backend="torch"),
        reference=PAIR_REFERENCE.replace(flat, nested),
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    new, parts = kernel.ModelNew(), [torch.randn(4), torch.randn(6)]
    expected = {"times": parts[0] * 2, "more": ([parts[1] + 2],)}
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    for call in (new, compiled):
        number, made = calls(kernel, lambda call=call: call(parts, 2.0))
        assert number == 1
        torch.testing.assert_close(made, expected)


def test_nothing_may_be_among_the_arguments(tmp_path: Path) -> None:
    reference = PAIR_REFERENCE.replace("more=None", "more").replace("2.0]", "2.0, None]")
    slots = tuple(Slot(dtype="float32", sizes=(size,)) for size in (4, 6))
    source = PAIR_KERNEL.replace("more=None", "more").replace("2.0]", "2.0, None]")
    kernel = shipped(tmp_path, shipment(
        candidate=Candidate(source=source, backend="torch"), reference=reference,
        signatures=(Signature(device="cpu", inputs=slots, outputs=slots, aligned=False),),
        returns=None,
    ))  # fmt: skip
    parts = [torch.randn(4), torch.randn(6)]
    number, made = calls(kernel, lambda: kernel.ModelNew()(parts, 2.0, None))
    assert number == 1
    torch.testing.assert_close(made, [parts[0] * 2, parts[1] + 2])
    assert calls(kernel, lambda: kernel.ModelNew()(parts, 2.0, 1))[0] == 0


def test_each_shape_may_have_a_kernel_of_its_own(tmp_path: Path) -> None:
    second = Candidate(source=shipment().candidate.source.replace("CALLS = []", "CALLS = ['2nd']"),
                       backend="cpp")  # fmt: skip
    slot = Slot(dtype="float32", sizes=(30, 5))
    further = Signature(device="cpu", inputs=(slot,), outputs=(slot,), aligned=False, kernel=1)
    kernel = shipped(
        tmp_path, shipment(signatures=(*shipment().signatures, further), others=(second,))
    )
    model, new = pair(kernel)
    x = torch.randn(30, 5)
    with torch.no_grad():
        number, made = calls(kernel.OTHER_1, lambda: new(x))
        assert number == 1
        torch.testing.assert_close(made, model(x))
        assert calls(kernel, lambda: new(x[:9]))[0] == 1


TRITON_KERNEL = """
import torch
import triton
import triton.language as tl

CALLS = []


@triton.jit
def scale(x, s, y, count, width, by, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside) * by + tl.load(s + at % width, mask=inside)
    tl.store(y + at, value, mask=inside)


class ModelNew(torch.nn.Module):
    def __init__(self, features, by=3.0):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x):
        CALLS.append(tuple(x.shape))
        y = torch.empty_like(x)
        scale[(triton.cdiv(x.numel(), 256),)](x, self.shift, y, x.numel(), x.shape[1], 3.0, 256)
        return y
"""


@pytest.mark.gpu
def test_on_a_gpu_it_takes_calls_of_the_verified_architecture(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    major, minor = torch.cuda.get_device_capability()
    for device, taken in ((f"cuda:sm_{major}{minor}", 1), ("cuda:sm_10", 0)):
        table = tuple(one.model_copy(update={"device": device}) for one in shipment().signatures)
        kernel = shipped(tmp_path / str(taken), shipment(
            candidate=Candidate(source=TRITON_KERNEL, backend="triton"), signatures=table,
        ))  # fmt: skip
        model, new = (one.to("cuda") for one in pair(kernel))
        x = torch.randn(9, 5, device="cuda")
        with torch.no_grad():
            number, made = calls(kernel, lambda new=new, x=x: new(x))
        assert number == taken
        torch.testing.assert_close(made, model(x))
        compiled = torch.compile(new, fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
        compiled(x).sum().backward()
        assert torch.equal(new.shift.grad, torch.full((5,), 9.0, device="cuda"))

"""A confirmed candidate as files that anyone can use: the kernel, its reference and their test.

What is written needs torch and the kernel's own compiler, and nothing of Kernelwright. The kernel
is an operator of torch's, takes the calls that it was verified for, and leaves others to the
reference: `docs/ship.md`. Nothing here is executed.
"""

import ast
import re
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import Field

from knowledge.opgraph import Frozen
from tools.candidate import Candidate
from tools.exercises import exercise_text
from tools.inline import drop_in_text, give_way, literal, renamed, stand_alone
from tools.signature import Signature
from tools.verdict import Compiled, Correct

__all__ = ["Shipment", "export", "kernel_text", "stand_alone"]

NEEDS = {
    "cpp": "torch and a C++ compiler", "torch": "torch", "triton": "torch and triton",
    "cuda": "torch, cuda-python and nvidia-cuda-nvrtc",
}  # fmt: skip
# The judge's case for a kernel whose weights have other names than the reference's.
REBUILT = "rebuilt weights"
TABLE_WORDS = """\
# What was verified; the first line that holds for a call's tensors names the kernel that takes it,
# and all other calls go to the reference. Add a line once you have checked what it says."""
# Of a kernel alone: a drop-in sees to it.
HERE = (
    "Triton launches on the current device: call it within `with torch.cuda.device_of(x)` where "
    "that may be another than the tensors'."
)
DROP_IN_WORDS = """\
# From here on nothing is particular to this op: the drop-in's own part, in which calls go to kernel
# or reference, and which tells torch of the kernel."""


Packing = Literal["tensor", "tuple", "list"]
# Where a live op's text says which file holds tensors of it that no state_dict has.
STATE_FILE = "state.safetensors"
STATE = re.compile(rf"^STATE = (['\"].*{re.escape(STATE_FILE)}['\"])$", re.MULTILINE)


class Shipment(Frozen):
    """What is handed over, and what is known of it.

    `signatures` say for which calls; without any, ModelNew is the kernel alone. `others` are
    further kernels: a signature's `kernel` counts them from 1. `returns` is how forward packs its
    results and `updates` which buffers it changes, None where the op has no graph that tells.
    `in_place`: it changes its own inputs. `origin` is the reference's file, if it has one.
    `gains` has a line for each of several workloads, whose means the verdict's figures are;
    `workloads` has the reference's text on each, by name, as their test needs it. `built` names,
    from 1 on, a workload for each further way to construct the op: see `Signature.built`.
    """

    candidate: Candidate
    reference: str
    verdict: Correct | Compiled
    subject: str = "an op"
    origin: str = ""
    device: str = ""
    signatures: tuple[Signature, ...] = ()
    others: tuple[Candidate, ...] = ()
    returns: Packing | None = None
    updates: tuple[str, ...] | None = None
    in_place: bool = False
    gains: tuple[str, ...] = ()
    workloads: dict[str, str] = Field({})
    built: tuple[str, ...] = ()

    @property
    def why_alone(self) -> str:
        """Why nothing decides who takes a call, as a sentence; empty where the drop-in does."""
        if isinstance(self.verdict, Compiled):
            return "Nothing was verified, so ModelNew is the kernel alone, whatever it is given."
        if is_as_given(self.candidate.source, self.reference):
            return "ModelNew is the op as it was given, so it takes whatever Model takes."
        if self.rebuilds_weights:
            return (
                "Its weights have other names than the reference's, which can't stand in for it: "
                "ModelNew is the kernel alone, for the shapes that were judged, without gradients."
            )
        if self.in_place:
            return (
                "The reference changes its own inputs, which an operator may not: ModelNew is the "
                "kernel alone."
            )
        if not self.signatures or not all(one.inputs for one in self.signatures):
            return "Its inputs are not tensors alone, so ModelNew is the kernel alone."
        return ""

    @property
    def rebuilds_weights(self) -> bool:
        """Whether its weights have other names than the reference's."""
        # Of several workloads a case's name begins with the workload's.
        cases = self.verdict.cases if isinstance(self.verdict, Correct) else ()
        return any(case.name.rpartition(": ")[2] == REBUILT for case in cases)

    @property
    def table(self) -> tuple[Signature, ...]:
        """The signatures in the order in which they are looked through.

        A size that varies is compared with bounds first: a tracer that had compared it with one
        number would hold it to be that, or never that.
        """
        return tuple(sorted(self.signatures, key=lambda signature: not signature.sizes))

    @property
    def operator(self) -> str:
        """The operator's name: the subject's, and a hash of all that could change what it does."""
        slug = re.sub(r"\W+", "_", self.subject.lower(), flags=re.ASCII).strip("_") or "op"
        sources = (one.source for one in (self.candidate, *self.others))
        table = (one.literal() for one in self.table)
        ways = (self.workloads[name] for name in self.built)
        text = "\0".join([*sources, self.reference, *ways, *table, drop_in_text()])
        name = f"{slug}_{sha256(text.encode()).hexdigest()[:10]}"
        return name if name[0].isalpha() else f"op_{name}"


def export(shipment: Shipment, folder: Path) -> Path:
    """Write `kernel.py`, `reference.py` and `test_kernel.py` into `folder`, made if it is missing.

    Returns:
        The kernel's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kernel = folder / "kernel.py"
    kernel.write_text(kernel_text(shipment), encoding="utf-8")
    (folder / "reference.py").write_text(shipment.reference, encoding="utf-8")
    (folder / "test_kernel.py").write_text(test_text(shipment), encoding="utf-8")
    return kernel


def test_text(shipment: Shipment) -> str:
    """The test that goes with the kernel."""
    return exercise_text(shipment.reference, shipment.workloads)


def kernel_text(shipment: Shipment) -> str:
    """The kernel's file."""
    header = "\n".join(_header(shipment))
    source = shipment.candidate.source
    if shipment.why_alone:
        return stand_alone(source, header)
    own = "KernelModel"
    while own in source:
        own += "_"
    alone = stand_alone(renamed(source, "ModelNew", own), header)
    tail = give_way(_tail(shipment, own), ast.parse(alone), "drop_in_", {own})
    return f"{alone}\n\n{tail}\n"


def _tail(shipment: Shipment, own: str) -> str:
    name = shipment.operator
    told = {"name": name, "returns": shipment.returns, "updates": shipment.updates}
    others = [
        _loaded(
            f"OTHER_{number}",
            f"kernelwright_{name}_{number}",
            stand_alone(one.source, f"Kernel {number} of {name}."),
        )
        for number, one in enumerate(shipment.others, 1)
    ]
    kernels = [own, *(f"OTHER_{number}.ModelNew" for number in range(1, len(others) + 1))]
    ways = [
        f"# Constructed as on {' '.join(workload.split())}.\n"
        + _loaded(
            f"REFERENCE_{number}",
            f"kernelwright_{name}_reference_{number}",
            shipment.workloads[workload],
        )
        for number, workload in enumerate(shipment.built, 1)
    ]
    references = ["REFERENCE", *(f"REFERENCE_{number}" for number in range(1, len(ways) + 1))]
    return "\n\n\n".join([
        "\n".join([TABLE_WORDS, "VERIFIED = (", *(s.literal() for s in shipment.table), ")"]),
        f"# torch.ops.kernelwright.{name}\nOPERATOR = {told!r}",
        f"# The op as it was given.\nREFERENCE_TEXT = {literal(shipment.reference)}",
        f"{DROP_IN_WORDS}\n{drop_in_text()}",
        "\n".join([
            f"REFERENCE = load_text({f'kernelwright_{name}_reference'!r}, REFERENCE_TEXT)",
            *others,
            *ways,
            f"KERNELS, REFERENCES = ({', '.join(kernels)},), ({', '.join(references)},)",
            "ModelNew = ship(OPERATOR, KERNELS, REFERENCES, VERIFIED, __name__)",
        ]),
    ])  # fmt: skip


def _loaded(variable: str, module: str, text: str) -> str:
    """A statement that makes a module of a text."""
    return f"{variable} = load_text(\n    {module!r},\n    {literal(text)},\n)"


def is_as_given(source: str, reference: str) -> bool:
    """Whether a candidate is the reference itself, but for names, or that under torch.compile."""
    ours, theirs = ast.parse(source), ast.parse(reference)
    given, made = _class_of(theirs, "Model"), _class_of(ours, "ModelNew")
    if given is None or made is None:
        return False
    bases = [base.id for base in made.bases if isinstance(base, ast.Name)]
    inner = _class_of(ours, bases[0]) if len(bases) == 1 else None
    plain = [_body(one) for one in (made, inner) if one is not None]
    return _body(given) in plain and _mean_the_same(ours, theirs)


def _mean_the_same(source: ast.Module, reference: ast.Module) -> bool:
    """Whether every name that the reference uses stands for the same in a candidate."""
    ours, theirs = _bindings(source), _bindings(reference)
    used = {node.id for node in ast.walk(reference) if isinstance(node, ast.Name)} - {"Model"}
    return set(ours[""]) <= set(theirs[""]) and all(
        ours[name] == theirs.get(name) for name in used if name in ours
    )


def _bindings(module: ast.Module) -> dict[str, list[str]]:
    """What a module binds each name to, as text; under "" the statements that do other things."""
    found: dict[str, list[str]] = {"": []}
    for statement in module.body:
        match statement:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name))
            ):
                pairs = [(name, ast.dump(statement))]
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                of = getattr(statement, "module", None)
                pairs = [
                    (one.asname or one.name.split(".")[0], f"{of}.{one.name}") for one in names
                ]
            case ast.Expr(value=ast.Constant()):
                pairs = []
            case _:
                pairs = [("", ast.dump(statement))]
        for name, text in pairs:
            found.setdefault(name, []).append(text)
    return found


def _class_of(module: ast.Module, name: str) -> ast.ClassDef | None:
    for statement in module.body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return statement
    return None


def _body(found: ast.ClassDef) -> str:
    text = "\n".join(ast.dump(statement) for statement in found.body)
    # A constructor may call super() by the name of its class.
    return text.replace(f"id='{found.name}'", "id='Model'")


def _header(shipment: Shipment) -> list[str]:
    candidate, verdict = shipment.candidate, shipment.verdict
    where = f" on {shipment.device}" if shipment.device else ""
    what = "A kernel, compiled and not timed, for"
    if isinstance(verdict, Correct):
        timed = verdict.timing
        faster = timed is not None and timed.faster
        what = "A faster" if faster else "Right, and not shown to be faster:"
        if is_as_given(candidate.source, shipment.reference):
            what = "As it was given:"
    notes = [f"Note: {label}." for label in (*candidate.labels, *verdict.labels)]
    if STATE.search(shipment.reference):
        notes.append(
            "Note: tensors that no state_dict has are read from STATE; without it they are random."
        )
    return [
        f"{what} {shipment.subject}{where}: ModelNew takes the place of Model in reference.py.",
        "",
        *figures(verdict),
        *_gained(shipment.gains),
        *notes,
        "",
        *_dispatched(shipment),
        "",
        f"Needs {NEEDS[candidate.backend]}. Same constructor, same forward, same weights by name:",
        "",
        "    new = ModelNew(*get_init_inputs())",
        "    new.load_state_dict(model.state_dict(), strict=False)",
        "",
        "test_kernel.py checks it against the reference: run it with pytest or plain python.",
        "Made by Kernelwright.",
    ]


def _dispatched(shipment: Shipment) -> list[str]:
    if shipment.why_alone:
        return [shipment.why_alone, *([HERE] if shipment.candidate.backend == "triton" else [])]
    return [
        "The kernel takes the calls that it was verified for, all others go to the reference,",
        "which is in this file too:",
        "",
        *(f"    {signature}{_way(shipment, signature)}" for signature in shipment.table),
        "",
        f"To torch it is the operator torch.ops.kernelwright.{shipment.operator}, so torch.compile",
        "and torch.export see it whole. Gradients are the reference's, which runs once more for",
        "them. Constructed otherwise than it was verified, or changed since, it is the reference.",
    ]


def _way(shipment: Shipment, signature: Signature) -> str:
    name = shipment.built[signature.built - 1] if signature.built else ""
    return f"; constructed as on {' '.join(name.split())}" if name else ""


def _gained(gains: tuple[str, ...]) -> list[str]:
    lines = [f"  {line}" for line in gains]
    return ["Verified on, the figures above being geometric means:", *lines] if lines else []


def figures(verdict: Correct | Compiled) -> list[str]:
    """What was measured, in sentences."""
    if isinstance(verdict, Compiled):
        return [f"Compiled for {verdict.device}, and never run on one: {verdict.logic}."]
    timing = verdict.timing
    if timing is None:
        return ["Correct; its speed was not measured."]
    rows = [
        f"{c.speedup:.2f}x (95% interval {c.low:.2f} to {c.high:.2f}) over {c.baseline}: "
        f"{c.candidate_ms:.3g} ms instead of {c.baseline_ms:.3g} ms"
        for c in timing.comparisons
    ]
    how = "confirmed in a fresh process with new seeds" if timing.confirmed else "measured once"
    return [*rows, f"Interleaved timing against the reference, {how}."]

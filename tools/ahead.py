"""Works for a GPU that is not there: compiles a candidate for it, and checks its logic without it.

It stands where the judge stands for a device that can be measured. The reference is examined by the
judge, on the CPU; nothing is timed, so no figure of speed ever comes from here.
"""

from knowledge.device import Device
from knowledge.errors import BadInput
from tools.backends.cpp.build import extract_sources
from tools.backends.cuda import compile as cuda
from tools.backends.triton import compile as triton
from tools.backends.triton.interpret import Candidate as Interpretable
from tools.backends.triton.interpret import Interpreted, interpret
from tools.candidate import Backend, Candidate
from tools.facts import Baseline, Baselines, ReferenceFacts, Roofline
from tools.judge.client import Judge
from tools.judge.source import parse_candidate
from tools.profile.occupancy import occupancy
from tools.verdict import BuildFailed, Compiled, KernelUse, Profile, Verdict, WrongOutput

ABSENT = "there is no such device on this machine"
AGREES = "in Triton's interpreter, on small inputs, its outputs agree with float64"
UNCHECKED = "CUDA C++ has no interpreter, so its logic was not checked"
LIBRARY = "it has no kernel of its own"
# A product in single precision on tensor cores is three products of TensorFloat-32.
PRODUCTS_OF_TF32 = 3
PROBE = "#include <cuda_fp16.h>\n"


class AheadOfTime:
    """The bench of a run whose device is absent.

    Args:
        judge: examines the reference; this ends it when it is closed.
        device: what to compile for.
        language: of the candidates' kernels.
    """

    def __init__(self, judge: Judge, device: Device, language: Backend) -> None:
        self._judge = judge
        self._device = device
        self._language = language
        self._facts: ReferenceFacts | None = None
        self._uses: dict[str, tuple[KernelUse, ...]] = {}

    def examine(self) -> ReferenceFacts:
        """The reference's facts.

        Raises:
            BadInput: the reference can't be loaded, run or judged, or the compiler is missing.
        """
        if self._facts is None:
            self._check_compiler()
            self._facts = self._judge.examine()
        return self._facts

    def _check_compiler(self) -> None:
        """Find a missing compiler before any candidate is blamed for it."""
        if self._language != "cuda":
            return
        ((answer,),) = cuda.compile_sources(
            [cuda.CudaSource(source=PROBE)], [self._device.architecture]
        )
        if isinstance(answer, cuda.CompileError):
            told = " ".join(answer.message.split())
            raise BadInput("task: backend", f"CUDA C++ can't be compiled here: {told}")

    def cautions(self) -> tuple[str, ...]:
        """What a reader of any verdict on this task must know."""
        return self.examine().cautions

    def survey(self) -> tuple[Baselines, Roofline]:
        """No baseline can be measured; the roofline is what the device's data sheet states.

        Raises:
            BadInput: the reference can't be loaded, run or judged.
        """
        rows = tuple(
            Baseline(name=name, median_ms=None, failed=ABSENT) for name in ("eager", "compile")
        )
        return Baselines(rows=rows, noise=0.0), roofline_of(self._device, self.examine())

    def build(self, candidate: Candidate) -> BuildFailed | None:
        """Compile a candidate for the device; None where nothing is wrong."""
        failed = parse_candidate(candidate.source)
        if failed is not None or candidate.digest in self._uses:
            return failed
        found = compiled_uses(candidate, self.examine().source, self._device)
        if isinstance(found, BuildFailed):
            return found
        self._uses[candidate.digest] = found
        return None

    def verify(self, candidate: Candidate) -> Verdict:
        """Compile it, and check its logic as far as that is possible without the device."""
        failed = self.build(candidate)
        if failed is not None:
            return failed
        logic = UNCHECKED if candidate.backend == "cuda" else LIBRARY
        if candidate.backend == "triton":
            job = Interpretable(candidate=candidate.source, reference=self.examine().source)
            (answer,) = interpret([job])
            if isinstance(answer, Interpreted) and answer.complaints:
                told = "; ".join(answer.complaints)
                return WrongOutput(detail=f"in Triton's interpreter, on small inputs: {told}")
            logic = (
                AGREES
                if isinstance(answer, Interpreted)
                else f"Triton's interpreter could not run it: {answer.message}"
            )
        return Compiled(device=self._device.name, kernels=self._uses[candidate.digest], logic=logic)

    def measure(
        self, candidate: Candidate, against: tuple[str, ...], to_beat: float | None = None
    ) -> Verdict:
        """As `verify`: there is nothing to measure on."""
        return self.verify(candidate)

    def confirm(self, candidate: Candidate) -> Verdict:
        """As `verify`: there is nothing to measure on."""
        return self.verify(candidate)

    def profile(self, candidate: Candidate) -> Profile | None:
        """None: nothing ran."""
        return None

    def abandon(self) -> None:
        """End the judge at once; a compiler that is at work ends by itself."""
        self._judge.abandon()

    def close(self) -> None:
        """End the judge; twice is fine."""
        self._judge.close()


def compiled_uses(
    candidate: Candidate, reference: str, device: Device
) -> tuple[KernelUse, ...] | BuildFailed:
    """What a candidate's kernels take of a device; none where it has none of its own.

    Args:
        candidate: its kernels in Triton or CUDA C++.
        reference: the source whose inputs it is run on, without data, to see what it launches.
        device: what to compile for.
    """
    if candidate.backend == "triton":
        (answer,) = triton.compile_candidates([(candidate.source, reference)], [device])
        if isinstance(answer, triton.CompileError):
            return BuildFailed(log=answer.told("kernel.py"))
        return uses_of(answer, device)
    return _compile_cuda(candidate, device) if candidate.backend == "cuda" else ()


def _compile_cuda(candidate: Candidate, device: Device) -> tuple[KernelUse, ...] | BuildFailed:
    texts = extract_sources(candidate.source, "cuda_kernel")
    sources = [cuda.CudaSource(source=one.source, flags=one.flags) for one in texts]
    found: list[KernelUse] = []
    for (answer,) in cuda.compile_sources(sources, [device.architecture]):
        if isinstance(answer, cuda.CompileError):
            return BuildFailed(log=answer.told())
        found += [_use_of(kernel, device) for kernel in answer.kernels]
    return tuple(found)


def _use_of(kernel: cuda.CompiledKernel, device: Device) -> KernelUse:
    share = 0.0
    if kernel.threads:
        bound = occupancy(device, kernel.threads, kernel.registers, kernel.shared_bytes)
        share = bound.share
    return KernelUse(
        function=kernel.function,
        architecture=kernel.architecture,
        registers=kernel.registers,
        stack_bytes=kernel.stack_bytes,
        spilled_bytes=kernel.spill_store_bytes + kernel.spill_load_bytes,
        shared_bytes=kernel.shared_bytes,
        threads=kernel.threads,
        occupancy=share,
    )


def uses_of(answer: triton.Compiled, device: Device) -> tuple[KernelUse, ...]:
    """What each of a candidate's Triton kernels takes of a device that it was compiled for."""
    return tuple(
        KernelUse(
            function=kernel.function,
            architecture=f"sm_{kernel.capability}",
            registers=kernel.registers,
            stack_bytes=kernel.stack_bytes,
            spilled_bytes=kernel.spill_store_bytes + kernel.spill_load_bytes,
            shared_bytes=kernel.shared_bytes,
            threads=32 * kernel.warps,
            occupancy=triton.occupancy(kernel, device),
            tensor_core=sum(kernel.tensor_core.model_dump().values()),
        )
        for kernel in answer.kernels
    )


def roofline_of(device: Device, facts: ReferenceFacts) -> Roofline:
    """The bound by the device's data sheet, at the best that the op's own precision allows."""
    bandwidth = device.figures["memory_bandwidth"]
    peak, how = _peak_tflops(device, {spec.dtype for spec in facts.inputs})
    return Roofline(
        bandwidth_gbps=bandwidth.value,
        peak_gflops=peak * 1e3,
        moved_bytes=facts.moved_bytes,
        flops=facts.flops,
        fault_us=0.0,
        measured=f"Not measured: bandwidth by {bandwidth.source}; peak by {how}.",
    )


def _peak_tflops(device: Device, dtypes: set[str]) -> tuple[float, str]:
    """The dense peak for inputs of these dtypes, and where it is from."""
    figures = device.figures
    if dtypes & {"float64"}:
        names = ["fp64_tensor", "fp64"]
    elif "float32" in dtypes or not dtypes & {"bfloat16", "float16"}:
        split = figures["tf32"].value / PRODUCTS_OF_TF32 if "tf32" in figures else 0.0
        if split > figures["fp32"].value:
            return split, f"{figures['tf32'].source}, three TF32 products for one of float32"
        names = ["fp32"]
    else:
        names = ["bf16" if "bfloat16" in dtypes else "fp16", "fp16", "fp32"]
    name = next(name for name in (*names, "fp32") if name in figures)
    return figures[name].value, figures[name].source

"""`python -m knowledge.search`, and that symptoms lead to the page that mends them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from knowledge.search import _show, app
from knowledge.store import Library, Passage

SYMPTOMS = {
    "time goes into minor page faults of a large output": "cpu/pages",
    "output is 64 MB and system time as high as user time": "profile/page-fault-evidence",
    "OSError undefined symbol: GOMP_parallel": "build/undefined-symbol-gomp",
    "undefined symbol in ctypes, function name is mangled": "build/undefined-symbol-mangled",
    "error: 'memcpy' was not declared in this scope": "build/missing-include",
    "softmax over a masked row returns NaN": "numeric/nan-inf-minus-inf",
    "NaN in the input is lost by the maximum": "numeric/fast-math-nan-lost",
    "worst element 80 times over tolerance for a long sum": "numeric/float-accumulation",
    "variance wrong when the mean is much larger than it": "numeric/one-pass-variance",
    "segmentation fault with a transposed input": "crash/segfault-non-contiguous",
    "contract_broken: expected shape (N, 1), got (N,)": "contract/wrong-shape",
    "expected int64 output, got int32": "contract/wrong-dtype",
    "kernel exceeded its deadline": "slow/timeout",
    "kernel becomes slow on very small values near 1e-39": "slow/denormals-slow",
    "more threads make it slower": "slow/oversubscription",
    "process hangs in parallel region in a forked worker": "crash/fork-openmp-hang",
    "signal 4 illegal instruction after moving to another machine": "crash/illegal-instruction",
    "garbage at the end of the rows, tail elements not written": "contract/uninitialised-output",
    "result changes from run to run": "numeric/data-race",
    "size mismatch when loading state_dict": "contract/missing-weights",
    "second call overwrote the first result": "contract/input-changed",
    "double constant 0.5 slows loop": "numeric/double-promotion",
    "tensor with more than 2**31 elements": "numeric/index-overflow",
    "unaligned address crash in stream store": "crash/alignment",
    "exp is slow, expf called per element, not vectorised": "cpu/vectorised-math",
    "is -ffast-math safe for infinities and NaN": "cpu/fast-math",
    "linear followed by sum over features": "ops/matmul-then-sum",
    "max over a dimension of size one, clamp that has no effect": "ops/algebra",
    "rms norm over channels fused into one pass": "ops/rms-norm",
    "layer norm over hidden dimension on CPU": "ops/layer-norm",
    "cross entropy loss with large number of classes": "ops/cross-entropy",
    "softmax row does not fit the cache, running maximum": "ops/softmax",
    "chain of gelu, add and multiply on a big tensor": "ops/pointwise-chains",
    "achieved bandwidth is 90% of the roofline, what is left": "profile/memory-bound",
    "small op takes 20 microseconds, overhead dominates": "profile/latency-bound",
    "cost of opening an OpenMP parallel region when threads sleep": "cpu/openmp",
    "write larger than the last-level cache, read for ownership": "cpu/streaming-stores",
    "how many accumulators to hide FMA latency": "cpu/vector-units",
    "which memory node do pages land on, dual socket": "cpu/numa",
    "cumulative sum along rows is a dependent chain": "ops/scans",
    "LSTM with many time steps on CPU": "ops/recurrent",
    "mean over space after convolution": "ops/convolution",
    "bias relu after linear fuse": "ops/gemm-epilogue",
    "skinny matmul with M=1": "ops/gemm",
    "sum over dim 1 of a 3D tensor with strided access": "ops/column-reductions",
    "sigmoid overflow for large negative numbers": "precision/stable-formulas",
    "reference in double precision, tolerance": "precision/float64-oracle",
    "interleaved benchmark, noise between runs": "profile/timing-noise",
    "fp32 matmul accuracy on tensor cores, three bf16 products": "gpu/tensor-core-precision",
    "warp loads with stride, low bandwidth on GPU": "gpu/coalescing",
    "out of resource: shared memory in triton": "gpu/shared-memory-banks",
    "many tiny kernels, gpu idle between launches": "gpu/launch-overhead",
    "L2 size and memory bandwidth of the A100 SXM4 80 GB": "devices/a100-sxm4-80gb",
}


def name_of(passage: Passage) -> str:
    """Its page's folder and name, e.g. cpu/pages."""
    page = Path(passage.source.split("#")[0])
    return f"{page.parent.name}/{page.stem}"


@pytest.fixture(scope="module")
def whole_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    library = Library.open(tmp_path_factory.mktemp("library"))
    yield library
    library.close()


@pytest.mark.parametrize(("symptom", "page"), SYMPTOMS.items(), ids=SYMPTOMS.values())
def test_a_symptom_leads_to_its_page_within_five(
    whole_library: Library, symptom: str, page: str
) -> None:
    assert page in [name_of(passage) for passage in whole_library.search(symptom, 5)]


def test_most_symptoms_find_their_page_first(whole_library: Library) -> None:
    first = sum(
        name_of(whole_library.search(symptom, 1)[0]) == page for symptom, page in SYMPTOMS.items()
    )
    assert first >= 0.7 * len(SYMPTOMS)


@pytest.fixture
def own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "library"))


@pytest.mark.usefixtures("own_library")
def test_a_person_reads_title_source_and_score() -> None:
    result = CliRunner().invoke(
        app, ["huge pages for a large output", "-k", "5", "--device", "cpu"]
    )
    assert result.exit_code == 0
    assert "docs/cpu/pages.md" in result.stdout
    assert "Huge pages" in result.stdout or "huge pages" in result.stdout


def test_brackets_and_code_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    common = {"id": "x", "score": 1.0}
    code = "// __init__\nfloat y = static_cast<float>(x);\n\nint main() {}"
    _show([
        Passage(source="/home/a.md", title="Options [/O2] of map[string]int", kind="document",
                text="**bold**", **common),
        Passage(source="/home/a.cpp#main", title="a.cpp", kind="document", text=code, **common),
    ])  # fmt: skip
    shown = capsys.readouterr().out
    assert "Options [/O2] of map[string]int" in shown
    assert "**" not in shown
    assert code in shown


@pytest.mark.usefixtures("own_library")
def test_json_is_one_document_and_nothing_else() -> None:
    result = CliRunner().invoke(app, ["online softmax", "-k", "3", "--kind", "pattern", "--json"])
    document = json.loads(result.stdout)
    assert document["query"] == "online softmax"
    assert len(document["passages"]) == 3
    assert {passage["kind"] for passage in document["passages"]} == {"pattern"}
    assert set(document["passages"][0]) >= {"source", "title", "text", "score"}


@pytest.mark.usefixtures("own_library")
def test_a_language_narrows_what_is_shown() -> None:
    asked = ["sum over a row", "-k", "10", "--language", "triton", "--json"]
    passages = json.loads(CliRunner().invoke(app, asked).stdout)["passages"]
    assert len(passages) == 10
    assert all("triton" in each["languages"] or not each["languages"] for each in passages)


def test_an_unusable_library_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_LIBRARY", str(tmp_path / "file"))
    result = CliRunner().invoke(app, ["softmax"])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1

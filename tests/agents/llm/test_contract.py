"""The example that each prompt gives is right: by the judge, the interpreter and the compiler."""

from pathlib import Path

import pytest

from agents.llm.prompts import words
from knowledge.device import load_devices
from tests.conftest import LIMITS
from tests.cuda_compiler import needs_nvrtc
from tools.backends.cuda.compile import Compiled, CudaSource, compile_sources
from tools.backends.triton.interpret import Candidate as Interpretable
from tools.backends.triton.interpret import Interpreted, interpret
from tools.candidate import Candidate
from tools.judge.client import Judge
from tools.task import parse_task
from tools.verdict import Correct

REFERENCE = """import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return x / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-6)


def get_inputs():
    return [torch.randn(64, 300)]


def get_init_inputs():
    return []
"""


def test_the_example_in_cpp_is_right(tmp_path: Path) -> None:
    (tmp_path / "op.py").write_text(REFERENCE, encoding="utf-8")
    task = parse_task({"name": "op", "reference": "op.py"}, "op.yaml", tmp_path)
    with Judge(task, tmp_path / "scratch", LIMITS) as judge:
        verdict = judge.verify(Candidate(source=words("example_cpp.py"), backend="cpp"))
    assert isinstance(verdict, Correct), verdict


def test_the_example_in_triton_is_right() -> None:
    pytest.importorskip("triton")
    job = Interpretable(candidate=words("example_triton.py"), reference=REFERENCE)
    assert interpret([job], 400.0) == [Interpreted(complaints=())]


@needs_nvrtc
def test_the_example_in_cuda_compiles() -> None:
    text = words("example_cuda.py").split('SOURCE = r"""')[1].split('"""')[0]
    ((answer,),) = compile_sources(
        [CudaSource(source=text)], [load_devices()["h200-sxm"].architecture]
    )
    assert isinstance(answer, Compiled), answer

"""What a candidate's source shows of itself."""

import pytest

from tools.candidate import backend_of


@pytest.mark.parametrize(
    ("source", "language"),
    [
        ("import torch\n", "torch"),
        ("# Slower than Triton.\nimport torch\n\n\ndef triton_free(x): ...\n", "torch"),
        ("from tools.backends.cpp.loader import cpp_kernel as compiled\n", "cpp"),
        ("import triton\n\n\n@triton.jit\ndef scale(x): ...\n", "triton"),
        ('scale = cuda_kernel(SOURCE, "scale", "pp")\n', "cuda"),
    ],
)
def test_the_language_of_a_module_is_that_of_its_kernels(source: str, language: str) -> None:
    assert backend_of(source) == language

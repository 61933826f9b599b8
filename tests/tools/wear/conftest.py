"""A module that wears a kernel."""

from pathlib import Path

import pytest
import torch

from tests.tools.wear.kernels import LINEAR, Head
from tools.wear import load_kernel, wear


@pytest.fixture
def worn(tmp_path: Path) -> tuple[Head, Head, torch.nn.Module]:
    (tmp_path / "kernel.py").write_text(LINEAR)
    kernel, head = load_kernel(tmp_path / "kernel.py"), Head()
    return wear(head, kernel, (torch.randn(8, 4),)), head, kernel

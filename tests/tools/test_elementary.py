"""Elementary functions are resolved before any thread may race for them, by no thread's help."""

import subprocess
import sys

import pytest
import torch

from tools.elementary import NAMES

ALONE = """
import os, torch
from tools.elementary import resolve
before = len(os.listdir("/proc/self/task"))
resolve()
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_resolving_them_starts_no_thread_so_that_a_zygote_may_fork_afterwards():
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize("name", NAMES)
def test_each_is_an_elementwise_function_of_torch(name):
    values = torch.full((5,), 0.5)
    assert getattr(torch, name)(values).shape == values.shape

"""The two ops of `tests.tools.shipping`, shipped; the same random numbers for every test.

Shipped once: a process has one operator of a name, which calls the kernel that came with it first.
"""

from types import ModuleType

import pytest
import torch

from tests.tools.shipping import norm_shipment, shipped


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return shipped(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="session")
def norm(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return shipped(tmp_path_factory.mktemp("norm"), norm_shipment())


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)

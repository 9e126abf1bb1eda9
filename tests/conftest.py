"""Fixtures shared by the tests."""

import os
from pathlib import Path

# Before anything loads a numerical library: tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread():
    """Small tensors run faster on one thread, and parallel test workers do not compete."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def research_data():
    """Folder of the data that may not be shipped; tests that need it skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKDIFFUSION_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("research data absent: set SKDIFFUSION_TEST_DATA to its folder")
    return folder

"""What the tests of all first-party plugins share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests share their cores, and one thread adds floats in one order."""
    torch.set_num_threads(1)

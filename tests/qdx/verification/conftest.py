from __future__ import annotations

import pytest
import torch

from tests.support.artifacts import Reference, make_reference


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Layers as tiny as these run slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sd(tmp_path_factory) -> Reference:
    return make_reference("sd", tmp_path_factory.mktemp("models") / "sd")


@pytest.fixture(scope="session")
def ddpm(tmp_path_factory) -> Reference:
    return make_reference("ddpm", tmp_path_factory.mktemp("models") / "ddpm")

"""Tiny pipelines, built once."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.qdx.smallest import build_smallest


@pytest.fixture(scope="session")
def smallest(tmp_path_factory):
    """A pipeline of one UNet and a scheduler."""
    return build_smallest(tmp_path_factory.mktemp("smallest") / "model")


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A pipeline with a tokenizer and a text encoder."""
    return tiny.build("sd", tmp_path_factory.mktemp("sd") / "model")

"""The backends that the suite is about."""

from __future__ import annotations

import pytest

from qdx.backends.registry import get_backend
from qdx.exporter.errors import RuntimeMissing
from tests.support.conformance.subject import Subject

RUNTIMES = ("coreml", "onnxruntime", "openvino", "tensorrt")


@pytest.fixture(scope="module", params=RUNTIMES)
def subject(request, tmp_path_factory):
    """Each backend whose runtime is installed, once for a file of tests."""
    try:
        get_backend(request.param)
    except RuntimeMissing as missing:
        pytest.skip(missing.message)
    return Subject(request.param, tmp_path_factory.mktemp(request.param))

"""A tiny bundle for each runtime, exported once."""

from __future__ import annotations

import pytest

import qdx


@pytest.fixture(scope="session")
def onnx_bundle(smallest, tmp_path_factory):
    output = tmp_path_factory.mktemp("bundles") / "onnx"
    qdx.export(smallest, target="onnxruntime", plan="float32", output=output)
    return output


@pytest.fixture(scope="session")
def openvino_bundle(smallest, tmp_path_factory):
    output = tmp_path_factory.mktemp("bundles") / "ov"
    qdx.export(smallest, target="openvino", plan="float32", output=output)
    return output

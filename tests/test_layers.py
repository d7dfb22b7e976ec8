"""Layers point one way: exporter, targets, backends, front door."""

from __future__ import annotations

import pytest

from tests.layers import ROOT, breaches, source_files


@pytest.mark.parametrize("path", [path.relative_to(ROOT).as_posix() for path in source_files()])
def test_a_module_imports_only_from_its_layer_and_below(path):
    assert breaches(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("exporter/graph/x.py", "import onnxruntime"),
        ("exporter/graph/x.py", "def f():\n    import openvino as ov"),
        ("exporter/x.py", "from qdx.targets import load_target"),
        ("exporter/x.py", "from qdx import targets"),
        ("exporter/x.py", "import qdx"),
        ("exporter/x.py", "from qdx.cli.output import say"),
        (
            "exporter/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import qdx.backends.onnx",
        ),
        ("targets/x.py", "import coremltools.models"),
        ("targets/x.py", "from qdx.backends.registry import get_backend"),
        ("targets/x.py", "from qdx.bundle import read_bundle"),
        ("backends/openvino/x.py", "from qdx.backends.onnxruntime.runner import Runner"),
        ("backends/openvino/x.py", "from qdx.backends import onnxruntime"),
        ("backends/onnxruntime/x.py", "import qdx.bundle"),
        ("backends/onnx/x.py", "from qdx.backends.openvino import backend"),
    ],
)
def test_a_planted_fault_is_seen(path, source):
    assert breaches(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("exporter/x.py", "import torch\nfrom qdx.exporter.errors import QdxError"),
        ("targets/x.py", "from qdx.exporter.files import read_text"),
        ("backends/openvino/x.py", "import openvino\nfrom qdx.backends.onnx.lowering import lower"),
        ("backends/openvino/x.py", "from qdx.backends.contract import Runner"),
        ("backends/openvino/x.py", "from qdx.targets import TargetProfile"),
        ("backends/registry.py", "from qdx.backends.openvino.backend import OpenVino"),
        ("qdx/x.py", "import openvino\nfrom qdx.backends.registry import get_backend"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert breaches(path, source) == []

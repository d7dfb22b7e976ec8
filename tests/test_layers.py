"""Layers point one way: exporter, targets, backends, front door; so do the rooms in them, and no module imports itself around."""

from __future__ import annotations

import re

import pytest

from tests.support.layers import ROOT, breaches, circles, imports, room_of, source_files


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
        ("exporter/graph/ir/x.py", "from qdx.exporter.graph.analysis.flow import Flow"),
        ("exporter/graph/analysis/x.py", "from qdx.exporter.graph.rewrites import face"),
        ("exporter/formats/x.py", "from qdx.exporter.transforms.recipe import Recipe"),
        ("exporter/plan/schema/x.py", "from qdx.exporter.plan.resolve.resolve import resolve"),
        ("exporter/x.py", "from qdx.exporter.text.words import about"),
        ("qdx/source/x.py", "def f():\n    from qdx.compile.export import export"),
        ("qdx/verification/measure/x.py", "from qdx.verification.judge.gates import Gate"),
        ("qdx/bundle/x.py", "import qdx.cache.store"),
        ("qdx/compile/x.py", "from qdx.cli.output import say"),
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
        ("qdx/cli/x.py", "import openvino\nfrom qdx.backends.registry import get_backend"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert breaches(path, source) == []


def test_every_module_is_in_a_room_of_the_order():
    for path in source_files():
        room_of(path.relative_to(ROOT).as_posix())


def test_no_module_imports_itself_around():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in source_files()}

    assert circles(sources) == []


@pytest.mark.parametrize("condition", ["True", "TYPE_CHECKING"])
def test_a_planted_circle_is_seen(condition):
    sources = {
        "exporter/limits.py": f"if {condition}:\n    import qdx.exporter.files",
        "exporter/files.py": "def f():\n    from qdx.exporter.errors import QdxError",
        "exporter/errors.py": "from qdx.exporter import limits",
    }

    assert set(circles(sources)) == set(sources)


def test_the_front_door_has_folders_and_its_public_face_alone():
    modules = {path.name for path in (ROOT / "qdx").glob("*.py")}

    assert modules == {"__init__.py", "__main__.py", "_version.py"}


def test_no_test_file_imports_another():
    """What they share lies in `tests/support`."""
    found = [
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "tests").rglob("*.py")
        for name in imports(path.read_text())
        if re.match(r"tests\..*\btest_", name)
    ]

    assert found == []
